"""The queues alone: two asyncio clients use a real `python -m processes.queues` in a state folder of its own."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from doubles.deadline import WAIT_S

from processes.adapters.queue_link import QueueLink
from processes.core.values import Position

ITEM: Final = b"x" * 300  # a heartbeat with metrics
RATE: Final = 2_000  # items in a second …
BATCH: Final = 4  # … and in an append
FLOOD_BATCH: Final = 1_000
PINGS: Final = 200


async def paced(writing: QueueLink, reading: QueueLink, seconds: float) -> dict[str, Any]:
    """Measure from before an append until after the read that brings it, with a writer and a reader in one loop."""
    waits_s: list[float] = []
    started: dict[int, float] = {}
    total = int(seconds * RATE / BATCH)

    async def write() -> None:
        begin_s = time.perf_counter()
        for number in range(total):
            await asyncio.sleep(max(0.0, begin_s + number * BATCH / RATE - time.perf_counter()))
            started[number * BATCH] = time.perf_counter()
            assert (await writing.append("events", [ITEM] * BATCH)).accepted

    writer, position, seen = asyncio.create_task(write()), Position(0, 0), 0
    while seen < total * BATCH:
        batch = await reading.read("events", position)
        now_s, position = time.perf_counter(), batch.position
        waits_s += [now_s - started.pop(number) for number in range(seen, seen + len(batch.items)) if number in started]
        seen += len(batch.items)
        await reading.acknowledge("events", position)
    await writer
    cuts = statistics.quantiles(waits_s, n=100)
    return {"rate": RATE, "p50_ms": cuts[49] * 1e3, "p99_ms": cuts[98] * 1e3, "max_ms": max(waits_s) * 1e3}


async def flood(writing: QueueLink, reading: QueueLink, seconds: float) -> dict[str, Any]:
    """Measure how much goes through with both sides as fast as they can; items are acknowledged as they are read."""
    end_s, position = time.perf_counter() + seconds, (await reading.read("events", Position(0, 0), wait_s=0)).position

    async def write() -> None:
        while time.perf_counter() < end_s:
            if not (await writing.append("events", [ITEM] * FLOOD_BATCH)).accepted:
                await asyncio.sleep(0)

    writer, seen, begin_s = asyncio.create_task(write()), 0, time.perf_counter()
    while time.perf_counter() < end_s:
        batch = await reading.read("events", position)
        position, seen = batch.position, seen + len(batch.items)
        await reading.acknowledge("events", position)
    per_s = seen / (time.perf_counter() - begin_s)
    await writer
    return {"items_per_s": per_s, "item_bytes": len(ITEM)}


async def _measured(socket: Path, seconds: float) -> dict[str, Any]:
    writing, reading = QueueLink(socket, "gateway", timeout_s=10), QueueLink(socket, "hub", timeout_s=10)
    pings_s = sorted([await writing.ping() for _ in range(PINGS)])
    ping = {"p50_ms": pings_s[PINGS // 2] * 1e3, "p99_ms": pings_s[PINGS * 99 // 100] * 1e3}
    found = {
        "ping": ping,
        "paced": await paced(writing, reading, seconds),
        "flood": await flood(writing, reading, seconds),
    }
    await writing.close()
    await reading.close()
    return found


def measured(seconds: float) -> dict[str, Any]:
    """Start the queues, and measure them for so long with each load."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("FLEETHUB_")}
    with tempfile.TemporaryDirectory(prefix="fhq") as state:
        queues = subprocess.Popen([sys.executable, "-m", "processes.queues"], env={**clean, "FLEETHUB_STATE": state})
        try:
            link = Path(state) / "run" / "queues.sock"
            while not link.exists():
                assert queues.poll() is None, "the queues ended at once"
                time.sleep(0.01)
            return asyncio.run(asyncio.wait_for(_measured(link, seconds), 2 * seconds + WAIT_S))
        finally:
            queues.terminate()
            queues.wait()
