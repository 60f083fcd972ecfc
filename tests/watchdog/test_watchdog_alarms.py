"""Alarms on their way: told once, over restarts and deaths of the watchdog, refusing targets and a disk that takes
nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from doubles.alarm_ends import Webhook, webhook

from processes.adapters import settings
from processes.adapters.settings import Settings
from processes.core.alarms.alarm import AlarmState
from processes.core.alarms.outbox import BURST, Pace
from processes.core.records.ledger import Ledger
from processes.core.shown.status import (
    CanaryReport,
    CommandsReport,
    FleetReport,
    IncidentsReport,
    Overall,
    ProcessReport,
    Report,
    Verdict,
)
from processes.core.watchdog.incident_lifecycle import Ending
from processes.core.watchdog.verdict import Judgement
from processes.watchdog.alarms import LEAVE_S_MAX, Alarms
from processes.watchdog.incident_log import IncidentLog
from processes.watchdog.incident_store import Store

LOG = structlog.stdlib.get_logger("fleethub.test")
LONG_S = 40.0


def report() -> Report:
    hub = ProcessReport("hub", "RUNNING", 1, 1.0, 0, None, Verdict.ADVANCING)
    return Report(
        Overall.OK,
        1,
        [hub],
        CanaryReport(ok=True),
        FleetReport(),
        CommandsReport(),
        IncidentsReport(),
        at_mono_s=time.monotonic(),
    )


class Watchdog:
    """A watchdog's log of incidents and its alarms, without its judgement."""

    def __init__(self, found: Settings, leave_s_max: float = LEAVE_S_MAX) -> None:
        self._store = Store(found.incidents_database, found.evidence, 200, 1 << 20)
        self.incident_log = IncidentLog(self._store, "boot", LOG)
        self.alarms = Alarms(found, self.incident_log, LOG, leave_s_max=leave_s_max)
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Watchdog:
        self._tasks = [asyncio.create_task(work) for work in (self.incident_log.run(), self.alarms.run(), self._look())]
        return self

    async def __aexit__(self, *_: object) -> None:
        """It is killed: nothing is finished."""
        for task in (*self._tasks, *self.alarms._sending.values()):
            task.cancel()
        for task in (*self._tasks, *self.alarms._sending.values()):
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._store.close()

    async def _look(self, lost: int = 0) -> None:
        while True:
            self.alarms.look(report(), frozenset(), Ledger(lost=lost))
            await asyncio.sleep(0.1)

    def fall(self, name: str = "hub", remedy: str = "killed and replaced") -> Any:
        """An incident begins."""
        judgement = Judgement(Verdict.FROZEN, "no turn for 2.0 s", time.monotonic())
        incident = began(self.incident_log, name, judgement, 7)
        incident.remedy, incident.stuck_at = remedy, "loop.py:7 take_twice"
        return incident

    def rise(self, incident: Any) -> None:
        """It is over."""
        ended(self.incident_log, incident)


def began(log: IncidentLog, name: str, judgement: Judgement, pid: int) -> Any:
    """An incident that is found now."""
    return log.incidents.found(name, judgement, pid, log.now(), epoch=1, ledger=None)


def ended(log: IncidentLog, incident: Any) -> None:
    """The same is over now."""
    ending = Ending(incident, time.monotonic())
    log.incidents.settle(ending, incident.pid, log.now(), epoch=1, ledger=None, missing=0)


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with webhook() as found:
        yield found


def settings_of(state: Path, *urls: str, argv: str = "") -> Settings:
    return settings.load(
        {"FLEETHUB_STATE": str(state), "FLEETHUB_ALARMS_URLS": " ".join(urls), "FLEETHUB_ALARMS_EXEC": argv}
    )


async def until(what: Callable[[], object], seconds: float = LONG_S) -> None:
    deadline_s = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        await asyncio.sleep(0.02)


def kept(found: Settings) -> AlarmState:
    return msgspec.json.decode(found.alarms.read_bytes(), type=AlarmState)


def told(found: Settings, number: int) -> bool:
    """True once it is on disk that every target was told of everything up to `number`."""
    return (
        found.alarms.exists()
        and all(t.number >= number for t in kept(found).targets.values())
        and kept(found).number >= number
    )


def play(scene: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scene)


