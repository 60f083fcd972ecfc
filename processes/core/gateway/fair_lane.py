"""Entries of many hosts that wait: in order within each host, and hosts by turns, so that no host waits behind all that
another one said. Pure.
"""

from __future__ import annotations

from collections import Counter, deque
from itertools import islice
from typing import NamedTuple


class Entry(NamedTuple):
    """An item that waits. `number` grows with each entry of the lane; `since_s`: when it came."""

    number: int
    host: str
    item: bytes
    is_presence: bool
    since_s: float


class FairLane:
    """The lane of one gateway.

    Invariant: what is under way of a host are the first entries of its queue.
    Cost: an entry costs the same however many hosts and entries wait, but for `drop_presence`.
    """

    def __init__(self) -> None:
        self._hosts: dict[str, deque[Entry]] = {}  # with at least one entry each, in the order of their turns
        self._under_way: list[Entry] = []
        self._arrivals: deque[Entry] = deque()  # oldest first; some of them have left
        self._waiting: set[int] = set()  # numbers
        self._put = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def under_way(self) -> list[Entry]:
        """Return the entries that `take` gave out and of which neither `leave` nor `stay` was said."""
        return self._under_way

    def put(self, host: str, item: bytes, is_presence: bool, now_s: float) -> int:
        """Put an entry behind all of its host. Return its number."""
        self._put += 1
        entry = Entry(self._put, host, item, is_presence, now_s)
        self._hosts.setdefault(host, deque()).append(entry)
        self._arrivals.append(entry)
        self._waiting.add(entry.number)
        return entry.number

    def head(self, host: str) -> int | None:
        """Return the number of the oldest entry of this host."""
        entries = self._hosts.get(host)
        return entries[0].number if entries else None

    def oldest_s(self) -> float | None:
        """Return when the oldest entry came; None if none waits."""
        while self._arrivals and self._arrivals[0].number not in self._waiting:
            self._arrivals.popleft()
        return self._arrivals[0].since_s if self._arrivals else None

    def take(self, items_max: int, bytes_max: int, *, presence_only: bool) -> list[Entry]:
        """Give out entries of as many hosts as there is room for, some of each; one in any case, however large. They
        wait still, until `leave` or `stay`. `presence_only`: nothing that stands behind a report.
        """
        taken: list[Entry] = []
        size = 0
        share = max(1, items_max // max(1, len(self._hosts)))
        for entries in self._hosts.values():
            for entry in islice(entries, min(share, items_max - len(taken))):
                size += len(entry.item)
                if (presence_only and not entry.is_presence) or (taken and size > bytes_max):
                    break
                taken.append(entry)
            if len(taken) >= items_max or size > bytes_max:
                break
        self._under_way = taken
        return taken

    def leave(self) -> list[Entry]:
        """Called when what was under way has arrived: it is gone, and its hosts have their next turn behind all others.
        Return it.
        """
        gone, self._under_way = self._under_way, []
        for entry in gone:
            self._hosts[entry.host].popleft()
            self._waiting.discard(entry.number)
        for host in dict.fromkeys(entry.host for entry in gone):
            entries = self._hosts.pop(host)
            if entries:
                self._hosts[host] = entries
        return gone

    def stay(self) -> None:
        """Called when what was under way did not arrive: it is given out again."""
        self._under_way = []

    def drop_presence(self, *, under_way: bool) -> list[Entry]:
        """Drop the presence that is under way, or all other presence. Return what was dropped."""
        first = Counter(entry.host for entry in self._under_way)
        dropped: list[Entry] = []
        for host, entries in list(self._hosts.items()):
            gone = [
                entry for place, entry in enumerate(entries) if entry.is_presence and (place < first[host]) is under_way
            ]
            if not gone:
                continue
            dropped += gone
            numbers = {entry.number for entry in gone}
            self._waiting -= numbers
            kept = deque(entry for entry in entries if entry.number not in numbers)
            if kept:
                self._hosts[host] = kept
            else:
                del self._hosts[host]
        if under_way:
            self._under_way = []
        return dropped
