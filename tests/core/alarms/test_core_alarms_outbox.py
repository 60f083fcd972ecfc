"""The first alarm goes at once, a flood is gathered, a failure is tried again, and nothing is kept for ever."""

from __future__ import annotations

from processes.core.alarms import outbox
from processes.core.alarms.alarm import AlarmEvent, AlarmState, Phase, Told
from processes.core.alarms.outbox import ATTEMPTS_MAX, BURST, GATHER_S, LINES_MAX, RETRY_S, Pace
from processes.core.values import Severity


def event(
    number: int, key: str = "", phase: Phase = Phase.BEGUN, severity: Severity = Severity.WARNING, text: str = "why"
) -> AlarmEvent:
    return AlarmEvent(number, key or f"k{number}", phase, severity, f"t{number}", text, 0.0)


def state(*events: AlarmEvent, **told: int) -> AlarmState:
    targets = {name: Told(number) for name, number in told.items()}
    return AlarmState(number=events[-1].number if events else 0, events=list(events), targets=targets)


def test_burst_goes_at_once_and_the_rest_waits_until_the_oldest_is_a_minute_old() -> None:
    pace = Pace()
    for now_s in range(BURST):
        assert outbox.wait_s(pace, float(now_s)) == 0
        pace = outbox.paced(pace, 0, float(now_s))
    assert outbox.wait_s(pace, 10.0) == GATHER_S - 10
    assert outbox.wait_s(pace, GATHER_S) == 0
    for n in range(1000):
        pace = outbox.paced(pace, 0, GATHER_S + n)
    assert len(pace.sends_s) <= GATHER_S


def test_failures_wait_longer_each_time_and_a_success_forgets_them() -> None:
    pace, waits = Pace(), []
    for attempts in range(1, 8):
        pace = outbox.paced(pace, attempts, 100.0)
        waits.append(outbox.wait_s(pace, 100.0))
    assert waits == [*RETRY_S, RETRY_S[-1], RETRY_S[-1]]
    assert outbox.wait_s(outbox.paced(pace, 0, 100.0), 100.0) == 0


def test_message_of_one_event_says_it_and_one_of_many_names_the_gravest_and_counts_the_others() -> None:
    one = outbox.message("box", [event(1)])
    assert (one.title, one.over, one.severity, one.body) == (
        "[box] t1",
        False,
        Severity.WARNING,
        "00:00:00 UTC BEGUN t1: why",
    )
    many = outbox.message("box", [event(1), event(2, severity=Severity.CRITICAL), *(event(n) for n in range(3, 9))])
    assert many.title == "[box] t2, and 7 more"
    assert many.severity is Severity.CRITICAL
    assert len(many.body.splitlines()) == 8


def test_a_message_brings_the_head_of_the_audit_trail() -> None:
    """So that somebody elsewhere knows it; a trail that was cut, or written anew, is found by nothing else."""
    head = f"12:{'ab' * 32}"
    told = outbox.message("box", [event(1)], head)
    assert told.audit_head == head
    assert told.body.splitlines()[-1] == f"audit head {head}"


def test_what_began_and_is_over_is_one_line_and_does_not_lead_what_still_stands() -> None:
    over = event(2, "a", Phase.OVER, Severity.CRITICAL, "after 3 s")
    both = outbox.message("box", [event(1, "a", severity=Severity.CRITICAL), over])
    assert (both.title, both.over, both.body) == ("[box] over: t2", True, "00:00:00 UTC OVER t2: why; after 3 s")
    mixed = outbox.message("box", [event(1, "a", severity=Severity.CRITICAL), over, event(3, "b")])
    assert (mixed.title, mixed.over) == ("[box] t3, and 1 more", False)


def test_what_happened_twice_is_two_lines_and_a_new_beginning_is_not_swallowed() -> None:
    assert len(outbox.message("box", [event(1, "a", Phase.ONCE), event(2, "a", Phase.ONCE)]).events) == 2
    again = outbox.message("box", [event(1, "a"), event(2, "a", Phase.OVER), event(3, "a")])
    assert [e.phase for e in again.events] == [Phase.BEGUN]
    assert not again.over


def test_long_message_is_cut_and_says_how_much_is_missing() -> None:
    long = outbox.message("box", [event(n) for n in range(1, LINES_MAX + 11)])
    assert (len(long.events), long.more) == (LINES_MAX, 10)
    assert long.body.splitlines()[0].startswith("10 earlier ones")
    assert long.title.endswith(f"and {LINES_MAX + 9} more")


def test_each_target_has_its_own_place() -> None:
    found = state(event(1), event(2), event(3), a=1, b=3)
    assert [e.number for e in outbox.due(found, found.targets["a"], Severity.INFO)] == [2, 3]
    assert outbox.due(found, found.targets["b"], Severity.INFO) == []
    found = outbox.sent(found, "a", 2, 5.0)
    assert found.targets["a"] == Told(number=2, sent_wall_s=5.0, sent=1)
    assert found.targets["b"] == Told(number=3)


def test_less_than_the_wanted_severity_is_not_sent_and_its_end_neither() -> None:
    found = state(
        event(1, "a", severity=Severity.INFO),
        event(2, "a", Phase.OVER, Severity.INFO),
        event(3, severity=Severity.CRITICAL),
        a=0,
    )
    assert [e.number for e in outbox.due(found, found.targets["a"], Severity.WARNING)] == [3]


def test_failure_keeps_the_place_and_the_last_one_gives_up_and_counts() -> None:
    found = state(event(1), event(2), a=0)
    for n in range(1, ATTEMPTS_MAX):
        found = outbox.failed(found, "a", found.events, "no " * 200, 7.0)
        assert (found.targets["a"].number, found.targets["a"].attempts) == (0, n)
        assert len(found.targets["a"].error) <= outbox.ERROR_CHARS_MAX
    found = outbox.failed(found, "a", found.events, "no", 7.0)
    assert (found.targets["a"].number, found.targets["a"].attempts, found.targets["a"].dropped) == (2, 0, 2)
    assert outbox.sent(found, "a", 2, 8.0).targets["a"].error == ""


def test_what_everybody_was_told_is_forgotten_and_a_new_target_begins_now() -> None:
    found = outbox.settled(state(event(1), event(2), a=1), ["a", "new"], Severity.INFO)
    assert [e.number for e in found.events] == [2]
    assert found.targets == {"a": Told(number=1), "new": Told(number=2)}
    assert outbox.settled(found, ["a", "new"], Severity.INFO) is found
    assert outbox.settled(found, [], Severity.INFO).events == []


def test_target_that_fell_behind_the_backlog_learns_how_much_it_missed() -> None:
    found = outbox.settled(state(event(11), event(12), a=3), ["a"], Severity.INFO)
    assert (found.targets["a"].number, found.targets["a"].dropped) == (10, 7)


def test_targets_that_want_only_the_grave_do_not_hold_back_the_rest() -> None:
    found = outbox.settled(state(event(1), event(2), a=0), ["a"], Severity.CRITICAL)
    assert (found.events, found.targets["a"].number) == ([], 2)
