"""Every row of the verdict table, and what must not be taken for it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from processes.core.shown.status import Verdict
from processes.core.travels.pulse import Pulse
from processes.core.watchdog.verdict import (
    AWAY_S,
    HEAVY_S,
    LAG_S,
    RAN_SHARE,
    STARTING_S_MAX,
    STARVED_S_MAX,
    STORAGE,
    STORAGE_S_MAX,
    Judgement,
    ProcessFacts,
    Spent,
    Track,
    judge,
    own_gap,
)

STALL_S = 2.0
TURN_S = 0.1
START = 100.0  # when the watchdog first looks


def pulse(turn: int, at_s: float, **fields: Any) -> Pulse:
    return Pulse(pid=7, start_ticks=70, turn=turn, written_ns=int(at_s * 1e9), **fields)


def seen(turn: int, at_s: float, *, pulse_fields: dict[str, Any] | None = None, **fields: Any) -> ProcessFacts:
    facts = ProcessFacts(
        pid=7, start_ticks=70, age_s=60.0, pulse=pulse(turn, at_s, **(pulse_fields or {})), spent=Spent()
    )
    return facts._replace(**fields)


def look(track: Track, facts: ProcessFacts, now_s: float, kind: str = "hub") -> tuple[Track, Judgement]:
    return judge(kind, track, facts, now_s, STALL_S)


def turning() -> Track:
    """A process that was just seen turning, twice."""
    track, _ = look(Track(), seen(1, START), START)
    track, judgement = look(track, seen(2, START + 0.1), START + 0.1)
    assert judgement.verdict is Verdict.ADVANCING
    return track


def test_why_a_process_gave_up_is_told_while_it_is_gone_and_while_the_next_one_starts() -> None:
    """The bug it would catch: a hub that cannot begin is dead without a reason, or with one only now and then."""
    _, judgement = look(turning(), ProcessFacts(supervised="BACKOFF", gave_up="fleet.db is missing"), START + 1)
    assert judgement.reason == "no process (BACKOFF): fleet.db is missing"
    _, judgement = look(Track(), ProcessFacts(pid=7, start_ticks=70, age_s=0.1, gave_up="fleet.db is missing"), START)
    assert (judgement.verdict, judgement.reason) == (
        Verdict.STARTING,
        "the one before it gave up: fleet.db is missing",
    )


def test_no_pulse_yet_is_starting_for_ten_seconds() -> None:
    facts = ProcessFacts(pid=7, start_ticks=70, age_s=0.1)
    track, judgement = look(Track(), facts, START)
    assert judgement.verdict is Verdict.STARTING
    assert look(track, facts._replace(age_s=9.9), START + STARTING_S_MAX - 0.1)[1].verdict is Verdict.STARTING


def test_no_turn_within_ten_seconds_of_its_start_is_frozen() -> None:
    facts = ProcessFacts(pid=7, start_ticks=70, age_s=0.1, pulse=pulse(0, 0))
    track, _ = look(Track(), facts, START)
    track, judgement = look(track, facts._replace(age_s=10.2), START + STARTING_S_MAX + 0.1)
    assert judgement.verdict is Verdict.FROZEN
    assert "of its start" in judgement.reason


def test_a_start_without_a_cpu_is_excused_and_not_for_ever() -> None:
    facts = ProcessFacts(pid=7, start_ticks=70, age_s=0.1, state="R")
    track, _ = look(Track(), facts, START)
    starved = facts._replace(spent=Spent(waited_s=9, ran_s=1))
    assert look(track, starved, START + STARTING_S_MAX + 0.1)[1].verdict is Verdict.EXCUSED
    starved = facts._replace(spent=Spent(waited_s=29, ran_s=1))
    assert look(track, starved, START + STARVED_S_MAX + 0.1)[1].verdict is Verdict.FROZEN


def test_the_predecessors_pulse_is_not_the_successors() -> None:
    """The file still holds the dead process's last turn: the new one is starting."""
    track = turning()
    successor = ProcessFacts(pid=8, start_ticks=80, age_s=0.1, pulse=pulse(2, START + 0.1))
    track, judgement = look(track, successor, START + 3)
    assert judgement.verdict is Verdict.STARTING
    assert track.pid == 8


