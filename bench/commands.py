"""Commands: how long until one is accepted, and until its end is seen, one at a time and at a rate."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from bench.heartbeats import SETTLE_S, USUAL_S, Hub
from bench.load import Load
from bench.meter import Meter

CONNECTIONS: Final = 33  # one for looking, 32 for asking: as many requests may be under way


async def measured(
    hub: Hub, agents: int, rate: float, seconds: float, *, beat_s: float = USUAL_S, settle_s: float = SETTLE_S
) -> dict[str, Any]:
    """Give commands of the operation `noop`, which each agent ends at once, and see their ends as an operator does.
    Each agent sends a heartbeat in `beat_s`.

    `rate` 0: one at a time, the next when the last was accepted.
    Shape: asked, accepted (202), refused (any other answer), ended (seen as succeeded). cpu_ms: of each command, by
    process, and `all`, with what they cost when nobody commands anything; generator_cpu_ms: that of the load itself;
    and what Meter tells.
    """
    async with (
        Load("agents", hub.agents_port, hub.tokens, agents, hub.dialect) as answering,
        Load("ask", hub.operators_port, hub.operator_token, CONNECTIONS, hub.dialect) as asking,
    ):
        await answering.ask(f"beat {beat_s}")
        await asyncio.sleep(settle_s)
        async with Meter(hub, answering, asking) as meter:
            found = await asking.ask(f"ask {rate} {seconds} {agents}", seconds)
    told, each = meter.told(), max(1, found["accepted"])
    return {
        "agents": agents,
        "rate": rate,
        **{name: value for name, value in found.items() if name != "cpu_s"},
        **told,
        "cpu_ms": {name: 1e3 * cores * meter.lasted_s / each for name, cores in told["cores"].items()},
        "generator_cpu_ms": 1e3 * found["cpu_s"] / each,
        "verdict": hub.verdict(),
    }
