"""A host whose events end one hub after the other is suspended, whatever the bytes of its events."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import structlog
from doubles.fleet_play import Play
from hypothesis import given, settings
from hypothesis import strategies as st

from processes.core.hub import beats, flood, step
from processes.core.hub.memory import Draft
from processes.core.records import poison
from processes.core.records.dead_letter import DeadLetter, Why
from processes.core.records.poison import DeathRecord
from processes.core.travels import messages
from processes.core.travels.agent_frames import Heartbeat
from processes.core.travels.messages import (
    AgentDisconnected,
    Beat,
    Death,
    Event,
    HeartbeatReceived,
    HeartbeatsReceived,
    LiftHost,
)
from processes.core.values import CANARY_HOST
from processes.hub import barrier
from processes.hub.barrier import Barrier


class Dies(BaseException):
    """The process that steps this event ends."""


class Hubs:
    """Hubs one after the other on one fleet: each begins with what its predecessors left on disk and in the pulse."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, deadly: set[str] | None = None) -> None:
        self.play = Play()
        self.play.enroll("a", "b", "c", "d")
        self.play.at_s += 1
        self.deadly = {"a"} if deadly is None else deadly
        self.record = DeathRecord()
        self.in_hand = ""
        self.deaths = 0
        monkeypatch.setattr(barrier, "step", SimpleNamespace(step=self._step, put_aside=step.put_aside))
        self._start()

    def _step(self, memory: Any, event: Any, now: Any) -> Draft:
        ignored = flood.suspended(memory, event)
        if isinstance(event, HeartbeatReceived) and event.host in self.deadly and not ignored:
            raise Dies
        return step.step(memory, event, now)

    def _start(self) -> None:
        self.play.restart()
        found = SimpleNamespace(
            events=poison.poisonous(self.record),
            hosts=poison.by_host(self.record),
            names=frozenset(death.name for death in self.record.deaths),
        )
        pulse = SimpleNamespace(take=self._take, put_down=lambda: self._take(""), pulse=SimpleNamespace(errors=0))
        process: Any = SimpleNamespace(
            poison=found, pulse=pulse, log=structlog.get_logger(),
            settings=SimpleNamespace(file=SimpleNamespace(drills=SimpleNamespace(enabled=False))),
        )  # fmt: skip
        self.barrier = Barrier(process, self.play.memory)

    def _take(self, told: str) -> None:
        self.in_hand = told

    def arrives(self, event: Event, retried: DeadLetter | None = None) -> bool:
        """Return whether the hub lives on. If it dies, its successor starts; nothing of the step is on disk."""
        name = poison.name_of(event, messages.encode(event))
        try:
            effects = self.barrier.step(event, name, self.play.now, retried).apply()
        except Dies:
            self.died()
            return False
        self.barrier.applied(effects)
        return True

    def come(self) -> None:
        """The hosts connect, and their first heartbeats come."""
        for host in "abcd":
            self.play.connect(host, f"c.{host}")
            self.play.beat(host, f"c.{host}")

    def died(self) -> None:
        """The hub has died, and its successor starts."""
        self.deaths += 1
        self.play.at_s += 1
        told, mark = poison.of_in_hand(self.in_hand)
        now, pid = self.play.now, self.deaths
        death = Death(told, "exited", "boot", now.boot_s, now.wall_s, pid, pid, "", f"stack {pid}", mark)
        self.record = poison.counted(self.record, death)
        self._start()

    def suspended(self, name: str = "a") -> bool:
        return bool(self.play.memory.hosts[name].suspended)


def beat(number: int, host: str = "a") -> HeartbeatReceived:
    return HeartbeatReceived(f"c.{host}", "gateway", host, Heartbeat(command_pid=number))


@pytest.fixture
def hubs(monkeypatch: pytest.MonkeyPatch) -> Hubs:
    return Hubs(monkeypatch)


def test_an_agent_that_changes_a_byte_each_time_ends_two_hubs_and_is_suspended_with_both_stacks(hubs: Hubs) -> None:
    for number in range(30):
        hubs.arrives(beat(number))
    assert hubs.deaths == 2
    assert hubs.suspended()
    (kept,) = hubs.play.memory.dead_letters.values()
    assert (kept.host, kept.why, [death.stacks for death in kept.deaths]) == ("a", Why.POISON, ["stack 1", "stack 2"])
    assert "other events of a ended the hub 2 times" in kept.error
    assert "2 different events" in hubs.play.memory.hosts["a"].suspended
    assert not any(hubs.suspended(name) for name in "bcd")


def test_events_that_are_read_again_by_the_successor_cost_one_death_more_at_most(hubs: Hubs) -> None:
    """Nothing of a batch was acknowledged when its hub died: its successor begins with the same events."""
    queue = [beat(number) for number in range(10)]
    while not all(hubs.arrives(event) for event in queue):
        assert hubs.deaths <= 3
    assert hubs.suspended()


def test_a_host_with_one_poisonous_event_keeps_its_others_and_is_not_suspended(hubs: Hubs) -> None:
    for _ in range(9):
        hubs.arrives(beat(1))
    assert hubs.deaths == poison.DEATHS_MAX
    hubs.deadly.clear()
    assert hubs.arrives(beat(2, "b"))
    assert len(hubs.play.memory.dead_letters) == 1
    assert not hubs.suspended("b")


def test_deaths_further_apart_than_the_window_are_not_added_up(hubs: Hubs) -> None:
    for number in range(6):
        hubs.arrives(beat(number))
        hubs.play.at_s += poison.HOST_WINDOW_S
    assert hubs.deaths == 6
    assert not hubs.suspended()


