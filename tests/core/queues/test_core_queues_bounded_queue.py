"""The bounded queue, state by state."""

from __future__ import annotations

import pytest

from processes.core.errors import Fenced
from processes.core.queues import bounded_queue
from processes.core.queues.bounded_queue import BoundedQueue, QueueSet
from processes.core.travels import queue_calls
from processes.core.travels.queue_calls import Batch, QueueLimits, QueueRefused, check_append, limits_of
from processes.core.values import Position

START = Position(0, 0)


def queue_of(items_max: int = 10, bytes_max: int = 1000, filled: int = 0) -> BoundedQueue:
    queue = BoundedQueue("events", 7, QueueLimits(items_max, bytes_max))
    queue.append([b"%d" % (number + 1) for number in range(filled)], 0.0)
    return queue


def read(queue: BoundedQueue, after: Position = START, items_max: int = 100, bytes_max: int = 1000) -> Batch:
    return queue.read(after, items_max, bytes_max)


def test_items_come_in_order_with_the_position_of_the_last() -> None:
    assert read(queue_of(filled=3)) == Batch([b"1", b"2", b"3"], Position(7, 3), False)


def test_reading_removes_nothing() -> None:
    queue = queue_of(filled=3)
    assert read(queue) == read(queue)


def test_a_read_goes_on_after_its_position() -> None:
    assert read(queue_of(filled=3), Position(7, 2)) == Batch([b"3"], Position(7, 3), False)


def test_a_read_at_the_end_finds_nothing_and_stands_still() -> None:
    assert read(queue_of(filled=3), Position(7, 3)) == Batch([], Position(7, 3), False)


def test_a_first_read_of_an_empty_queue_learns_the_epoch_without_a_gap() -> None:
    assert read(queue_of()) == Batch([], Position(7, 0), False)


def test_a_batch_is_cut_at_items_max_and_at_bytes_max() -> None:
    queue = queue_of(filled=9)
    assert len(read(queue, items_max=4).items) == 4
    assert len(read(queue, bytes_max=5).items) == 5
    assert len(read(queue, Position(7, 2), bytes_max=5).items) == 5


def test_an_item_larger_than_bytes_max_is_given_alone() -> None:
    queue = queue_of()
    queue.append([b"x" * 50, b"y"], 0.0)
    assert read(queue, bytes_max=10) == Batch([b"x" * 50], Position(7, 1), False)


def test_acknowledged_items_are_gone_and_make_room() -> None:
    queue = queue_of(items_max=3, filled=3)
    assert not queue.append([b"4"], 0.0).accepted
    queue.acknowledge(Position(7, 2))
    assert queue.append([b"4", b"5"], 0.0) == (True, Position(7, 5))
    assert read(queue) == Batch([b"3", b"4", b"5"], Position(7, 5), False)


def test_a_reader_older_than_the_acknowledgement_goes_on_from_there_without_a_gap() -> None:
    queue = queue_of(filled=5)
    queue.acknowledge(Position(7, 3))
    assert read(queue, Position(7, 1)) == Batch([b"4", b"5"], Position(7, 5), False)


@pytest.mark.parametrize("position", [Position(7, 2), Position(7, 0), Position(6, 5), Position(6, 99), START])
def test_an_acknowledgement_of_the_past_or_of_another_epoch_changes_nothing(position: Position) -> None:
    queue = queue_of(filled=5)
    queue.acknowledge(Position(7, 2))
    before = queue.stats(0.0)
    queue.acknowledge(position)
    assert queue.stats(0.0) == before


def test_a_position_not_reached_is_refused_in_reading_and_acknowledging() -> None:
    queue = queue_of(filled=2)
    for act in (lambda: read(queue, Position(7, 3)), lambda: queue.acknowledge(Position(7, 3))):
        with pytest.raises(QueueRefused, match="stands at 2 of epoch 7, not at 3"):
            act()


def test_a_reader_of_another_epoch_meets_a_gap_then_everything_that_is_there() -> None:
    assert read(queue_of(filled=2), Position(6, 99)) == Batch([b"1", b"2"], Position(7, 2), True)


def test_a_reader_of_another_epoch_meets_its_gap_in_an_empty_queue_too_and_once() -> None:
    queue = queue_of()
    first = read(queue, Position(6, 99))
    assert first == Batch([], Position(7, 0), True)
    assert read(queue, first.position) == Batch([], Position(7, 0), False)


