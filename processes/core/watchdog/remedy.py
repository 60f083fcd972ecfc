"""Decides what to do about the verdicts: nothing, collect evidence and kill, or start. Pure.

The order of blame is storage, queues, hub, then gateway and fanout. While one before it is unwell, or younger than
YOUNG_S, a later one's `stalled` is a consequence: shown, not remedied. `frozen` and `memory` are never a consequence,
since no loop waits for another process. A database call that does not return is remedied though storage is to blame,
but once in STORAGE_S: a hub that starts anew opens the file anew, and more than that cannot be done from here.

The restart budget limits the watchdog's own kills and nothing else: after BUDGET_KILLS of one process within BUDGET_S
it raises the alarm and tries once in BUDGET_S. A process that died by itself is started by supervisord; one that
supervisord has given up, or that was stopped though the operator wants it to run, is started from here, after REVIVE_S.

Units: *_s of CLOCK_MONOTONIC unless a length of time.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from processes.core.shown.status import KILLED, WELL, Verdict
from processes.core.travels.pulse import Blocked
from processes.core.watchdog.verdict import STORAGE, Judgement, ProcessFacts

# until this age a process may not yet give the later ones work; guess: connect, census, snapshot
YOUNG_S: Final = 3.0
BUDGET_KILLS: Final = 5
BUDGET_S: Final = 60.0
STORAGE_S: Final = 60.0  # between two kills for a database call; at most BUDGET_S, for which kills are remembered
REVIVE_S: Final = (1.0, 2.0, 5.0, 10.0, 30.0)  # before each further start; the last one repeats. Promised: within 60 s
WELL_S: Final = 30.0  # advancing for so long: the next revival is a first one again
# supervisord.conf's startsecs and a margin. By age: supervisord's STARTING, asked for rarely, may be 5 s old
STARTSECS_S: Final = 1.5
KILL_WAIT_S: Final = 3.0  # from the decision to kill a process (evidence takes 1 s of it) until it may be killed again

# the order of blame; storage is before them all: the hub's pulse says whether it waits for it
RANK: Final = {"queues": 1, "hub": 2, "gateway": 3, "fanout": 3, "agent": 4}
UNWELL: Final = frozenset(set(Verdict) - {Verdict.ADVANCING, Verdict.STANDBY, Verdict.STOPPED, Verdict.SILENT})
GIVEN_UP: Final = frozenset({"FATAL", "STOPPED", "EXITED"})  # supervisord's states in which it starts nothing by itself


class Act(enum.StrEnum):
    """What the watchdog does now."""

    NOTHING = "nothing"
    KILL = "kill"  # evidence first
    START = "start"


class Decision(NamedTuple):
    """For one process. `note`: why a verdict that has a remedy gets none. `alarm`: the restart budget is used up."""

    act: Act = Act.NOTHING
    note: str = ""
    alarm: bool = False


class Past(msgspec.Struct, frozen=True):
    """The remedies that one process has had so far."""

    kills_s: tuple[float, ...] = ()  # of the last BUDGET_S; once alarmed, the last one counts
    alarmed: bool = False  # the restart budget was used up, and the process was not well for BUDGET_S since
    revivals: int = 0  # starts from here since the process was last well for WELL_S
    given_up_s: float | None = None  # since when supervisord starts it no more, or since the last start from here
    well_s: float | None = None  # since when it advances


def decide(
    judgements: Mapping[str, Judgement],
    facts: Mapping[str, ProcessFacts],
    pasts: Mapping[str, Past],
    now_s: float,
    *,
    drill: bool = False,
) -> tuple[dict[str, Past], dict[str, Decision]]:
    """Return each process's past with this decision entered, and the decision. `drill`: a drill is under way, and its
    kills do not count against the restart budget.
    """
    after: dict[str, Past] = {}
    decisions: dict[str, Decision] = {}
    for name, judgement in judgements.items():
        past = _aged(pasts.get(name, Past()), judgement, facts[name], now_s)
        blamed = blame(name, judgements, facts) if judgement.verdict is Verdict.STALLED else ""
        after[name], decisions[name] = _one(judgement, facts[name], past, blamed, now_s, drill=drill)
    return after, decisions


def differs_in_a_drill(before: Mapping[str, Decision], decisions: Mapping[str, Decision]) -> bool:
    """True if `decide` could say something else in a drill: a kill would count, or an alarm begins. One that stood a
    turn before (`before`: that turn's decisions) stays: no drill begins while the installation is not well.
    """
    return any(
        decision.act is Act.KILL or (decision.alarm and not before.get(name, Decision()).alarm)
        for name, decision in decisions.items()
    )


def blame(name: str, judgements: Mapping[str, Judgement], facts: Mapping[str, ProcessFacts]) -> str:
    """Return which process before this one in the order of blame is unwell or young (or `storage`); empty if none."""
    rank = RANK.get(name.partition(":")[0], 0)
    hub = facts.get("hub")
    if rank > 0 and hub is not None and hub.pulse is not None and hub.pulse.blocked_on == Blocked.STORAGE:
        return "storage"
    pulse = facts[name].pulse
    is_blocked = pulse is not None and pulse.blocked_on == Blocked.QUEUES
    if rank > RANK["queues"] and is_blocked and "queues" not in judgements:
        return "queues"  # which PostgreSQL has: no process of ours
    for other, judgement in judgements.items():
        before = 0 < RANK.get(other.partition(":")[0], 0) < rank
        if before and facts[other].wanted and (judgement.verdict in UNWELL or facts[other].age_s < YOUNG_S):
            return other
    return ""


def _aged(past: Past, judgement: Judgement, facts: ProcessFacts, now_s: float) -> Past:
    well = judgement.verdict in WELL
    well_s = (past.well_s if past.well_s is not None else now_s) if well else None
    given_up = facts.pid == 0 and facts.wanted and facts.supervised in GIVEN_UP
    return Past(
        kills_s=tuple(
            at_s for at_s in (past.kills_s[-1:] if past.alarmed else past.kills_s) if now_s - at_s < BUDGET_S
        ),
        alarmed=past.alarmed and not (well_s is not None and now_s - well_s >= BUDGET_S),
        revivals=0 if well_s is not None and now_s - well_s >= WELL_S else past.revivals,
        given_up_s=(past.given_up_s if past.given_up_s is not None else now_s) if given_up else None,
        well_s=well_s,
    )


def _one(
    judgement: Judgement, facts: ProcessFacts, past: Past, blamed: str, now_s: float, *, drill: bool
) -> tuple[Past, Decision]:
    if not facts.wanted:
        return past, Decision()
    if past.given_up_s is not None:
        return _revive(past, past.given_up_s, now_s)
    if judgement.verdict not in KILLED:
        return past, Decision()
    if judgement.stage == STORAGE:
        if past.kills_s and now_s - past.kills_s[-1] < STORAGE_S:
            return past, Decision(note="its storage hangs: it is replaced at most once a minute")
    elif judgement.verdict is Verdict.STALLED and blamed:
        return past, Decision(note=f"a consequence: {blamed} comes first")
    if facts.supervised == "STARTING" and facts.age_s <= STARTSECS_S:
        return past, Decision(note="held off: a kill within startsecs would count as a failed start")
    if facts.killed_s is not None and now_s - facts.killed_s < KILL_WAIT_S:
        return past, Decision(note="a kill is under way")
    if drill:
        return past, Decision(Act.KILL)
    alarmed = past.alarmed or len(past.kills_s) >= BUDGET_KILLS
    if alarmed and past.kills_s:
        note = f"{BUDGET_KILLS} kills within {BUDGET_S:.0f} s did not help: trying once a minute"
        return msgspec.structs.replace(past, alarmed=True), Decision(note=note, alarm=True)
    return msgspec.structs.replace(past, kills_s=(*past.kills_s, now_s)), Decision(Act.KILL, alarm=alarmed)


def _revive(past: Past, since_s: float, now_s: float) -> tuple[Past, Decision]:
    if now_s - since_s < REVIVE_S[min(past.revivals, len(REVIVE_S) - 1)]:
        return past, Decision(note="to be started again soon")
    return msgspec.structs.replace(past, revivals=past.revivals + 1, given_up_s=now_s), Decision(Act.START)
