"""Connected agents: what each costs in memory, how long it takes until all are there, and until all are back."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from bench.heartbeats import SETTLE_S, USUAL_S, Hub
from bench.load import Load
from bench.meter import Meter


async def measured(hub: Hub, agents: int, settle_s: float = SETTLE_S) -> dict[str, Any]:
    """Connect so many agents at once, cut them all, and have them come back. Memory is that of all processes.

    Shape: pulse_gap_ms: the longest time between two turns of each process, while all came back.
    Units: MB of memory, kB for each connection; seconds until all are registered.
    """
    before = hub.costs()
    async with Load("agents", hub.agents_port, hub.tokens, agents, hub.dialect) as load:
        connected_s = load.connected_s
        await load.ask(f"beat {USUAL_S}")
        await asyncio.sleep(settle_s)
        after = hub.costs()
        async with Meter(hub, load) as meter:
            back = await load.ask("cut", agents / RATE_MIN)
    told = meter.told()
    memory = {name: after[name].memory_mb for name in after}
    grown_mb = sum(memory.values()) - sum(each.memory_mb for each in before.values())
    return {
        "agents": agents,
        "connected_s": connected_s,
        "back_s": back["seconds"],
        "memory_mb": {"all": sum(memory.values()), **memory},
        "kb_each": grown_mb * 1024 / agents,
        "pulse_gap_ms": told["pulse_gap_ms"],
        "incidents": told["incidents"],
        "verdict": hub.verdict(),
    }


RATE_MIN: Final = 100.0  # agents that register in a second; a hub that takes fewer is given up