def test_a_full_queue_refuses_the_whole_append_and_counts_it() -> None:
    queue = queue_of(items_max=3, filled=2)
    assert queue.append([b"a", b"b"], 0.0) == (False, Position(7, 2))
    assert read(queue).items == [b"1", b"2"]
    assert queue.stats(0.0).refused == 2
    assert queue.append([b"a"], 0.0) == (True, Position(7, 3))


def test_bytes_are_a_limit_of_their_own() -> None:
    queue = queue_of(bytes_max=10)
    assert queue.append([b"x" * 6, b"y" * 4], 0.0).accepted
    assert not queue.append([b"z"], 0.0).accepted
    queue.acknowledge(Position(7, 1))
    assert queue.append([b"z" * 6], 0.0).accepted
    assert queue.size_bytes == 10


def test_bulk_may_not_touch_the_last_tenth_of_items_nor_of_bytes() -> None:
    queue = queue_of(items_max=10, filled=9)
    assert not queue.append([b"x"], 0.0, bulk=True).accepted
    assert queue.append([b"x"], 0.0).accepted
    queue = queue_of(bytes_max=100)
    assert queue.append([b"x" * 90], 0.0, bulk=True).accepted
    assert not queue.append([b"y"], 0.0, bulk=True).accepted
    assert queue.append([b"y" * 10], 0.0).accepted


def test_a_lossy_append_to_a_full_queue_burns_its_numbers_and_counts_them() -> None:
    queue = queue_of(items_max=3, filled=3)
    assert queue.append([b"x", b"y"], 0.0, lossy=True) == (False, Position(7, 5))
    stats = queue.stats(0.0)
    assert (stats.dropped, stats.refused, stats.items, stats.appended) == (2, 0, 3, 3)


def test_a_hole_is_met_as_a_gap_between_two_batches_exactly_once() -> None:
    queue = queue_of(items_max=3, filled=3)
    queue.append([b"x"], 0.0, lossy=True)
    queue.acknowledge(Position(7, 1))
    queue.append([b"5"], 0.0)
    before = read(queue)
    assert before == Batch([b"2", b"3"], Position(7, 3), False)
    behind = read(queue, before.position)
    assert behind == Batch([b"5"], Position(7, 5), True)
    assert read(queue, behind.position) == Batch([], Position(7, 5), False)


def test_a_hole_with_nothing_behind_it_is_met_at_once() -> None:
    queue = queue_of(items_max=3, filled=3)
    queue.append([b"x"], 0.0, lossy=True)
    gap = read(queue, Position(7, 3))
    assert gap == Batch([], Position(7, 4), True)
    assert read(queue, gap.position) == Batch([], Position(7, 4), False)


def test_a_hole_is_met_by_a_reader_that_had_everything_before_it_acknowledged() -> None:
    queue = queue_of(items_max=3, filled=3)
    queue.append([b"x"], 0.0, lossy=True)
    queue.acknowledge(Position(7, 3))
    queue.append([b"5"], 0.0)
    assert read(queue, Position(7, 3)) == Batch([b"5"], Position(7, 5), True)


def test_who_reads_from_whatever_is_there_meets_no_gap_for_what_was_lost_before() -> None:
    queue = queue_of(items_max=3, filled=3)
    queue.append([b"x"], 0.0, lossy=True)
    queue.acknowledge(Position(7, 3))
    assert read(queue) == Batch([], Position(7, 4), False)
    queue.append([b"5"], 0.0)
    assert read(queue) == Batch([b"5"], Position(7, 5), False)


def test_two_readers_both_see_everything() -> None:
    """Nothing is shared out; the acknowledgement of either lets go for both, and is no gap to the other."""
    queue = queue_of(filled=4)
    one, other = read(queue, items_max=2), read(queue, items_max=1)
    assert (one.items, other.items) == ([b"1", b"2"], [b"1"])
    queue.acknowledge(one.position)
    assert read(queue, other.position) == Batch([b"3", b"4"], Position(7, 4), False)


def test_the_age_is_that_of_the_oldest_kept_item() -> None:
    queue = queue_of()
    queue.append([b"a", b"b"], 10.0)
    queue.append([b"c"], 20.0)
    assert queue.stats(25.0).oldest_age_s == 15.0
    queue.acknowledge(Position(7, 1))
    assert queue.stats(25.0).oldest_age_s == 15.0
    queue.acknowledge(Position(7, 2))
    assert queue.stats(25.0).oldest_age_s == 5.0
    queue.acknowledge(Position(7, 3))
    assert queue.stats(25.0).oldest_age_s == 0.0


