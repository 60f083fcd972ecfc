"""Every row of the verdict table, and what must not be taken for it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from processes.core.pulse import Pulse
from processes.core.report import Verdict
from processes.core.stall import AWAY_S, LAG_S, STARTING_S_MAX, STARVED_S_MAX, Facts, Judgement, Track, judge, own_gap

STALL_S = 2.0
TURN_S = 0.1
START = 100.0  # when the watchdog first looks


def pulse(turn: int, at_s: float, **fields: Any) -> Pulse:
    return Pulse(pid=7, start_ticks=70, turn=turn, written_ns=int(at_s * 1e9), **fields)


def seen(turn: int, at_s: float, *, pulse_fields: dict[str, Any] | None = None, **fields: Any) -> Facts:
    facts = Facts(pid=7, start_ticks=70, age_s=60.0, pulse=pulse(turn, at_s, **(pulse_fields or {})))
    return facts._replace(**fields)


def look(track: Track, facts: Facts, now_s: float, kind: str = "hub") -> tuple[Track, Judgement]:
    return judge(kind, track, facts, now_s, STALL_S)


def turning() -> Track:
    """A process that was just seen turning, twice."""
    track, _ = look(Track(), seen(1, START), START)
    track, judgement = look(track, seen(2, START + 0.1), START + 0.1)
    assert judgement.verdict is Verdict.ADVANCING
    return track


def test_no_pulse_yet_is_starting_for_ten_seconds() -> None:
    facts = Facts(pid=7, start_ticks=70, age_s=0.1)
    track, judgement = look(Track(), facts, START)
    assert judgement.verdict is Verdict.STARTING
    assert look(track, facts._replace(age_s=9.9), START + STARTING_S_MAX - 0.1)[1].verdict is Verdict.STARTING


def test_no_turn_within_ten_seconds_of_its_start_is_frozen() -> None:
    facts = Facts(pid=7, start_ticks=70, age_s=0.1, pulse=pulse(0, 0))
    track, _ = look(Track(), facts, START)
    track, judgement = look(track, facts._replace(age_s=10.2), START + STARTING_S_MAX + 0.1)
    assert judgement.verdict is Verdict.FROZEN
    assert "of its start" in judgement.reason


def test_a_start_without_a_cpu_is_excused_and_not_for_ever() -> None:
    facts = Facts(pid=7, start_ticks=70, age_s=0.1, state="R")
    track, _ = look(Track(), facts, START)
    starved = facts._replace(run_delay_ns=int(9e9), cpu_ns=int(1e9))
    assert look(track, starved, START + STARTING_S_MAX + 0.1)[1].verdict is Verdict.EXCUSED
    starved = facts._replace(run_delay_ns=int(29e9), cpu_ns=int(1e9))
    assert look(track, starved, START + STARVED_S_MAX + 0.1)[1].verdict is Verdict.FROZEN


def test_the_predecessors_pulse_is_not_the_successors() -> None:
    """The file still holds the dead process's last turn: the new one is starting."""
    track = turning()
    successor = Facts(pid=8, start_ticks=80, age_s=0.1, pulse=pulse(2, START + 0.1))
    track, judgement = look(track, successor, START + 3)
    assert judgement.verdict is Verdict.STARTING
    assert track.pid == 8


def test_turns_are_advancing() -> None:
    track = turning()
    for number in range(3, 100):
        now_s = START + number * 1.9
        track, judgement = look(track, seen(number, now_s), now_s)
        assert judgement.verdict is Verdict.ADVANCING


def test_an_old_item_is_lagging() -> None:
    now_s = START + 20
    facts = seen(3, now_s, pulse_fields={"stepped": 5, "backlog": 2, "oldest_ns": int((now_s - LAG_S - 0.1) * 1e9)})
    _, judgement = look(turning(), facts, now_s)
    assert judgement.verdict is Verdict.LAGGING


