"""Whose turn it is among connections that all have something to be read: fair queueing by bytes. Pure.

Each connection has a place, the bytes that were read of it; the lowest place is next. So all that talk without a pause
get the same, a share each by turns, and one that says little is behind none of them: its place is low. What it has not
used counts for CREDIT_BYTES at most, so nobody saves up for a flood, and who was silent for long keeps nobody out.

A thousand connections may talk without a pause, and a round of them take a second. An honest agent's command is four or
five messages, one after the other: each is read next, and waits for no round.

Source: start-time fair queueing (Goyal, Vin, Cheng 1996; its virtual time is `at` here), and the credit that fq_codel
gives to new flows (RFC 8290, section 4.2).
"""

from __future__ import annotations

import heapq
from typing import Final, Generic, TypeVar

from processes.core.budgets import SHARE_BYTES

CREDIT_BYTES: Final = 16 * 1024  # guess: a `register` with many facts, or the reports of a dozen commands
CALL_BYTES: Final = 64  # what a call without a place counts for: 256 of them have credit

Call = TypeVar("Call")


class Turns(Generic[Call]):
    """Calls that wait for their turn.

    Invariant: `at` never falls; no connection's place is more than SHARE_BYTES beyond it.
    Units: places and `at` are bytes of a connection that has talked from the beginning.
    """

    def __init__(self) -> None:
        self.at = 0  # the highest place that had a turn
        self._waiting: list[tuple[int, int, Call]] = []
        self._nobodys = 0  # the next place of calls that have none
        self._number = 0  # of calls: the first that came is the first of its place

    def __len__(self) -> int:
        return len(self._waiting)

    def place(self, last: int) -> int:
        """Return a connection's place now. `last`: what `used` returned, or `at` when the connection was new."""
        return max(last, self.at - CREDIT_BYTES)

    def used(self, place: int, size: int) -> int:
        """Called when so many bytes, SHARE_BYTES at most, are read of a connection at this place. Return its
        next place. (What is read while nobody waits need not be told.)
        """
        self.at = max(self.at, place)
        return place + size

    def put(self, call: Call, place: int | None = None) -> None:
        """Have a call wait at a connection's place. Calls without one, such as requests of who is nobody yet, have one
        together; past its credit they wait behind all that wait now.
        """
        if place is None:
            place = min(self.place(self._nobodys), self.at + SHARE_BYTES)
            self._nobodys = place + CALL_BYTES
        self._number += 1
        heapq.heappush(self._waiting, (place, self._number, call))

    def take(self) -> Call:
        """Remove the next call and return it. Raises: IndexError, if none waits."""
        place, _, call = heapq.heappop(self._waiting)
        self.at = max(self.at, place)
        return call
