"""A few random kills under a stream of commands; `bin/chaos --kills 1000` is the long form."""

from __future__ import annotations

import asyncio

import pytest
from doubles.chaos import Chaos
from doubles.house import House


@pytest.mark.house
def test_random_kills_lose_nothing_and_double_nothing() -> None:
    with House() as house:
        summary = asyncio.run(Chaos(house, seed=5).run(kills=12))
        assert summary.ok, summary.line() + house.logs()
        assert summary.commands > 12, "the stream ran"
