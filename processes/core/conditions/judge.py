"""The judge: from rows of hosts, commands and runs to the conditions that stand. Pure.

    met ──(for `for`, and GATHER_S for others with the same cause)──▶ stands ──(not met for CLEAR_S)──▶ over
     ▲ a rule holds for the host; the time runs anew whenever the house has not been well

Nothing begins or ends while the house is not well: then what is seen of hosts is the house's own trouble. After the hub
began anew, and for hosts of a gateway that did, a host is given FRESH_S to be heard of again. A host that reboots by a
command is away until the command has ended. Conditions of the same kind that are met together are looked at together
(core/conditions/causes.py), and those that have one cause become one condition, of which the others are parts; so it is
with many hosts that are lost within a minute, and for those MASS_S are enough.

Cost: of a change of a host, its rules; of a turn, what is due in it. All hosts are looked at only after a change of the
rules, and then JUDGED_HOSTS_MAX of them in a turn.

A host that cannot be judged, by a mistake of ours that its values bring out, is put aside alone: what stands of it goes
on to stand, nothing of it begins, and it is tried again after ASIDE_S. All others are judged as ever.

Units: *_boot_s of CLOCK_BOOTTIME, *_wall_s since 1970; *_s a length of time.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import math
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec

from processes.core.conditions import signs
from processes.core.conditions.aside import Aside
from processes.core.conditions.beginnings import Beginnings
from processes.core.conditions.causes import NETWORK, Traits
from processes.core.conditions.dwelling import Dwelling, Met
from processes.core.conditions.freshness import FRESH_S, TOLD_LATE_S, Freshness, House
from processes.core.conditions.happened import OUTCOMES, CommandSight, Happenings, RunSight
from processes.core.conditions.rules import FLAPS_S, Rule, Rulebook
from processes.core.conditions.sight import HostSight, heard, row_of, sight_of, wall_s
from processes.core.conditions.signs import HOST_KINDS, NUMBERS, HostTrack
from processes.core.conditions.standing import Key, StandingConditions, condition_id
from processes.core.records.command import State
from processes.core.shown.query import Query
from processes.core.travels.judged import ConditionKind, JudgedCondition
from processes.core.travels.messages import Json
from processes.core.values import CANARY_HOST, Now, Presence

CLEAR_S: Final = 10.0  # not met for so long: over; guess
MASS_PATIENCE_S: Final = 600.0  # hosts with more patience than this may go home together
JUDGED_HOSTS_MAX: Final = 500  # hosts that are looked at in one turn, so that it stays short


class ActiveSilence(NamedTuple):
    """A silence, with its query parsed. It counts from `from_wall_s` until `until_wall_s`."""

    id: str
    query: Query
    from_wall_s: float
    until_wall_s: float


class Judge:
    """One judge. It is told what changes, and says in `turn` what stands."""

    def __init__(self, book: Rulebook, version: str, now: Now) -> None:
        self._book, self._version, self._now = book, version, now
        self._hosts: dict[str, HostSight] = {}
        self._rows: dict[str, dict[str, Any]] = {}  # of hosts that a query was asked about since they changed
        self._tracks: dict[str, HostTrack] = {}
        self._traits = Traits()
        self._rebooting: dict[str, str] = {}  # host → the command that reboots it
        self._dwelling, self._standing = Dwelling(), StandingConditions()
        self._beginnings = Beginnings(
            self._dwelling, self._standing, self._traits, self._silence_of, self._fresh_boot_s
        )
        self.happenings = Happenings(self._dwelling, self._standing, self._beginnings)
        self._gone: dict[Key, float] = {}  # that stand and are not met, and since when
        self._unsilenced: set[Key] = set()
        self._dirty: dict[str, None] = {}
        self._timers: list[tuple[float, str]] = []
        self._armed: dict[str, float] = {}  # host → the one timer of it that counts
        self._silences: list[ActiveSilence] = []
        self._silences_boot_s = now.boot_s  # when they are to be looked at anew
        self._freshness = Freshness(now)
        self.aside = Aside()

    # what the judge is told

    def load(self, conditions: Iterable[JudgedCondition]) -> None:
        """Take over from another judge, before anything else."""
        self._standing.load(conditions)

    def use(self, book: Rulebook) -> None:
        """Judge by these rules from now on."""
        self._book = book
        self._dirty.update(dict.fromkeys(self._hosts))

    def host(self, name: str, row: Json | None, now: Now) -> None:
        """Called when the row of a host has changed; None: it is gone. Raises: msgspec.DecodeError."""
        if name == CANARY_HOST:
            return
        if row is None:
            self._forget(name, now)
            return
        before, sight = self._hosts.get(name), sight_of(row)
        if not sight.gateway and before is not None:
            sight = msgspec.structs.replace(sight, gateway=before.gateway)
        self._see(name, before, sight, now)

    def hear(self, name: str, fields: Json, now: Now) -> None:
        """Called when a heartbeat has changed these fields of a host. Raises: msgspec.DecodeError."""
        before = self._hosts.get(name)
        if before is not None:
            self._hosts[name] = heard(before, fields)
            self._rows.pop(name, None)
            self._dirty[name] = None

    def command(self, command: CommandSight, now: Now) -> None:
        """Called when the row of a command has changed."""
        sight = self._hosts.get(command.host)
        if sight is None:
            return
        options = sight.command_options.get(command.op)
        if command.state in (State.SENT, State.RUNNING):
            if options is not None and options.back_s:
                self._rebooting[command.host] = command.id
                self._dirty[command.host] = None
        elif self._rebooting.get(command.host) == command.id:
            del self._rebooting[command.host]
            self._learn_anew(command.host, now)
        if command.state == State.SUCCEEDED:
            self.happenings.ended_well(command, now)
        elif (kind := OUTCOMES.get(command.state)) is not None:
            rules = self._book.of(kind, lambda: self.row(command.host), now.wall_s)
            self.happenings.ended_badly(rules, kind, command, sight.labels, now)

    def run(self, run: RunSight, now: Now) -> None:
        """Called when a run has ended, or is seen again."""
        self.happenings.run(self._book.of_run(), run, now)

    def silences(self, silences: list[ActiveSilence], now: Now) -> None:
        """Called when a silence was made or has ended: `silences` are all of them."""
        self._silences, self._silences_boot_s = silences, now.boot_s

    def row(self, name: str) -> dict[str, Any]:
        """Return the host as queries look at it."""
        found = self._rows.get(name)
        if found is None:
            found = self._rows[name] = row_of(self._hosts[name])
        found["conditions"] = sorted({str(key[1]) for key in self._standing.of_host.get(name, ())})
        return found

    # what the judge says

    def turn(self, now: Now, house: House) -> list[JudgedCondition]:
        """Return what has changed of the conditions since the last turn."""
        away_s, self._now = now.boot_s - self._now.boot_s, now
        if whose := self._freshness.learn(house, away_s, now):
            for name, sight in self._hosts.items():
                if whose(sight.gateway):
                    self._tracks[name].uncount(now.boot_s - TOLD_LATE_S)
        if house.is_well and now.boot_s >= self._freshness.well_boot_s:
            self._judge(now)
        elif not house.is_well:
            self._pause(away_s)
        return self._standing.take_changed()

    def put_aside(self, name: str, mistake: Exception, now: Now) -> None:
        """Judge this host no more until ASIDE_S from now: what it is or says brought out a mistake of ours."""
        if name not in self._hosts:
            return
        self._armed.pop(name, None)
        self._wake(name, self.aside.put(name, mistake, now))
        for key in self._dwelling.keys_of(name):
            self._dwelling.drop(key)

    def dwelling(self) -> list[JudgedCondition]:
        """Return what is met and does not stand yet, as it would be said."""
        return [met.condition for met in self._dwelling.met.values()]

    def _judge(self, now: Now) -> None:
        while self._timers and self._timers[0][0] <= now.boot_s:
            at_boot_s, name = heapq.heappop(self._timers)
            if self._armed.get(name) == at_boot_s:
                del self._armed[name]
                self._dirty[name] = None
        for name in list(itertools.islice(self._dirty, JUDGED_HOSTS_MAX)):
            del self._dirty[name]
            if self.aside.has(name, now):
                continue
            try:
                self._look(name, now)
            except Exception as mistake:
                self.put_aside(name, mistake, now)
            else:
                self.aside.drop(name)
        if now.boot_s >= self._silences_boot_s:
            self._look_at_silences(now)
        self._beginnings.turn(now)
        self._beginnings.regroup(self._unsilenced, now)
        self._unsilenced.clear()

    def _pause(self, away_s: float) -> None:
        """Let no time pass for what is met, and for what is gone: nobody can see hosts now."""
        self._dwelling.pause(away_s)
        for key in self._gone:
            self._gone[key] += away_s

    # one host

    def _see(self, name: str, before: HostSight | None, sight: HostSight, now: Now) -> None:
        track = self._tracks.get(name)
        if track is None:
            track = self._tracks[name] = HostTrack()
        if sight.presence is Presence.ONLINE:
            track.lost_boot_s = None
        elif track.lost_boot_s is None:
            seen_wall_s = wall_s(sight.last_seen)
            was_online = before is not None and before.presence is Presence.ONLINE
            ago_s = 0.0 if was_online or seen_wall_s is None else max(0.0, now.wall_s - seen_wall_s)
            track.lost_boot_s = now.boot_s - ago_s
            is_own = self._freshness.is_well and now.boot_s >= self._fresh_boot_s(name)
            if was_online and is_own and name not in self._rebooting:
                track.losses_boot_s.append(now.boot_s)
        self._hosts[name] = sight
        self._rows.pop(name, None)
        if before is None or (before.labels, before.address) != (sight.labels, sight.address):
            own = [f"{NETWORK}{sight.network}"] if sight.network else []
            self._traits.put(name, frozenset([*(f"{key}={value}" for key, value in sight.labels.items()), *own]))
            if before is not None:
                self._silences_boot_s = now.boot_s
        self._dirty[name] = None

    def _forget(self, name: str, now: Now) -> None:
        for key in list(self._dwelling.keys_of(name)):
            self._dwelling.drop(key)
        for key in list(self._standing.of_host.get(name, ())):
            self._standing.end(key, now.wall_s, "the host was removed")
            self._gone.pop(key, None)
        for rows in (self._hosts, self._rows, self._tracks, self._rebooting, self._dirty):
            rows.pop(name, None)
        self.aside.drop(name)
        self._traits.drop(name)

    def _learn_anew(self, name: str, now: Now) -> None:
        """Give the host its whole patience again."""
        track = self._tracks.get(name)
        if track is not None and track.lost_boot_s is not None:
            track.lost_boot_s = now.boot_s
        for key in [k for k in self._dwelling.keys_of(name) if k[1] in HOST_KINDS]:
            self._dwelling.drop(key)
        self._dirty[name] = None

    def _look(self, name: str, now: Now) -> None:
        """Judge the host by the rules of each kind."""
        sight, track = self._hosts.get(name), self._tracks.get(name)
        if sight is None or track is None:
            return
        judged: set[Key] = set()
        is_away = name in self._rebooting or now.boot_s < self._freshness.of_gateway(sight.gateway)
        if is_away and name not in self._rebooting and sight.presence is not Presence.ONLINE:
            self._wake(name, self._freshness.of_gateway(sight.gateway))
        row = functools.partial(self.row, name)
        for kind in HOST_KINDS:
            for rule in self._book.of(kind, row, now.wall_s):
                assert rule.severity is not None
                key = (name, kind, "", rule.severity)
                judged.add(key)
                found = signs.sign(rule, sight, track, now.boot_s, self._version)
                if is_away and kind not in NUMBERS:
                    found = None if key in self._standing.alone else False
                self._judged(key, rule, found, now)
        for key in [k for k in (*self._standing.of_host.get(name, ()), *self._dwelling.keys_of(name)) if not k[2]]:
            if key not in judged:  # of a rule that counts for this host no longer
                self._dwelling.drop(key)
                if key in self._standing.alone:
                    self._standing.end(key, now.wall_s, "no rule is about it any more")
                    self._gone.pop(key, None)
        if track.losses_boot_s and track.losses_boot_s[-1] + FLAPS_S > now.boot_s:
            self._wake(name, track.losses_boot_s[-1] + FLAPS_S)

    def _judged(self, key: Key, rule: Rule, found: bool | None, now: Now) -> None:
        if key in self._standing.alone:
            if found is not False:
                self._gone.pop(key, None)
                return
            since_boot_s = self._gone.setdefault(key, now.boot_s)
            if now.boot_s - since_boot_s < CLEAR_S:
                self._wake(key[0], since_boot_s + CLEAR_S)
                return
            del self._gone[key]
            ended_wall_s = now.wall_s - (now.boot_s - since_boot_s)
            lasted_s = ended_wall_s - self._standing.alone[key].since_wall_s
            self._standing.end(key, ended_wall_s, signs.over(key[1], lasted_s))
        elif found is True:
            self._meet(key, rule, now)
        elif found is False or (key[1] in NUMBERS and self._hosts[key[0]].presence is not Presence.ONLINE):
            self._dwelling.drop(key)

    def _meet(self, key: Key, rule: Rule, now: Now) -> None:
        name, kind = key[0], key[1]
        met, sight, track = self._dwelling.met.get(key), self._hosts[name], self._tracks[name]
        if met is None or met.rule is not rule:
            since_boot_s = now.boot_s
            if kind in (ConditionKind.OFFLINE, ConditionKind.STALE) and track.lost_boot_s is not None:
                since_boot_s = track.lost_boot_s
            since_wall_s = now.wall_s - (now.boot_s - since_boot_s)
            condition = JudgedCondition(
                id=condition_id(name, kind, key[3], f"{since_wall_s:.3f}"), host=name, kind=kind, severity=key[3],
                title=signs.title(kind, name), text=signs.text(rule, sight), since_wall_s=since_wall_s,
                begun_wall_s=now.wall_s, rule=rule.shown, labels=sight.labels,
            )  # fmt: skip
            met = Met(rule, max(since_boot_s, self._fresh_boot_s(name) - FRESH_S), condition)
            self._dwelling.put(key, met)
            if kind is ConditionKind.OFFLINE and rule.for_s <= MASS_PATIENCE_S:
                self._dwelling.lost[key] = None
        ready_boot_s = max(met.since_boot_s + rule.for_s, self._fresh_boot_s(name))
        if now.boot_s >= ready_boot_s:
            self._dwelling.ready.setdefault(key, now.boot_s)
        else:
            self._dwelling.ready.pop(key, None)
            self._wake(name, ready_boot_s)

    def _fresh_boot_s(self, name: str) -> float:
        """Return until when what is seen of the host may be the house's own trouble."""
        sight = self._hosts.get(name)
        well_boot_s = self._freshness.well_boot_s
        return max(well_boot_s, self._freshness.of_gateway(sight.gateway)) if sight is not None else well_boot_s

    def _wake(self, name: str, at_boot_s: float) -> None:
        """Have the host looked at by this time."""
        if at_boot_s < self._armed.get(name, math.inf):
            self._armed[name] = at_boot_s
            heapq.heappush(self._timers, (at_boot_s, name))

    # silences

    def _silence_of(self, name: str) -> str:
        """Return the silence under which nobody is told of the host now; empty: there is none."""
        wall_s = self._now.wall_s
        if not self._silences or name not in self._hosts:
            return ""
        now_on = [each for each in self._silences if each.from_wall_s <= wall_s < each.until_wall_s]
        try:
            return next((each.id for each in now_on if each.query.matches(self.row(name), wall_s)), "")
        except Exception as mistake:
            self.put_aside(name, mistake, self._now)
            return ""

    def _look_at_silences(self, now: Now) -> None:
        """Silence what stands, or no longer; look again when one begins or ends, and once a minute."""
        self.happenings.forget_old(now)
        for key, condition in list(self._standing.alone.items()):
            silence = self._silence_of(key[0])
            if condition.silence and not silence:
                self._standing.ungroup(key)
                self._unsilenced.add(key)
            self._standing.silence(key, silence)
        times = [at_s for each in self._silences for at_s in each[2:] if at_s > now.wall_s]
        self._silences_boot_s = now.boot_s + min([60.0, *(at_s - now.wall_s for at_s in times)])
