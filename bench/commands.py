"""Commands: how long until one is accepted, and until its end is seen, one at a time and at a rate."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from bench.heartbeats import SETTLE_S, USUAL_S, Hub
from bench.load import Load

CONNECTIONS: Final = 33  # one for looking, 32 for asking: as many requests may be under way


async def measured(hub: Hub, agents: int, rate: float, seconds: float, settle_s: float = SETTLE_S) -> dict[str, Any]:
    """Give commands of the operation `noop`, which each agent ends at once, and see their ends as an operator does.

    `rate` 0: one at a time, the next when the last was accepted.
    Shape: asked, accepted (202), refused (any other answer), ended (seen as succeeded). cpu_ms: of each command, by
    process, and `all`; generator_cpu_ms: that of the load itself.
    """
    async with (
        Load("agents", hub.agents_port, hub.tokens, agents, hub.dialect) as answering,
        Load("ask", hub.operators_port, hub.operator_token, CONNECTIONS, hub.dialect) as asking,
    ):
        await answering.ask(f"beat {USUAL_S}")
        await asyncio.sleep(settle_s)
        before, began_s = hub.costs(), time.monotonic()
        found = await asking.ask(f"ask {rate} {seconds} {agents}", seconds)
        after, lasted_s = hub.costs(), time.monotonic() - began_s
    used_s = {name: after[name].cpu_s - before[name].cpu_s for name in before.keys() & after.keys()}
    each = max(1, found["accepted"])
    return {
        "agents": agents,
        "rate": rate,
        **{name: value for name, value in found.items() if name != "cpu_s"},
        "cores": sum(used_s.values()) / lasted_s,
        "cpu_ms": {name: 1e3 * used / each for name, used in (("all", sum(used_s.values())), *sorted(used_s.items()))},
        "generator_cpu_ms": 1e3 * found["cpu_s"] / each,
        "verdict": hub.verdict(),
    }
