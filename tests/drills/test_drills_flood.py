"""A short flood of every kind at once over a whole installation; `bin/flood` is the long one."""

from __future__ import annotations

import asyncio

import pytest
from doubles.flood import AGENTS, HEARTBEATS, VIEWERS, flood
from doubles.house import House

KINDS = [*AGENTS, *HEARTBEATS, *VIEWERS]


@pytest.mark.house
def test_agents_and_viewers_that_flood_have_no_process_replaced_and_no_honest_host_cut_off() -> None:
    """How long commands take is not judged here but by bin/flood, on a machine that does nothing else."""
    with House() as house:
        seen = asyncio.run(flood(house, KINDS, agents=len(AGENTS) + len(HEARTBEATS), viewers=3, seconds=5.0))
        assert (seen.replaced, seen.unhealthy, seen.left) == ([], [], []), f"{seen.lines()}{house.logs()}"
        assert seen.took_s, "no command of an honest host was done"
        assert seen.sent_bytes > 1 << 20, "that was no flood"
        assert set(seen.ends) <= {"1008", "429", "open"}
