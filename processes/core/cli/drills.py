"""The drills: what each breaks, what must be true afterwards, and within which bounds. Pure.

The promise for a fault that freezes or kills one process: it is found within FOUND_S, all is well within WELL_S, no
command is lost or runs twice, and only clients of the process that died are disconnected. A drill with a wider bound
says why in `why`.

Units: *_s are lengths of time.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from processes.core.records.command import State

FOUND_S: Final = 3.0  # promised: the stall limit of 2 s, one turn of the watchdog, and a margin
WELL_S: Final = 5.0  # promised: found, evidence of at most 1 s, kill, start, one canary round
CI_SLACK: Final = 6.0  # factor on the bounds with CI=true: a shared machine is four times slower, and a margin

BEGIN: Final = "<!-- crash matrix: written by bin/crash-matrix -->"
END: Final = "<!-- end of the crash matrix -->"

AGENTS: Final = "agents"
OPERATORS: Final = "operators"


class Drill(msgspec.Struct, frozen=True, kw_only=True):
    """One drill and its bounds."""

    name: str
    what: str
    process: str = ""  # the process that must have an incident; empty: there must be none
    verdict: str = ""  # of that incident
    guilty: str = ""  # the function that the evidence must name
    found_s: float | None = FOUND_S  # None: there is nothing to find
    well_s: float = WELL_S  # from the fault, or from the end of a condition that lasts
    wait_s: float | None = None  # how long an operator may wait for "accepted" meanwhile; None: not bounded
    breaks: tuple[str, ...] = ()  # whose connections may break, because their process dies
    replaced: tuple[str, ...] = ()  # other processes than `process` that are expected to be replaced
    lasts_s: float = 0.0  # how long the condition is held
    short_s: float = 0.0  # lasts_s of the short form
    inside: bool = False  # a fault that a process inflicts on itself: needs drills.enabled
    mounts: bool = False  # needs root: it runs in an installation of its own on a small tmpfs
    long: bool = False  # has no short form
    why: str = ""  # why a bound is not the promised one


def _hit(process: str, breaks: tuple[str, ...] = ()) -> list[Drill]:
    kill = Drill(name=f"{process}-kill", what=f"kill -9 of {process}", process=process, verdict="dead", breaks=breaks)
    stop = Drill(
        name=f"{process}-stop", what=f"{process} stopped (SIGSTOP)", process=process, verdict="frozen", breaks=breaks
    )
    return [kill, stop]


def _deaf(process: str, breaks: tuple[str, ...]) -> Drill:
    return Drill(
        name=f"{process}-deaf", what=f"{process} goes on turning and accepts no more connections", process=process,
        verdict="deaf", breaks=breaks, inside=True,
    )  # fmt: skip


def _inside(fault: str, what: str, function: str) -> Drill:
    return Drill(name=f"hub-{fault}", what=what, process="hub", verdict="frozen", guilty=function, inside=True)


DRILLS: Final[tuple[Drill, ...]] = (
    *_hit("hub"),
    _inside("deadlock", "the hub's loop takes a lock that it holds", "take_a_lock_twice"),
    _inside("busy", "the hub's loop spins for ever", "turn_for_ever"),
    _inside("blocked", "the hub's loop waits in a blocking call", "wait_for_ever"),
    Drill(
        name="hub-exception", what="a step of the hub raises", inside=True, found_s=1.0, well_s=1.0,
        why="found is the answer 500 to its request; nothing is replaced",
    ),
    Drill(
        name="hub-poison", what="a message that freezes every hub that steps it", inside=True, process="hub",
        verdict="frozen", guilty="take_a_lock_twice", well_s=12.0,
        why="two deaths, each mended as any other; then the message is put aside",
    ),
    Drill(
        name="hub-leak", what="the hub keeps more memory than it may", inside=True, long=True, process="hub",
        verdict="memory", found_s=5.0, well_s=8.0,
        why="a peak may pass, so it must last a second; and the watchdog looks at memory less often than at pulses",
    ),
    *_hit("fanout", (OPERATORS,)),
    _deaf("fanout", (OPERATORS,)),
    *_hit("gateway", (AGENTS,)),
    _deaf("gateway", (AGENTS,)),
    *_hit("queues"),
    Drill(
        name="watchdog-kill", what="kill -9 of the watchdog", found_s=None, replaced=("watchdog",),
        why="the watchdog's own death leaves no incident; supervisord's log and the new pid tell of it",
    ),
    Drill(
        name="watchdog-stop", what="the watchdog stopped, then continued", found_s=5.0, lasts_s=8.0, short_s=5.0,
        why="found is `status` saying that the watchdog is silent, which it does after 3 s; the rest goes on meanwhile",
    ),
    Drill(
        name="agent-kill", what="kill -9 of this machine's agent and of the drill's own, which runs a command",
        process="agent", verdict="dead", breaks=(AGENTS,), well_s=5.0,
    ),
    Drill(
        name="database-locked", what="another program holds the database", lasts_s=30.0, short_s=5.0, found_s=3.0,
        why="found is the hub's word that storage is blocked; well is counted from the release",
    ),
    Drill(
        name="disk-full", what="the state folder's disk is full", lasts_s=6.0, mounts=True, long=True, found_s=3.0,
        well_s=10.0,
        why="as database-locked; the watchdog's status is on that disk too: watchdog and canary come back one by one",
    ),
    Drill(
        name="log-disk-full", what="the logs' disk is full", lasts_s=6.0, mounts=True, long=True, found_s=None,
        wait_s=2.0,
        why="nothing may be found: logs are lost, and nothing waits for them",
    ),
    Drill(
        name="broadcast-flood", what="a command floods the operators with 60,000 lines of output", found_s=None,
        wait_s=5.0,
        why="nothing may be found: the others are served meanwhile",
    ),
    Drill(
        name="slow-operator", what="five operators who ask for all and read nothing", found_s=None, lasts_s=10.0,
        short_s=3.0, wait_s=2.0,
        why="nothing may be found: the others are served meanwhile",
    ),
    Drill(
        name="starvation", what="16 processes burn the CPU", found_s=None, lasts_s=30.0, short_s=5.0, well_s=10.0,
        wait_s=20.0,
        why="nothing may be killed: a starved process is slow, not frozen",
    ),
    Drill(
        name="suspend", what="every process stopped at once, then continued", found_s=None, lasts_s=60.0, short_s=5.0,
        well_s=10.0,
        why="nothing may be killed: it was the machine, not the process. Canary and connections begin anew",
    ),
    Drill(
        name="crash-loop", what="the hub killed six times, as soon as it runs again", process="hub", verdict="dead",
        why="well is counted from the last kill: deaths by others use up no restart budget",
    ),
    Drill(
        name="fatal", what="the hub killed until supervisord gives it up", process="hub", verdict="dead", well_s=60.0,
        why="well is counted from supervisord's FATAL: the watchdog revives with backoff",
    ),
    Drill(
        name="supervisord-kill", what="kill -9 of supervisord, then `up`", found_s=1.0, well_s=30.0,
        breaks=(AGENTS, OPERATORS), replaced=("queues", "hub", "gateway", "fanout", "watchdog", "agent"),
        why="found is that no child lives any more; well is `up` saying so; without systemd only a person can start it",
    ),
)  # fmt: skip
BY_NAME: Final = {drill.name: drill for drill in DRILLS}
# the drills that freeze or kill one process once: the promise in its strictest form
ONE_PROCESS: Final = tuple(d.name for d in DRILLS if d.process and d.well_s == WELL_S and not d.why)


class Left(msgspec.Struct, frozen=True):
    """An incident that a drill left behind: the fields that it is judged by."""

    id: str
    process: str
    verdict: str
    stuck_at: str | None
    lost: int
    drill: bool


class Given(msgspec.Struct, frozen=True):
    """What became of a command that was accepted. `state` None: the hub does not know it (any more), or `reason` says
    why it could not be asked. `ran`: how often it has left its mark.
    """

    id: str
    state: State | None
    reason: str = ""
    ran: int = 0


class StreamEnd(NamedTuple):
    """What became of all commands.

    `lost`: unknown to the hub, lost by its own word, or succeeded without having run. `late`: known to the hub, and not
    ended within the drill's time. `doubled`: ran more than once.
    """

    commands: int
    lost: int
    late: int
    doubled: int
    trouble: list[str]


def outcome(given: Sequence[Given]) -> StreamEnd:
    """Return what became of all commands; a line of trouble for each that did not succeed."""
    lost = [
        each for each in given if each.state in (None, State.LOST) or (each.state is State.SUCCEEDED and not each.ran)
    ]
    late = [each for each in given if each.state is not None and not each.state.final]
    trouble = []
    for each in given:
        if each.state is None:
            trouble.append(f"command {each.id}: {each.reason}")
        elif each in late:
            trouble.append(f"command {each.id} has not ended yet: {each.state}")
        elif each.state is not State.SUCCEEDED:
            trouble.append(f"command {each.id} is {each.state} {each.reason}")
        elif not each.ran:
            trouble.append(f"command {each.id} succeeded and did not run")
    return StreamEnd(len(given), len(lost), len(late), sum(each.ran > 1 for each in given), trouble)


class Figures(msgspec.Struct, kw_only=True):
    """One round of a drill. `trouble`: what went wrong, a line each; a round without trouble is ok."""

    name: str
    ok: bool = False
    detected_s: float | None = None
    recovered_s: float | None = None
    lost: int = 0
    late: int = 0  # accepted, and not ended in the drill's time
    doubled: int = 0
    commands: int = 0  # accepted during the drill
    wait_s: float = 0.0  # the longest time from the request of one of them until it was accepted
    agents_disconnected: int = 0
    operators_disconnected: int = 0
    incident: str | None = None
    stuck_at: str | None = None
    trouble: list[str] = []


class DrillResult(Figures, kw_only=True):
    """All rounds of a drill: the worst of each figure, and medians."""

    rounds: int = 1
    detected_median_s: float | None = None
    recovered_median_s: float | None = None
    what: str = ""


def trouble(
    drill: Drill, seen: Figures, left: Sequence[Left], replaced: Iterable[str], slack: float = 1.0
) -> list[str]:
    """Return what is outside the drill's bounds, a line each. The bounds of times are multiplied by `slack`."""
    found = list(seen.trouble)
    found += _late("found", seen.detected_s, drill.found_s, slack)
    found += _late("well", seen.recovered_s, drill.well_s, slack)
    found += _late("accepted", seen.wait_s, drill.wait_s, slack)
    counts = [
        (seen.lost, "commands lost"),
        (seen.late, "commands not ended in time"),
        (seen.doubled, "commands ran twice"),
    ]
    counts += [(seen.agents_disconnected, "agents disconnected")] if AGENTS not in drill.breaks else []
    counts += [(seen.operators_disconnected, "operators disconnected")] if OPERATORS not in drill.breaks else []
    found += [f"{count} {what}" for count, what in counts if count]
    expected = {drill.process, *drill.replaced}
    found += [f"{name} was replaced without a reason" for name in sorted(set(replaced) - expected)]
    return found + _incidents(drill, left)