def test_the_end_of_a_connection_and_the_canary_are_stepped_whatever_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    hubs = Hubs(monkeypatch, deadly={"a", CANARY_HOST})
    for number in range(2):
        hubs.arrives(beat(number))
        hubs.arrives(beat(number, CANARY_HOST))
    hubs.deadly.clear()
    assert hubs.arrives(AgentDisconnected("c.a", "gateway", "a", 1006, ""))
    assert hubs.arrives(beat(9, CANARY_HOST))
    assert flood.to_blame(beat(9, CANARY_HOST)) == ""
    assert not hubs.play.memory.dead_letters


def test_after_a_lift_the_deaths_before_it_are_forgiven_by_later_hubs_too(hubs: Hubs) -> None:
    for number in range(3):
        hubs.arrives(beat(number))
    assert hubs.suspended()
    hubs.play.at_s += 1
    assert hubs.play.ask(LiftHost("a")).status == 200
    hubs.deadly.clear()
    assert hubs.arrives(beat(9))
    assert not hubs.suspended()
    hubs.deadly.add("a")
    hubs.arrives(beat(10))
    hubs.arrives(beat(11))
    hubs.arrives(beat(12))
    assert hubs.deaths == 4
    assert hubs.suspended(), "the count begins anew"


def test_a_dead_letter_that_an_operator_tries_again_is_not_counted_against_its_host(hubs: Hubs) -> None:
    event = beat(1)
    kept = DeadLetter("l1", 1.0, "HeartbeatReceived", Why.RAISED, host="a", event=msgspec.json.encode(event))
    hubs.arrives(event, kept)
    assert hubs.deaths == 1
    assert poison.by_host(hubs.record) == {}


programs = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 40)), max_size=60)


@settings(deadline=None, max_examples=60)
@given(programs, st.sets(st.sampled_from("abc")))
def test_each_deadly_host_costs_three_hubs_at_most_and_no_other_host_is_suspended(
    program: list[tuple[str, int]], deadly: set[str]
) -> None:
    """The bugs that it would catch: deaths of different events are not added up; a death is counted against a host that
    did nothing.
    """
    with pytest.MonkeyPatch.context() as patched:
        hubs = Hubs(patched, deadly=set(deadly))
        for host, number in program:
            hubs.arrives(beat(number, host))
        assert hubs.deaths <= 3 * len(deadly)
        assert not [name for name in "abcd" if hubs.suspended(name) and name not in deadly]
        for name in deadly:
            different = {number for host, number in program if host == name}
            if len(different) > poison.DEATHS_MAX + 1:
                assert hubs.suspended(name)
                assert not flood.blamed(hubs.play.memory, name, poison.by_host(hubs.record), hubs.play.now)


# batches of heartbeats


def row(host: str, number: int) -> Beat:
    return Beat(f"c.{host}", host, command_pid=number)


def hear(hubs: Hubs, *rows: Beat) -> bool:
    """A batch arrives, as often as hubs die of it. Return whether this hub lives on."""
    batch = HeartbeatsReceived("gateway", list(rows))
    name = poison.name_of(batch, messages.encode(batch))
    try:
        heard = hubs.barrier.beats(batch, name, hubs.play.now)
    except Dies:
        hubs.died()
        return False
    return all(hubs.arrives(beats.single("gateway", each)) for each in heard.alone)


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Hubs:
    """Hubs whose hosts b and c are online; a heartbeat of `a` ends each hub, in a batch too."""
    hubs = Hubs(monkeypatch, deadly=set())

    def take(memory: Any, event: HeartbeatsReceived, now: Any, suspects: Any) -> Any:
        if any(each.host in hubs.deadly and each.host not in suspects for each in event.beats):
            raise Dies
        return beats.take(memory, event, now, suspects)

    monkeypatch.setattr(barrier, "beats", SimpleNamespace(take=take))
    hubs.come()
    return hubs


def test_a_batch_that_ended_a_hub_is_stepped_one_by_one_and_its_row_alone_is_put_aside(online: Hubs) -> None:
    online.deadly = {"a"}
    rows = [row("b", 1), row("a", 1), row("c", 1)]
    for _ in range(9):
        online.come()
        if hear(online, *rows):
            break
    assert online.deaths == 3, "one with the batch in hand, two with the row"
    (kept,) = online.play.memory.dead_letters.values()
    assert (kept.host, kept.why, kept.kind) == ("a", Why.POISON, "HeartbeatReceived")
    heard = online.play.memory.hosts
    assert heard["b"].heartbeat == heard["c"].heartbeat == Heartbeat(command_pid=1)


def test_a_batch_that_raises_is_stepped_one_by_one(online: Hubs, monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(*_: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(barrier, "beats", SimpleNamespace(take=raises))
    assert hear(online, row("b", 5), row("c", 6))
    assert online.play.memory.hosts["c"].heartbeat == Heartbeat(command_pid=6)
    assert online.in_hand == ""


def test_a_batch_stands_in_the_pulse_while_it_is_taken_and_only_then(online: Hubs) -> None:
    online.deadly = {"a"}
    assert hear(online, row("b", 1))
    assert online.in_hand == ""
    told = []
    online.died = lambda: told.append(online.in_hand)  # type: ignore[method-assign]
    assert not hear(online, row("a", 1))
    assert told[0].startswith("HeartbeatsReceived ")


def test_the_heartbeats_of_a_host_with_a_death_are_stepped_alone_in_every_batch(online: Hubs) -> None:
    online.deadly = {"a"}
    assert not online.arrives(beat(1))
    online.deadly = set()
    online.come()
    hear(online, row("a", 2), row("b", 2))
    batch = HeartbeatsReceived("gateway", [row("a", 3), row("b", 3)])
    assert [each.host for each in online.barrier.beats(batch, "other", online.play.now).alone] == ["a"]