def test_a_young_item_is_not_lagging() -> None:
    now_s = START + 20
    facts = seen(3, now_s, pulse_fields={"stepped": 5, "backlog": 2, "oldest_ns": int((now_s - LAG_S + 0.1) * 1e9)})
    assert look(turning(), facts, now_s)[1].verdict is Verdict.ADVANCING


def stalling(kind: str, seconds: float, moving: str = "", **facts: Any) -> Judgement:
    """Turning with a backlog for so long, while `moving` (if any) counts up."""
    track, judgement = turning(), Judgement(Verdict.STARTING)
    pulse_fields = facts.pop("pulse_fields", {})
    for tenth in range(int(seconds * 10) + 1):
        now_s = START + 0.2 + tenth / 10
        fields = {"stepped": 5, "received": 9 + tenth, "backlog": 4, **pulse_fields}
        if moving:
            fields[moving] = 5 + tenth
        track, judgement = look(track, seen(3 + tenth, now_s, pulse_fields=fields, **facts), now_s, kind)
    return judgement


def test_a_stage_with_work_that_does_not_advance_is_stalled_and_named() -> None:
    assert stalling("hub", 1.9).verdict is Verdict.ADVANCING
    judgement = stalling("hub", 2.1)
    assert judgement.verdict is Verdict.STALLED
    assert judgement.stage == "stepped"
    assert "4 waiting" in judgement.reason


@pytest.mark.parametrize(("kind", "moving"), [("hub", "stepped"), ("gateway", "published"), ("fanout", "delivered")])
def test_a_stage_that_advances_is_not_stalled(kind: str, moving: str) -> None:
    assert stalling(kind, 5, moving).verdict is Verdict.ADVANCING


def test_receiving_alone_is_no_work() -> None:
    assert stalling("hub", 3, "received").verdict is Verdict.STALLED


@pytest.mark.parametrize("blocked_on", ["storage", "queues"])
def test_a_blocked_stage_is_not_stalled(blocked_on: str) -> None:
    assert stalling("hub", 30, pulse_fields={"blocked_on": blocked_on}).verdict is Verdict.ADVANCING


def test_a_full_queue_excuses_who_fills_it() -> None:
    assert stalling("gateway", 30, pressed=True).verdict is Verdict.ADVANCING
    assert stalling("gateway", 3).verdict is Verdict.STALLED


@pytest.mark.parametrize("kind", ["queues", "agent"])
def test_a_kind_whose_backlog_is_others_doing_is_never_stalled(kind: str) -> None:
    assert stalling(kind, 30).verdict is Verdict.ADVANCING


def test_without_backlog_nothing_is_stalled() -> None:
    assert stalling("hub", 30, pulse_fields={"backlog": 0}).verdict is Verdict.ADVANCING


@pytest.mark.parametrize("state", ["S", "D", "T", "t"])
def test_no_turn_is_frozen_whatever_it_waits_for(state: str) -> None:
    track = turning()
    track, judgement = look(track, seen(2, START + 0.1, state=state), START + 2.0)
    assert judgement.verdict is Verdict.ADVANCING
    _, judgement = look(track, seen(2, START + 0.1, state=state), START + 2.2)
    assert judgement.verdict is Verdict.FROZEN
    assert judgement.good_s == START + 0.1
    assert ("stopped by a signal" in judgement.reason) == (state in "Tt")


def test_a_busy_loop_is_frozen() -> None:
    """Runnable all the time, and it gets its CPU."""
    _, judgement = look(turning(), seen(2, START + 0.1, state="R", cpu_ns=int(2.0e9)), START + 2.2)
    assert judgement.verdict is Verdict.FROZEN


def test_a_busy_loop_among_others_is_frozen() -> None:
    """It had to wait for more than half of the time, but a second of CPU is no starvation: a turn takes milliseconds."""
    facts = seen(2, START + 0.1, state="R", cpu_ns=int(1.01e9), run_delay_ns=int(1.4e9))
    assert look(turning(), facts, START + 2.6)[1].verdict is Verdict.FROZEN
    assert look(turning(), facts._replace(cpu_ns=int(0.99e9)), START + 2.6)[1].verdict is Verdict.EXCUSED