def test_turns_are_advancing() -> None:
    track = turning()
    for number in range(3, 100):
        now_s = START + number * 1.9
        track, judgement = look(track, seen(number, now_s), now_s)
        assert judgement.verdict is Verdict.ADVANCING


def test_a_hub_that_turns_and_waits_for_the_lease_stands_by_and_one_that_does_not_turn_is_frozen() -> None:
    waits = seen(2, START + 0.2, pulse_fields={"blocked_on": "standby"})
    assert look(turning(), waits, START + 0.3)[1].verdict is Verdict.STANDBY
    assert look(turning(), waits, START + 5.0)[1].verdict is Verdict.FROZEN


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
    _, judgement = look(turning(), seen(2, START + 0.1, state="R", spent=Spent(ran_s=2.0)), START + 2.2)
    assert judgement.verdict is Verdict.FROZEN


def test_a_busy_loop_among_others_is_frozen() -> None:
    """It had to wait for nearly all of the time, but half a second of CPU is no starvation: a turn takes
    milliseconds.
    """
    ran_s = RAN_SHARE * STALL_S
    facts = seen(
        2, START + 0.1, state="R", runnable=True, spent=Spent(ran_s=ran_s + 0.01, used_s=ran_s + 0.01, waited_s=2.4)
    )
    assert look(turning(), facts, START + 2.6)[1].verdict is Verdict.FROZEN
    starved = facts._replace(spent=Spent(ran_s=ran_s - 0.01, used_s=ran_s - 0.01, waited_s=2.4))
    assert look(turning(), starved, START + 2.6)[1].verdict is Verdict.EXCUSED


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2, 0.5])
def test_a_busy_loop_at_any_share_of_a_core_is_found_once_it_has_had_its_half_second(share: float) -> None:
    """At a fifth of a core after 2.5 s, and never later than 30 s after its last turn."""
    track, judgement, now_s = turning(), Judgement(Verdict.STARTING), START
    while judgement.verdict is not Verdict.FROZEN:
        now_s += 0.1
        silent_s = now_s - START - 0.1
        spent = Spent(ran_s=share * silent_s, used_s=share * silent_s, waited_s=(1 - share) * silent_s)
        track, judgement = look(track, seen(2, START + 0.1, state="R", runnable=True, spent=spent), now_s)
    assert now_s - START - 0.1 == pytest.approx(max(STALL_S, min(STARVED_S_MAX, RAN_SHARE * STALL_S / share)), abs=0.15)


def test_a_loop_that_waits_for_a_cpu_is_excused_until_thirty_seconds() -> None:
    track = turning()
    starved = seen(2, START + 0.1, spent=Spent(waited_s=1.5))
    assert look(track, starved, START + 2.2)[1].verdict is Verdict.EXCUSED
    starved = seen(2, START + 0.1, spent=Spent(waited_s=29))
    assert look(track, starved, START + STARVED_S_MAX)[1].verdict is Verdict.EXCUSED
    _, judgement = look(track, starved, START + STARVED_S_MAX + 0.2)
    assert judgement.verdict is Verdict.FROZEN


def test_starvation_is_measured_from_the_last_turn() -> None:
    """What it had waited before excuses nothing, and what it had used before is not held against it."""
    long_ago = Spent(ran_s=50, waited_s=500, used_s=70, periods=900, throttled=900, pressed_s=600)
    track, _ = look(turning(), seen(3, START + 1, spent=long_ago), START + 1)
    assert look(track, seen(3, START + 1, spent=long_ago), START + 3.1)[1].verdict is Verdict.FROZEN
    starved = long_ago._replace(waited_s=501.6)
    assert look(track, seen(3, START + 1, spent=starved), START + 3.1)[1].verdict is Verdict.EXCUSED


