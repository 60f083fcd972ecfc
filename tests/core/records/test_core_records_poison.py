"""Which deaths an event is blamed for, and when it is put aside."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processes.core.records import poison
from processes.core.records.poison import Cause, DeathRecord, Note
from processes.core.travels import messages
from processes.core.travels.agent_frames import Heartbeat, Register
from processes.core.travels.messages import (
    AgentRegistered,
    CensusTaken,
    Change,
    Connection,
    Death,
    HeartbeatReceived,
)
from processes.core.travels.pulse import Pulse

PULSE = Pulse(pid=7, start_ticks=70, in_hand="RequestReceived ab", in_hand_ns=5)
NOTE = Note("boot", 7, 70, "frozen", "RequestReceived ab", 5)


def blamed(
    note: Note | None = None, words: str = "", *, crashed: bool = False, out_of_memory: bool = False
) -> Cause | None:
    return poison.cause_of(PULSE, "boot", note, words, crashed=crashed, out_of_memory=out_of_memory)


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        ("exit status 1", Cause.EXITED),
        ("exit status 0", Cause.EXITED),
        ("terminated by SIGSEGV (core dumped)", Cause.CRASHED),
        ("terminated by SIGABRT", Cause.CRASHED),
        ("terminated by SIGKILL", None),
        ("terminated by SIGTERM", None),
        ("", None),
    ],
)
def test_an_exit_and_a_crash_are_its_own_fault_and_any_other_kill_counts_nothing(
    words: str, cause: Cause | None
) -> None:
    assert blamed(None, words) is cause


def test_a_crash_is_told_by_its_stacks_and_a_kill_for_memory_by_the_kernel() -> None:
    assert blamed(crashed=True) is Cause.CRASHED
    assert blamed(None, "terminated by SIGKILL", out_of_memory=True) is Cause.MEMORY


def test_the_watchdogs_kill_counts_by_the_note_that_it_wrote_before() -> None:
    assert blamed(NOTE, "terminated by SIGKILL") is Cause.FROZEN
    assert blamed(msgspec.structs.replace(NOTE, cause="memory"), "terminated by SIGKILL") is Cause.MEMORY


@pytest.mark.parametrize(
    "other",
    [
        {"cause": "stalled"},
        {"cause": "stopped"},
        {"boot": "another"},
        {"pid": 8},
        {"start_ticks": 71},
        {"in_hand": "RequestReceived cd"},
        {"in_hand_ns": 6},
    ],
)
def test_a_note_of_another_process_another_event_or_another_cause_counts_nothing(other: dict[str, object]) -> None:
    """A watchdog that died after its note: the process may have gone on, and been killed later by somebody else."""
    assert blamed(msgspec.structs.replace(NOTE, **other), "terminated by SIGKILL") is None


def death(name: str = "RequestReceived ab", *, pid: int = 1, boot: str = "boot", boot_s: float = 100.0) -> Death:
    return Death(name, "frozen", boot, boot_s, 1e9, pid, 10 * pid)


def test_the_third_start_puts_it_aside_and_not_the_second() -> None:
    record = poison.counted(DeathRecord(), death(pid=1))
    assert poison.poisonous(record) == {}
    record = poison.counted(record, death(pid=2))
    assert [d.pid for d in poison.poisonous(record)["RequestReceived ab"]] == [1, 2]


def test_one_death_looked_at_twice_counts_once() -> None:
    """A successor that was killed between its record and its own first pulse."""
    record = poison.counted(poison.counted(DeathRecord(), death(pid=1)), death(pid=1))
    assert poison.poisonous(record) == {}


def test_deaths_of_different_events_are_not_added_up() -> None:
    record = DeathRecord([death("A 1", pid=1), death("B 1", pid=2), death("A 2", pid=3)])
    assert poison.poisonous(record) == {}


def test_what_killed_long_ago_or_in_another_boot_may_be_tried_again() -> None:
    record = DeathRecord([death(pid=1, boot_s=100.0), death(pid=2, boot_s=200.0)])
    assert len(poison.recent(record, "boot", 100.0 + poison.WINDOW_S - 1).deaths) == 2
    assert [d.pid for d in poison.recent(record, "boot", 100.0 + poison.WINDOW_S).deaths] == [2]
    assert poison.recent(record, "after a reboot", 300.0).deaths == []


def test_forgiven_is_one_event_and_only_that() -> None:
    record = DeathRecord([death("A 1", pid=1), death("B 1", pid=2)])
    assert [d.name for d in poison.forgiven(record, "A 1").deaths] == ["B 1"]


def test_the_record_is_bounded_and_loses_the_oldest() -> None:
    record = DeathRecord()
    for pid in range(1, poison.KEPT_MAX + 10):
        record = poison.counted(record, death(f"A {pid}", pid=pid))
    assert len(record.deaths) == poison.KEPT_MAX
    assert record.deaths[-1].pid == poison.KEPT_MAX + 9


LOG = """\
2026-11-23 22:00:00,000 INFO spawned: 'hub' with pid 41
2026-11-23 22:00:01,000 INFO success: hub entered RUNNING state, process has stayed up for > than 1 seconds (startsecs)
2026-11-23 22:00:02,000 WARN exited: hub (exit status 1; not expected)
2026-11-23 22:00:02,100 INFO spawned: 'hub' with pid 42
2026-11-23 22:00:02,200 INFO spawned: 'fanout_1' with pid 43
2026-11-23 22:00:03,000 WARN exited: hub (terminated by SIGKILL; not expected)
2026-11-23 22:00:03,100 INFO spawned: 'hub' with pid 44
2026-11-23 22:00:03,200 WARN exited: fanout_1 (terminated by SIGSEGV (core dumped); not expected)
2026-11-23 22:00:04,000 INFO stopped: hub (exit status 0)
2026-11-23 22:00:05,000 INFO spawned: 'hub' with pid 41
2026-11-23 22:00:06,000 INFO spawned: 'hub' with pid 411
2026-11-23 22:00:07,000 WARN exited: hub (exit status 70; not expected)
"""


@pytest.mark.parametrize(
    ("pid", "words"),
    [
        (42, "terminated by SIGKILL"),
        (43, "terminated by SIGSEGV"),
        (44, ""),  # asked to stop
        (411, "exit status 70"),
        (4, ""),
        (99, ""),
    ],
)
def test_supervisords_log_tells_how_a_process_ended(pid: int, words: str) -> None:
    assert poison.last_words(LOG, pid) == words


def test_a_pid_that_came_again_is_the_later_process() -> None:
    until_then, _, _ = LOG.partition("2026-11-23 22:00:06")
    assert poison.last_words(until_then, 41) == ""


def test_a_pid_is_not_found_in_a_longer_one() -> None:
    assert (
        poison.last_words("x spawned: 'hub' with pid 4\nx exited: hub (exit status 1; not expected)\n", 4)
        == "exit status 1"
    )
    assert poison.last_words("x spawned: 'hub' with pid 14\nx exited: hub (exit status 1; not expected)\n", 4) == ""


def connection(host: str, *, since_boot_s: float = 1.0, written: list[str] | None = None) -> Connection:
    register = Register(host, protocol=1, journal_id="j", commands=["pull"])
    return Connection(f"b.{host}", "gateway", host, "e", register, since_boot_s=since_boot_s, written=written or [])


def test_a_registration_and_the_census_that_repeats_it_are_one_poison() -> None:
    """Else a register that ends the hub would end it twice more by each census, whose number is another each time."""
    first = AgentRegistered("b.a", "gateway", "a", connection("a"))
    names = {poison.name_of(first, messages.encode(first))}
    for number in (1, 2):
        census = CensusTaken("gateway", number, "boot", 0, True, [connection("b"), connection("a", written=["c1"])])
        names.add(poison.name_of(poison.singly(census)[-1], messages.encode(census)))
    assert len(names) == 1


def test_equal_content_is_one_event_and_another_connection_is_another() -> None:
    beats = [HeartbeatReceived(c, "gateway", "a", Heartbeat()) for c in ("b.1", "b.1", "b.2")]
    one, same, other = (poison.name_of(beat, messages.encode(beat)) for beat in beats)
    assert one == same != other


def test_a_name_fits_into_the_pulse() -> None:
    names = [poison.name_of_own("x" * 100, "y" * 1000), poison.name_of_change(Change("command_removed", "\ud800" * 9))]
    assert all(len(name.encode()) <= 64 for name in names)


@pytest.mark.parametrize(("first", "last", "count"), [*itertools.product((0, 3), (False, True), (0, 1, 3))])
def test_a_census_taken_singly_says_the_same(first: int, last: bool, count: int) -> None:
    census = CensusTaken("gateway", 5, "boot", first, last, [connection(f"h{n}") for n in range(count)])
    pieces = poison.singly(census)
    assert [info for piece in pieces for info in piece.connections] == census.connections
    assert [piece.piece == 0 for piece in pieces] == [first == 0, *[False] * (len(pieces) - 1)]
    assert [piece.last for piece in pieces] == [*[False] * (len(pieces) - 1), last]


# deaths against the host


def test_a_pulse_names_the_event_and_marks_its_host_in_64_bytes_and_one_without_a_mark_is_read() -> None:
    event = AgentRegistered("b.a", "gateway", "a", connection("a"))
    name, host = poison.name_of(event, messages.encode(event)), "a" * 253
    told = poison.in_hand(name, host)
    assert len(told.encode()) <= 64
    assert poison.of_in_hand(told) == (name, poison.mark_of_host(host))
    assert poison.of_in_hand(poison.in_hand(name, "")) == (name, "")
    assert poison.of_in_hand("RequestReceived 0123456789abcdef") == ("RequestReceived 0123456789abcdef", "")


def test_deaths_of_the_version_before_are_read_and_count_against_no_host() -> None:
    told = b'{"deaths":[{"name":"X ab","cause":"exited","boot":"b","boot_s":1.0,"wall_s":2.0,"pid":1,"start_ticks":1}]}'
    record = msgspec.json.decode(told, type=DeathRecord)
    assert len(record.deaths) == 1
    assert poison.by_host(record) == {}


def host_death(name: str, boot_s: float, pid: int = 1, mark: str = "m") -> Death:
    return Death(name, "exited", "boot", boot_s, 1e9 + boot_s, pid, pid, host_mark=mark)


WINDOW_S = poison.HOST_WINDOW_S


@pytest.mark.parametrize(
    ("at", "boot_s", "since_s", "count"),
    [
        ([("x", 1.0), ("y", 2.0)], 3.0, 0.0, 2),
        ([("x", 1.0)], 3.0, 0.0, 0),
        ([("x", 1.0), ("x", 2.0)], 3.0, 0.0, 0),  # one event: it alone is put aside
        ([("x", 1.0), ("x", 2.0), ("y", 3.0)], 4.0, 0.0, 2),
        ([("x", 1.0), ("y", 2.0)], 1.0 + WINDOW_S, 0.0, 0),
        ([("x", 1.0), ("y", 2.0)], 0.9 + WINDOW_S, 0.0, 2),
        ([("x", 1.0), ("y", 2.0)], 3.0, 1.0, 0),  # the first is forgiven
        ([("x", 1.0), ("y", 2.0), ("z", 3.0)], 4.0, 1.0, 2),
        ([("x", 1.0), ("y", 2.0), ("z", 3.0)], 4.0, 0.0, 2),
    ],
)
def test_a_host_is_to_blame_for_deaths_at_different_events_of_it_lately(
    at: list[tuple[str, float]], boot_s: float, since_s: float, count: int
) -> None:
    deaths = [host_death(name, death_s) for name, death_s in at]
    found = poison.against_host(deaths, boot_s, 1e9 + since_s)
    assert len(found) == count
    assert found == ([] if not count else deaths[-count:])


sad = st.lists(
    st.tuples(st.sampled_from(["", "m", "n"]), st.sampled_from("xyz"), st.floats(0, 2 * WINDOW_S)), max_size=12
)


@given(sad, st.floats(0, 2 * WINDOW_S))
def test_a_host_is_to_blame_exactly_if_two_of_its_own_events_ended_processes_within_the_window(
    told: list[tuple[str, str, float]], now_s: float
) -> None:
    """The bugs that it would catch: another host's deaths are added, or those of no host; copies count; the window."""
    record = DeathRecord()
    for pid, (mark, name, boot_s) in enumerate(sorted(told, key=lambda each: each[2])):
        record = poison.counted(record, host_death(f"{name}{mark}", boot_s, pid, mark))
    for mark in ("m", "n"):
        names = {name for its, name, boot_s in told if its == mark and now_s - boot_s < WINDOW_S}
        found = poison.against_host(poison.by_host(record).get(mark, []), now_s, 0.0)
        assert bool(found) == (len(names) >= poison.DEATHS_MAX)
        assert all(death.host_mark == mark for death in found)
        assert len({death.name for death in found}) == len(found)
