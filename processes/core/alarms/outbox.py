"""Decides what is sent to a target, and when: the first event at once, a flood as a digest, a failed message again and
again, but not for ever. Pure.

Each target has its own place in the events (`Told.number`), its own pace and its own failures: a target that hangs
delays no other. A message holds all events that are due for a target; within GATHER_S at most BURST messages go out, so
that a flood of events is gathered. After a failed attempt the next one waits, longer each time; after ATTEMPTS_MAX the
events of the message are given up and counted.

Units: *_s of CLOCK_MONOTONIC unless a length of time, *_wall_s since 1970.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from processes.core.alarms.alarm import AlarmEvent, AlarmState, Condition, Phase, Told
from processes.core.shown.query import Query
from processes.core.values import GRAVITY, Severity, rfc3339

BURST: Final = 4  # messages within GATHER_S: two conditions that begin and are over again; guess
GATHER_S: Final = 60.0
LINES_MAX: Final = 30  # of one message
RETRY_S: Final = (2.0, 5.0, 15.0, 60.0, 300.0)  # after each failure; the last one repeats
ATTEMPTS_MAX: Final = 150  # about 12 hours
ERROR_CHARS_MAX: Final = 300
TITLE_CHARS_MAX: Final = 150


class AlarmMessage(msgspec.Struct, frozen=True):
    """One message to a target. `events`: merged, oldest first, at most LINES_MAX; `more`: how many were left out.

    `audit_head`: number and hash of the newest line of the audit trail, so that somebody elsewhere knows them.
    """

    installation: str
    severity: Severity
    over: bool  # every condition in it is over
    title: str
    body: str
    events: list[AlarmEvent]
    more: int = 0
    id: str = ""  # the same in each attempt to send these events
    audit_head: str = ""


class Pace(msgspec.Struct, frozen=True):
    """When messages to a target went out lately, and when it may be tried again."""

    sends_s: tuple[float, ...] = ()  # of the last GATHER_S
    retry_s: float = 0.0


class Wish(NamedTuple):
    """Which events a target is to be told: of this severity or a graver one, and of the hosts that the query finds by
    their name and labels. query None: of everything.
    """

    at_least: Severity
    query: Query | None = None

    def wants(self, what: AlarmEvent | Condition, wall_s: float) -> bool:
        """Return whether the target is to be told."""
        if GRAVITY[what.severity] < GRAVITY[self.at_least]:
            return False
        if self.query is None:
            return True
        about = what.subject
        if about is None:
            return False
        row = {"name": about.host or "", "labels": about.labels, "conditions": [about.kind]}
        return self.query.matches(row, wall_s)


def due(state: AlarmState, told: Told, wish: Severity | Wish) -> list[AlarmEvent]:
    """Return the events that the target has not been told and is to be told. A severity alone wishes for everything."""
    wish = wish if isinstance(wish, Wish) else Wish(wish)
    return [e for e in state.events if e.number > told.number and wish.wants(e, e.at_wall_s)]


def wait_s(pace: Pace, now_s: float) -> float:
    """Return how long the next message must wait; 0: it may go now."""
    gathered_s = pace.sends_s[-BURST] + GATHER_S - now_s if len(pace.sends_s) >= BURST else 0.0
    return max(0.0, pace.retry_s - now_s, gathered_s)


def message(installation: str, events: list[AlarmEvent], audit_head: str = "") -> AlarmMessage:
    """Return one message of these events, with one line for a condition that began and is over, and with the head of
    the audit trail.
    """
    merged = _merged(events)
    gravest = max(merged, key=lambda e: (e.phase is not Phase.OVER, GRAVITY[e.severity], e.number))
    shown = merged[-LINES_MAX:]
    more = len(merged) - len(shown)
    title = gravest.title if gravest.phase is not Phase.OVER else f"over: {gravest.title}"
    if len(merged) > 1:
        title += f", and {len(merged) - 1} more"
    lines = [_line(event) for event in shown]
    if more:
        lines.insert(0, f"{more} earlier ones are left out: fleethub incidents")
    if audit_head:
        lines.append(f"audit head {audit_head}")
    return AlarmMessage(
        installation=installation,
        severity=max((e.severity for e in merged), key=GRAVITY.__getitem__),
        over=all(e.phase is Phase.OVER for e in merged),
        title=f"[{installation}] {title}"[:TITLE_CHARS_MAX],
        body="\n".join(lines),
        events=shown,
        more=more,
        id=f"{installation}-{events[0].number}-{events[-1].number}",
        audit_head=audit_head,
    )


def sent(state: AlarmState, name: str, number: int, wall_s: float) -> AlarmState:
    """Return the state after all events up to `number` reached the target."""
    told = state.targets[name]
    after = Told(
        number=max(number, told.number),
        sent_wall_s=wall_s,
        sent=told.sent + 1,
        dropped=told.dropped,
        error_wall_s=told.error_wall_s,
    )
    return _with(state, name, after)


def failed(state: AlarmState, name: str, events: list[AlarmEvent], error: str, wall_s: float) -> AlarmState:
    """Return the state after an attempt to send these events failed. The last attempt gives them up."""
    told = state.targets[name]
    after = msgspec.structs.replace(
        told, attempts=told.attempts + 1, error=error[:ERROR_CHARS_MAX], error_wall_s=wall_s
    )
    if after.attempts >= ATTEMPTS_MAX:
        after = msgspec.structs.replace(after, attempts=0, number=events[-1].number, dropped=told.dropped + len(events))
    return _with(state, name, after)


def paced(pace: Pace, attempts: int, now_s: float) -> Pace:
    """Return the pace after an attempt. `attempts`: how many failed since the last success; 0: this one succeeded."""
    if attempts:
        return msgspec.structs.replace(pace, retry_s=now_s + RETRY_S[min(attempts, len(RETRY_S)) - 1])
    return Pace(tuple(at_s for at_s in (*pace.sends_s, now_s) if now_s - at_s < GATHER_S))


def settled(
    state: AlarmState, names: list[str], at_least: Severity, wishes: Mapping[str, Wish] | None = None
) -> AlarmState:
    """Return the state with exactly these targets, and without the events that all of them were told.

    `wishes`: of each target; `at_least` of one without. A new target is not told of the past. Events that the bounded
    backlog dropped are counted.
    """
    oldest = state.events[0].number if state.events else state.number + 1
    targets: dict[str, Told] = {}
    for name in names:
        wish = (wishes or {}).get(name, Wish(at_least))
        told = state.targets.get(name, Told(number=state.number))
        if told.number < oldest - 1:
            told = msgspec.structs.replace(told, number=oldest - 1, dropped=told.dropped + oldest - 1 - told.number)
        if told.number < state.number and not due(state, told, wish):
            told = msgspec.structs.replace(told, number=state.number)
        targets[name] = told
    through = min((told.number for told in targets.values()), default=state.number)
    events = [event for event in state.events if event.number > through]
    if targets == state.targets and len(events) == len(state.events):
        return state
    return msgspec.structs.replace(state, targets=targets, events=events)


def _merged(events: list[AlarmEvent]) -> list[AlarmEvent]:
    """Return one event for each key: begun and over become over, with both texts."""
    found: dict[str, AlarmEvent] = {}
    for event in events:
        key = event.key if event.phase in (Phase.BEGUN, Phase.OVER) else f"{event.key} {event.number}"
        before = found.pop(key, None)
        if before is not None and before.phase is Phase.BEGUN and event.phase is Phase.OVER:
            text = "; ".join(filter(None, (before.text, event.text)))
            event = msgspec.structs.replace(event, text=text)  # noqa: PLW2901  # one line of both
        found[key] = event
    return list(found.values())


def _line(event: AlarmEvent) -> str:
    at = (rfc3339(event.at_wall_s) or "")[11:19]
    said = f"{at} UTC {event.phase.upper()} {event.title}" + (f": {event.text}" if event.text else "")
    return f"{said} What to do: {event.remedy}" if event.remedy else said


def _with(state: AlarmState, name: str, told: Told) -> AlarmState:
    return msgspec.structs.replace(state, targets={**state.targets, name: told})
