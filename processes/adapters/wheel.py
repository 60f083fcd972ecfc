"""A timer for very many: what is due within the same part of a second is called together."""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

SLOT_S: Final = 1 / 32  # what is due in it is called at its end
EARLY_S: Final = 0.001  # by which a loop's timer may be over too early: uvloop counts whole milliseconds

Item = TypeVar("Item", bound=Hashable)


class Wheel(Generic[Item]):
    """Calls `call` with each item when it is due, and with the time when that was.

    Cost: one timer of the loop for all, at most 1 / SLOT_S calls of it in a second, and an item takes some 40 bytes. A
    timer of the loop for each takes 600 bytes, and is a pass of the loop of its own.
    """

    def __init__(self, call: Callable[[Item, float], None], loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._call = call
        self._loop = loop or asyncio.get_running_loop()
        self._slots: dict[int, set[Item]] = {}
        self._order: list[int] = []  # the same slots, as a heap
        self._called = 0  # the last slot that was
        self._timer: asyncio.TimerHandle | None = None

    def put(self, item: Item, due_s: float) -> int:
        """Have the item called within SLOT_S of `due_s`, give or take EARLY_S. Return its slot, which is never 0.

        Units: due_s in seconds of the loop's clock.
        """
        slot = max(math.ceil(due_s / SLOT_S), self._called + 1)
        items = self._slots.get(slot)
        if items is None:
            items = self._slots[slot] = set()
            heapq.heappush(self._order, slot)
            if self._order[0] == slot:
                self._arm()
        items.add(item)
        return slot

    def remove(self, item: Item, slot: int) -> None:
        """Let the item not be called any more, if it was not."""
        self._slots.get(slot, set()).discard(item)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._order[0] * SLOT_S, self._turn) if self._order else None

    def _turn(self) -> None:
        """Call all that are due. One that raises is the loop's to report, and stops no other."""
        self._timer = None
        now_s = self._loop.time() + EARLY_S
        while self._order and self._order[0] * SLOT_S <= now_s:
            self._called = heapq.heappop(self._order)
            items = self._slots[self._called]
            while items:  # each may have others removed
                try:
                    self._call(items.pop(), self._called * SLOT_S)
                except Exception as error:
                    self._loop.call_exception_handler({"message": "a call of a wheel failed", "exception": error})
            del self._slots[self._called]
        self._arm()
