"""The recent history of each host, bounded, in memory: metrics and changes of presence. Pure: times are arguments.

A fanout makes it from the changes that it shows anyway; `dump` and `restore` pass it on to the next fanout.
"""

from __future__ import annotations

import enum
import math
from array import array
from collections import deque
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import msgspec

from processes.core.travels.agent_frames import Metrics
from processes.core.travels.messages import Change, Json
from processes.core.values import Presence, Time, rfc3339

HEAR_S: Final = 1.0  # heartbeats that come more often are not decoded for the charts
PRESENCES_MAX: Final = 100  # of one host
# if a host was stale for less and is as before, then the hub was replaced, and the host did nothing
BRIEF_S: Final = 10.0
# each hub tells by its own clock when a connection began: times that differ by less are of one
SAME: Final = timedelta(seconds=2)
KEPT_S_MAX: Final = 25 * 3600.0  # older samples are not taken over

_WIDTH: Final = 5  # one sample: seconds since the base, cpu, ram, disk, load


class Span(enum.StrEnum):
    """How far a chart looks back."""

    HOUR = "hour"
    DAY = "day"


class Tier(NamedTuple):
    """How densely, and how many, samples are kept."""

    sample_s: float  # between two samples of one host; a sample is the mean of the heartbeats in it
    samples_max: int  # of one host
    samples_all_max: int  # of all hosts together; 20 bytes each


TIERS: Final[Mapping[Span, Tier]] = {
    # each heartbeat of an agent that beats every 5 s; 10,000 hosts have the last 3 minutes
    Span.HOUR: Tier(4.5, 720, 400_000),
    Span.DAY: Tier(300.0, 288, 400_000),  # 10,000 hosts have the last 3 hours
}


class PresenceView(msgspec.Struct, frozen=True):
    """From `at` on the host had this presence and address."""

    at: Time | None
    presence: Presence
    address: str


class HistoryView(msgspec.Struct, frozen=True):
    """GET /api/v1/hosts/NAME/metrics. The columns are equally long, oldest first; null: the agent did not send it.

    Units: at in seconds since 1970; cpu, ram, disk in percent; load: the 1-minute load average.
    """

    host: str
    since: Time | None
    sample_s: float
    at: list[float]
    cpu: list[float | None]
    ram: list[float | None]
    disk: list[float | None]
    load: list[float | None]
    presences: list[PresenceView]


class _Fields(msgspec.Struct):
    presence: Presence | msgspec.UnsetType = msgspec.UNSET
    connected_since: datetime | msgspec.UnsetType | None = msgspec.UNSET
    address: str | msgspec.UnsetType = msgspec.UNSET
    last_seen: str | msgspec.UnsetType | None = msgspec.UNSET
    metrics: Metrics | msgspec.UnsetType | None = msgspec.UNSET


class _Series:
    """One host's samples of one tier, and the numbers of the sample that is being made."""

    __slots__ = ("begun_s", "counts", "samples", "sums")

    def __init__(self) -> None:
        self.samples = array("f")
        self.begun_s = -math.inf
        self.sums, self.counts = [0.0] * (_WIDTH - 1), [0] * (_WIDTH - 1)

    def add(self, numbers: Iterable[float | None], now_s: float, tier: Tier, room: int) -> None:
        """Units: now_s in seconds since the base. `room`: samples that may be kept."""
        for place, number in enumerate(numbers):
            if number is not None:
                self.sums[place] += number
                self.counts[place] += 1
        self.begun_s = min(self.begun_s, now_s)  # the clock may have been set back
        if now_s - self.begun_s < tier.sample_s:
            return
        self.begun_s = now_s
        self.samples.append(now_s)
        self.samples.extend(
            total / count if count else math.nan for total, count in zip(self.sums, self.counts, strict=True)
        )
        self.sums, self.counts = [0.0] * (_WIDTH - 1), [0] * (_WIDTH - 1)
        if len(self.samples) > room * _WIDTH:
            del self.samples[: len(self.samples) - room * _WIDTH]


