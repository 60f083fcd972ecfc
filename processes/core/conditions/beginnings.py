"""How what is met begins to stand: alone, or as one condition of many hosts with one cause. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from processes.core.conditions.causes import MANY_MIN, NO_TRAIT, WHOLE, Traits, causes, is_mass
from processes.core.conditions.dwelling import Dwelling
from processes.core.conditions.standing import Key, StandingConditions
from processes.core.travels.judged import STANDING_MAX, ConditionKind, JudgedCondition
from processes.core.values import GRAVITY, Now

GATHER_S: Final = 5.0  # a condition waits so long for others with the same cause; guess
WINDOW_S: Final = 60.0  # contract: "within a minute"
MASS_S: Final = 15.0  # after the fifth loss within WINDOW_S; guess: a switch that starts anew takes longer …
QUIET_S: Final = 8.0  # … and so long without a further one,
MASS_S_MAX: Final = 40.0  # … but this is enough in any case
TRAITS_SPARE: Final = 1_000  # traits of conditions that have ended, kept until there are more; guess


class Beginnings:
    """Makes what is met stand. `silence_of` is the silence of a host, `fresh_boot_s` until when nothing is believed of
    it.

    Invariant: `own_traits`, what conditions have in common besides their hosts (a run) by their ids, has at most
    TRAITS_SPARE more than twice as many as dwell or stand.
    """

    def __init__(
        self,
        dwelling: Dwelling,
        standing: StandingConditions,
        traits: Traits,
        silence_of: Callable[[str], str],
        fresh_boot_s: Callable[[str], float],
    ) -> None:
        self._dwelling, self._standing, self._traits = dwelling, standing, traits
        self._silence_of, self._fresh_boot_s = silence_of, fresh_boot_s
        self.own_traits: dict[str, str] = {}

    def note_trait(self, id: str, trait: str) -> None:
        """Note what the condition of this id has in common with others. What has ended is forgotten now and then."""
        self.own_traits[id] = trait
        if len(self.own_traits) > 2 * (len(self._dwelling.met) + len(self._standing.alone)) + TRAITS_SPARE:
            alive = {met.condition.id for met in self._dwelling.met.values()}
            alive.update(each.id for each in self._standing.alone.values())
            self.own_traits = {each: found for each, found in self.own_traits.items() if each in alive}

    def turn(self, now: Now) -> None:
        """Begin what is to begin now."""
        self._join(now)
        if len(self._dwelling.lost) >= MANY_MIN:
            self._begin_mass(now)
        for kind, severity in {(key[1], key[3]) for key in self._dwelling.due(now.boot_s - GATHER_S)}:
            keys = [key for key in self._dwelling.ready if (key[1], key[3]) == (kind, severity)]
            self._begin_together(kind, [*keys, *self._begun_lately(kind, severity, now)], now)
        for key in self._dwelling.due(now.boot_s - GATHER_S):
            if not self._is_inhibited(key) and len(self._standing) < STANDING_MAX:
                self._stand(key, now, silence=self._silence_of(key[0]))

    def regroup(self, keys: Iterable[Key], now: Now) -> None:
        """Make one condition of those with one cause, of what stands alone."""
        keys = [key for key in keys if key in self._standing.alone]
        for kind, severity in {(key[1], key[3]) for key in keys}:
            self._begin_together(kind, [key for key in keys if (key[1], key[3]) == (kind, severity)], now)

    def _begin_mass(self, now: Now) -> None:
        """Begin the conditions of many hosts that were lost within a minute, without waiting for their patience."""
        lost = [key for key in self._dwelling.lost if now.boot_s >= self._fresh_boot_s(key[0])]
        newest_wall_s = max((self._condition(key).since_wall_s for key in lost), default=0.0)
        lately = [key for key in lost if self._condition(key).since_wall_s > newest_wall_s - WINDOW_S]
        if len(lately) < MANY_MIN:
            return
        since_s = sorted(now.boot_s - self._dwelling.met[key].since_boot_s for key in lately)
        fifth_s, newest_s = since_s[-MANY_MIN], since_s[0]
        if (fifth_s >= MASS_S and newest_s >= QUIET_S) or fifth_s >= MASS_S_MAX:
            for severity in {key[3] for key in lately}:
                self._begin_together(ConditionKind.OFFLINE, [key for key in lately if key[3] == severity], now)

    def _begun_lately(self, kind: ConditionKind, severity: str, now: Now) -> list[Key]:
        """Return what began alone within a minute: those with the same cause belong together."""
        return [
            key
            for key, each in self._standing.alone.items()
            if (key[1], key[3]) == (kind, severity) and not each.group and now.wall_s - each.begun_wall_s <= WINDOW_S
        ]

    def _begin_together(self, kind: ConditionKind, keys: list[Key], now: Now) -> None:
        keys = [key for key in keys if key[0] and not self._silence_of(key[0]) and not self._is_inhibited(key)]
        if len(keys) < MANY_MIN or len(self._standing) + len(keys) > STANDING_MAX:
            return
        by_host = {key[0]: key for key in keys}
        own = {host: trait for host, key in by_host.items() if (trait := self.own_traits.get(self._condition(key).id))}
        for cause in causes(by_host, self._traits, own):
            members = {by_host[host]: self._condition(by_host[host]) for host in cause.hosts}
            times = [each.since_wall_s for each in members.values()]
            at_once = max(times) - min(times) <= WINDOW_S
            if cause.trait in (WHOLE, NO_TRAIT) and not at_once:
                continue  # it is only now that somebody looks
            mass = at_once and kind is ConditionKind.OFFLINE and is_mass(len(members), self._traits.fleet)
            for key in members:
                self._stand(key, now)
            self._standing.begin_group(kind, cause, list(members), now.wall_s, mass=mass, at_once=at_once)

    def _join(self, now: Now) -> None:
        """Make what is met part of a condition of many hosts that began about the same time and has its cause."""
        if not self._standing.groups:
            return
        for key in dict.fromkeys((*self._dwelling.ready, *self._dwelling.lost)):
            group = self._group_for(key)
            if group and not self._silence_of(key[0]) and not self._is_inhibited(key):
                self._stand(key, now)
                self._standing.join(group, key)

    def _group_for(self, key: Key) -> str:
        condition = self._condition(key)
        traits = {*self._traits.of(key[0]), self.own_traits.get(condition.id, NO_TRAIT), WHOLE, NO_TRAIT}
        for id, group in self._standing.groups.items():
            is_same = group.of == key[1] and group.cause in traits
            if is_same and abs(condition.since_wall_s - group.since_wall_s) <= WINDOW_S:
                return id
        return ""

    def _condition(self, key: Key) -> JudgedCondition:
        met = self._dwelling.met.get(key)
        return met.condition if met is not None else self._standing.alone[key]

    def _stand(self, key: Key, now: Now, silence: str = "") -> None:
        met = self._dwelling.met.get(key)
        if met is not None:
            condition = msgspec.structs.replace(met.condition, begun_wall_s=now.wall_s, silence=silence)
            self._standing.put(key, condition)
            self._dwelling.drop(key)

    def _is_inhibited(self, key: Key) -> bool:
        """Return whether a graver condition of the same kind stands."""
        return any(
            other[1:3] == key[1:3] and GRAVITY[other[3]] > GRAVITY[key[3]]
            for other in self._standing.of_host.get(key[0], ())
        )
