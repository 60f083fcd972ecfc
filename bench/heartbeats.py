"""Heartbeats: what they cost each process, how many are shown, and how long each takes to be shown."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any, Final, Protocol

from bench.installation import Cost
from bench.load import Load

DRAIN_S: Final = 2.0  # after the last heartbeat: what is shown later counts as lost
QUIET_S: Final = 1.0  # before the first one: what was sent before is shown by then, or counts as conflated
SETTLE_S: Final = 3.0  # after all have connected: what that leads to is no part of what is measured
USUAL_S: Final = 5.0  # how often an agent sends one while nothing is measured


class Hub(Protocol):
    """Something that agents and subscribers connect to, and that can be measured."""

    agents_port: int
    operators_port: int
    tokens: Path
    operator_token: Path
    dialect: str

    def costs(self) -> dict[str, Cost]:
        """Return what each process has cost so far."""
        ...

    def verdict(self) -> str:
        """Return what it says of itself; empty: it says nothing."""
        ...


async def measure(hub: Hub, agents: Load, watch: Load, rate: float, seconds: float) -> dict[str, Any]:
    """Send so many heartbeats in a second for so long; 0: as many as the sockets take.

    Shape: cores: of CPU by process, and `all`; generator and watch: those of the load itself. Of the heartbeats that
    were due: `shown` with their own value, `conflated` (a later one of the same host was shown), and `lost` (neither);
    backwards: older ones that were shown after a newer one; held: those that could not be sent, because the hub did not
    read.
    """
    await agents.ask("beat 0")
    await asyncio.sleep(QUIET_S)
    await watch.ask("begin")
    before, began_s = hub.costs(), time.monotonic()
    sent = await agents.ask(f"send {rate} {seconds}", seconds)
    after, lasted_s = hub.costs(), time.monotonic() - began_s
    await asyncio.sleep(DRAIN_S)
    seen = await watch.ask("end")
    cores = {name: (after[name].cpu_s - before[name].cpu_s) / lasted_s for name in before.keys() & after.keys()}
    return {
        "rate": rate,
        "seconds": sent["seconds"],
        "cores": {"all": sum(cores.values()), **cores},
        "generator_cores": sent["cpu_s"] / lasted_s,
        "watch_cores": seen["cpu_s"] / lasted_s,
        "due": sent["due"],
        "sent": sent["sent"],
        "held": sent["held"],
        "shown": seen["shown"],
        "conflated": seen["conflated"],
        "backwards": seen["backwards"],
        "lost": sent["due"] - seen["shown"] - seen["conflated"],
        "shown_per_s": seen["shown"] / sent["seconds"],
        "lag_p50_ms": seen["p50_ms"],
        "lag_p99_ms": seen["p99_ms"],
        "lag_max_ms": seen["max_ms"],
        "late_p99_ms": sent["late_p99_ms"],
        "frames": seen["frames"],
        "bytes": seen["bytes"],
        "disconnected": sent["lost_connections"] + seen["lost_connections"],
        "replaced": sorted(name for name in before.keys() & after.keys() if after[name].cpu_s < before[name].cpu_s),
        "verdict": hub.verdict(),
    }


async def measured(
    hub: Hub, count: int, rate: float, seconds: float, *, subscribers: int = 1, settle_s: float = SETTLE_S
) -> dict[str, Any]:
    """Connect so many agents and subscribers, and measure once."""
    async with (
        Load("watch", hub.operators_port, hub.operator_token, subscribers, hub.dialect) as watch,
        Load("agents", hub.agents_port, hub.tokens, count, hub.dialect) as agents,
    ):
        await agents.ask(f"beat {USUAL_S}")
        await asyncio.sleep(settle_s)
        return {"agents": count, **await measure(hub, agents, watch, rate, seconds)}
