"""What each host was like lately: numbers of its heartbeats and its comings and goings, bounded, in memory. Pure: times are arguments.

A fanout keeps it from the changes that it shows anyway, so it begins when that fanout did, and says so.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Iterable
from typing import Final

import msgspec

from processes.core.messages import Change
from processes.core.values import rfc3339
from processes.core.wire import Metrics

SAMPLE_S: Final = 4.5  # between two samples of one host: each heartbeat of an agent that beats every 5 s
SAMPLES_MAX: Final = 720  # of one host: an hour
SAMPLES_ALL_MAX: Final = 400_000  # of all hosts together: 8 MB; with 10,000 hosts each has the last 3 minutes
PRESENCES_MAX: Final = 40  # of one host

_WIDTH: Final = 5  # one sample: seconds since `since_wall_s`, cpu, ram, disk, load


class PresenceView(msgspec.Struct, frozen=True):
    """From `at` on the host was so."""

    at: str | None
    presence: str
    address: str


class HistoryView(msgspec.Struct, frozen=True):
    """GET /api/v1/hosts/NAME/metrics. The columns are equally long, oldest first; null: the agent did not say.

    Units: at in seconds since 1970; cpu, ram, disk in percent; load: the 1-minute load average.
    """

    host: str
    since: str | None
    sample_s: float
    at: list[float]
    cpu: list[float | None]
    ram: list[float | None]
    disk: list[float | None]
    load: list[float | None]
    presences: list[PresenceView]


class _Fields(msgspec.Struct):
    presence: str | msgspec.UnsetType = msgspec.UNSET
    address: str = ""
    metrics: Metrics | msgspec.UnsetType | None = msgspec.UNSET


class _Host:
    __slots__ = ("presences", "sampled_s", "samples")

    def __init__(self) -> None:
        self.samples = array("f")
        self.sampled_s = -math.inf
        self.presences: deque[tuple[float, str, str]] = deque(maxlen=PRESENCES_MAX)


_fields = msgspec.json.Decoder(_Fields)


class Histories:
    """All hosts' histories.

    Invariant: no host has more than SAMPLES_MAX samples, all together have at most SAMPLES_ALL_MAX and one each.
    """

    def __init__(self, since_wall_s: float) -> None:
        self._since_wall_s = since_wall_s
        self._hosts: dict[str, _Host] = {}

    def take(self, change: Change, now_wall_s: float) -> None:
        """The change of a host is remembered. Raises: msgspec.DecodeError, if its fields are not a host's."""
        if change.kind == "host_removed":
            self._hosts.pop(change.id, None)
        elif change.kind == "host":
            self._take_host(change, now_wall_s)

    def renew(self, rows: Iterable[Change], now_wall_s: float) -> None:
        """These are all hosts there are now, each with its whole row."""
        known = set(self._hosts)
        for row in rows:
            known.discard(row.id)
            self._take_host(row, now_wall_s)
        for gone in known:
            del self._hosts[gone]

    def view(self, name: str) -> HistoryView:
        """What is known of one host; empty columns if nothing is."""
        host = self._hosts.get(name) or _Host()
        cpu, ram, disk, load = ([_number(value) for value in host.samples[place::_WIDTH]] for place in range(1, _WIDTH))
        at = [round(self._since_wall_s + seconds, 1) for seconds in host.samples[::_WIDTH]]
        presences = [PresenceView(rfc3339(at_s), presence, address) for at_s, presence, address in host.presences]
        return HistoryView(name, rfc3339(self._since_wall_s), SAMPLE_S, at, cpu, ram, disk, load, presences)

    def _take_host(self, change: Change, now_wall_s: float) -> None:
        fields = _fields.decode(change.fields)
        host = self._hosts.setdefault(change.id, _Host())
        presence = fields.presence
        if presence is not msgspec.UNSET and (not host.presences or host.presences[-1][1] != presence):
            host.presences.append((now_wall_s, presence, fields.address))
        if fields.metrics and now_wall_s - host.sampled_s >= SAMPLE_S:
            self._sample(host, fields.metrics, now_wall_s)
        elif now_wall_s < host.sampled_s:  # the clock was set back
            host.sampled_s = now_wall_s

    def _sample(self, host: _Host, metrics: Metrics, now_wall_s: float) -> None:
        host.sampled_s = now_wall_s
        numbers = (metrics.cpu, metrics.ram, metrics.disk, metrics.load)
        host.samples.append(now_wall_s - self._since_wall_s)
        host.samples.extend(math.nan if number is None else number for number in numbers)
        room = max(1, min(SAMPLES_MAX, SAMPLES_ALL_MAX // len(self._hosts)))
        if len(host.samples) > room * _WIDTH:
            del host.samples[: len(host.samples) - room * _WIDTH]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 2)
