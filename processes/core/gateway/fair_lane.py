"""Entries of many hosts that wait: in order within each host, and hosts by turns, so that no host waits behind all that
another one said. Pure.

A host that says little is first: it waits behind no round of a thousand that have always more to say. So the few
reports of a command are gone at once, though each waits for what the hub answers to the one before. (As core/turns.py
does it for what is read.)
"""

from __future__ import annotations

from collections import Counter, deque
from itertools import chain, islice
from typing import Final, NamedTuple

# entries of one host that are first, in a round of those that have always more; guess: what one command says
FIRST_MAX: Final = 4


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
        # with at least one entry each, in the order of their turns: those that are first, and those that talk
        self._first: dict[str, deque[Entry]] = {}
        self._hosts: dict[str, deque[Entry]] = {}
        self._gone: Counter[str] = Counter()  # entries by host, in this round
        self._left_in_round = 0  # hosts that talk and had no turn in this round
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
        entries = self._entries(host)
        if entries is None:
            entries = self._order_of(host)[host] = deque()
        entries.append(entry)
        self._arrivals.append(entry)
        self._waiting.add(entry.number)
        return entry.number

    def head(self, host: str) -> int | None:
        """Return the number of the oldest entry of this host."""
        entries = self._entries(host)
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
        share = max(1, items_max // max(1, len(self._first) + len(self._hosts)))
        for host, entries in chain(self._first.items(), self._hosts.items()):
            most = max(share, FIRST_MAX - self._gone[host]) if host in self._first else share
            for entry in islice(entries, min(most, items_max - len(taken))):
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
        counts = Counter(entry.host for entry in gone)
        for host, count in counts.items():
            talks = host in self._hosts
            entries = (self._hosts if talks else self._first).pop(host)
            for _ in range(count):
                self._waiting.discard(entries.popleft().number)
            self._left_in_round -= talks
            self._gone[host] += count
            if entries:  # who talks goes on to talk until nothing of it waits, whatever round begins meanwhile
                (self._hosts if talks else self._order_of(host))[host] = entries
        if self._left_in_round <= 0:
            self._left_in_round = len(self._hosts)
            self._gone.clear()
        return gone

    def stay(self) -> None:
        """Called when what was under way did not arrive: it is given out again."""
        self._under_way = []

    def drop_presence(self, *, under_way: bool) -> list[Entry]:
        """Drop the presence that is under way, or all other presence. Return what was dropped."""
        first = Counter(entry.host for entry in self._under_way)
        dropped: list[Entry] = []
        for host, entries in [*self._first.items(), *self._hosts.items()]:
            gone = [
                entry for place, entry in enumerate(entries) if entry.is_presence and (place < first[host]) is under_way
            ]
            if not gone:
                continue
            dropped += gone
            numbers = {entry.number for entry in gone}
            self._waiting -= numbers
            order = self._first if host in self._first else self._hosts
            order[host] = deque(entry for entry in entries if entry.number not in numbers)
            if not order[host]:
                del order[host]
        if under_way:
            self._under_way = []
        return dropped

    def _entries(self, host: str) -> deque[Entry] | None:
        return self._first.get(host) or self._hosts.get(host)

    def _order_of(self, host: str) -> dict[str, deque[Entry]]:
        """Return where a host belongs that has something to say now."""
        return self._first if self._gone[host] < FIRST_MAX else self._hosts
