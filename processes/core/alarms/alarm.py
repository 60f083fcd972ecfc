"""Alarms: a person who looks elsewhere is told when a condition begins and when it is over. Pure.

A condition stands or does not. One that has stood for its `after_s` begins; one that has not been seen for CLEAR_S is
over: a condition that flickers is told once. Incidents are conditions too: each has a key of its own, begins at once
(as soon as its remedy is known, after SETTLE_S at most) and is over when the watchdog says so. Something that happens
once and does not last (commands became lost) is told once.

`AlarmState` outlives the watchdog's restarts, `AlarmWatch` does not. A condition that begins becomes an event with a
number, and each target has the number up to which it was told (core/alarms/outbox.py). So no event is told twice, and
an event that could not be told is told later.

Units: *_s of CLOCK_MONOTONIC unless a length of time, *_wall_s since 1970.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from processes.core.shown.troubles import remedy_of
from processes.core.values import Severity, Time

CLEAR_S: Final = 5.0  # not seen for so long: over
STANDING_MAX: Final = 300  # conditions at once; further ones begin when others are over
EVENTS_MAX: Final = 500  # not yet told to every target; beyond it the oldest are dropped and counted
NOTED_MAX: Final = 1000  # incidents that were begun; more than a starting watchdog reads (CAUGHT_UP_MAX)


class Phase(enum.StrEnum):
    """What an event says of its condition."""

    BEGUN = "begun"
    OVER = "over"
    ONCE = "once"  # it happened, and does not last
    TEST = "test"


class AlarmSubject(msgspec.Struct, frozen=True):
    """What a condition of hosts is about, for programs. host None: of many hosts (`cause` is what they share), or of a
    run. id: of the condition, in the API.
    """

    id: str
    host: str | None
    kind: str
    labels: dict[str, str] = {}
    cause: str = ""
    hosts: int = 0
    since: Time | None = None


class Condition(msgspec.Struct, frozen=True):
    """Something that a person should know while it lasts. `over`: the text when it is over."""

    key: str
    severity: Severity
    title: str
    text: str = ""
    after_s: float = 0.0  # how long it must have stood before it begins
    over: str = "over"
    subject: AlarmSubject | None = None  # None: the installation itself


class AlarmEvent(msgspec.Struct, frozen=True):
    """A numbered line for a person."""

    number: int
    key: str
    phase: Phase
    severity: Severity
    title: str
    text: str
    at_wall_s: float
    subject: AlarmSubject | None = None
    remedy: str = ""  # what to do; empty: it is over, or nothing is known


class Standing(msgspec.Struct, frozen=True):
    """A condition that has begun, as it was told."""

    condition: Condition
    since_wall_s: float
    number: int = 0  # of the event of its beginning; 0: a version before did not keep it


class Told(msgspec.Struct, frozen=True):
    """How far one target was told. `number`: every event up to it was sent, given up or dropped."""

    number: int = 0
    attempts: int = 0  # to send the next message
    sent_wall_s: float | None = None
    error: str = ""  # of the last attempt, empty after a success
    error_wall_s: float | None = None
    sent: int = 0  # messages
    dropped: int = 0  # events that never reached it: the backlog was full, or every attempt failed


class AlarmState(msgspec.Struct, frozen=True):
    """All that is kept on disk."""

    number: int = 0  # of the newest event
    events: list[AlarmEvent] = []
    standing: dict[str, Standing] = {}
    noted: list[str] = []  # keys of incidents that were begun
    lost: int | None = None  # the number of lost commands that was told last
    targets: dict[str, Told] = {}


class AlarmWatch(msgspec.Struct, frozen=True):
    """Since when each condition that has not begun is seen, and each standing one is not. Lost at a restart."""

    seen_s: Mapping[str, float] = {}
    gone_s: Mapping[str, float] = {}


class ConditionsSeen(msgspec.Struct, frozen=True):
    """The conditions of this moment. `ended`: incidents that are over, as they were in the end."""

    conditions: list[Condition] = []
    ended: list[Condition] = []
    once: list[Condition] = []
    unknown: tuple[str, ...] = ()  # prefixes of the keys whose conditions are not known now
    over: Mapping[str, str] = {}  # by key, how a condition came to its end, where that is known: told for its `over`


def turn(
    state: AlarmState, watch: AlarmWatch, seen: ConditionsSeen, now_s: float, wall_s: float
) -> tuple[AlarmState, AlarmWatch]:
    """Return the state after a look, with an event for each condition that began, is over or happened."""
    log = _Log(state, wall_s)
    seen_s: dict[str, float] = {}
    for condition in seen.conditions:
        if condition.key in log.standing:
            continue
        first_s = seen_s[condition.key] = watch.seen_s.get(condition.key, now_s)
        if now_s - first_s >= condition.after_s and len(log.standing) < STANDING_MAX:
            log.begin(condition)
            del seen_s[condition.key]
    for condition in seen.ended:
        if condition.key not in log.standing:
            if condition.key in log.noted:
                continue
            log.begin(condition)
        log.end(condition)
    stands = {condition.key for condition in seen.conditions}
    gone_s: dict[str, float] = {}
    for key, standing in list(log.standing.items()):
        if key in stands or key.startswith(seen.unknown):
            continue
        first_s = gone_s[key] = watch.gone_s.get(key, now_s)
        if now_s - first_s >= CLEAR_S:
            log.end(msgspec.structs.replace(standing.condition, over=seen.over.get(key, standing.condition.over)))
            del gone_s[key]
    for condition in seen.once:
        log.add(condition, Phase.ONCE, condition.text)
    return log.state(), AlarmWatch(seen_s, gone_s)


def noted(state: AlarmState, keys: Iterable[str]) -> AlarmState:
    """Return the state with these incidents entered as begun: they are not told any more."""
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
        number = self.add(condition, Phase.BEGUN, condition.text)
        self.standing[condition.key] = Standing(condition, self._wall_s, number)
        if condition.key.startswith("incident:"):
            self.noted[condition.key] = None

    def end(self, condition: Condition) -> None:
        del self.standing[condition.key]
        self.add(condition, Phase.OVER, condition.over)

    def add(self, condition: Condition, phase: Phase, text: str) -> int:
        number = self._before.number + len(self._fresh) + 1
        remedy = remedy_of(condition.key) if phase is not Phase.OVER else ""
        self._fresh.append(
            AlarmEvent(
                number, condition.key, phase, condition.severity, condition.title, text, self._wall_s,
                condition.subject, remedy,
            )
        )  # fmt: skip
        return number

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
