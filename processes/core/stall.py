"""The verdict on one process, from its successive pulses and what the kernel says of it. Pure.

    starting     until the first pulse, at most STARTING_S_MAX
    advancing    turns advance, and the oldest waiting item is young
    lagging      turns advance, the oldest item waits for longer than LAG_S; or the pulse cannot be read: shown, not killed
    stalled      turns advance, a stage has work and does not advance for stall_s
    frozen       no turn for stall_s while the process lives
    dead         there is no process
    excused      no turn for stall_s, but it could not: starved of CPU (at most STARVED_S_MAX), or the watchdog was away itself
    unkillable   survived SIGKILL in state D
    stopped      no process, as the operator wished

The theory: a turn is proof, silence is not. Silence counts only from when the watchdog itself was there to listen (`baseline_s`,
shortened by its own lag), and only as far as the process had a CPU to turn on. What bothers the author: `stalled` needs to know
which counters a kind of process moves when it works (STAGES); a kind that is not in the table is never stalled.

Units: *_s of CLOCK_MONOTONIC unless a length of time.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from processes.core.pulse import Pulse
from processes.core.report import Verdict

STARTING_S_MAX: Final = 10.0  # imports take 0.7 s on two idle cores; the rest is for a machine that boots
LAG_S: Final = 5.0  # oldest waiting item; guess: above every conflation and retry interval in the house
STARVED_S_MAX: Final = 30.0  # an excuse is stretched to this; measured: a quota of 0.1 % of a CPU made gaps of 7.4 s
STARVED_SHARE: Final = 0.5  # of the silent time spent waiting for a CPU
AWAY_S: Final = 1.0  # the watchdog's own gap after which all silence begins anew; its turns are 0.1 s apart
UNKILLABLE_S: Final = 2.0  # alive so long after SIGKILL

STAGES: Final[dict[str, tuple[str, ...]]] = {  # which counters move when a kind works off its backlog: one is enough
    "hub": ("stepped",),
    "gateway": ("stepped", "published", "delivered"),
    "fanout": ("stepped", "published", "delivered"),
}


class Facts(NamedTuple):
    """What was seen of one process in one turn of the watchdog."""

    wanted: bool = True
    supervised: str = "RUNNING"  # supervisord's word; empty while it does not answer
    pid: int = 0  # 0: there is no process
    start_ticks: int = 0
    age_s: float = 0.0  # since its start
    pulse: Pulse | None = None  # None: no file, or `unreadable` says why
    unreadable: str = ""
    state: str = "S"  # of /proc/PID/stat
    cpu_ns: int = 0  # of its main thread; -1: not looked at, because its pulse is fresh
    run_delay_ns: int = 0
    killed_s: float | None = None  # when the watchdog sent this very process SIGKILL
    pressed: bool = False  # the queue it fills is full: its waiting is the readers' doing
    canary_red_s: float = 0.0  # for how long no round was complete: the second witness when a pulse is missing


class Track(msgspec.Struct, frozen=True):
    """What the watchdog remembers of one process between its turns. `pid`, `start_ticks`: whom all this is about."""

    pid: int = 0
    start_ticks: int = 0
    turn: int = 0
    advanced_s: float = 0.0  # the last good turn; before the first one, when the process was first seen
    baseline_s: float = 0.0  # since when silence counts: the last good turn, or the watchdog's own return
    lag_s: float = 0.0  # the watchdog's own lag since then: it is not held against the process
    pulsed: bool = False  # it has turned at least once under our eyes, or before
    since_birth: bool = False  # seen from its start on
    cpu_ns: int = 0  # at the baseline; -1: at the next look that knows it
    run_delay_ns: int = 0
    away: bool = False  # the baseline is the watchdog's own return
    moved: int = 0  # sum of the stage counters
    moved_s: float = 0.0  # when they last moved, or had no work


class Judgement(NamedTuple):
    """The verdict, why, and the last moment at which all was well."""

    verdict: Verdict
    reason: str = ""
    good_s: float = 0.0
    stage: str = ""


def own_gap(track: Track, gap_s: float, turn_s: float, now_s: float) -> Track:
    """The track after the watchdog itself took `gap_s` from one turn to the next instead of `turn_s`."""
    if gap_s >= AWAY_S:
        return msgspec.structs.replace(track, baseline_s=now_s, moved_s=now_s, lag_s=0.0, away=True, cpu_ns=-1)
    return msgspec.structs.replace(track, lag_s=track.lag_s + max(0.0, gap_s - 2 * turn_s))


def judge(kind: str, track: Track, facts: Facts, now_s: float, stall_s: float) -> tuple[Track, Judgement]:
    """The track after this look, and the verdict."""
    if facts.pid == 0:
        return track, _absent(track, facts, now_s)
    track = _followed(kind, track, facts, now_s)
    return track, _present(kind, track, facts, now_s, stall_s)


def _absent(track: Track, facts: Facts, now_s: float) -> Judgement:
    if not facts.wanted:
        return Judgement(Verdict.STOPPED, "as asked")
    words = {"FATAL": "failed to start again and again", "STOPPED": "was stopped, but not by an operator's wish"}
    reason = words.get(facts.supervised, f"no process ({facts.supervised or 'supervisord does not answer'})")
    return Judgement(Verdict.DEAD, reason, track.advanced_s or now_s)


def _followed(kind: str, track: Track, facts: Facts, now_s: float) -> Track:
    """The track with this look's pulse entered."""
    if (facts.pid, facts.start_ticks) != (track.pid, track.start_ticks):
        track = Track(
            pid=facts.pid,
            start_ticks=facts.start_ticks,
            advanced_s=now_s,
            baseline_s=now_s,
            since_birth=facts.age_s < STARTING_S_MAX,
            cpu_ns=facts.cpu_ns,
            run_delay_ns=facts.run_delay_ns,
            away=True,  # nobody listened before: a silence that began earlier counts from now
            moved_s=now_s,
        )
    elif track.cpu_ns < 0:  # the watchdog was away, or looks at a silence for the first time: what was before is not judged
        track = msgspec.structs.replace(track, cpu_ns=facts.cpu_ns, run_delay_ns=facts.run_delay_ns)
    pulse = facts.pulse
    if pulse is None or pulse.turn == 0 or not _is_of(pulse, facts):
        return track
    moved = sum(int(getattr(pulse, stage)) for stage in STAGES.get(kind, ()))
    if moved != track.moved or pulse.backlog == 0 or pulse.blocked_on or facts.pressed:
        track = msgspec.structs.replace(track, moved=moved, moved_s=now_s)
    if pulse.turn == track.turn and track.pulsed:
        return track
    written_s = pulse.written_ns / 1e9
    advanced_s = min(now_s, written_s)  # a time in the future is nonsense, but a turn it is
    return msgspec.structs.replace(
        track,
        turn=pulse.turn,
        advanced_s=advanced_s,
        baseline_s=max(advanced_s, track.baseline_s) if track.away else advanced_s,
        lag_s=0.0,
        pulsed=True,
        cpu_ns=facts.cpu_ns,
        run_delay_ns=facts.run_delay_ns,
        away=track.away and advanced_s < track.baseline_s,
    )


