"""The conditions that stand, alone or as parts of one of many hosts, and what has changed of them. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

import msgspec

from processes.core.conditions import signs
from processes.core.conditions.causes import SharedCause
from processes.core.conditions.rules import duration_text
from processes.core.travels.judged import TEXT_CHARS_MAX, ConditionKind, JudgedCondition
from processes.core.values import GRAVITY, Severity

NAMES_MAX: Final = 20  # of hosts in one text
OVER_KEPT_MAX: Final = 5_000  # ids of conditions that are over, so that none begins twice

Key = tuple[str, ConditionKind, str, Severity]  # host (empty: of none), kind, subject, severity


def key_of(condition: JudgedCondition) -> Key:
    """Return what there can be one condition of at a time."""
    subject = condition.subject if condition.host is None else condition.subject.partition(" ")[0]
    return condition.host or "", condition.kind, subject, condition.severity


def condition_id(*parts: str) -> str:
    """Return the id that follows from the parts: a judge that is asked twice says the same."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


class StandingConditions:
    """Invariant: `of_host` are the keys of `alone` by their hosts; a group has as many members as its `left`."""

    def __init__(self) -> None:
        self.alone: dict[Key, JudgedCondition] = {}
        self.of_host: dict[str, set[Key]] = {}
        self.groups: dict[str, JudgedCondition] = {}
        self._members: dict[str, set[Key]] = {}
        self._over: dict[str, None] = {}
        self._changed: dict[str, JudgedCondition] = {}

    def load(self, conditions: Iterable[JudgedCondition]) -> None:
        """Take over what another judge has said."""
        for each in conditions:
            if not each.open:
                self._forget(each.id)
            elif each.kind is ConditionKind.MANY:
                self.groups[each.id] = each
                self._members.setdefault(each.id, set())
            else:
                self._enter(key_of(each), each)
        for key, each in self.alone.items():
            if each.group in self.groups:
                self._members[each.group].add(key)

    def __len__(self) -> int:
        """Return how many stand."""
        return len(self.alone) + len(self.groups)

    def is_over(self, id: str) -> bool:
        """Return whether this one stood and is over."""
        return id in self._over

    def take_changed(self) -> list[JudgedCondition]:
        """Return what has changed since the last call, groups before their members."""
        found = sorted(self._changed.values(), key=lambda each: each.kind is not ConditionKind.MANY)
        self._changed = {}
        return found

    def put(self, key: Key, condition: JudgedCondition) -> None:
        """Make this the condition of the key."""
        before = self.alone.get(key)
        if before != condition:
            self._enter(key, condition)
            self._changed[condition.id] = condition

    def end(self, key: Key, ended_wall_s: float, how: str) -> None:
        """End the condition, and its group if it was the last one in it."""
        condition = self.alone.pop(key)
        keys = self.of_host[key[0]]
        keys.discard(key)
        if not keys:
            del self.of_host[key[0]]
        self._say_over(condition, ended_wall_s, how)
        if condition.group in self.groups:
            self._leave(condition.group, key, ended_wall_s)

    def begin_group(
        self, kind: ConditionKind, cause: SharedCause, members: list[Key], wall_s: float, *, mass: bool, at_once: bool
    ) -> None:
        """Begin one condition of all these, which stand."""
        conditions = [self.alone[key] for key in members]
        hosts = [key[0] for key in members]
        since_wall_s = min(each.since_wall_s for each in conditions)
        severity = max((key[3] for key in members), key=GRAVITY.__getitem__)
        labels = set.intersection(*(set(each.labels.items()) for each in conditions))
        group = JudgedCondition(
            id=condition_id("many", kind, cause.trait, f"{since_wall_s:.3f}", *sorted(hosts)), host=None,
            kind=ConditionKind.MANY, severity=Severity.CRITICAL if mass else severity,
            title=signs.title_of_many(kind, len(hosts), cause.trait, at_once=at_once), text=names(hosts),
            since_wall_s=since_wall_s, begun_wall_s=wall_s, labels=dict(sorted(labels)), of=kind, cause=cause.trait,
            hosts=len(hosts), left=len(hosts), mass=mass,
        )  # fmt: skip
        self.groups[group.id], self._members[group.id] = group, set(members)
        self._changed[group.id] = group
        for key in members:
            self.put(key, msgspec.structs.replace(self.alone[key], group=group.id))

    def join(self, group_id: str, key: Key) -> None:
        """Make what stands part of a group."""
        group, count = self.groups[group_id], self.groups[group_id].hosts + 1
        self._members[group_id].add(key)
        self.put(key, msgspec.structs.replace(self.alone[key], group=group_id))
        title = signs.title_of_many(ConditionKind(group.of), count, group.cause, at_once=True)
        left, text = len(self._members[group_id]), self._names_of(group_id)
        self._put_group(msgspec.structs.replace(group, hosts=count, left=left, title=title, text=text))

    def silence(self, key: Key, silence: str) -> None:
        """Note under which silence a condition is not told; a group is silenced with the last of its members."""
        condition = self.alone[key]
        if condition.silence == silence:
            return
        self.put(key, msgspec.structs.replace(condition, silence=silence))
        group = self.groups.get(condition.group)
        if group is not None:
            silences = {self.alone[each].silence for each in self._members[group.id]}
            self._put_group(msgspec.structs.replace(group, silence="" if "" in silences else min(silences)))

    def ungroup(self, key: Key) -> None:
        """Take a condition that goes on to stand out of its group."""
        condition = self.alone[key]
        if condition.group in self.groups:
            self.put(key, msgspec.structs.replace(condition, group=""))
            self._leave(condition.group, key, condition.begun_wall_s)

    def _names_of(self, group_id: str) -> str:
        return names([key[0] for key in self._members[group_id]])

    def _leave(self, group_id: str, key: Key, wall_s: float) -> None:
        members, group = self._members[group_id], self.groups[group_id]
        members.discard(key)
        if not members:
            lasted = duration_text(wall_s - group.since_wall_s)
            self._say_over(group, wall_s, f"over for all {group.hosts} after {lasted}")
            del self.groups[group_id], self._members[group_id]
            return
        self._put_group(msgspec.structs.replace(group, left=len(members), text=self._names_of(group_id)))

    def _put_group(self, group: JudgedCondition) -> None:
        if self.groups[group.id] != group:
            self.groups[group.id] = self._changed[group.id] = group

    def _say_over(self, condition: JudgedCondition, wall_s: float, how: str) -> None:
        self._changed[condition.id] = msgspec.structs.replace(
            condition, ended_wall_s=max(wall_s, condition.since_wall_s), over=how, left=0
        )
        self._forget(condition.id)

    def _forget(self, id: str) -> None:
        self._over[id] = None
        if len(self._over) > OVER_KEPT_MAX:
            del self._over[next(iter(self._over))]

    def _enter(self, key: Key, condition: JudgedCondition) -> None:
        self.alone[key] = condition
        self.of_host.setdefault(key[0], set()).add(key)


def names(hosts: Iterable[str]) -> str:
    """Return the hosts for a person, NAMES_MAX of them by name."""
    found = sorted(set(hosts))
    more = f" and {len(found) - NAMES_MAX} more" if len(found) > NAMES_MAX else ""
    return (", ".join(found[:NAMES_MAX]) + more)[:TEXT_CHARS_MAX]