@pytest.mark.parametrize("name", ["events", "broadcasts/fanout", "deliveries/gateway:12"])
def test_the_queues_of_the_table_are_known(name: str) -> None:
    assert limits_of(name) in {QueueLimits(100_000, 64 << 20, 250), QueueLimits(20_000, 32 << 20)}


@pytest.mark.parametrize(
    "name",
    [
        "",
        "event",
        "events/x",
        "eventsx",
        "broadcasts",
        "broadcasts/",
        "deliveries/a/b",
        "deliveries/" + "x" * 65,
        "deliveries/a\n",
    ],
)
def test_any_other_name_is_refused(name: str) -> None:
    with pytest.raises(QueueRefused) as refused:
        limits_of(name)
    assert refused.value.code == "unknown_queue"


def test_there_are_at_most_200_queues() -> None:
    queues = QueueSet(1)
    for number in range(200):
        queues.named(f"broadcasts/{number}")
    queues.named("broadcasts/0")
    with pytest.raises(QueueRefused) as refused:
        queues.named("events")
    assert refused.value.code == "too_many_queues"


def test_bulk_is_taken_while_little_is_kept_and_never_stands_long_before_what_is_not_bulk() -> None:
    queue = BoundedQueue("events", 7, QueueLimits(1000, 1 << 20, 10))
    assert queue.append([b"x"] * 9, 0.0, bulk=True).accepted
    assert queue.append([b"x"] * 50, 0.0, bulk=True).accepted, "less than ten were kept"
    assert not queue.append([b"x"], 0.0, bulk=True).accepted
    assert queue.append([b"request"], 0.0).accepted
    queue.acknowledge(Position(7, 51))
    assert queue.append([b"x"], 0.0, bulk=True).accepted, "nine are kept again"
    assert not queue.append([b"x"], 0.0, bulk=True).accepted


def test_whatever_one_append_may_carry_fits_every_empty_queue_even_in_bulk() -> None:
    """Otherwise a caller would try the same append for ever."""
    for _, limits in queue_calls.LIMITS:
        assert limits.items_max * 9 // 10 >= queue_calls.APPEND_ITEMS_MAX
        assert limits.bytes_max * 9 // 10 >= queue_calls.APPEND_BYTES_MAX


def test_an_append_over_its_limits_is_refused_with_the_numbers() -> None:
    check_append([b""] * queue_calls.APPEND_ITEMS_MAX)
    with pytest.raises(QueueRefused, match="10001 items in one append, at most 10000"):
        check_append([b""] * (queue_calls.APPEND_ITEMS_MAX + 1))
    with pytest.raises(QueueRefused, match="bytes in one append"):
        check_append([bytes(queue_calls.APPEND_BYTES_MAX), b"x"])


def test_a_hub_of_an_older_epoch_is_fenced_whoever_spoke_of_the_newer() -> None:
    queues = QueueSet(1)
    assert queues.admit("hub", 3)
    assert not queues.admit("hub", 3)
    assert queues.admit("gateway:0", 4)
    with pytest.raises(Fenced) as fenced:
        queues.admit("hub", 3)
    assert (fenced.value.own_epoch, fenced.value.newest_epoch) == (3, 4)
    assert queues.admit("hub", 5)


def test_nobody_but_the_hub_is_fenced_for_having_seen_less() -> None:
    queues = QueueSet(1)
    queues.admit("hub", 3)
    assert not queues.admit("gateway", 0)
    assert not queues.admit("fanout:1", 2)


def test_an_append_that_its_caller_gave_up_is_refused_behind_a_later_one_of_the_same_client() -> None:
    queues = QueueSet(1)
    queues.admit_append(7, 1)
    queues.admit_append(7, 3)
    for number in (2, 3):
        with pytest.raises(QueueRefused, match=f"append {number} comes after append 3") as refused:
            queues.admit_append(7, number)
        assert refused.value.code == "given_up"
    queues.admit_append(8, 1)
    queues.admit_append(0, 0)
    queues.admit_append(0, 0)


def test_the_clients_remembered_are_bounded_and_the_longest_silent_is_forgotten_first() -> None:
    queues = QueueSet(1)
    queues.admit_append(1, 5)
    queues.admit_append(2, 5)
    queues.admit_append(1, 6)
    for client in range(3, bounded_queue.CLIENTS_MAX + 2):
        queues.admit_append(client, 1)
    with pytest.raises(QueueRefused):
        queues.admit_append(1, 6)
    queues.admit_append(2, 1)