def _present(kind: str, track: Track, facts: Facts, now_s: float, stall_s: float) -> Judgement:
    good_s = track.advanced_s
    if facts.killed_s is not None and now_s - facts.killed_s >= UNKILLABLE_S and facts.state == "D":
        return Judgement(Verdict.UNKILLABLE, "survived SIGKILL in state D", good_s)
    if facts.pulse is None or not _is_of(facts.pulse, facts) or facts.pulse.turn == 0:
        return _without_pulse(track, facts, now_s)
    silent_s = now_s - track.advanced_s
    if silent_s >= stall_s:
        return _silent(track, facts, now_s, stall_s)
    pulse = facts.pulse
    stuck_s = now_s - track.moved_s - track.lag_s
    if kind in STAGES and stuck_s >= stall_s:  # moved_s is now while there is no work, or it waits for others
        stage = STAGES[kind][0]
        return Judgement(Verdict.STALLED, f"{pulse.backlog} waiting and nothing {stage} for {stuck_s:.1f} s", track.moved_s, stage)
    oldest_s = now_s - pulse.oldest_ns / 1e9
    if pulse.backlog > 0 and pulse.oldest_ns > 0 and oldest_s > LAG_S:
        return Judgement(Verdict.LAGGING, f"the oldest of {pulse.backlog} waits for {oldest_s:.1f} s", good_s)
    return Judgement(Verdict.ADVANCING, "", good_s)