class _Host:
    __slots__ = ("address", "connected", "heard_wall_s", "numbers", "presences", "seen", "series")

    def __init__(self) -> None:
        self.series = {span: _Series() for span in Span}
        self.presences: deque[tuple[float, Presence, str]] = deque(maxlen=PRESENCES_MAX)
        self.address = ""
        self.connected: datetime | None = None  # since when; another one is another connection
        # of its last heartbeat; a change tells them only if they are others
        self.numbers: tuple[float | None, ...] = ()
        self.heard_wall_s = -math.inf
        self.seen: str | None = None  # its last heartbeat: a snapshot tells it again


class _KeptHost(msgspec.Struct, array_like=True):
    presences: list[tuple[float, Presence, str]]
    address: str
    connected: datetime | None
    seen: str | None
    samples: dict[Span, bytes]


class _Kept(msgspec.Struct):
    since_wall_s: float
    base_wall_s: float
    hosts: dict[str, _KeptHost]


_fields = msgspec.json.Decoder(_Fields)
_kept = msgspec.msgpack.Decoder(_Kept)


class Histories:
    """All hosts' histories.

    Invariant: no host has more than a tier's samples_max; all hosts together have at most its samples_all_max, or one
    each.
    """

    def __init__(self, since_wall_s: float, tiers: Mapping[Span, Tier] = TIERS) -> None:
        self._tiers = tiers
        # samples count from the base: a float32 holds no time since 1970
        self._since_wall_s = self._base_wall_s = since_wall_s
        self._hosts: dict[str, _Host] = {}

    def take(self, change: Change, now_wall_s: float) -> None:
        """Take a change of a host into its history. Raises: msgspec.DecodeError, if its fields are not a host's."""
        if change.kind == "host_removed":
            self._hosts.pop(change.id, None)
        elif change.kind == "host":
            self._take_host(change, now_wall_s)

    def hear(self, heard: Iterable[tuple[str, Json]], now_wall_s: float) -> None:
        """Take what heartbeats change of hosts, of each host once in HEAR_S."""
        for name, fields in heard:
            host = self._hosts.get(name)
            if host is None or not 0 <= now_wall_s - host.heard_wall_s < HEAR_S:
                self._take_host(Change("host", name, fields), now_wall_s)
                self._hosts[name].heard_wall_s = now_wall_s

    def renew(self, rows: Iterable[Change], now_wall_s: float) -> None:
        """Take the rows of all hosts, each whole, and forget hosts that are not among them."""
        known = set(self._hosts)
        for row in rows:
            known.discard(row.id)
            self._take_host(row, now_wall_s)
        for gone in known:
            del self._hosts[gone]

    def view(self, name: str, span: Span = Span.HOUR) -> HistoryView:
        """Return the history of one host; with empty columns if it has none."""
        host = self._hosts.get(name) or _Host()
        samples = host.series[span].samples
        cpu, ram, disk, load = ([_number(value) for value in samples[place::_WIDTH]] for place in range(1, _WIDTH))
        at = [round(self._base_wall_s + seconds, 1) for seconds in samples[::_WIDTH]]
        presences = [PresenceView(rfc3339(at_s), presence, address) for at_s, presence, address in host.presences]
        return HistoryView(
            name, rfc3339(self._since_wall_s), self._tiers[span].sample_s, at, cpu, ram, disk, load, presences
        )

    def dump(self) -> bytes:
        """Return all histories, for `restore`. Cost: 60 ms for 10,000 hosts at the limits."""
        hosts = {
            name: _KeptHost(
                list(host.presences),
                host.address,
                host.connected,
                host.seen,
                {span: each.samples.tobytes() for span, each in host.series.items()},
            )
            for name, host in self._hosts.items()
        }
        return msgspec.msgpack.encode(_Kept(self._since_wall_s, self._base_wall_s, hosts))

    def restore(self, content: bytes, now_wall_s: float) -> None:
        """Go on with the histories that an earlier fanout dumped; to be called before any other change is taken.

        Cost: 0.2 s for 10,000 hosts at the limits. Raises: ValueError, if the content is not of `dump`.
        """
        assert not self._hosts
        kept = _kept.decode(content)
        shift_s = kept.base_wall_s - self._base_wall_s
        hosts = {}
        for name, old in kept.hosts.items():
            host = hosts[name] = _Host()
            host.presences.extend(each for each in old.presences if each[0] <= now_wall_s)
            host.address, host.connected, host.seen = old.address, old.connected, old.seen
            for span, raw in old.samples.items():
                series = host.series[span]
                series.samples = _taken_over(raw, shift_s, now_wall_s - self._base_wall_s)
                series.begun_s = series.samples[-_WIDTH] if series.samples else -math.inf
        self._hosts = hosts
        self._since_wall_s = min(max(kept.since_wall_s, now_wall_s - KEPT_S_MAX), now_wall_s)

    def _take_host(self, change: Change, now_wall_s: float) -> None:
        fields = _fields.decode(change.fields)
        host = self._hosts.setdefault(change.id, _Host())
        if fields.address is not msgspec.UNSET:
            host.address = fields.address
        if fields.presence is not msgspec.UNSET or fields.connected_since is not msgspec.UNSET:
            self._note(host, fields, now_wall_s)
        if fields.metrics is None:
            host.numbers = ()
        elif fields.metrics is not msgspec.UNSET:
            metrics = fields.metrics
            host.numbers = (metrics.cpu, metrics.ram, metrics.disk, metrics.load)
        fresh = fields.metrics is not msgspec.UNSET
        if fields.last_seen is not msgspec.UNSET:
            fresh, host.seen = fields.last_seen != host.seen, fields.last_seen
        if fields.presence not in (msgspec.UNSET, Presence.ONLINE):
            fresh = False  # a heartbeat makes a host online, so these numbers are older
        if fields.connected_since is not msgspec.UNSET and fields.metrics is msgspec.UNSET:
            fresh = False  # a connection began, and the numbers are still the old ones
        if fresh and host.numbers:
            for span, tier in self._tiers.items():
                room = max(1, min(tier.samples_max, tier.samples_all_max // len(self._hosts)))
                host.series[span].add(host.numbers, now_wall_s - self._base_wall_s, tier, room)

    def _note(self, host: _Host, fields: _Fields, now_wall_s: float) -> None:
        """Note a change of presence, or another connection."""
        presences, before = host.presences, host.connected
        presence = presences[-1][1] if presences else None
        if fields.presence is not msgspec.UNSET:
            presence = fields.presence
        if fields.connected_since is not msgspec.UNSET and fields.connected_since is not None:
            host.connected = fields.connected_since
        another = host.connected is not None and (before is None or abs(host.connected - before) > SAME)
        again = presence == Presence.ONLINE and another
        if presence is None or (presences and presences[-1][1] == presence and not again):
            return
        brief = len(presences) > 1 and presences[-1][1] == Presence.STALE and now_wall_s - presences[-1][0] < BRIEF_S
        if brief and presences[-2][1] == presence and not again:
            presences.pop()
            return
        presences.append((now_wall_s, presence, host.address))


def _taken_over(raw: bytes, shift_s: float, now_s: float) -> array[float]:
    """Return the samples with times since another base, without those too old or in the future. Raises: ValueError."""
    samples = array("f")
    samples.frombytes(raw)
    if len(samples) % _WIDTH:
        raise ValueError("samples are cut off")
    times = array("f", [at_s + shift_s for at_s in samples[::_WIDTH]])
    samples[::_WIDTH] = times
    good = [place for place, at_s in enumerate(times) if now_s - KEPT_S_MAX <= at_s <= now_s]
    if len(good) < len(times):
        samples = array("f", [number for place in good for number in samples[place * _WIDTH : (place + 1) * _WIDTH]])
    return samples


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 2)
