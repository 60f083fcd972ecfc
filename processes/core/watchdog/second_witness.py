"""The second witness of a process whose pulse is doubted: does it acknowledge items of its queue? Pure.

Every second the canary puts a heartbeat into `events`, which comes out of every fanout's broadcasts, and its commands
go into the gateways' deliveries. So a process that works acknowledges an item within seconds. For `queues` the witness
is whether it answers at all. The agent reads no queue and has no second witness: a doubted pulse alone never kills it.

Units: *_s of CLOCK_MONOTONIC.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from processes.core.travels.messages import EVENTS, broadcasts_of, deliveries_of
from processes.core.travels.queue_calls import QueueStats


class QueueReading(NamedTuple):
    """One queue's acknowledgements: how many there were, and since when there was none though an item waits."""

    epoch: int
    acknowledged: int
    since_s: float | None


def follow(known: Mapping[str, QueueReading], seen: Iterable[QueueStats], now_s: float) -> dict[str, QueueReading]:
    """Return the readings with the newest answer of `queues` entered. Queues that are not in it are forgotten."""
    found: dict[str, QueueReading] = {}
    for queue in seen:
        before = known.get(queue.name)
        same = before is not None and (before.epoch, before.acknowledged) == (queue.epoch, queue.acknowledged)
        since_s = (
            None if not queue.items else before.since_s if same and before and before.since_s is not None else now_s
        )
        found[queue.name] = QueueReading(queue.epoch, queue.acknowledged, since_s)
    return found


def untouched_since_s(
    process: str, readings: Mapping[str, QueueReading], unanswered_since_s: float | None
) -> float | None:
    """Return since when the process takes nothing from its queue; None if it does, or if that is not known.

    `unanswered_since_s`: since when `queues` does not answer.
    """
    kind = process.partition(":")[0]
    if kind == "queues":
        return unanswered_since_s
    queue = {"hub": EVENTS, "gateway": deliveries_of(process), "fanout": broadcasts_of(process)}.get(kind)
    reading = readings.get(queue) if queue else None
    return reading.since_s if reading else None