def test_while_nobody_looks_starvation_is_measured_from_the_first_look_at_a_silence() -> None:
    """While a pulse is fresh the kernel is not asked (None): what it had waited before the first look excuses
    nothing.
    """
    track, _ = look(turning(), seen(3, START + 1, spent=None), START + 1)
    long_ago = Spent(ran_s=50, waited_s=500, used_s=70)
    track, _ = look(track, seen(3, START + 1, spent=long_ago), START + 1.4)
    assert look(track, seen(3, START + 1, spent=long_ago), START + 3.1)[1].verdict is Verdict.FROZEN
    assert (
        look(track, seen(3, START + 1, spent=long_ago._replace(waited_s=501.6)), START + 3.1)[1].verdict
        is Verdict.EXCUSED
    )
    assert look(track, seen(3, START + 1, spent=None), START + 3.1)[1].verdict is Verdict.FROZEN


def test_a_throttled_loop_is_excused() -> None:
    """Runnable, but it does not run, and its waiting is not entered yet."""
    spent = Spent(ran_s=0.1, periods=20, throttled=19)
    _, judgement = look(turning(), seen(2, START + 0.1, state="R", spent=spent), START + 2.2)
    assert judgement.verdict is Verdict.EXCUSED
    assert judgement.reason == "starved: it got 0.1 s of CPU in 2.1 s, its control group is throttled"


HELD = [Spent(used_s=0.1, periods=20, throttled=11), Spent(used_s=0.1, pressed_s=1.1)]


@pytest.mark.parametrize("spent", HELD, ids=["throttled", "pressed"])
def test_a_loop_that_waits_for_a_thread_which_has_no_cpu_is_excused(spent: Spent) -> None:
    """The main thread sleeps, for another one has the interpreter's lock, and its group does not let that one run."""
    assert look(turning(), seen(2, START + 0.1, runnable=True, spent=spent), START + 2.2)[1].verdict is Verdict.EXCUSED


@pytest.mark.parametrize("spent", HELD, ids=["throttled", "pressed"])
def test_a_sleeping_process_is_not_excused_by_its_busy_neighbours(spent: Spent) -> None:
    """All its threads sleep: a lock taken twice, on a machine where everybody else waits for CPUs."""
    assert look(turning(), seen(2, START + 0.1, spent=spent), START + 2.2)[1].verdict is Verdict.FROZEN


def test_a_thread_that_woke_just_now_excuses_nothing_where_nobody_waits_for_a_cpu() -> None:
    few = Spent(used_s=0.1, periods=20, throttled=10, pressed_s=1.0)
    assert look(turning(), seen(2, START + 0.1, runnable=True, spent=few), START + 2.2)[1].verdict is Verdict.FROZEN


def test_a_thread_that_got_its_cpu_is_no_excuse() -> None:
    busy = Spent(used_s=0.5, periods=20, throttled=20)
    assert look(turning(), seen(2, START + 0.1, runnable=True, spent=busy), START + 2.2)[1].verdict is Verdict.FROZEN


def test_a_little_waiting_for_a_cpu_excuses_nothing() -> None:
    _, judgement = look(turning(), seen(2, START + 0.1, spent=Spent(waited_s=0.5)), START + 2.2)
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
    track, _ = look(track, seen(2, START + 0.1, spent=Spent(waited_s=600)), START + 3600)
    assert look(track, seen(2, START + 0.1, spent=Spent(waited_s=600)), START + 3602.1)[1].verdict is Verdict.FROZEN


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
    """The process has been silent for a minute when the watchdog first sees it: found stall_s later, counted from its
    last turn.
    """
    track, judgement = look(Track(), seen(500, START - 60), START)
    assert judgement.verdict is Verdict.EXCUSED
    _, judgement = look(track, seen(500, START - 60), START + 2.1)
    assert judgement.verdict is Verdict.FROZEN
    assert judgement.good_s == START - 60


def test_a_turn_written_in_the_future_is_a_turn_now() -> None:
    track, judgement = look(turning(), seen(3, START + 10**6), START + 1)
    assert judgement.verdict is Verdict.ADVANCING
    assert look(track, seen(3, START + 10**6), START + 3.1)[1].verdict is Verdict.FROZEN


