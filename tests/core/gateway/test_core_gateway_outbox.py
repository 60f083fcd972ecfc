"""What waits for the events queue: order, bounds, conflation, and every fate of a batch."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from processes.core.errors import LocalError
from processes.core.gateway.outbox import (
    GATHER_S,
    WAIT_S_MAX,
    WAIT_S_MIN,
    Bounds,
    Lane,
    Outbox,
    OutgoingBatch,
    PutResult,
)


def sent(outbox: Outbox, now_s: float = 0.0) -> list[bytes]:
    """Everything, appended without a hitch."""
    items: list[bytes] = []
    while (batch := outbox.next(now_s)) is not None:
        items += batch.items
        outbox.appended()
    return items


def taken(outbox: Outbox, now_s: float = 0.0) -> OutgoingBatch:
    batch = outbox.next(now_s)
    assert batch is not None
    return batch


def test_reports_and_presence_go_in_order_and_heartbeats_behind_what_came_before_them() -> None:
    outbox = Outbox(Bounds())
    outbox.put_presence("a", b"up", 0)
    outbox.put_heartbeat("a", "c1", b"beat", 0)
    outbox.put("a", b"report", 0)
    outbox.put_presence("a", b"down", 0)
    assert sent(outbox) == [b"up", b"report", b"down", b"beat"]
    assert (len(outbox), outbox.bytes_waiting, outbox.oldest_s()) == (0, 0, None)


def test_a_heartbeat_does_not_overtake_its_registration_when_only_part_of_the_lane_went() -> None:
    outbox = Outbox(Bounds(batch_items=1))
    outbox.put("b", b"first", 0)
    outbox.put_presence("a", b"up", 0)
    outbox.put_heartbeat("a", "c1", b"beat", 0)
    outbox.put("b", b"last", 0)
    assert sent(outbox) == [b"first", b"up", b"beat", b"last"], "and is not starved either"


def test_the_newest_heartbeat_of_a_host_is_kept_and_keeps_its_place() -> None:
    outbox = Outbox(Bounds())
    for number in range(100):
        outbox.put_heartbeat("a", "c1", b"a%d" % number, number)
        outbox.put_heartbeat("b", "c2", b"b%d" % number, number)
    assert len(outbox) == 2
    assert outbox.oldest_s() == 0
    batch = taken(outbox)
    assert (batch.lane, batch.bulk, batch.items) == (Lane.HEARTBEATS, True, [b"a99", b"b99"])
    outbox.put_heartbeat("a", "c1", b"newer", 100)
    outbox.appended()
    assert sent(outbox, 100) == [b"newer"], "one that came while the older was on its way is not lost"


def test_a_heartbeat_goes_with_its_connection() -> None:
    outbox = Outbox(Bounds())
    outbox.put_heartbeat("a", "c2", b"new", 0)
    outbox.forget_heartbeat("a", "c1")
    assert len(outbox) == 1
    outbox.forget_heartbeat("a", "c2")
    assert sent(outbox) == []


@pytest.mark.parametrize(("bounds", "item"), [(Bounds(host_items=10), b"x"), (Bounds(host_bytes=100), b"x" * 10)])
def test_a_host_with_too_much_waiting_is_paused_then_refused_and_resumes_below_half(
    bounds: Bounds, item: bytes
) -> None:
    outbox = Outbox(bounds._replace(batch_items=1))
    answers = [outbox.put("a", item, 0) for _ in range(21)]
    assert answers == [PutResult.KEPT] * 9 + [PutResult.PAUSE] * 11 + [PutResult.REFUSED]
    assert outbox.put("b", item, 0) is PutResult.KEPT, "the others flow"
    resumed_at = None
    for gone in range(1, 22):
        outbox.next(0)
        outbox.appended()
        if resumed_at is None and outbox.may_resume("a"):
            resumed_at = gone
    assert resumed_at == 17, "below half of ten: four are left, and the other host had its turn"


def test_all_together_are_bounded_in_bytes() -> None:
    outbox = Outbox(Bounds(all_bytes=100))
    answers = [outbox.put(f"h{number}", b"x" * 10, 0) for number in range(21)]
    assert answers == [PutResult.KEPT] * 9 + [PutResult.PAUSE] * 11 + [PutResult.REFUSED]
    assert not outbox.may_resume("anyone")
    sent(outbox)
    assert outbox.may_resume("anyone")


def test_too_much_presence_makes_a_census_wanted_and_reports_stay() -> None:
    outbox = Outbox(Bounds(presence_items=10))
    outbox.put("a", b"report", 0)
    for _ in range(11):
        outbox.put_presence("a", b"up", 0)
    assert outbox.census_wanted
    assert len(outbox) == 1
    outbox.start_census(iter([b"c0", b"c1"]))
    assert not outbox.census_wanted
    assert sent(outbox) == [b"c0", b"c1", b"report"]


def test_a_census_goes_first_replaces_waiting_presence_and_another_census() -> None:
    outbox = Outbox(Bounds())
    outbox.put_presence("a", b"up", 0)
    outbox.put("a", b"report", 0)
    outbox.start_census(iter([b"old0", b"old1"]))
    assert taken(outbox).items == [b"old0"]
    outbox.start_census(iter([b"new0", b"new1"]))
    outbox.put_presence("a", b"down", 0)
    outbox.appended()
    assert sent(outbox) == [b"new0", b"new1", b"report", b"down"]


def test_presence_on_its_way_when_a_census_starts_does_not_come_after_it() -> None:
    """A registration from before the census, tried again behind it, would bring a host back that has gone since."""
    outbox = Outbox(Bounds())
    outbox.put_presence("a", b"up", 0)
    outbox.put("a", b"report", 0)
    taken(outbox)
    outbox.put_presence("a", b"down", 0)
    outbox.start_census(iter([b"census"]))
    outbox.refused(0)
    assert sent(outbox, now_s=10) == [b"census", b"report"]


def test_presence_that_did_arrive_before_a_census_is_gone_and_later_presence_is_safe_from_it() -> None:
    outbox = Outbox(Bounds())
    outbox.put_presence("a", b"up", 0)
    taken(outbox)
    outbox.start_census(iter([b"census"]))
    outbox.appended()
    outbox.put_presence("b", b"up-b", 0)
    assert taken(outbox).items == [b"census"]
    outbox.refused(0)
    assert sent(outbox, now_s=10) == [b"census", b"up-b"]


def test_a_refused_batch_stays_and_comes_again_later_and_smaller() -> None:
    outbox = Outbox(Bounds(batch_items=8))
    for number in range(8):
        outbox.put("a", b"%d" % number, 0)
    waits = []
    now_s = 0.0
    sizes = []
    for _ in range(8):
        sizes.append(len(taken(outbox, now_s).items))
        outbox.refused(now_s)
        due_s = outbox.due_s()
        assert due_s is not None
        waits.append(due_s - now_s)
        assert outbox.next(now_s) is None
        now_s = due_s
    assert sizes == [8, 4, 2, 1, 1, 1, 1, 1]
    assert waits == sorted(waits)
    assert max(waits) <= WAIT_S_MAX + 1e-9
    assert sent(outbox, now_s) == [b"%d" % number for number in range(8)]


def test_refused_heartbeats_do_not_hold_up_reports() -> None:
    outbox = Outbox(Bounds())
    outbox.put_heartbeat("a", "c", b"beat", 0)
    taken(outbox)
    outbox.refused(0)
    assert outbox.next(0) is None
    outbox.put("a", b"report", 0)
    assert outbox.due_s() == 0
    assert taken(outbox).items == [b"report"]
    outbox.appended()
    assert outbox.next(0) is None
    assert sent(outbox, now_s=1) == [b"beat"]


def test_a_batch_is_bounded_in_bytes_but_takes_one_item_of_any_size() -> None:
    outbox = Outbox(Bounds(batch_bytes=100))
    for size in (40, 40, 40, 500, 40):
        outbox.put("a", b"x" * size, 0)
    sizes = []
    while (batch := outbox.next(0)) is not None:
        sizes.append([len(item) for item in batch.items])
        outbox.appended()
    assert sizes == [[40, 40], [40], [500], [40]]


def test_the_fate_of_no_batch_cannot_be_told() -> None:
    with pytest.raises(LocalError):
        Outbox(Bounds()).appended()


@pytest.mark.parametrize("seed", range(50))
def test_a_random_life_loses_no_report_and_keeps_each_hosts_order(seed: int) -> None:
    """Against a slow, obvious list: would catch a batch taken off twice, a census that takes a report with it, a wrong
    count.
    """
    rng = random.Random(seed)
    outbox = Outbox(Bounds(host_items=6, presence_items=5, batch_items=4, batch_bytes=60))
    expected: list[bytes] = []
    got: list[bytes] = []
    now_s = 0.0

    def put() -> None:
        host = rng.choice("abc")
        item = b"r%s%d" % (host.encode(), len(expected))
        if outbox.put(host, item, now_s) is not PutResult.REFUSED:
            expected.append(item)

    def finish() -> None:
        batch = outbox.next(now_s)
        if batch is None:
            return
        for _ in range(rng.randrange(3)):
            rng.choice(changes)()
        if rng.random() < 0.5:
            outbox.appended()
            got.extend(item for item in batch.items if item.startswith(b"r"))
        else:
            outbox.refused(now_s)

    changes: list[Callable[[], None]] = [
        put,
        put,
        lambda: outbox.put_presence(rng.choice("abc"), b"p", now_s),
        lambda: outbox.put_heartbeat(rng.choice("ab"), rng.choice("xy"), b"h", now_s),
        lambda: outbox.start_census(iter([b"c"] * rng.randrange(3))),
    ]
    for _ in range(300):
        now_s += rng.random()
        rng.choice([*changes, finish, finish])()
    got.extend(item for item in sent(outbox, now_s + 100) if item.startswith(b"r"))
    for host in b"abc":
        assert [item for item in got if item[1] == host] == [item for item in expected if item[1] == host]
    assert len(got) == len(expected)
    assert (len(outbox), outbox.bytes_waiting, outbox.oldest_s()) == (0, 0, None)
    assert outbox.may_resume("a")
    assert outbox.may_resume("b")


def test_a_newer_heartbeat_does_not_overtake_what_came_between_it_and_the_one_it_replaces() -> None:
    """A foreign agent's `runs nothing` would come to the hub before the status of what it ran."""
    outbox = Outbox(Bounds(batch_items=1))
    outbox.put_heartbeat("a", "c1", b"runs pull", 0)
    outbox.put("b", b"other", 1)
    outbox.put("a", b"status of pull", 2)
    outbox.put_heartbeat("a", "c1", b"runs nothing", 3)
    outbox.put("b", b"another", 4)
    assert sent(outbox) == [b"other", b"status of pull", b"runs nothing", b"another"]