def test_incident_is_told_and_so_is_its_end_and_no_secret_is_kept(tmp_path: Path, hook: Webhook) -> None:
    found = settings_of(tmp_path, hook.url)

    async def scene() -> None:
        async with Watchdog(found) as watchdog:
            incident = watchdog.fall()
            await until(lambda: len(hook.got) == 1)
            watchdog.rise(incident)
            await until(lambda: len(hook.got) == 2 and told(found, 2))

    play(scene())
    first, second = hook.got
    assert first["title"].endswith("] hub frozen")
    assert all(
        word in first["message"]
        for word in ("BEGUN", "no turn for 2.0 s", "loop.py:7 take_twice", "killed and replaced")
    )
    assert second["title"].endswith("] over: hub frozen")
    assert "nothing lost" in second["message"]
    assert found.alarms.stat().st_mode & 0o777 == 0o600
    assert not any(secret in found.alarms.read_text() for secret in ("s3cret", "T0KEN", "user1"))


def test_watchdog_killed_while_it_sends_sends_again_and_one_killed_later_does_not(
    tmp_path: Path, hook: Webhook
) -> None:
    found = settings_of(tmp_path, hook.url)
    hook.answer = "hang"

    async def scene() -> None:
        async with Watchdog(found) as watchdog:
            watchdog.fall()
            await until(hook.asked.is_set)
        assert hook.got == []
        hook.answer = 200
        async with Watchdog(found):
            await until(lambda: told(found, 1))
        assert len(hook.got) == 1
        async with Watchdog(found) as watchdog:
            await until(lambda: watchdog.incident_log.loaded)
            watchdog.rise(next(iter(watchdog.incident_log.incidents.open.values())))
            await until(lambda: told(found, 2))
        async with Watchdog(found) as watchdog:
            another = watchdog.fall("gateway")
            await until(lambda: told(found, 3))
            watchdog.rise(another)
            await until(lambda: told(found, 4))

    play(scene())
    assert [title.partition("] ")[2] for title in hook.titles] == [
        "hub frozen",
        "over: hub frozen",
        "gateway frozen",
        "over: gateway frozen",
    ]


def test_incident_that_no_watchdog_lived_to_tell_is_told_by_the_next(tmp_path: Path, hook: Webhook) -> None:
    found = settings_of(tmp_path, hook.url)

    async def scene() -> None:
        async with Watchdog(found) as watchdog:
            watchdog.rise(watchdog.fall("hub"))
            await until(lambda: told(found, 2))
        store = Store(found.incidents_database, found.evidence, 200, 1 << 20)
        incident_log = IncidentLog(store, "boot", LOG)
        writing = asyncio.create_task(incident_log.run())
        unseen = began(incident_log, "fanout", Judgement(Verdict.DEAD, "died unexpectedly", time.monotonic()), 8)
        ended(incident_log, unseen)
        await until(lambda: incident_log.totals.total == 2)
        writing.cancel()
        store.close()
        async with Watchdog(found):
            await until(lambda: told(found, 4))

    play(scene())
    assert hook.titles[-1].endswith("] over: fanout dead")


def test_first_start_does_not_tell_of_the_past(tmp_path: Path, hook: Webhook) -> None:
    async def scene() -> None:
        async with Watchdog(settings_of(tmp_path)) as watchdog:
            watchdog.rise(watchdog.fall())
            await until(lambda: watchdog.incident_log.totals.total == 1)
        found = settings_of(tmp_path, hook.url)
        found.alarms.write_text("garbage")  # as if this were the first start: nobody knows what was told
        async with Watchdog(found) as watchdog:
            await until(lambda: watchdog.alarms._caught_up)
            gateway = watchdog.fall("gateway")
            await until(lambda: hook.got)
            watchdog.rise(gateway)
            await until(lambda: len(hook.got) >= 2)

    play(scene())
    assert [title.partition("] ")[2] for title in hook.titles] == ["gateway frozen", "over: gateway frozen"]


def test_target_that_refuses_is_tried_again_and_the_others_do_not_wait_for_it(tmp_path: Path, hook: Webhook) -> None:
    with webhook() as other:
        found = settings_of(tmp_path, hook.url, other.url)
        hook.answer = 500

        async def scene() -> None:
            async with Watchdog(found) as watchdog:
                watchdog.fall()
                await until(lambda: other.got)
                await until(lambda: kept(found).targets["json"].attempts >= 1)
                failing = kept(found).targets["json"]
                assert "500" in failing.error
                assert "s3cret" not in failing.error
                hook.answer = 200
                await until(lambda: told(found, 1))

        play(scene())
        assert (len(hook.got), len(other.got)) == (1, 1)
        assert kept(found).targets["json"].error == ""


