"""Alarms: what a person who looks elsewhere is told, when it begins and when it is over. Pure.

A condition stands or does not. One that has stood for its `after_s` begins; one that has not been seen for CLEAR_S is
over: a condition that flickers is told once. Incidents are conditions too: each has a key of its own, begins at once
(as soon as its remedy is known, SETTLE_S at most) and is over when the watchdog says so. What only happens (commands
became lost) is told once.

The state is what lasts over the watchdog's own restarts (`State`) and what need not (`Watch`): a condition that begins
is an event with a number; a target remembers the number up to which it was told (core/alarms/outbox.py). So nothing
that was told is told again, and what was not is told later.

Units: *_s of CLOCK_MONOTONIC unless a length of time, *_wall_s since 1970.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

CLEAR_S: Final = 5.0  # not seen for so long: over
STANDING_MAX: Final = 300  # conditions at once; what comes beyond begins when others are over
EVENTS_MAX: Final = 500  # not yet told to every target; beyond it the oldest go, and are counted
NOTED_MAX: Final = 1000  # incidents that were begun here; more than a starting watchdog looks at


class Severity(enum.StrEnum):
    """How bad it is."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


GRAVITY: Final = {Severity.INFO: 0, Severity.WARNING: 1, Severity.CRITICAL: 2}


class Phase(enum.StrEnum):
    """What an event says of its condition."""

    BEGUN = "begun"
    OVER = "over"
    ONCE = "once"  # it happened; nothing will be over
    TEST = "test"


class Condition(msgspec.Struct, frozen=True):
    """Something that a person should know while it is so. `over`: what is said of it once it is not."""

    key: str
    severity: Severity
    title: str
    text: str = ""
    after_s: float = 0.0  # it must have stood so long
    over: str = "over"


class AlarmEvent(msgspec.Struct, frozen=True):
    """A line for a person, numbered."""

    number: int
    key: str
    phase: Phase
    severity: Severity
    title: str
    text: str
    at_wall_s: float


class Standing(msgspec.Struct, frozen=True):
    """A condition that was begun, as it was told."""

    condition: Condition
    since_wall_s: float


class Told(msgspec.Struct, frozen=True):
    """What one target was told. `number`: everything up to it was sent, given up or dropped."""

    number: int = 0
    attempts: int = 0  # at what is to be sent next
    sent_wall_s: float | None = None
    error: str = ""  # of the last attempt, empty after a success
    error_wall_s: float | None = None
    sent: int = 0  # messages
    dropped: int = 0  # events that never reached it: the backlog was full, or every attempt failed


class AlarmState(msgspec.Struct, frozen=True):
    """All that lasts."""

    number: int = 0  # of the newest event
    events: list[AlarmEvent] = []
    standing: dict[str, Standing] = {}
    noted: list[str] = []  # keys of incidents that were begun
    lost: int | None = None  # commands; what was told last
    targets: dict[str, Told] = {}


class AlarmWatch(msgspec.Struct, frozen=True):
    """What is forgotten with the process: since when a condition is seen, and since when a standing one is not."""

    seen_s: Mapping[str, float] = {}
    gone_s: Mapping[str, float] = {}


class ConditionsSeen(msgspec.Struct, frozen=True):
    """What is seen now. `ended`: incidents that are over, as they were in the end."""

    conditions: list[Condition] = []
    ended: list[Condition] = []
    once: list[Condition] = []
    unknown: tuple[str, ...] = ()  # prefixes of keys of which nobody can say now whether they stand


def turn(
    state: AlarmState, watch: AlarmWatch, sight: ConditionsSeen, now_s: float, wall_s: float
) -> tuple[AlarmState, AlarmWatch]:
    """The state after a look: events for what began, what is over and what happened."""
    log = _Log(state, wall_s)
    seen_s: dict[str, float] = {}
    for condition in sight.conditions:
        if condition.key in log.standing:
            continue
        first_s = seen_s[condition.key] = watch.seen_s.get(condition.key, now_s)
        if now_s - first_s >= condition.after_s and len(log.standing) < STANDING_MAX:
            log.begin(condition)
            del seen_s[condition.key]
    for condition in sight.ended:
        if condition.key not in log.standing:
            if condition.key in log.noted:
                continue
            log.begin(condition)
        log.end(condition)
    stands = {condition.key for condition in sight.conditions}
    gone_s: dict[str, float] = {}
    for key, standing in list(log.standing.items()):
        if key in stands or key.startswith(sight.unknown):
            continue
        first_s = gone_s[key] = watch.gone_s.get(key, now_s)
        if now_s - first_s >= CLEAR_S:
            log.end(standing.condition)
            del gone_s[key]
    for condition in sight.once:
        log.add(condition, Phase.ONCE, condition.text)
    return log.state(), AlarmWatch(seen_s, gone_s)


def noted(state: AlarmState, keys: Iterable[str]) -> AlarmState:
    """The state in which these incidents are old news."""
    return msgspec.structs.replace(
        state, noted=_newest([*state.noted, *(key for key in keys if key not in state.noted)])
    )


class _Log:
    """A state being changed."""

    def __init__(self, state: AlarmState, wall_s: float) -> None:
        self._before, self._wall_s = state, wall_s
        self._fresh: list[AlarmEvent] = []
        self.standing = dict(state.standing)
        self.noted = dict.fromkeys(state.noted)

    def begin(self, condition: Condition) -> None:
        self.standing[condition.key] = Standing(condition, self._wall_s)
        if condition.key.startswith("incident:"):
            self.noted[condition.key] = None
        self.add(condition, Phase.BEGUN, condition.text)

    def end(self, condition: Condition) -> None:
        del self.standing[condition.key]
        self.add(condition, Phase.OVER, condition.over)

    def add(self, condition: Condition, phase: Phase, text: str) -> None:
        number = self._before.number + len(self._fresh) + 1
        self._fresh.append(
            AlarmEvent(number, condition.key, phase, condition.severity, condition.title, text, self._wall_s)
        )

    def state(self) -> AlarmState:
        before = self._before
        if not self._fresh:
            return before
        return msgspec.structs.replace(
            before,
            number=before.number + len(self._fresh),
            events=[*before.events, *self._fresh][-EVENTS_MAX:],
            standing=self.standing,
            noted=_newest(list(self.noted)),
        )


def _newest(keys: list[str]) -> list[str]:
    return keys[-NOTED_MAX:]
