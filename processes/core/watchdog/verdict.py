"""The verdict on one process, from its successive pulses and the kernel's figures. Pure.

    starting     until the first pulse, at most STARTING_S_MAX
    advancing    turns advance, and the oldest waiting item is young
    lagging      turns advance, the oldest item waits for longer than LAG_S; or connections have waited at its port all
                 that time though it accepts (its port is crowded); or the pulse cannot be read: shown, not killed
    stalled      turns advance, a stage has work and does not advance for stall_s; or a database call does not return
    deaf         turns advance, and connections wait at its port of which it accepts none for stall_s and DEAF_TURNS
    memory       holds more memory than it may
    frozen       no turn for stall_s while the process lives
    dead         there is no process
    excused      no turn or no work for stall_s, but it could not: starved of CPU (at most STARVED_S_MAX), or the
                 watchdog was away
    unkillable   survived SIGKILL in state D
    stopped      no process, as the operator wants it

The theory: a turn is proof, silence is not. Silence counts only from when the watchdog itself was there to listen
(`baseline_s`, shortened by its own lag), and only as far as the process had a CPU to turn on: a process that got a good
part of a second of CPU and did not turn is frozen, however busy the machine is. A pulse that is missing, garbage or
another process's is doubted, and needs a second witness: the queue that the process reads.

Several processes may accept from one port, and the kernel wakes them all: whoever is quicker takes a connection. So
that a process accepts nothing says something only at turns at which a connection waits when the process has had its
chance; it counts those itself (core/travels/pulse.py, enter_accepts). Whoever accepts a connection, be it to close it
at once because there is no room, is not deaf.

What bothers the author:
`stalled` needs to know which counters a kind of process moves when it works (STAGES); a kind that is not in the table
is never stalled.

Units: *_s of CLOCK_MONOTONIC unless a length of time.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from processes.core.shown.status import HALTED, Verdict
from processes.core.travels.pulse import Blocked, Pulse

STARTING_S_MAX: Final = 10.0  # imports take 0.7 s on two idle cores; the rest is for a machine that boots
LAG_S: Final = 5.0  # oldest waiting item; guess: above every conflation and retry interval in the house
STARVED_S_MAX: Final = 30.0  # an excuse is stretched to this; measured: a quota of 0.1 % of a CPU made gaps of 7.4 s
STARVED_SHARE: Final = 0.5  # of the silent time spent waiting for a CPU
# of the allowed silence: with so much CPU a process was not starved of its turn, which takes milliseconds
RAN_SHARE: Final = 0.25
# a database call that takes longer hangs; on a locked or full disk it returns within 1 s and is tried again
STORAGE_S_MAX: Final = 10.0
HEAVY_S: Final = 1.0  # over the memory limit for so long: a peak may pass
STORAGE: Final = "storage"  # the stage of a database call
# turns in a row that ended with a connection waiting and none accepted: in a storm of connections another process of
# the port may take them all just before one such turn, but hardly before so many
DEAF_TURNS: Final = 6
AWAY_S: Final = 1.0  # after such a gap of the watchdog's own, all silence counts anew; its turns are 0.1 s apart
UNKILLABLE_S: Final = 2.0  # alive so long after SIGKILL

STAGES: Final[dict[str, tuple[str, ...]]] = {  # which counters move when a kind works off its backlog: one is enough
    "hub": ("stepped",),
    "gateway": ("stepped", "published", "delivered"),
    "fanout": ("stepped", "published", "delivered"),
}


class Spent(NamedTuple):
    """What the kernel has counted of a process up to one moment.

    Units: seconds since its start; periods of its control group.
    """

    ran_s: float = 0.0  # its main thread, on a CPU
    waited_s: float = 0.0  # its main thread, runnable without one
    used_s: float = 0.0  # all its threads, on CPUs
    periods: int = 0  # of its control group's quota
    throttled: int = 0  # of these, how many ended with the group held back
    pressed_s: float = 0.0  # in which a process of its control group (or of the machine) waited for a CPU


class ProcessFacts(NamedTuple):
    """What was seen of one process in one turn of the watchdog."""

    wanted: bool = True
    supervised: str = "RUNNING"  # supervisord's state of it; empty while supervisord does not answer
    pid: int = 0  # 0: there is no process
    start_ticks: int = 0
    age_s: float = 0.0  # since its start
    pulse: Pulse | None = None  # None: no file, or `unreadable` says why
    unreadable: str = ""
    state: str = "S"  # of /proc/PID/stat
    runnable: bool = False  # any of its threads is in state R
    spent: Spent | None = None  # None: not looked at, because it turns and has nothing to do
    rss_bytes: int = 0
    rss_bytes_max: int = 0  # what it may hold; 0: no limit
    killed_s: float | None = None  # when the watchdog sent this very process SIGKILL
    pressed: bool = False  # the queue that it fills is full: it waits because of the readers
    # the second witness: since when it takes nothing from the queue that it reads; None: it does, or not known
    untouched_since_s: float | None = None
    gave_up: str = ""  # why the process ended that is not there, or that this one follows, by its own word


class Track(msgspec.Struct, frozen=True):
    """What the watchdog remembers of one process between its turns. `pid`, `start_ticks`: of this process."""

    pid: int = 0
    start_ticks: int = 0
    turn: int = 0
    advanced_s: float = 0.0  # the last good turn; before the first one, when the process was first seen
    baseline_s: float = 0.0  # since when silence counts: the last good turn, or the watchdog's own return
    lag_s: float = 0.0  # the watchdog's own lag since then, which does not count as silence
    pulsed: bool = False  # it has turned at least once
    since_birth: bool = False  # seen from its start on
    spent: Spent | None = None  # at the baseline; None: enter it at the next look
    away: bool = False  # the baseline is the watchdog's own return
    heard_s: float = 0.0  # since when the watchdog was there without a break
    moved: int = 0  # sum of the stage counters
    moved_s: float = 0.0  # when they last moved, or had no work
    moved_spent: Spent | None = None  # at that moment; None: enter it at the next look
    heavy_s: float | None = None  # since when it holds more memory than it may
    unaccepted_ns: int = 0  # of its last pulse: since when it accepts nothing of what waits
    unaccepted_spent: Spent | None = None  # at the first look since then


class Judgement(NamedTuple):
    """The verdict, why, and the last moment at which all was well."""

    verdict: Verdict
    reason: str = ""
    good_s: float = 0.0
    stage: str = ""


def own_gap(track: Track, gap_s: float, turn_s: float, now_s: float) -> Track:
    """Return the track after the watchdog itself took `gap_s` from one turn to the next instead of `turn_s`."""
    if gap_s >= AWAY_S:
        return msgspec.structs.replace(
            track, baseline_s=now_s, moved_s=now_s, heard_s=now_s, lag_s=0.0, away=True,
            spent=None, moved_spent=None, heavy_s=None, unaccepted_spent=None,
        )  # fmt: skip
    return msgspec.structs.replace(track, lag_s=track.lag_s + max(0.0, gap_s - 2 * turn_s))


def judge(kind: str, track: Track, facts: ProcessFacts, now_s: float, stall_s: float) -> tuple[Track, Judgement]:
    """Return the track after this look, and the verdict."""
    if facts.pid == 0:
        return track, _absent(track, facts, now_s)
    track = _followed(kind, track, facts, now_s)
    return track, _present(kind, track, facts, now_s, stall_s)


def went_on(found: Verdict, turn: int, pulse: Pulse) -> bool:
    """Return whether a process needs no remedy any more, by a newer pulse of it: a frozen one that has turned since
    `turn`, or a deaf one that has also accepted what waited.
    """
    return pulse.turn > turn and (found is Verdict.FROZEN or (found is Verdict.DEAF and not pulse.unaccepted_ns))


def _absent(track: Track, facts: ProcessFacts, now_s: float) -> Judgement:
    if not facts.wanted:
        return Judgement(Verdict.STOPPED, "as asked")
    words = {"FATAL": "failed to start again and again", "STOPPED": "was stopped, but not by an operator"}
    reason = words.get(facts.supervised, f"no process ({facts.supervised or 'supervisord does not answer'})")
    return Judgement(Verdict.DEAD, f"{reason}: {facts.gave_up}" if facts.gave_up else reason, track.advanced_s or now_s)


def _followed(kind: str, track: Track, facts: ProcessFacts, now_s: float) -> Track:
    """Return the track with this look's pulse entered."""
    if (facts.pid, facts.start_ticks) != (track.pid, track.start_ticks):
        track = Track(
            pid=facts.pid,
            start_ticks=facts.start_ticks,
            advanced_s=now_s,
            baseline_s=now_s,
            since_birth=facts.age_s < STARTING_S_MAX,
            spent=facts.spent,
            away=True,  # the watchdog did not listen before: a silence that began earlier counts from now
            heard_s=now_s,
            moved_s=now_s,
            moved_spent=facts.spent,
        )
    elif track.spent is None or track.moved_spent is None:  # first look since a turn, or since being away
        track = msgspec.structs.replace(
            track, spent=track.spent or facts.spent, moved_spent=track.moved_spent or facts.spent
        )
    heavy = 0 < facts.rss_bytes_max < facts.rss_bytes
    if heavy != (track.heavy_s is not None):
        track = msgspec.structs.replace(track, heavy_s=now_s if heavy else None)
    pulse = facts.pulse
    if pulse is None or pulse.turn == 0 or not _is_of(pulse, facts):
        return track
    moved = sum(int(getattr(pulse, stage)) for stage in STAGES.get(kind, ()))
    if moved != track.moved or pulse.backlog == 0 or pulse.blocked_on or facts.pressed:
        track = msgspec.structs.replace(track, moved=moved, moved_s=now_s, moved_spent=facts.spent)
    if pulse.unaccepted_ns != track.unaccepted_ns or (pulse.unaccepted_ns and track.unaccepted_spent is None):
        track = msgspec.structs.replace(track, unaccepted_ns=pulse.unaccepted_ns, unaccepted_spent=facts.spent)
    if pulse.turn == track.turn and track.pulsed:
        return track
    written_s = pulse.written_ns / 1e9
    advanced_s = min(now_s, written_s)  # a time in the future is nonsense, but the turn was made
    return msgspec.structs.replace(
        track,
        turn=pulse.turn,
        advanced_s=advanced_s,
        baseline_s=max(advanced_s, track.baseline_s) if track.away else advanced_s,
        lag_s=0.0,
        pulsed=True,
        spent=facts.spent,
        away=track.away and advanced_s < track.baseline_s,
    )


