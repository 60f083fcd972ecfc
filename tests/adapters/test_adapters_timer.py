"""A timer that is put off again and again, in a loop whose clock the test moves."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import cast

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from processes.adapters.timer import Timer, not_before


class PlayedHandle:
    """A timer of the loop."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.call, self.cancelled = call, False

    def cancel(self) -> None:
        self.cancelled = True


class PlayedLoop:
    """As much of an event loop as a timer asks of one. `made`: how many timers it was asked for."""

    def __init__(self) -> None:
        self.now_s, self.made = 0.0, 0
        self._handles: list[tuple[float, PlayedHandle]] = []

    def time(self) -> float:
        return self.now_s

    def call_at(self, at_s: float, call: Callable[[], None]) -> PlayedHandle:
        self.made += 1
        self._handles.append((at_s, PlayedHandle(call)))
        return self._handles[-1][1]

    def waiting(self) -> int:
        """How many timers would still call something."""
        return sum(not handle.cancelled for _, handle in self._handles)

    def go_to(self, now_s: float) -> None:
        """Lets the time pass, and calls what is due meanwhile."""
        while due := [each for each in self._handles if each[0] <= now_s]:
            first = min(due, key=lambda each: each[0])
            self._handles.remove(first)
            self.now_s = max(self.now_s, first[0])
            if not first[1].cancelled:
                first[1].call()
        self.now_s = now_s


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> PlayedLoop:
    played = PlayedLoop()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: played)
    return played


def test_it_is_over_once_at_the_time_that_was_set_last(loop: PlayedLoop) -> None:
    over: list[float] = []
    timer = Timer(lambda: over.append(loop.now_s))
    timer.set(5.0)
    loop.go_to(4.0)
    timer.set(5.0)  # put off
    loop.go_to(8.9)
    assert over == []
    loop.go_to(20.0)
    assert over == [9.001]
    timer.set(50.0)
    timer.set(1.0)  # sooner
    loop.go_to(100.0)
    assert over == [9.001, 21.001]


def test_to_put_it_off_a_thousand_times_makes_two_timers(loop: PlayedLoop) -> None:
    over: list[float] = []
    timer = Timer(lambda: over.append(loop.now_s))
    for number in range(1000):
        loop.go_to(number / 1000)
        timer.set(1.0)
    assert (loop.made, over) == (1, [])
    loop.go_to(3.0)
    assert (loop.made, over) == (2, [2.0])


def test_what_is_forgotten_or_closed_calls_nothing(loop: PlayedLoop) -> None:
    over: list[float] = []
    timer = Timer(lambda: over.append(loop.now_s))
    timer.set(1.0)
    timer.forget()
    loop.go_to(2.0)
    timer.set(1.0)
    timer.close()
    assert loop.waiting() == 0
    loop.go_to(9.0)
    assert over == []


def test_what_it_calls_may_set_it_again(loop: PlayedLoop) -> None:
    over: list[float] = []

    def again() -> None:
        over.append(loop.now_s)
        timer.set(1.0)

    timer = Timer(again)
    timer.set(1.0)
    loop.go_to(3.5)
    assert over == [1.001, 2.002, 3.003]


def test_under_uvloop_a_wait_is_one_call_of_its_loop_and_never_too_short() -> None:
    """The bug it would catch: uvloop's clock counts milliseconds, so that a timer finds itself a hair too early, and is
    called some hundred times until the clock has moved on.
    """
    looks = waits = 0

    async def wait(wait_s: float) -> None:
        nonlocal looks, waits
        loop = asyncio.get_running_loop()
        over, due_s = loop.create_future(), loop.time() + wait_s

        def look() -> None:
            nonlocal looks
            looks += 1
            if loop.time() < due_s:
                not_before(loop, due_s, look)
            else:
                over.set_result(None)

        not_before(loop, due_s, look)
        await over
        waits += 1

    async def claim() -> None:
        dice = random.Random(1)
        await asyncio.gather(*(wait(dice.choice((0.001, 0.01, 0.013, dice.random() / 20))) for _ in range(300)))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(claim())
    assert looks == waits == 300


@given(st.floats(0, 1e8))
def test_the_step_after_a_time_is_later_and_at_most_one_step(due_s: float) -> None:
    class Asked(PlayedLoop):
        def call_at(self, at_s: float, call: Callable[[], None]) -> PlayedHandle:
            self.now_s = at_s
            return PlayedHandle(call)

    asked = Asked()
    not_before(cast(asyncio.AbstractEventLoop, asked), due_s, lambda: None)
    assert due_s < asked.now_s <= due_s + 0.001 + 1e-7
    assert asked.now_s == round(asked.now_s * 1000) / 1000  # as uvloop's clock tells it, so that neither is before
