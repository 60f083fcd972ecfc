"""The wheel calls each item once when it is due, whatever the calls do, on a clock of the test's own."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, cast

import pytest

from processes.adapters.wheel import EARLY_S, SLOT_S, Wheel


class Loop:
    """The part of an event loop that a wheel uses. Its timers may be over a little too early, as uvloop's."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.timers: list[Timer] = []
        self.failed: list[str] = []

    def time(self) -> float:
        return self.now_s

    def call_at(self, due_s: float, call: Callable[[], None]) -> Timer:
        self.timers.append(Timer(due_s, call))
        return self.timers[-1]

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.failed.append(str(context["exception"]))

    def go_to(self, now_s: float) -> None:
        """Let the time come, and call what is due on the way, each at its time."""
        while due := [timer for timer in self.timers if timer.due_s - EARLY_S / 2 <= now_s and not timer.is_cancelled]:
            first = min(due, key=lambda timer: timer.due_s)
            self.timers.remove(first)
            self.now_s = max(self.now_s, first.due_s - EARLY_S / 2)
            first.call()
        self.timers = [timer for timer in self.timers if not timer.is_cancelled]
        self.now_s = max(self.now_s, now_s)


class Timer:
    def __init__(self, due_s: float, call: Callable[[], None]) -> None:
        self.due_s, self.call, self.is_cancelled = due_s, call, False

    def cancel(self) -> None:
        self.is_cancelled = True


def wheel(loop: Loop, call: Callable[[Any, float], None]) -> Wheel[Any]:
    return Wheel(call, cast(asyncio.AbstractEventLoop, loop))


@pytest.mark.parametrize("seed", range(50))
def test_each_is_called_once_and_in_time_and_who_was_removed_never(seed: int) -> None:
    dice, loop, due, slots = random.Random(seed), Loop(), dict[int, float](), dict[int, int]()
    called: list[int] = []

    def call(item: int, due_s: float) -> None:
        assert due[item] <= due_s <= due[item] + SLOT_S + EARLY_S, "as it was put in"
        assert due_s - EARLY_S <= loop.now_s < due_s + SLOT_S, "when it was due"
        called.append(item)

    it = wheel(loop, call)
    for number in range(200):
        due[number] = loop.now_s + dice.choice((0.0, 0.001, 0.5, 10.0)) * dice.random()
        slots[number] = it.put(number, due[number])
        if dice.random() < 0.3:
            gone = dice.randrange(number + 1)
            it.remove(gone, slots[gone])
            if gone not in called:
                del due[gone]
                called.append(gone)
        loop.go_to(loop.now_s + dice.random() * 0.1)
        assert len(loop.timers) <= 1, "one timer for all"
    loop.go_to(loop.now_s + 60.0)
    assert loop.failed == []
    assert sorted(called) == list(range(200))
    assert not loop.timers, "nothing to wait for"


def test_who_is_put_in_by_its_own_call_is_called_again_and_not_at_once() -> None:
    loop, called = Loop(), list[float]()

    def call(item: str, due_s: float) -> None:
        called.append(loop.now_s)
        assert len(called) < 1000, "the loop never comes to anything else"
        it.put(item, loop.now_s)

    it = wheel(loop, call)
    it.put("again", loop.now_s)
    loop.go_to(1001.0)
    assert len(called) == pytest.approx(1 / SLOT_S, abs=2)


def test_a_call_that_raises_or_removes_another_leaves_the_others_theirs() -> None:
    loop, called = Loop(), set[int]()
    slots: dict[int, int] = {}

    def call(item: int, _: float) -> None:
        called.add(item)
        for other in {1, 2, 3, 4} - called:
            it.remove(other, slots[other])
            called.add(other)
            break
        raise ValueError(str(item))

    it = wheel(loop, call)
    slots.update({item: it.put(item, 1000.01) for item in (1, 2, 3, 4)})
    loop.go_to(1001.0)
    assert called == {1, 2, 3, 4}
    assert len(loop.failed) == 2
