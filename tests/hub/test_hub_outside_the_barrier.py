"""What an agent says ends no hub, wherever it raises: the event is blamed, its host is counted, the others are served.

Each place outside of a step is made to raise when it meets the host `bad`, in a real loop over a real database.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from doubles.deadline import WAIT_S
from doubles.queue_link import MemoryQueueLink, MemoryQueues

from processes.adapters import clock
from processes.core.hub import memory as hub_memory
from processes.core.hub import presence, step
from processes.core.hub.effects import Put
from processes.core.hub.memory import Memory
from processes.core.hub.rules import Census, Rules
from processes.core.records import dead_letter, poison
from processes.core.records.dead_letter import Why
from processes.core.records.host import HostRecord
from processes.core.shown import replica, views
from processes.core.travels import messages
from processes.core.travels.agent_frames import Heartbeat, Metrics, Register
from processes.core.travels.messages import (
    AgentRegistered,
    CensusTaken,
    Connection,
    EnrollHost,
    Event,
    HeartbeatReceived,
    RequestReceived,
)
from processes.core.travels.pulse import Pulse
from processes.core.values import Presence
from processes.hub import store
from processes.hub.loop import Loop
from processes.hub.sqlite_store import SqliteStore


class House:
    """One hub's loop, queues in memory, and the test in the place of gateway and fanout."""

    def __init__(self, loop: Loop, memory: Memory, pulse: Pulse, queues: MemoryQueues) -> None:
        self.loop, self.memory, self.pulse = loop, memory, pulse
        self._link = MemoryQueueLink(queues, "gateway")

    async def say(self, *events: Event) -> None:
        await self._link.append(messages.EVENTS, [messages.encode(event) for event in events])

    async def until(self, true: Callable[[], object]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not true():
                await asyncio.sleep(0.01)

    async def enroll(self, *names: str) -> None:
        for name in names:
            request = EnrollHost(name, f"hash-{name}")
            await self.say(RequestReceived(f"enroll {name}", "fanout", "ann", clock.now().boot_s + 60, request))
        await self.until(lambda: all(name in self.memory.hosts for name in names))

    def registered(self, name: str) -> AgentRegistered:
        enrolment = self.memory.hosts[name].enrolment
        info = Connection(f"c-{name}", "gateway", name, enrolment, Register(name, protocol=1), since_boot_s=1.0)
        return AgentRegistered(info.connection, "gateway", name, info)

    def census(self, *names: str, number: int = 1) -> CensusTaken:
        return CensusTaken("gateway", number, "boot", 0, True, [self.registered(name).info for name in names])

    @staticmethod
    def beat(name: str) -> HeartbeatReceived:
        return HeartbeatReceived(f"c-{name}", "gateway", name, Heartbeat(Metrics(cpu=1.0)))

    def blamed(self) -> list[tuple[str, str, str]]:
        """Of each dead letter: why, the kind of its event, its host."""
        return [(str(kept.why), kept.kind, kept.host) for kept in self.memory.dead_letters.values()]


def lives(path: Path, *scripts: Callable[[House], Awaitable[None]]) -> None:
    """Run a hub for each script, and the script beside it; whatever ends a loop ends the test."""
    queues = MemoryQueues()
    for script in scripts:
        asyncio.run(_lives(path, script, queues))


async def _lives(path: Path, script: Callable[[House], Awaitable[None]], queues: MemoryQueues) -> None:
    opened = await SqliteStore.open(path, path.with_name("epoch"))
    file = SimpleNamespace(
        drills=SimpleNamespace(enabled=False), retention=SimpleNamespace(commands_days=90, output_mb=1024)
    )
    quiet = SimpleNamespace(
        pulse=Pulse(pid=1), refuse=lambda *_: None, beat=lambda: None, take=lambda _: None, put_down=lambda: None
    )
    process: Any = SimpleNamespace(
        settings=SimpleNamespace(file=file), log=structlog.get_logger(), pulse=quiet, stop=asyncio.Event(),
        poison=SimpleNamespace(events={}, hosts={}, names=frozenset(), forget_old=lambda: False),
    )  # fmt: skip
    memory = step.restore(Rules(), opened.epoch, clock.boot_id(), clock.now(), await opened.restored())
    link: Any = MemoryQueueLink(queues, "hub")
    link.epoch = memory.epoch
    loop = Loop(process, opened, memory, link, await opened.position(), tick_s=0.02)
    running = asyncio.create_task(loop.run())
    playing = asyncio.ensure_future(script(House(loop, memory, quiet.pulse, queues)))
    try:
        await asyncio.wait({running, playing}, return_when=asyncio.FIRST_COMPLETED)
        assert not running.done(), running.exception()
        await playing
    finally:
        playing.cancel()
        process.stop.set()
        await asyncio.wait({running})
        await opened.close()
    assert running.exception() is None


def raising(work: Callable[..., Any], is_bad: Callable[..., bool]) -> Callable[..., Any]:
    """Return the function, which raises when it meets what is bad."""

    def call(*args: Any, **named: Any) -> Any:
        if is_bad(*args, **named):
            raise RecursionError("maximum recursion depth exceeded")
        return work(*args, **named)

    return call


async def others_are_served(house: House) -> None:
    """A host that was enrolled before comes, and is shown as online."""
    await house.say(house.registered("good"), house.beat("good"))
    await house.until(lambda: house.memory.links.get("good", None) and house.memory.hosts["good"].heartbeat)
    assert house.memory.links["good"].presence is Presence.ONLINE


def is_bad_row(name: str, row: Any) -> bool:
    return isinstance(row, HostRecord) and row.name == "bad" and row.heartbeat is not None


PLACES: dict[str, tuple[Any, str, Callable[..., bool], str]] = {
    "what operators see of it": (
        hub_memory, "host_view", lambda host, _: host.name == "bad" and host.heartbeat is not None, "HeartbeatReceived"
    ),
    "the change of its row": (
        replica, "check", lambda change: change.id == "bad" and b'"metrics":{' in change.fields, "HeartbeatReceived"
    ),
    "the row of its host in the copy for snapshots": (
        replica.Replica, "apply",
        lambda _, change: change.id == "bad" and b'"metrics":{' in change.fields, "host",
    ),
    "its record on its way to the disk": (
        store, "_statement", lambda write, *_: isinstance(write, Put) and is_bad_row(write.key, write.row), "HostRecord"
    ),
    "the name of its event": (
        poison, "name_of",
        lambda event, _: isinstance(event, HeartbeatReceived) and event.host == "bad", dead_letter.UNDECODABLE,
    ),
    "what its gateway is told": (
        messages, "encode", lambda message: getattr(message, "connection", "") == "c-bad"
        and isinstance(message, messages.DeliverRegistered), "DeliverRegistered",
    ),
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_a_place_outside_of_a_step_that_raises_ends_no_hub(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name, is_bad, blamed = PLACES[place]

    async def script(house: House) -> None:
        await house.enroll("good", "bad")
        monkeypatch.setattr(owner, name, raising(getattr(owner, name), is_bad))
        await house.say(house.registered("bad"), house.beat("bad"))
        await house.until(house.blamed)
        why = Why.UNDECODABLE if blamed == dead_letter.UNDECODABLE else Why.RAISED
        assert set(house.blamed()) == {(why, blamed, "bad")}
        assert house.memory.asides["bad"], "its host is counted"
        await others_are_served(house)

    lives(tmp_path / "fleet.db", script)


def test_a_connection_in_a_census_that_raises_is_put_aside_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(house: House) -> None:
        await house.enroll("good", "bad")
        connect = raising(presence.connect, lambda draft, info: info.host == "bad")
        monkeypatch.setattr(presence, "connect", connect)
        # A dead letter waits for the disk, which `good` does not. If a commit is under way just then, the census ends
        # before `bad` is looked at again, which then is nobody's: it is found by the next census.
        for number in itertools.count(1):
            await house.say(house.census("bad", "good", number=number))
            await house.until(lambda: (link := house.memory.links.get("good")) and link.presence is Presence.ONLINE)
            done = Census(number, "boot", done=True)
            await house.until(lambda: house.memory.censuses["gateway"] == done and not house.pulse.backlog)  # noqa: B023
            if house.blamed():
                break
        assert house.blamed() == [(Why.RAISED, "CensusTaken", "bad")]
        assert house.memory.asides["bad"]

    lives(tmp_path / "fleet.db", script)


def test_an_event_that_cannot_be_put_aside_in_order_is_counted_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(house: House) -> None:
        await house.enroll("good", "bad")
        monkeypatch.setattr(step, "put_aside", raising(step.put_aside, lambda *_, **__: True))
        monkeypatch.setattr(presence, "heartbeat", raising(presence.heartbeat, lambda _, event: event.host == "bad"))
        await house.say(house.beat("bad"))
        await house.until(house.blamed)
        assert house.memory.asides["bad"]
        await others_are_served(house)

    lives(tmp_path / "fleet.db", script)


@pytest.mark.parametrize("broken", ['"register":{"hostname":["not a text"]}', '"heartbeat":7', '"facts":"{a:[0"'])
def test_a_hub_begins_with_a_host_whose_words_it_cannot_read(broken: str, tmp_path: Path) -> None:
    """The bug it would catch: a record of another version, or a damaged one, lets no hub begin any more."""
    path = tmp_path / "fleet.db"

    async def enroll(house: House) -> None:
        await house.enroll("good", "bad")
        await house.until(lambda: not house.loop._turns.has_work)

    def spoil() -> None:
        with contextlib.closing(sqlite3.connect(path)) as sqlite, sqlite:
            (record,) = sqlite.execute("SELECT record FROM hosts WHERE name = 'bad'").fetchone()
            written = record.removesuffix("}") + f",{broken}}}"
            sqlite.execute("UPDATE hosts SET record = ? WHERE name = 'bad'", (written,))

    async def come(house: House) -> None:
        assert house.memory.hosts["bad"].token_hash == "hash-bad"
        assert house.memory.hosts["bad"].register is None
        await others_are_served(house)
        await house.say(house.registered("bad"))
        await house.until(lambda: house.memory.links["bad"].presence is Presence.ONLINE)

    queues = MemoryQueues()
    asyncio.run(_lives(path, enroll, queues))
    spoil()
    asyncio.run(_lives(path, come, queues))


def test_a_host_that_cannot_be_shown_at_the_start_is_shown_without_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "fleet.db"

    async def come(house: House) -> None:
        await house.enroll("good", "bad")
        await house.say(house.registered("bad"), house.beat("bad"))
        await house.until(lambda: house.memory.hosts["bad"].heartbeat)
        view = raising(views.host_view, lambda host, _: host.name == "bad" and host.heartbeat is not None)
        monkeypatch.setattr(step, "host_view", view)

    async def blamed(house: House) -> None:
        await house.until(lambda: house.blamed() == [(Why.RAISED, "host", "bad")])
        assert house.loop._publisher._replica.row("host", "bad") is not None
        await others_are_served(house)

    lives(path, come, blamed)