@pytest.mark.parametrize(
    ("lost", "says"), [({"pulse": None}, "missing"), ({"pulse": None, "unreadable": "garbage"}, "garbage")]
)
def test_a_lost_pulse_is_bad_news_but_alone_no_reason_to_kill(lost: dict[str, Any], says: str) -> None:
    facts = seen(2, START + 0.1)._replace(**lost)
    for later_s in (1, 10, 1000):
        _, judgement = look(turning(), facts, START + later_s)
        assert judgement.verdict is Verdict.LAGGING
        assert says in judgement.reason


@pytest.mark.parametrize(
    "lost", [{"pulse": None}, {"pulse": None, "unreadable": "garbage"}, {"pulse": Pulse(pid=6, start_ticks=60)}]
)
def test_a_lost_pulse_and_an_untouched_queue_are_reason_enough(lost: dict[str, Any]) -> None:
    facts = seen(2, START + 0.1, untouched_since_s=START + 1)._replace(**lost)
    assert look(turning(), facts, START + 10.9)[1].verdict is Verdict.LAGGING
    _, judgement = look(turning(), facts, START + 11.1)
    assert judgement.verdict is Verdict.FROZEN
    assert "takes nothing from its queue" in judgement.reason


def test_an_untouched_queue_alone_is_no_reason() -> None:
    facts = seen(3, START + 60, untouched_since_s=START + 1)
    assert look(turning(), facts, START + 60)[1].verdict is Verdict.ADVANCING


def test_in_the_watchdogs_absence_no_queue_grew_old() -> None:
    """Suspended for an hour, with a pulse that cannot be read: the second witness begins anew too."""
    facts = seen(2, START + 0.1, untouched_since_s=START + 1)._replace(pulse=None)
    track = own_gap(turning(), 3600.0, TURN_S, START + 3600)
    assert look(track, facts, START + 3609)[1].verdict is Verdict.LAGGING
    assert look(track, facts, START + 3610.1)[1].verdict is Verdict.FROZEN


def hanging(since_s: float, now_s: float) -> ProcessFacts:
    """It turns, and its database call has not returned since then."""
    fields = {"blocked_on": "storage", "storage_ns": int(since_s * 1e9), "backlog": 4}
    return seen(int(now_s * 10), now_s, pulse_fields=fields)


def test_a_database_call_that_does_not_return_is_stalled_after_ten_seconds() -> None:
    track, _ = look(turning(), hanging(START + 1, START + 5), START + 5)
    track, judgement = look(track, hanging(START + 1, START + 10.9), START + 10.9)
    assert judgement.verdict is not Verdict.STALLED
    _, judgement = look(track, hanging(START + 1, START + 11.1), START + 11.1)
    assert (judgement.verdict, judgement.stage) == (Verdict.STALLED, STORAGE)
    assert judgement.good_s == pytest.approx(START + 1)


def test_a_locked_database_is_tried_again_and_again_and_nobody_is_stalled() -> None:
    """Each try is a new call that returns within a second, for ever."""
    track = turning()
    for second in range(1, 600):
        now_s = START + second
        track, judgement = look(track, hanging(now_s - 0.9, now_s), now_s)
        assert judgement.verdict is Verdict.ADVANCING


def test_a_database_call_that_was_suspended_with_all_the_rest_does_not_hang() -> None:
    """Resumed after an hour, the first pulse may still name the call from before."""
    track = own_gap(turning(), 3600.0, TURN_S, START + 3600)
    assert look(track, hanging(START + 0.05, START + 3600.1), START + 3600.1)[1].verdict is Verdict.ADVANCING
    assert (
        look(track, hanging(START + 0.05, START + 3600 + STORAGE_S_MAX), START + 3600 + STORAGE_S_MAX)[1].verdict
        is Verdict.STALLED
    )


def test_a_stage_that_stands_for_want_of_cpu_is_excused_until_thirty_seconds() -> None:
    track = turning()
    for tenth in range(310):
        now_s = START + 0.2 + tenth / 10
        fields = {"stepped": 5, "received": 9, "backlog": 4}
        spent = Spent(waited_s=0.9 * tenth / 10)
        track, judgement = look(track, seen(3 + tenth, now_s, pulse_fields=fields, spent=spent), now_s)
        if 2.1 < now_s - START - 0.2 < STARVED_S_MAX:
            assert judgement.verdict is Verdict.EXCUSED
    assert judgement.verdict is Verdict.STALLED