def test_the_first_heartbeat_goes_at_once_and_those_behind_it_together() -> None:
    outbox = Outbox(Bounds(), lambda rows: [b"+".join(rows)])
    outbox.put_heartbeat("a", "c1", b"a1", 100.0)
    assert not (outbox.due_s() or 0.0) > 100.0
    assert sent(outbox, 100.0) == [b"a1"]
    assert outbox.due_s() is None
    outbox.put_heartbeat("b", "c2", b"b1", 100.001)
    outbox.put_heartbeat("c", "c3", b"c1", 100.002)
    outbox.put_heartbeat("b", "c2", b"b2", 100.003)
    assert sent(outbox, 100.004) == []
    assert outbox.due_s() == 100.0 + GATHER_S
    outbox.put_heartbeat("d", "c4", b"d1", 100.005)
    assert outbox.due_s() == 100.0 + GATHER_S, "one more makes nobody look sooner"
    assert outbox.conflated == 1
    outbox.put("a", b"report", 100.006)
    assert sent(outbox, 100.007) == [b"report"], "nothing else waits for heartbeats"
    assert sent(outbox, 100.0 + GATHER_S) == [b"b2+c1+d1"]


def test_what_one_append_does_not_hold_is_not_gathered() -> None:
    outbox = Outbox(Bounds(batch_beats=2))
    for number in range(5):
        outbox.put_heartbeat(f"h{number}", "c", b"%d" % number, 100.0)
    assert sent(outbox, 100.0) == [b"0", b"1", b"2", b"3", b"4"]


