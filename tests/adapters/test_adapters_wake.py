"""What a loop waits for between two turns."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from doubles.deadline import WAIT_S

from processes.adapters.wake import Wake

LONG_S = 10 * WAIT_S


def prove(claim: Callable[[Wake], Awaitable[None]]) -> None:
    async def run() -> None:
        await asyncio.wait_for(claim(Wake()), WAIT_S)

    asyncio.run(run())


def test_what_was_set_before_ends_the_next_wait_and_no_later_one() -> None:
    async def claim(wake: Wake) -> None:
        wake.set()
        wake.set()
        await wake.wait(LONG_S)
        waiting = asyncio.create_task(wake.wait(LONG_S))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiting.done()
        wake.set()
        await waiting

    prove(claim)


@pytest.mark.parametrize("waits_s", [[0.01], [LONG_S, 0.01], [0.01, 0.02], [0.02, LONG_S, 0.01]])
def test_a_wait_ends_with_its_time_whatever_the_waits_before_it_were(waits_s: list[float]) -> None:
    """The one timer may be of a longer wait, or of one that is over; neither ends this one late, or early."""

    async def claim(wake: Wake) -> None:
        loop = asyncio.get_running_loop()
        for wait_s in waits_s[:-1]:
            loop.call_soon(wake.set)
            await wake.wait(wait_s)
        began_s = loop.time()
        await wake.wait(waits_s[-1])
        assert loop.time() - began_s >= waits_s[-1] - 0.001

    prove(claim)


def test_others_get_their_turn_while_it_is_set_again_and_again() -> None:
    async def claim(wake: Wake) -> None:
        others: list[int] = []
        for number in range(3):
            wake.set()
            asyncio.get_running_loop().call_soon(others.append, number)
            await wake.wait(LONG_S)
        await wake.wait(0.0)
        assert others == [0, 1, 2]

    prove(claim)


def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    async def claim(wake: Wake) -> None:
        waiting = asyncio.create_task(wake.wait(LONG_S))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        wake.set()
        await wake.wait(LONG_S)

    prove(claim)
