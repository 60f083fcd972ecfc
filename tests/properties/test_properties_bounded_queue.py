"""The bounded queue against a slow, obvious oracle, on random programs.

The bugs that it would catch: an item lost, doubled or out of order at the edge of a batch; a hole read over, met twice
or not at all; bytes miscounted after an acknowledgement in the middle of an append.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from processes.core.queues.bounded_queue import BoundedQueue
from processes.core.travels.queue_calls import QueueLimits
from processes.core.values import Position

ITEMS_MAX, BYTES_MAX = 8, 40

appends = st.tuples(
    st.just("append"), st.lists(st.binary(max_size=15), max_size=5), st.booleans(), st.booleans()
)  # fmt: skip
reads = st.tuples(
    st.just("read"), st.integers(1, 6), st.integers(1, 30), st.sampled_from(["own", "zero", "old", "foreign"])
)
acknowledges = st.tuples(st.just("acknowledge"), st.integers(0, 10))
restarts = st.tuples(st.just("restart"))
programs = st.lists(st.one_of(appends, appends, reads, reads, acknowledges, restarts), max_size=60)


class Oracle:
    """Every number ever given, with its item or None (burned); all questions are answered by walking over all of
    them.
    """

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.numbered: list[bytes | None] = []  # number N is at N - 1
        self.acknowledged = 0

    def kept(self) -> list[tuple[int, bytes]]:
        return [(n, item) for n, item in enumerate(self.numbered, 1) if n > self.acknowledged and item is not None]

    def append(self, items: list[bytes], bulk: bool, lossy: bool) -> bool:
        together = [item for _, item in self.kept()] + items
        tenths = 9 if bulk else 10
        if len(together) > ITEMS_MAX * tenths // 10 or len(b"".join(together)) > BYTES_MAX * tenths // 10:
            if lossy:
                self.numbered += [None] * len(items)
            return False
        self.numbered += items
        return True

    def read(self, after: Position, items_max: int, bytes_max: int) -> tuple[list[bytes], Position, bool]:
        if after.epoch == self.epoch:
            number, gap = max(after.sequence, self.acknowledged), False
        else:
            kept = self.kept()
            number, gap = kept[0][0] - 1 if kept else len(self.numbered), after.epoch != 0
        found: list[bytes] = []
        while number < len(self.numbered):
            item = self.numbered[number]
            if item is None:
                if found:
                    break
                gap = True
            else:
                if len(found) == items_max or (found and len(b"".join([*found, item])) > bytes_max):
                    break
                found.append(item)
            number += 1
        return found, Position(self.epoch, number), gap


@settings(max_examples=400)
@given(programs)
def test_the_queue_is_the_slow_list(program: list[tuple[object, ...]]) -> None:
    """Every answer of every call is the oracle's, and both count the same after each."""
    epoch = 1
    queue, oracle = BoundedQueue("q", epoch, QueueLimits(ITEMS_MAX, BYTES_MAX)), Oracle(epoch)
    own = old = Position(0, 0)
    for step in program:
        match step:
            case ("append", list() as items, bool() as bulk, bool() as lossy):
                appended = queue.append(items, 0.0, bulk=bulk, lossy=lossy)
                assert appended == (oracle.append(items, bulk, lossy), Position(epoch, len(oracle.numbered)))
            case ("read", int() as items_max, int() as bytes_max, str() as where):
                after = {"own": own, "zero": Position(0, 0), "old": old, "foreign": Position(epoch + 1000, 5)}[where]
                batch = queue.read(after, items_max, bytes_max)
                assert batch == oracle.read(after, items_max, bytes_max)
                old, own = own, batch.position
            case ("acknowledge", int() as back):
                position = Position(own.epoch, max(0, own.sequence - back))
                queue.acknowledge(position)
                if position.epoch == epoch:
                    oracle.acknowledged = max(oracle.acknowledged, position.sequence)
            case ("restart",):
                epoch += 1
                queue, oracle = BoundedQueue("q", epoch, QueueLimits(ITEMS_MAX, BYTES_MAX)), Oracle(epoch)
        kept = [item for _, item in oracle.kept()]
        stats = queue.stats(0.0)
        assert (stats.items, stats.bytes) == (len(kept), len(b"".join(kept)))
        assert stats.items <= ITEMS_MAX
        assert stats.bytes <= BYTES_MAX
        assert stats.appended == stats.acknowledged + stats.items
        assert stats.dropped == oracle.numbered.count(None)


@settings(max_examples=200)
@given(programs, st.integers(1, 5))
def test_the_batches_of_a_following_reader_tile_the_history(
    program: list[tuple[object, ...]], acknowledge_every: int
) -> None:
    """Every accepted item comes once and in order; a gap is told by the batch that reaches over burned numbers, and by
    no other.
    """
    queue, numbered = BoundedQueue("q", 1, QueueLimits(ITEMS_MAX, BYTES_MAX)), list[bytes | None]()
    position, reads_done = Position(1, 0), 0
    drain = [("read", 3, 20, "own")] * 100
    for step in [*program, *drain]:
        match step:
            case ("append", list() as items, bool() as bulk, bool() as lossy):
                accepted = queue.append(items, 0.0, bulk=bulk, lossy=lossy).accepted
                numbered += items if accepted else [None] * len(items) if lossy else []
            case ("read", int() as items_max, int() as bytes_max, _):
                batch = queue.read(position, items_max, bytes_max)
                span = numbered[position.sequence : batch.position.sequence]
                burned = span.count(None)
                assert span == [None] * burned + batch.items  # what is lost is told first, then the items behind it
                assert batch.gap == (burned > 0)
                position, reads_done = batch.position, reads_done + 1
                if reads_done % acknowledge_every == 0:
                    queue.acknowledge(position)
    assert position == Position(1, len(numbered))