def _late(word: str, took_s: float | None, bound_s: float | None, slack: float) -> list[str]:
    if bound_s is None:
        return []
    if took_s is None:
        return [f"it is not known after how long it was {word}"]
    return [f"{word} after {took_s:.2f} s; the bound is {bound_s * slack:.0f} s"] if took_s > bound_s * slack else []


def _incidents(drill: Drill, left: Sequence[Left]) -> list[str]:
    own = [each for each in left if each.process == drill.process]
    found = [
        f"an incident of {each.process} ({each.verdict}) that is not explained: {each.id}"
        for each in left
        if each not in own
    ]
    found += [f"incident {each.id} is not marked as a drill's" for each in own if not each.drill]
    found += [f"incident {each.id} tells of {each.lost} lost commands" for each in left if each.lost]
    if not drill.process:
        return found
    if not own:
        return [*found, "it left no incident"]
    first = own[0]
    if first.verdict != drill.verdict:
        found.append(f"the verdict was {first.verdict}, not {drill.verdict}")
    if drill.verdict == "frozen" and drill.inside and not first.stuck_at:  # one that is stopped may stand anywhere
        found.append("the evidence does not say where it stood")
    if drill.guilty not in (first.stuck_at or ""):
        found.append(f"the evidence says {first.stuck_at}, not {drill.guilty}")
    return found


