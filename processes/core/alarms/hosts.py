"""Conditions of hosts as alarms: which are told, with what, and how they came to their ends. Pure.

The fanout that judges has grouped and silenced them; here it is only decided what a person is sent. What is part of a
condition of many hosts is not told; what is silenced or acknowledged is told no more but for its end, if its beginning
was told.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from processes.core.alarms.alarm import AlarmState, AlarmSubject, Condition, Told
from processes.core.alarms.outbox import Wish
from processes.core.records.condition import ConditionRecord, ConditionState
from processes.core.shown.status import HouseCondition
from processes.core.shown.troubles import Trouble, TroubleCode, trouble
from processes.core.values import rfc3339

HOSTS: Final = "host:"


def key_of(condition_id: str) -> str:
    """Return the key of the alarm of a condition."""
    return f"{HOSTS}{condition_id}"


def conditions(rows: Collection[ConditionRecord], standing: Collection[str]) -> list[Condition]:
    """Return what is to be told of, of the conditions that stand. `standing`: the keys that were told."""
    return [
        Condition(
            key_of(row.id), row.severity, row.title, row.text,
            subject=AlarmSubject(
                row.id, row.host, row.of or str(row.kind), row.labels, row.cause, row.hosts, rfc3339(row.since_wall_s)
            ),
        )
        for row in rows
        if row.open and not row.group and (row.state is ConditionState.OPEN or key_of(row.id) in standing)
    ]  # fmt: skip


def end_of(row: ConditionRecord | None, group: ConditionRecord | None) -> str:
    """Return how a condition came to its end. `group`: what it is part of now."""
    if row is None:
        return "it is not known any more"
    if row.open and group is not None:
        return f"it is part of: {group.title}"
    if row.open:
        return "it stands still, and there are too many to tell of each: fleethub conditions"
    return row.over or "over"


def mass_losses(rows: Collection[ConditionRecord]) -> list[str]:
    """Return why the installation is degraded by the loss of many hosts at once; silenced ones do not make it so."""
    return [
        row.title + (f", {row.left} of them still" if row.left < row.hosts else "")
        for row in rows
        if row.open and row.mass and not row.silence
    ]


def told(state: AlarmState, wishes: Mapping[str, Wish]) -> dict[str, list[str]]:
    """Return the targets that heard of each condition that stands and was told, by its alarm's key.

    `wishes`: of each target; whom a condition is not for is past it without having heard of it.
    """
    return {
        key: [
            name
            for name, each in state.targets.items()
            if standing.number <= each.number
            and (name not in wishes or wishes[name].wants(standing.condition, standing.since_wall_s))
        ]
        for key, standing in state.standing.items()
        if standing.number
    }


def untold(targets: Mapping[str, Told]) -> list[Trouble]:
    """Return a trouble for each target that alarms do not reach: the last attempts failed."""
    return [
        trouble(TroubleCode.UNTOLD, f"alarms do not reach {name}: {told.error}", name)
        for name, told in targets.items()
        if told.error and told.attempts != 1  # one attempt alone may fail
    ]


def of_the_house(state: AlarmState, wishes: Mapping[str, Wish]) -> list[HouseCondition]:
    """Return the conditions of the installation itself that stand. `wishes`: of each target."""
    heard = told(state, wishes)
    return [
        HouseCondition(
            key, each.condition.severity, each.condition.title, each.condition.text, rfc3339(each.since_wall_s),
            heard.get(key, []),
        )
        for key, each in state.standing.items()
        if not key.startswith(HOSTS)
    ]  # fmt: skip
