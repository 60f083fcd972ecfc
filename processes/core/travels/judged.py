"""A condition of a host, of many hosts at once or of a run, as a fanout has judged it and tells the hub. Pure."""

from __future__ import annotations

import enum
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from processes.core.values import Severity

JUDGED_MAX: Final = 200  # conditions in one event: a step of them, and their rows, take the hub some milliseconds
STANDING_MAX: Final = 20_000  # conditions at once: two for each host of the largest fleet; guess
TEXT_CHARS_MAX: Final = 2_000

ConditionId = Annotated[str, Meta(min_length=1, max_length=64)]
ConditionText = Annotated[str, Meta(max_length=TEXT_CHARS_MAX)]


class ConditionKind(enum.StrEnum):
    """What is the matter."""

    OFFLINE = "offline"
    STALE = "stale"  # connected, and its heartbeats stay away
    FLAPPING = "flapping"  # lost again and again
    CLOCK = "clock"  # apart from the hub's
    DISK = "disk"
    MEMORY = "memory"
    TEMPERATURE = "temperature"
    AGENT_OLD = "agent_old"
    COMMAND_FAILED = "command_failed"
    COMMAND_LOST = "command_lost"
    RUN_STOPPED = "run_stopped"
    MANY = "many"  # the same of many hosts at once, with one cause
    RULES = "rules"  # the file of rules cannot be used


HAPPENED: Final = frozenset({  # it happened once, so it is over when somebody has acknowledged it
    ConditionKind.COMMAND_FAILED, ConditionKind.COMMAND_LOST, ConditionKind.RUN_STOPPED,
})  # fmt: skip
PRESENCE: Final = frozenset({ConditionKind.OFFLINE, ConditionKind.STALE, ConditionKind.FLAPPING})


class JudgedCondition(msgspec.Struct, frozen=True, omit_defaults=True):
    """One condition, whole: a later one with the same id takes its place. host None: of no host alone.

    `group`: the id of the condition of many hosts that this one is part of; only that one is told. `silence`: the id
    of the silence under which it is not told. `of`: of a condition of many hosts, the kind that each of them has.
    Units: *_wall_s since 1970. since_wall_s: since when it is so; begun_wall_s: when the rule had held for its time.
    """

    id: ConditionId
    host: str | None
    kind: ConditionKind
    severity: Severity
    title: ConditionText
    since_wall_s: float
    begun_wall_s: float
    text: ConditionText = ""
    subject: str = ""  # an operation, a command or a run
    rule: str = ""  # the rule's name, or its condition
    labels: dict[str, str] = {}  # the hub's labels of the host when it began; of many hosts, those that all have
    ended_wall_s: float | None = None
    over: ConditionText = ""  # how it ended
    group: str = ""
    silence: str = ""
    of: str = ""
    cause: str = ""  # of many hosts: what they have in common
    hosts: int = 0  # of many hosts: how many had it
    left: int = 0  # … and how many have it still
    mass: bool = False  # so many were lost at once that the installation is degraded

    @property
    def open(self) -> bool:
        """Return whether it stands."""
        return self.ended_wall_s is None