def together(drill: Drill, rounds: Sequence[Figures]) -> DrillResult:
    """Return the row of a drill's rounds, of which there is at least one.

    `incident` and `stuck_at` are of the first round that failed, or of the last one.
    """
    shown = next((each for each in rounds if not each.ok), rounds[-1])
    found = [each.detected_s for each in rounds if each.detected_s is not None]
    well = [each.recovered_s for each in rounds if each.recovered_s is not None]
    return DrillResult(
        name=drill.name,
        what=drill.what,
        ok=all(each.ok for each in rounds),
        rounds=len(rounds),
        detected_s=max(found, default=None),
        detected_median_s=statistics.median(found) if found else None,
        recovered_s=max(well, default=None),
        recovered_median_s=statistics.median(well) if well else None,
        lost=sum(each.lost for each in rounds),
        late=sum(each.late for each in rounds),
        doubled=sum(each.doubled for each in rounds),
        commands=sum(each.commands for each in rounds),
        wait_s=max(each.wait_s for each in rounds),
        agents_disconnected=max(each.agents_disconnected for each in rounds),
        operators_disconnected=max(each.operators_disconnected for each in rounds),
        incident=shown.incident,
        stuck_at=shown.stuck_at,
        trouble=[line for each in rounds for line in each.trouble],
    )