def _present(kind: str, track: Track, facts: ProcessFacts, now_s: float, stall_s: float) -> Judgement:
    good_s = track.advanced_s
    if facts.killed_s is not None and now_s - facts.killed_s >= UNKILLABLE_S and facts.state == "D":
        return Judgement(Verdict.UNKILLABLE, "survived SIGKILL in state D", good_s)
    if track.heavy_s is not None and now_s - track.heavy_s >= HEAVY_S:
        held, limit = facts.rss_bytes >> 20, facts.rss_bytes_max >> 20
        return Judgement(Verdict.MEMORY, f"it holds {held} MiB of memory and may hold {limit}", good_s)
    if facts.pulse is None or not _is_of(facts.pulse, facts) or facts.pulse.turn == 0:
        return _without_pulse(track, facts, now_s)
    silent_s = now_s - track.advanced_s
    if silent_s >= stall_s:
        return _silent(track, facts, now_s, stall_s)
    pulse = facts.pulse
    hangs_s = now_s - max(pulse.storage_ns / 1e9, track.heard_s) if pulse.storage_ns else 0.0
    if hangs_s >= STORAGE_S_MAX:
        return Judgement(
            Verdict.STALLED, f"a database call has not returned for {hangs_s:.1f} s", now_s - hangs_s, STORAGE
        )
    if pulse.unaccepted_ns and (found := _deaf(track, pulse, facts, now_s, stall_s)) is not None:
        return found
    stuck_s = now_s - track.moved_s - track.lag_s
    if kind in STAGES and stuck_s >= stall_s:  # moved_s is now while there is no work, or it waits for others
        starved = _starved(track.moved_spent, facts, stuck_s, stall_s)
        if starved and stuck_s < STARVED_S_MAX:
            return Judgement(Verdict.EXCUSED, starved, track.moved_s)
        stage = STAGES[kind][0]
        return Judgement(
            Verdict.STALLED, f"{pulse.backlog} waiting and nothing {stage} for {stuck_s:.1f} s", track.moved_s, stage
        )
    oldest_s = now_s - pulse.oldest_ns / 1e9
    if pulse.backlog > 0 and pulse.oldest_ns > 0 and oldest_s > LAG_S:
        return Judgement(Verdict.LAGGING, f"the oldest of {pulse.backlog} waits for {oldest_s:.1f} s", good_s)
    crowded_s = now_s - max(pulse.waiting_ns / 1e9, track.heard_s)
    if pulse.waiting_ns and not pulse.unaccepted_ns and crowded_s > LAG_S:
        return Judgement(Verdict.LAGGING, f"its port is crowded: {_waiting(pulse)} for {crowded_s:.1f} s", good_s)
    if pulse.blocked_on == Blocked.STANDBY:
        return Judgement(Verdict.STANDBY, "another hub leads", good_s)
    return Judgement(Verdict.ADVANCING, "", good_s)


