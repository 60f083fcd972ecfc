"""Whose turn it is: random programs of connections that talk, and of some that say little."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processes.core.budgets import SHARE_BYTES
from processes.core.turns import CREDIT_BYTES, Turns

TALKERS = 1000


class Port:
    """Connections that are read by turns. A talker has always more to be read."""

    def __init__(self, talkers: int) -> None:
        self.turns: Turns[str] = Turns()
        self.places: dict[str, int] = {}
        self.read: dict[str, int] = {}
        self.unread: dict[str, int] = {}
        self.talkers = [f"talker {number}" for number in range(talkers)]
        for name in self.talkers:
            self.say(name, SHARE_BYTES)

    def say(self, name: str, size: int) -> None:
        """Something of a connection's came. It asks for a turn, unless it waits for one."""
        waits = self.unread.get(name, 0) > 0
        self.unread[name] = self.unread.get(name, 0) + size
        if not waits:
            self.turns.put(name, self.turns.place(self.places.setdefault(name, self.turns.at)))

    def turn(self) -> str:
        """The next turn's connection is read, and asks again for what is left."""
        name = self.turns.take()
        size = min(self.unread[name], SHARE_BYTES)
        self.places[name] = self.turns.used(self.turns.place(self.places[name]), size)
        self.read[name] = self.read.get(name, 0) + size
        left, self.unread[name] = self.unread[name] - size, 0
        if left or name in self.talkers:
            self.say(name, left or SHARE_BYTES)
        return name

    def round(self) -> None:
        """A turn for each talker."""
        for _ in self.talkers:
            self.turn()


def test_message_behind_message_of_one_that_says_little_is_read_next_beside_a_thousand_that_talk() -> None:
    """The bug it would catch: the second of two messages waits for a round of all."""
    port = Port(TALKERS)
    port.say("honest", 100)
    for _ in range(TALKERS + 1):  # it has connected just now: one round
        port.turn()
    assert port.read["honest"] == 100
    for _ in range(2):
        port.round()
    for _ in range(20):
        port.say("honest", 150)
        assert port.turn() == "honest"


def test_what_was_not_used_counts_for_the_credit_and_no_more() -> None:
    port = Port(10)
    port.say("late", 100)
    for _ in range(1000):
        port.round()
    port.say("late", 1 << 30)
    first = 0
    while port.turn() == "late":
        first += SHARE_BYTES
    assert CREDIT_BYTES - SHARE_BYTES <= first <= CREDIT_BYTES + SHARE_BYTES
    before = dict(port.read)
    for _ in range(11 * 100):
        port.turn()
    gained = [port.read[name] - before[name] for name in [*port.talkers, "late"]]
    assert max(gained) - min(gained) <= 2 * SHARE_BYTES


def test_who_talked_alone_for_long_is_not_behind_those_who_come() -> None:
    """While nobody waited it was read at once. The bug it would catch: an agent's place is all that it said in a year,
    and a flood's begin at nothing.
    """
    port = Port(1)
    for _ in range(10_000):
        port.places["talker 0"] = port.turns.used(port.turns.place(port.places["talker 0"]), SHARE_BYTES)
    port.turn()
    for number in range(100):
        port.talkers.append(f"flood {number}")
        port.say(f"flood {number}", SHARE_BYTES)
    turns = [port.turn() for _ in range(1010)]
    assert 9 <= turns.count("talker 0") <= 11


def test_calls_without_a_place_go_first_while_they_are_few_and_keep_nobody_out_when_they_come_without_end() -> None:
    """Two come in each turn. The bugs it would catch: who only connects waits for a round of those that flood; those
    that connect without end are all that is read, or keep out even who says little.
    """
    port = Port(100)
    port.say("honest", 100)
    for _ in range(20):
        port.round()
    asked: dict[str, int] = {}
    before: dict[str, int] = {}  # so many waited
    waited: list[int] = []
    honest_s: list[int] = []
    talked = 0
    for turn in range(10_000):
        if turn % 100 == 99:
            port.say("honest", 100)
            honest_s.append(turn)
        for _ in range(2):
            call = f"upgrade {len(asked)}"
            asked[call], before[call] = turn, len(port.turns)
            port.turns.put(call)
        if port.turns._waiting[0][2] in asked:
            call = port.turns.take()
            waited.append(turn - asked[call])
            assert waited[-1] <= before[call] + turn // 100, "behind those that waited, and who says little"
        else:
            name = port.turn()
            talked += name != "honest"
            assert name != "honest" or turn - honest_s[-1] <= 1 or turn < 1000
    assert max(waited[:100]) <= 60
    assert talked >= 400, "as many turns as upgrades, each of which has one"


CHANCES = st.lists(
    st.tuples(st.sampled_from(["turn", "turn", "turn", "a", "b", "c"]), st.integers(1, 3 * SHARE_BYTES)), max_size=300
)


@given(st.integers(1, 20), CHANCES)
def test_all_that_talk_get_the_same_whatever_the_others_do(talkers: int, chances: list[tuple[str, int]]) -> None:
    """And `at` never falls, and no place is further beyond it than a share. The bugs it would catch: one that comes and
    goes is first each time; a turn of one counts for another.
    """
    port = Port(talkers)
    for what, size in chances:
        before = port.turns.at
        if what != "turn":
            port.say(what, size)
        elif port.turns:
            port.turn()
        assert port.turns.at >= before
        assert max(port.places.values()) <= port.turns.at + SHARE_BYTES
    read = [port.read.get(name, 0) for name in port.talkers]
    assert max(read) - min(read) <= SHARE_BYTES
    rounds = min(read)
    for name in "abc":  # it got as much as each of those that talked, its credit aside
        assert port.read.get(name, 0) <= rounds + CREDIT_BYTES + 2 * SHARE_BYTES


@given(st.lists(st.integers(0, 10), min_size=1, max_size=50))
def test_of_one_place_the_first_that_came_is_next(places: list[int]) -> None:
    turns: Turns[int] = Turns()
    for number, place in enumerate(places):
        turns.put(number, place)
    order = [turns.take() for _ in places]
    assert order == [number for _, number in heapq.merge(*([(place, n)] for n, place in enumerate(places)))]
    with pytest.raises(IndexError):
        turns.take()
