"""Heartbeats: what they cost each process, how many are shown, and how long each takes to be shown."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any, Final, Protocol

from bench.load import Load
from bench.meter import Measurable, Meter

DRAIN_S: Final = 2.0  # after the last heartbeat, at most: what is shown later counts as lost
LOOK_S: Final = 0.05
QUIET_S: Final = 1.0  # before the first one: for so long nothing was shown that was sent before
QUIET_S_MAX: Final = 30.0  # guess: a hub that still shows something then has too much to do for what follows
SETTLE_S: Final = 3.0  # after all have connected: what that leads to is no part of what is measured
USUAL_S: Final = 5.0  # how often an agent sends one while nothing is measured


class Hub(Measurable, Protocol):
    """Something that agents and subscribers connect to, and that can be measured."""

    agents_port: int
    operators_port: int
    tokens: Path
    operator_token: Path
    dialect: str

    def verdict(self) -> str:
        """Return what it says of itself; empty: it says nothing."""
        ...


async def _quiet(watch: Load, quiet_s: float) -> None:
    """Wait until nothing more is shown of what was sent, for QUIET_S_MAX at most."""
    rows, until_s = -1, time.monotonic() + QUIET_S_MAX
    while (seen := (await watch.ask("so far"))["rows"]) != rows and time.monotonic() < until_s:
        rows = seen
        await asyncio.sleep(quiet_s)


async def _drained(watch: Load, due: int) -> None:
    """Wait until all is shown that was due, for DRAIN_S at most."""
    until_s = time.monotonic() + DRAIN_S
    while time.monotonic() < until_s:
        seen = await watch.ask("so far")
        if seen["shown"] + seen["conflated"] >= due:
            return
        await asyncio.sleep(LOOK_S)


async def measure(
    hub: Hub, agents: Load, watch: Load, rate: float, seconds: float, *, quiet_s: float = QUIET_S
) -> dict[str, Any]:
    """Send so many heartbeats in a second for so long; 0: as many as the sockets take.

    Shape: cores and what else Meter tells; generator and watch: the cores of the load itself. Of the heartbeats that
    were due: `shown` with their own value, `conflated` (a later one of the same host was shown), and `lost` (neither);
    backwards: older ones that were shown after a newer one; held: those that could not be sent, because the hub did not
    read; cpu_ms_each: of all processes for each that was sent, with what they cost when nobody sends.
    """
    await agents.ask("beat 0")
    await agents.ask("once")
    await _quiet(watch, quiet_s)
    await watch.ask("begin")
    async with Meter(hub, agents, watch) as meter:
        sent = await agents.ask(f"send {rate} {seconds}", seconds)
    await _drained(watch, sent["due"])
    seen = await watch.ask("end")
    told = meter.told()
    return {
        "rate": rate,
        "seconds": sent["seconds"],
        **told,
        "cpu_ms_each": 1e3 * told["cores"]["all"] * meter.lasted_s / max(1, sent["sent"]),
        "generator_cores": sent["cpu_s"] / meter.lasted_s,
        "watch_cores": seen["cpu_s"] / meter.lasted_s,
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
        return {"agents": count, **await measure(hub, agents, watch, rate, seconds, quiet_s=min(settle_s, QUIET_S))}