def _silent(track: Track, facts: Facts, now_s: float, stall_s: float) -> Judgement:
    """No turn for stall_s: frozen, or excused."""
    silent_s = now_s - track.advanced_s
    counted_s = now_s - track.baseline_s - track.lag_s
    if counted_s < stall_s:
        why = "the watchdog was away itself" if track.away else f"the watchdog itself lagged by {track.lag_s:.1f} s"
        return Judgement(Verdict.EXCUSED, why, track.advanced_s)
    if facts.state in ("T", "t"):
        return Judgement(Verdict.FROZEN, f"no turn for {silent_s:.1f} s: stopped by a signal or a debugger", track.advanced_s)
    starved = _starved(track, facts, counted_s, stall_s)
    if starved and counted_s < STARVED_S_MAX:
        return Judgement(Verdict.EXCUSED, starved, track.advanced_s)
    return Judgement(Verdict.FROZEN, f"no turn for {silent_s:.1f} s", track.advanced_s)


def _starved(track: Track, facts: Facts, counted_s: float, limit_s: float) -> str:
    """Why the process could not turn, if it had no CPU for most of the silence; else empty.

    What ran for half of what it is allowed on an idle machine was not starved of its turn: it spins, with others beside it.
    """
    waited_s = max(0, facts.run_delay_ns - track.run_delay_ns) / 1e9
    ran_s = max(0, facts.cpu_ns - track.cpu_ns) / 1e9
    # the waiting of a throttled group is entered only when it runs again: until then it is runnable, and does not run
    throttled = facts.state == "R" and ran_s < (1 - STARVED_SHARE) * counted_s
    if ran_s < limit_s / 2 and (waited_s >= STARVED_SHARE * counted_s or throttled):
        return f"starved: it got {ran_s:.1f} s of CPU in {counted_s:.1f} s"
    return ""


def _without_pulse(track: Track, facts: Facts, now_s: float) -> Judgement:
    """No pulse of this very process: starting, or bad news that needs a second witness."""
    if not track.pulsed and track.since_birth:
        counted_s = now_s - track.baseline_s
        if counted_s < STARTING_S_MAX:
            return Judgement(Verdict.STARTING, "", track.advanced_s)
        starved = _starved(track, facts, counted_s, STARTING_S_MAX)
        if starved and counted_s < STARVED_S_MAX:
            return Judgement(Verdict.EXCUSED, starved, track.advanced_s)
        return Judgement(Verdict.FROZEN, f"no turn within {STARTING_S_MAX:.0f} s of its start", track.advanced_s)
    what = facts.unreadable or ("missing" if facts.pulse is None else "another process's")
    if facts.canary_red_s >= STARTING_S_MAX and now_s - track.baseline_s >= STARTING_S_MAX:
        return Judgement(Verdict.FROZEN, f"its pulse is {what}, and no canary command goes round", track.advanced_s)
    return Judgement(Verdict.LAGGING, f"its pulse is {what}", track.advanced_s)


def _is_of(pulse: Pulse, facts: Facts) -> bool:
    return (pulse.pid, pulse.start_ticks) == (facts.pid, facts.start_ticks)