def test_heartbeats_that_were_refused_go_again_with_what_came_since() -> None:
    outbox = Outbox(Bounds())
    outbox.put_heartbeat("a", "c1", b"old", 100.0)
    assert taken(outbox, 100.0).items == [b"old"]
    outbox.put_heartbeat("a", "c1", b"new", 100.01)
    outbox.put_heartbeat("b", "c2", b"b", 100.01)
    outbox.refused(100.02)
    assert sent(outbox, 100.02) == []
    assert sent(outbox, 100.02 + WAIT_S_MIN) == [b"new", b"b"]


def test_a_host_that_says_little_never_waits_behind_all_that_others_said() -> None:
    outbox = Outbox(Bounds(batch_items=10))
    for number in range(1000):
        outbox.put(f"loud{number % 5}", b"loud", 0.0)
    outbox.put("quiet", b"quiet", 0.0)
    first = [taken(outbox).items]
    outbox.appended()
    while b"quiet" not in first[-1]:
        first.append(taken(outbox).items)
        outbox.appended()
    assert len(first) <= 2, "within one turn of all hosts"


def test_while_the_queue_takes_no_reports_who_comes_and_goes_is_still_told_and_nothing_turns_in_vain() -> None:
    outbox = Outbox(Bounds())
    outbox.put("loud", b"report", 0.0)
    assert taken(outbox).bulk
    outbox.refused(0.0)
    assert outbox.next(0.01) is None
    assert outbox.due_s() == WAIT_S_MIN, "not now: the loop would turn and turn"
    outbox.put_presence("new", b"up", 0.02)
    assert outbox.due_s() == 0.0
    batch = taken(outbox, 0.02)
    assert (batch.items, batch.bulk) == ([b"up"], False)
    outbox.appended()
    outbox.put_presence("loud", b"down", 0.03)
    assert outbox.next(0.03) is None, "it does not overtake its own report"
    assert sent(outbox, 0.1) == [b"report", b"down"]