def test_flood_is_a_few_messages_and_the_rest_waits_to_be_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = settings_of(tmp_path, argv=f"/bin/sh -c 'cat >> {out}; echo >> {out}'")

    def titles() -> list[str]:
        return [json.loads(line)["title"] for line in out.read_text().splitlines()] if out.exists() else []

    async def scene() -> None:
        async with Watchdog(found) as watchdog:
            for number in range(BURST + 3):
                watchdog.fall(f"gateway:{number}")
                await until(lambda number=number: len(titles()) >= min(number + 1, BURST))  # type: ignore[misc]
            await until(lambda: kept(found).number == BURST + 3)
            assert len(titles()) == BURST
            assert len(kept(found).events) >= 3
            watchdog.alarms._paces["exec"] = Pace()  # a minute later
            await until(lambda: told(found, BURST + 3))

    play(scene())
    assert len(titles()) == BURST + 1
    assert titles()[-1].endswith("and 2 more")


def test_disk_that_takes_nothing_silences_nobody(tmp_path: Path, hook: Webhook) -> None:
    found = settings_of(tmp_path, hook.url)
    found.alarms.mkdir()

    async def scene() -> None:
        async with Watchdog(found) as watchdog:
            watchdog.fall()
            await until(lambda: hook.got)

    play(scene())


def test_leaving_waits_for_what_is_under_way_so_that_it_is_not_sent_twice(tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = settings_of(
        tmp_path, argv=f"/bin/sh -c 'cat > /dev/null; echo begun >> {out}; sleep 1; echo sent >> {out}'"
    )

    async def scene() -> None:
        async with Watchdog(found) as watchdog:
            watchdog.fall()
            await until(out.exists)
            await watchdog.alarms.leave()
        assert told(found, 1)
        async with Watchdog(found) as watchdog:
            another = watchdog.fall("gateway")
            await until(lambda: told(found, 2))
            watchdog.rise(another)

    play(scene())
    assert out.read_text().split() == ["begun", "sent"] * 2


def test_leaving_does_not_wait_for_ever(tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = settings_of(tmp_path, argv=f"/bin/sh -c 'echo begun > {out}; exec sleep 300'")

    async def scene() -> None:
        async with Watchdog(found, leave_s_max=0.2) as watchdog:
            watchdog.fall()
            await until(out.exists)
            async with asyncio.timeout(LONG_S):
                await watchdog.alarms.leave()
        assert not told(found, 1)

    play(scene())


def test_report_of_a_watchdog_long_dead_is_a_hole_that_is_told(tmp_path: Path, hook: Webhook) -> None:
    found = settings_of(tmp_path, hook.url)
    found.run.mkdir()
    old = msgspec.structs.replace(report(), at_mono_s=time.monotonic() - 100)
    found.report.write_bytes(msgspec.json.encode(old))
    past_s = time.time() - 100
    os.utime(found.report, (past_s, past_s))

    async def scene() -> None:
        async with Watchdog(found):
            await until(lambda: hook.got)

    play(scene())
    assert "the watchdog was away for 10" in hook.titles[0]


def test_a_disk_that_takes_a_part_of_the_state_leaves_the_one_before_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel takes half of it without an error, and refuses the rest: what was told before is not forgotten."""
    found, write, refused = settings_of(tmp_path), os.write, [0]

    def half(fd: int, content: Any) -> int:
        text = bytes(content)
        if text.startswith(b"{"):
            return write(fd, text[: len(text) // 2])
        if b'"' not in text:
            return write(fd, text)
        refused[0] += 1
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async def scene() -> None:
        async with Watchdog(found) as watchdog:
            watchdog.fall("hub")
            await until(lambda: found.alarms.exists() and b"hub" in found.alarms.read_bytes())
            with monkeypatch.context() as patch:
                patch.setattr(os, "write", half)
                before = kept(found)
                watchdog.fall("gateway")
                await until(lambda: refused[0] > 0)
                assert kept(found) == before
            await until(lambda: b"gateway" in found.alarms.read_bytes())

    play(scene())
