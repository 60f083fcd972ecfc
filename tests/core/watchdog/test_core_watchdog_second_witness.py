"""The second witness: who takes nothing from the queue that it reads, and who cannot be witnessed."""

from __future__ import annotations

import pytest

from processes.core.travels.messages import EVENTS, broadcasts_of, deliveries_of
from processes.core.travels.queue_calls import QueueStats
from processes.core.watchdog.second_witness import QueueReading, follow, untouched_since_s


def stats(items: int, acknowledged: int, epoch: int = 1, name: str = EVENTS) -> QueueStats:
    return QueueStats(name, epoch, items, 0, 100, 100, 0.0, items + acknowledged, 0, 0, acknowledged)


def after(*seen: QueueStats) -> float | None:
    """One look a second, from 100 s on: since when the queue is untouched."""
    readings: dict[str, QueueReading] = {}
    for second, queue in enumerate(seen):
        readings = follow(readings, [queue], 100.0 + second)
    return readings[EVENTS].since_s


def test_a_queue_that_waits_and_is_never_acknowledged_is_untouched_since_it_was_first_seen_so() -> None:
    assert after(stats(0, 5), stats(1, 5), stats(2, 5), stats(9, 5)) == 101.0


def test_an_acknowledgement_begins_anew_and_an_empty_queue_is_touched() -> None:
    assert after(stats(1, 5), stats(2, 6), stats(3, 6)) == 101.0
    assert after(stats(1, 5), stats(0, 6)) is None
    assert after(stats(3, 5), stats(0, 5)) is None


def test_a_queue_whose_memory_is_new_begins_anew() -> None:
    assert after(stats(1, 5), stats(1, 5, epoch=2)) == 101.0


def test_a_queue_that_is_not_told_of_is_forgotten() -> None:
    assert follow({EVENTS: QueueReading(1, 5, 100.0)}, [], 101.0) == {}


@pytest.mark.parametrize(
    ("process", "queue"),
    [
        ("hub", EVENTS), ("gateway", deliveries_of("gateway")), ("gateway:1", deliveries_of("gateway:1")),
        ("fanout:0", broadcasts_of("fanout:0")),
    ],
)  # fmt: skip
def test_each_process_is_witnessed_by_the_queue_that_it_reads(process: str, queue: str) -> None:
    readings = {queue: QueueReading(1, 5, 100.0), "another": QueueReading(1, 5, 50.0)}
    assert untouched_since_s(process, readings, 7.0) == 100.0
    assert untouched_since_s(process, {}, 7.0) is None


def test_queues_is_witnessed_by_its_answers_and_the_agent_by_nobody() -> None:
    readings = {EVENTS: QueueReading(1, 5, 100.0)}
    assert untouched_since_s("queues", readings, 7.0) == 7.0
    assert untouched_since_s("queues", readings, None) is None
    assert untouched_since_s("agent", readings, 7.0) is None