def test_a_loop_that_waits_for_a_cpu_is_excused_until_thirty_seconds() -> None:
    track = turning()
    starved = seen(2, START + 0.1, run_delay_ns=int(1.5e9))
    assert look(track, starved, START + 2.2)[1].verdict is Verdict.EXCUSED
    starved = seen(2, START + 0.1, run_delay_ns=int(29e9))
    assert look(track, starved, START + STARVED_S_MAX)[1].verdict is Verdict.EXCUSED
    _, judgement = look(track, starved, START + STARVED_S_MAX + 0.2)
    assert judgement.verdict is Verdict.FROZEN


def test_starvation_is_measured_from_the_first_look_at_a_silence() -> None:
    """While a pulse is fresh nobody asks the kernel (-1): what it had waited before its last turn excuses nothing."""
    track, _ = look(turning(), seen(3, START + 1, cpu_ns=-1), START + 1)
    long_ago: dict[str, Any] = {"run_delay_ns": int(500e9), "cpu_ns": int(50e9)}
    track, _ = look(track, seen(3, START + 1, **long_ago), START + 1.4)
    assert look(track, seen(3, START + 1, **long_ago), START + 3.1)[1].verdict is Verdict.FROZEN
    starved: dict[str, Any] = {"run_delay_ns": int(501.6e9), "cpu_ns": int(50e9)}
    assert look(track, seen(3, START + 1, **starved), START + 3.1)[1].verdict is Verdict.EXCUSED


def test_a_throttled_loop_is_excused() -> None:
    """Runnable, but it does not run, and its waiting is not entered yet."""
    _, judgement = look(turning(), seen(2, START + 0.1, state="R", cpu_ns=int(0.1e9)), START + 2.2)
    assert judgement.verdict is Verdict.EXCUSED
    assert "starved" in judgement.reason


def test_a_little_waiting_for_a_cpu_excuses_nothing() -> None:
    _, judgement = look(turning(), seen(2, START + 0.1, run_delay_ns=int(0.5e9)), START + 2.2)
    assert judgement.verdict is Verdict.FROZEN


def test_after_its_own_absence_the_watchdog_begins_anew() -> None:
    """Suspended for an hour, all together: nobody is frozen; who then does not turn is, two seconds later."""
    track = own_gap(turning(), 3600.0, TURN_S, START + 3600)
    track, judgement = look(track, seen(2, START + 0.1), START + 3600)
    assert judgement.verdict is Verdict.EXCUSED
    assert look(track, seen(2, START + 0.1), START + 3601.9)[1].verdict is Verdict.EXCUSED
    assert look(track, seen(2, START + 0.1), START + 3602.1)[1].verdict is Verdict.FROZEN


def test_after_its_own_absence_a_turn_ends_the_excuse() -> None:
    track = own_gap(turning(), AWAY_S, TURN_S, START + 50)
    track, judgement = look(track, seen(3, START + 50.1), START + 50.2)
    assert judgement.verdict is Verdict.ADVANCING
    assert not track.away
    assert look(track, seen(3, START + 50.1), START + 52.2)[1].verdict is Verdict.FROZEN


def test_the_cpu_that_was_used_in_its_absence_is_not_judged() -> None:
    track = own_gap(turning(), 3600.0, TURN_S, START + 3600)
    track, _ = look(track, seen(2, START + 0.1, run_delay_ns=int(600e9)), START + 3600)
    assert look(track, seen(2, START + 0.1, run_delay_ns=int(600e9)), START + 3602.1)[1].verdict is Verdict.FROZEN


