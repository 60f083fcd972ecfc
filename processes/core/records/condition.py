"""Conditions and silences as they are kept and shown. Pure."""

from __future__ import annotations

import datetime
import enum
from typing import Final

import msgspec

from processes.core.travels.judged import JudgedCondition
from processes.core.values import Severity, Time, rfc3339

OVER_KEPT_MAX: Final = 2_000  # conditions that are over, in memory and in what is shown; the others are on disk. Guess
OVER_PER_HOST_MAX: Final = 100  # … and on disk, of one host; guess: some weeks of a host that comes and goes
SILENCES_MAX: Final = 200  # that count or will, and as many that have ended; guess


class ConditionState(enum.StrEnum):
    """What is done about a condition."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    SILENCED = "silenced"
    OVER = "over"


class ConditionRecord(JudgedCondition, frozen=True, omit_defaults=True):
    """A condition as it is in the database: what was judged, and who has acknowledged it, when, and why."""

    acknowledged_by: str = ""
    acknowledged_wall_s: float | None = None
    acknowledged_why: str = ""

    @property
    def state(self) -> ConditionState:
        """Return what is done about it."""
        if not self.open:
            return ConditionState.OVER
        if self.acknowledged_by:
            return ConditionState.ACKNOWLEDGED
        return ConditionState.SILENCED if self.silence else ConditionState.OPEN


def record_of(judged: JudgedCondition, before: ConditionRecord | None) -> ConditionRecord:
    """Return the record of what was judged, acknowledged as it was before."""
    fields = {name: getattr(judged, name) for name in JudgedCondition.__struct_fields__}
    if before is None:
        return ConditionRecord(**fields)
    return ConditionRecord(
        **fields,
        acknowledged_by=before.acknowledged_by,
        acknowledged_wall_s=before.acknowledged_wall_s,
        acknowledged_why=before.acknowledged_why,
    )


class SilenceRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A silence: of hosts that meet the query nobody is told from one time until another.

    Units: *_wall_s since 1970. ended_wall_s: when an operator ended it before its time.
    """

    id: str
    query: str
    why: str
    actor: str
    made_wall_s: float
    from_wall_s: float
    until_wall_s: float
    ended_wall_s: float | None = None
    ended_by: str = ""

    def is_over(self, wall_s: float) -> bool:
        """Return whether it counts no more, and never will."""
        return self.ended_wall_s is not None or wall_s >= self.until_wall_s


class ConditionView(msgspec.Struct, frozen=True):
    """A condition in the API, the CLI and on the page. host None: of the installation itself, of a run, or of many
    hosts, whose own conditions have its id as `group`.
    """

    id: str
    host: str | None
    kind: str
    severity: Severity
    state: ConditionState
    title: str
    text: str
    since: Time | None
    begun_at: Time | None = None
    ended_at: Time | None = None
    over: str = ""
    subject: str = ""
    rule: str = ""
    labels: dict[str, str] = {}
    group: str = ""
    silence: str = ""
    of: str = ""
    cause: str = ""
    hosts: int = 0
    left: int = 0
    mass: bool = False
    acknowledged_by: str = ""
    acknowledged_at: Time | None = None
    acknowledged_why: str = ""
    told: list[str] = []  # the targets that an alarm about it has reached


class SilenceView(msgspec.Struct, frozen=True):
    """A silence in the API, the CLI and on the page. ended_at: when an operator ended it before `until`."""

    id: str
    query: str
    why: str
    actor: str
    made_at: Time | None
    starts_at: Time | None
    until: Time | None
    ended_at: Time | None = None
    ended_by: str = ""


def condition_view(it: ConditionRecord) -> ConditionView:
    """Return the condition as the API shows it."""
    return ConditionView(
        id=it.id, host=it.host, kind=it.kind, severity=it.severity, state=it.state, title=it.title, text=it.text,
        since=rfc3339(it.since_wall_s), begun_at=rfc3339(it.begun_wall_s), ended_at=rfc3339(it.ended_wall_s),
        over=it.over, subject=it.subject, rule=it.rule, labels=it.labels, group=it.group, silence=it.silence, of=it.of,
        cause=it.cause, hosts=it.hosts, left=it.left, mass=it.mass, acknowledged_by=it.acknowledged_by,
        acknowledged_at=rfc3339(it.acknowledged_wall_s), acknowledged_why=it.acknowledged_why,
    )  # fmt: skip


def silence_view(it: SilenceRecord) -> SilenceView:
    """Return the silence as the API shows it."""
    return SilenceView(
        it.id, it.query, it.why, it.actor, rfc3339(it.made_wall_s), rfc3339(it.from_wall_s), rfc3339(it.until_wall_s),
        rfc3339(it.ended_wall_s), it.ended_by,
    )  # fmt: skip


def judged_of(view: ConditionView) -> JudgedCondition:
    """Return what was judged of a condition that is shown. Raises: msgspec.ValidationError."""
    shared = set(JudgedCondition.__struct_fields__) & set(ConditionView.__struct_fields__)
    times = {"since_wall_s": view.since, "begun_wall_s": view.begun_at, "ended_wall_s": view.ended_at}
    return msgspec.convert(
        {name: getattr(view, name) for name in shared}
        | {name: None if at is None else datetime.datetime.fromisoformat(at).timestamp() for name, at in times.items()},
        JudgedCondition,
    )


def is_shown_as(judged: JudgedCondition, view: ConditionView | None) -> bool:
    """Return whether the hub has what was judged, or has ended the condition for good."""
    if view is None:
        return False
    if view.state is ConditionState.OVER and judged.open:
        return True
    wanted = condition_view(record_of(judged, None))
    own = set(JudgedCondition.__struct_fields__) & set(ConditionView.__struct_fields__) | {"since", "ended_at"}
    return all(getattr(wanted, name) == getattr(view, name) for name in own)
