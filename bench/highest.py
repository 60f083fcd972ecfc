"""The highest rate of heartbeats at which each is still shown with its own value, and soon."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from typing import Any, Final

from bench.heartbeats import QUIET_S, SETTLE_S, USUAL_S, Hub, measure
from bench.load import Load

LAG_MS: Final = 500.0  # the 99th percentile, at most
FIRST: Final = 1000.0  # heartbeats in a second
CLOSE: Final = 1.1  # the search ends when what held and what did not are so near to each other
STEPS_MAX: Final = 20


def rates(first: float = FIRST, close: float = CLOSE) -> Generator[float, bool, None]:
    """Yield one rate after the other; send whether it held. Doubled while it holds, then halved between the highest
    that held and the lowest that did not (as their geometric mean, to 100).

    The first that does not hold may be the very first: then it is halved until one holds.
    """
    held, broke, rate = 0.0, float("inf"), first
    for _ in range(STEPS_MAX):
        if (yield rate):
            held = max(held, rate)
        else:
            broke = min(broke, rate)
        if held and broke / held <= close:
            return
        rate = held * 2 if broke == float("inf") else round(((held or broke / 4) * broke) ** 0.5, -2)
        if rate in (held, broke) or rate < 1:
            return


def holds(found: dict[str, Any], lag_ms: float) -> bool:
    """Return whether every heartbeat that was due was shown with its own value, soon, and nobody was disturbed."""
    return bool(
        found["shown"] >= found["due"] > 0
        and found["lag_p99_ms"] <= lag_ms
        and not found["disconnected"]
        and not found["replaced"]
        and found["verdict"] in ("", "ok")
    )


async def measured(
    hub: Hub, agents: int, seconds: float, lag_ms: float, *, first: float = FIRST, settle_s: float = SETTLE_S
) -> dict[str, Any]:
    """Search the highest rate of so many agents. Shape: tried: by rate, what came of it."""
    began_s, best, tried = time.monotonic(), 0.0, {}
    async with (
        Load("watch", hub.operators_port, hub.operator_token, 1, hub.dialect) as watch,
        Load("agents", hub.agents_port, hub.tokens, agents, hub.dialect) as load,
    ):
        search = rates(first)
        rate: float | None = next(search)
        while rate is not None:
            await load.ask(f"beat {USUAL_S}")
            await asyncio.sleep(settle_s)
            found = await measure(hub, load, watch, rate, seconds, quiet_s=min(settle_s, QUIET_S))
            does_hold = holds(found, lag_ms)
            best = max(best, rate) if does_hold else best
            wanted = ("due", "shown", "lag_p50_ms", "lag_p99_ms", "elsewhere_cores", "verdict")
            tried[f"{rate:.0f}"] = {"holds": does_hold, **{name: found[name] for name in wanted}}
            try:
                rate = search.send(does_hold)
            except StopIteration:
                rate = None
    return {"agents": agents, "highest_per_s": best, "tried": tried, "took_s": time.monotonic() - began_s}