def test_the_watchdogs_own_lag_is_not_held_against_others() -> None:
    track = own_gap(turning(), 0.9, TURN_S, START + 1)
    _, judgement = look(track, seen(2, START + 0.1), START + 2.5)
    assert judgement.verdict is Verdict.EXCUSED
    assert "lagged" in judgement.reason
    assert look(track, seen(2, START + 0.1), START + 2.9)[1].verdict is Verdict.FROZEN


def test_usual_turns_are_no_lag() -> None:
    track = turning()
    assert own_gap(track, 2 * TURN_S, TURN_S, START) == track


def test_a_new_watchdog_listens_before_it_judges() -> None:
    """The process has been silent for a minute when the watchdog first sees it: found stall_s later, counted from its last turn."""
    track, judgement = look(Track(), seen(500, START - 60), START)
    assert judgement.verdict is Verdict.EXCUSED
    _, judgement = look(track, seen(500, START - 60), START + 2.1)
    assert judgement.verdict is Verdict.FROZEN
    assert judgement.good_s == START - 60


def test_a_turn_written_in_the_future_is_a_turn_now() -> None:
    track, judgement = look(turning(), seen(3, START + 10**6), START + 1)
    assert judgement.verdict is Verdict.ADVANCING
    assert look(track, seen(3, START + 10**6), START + 3.1)[1].verdict is Verdict.FROZEN


@pytest.mark.parametrize(("lost", "says"), [({"pulse": None}, "missing"), ({"pulse": None, "unreadable": "garbage"}, "garbage")])
def test_a_lost_pulse_is_bad_news_but_alone_no_reason_to_kill(lost: dict[str, Any], says: str) -> None:
    facts = seen(2, START + 0.1)._replace(**lost)
    for later_s in (1, 10, 1000):
        _, judgement = look(turning(), facts, START + later_s)
        assert judgement.verdict is Verdict.LAGGING
        assert says in judgement.reason


def test_a_lost_pulse_and_a_red_canary_are_reason_enough() -> None:
    facts = seen(2, START + 0.1)._replace(pulse=None, canary_red_s=10.1)
    assert look(turning(), facts, START + 10.2)[1].verdict is Verdict.FROZEN
    assert look(turning(), facts, START + 5)[1].verdict is Verdict.LAGGING


def test_a_process_found_without_pulse_by_a_new_watchdog_is_not_killed_for_it() -> None:
    facts = Facts(pid=7, start_ticks=70, age_s=600.0)
    track, judgement = look(Track(), facts, START)
    assert judgement.verdict is Verdict.LAGGING
    assert look(track, facts, START + 60)[1].verdict is Verdict.LAGGING


@pytest.mark.parametrize("supervised", ["RUNNING", "EXITED", "FATAL", "BACKOFF", "STOPPED", ""])
def test_no_process_is_dead(supervised: str) -> None:
    _, judgement = look(turning(), Facts(supervised=supervised), START + 1)
    assert judgement.verdict is Verdict.DEAD
    assert judgement.reason
    assert judgement.good_s == START + 0.1


def test_no_process_that_nobody_wants_is_stopped() -> None:
    assert look(turning(), Facts(wanted=False, supervised="STOPPED"), START + 1)[1].verdict is Verdict.STOPPED


def test_a_process_that_survives_sigkill_in_state_d_is_unkillable() -> None:
    facts = seen(2, START + 0.1, state="D", killed_s=START + 3)
    assert look(turning(), facts, START + 4.9)[1].verdict is Verdict.FROZEN
    assert look(turning(), facts, START + 5.1)[1].verdict is Verdict.UNKILLABLE
    assert look(turning(), facts._replace(state="S"), START + 5.1)[1].verdict is Verdict.FROZEN


def test_every_verdict_of_the_watchdog_is_reached_here() -> None:
    """SILENT is said by whoever reads its report."""
    text = msgspec.json.encode([str(verdict) for verdict in Verdict]).decode()
    assert set(msgspec.json.decode(text)) - {"silent"} == {
        "starting", "advancing", "lagging", "stalled", "frozen", "dead", "excused", "unkillable", "stopped",
    }  # fmt: skip
