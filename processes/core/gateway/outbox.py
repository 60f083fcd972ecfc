"""The events that a gateway has for the hub and could not append to `events` yet: bounded, and in order. Pure.

Three lanes, in this order of precedence:

census      The pieces of the census under way, one in each append. A census names everyone who is connected now, so
            all presence that waits is dropped when one starts.
ordered     Everything else but heartbeats, in each host's order, and hosts by turns (fair_lane.py). A host that has too
            much waiting is to be paused (its socket is not read); if it sends on all the same, by connecting anew, it
            is refused. Presence is always accepted; when even presence is too much, it is dropped, and a census is
            wanted instead.
heartbeats  The newest of each host; never a reason to pause. The first goes at once, those that come within GATHER_S
            of it go together, as batches of many hosts. They never overtake what their connection sent before them.

Reports and heartbeats are `bulk`: they wait here while the hub has enough to do, not in its queue before others.

A batch that was refused, or of which it is not known whether it was appended, stays in its place and is tried again,
later and smaller.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from processes.core.errors import LocalError
from processes.core.gateway.fair_lane import Entry, FairLane

WAIT_S_MIN: Final = 0.05  # before the first retry; doubles
WAIT_S_MAX: Final = 1.0
# between two batches of heartbeats, if all that waited went with the first: what each batch costs all processes is then
# a few hundredths of a core
GATHER_S: Final = 0.03


class Lane(enum.Enum):
    """Where a batch comes from."""

    CENSUS = enum.auto()
    ORDERED = enum.auto()
    HEARTBEATS = enum.auto()


class PutResult(enum.Enum):
    """Whether an event was kept, and what is to be done with its sender."""

    KEPT = enum.auto()
    PAUSE = enum.auto()  # kept; read nothing more from this host until `may_resume`
    REFUSED = enum.auto()  # not kept: end the connection, its agent will send again


class Bounds(NamedTuple):
    """When a host is paused; at twice these numbers it is refused. Units: items and bytes, `host_*` of one host,
    `all_bytes` of all hosts together.
    """

    host_items: int = 256
    host_bytes: int = 1 << 20
    all_bytes: int = 64 << 20
    presence_items: int = 20_000  # about four for each of 5,000 hosts
    batch_items: int = 500
    batch_beats: int = 2000  # heartbeats in one append
    batch_bytes: int = 512 * 1024


class OutgoingBatch(NamedTuple):
    """The items to append next, in one call."""

    lane: Lane
    items: list[bytes]
    bulk: bool  # it must leave room in the queue for what is not: presence, and operators' requests


class _Beat(NamedTuple):
    connection: str
    item: bytes
    after: int  # the number of its host's newest entry in the ordered lane, which must be appended before it
    since_s: float


class _Pace:
    """When a lane may be tried next, and with how many items: a queue with little room takes a little."""

    def __init__(self, items_max: int) -> None:
        self._items_max = self.items = items_max
        self._wait_s = 0.0
        self.not_before_s = 0.0

    def gain(self) -> None:
        """Called after a batch was appended."""
        self._wait_s = self.not_before_s = 0.0
        self.items = min(self.items * 2, self._items_max)

    def back_off(self, now_s: float) -> None:
        """Called after a batch was refused."""
        self._wait_s = min(max(WAIT_S_MIN, self._wait_s * 2), WAIT_S_MAX)
        self.not_before_s = now_s + self._wait_s
        self.items = max(self.items // 2, 1)


class Outbox:
    """The outbox of one gateway. At most one batch is under way; the owner calls `appended` or `refused` before it asks
    for the next one.

    Units: `now_s` seconds of a monotonic clock.
    Invariant: the entries of the ordered lane that are under way are the batch under way, if it is of that lane.
    """

    def __init__(self, bounds: Bounds, pack: Callable[[list[bytes]], list[bytes]] = list) -> None:
        """`pack`: makes the items of a batch of heartbeats."""
        self.bounds, self._pack = bounds, pack
        self.census_wanted = False  # presence was dropped: the owner takes a census
        self._ordered = FairLane()
        self._newest: dict[str, int] = {}  # the number of the newest entry, by host
        self._presence = 0
        self._items: Counter[str] = Counter()  # reports waiting, by host
        self._bytes: Counter[str] = Counter()
        self._bytes_all = 0
        self._beats: dict[str, _Beat] = {}
        self._beats_from_s = 0.0  # no batch of heartbeats before this
        self.conflated = 0  # heartbeats whose place a newer one took
        self._census: Iterator[bytes] = iter(())
        self._piece: bytes | None = None
        self._batch: OutgoingBatch | None = None
        self._sent_beats: list[tuple[str, _Beat]] = []
        self._stale_presence = False  # a census was started while presence was under way
        self._beats_next = False  # the last batch was of the ordered lane
        self._idle_until_s = 0.0  # nothing may go before, unless something is put in
        self._pace = _Pace(bounds.batch_items)
        self._pace_reports = _Pace(bounds.batch_items)
        self._pace_beats = _Pace(bounds.batch_beats)

    def __len__(self) -> int:
        return len(self._ordered) + len(self._beats) + (self._piece is not None)

    @property
    def gathers(self) -> bool:
        """Return whether heartbeats wait: then the owner knows already when the next ones go."""
        return bool(self._beats)

    @property
    def bytes_waiting(self) -> int:
        """Return how many bytes wait in the ordered lane."""
        return self._bytes_all

    def oldest_s(self) -> float | None:
        """Return since when the oldest item waits; None if none does. (A heartbeat keeps the place of the one that it
        replaces, so the first is the oldest.)
        """
        first_beat = next(iter(self._beats.values()), None)
        waiting = [self._ordered.oldest_s(), first_beat.since_s if first_beat else None]
        return min((since_s for since_s in waiting if since_s is not None), default=None)

    # What goes in

    def put(self, host: str, item: bytes, now_s: float) -> PutResult:
        """Put in a report, output or anything else that is neither presence nor a heartbeat."""
        if self._items[host] >= 2 * self.bounds.host_items or self._bytes[host] >= 2 * self.bounds.host_bytes:
            return PutResult.REFUSED
        if self._bytes_all >= 2 * self.bounds.all_bytes:
            return PutResult.REFUSED
        self._enter(host, item, False, now_s)
        self._items[host] += 1
        self._bytes[host] += len(item)
        over = self._items[host] >= self.bounds.host_items or self._bytes[host] >= self.bounds.host_bytes
        return PutResult.PAUSE if over or self._bytes_all >= self.bounds.all_bytes else PutResult.KEPT

    def put_presence(self, host: str, item: bytes, now_s: float) -> None:
        """Put in a registration or a disconnect. It is always accepted; too many are dropped for a census."""
        self._enter(host, item, True, now_s)
        self._presence += 1
        if self._presence > self.bounds.presence_items:
            self._drop_presence()
            self.census_wanted = True

    def put_heartbeat(self, host: str, connection: str, item: bytes, now_s: float) -> None:
        """Put in the newest heartbeat of this host. It keeps the place of the one that it replaces."""
        self._idle_until_s = min(self._idle_until_s, self._beats_from_s)
        old, after = self._beats.get(host), self._newest.get(host, 0)
        self.conflated += old is not None
        if old is not None and old.connection == connection:
            # plant: heartbeat-order
            self._beats[host] = old._replace(item=item, after=after)
            return
        self._beats[host] = _Beat(connection, item, after, now_s)

    def forget_heartbeat(self, host: str, connection: str) -> None:
        """Drop the heartbeat of a connection that is gone: it must not come after the disconnect."""
        beat = self._beats.get(host)
        if beat is not None and beat.connection == connection:
            del self._beats[host]

    def start_census(self, pieces: Iterator[bytes]) -> None:
        """Let these pieces go first, and drop the census under way and all presence that waits. `pieces` may be
        made when they are asked for.
        """
        self._idle_until_s = 0.0
        self._census, self._piece = pieces, None
        self.census_wanted = False
        self._drop_presence()
        self._advance_census()

    def may_resume(self, host: str) -> bool:
        """Return whether a paused host has less than half of its bound waiting, and all hosts together less
        than half of theirs.
        """
        return (
            self._items[host] < self.bounds.host_items / 2
            and self._bytes[host] < self.bounds.host_bytes / 2
            and self._bytes_all < self.bounds.all_bytes / 2
        )

    # What goes out

    def next(self, now_s: float) -> OutgoingBatch | None:
        """Return the batch to append now; None if none may go, or one is under way."""
        if self._batch is not None:
            return None
        if self._pace.not_before_s > now_s:
            return None
        beats_may = max(self._pace_beats.not_before_s, self._beats_from_s) <= now_s
        self._batch = self._next_census()
        if self._batch is None and self._beats_next and beats_may:
            self._batch = self._next_beats(now_s)  # else hosts would look silent while one of them sends all the time
        if self._batch is None:
            self._batch = self._next_ordered(reports_may=self._pace_reports.not_before_s <= now_s)
        if self._batch is None and beats_may:
            self._batch = self._next_beats(now_s)
        self._beats_next = self._batch is not None and self._batch.lane is Lane.ORDERED
        if self._batch is None:
            later_s = (self._pace_reports.not_before_s, self._pace_beats.not_before_s, self._beats_from_s)
            self._idle_until_s = min((each_s for each_s in later_s if each_s > now_s), default=0.0)
        return self._batch

    def due_s(self) -> float | None:
        """Return when `next` will have a batch, at the latest (a time in the past: now); None if nothing
        waits or a batch is under way.
        """
        if self._batch is not None:
            return None
        if not len(self):
            return None
        return max(self._pace.not_before_s, self._idle_until_s)

    def appended(self) -> int:
        """Called when the batch is in the queue. Return how many items it had."""
        batch = self._taken()
        count = len(batch.items)
        match batch.lane:
            case Lane.CENSUS:
                if self._piece is batch.items[0]:  # else another census was started meanwhile
                    self._advance_census()
            case Lane.ORDERED:
                for entry in self._ordered.leave():
                    self._leave(entry)
                self._stale_presence = False
                if batch.bulk:
                    self._pace_reports.gain()
            case Lane.HEARTBEATS:
                for host, beat in self._sent_beats:
                    if self._beats.get(host) is beat:
                        del self._beats[host]
                self._pace_beats.gain()
        self._pace.gain()
        return count

    def refused(self, now_s: float) -> None:
        """Called when the queue was full or did not answer: the batch stays, and goes again later and smaller."""
        batch = self._taken()
        if batch.lane is Lane.HEARTBEATS:
            self._pace_beats.back_off(now_s)
            return
        if self._stale_presence:  # only entries that the census overtook: it does not name later registrations
            self._stale_presence = False
            # plant: registered-meanwhile
            self._drop(under_way=True)
        self._ordered.stay()
        pace = self._pace_reports if batch.bulk else self._pace
        pace.back_off(now_s)
        self._idle_until_s = 0.0 if self._presence or self._beats or self._piece is not None else pace.not_before_s

    # Inside

    def _enter(self, host: str, item: bytes, is_presence: bool, now_s: float) -> None:
        self._idle_until_s = 0.0
        self._newest[host] = self._ordered.put(host, item, is_presence, now_s)
        self._bytes_all += len(item)

    def _leave(self, entry: Entry) -> None:
        self._bytes_all -= len(entry.item)
        if self._newest.get(entry.host) == entry.number:
            del self._newest[entry.host]
        if entry.is_presence:
            self._presence -= 1
            return
        self._items[entry.host] -= 1
        self._bytes[entry.host] -= len(entry.item)
        if not self._items[entry.host]:
            del self._items[entry.host], self._bytes[entry.host]

    def _drop_presence(self) -> None:
        """Drop all presence but that in the batch under way, which is dropped when that batch is refused. A census goes
        first from now on, so none is missed.
        """
        self._drop(under_way=False)
        self._stale_presence = any(entry.is_presence for entry in self._ordered.under_way)

    def _drop(self, *, under_way: bool) -> None:
        for entry in self._ordered.drop_presence(under_way=under_way):
            self._leave(entry)

    def _advance_census(self) -> None:
        self._piece = next(self._census, None)

    def _next_census(self) -> OutgoingBatch | None:
        return None if self._piece is None else OutgoingBatch(Lane.CENSUS, [self._piece], bulk=False)

    def _next_ordered(self, *, reports_may: bool) -> OutgoingBatch | None:
        """Return a batch of whatever waits; of presence alone while the queue takes no reports."""
        items_max = (self._pace_reports if reports_may else self._pace).items
        taken = self._ordered.take(items_max, self.bounds.batch_bytes, presence_only=not reports_may)
        if not taken:
            return None
        return OutgoingBatch(Lane.ORDERED, [entry.item for entry in taken], not all(each.is_presence for each in taken))

    def _next_beats(self, now_s: float) -> OutgoingBatch | None:
        self._sent_beats = []
        size = 0
        for host, beat in self._beats.items():
            size += len(beat.item)
            if len(self._sent_beats) >= self._pace_beats.items or (self._sent_beats and size > self.bounds.batch_bytes):
                break
            first = self._ordered.head(host)
            if first is None or beat.after < first:
                self._sent_beats.append((host, beat))
        if not self._sent_beats:
            return None
        if len(self._sent_beats) == len(self._beats):  # else there is no time to gather
            self._beats_from_s = now_s + GATHER_S
        return OutgoingBatch(Lane.HEARTBEATS, self._pack([beat.item for _, beat in self._sent_beats]), bulk=True)

    def _taken(self) -> OutgoingBatch:
        batch, self._batch = self._batch, None
        if batch is None:
            raise LocalError("the fate of a batch was told, and none was on its way")
        return batch