def _deaf(track: Track, pulse: Pulse, facts: ProcessFacts, now_s: float, stall_s: float) -> Judgement | None:
    """Return the verdict on a process that accepts nothing of what waits: deaf or excused; None before it is time."""
    since_s = max(pulse.unaccepted_ns / 1e9, track.heard_s)
    waits_s = now_s - since_s  # a lag of the watchdog is no excuse: the process tells by its own turns
    if waits_s < stall_s or pulse.unaccepted_turns < DEAF_TURNS:
        return None
    starved = _starved(track.unaccepted_spent, facts, waits_s, stall_s)
    if starved and waits_s < STARVED_S_MAX:
        return Judgement(Verdict.EXCUSED, starved, since_s)
    return Judgement(Verdict.DEAF, f"{_waiting(pulse)}, and it has accepted none for {waits_s:.1f} s", since_s)


def _waiting(pulse: Pulse) -> str:
    one = pulse.waiting == 1
    full = ", the queue is full" if pulse.waiting > pulse.waiting_max else ""
    return f"{pulse.waiting} connection{'s' * (not one)} wait{'s' * one} to be accepted{full}"


def _silent(track: Track, facts: ProcessFacts, now_s: float, stall_s: float) -> Judgement:
    """Return the verdict after no turn for stall_s: frozen, or excused."""
    silent_s = now_s - track.advanced_s
    counted_s = now_s - track.baseline_s - track.lag_s
    if counted_s < stall_s:
        why = "the watchdog was away itself" if track.away else f"the watchdog itself lagged by {track.lag_s:.1f} s"
        return Judgement(Verdict.EXCUSED, why, track.advanced_s)
    if facts.state in ("T", "t"):
        return Judgement(Verdict.FROZEN, f"no turn for {silent_s:.1f} s: {HALTED}", track.advanced_s)
    starved = _starved(track.spent, facts, counted_s, stall_s)
    if starved and counted_s < STARVED_S_MAX:
        return Judgement(Verdict.EXCUSED, starved, track.advanced_s)
    return Judgement(Verdict.FROZEN, f"no turn for {silent_s:.1f} s", track.advanced_s)


