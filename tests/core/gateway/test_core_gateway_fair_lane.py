"""Whose entries go next: hosts that have always more to say, and some that say little."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processes.core.gateway.fair_lane import FIRST_MAX, FairLane

BYTES = 1 << 30


class Flooded:
    """A lane in which a thousand hosts have always more. Batches of 200."""

    def __init__(self) -> None:
        self.lane = FairLane()
        self.loud = [f"loud{number}" for number in range(1000)]
        for host in self.loud * 10:
            self.lane.put(host, b"x", False, 0.0)

    def batch(self) -> list[str]:
        """The hosts of the entries that go next; those that have always more say it."""
        self.lane.take(200, BYTES, presence_only=False)
        gone = [entry.host for entry in self.lane.leave()]
        for host in gone:
            if host.startswith("loud"):
                self.lane.put(host, b"x", False, 0.0)
        return gone


def test_who_says_little_is_in_the_next_batch_and_each_time_it_says_something() -> None:
    """As a command's reports come: one, and what the hub says to it, and the next. The bug it would catch: each waits
    for a turn of a thousand hosts.
    """
    flooded = Flooded()
    for _ in range(100):
        flooded.batch()
    for _ in range(FIRST_MAX):
        flooded.lane.put("quiet", b"x", False, 0.0)
        assert "quiet" in flooded.batch()


@pytest.mark.parametrize("drips", [1, 20])
def test_who_says_a_little_without_end_keeps_none_of_them_out_and_is_not_kept_out(drips: int) -> None:
    """The bug it would catch: a host that has never two entries waiting is first each time."""
    flooded = Flooded()
    for _ in range(100):
        flooded.batch()
    gone: Counter[str] = Counter()
    names = [f"drip{number}" for number in range(drips)]
    for _ in range(200):
        for name in names:
            if flooded.lane.head(name) is None:
                flooded.lane.put(name, b"x", False, 0.0)
        gone.update(flooded.batch())
    rounds = min(gone[host] for host in flooded.loud)
    assert rounds >= 25
    for name in names:
        assert rounds <= gone[name] <= (rounds + 2) * (FIRST_MAX + 1)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=80), st.integers(1, 20))
def test_all_that_was_put_goes_in_its_hosts_order_and_is_counted(said: list[tuple[str, bool]], items_max: int) -> None:
    """A `False` is a batch between. The bugs it would catch: a host is in both orders, or in none."""
    lane = FairLane()
    put: list[tuple[str, int]] = []
    gone: list[tuple[str, int]] = []

    def batch() -> None:
        lane.take(items_max, BYTES, presence_only=False)
        gone.extend((entry.host, entry.number) for entry in lane.leave())

    for host, is_put in said:
        if is_put:
            put.append((host, lane.put(host, b"x", False, 0.0)))
        else:
            batch()
        assert len(lane) == len(put) - len(gone)
    while len(lane):
        before = len(gone)
        batch()
        assert len(gone) > before
    for host in "abc":
        assert [each for each in gone if each[0] == host] == [each for each in put if each[0] == host]
    assert len(gone) == len(put)