HEADER: Final = (
    "drill", "what", "rounds", "found: median, worst", "well: median, worst", "operator waited", "commands", "lost",
    "doubled", "agents disconnected", "where it stood",
)  # fmt: skip


def cells(row: DrillResult) -> list[str]:
    """Return the cells of a row, in the order of HEADER."""
    return [
        row.name, row.what, str(row.rounds), _times(row.detected_median_s, row.detected_s),
        _times(row.recovered_median_s, row.recovered_s), f"{row.wait_s:.2f} s", str(row.commands), str(row.lost),
        str(row.doubled), str(row.agents_disconnected), _place(row.stuck_at),
    ]  # fmt: skip


def markdown(rows: Sequence[DrillResult]) -> str:
    """Return the crash matrix as a Markdown table."""
    lines = [list(HEADER), ["---"] * len(HEADER)]
    for row in rows:
        name, *rest = cells(row)
        lines.append([f"`{name}`", *rest] if row.ok else [f"`{name}` **failed**", *rest])
    return "".join(f"| {' | '.join(cell.replace('|', '∣') for cell in line)} |\n" for line in lines)


def _times(median_s: float | None, worst_s: float | None) -> str:
    if median_s is None or worst_s is None:
        return "–"
    return f"{median_s:.2f} s" if median_s == worst_s else f"{median_s:.2f} s, {worst_s:.2f} s"


def _place(stuck_at: str | None) -> str:
    """Return the last part of the path, the line and the function: `drill.py:38 take_a_lock_twice`."""
    return stuck_at.rpartition("/")[2] if stuck_at else "–"