def _starved(since: Spent | None, facts: ProcessFacts, counted_s: float, limit_s: float) -> str:
    """Return why the process could not turn, if it had no CPU for most of the silence; else empty.

    The kernel enters the waiting time of a main thread only when that thread runs again: until then the thread is
    runnable (state R) and does not run. For another thread, which may hold the interpreter's lock meanwhile, state R
    alone says little: it may have woken just now. So the whole control group must have waited as well.
    """
    if since is None or facts.spent is None:
        return ""
    then, now = since, facts.spent
    ran_s, used_s = now.ran_s - then.ran_s, now.used_s - then.used_s
    if ran_s >= RAN_SHARE * limit_s:
        return ""
    throttled = now.throttled - then.throttled > STARVED_SHARE * max(1, now.periods - then.periods)
    pressed = now.pressed_s - then.pressed_s >= STARVED_SHARE * counted_s
    waited = now.waited_s - then.waited_s >= STARVED_SHARE * counted_s
    others = facts.runnable and used_s < RAN_SHARE * limit_s and (throttled or pressed)
    if not (waited or facts.state == "R" or others):
        return ""
    by = "its control group is throttled" if throttled else "others have the CPUs"
    return f"starved: it got {ran_s:.1f} s of CPU in {counted_s:.1f} s, {by}"


def _without_pulse(track: Track, facts: ProcessFacts, now_s: float) -> Judgement:
    """Return the verdict without a pulse of this very process: starting, or doubted until the second witness speaks."""
    if not track.pulsed and track.since_birth:
        counted_s = now_s - track.baseline_s
        if counted_s < STARTING_S_MAX:
            said = f"the one before it gave up: {facts.gave_up}" if facts.gave_up else ""
            return Judgement(Verdict.STARTING, said, track.advanced_s)
        starved = _starved(track.spent, facts, counted_s, STARTING_S_MAX)
        if starved and counted_s < STARVED_S_MAX:
            return Judgement(Verdict.EXCUSED, starved, track.advanced_s)
        return Judgement(Verdict.FROZEN, f"no turn within {STARTING_S_MAX:.0f} s of its start", track.advanced_s)
    what = facts.unreadable or ("missing" if facts.pulse is None else "another process's")
    since_s = facts.untouched_since_s
    if since_s is not None and now_s - max(since_s, track.baseline_s, track.heard_s) >= STARTING_S_MAX:
        return Judgement(Verdict.FROZEN, f"its pulse is {what}, and it takes nothing from its queue", track.advanced_s)
    return Judgement(Verdict.LAGGING, f"its pulse is {what}", track.advanced_s)


def _is_of(pulse: Pulse, facts: ProcessFacts) -> bool:
    return (pulse.pid, pulse.start_ticks) == (facts.pid, facts.start_ticks)
