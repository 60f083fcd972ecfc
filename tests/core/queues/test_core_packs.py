"""Packs: what a read finds in them is what the queue in memory finds, whatever was appended, acknowledged and lost."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processes.core.errors import RemoteError
from processes.core.queues import packs
from processes.core.queues.bounded_queue import BoundedQueue
from processes.core.queues.packs import END_BYTES, PACK_BYTES_MAX, PACK_ITEMS_MAX, Pack, QueueHead
from processes.core.travels.queue_calls import QueueLimits, QueueRefused
from processes.core.values import Position


class Kept(NamedTuple):
    """What stands in the database: the packs of all appends that were taken, and the head."""

    packs: list[Pack]
    queue: BoundedQueue

    def read(self, after: Position, items_max: int, bytes_max: int) -> object:
        head = QueueHead("events", self.queue.epoch, self.queue.newest.sequence, self.queue._acknowledged_sequence)
        lower = max(head.acknowledged, after.sequence if after.epoch == head.epoch else 0)
        try:
            return packs.batch(head, [p for p in self.packs if p.last > lower], after, items_max, bytes_max)
        except QueueRefused as error:
            return error.code, str(error)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(st.binary(max_size=6), max_size=7), st.booleans()),
        st.tuples(st.just("acknowledge"), st.integers(0, 30), st.none()),
    ),
    max_size=12,
)


@given(STEPS, st.integers(0, 3), st.integers(0, 60), st.integers(1, 9), st.integers(1, 30))
def test_a_read_of_packs_is_a_read_of_the_queue(
    steps: list[tuple[str, object, object]], epoch: int, sequence: int, items_max: int, bytes_max: int
) -> None:
    kept = Kept([], BoundedQueue("events", 2, QueueLimits(12, 40)))
    for what, value, lossy in steps:
        if what == "append":
            assert isinstance(value, list)
            appended = kept.queue.append(value, 0.0, lossy=bool(lossy))
            first = appended.position.sequence - len(value)
            if appended.accepted:
                kept.packs.extend(Pack(first + p.first, p.ends, p.data) for p in packs.packed(value))
        else:
            assert isinstance(value, int)
            kept.queue.acknowledge(Position(2, min(value, kept.queue.newest.sequence)))
    after = Position(epoch, sequence)
    try:
        expected: object = kept.queue.read(after, items_max, bytes_max)
    except QueueRefused as error:
        expected = error.code, str(error)
    assert kept.read(after, items_max, bytes_max) == expected


@given(st.lists(st.integers(0, PACK_BYTES_MAX * 2), max_size=12), st.integers(0, 3 * PACK_ITEMS_MAX))
def test_packs_keep_both_limits_and_all_items_in_order(sizes: list[int], small: int) -> None:
    items = [b"x" * size for size in sizes] + [b"%d" % number for number in range(small)]
    found = list(packs.packed(items))
    assert [item for pack in found for item in packs.items_of(pack)] == items
    assert [pack.first for pack in found] == [1, *(pack.last + 1 for pack in found)][: len(found)]
    for pack in found:
        count = len(pack.ends) // END_BYTES
        assert count == 1 or (count <= PACK_ITEMS_MAX and len(pack.data) <= PACK_BYTES_MAX)
    for one, other in itertools.pairwise(found):
        together = len(one.data) + len(packs.items_of(other)[0])
        assert len(one.ends) // END_BYTES == PACK_ITEMS_MAX or together > PACK_BYTES_MAX, "it would have fitted"


@pytest.mark.parametrize("pack", [Pack(1, b"", b"x"), Pack(1, b"\0\0\0\2", b"x"), Pack(1, b"\0\0\0\1", b"xy")])
def test_ends_that_do_not_belong_to_the_data_are_refused(pack: Pack) -> None:
    with pytest.raises(RemoteError):
        packs.items_of(pack)