def test_what_it_waited_before_its_stage_last_moved_excuses_nothing() -> None:
    track, judgement = turning(), Judgement(Verdict.STARTING)
    for tenth in range(60):
        now_s = START + 0.2 + tenth / 10
        fields = {"stepped": 5 + min(tenth, 30), "received": 9, "backlog": 4}
        spent = Spent(
            waited_s=min(tenth, 30) / 10
        )  # starved for three seconds, and working all the same; then stuck with a CPU
        track, judgement = look(track, seen(3 + tenth, now_s, pulse_fields=fields, spent=spent), now_s)
    assert judgement.verdict is Verdict.STALLED


@pytest.mark.parametrize("more", [{}, {"state": "D"}, {"spent": Spent(waited_s=99)}, {"pulse": None}])
def test_who_holds_too_much_memory_is_found_a_second_later_whatever_else_is_wrong(more: dict[str, Any]) -> None:
    heavy = seen(3, START + 1, rss_bytes=2 << 30, rss_bytes_max=1 << 30)._replace(**more)
    track, judgement = look(turning(), heavy, START + 1)
    assert judgement.verdict is not Verdict.MEMORY
    _, judgement = look(track, heavy, START + 1 + HEAVY_S)
    assert judgement.verdict is Verdict.MEMORY
    assert judgement.reason == "it holds 2048 MiB of memory and may hold 1024"


def test_a_passing_peak_and_no_limit_are_no_verdict() -> None:
    heavy = seen(3, START + 1, rss_bytes=2 << 30, rss_bytes_max=1 << 30)
    track, _ = look(turning(), heavy, START + 1)
    track, _ = look(track, heavy._replace(rss_bytes=1), START + 1.5)
    assert look(track, heavy, START + 2.1)[1].verdict is Verdict.ADVANCING
    track, _ = look(turning(), heavy._replace(rss_bytes_max=0), START + 1)
    assert look(track, heavy._replace(rss_bytes_max=0), START + 2.5)[1].verdict is Verdict.ADVANCING


def test_a_process_found_without_pulse_by_a_new_watchdog_is_not_killed_for_it() -> None:
    facts = ProcessFacts(pid=7, start_ticks=70, age_s=600.0)
    track, judgement = look(Track(), facts, START)
    assert judgement.verdict is Verdict.LAGGING
    assert look(track, facts, START + 60)[1].verdict is Verdict.LAGGING


@pytest.mark.parametrize("supervised", ["RUNNING", "EXITED", "FATAL", "BACKOFF", "STOPPED", ""])
def test_no_process_is_dead(supervised: str) -> None:
    _, judgement = look(turning(), ProcessFacts(supervised=supervised), START + 1)
    assert judgement.verdict is Verdict.DEAD
    assert judgement.reason
    assert judgement.good_s == START + 0.1


def test_no_process_that_nobody_wants_is_stopped() -> None:
    assert look(turning(), ProcessFacts(wanted=False, supervised="STOPPED"), START + 1)[1].verdict is Verdict.STOPPED


def test_a_process_that_survives_sigkill_in_state_d_is_unkillable() -> None:
    facts = seen(2, START + 0.1, state="D", killed_s=START + 3)
    assert look(turning(), facts, START + 4.9)[1].verdict is Verdict.FROZEN
    assert look(turning(), facts, START + 5.1)[1].verdict is Verdict.UNKILLABLE
    assert look(turning(), facts._replace(state="S"), START + 5.1)[1].verdict is Verdict.FROZEN


def test_every_verdict_of_the_watchdog_is_reached_here() -> None:
    """SILENT is said by whoever reads its report."""
    text = msgspec.json.encode([str(verdict) for verdict in Verdict]).decode()
    assert set(msgspec.json.decode(text)) - {"silent"} == {
        "starting", "advancing", "lagging", "stalled", "deaf", "memory", "frozen", "dead", "excused",
        "unkillable", "stopped", "standby",
    }  # fmt: skip
