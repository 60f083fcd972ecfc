"""Who is connected: strangers and how many of them may stay, and one registered connection of a host, by table and by
random comings and goings.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processes.core.gateway.agent_connection import AgentConnection
from processes.core.gateway.roster import CONTESTED_S, Member, Roster
from processes.core.travels.messages import Token


def member(socket: int, host: str = "a") -> Member[int]:
    return Member(socket, AgentConnection(f"boot.{socket}", "gateway", Token(f"hash-{host}", host, "1"), "peer"))


@pytest.mark.parametrize(("sockets_max", "stay"), [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (20, 10)])
def test_strangers_have_half_of_the_room_and_the_one_that_dawdled_longest_goes(sockets_max: int, stay: int) -> None:
    """None of them is gone yet when the next one comes: many come in one pass of the loop, and each makes another go."""
    roster: Roster[int] = Roster(sockets_max)
    assert [roster.made(number) for number in range(stay)] == [None] * stay
    assert [roster.made(stay + number) for number in range(50)] == list(range(50))


def test_who_was_let_in_or_is_gone_is_no_stranger_and_never_dawdles() -> None:
    roster: Roster[str] = Roster(6)
    assert [roster.made(name) for name in "abc"] == [None] * 3
    roster.let_in("a")
    roster.gone("b")
    assert [roster.made(name) for name in "de"] == [None] * 2
    assert roster.made("f") == "c"
    assert roster.made("g") == "d"
    assert roster.sockets == set("acdefg"), "a dawdler is there until its socket is gone"
    roster.gone("c")
    roster.let_in("d")  # it is ending, and its request was read in the same pass
    assert roster.made("h") == "e"


@pytest.mark.parametrize(("made", "gone", "full"), [(2, 0, False), (3, 0, True), (3, 1, False), (4, 1, True)])
def test_it_is_full_with_one_socket_more_than_may_be_let_in(made: int, gone: int, full: bool) -> None:
    """The one more is who is told that there is no room."""
    roster: Roster[int] = Roster(2)
    for socket in range(made):
        roster.made(socket)
    for socket in range(gone):
        roster.gone(socket)
    assert roster.is_full is full


@pytest.mark.parametrize(
    ("at_s", "contested"),
    [
        ((0.0, 1.0), [False, False]),
        ((0.0, 1.0, 2.0), [False, False, True]),
        ((0.0, 30.0, CONTESTED_S), [False, False, True]),
        ((0.0, 30.0, CONTESTED_S + 0.1), [False, False, False]),
        ((0.0, 59.0, 61.0, 62.0), [False, False, False, True]),  # the first is forgotten, the last three count
    ],
)
def test_three_replacements_within_a_minute_are_contested(at_s: tuple[float, ...], contested: list[bool]) -> None:
    roster: Roster[int] = Roster(10)
    assert [roster.contested("a", 100.0 + each) for each in at_s] == contested
    assert not roster.contested("b", 100.0), "of another host"


def test_the_connection_that_was_replaced_takes_nothing_away_when_it_ends() -> None:
    roster: Roster[int] = Roster(10)
    old, new = member(1), member(2)
    assert roster.register(old) is None
    assert roster.register(new) == old
    roster.unregister(old.connection)
    assert (roster.find("boot.1"), roster.find("boot.2"), roster.of_host("a")) == (None, new, new)
    roster.unregister(old.connection)
    roster.unregister(new.connection)
    assert (len(roster), roster.of_host("a")) == (0, None)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ("make", "make", "make", "let in", "register", "unregister", "go", "go stranger", "go dawdler")
        ),
        st.integers(0, 30),
    ),
    max_size=120,
)


@given(st.integers(1, 12), STEPS)
def test_whoever_comes_and_goes_strangers_stay_bounded_and_a_host_has_one_connection(
    sockets_max: int, steps: Any
) -> None:
    """The bugs it would catch: one dawdler that is ended again and again while others fill the room, a let-in agent that
    is ended for a stranger, a host that is found by one name and not by the other.
    """
    roster: Roster[int] = Roster(sockets_max)
    half = max(sockets_max // 2, 1)
    number = 0
    strangers: list[int] = []  # that stay, oldest first
    dawdlers: list[int] = []  # ended, and not yet gone
    inside: dict[int, Member[int]] = {}
    registered: list[Member[int]] = []
    for step, which in steps:
        if step == "make":
            number += 1
            strangers.append(number)
            wanted = strangers.pop(0) if len(strangers) > half else None
            assert roster.made(number) == wanted
            if wanted is not None:
                dawdlers.append(wanted)
        elif step == "let in" and strangers:
            socket = strangers.pop(which % len(strangers))
            roster.let_in(socket)
            inside[socket] = member(socket, f"h{which % 3}")
        elif step == "register" and inside:
            newest = inside[list(inside)[which % len(inside)]]
            if newest in registered:
                continue
            host = newest.connection.host
            old = next((each for each in registered if each.connection.host == host), None)
            assert roster.register(newest) == old
            if old is not None:
                registered.remove(old)
                roster.unregister(old.connection)
            registered.append(newest)
        elif step == "unregister" and registered:
            roster.unregister(registered.pop(which % len(registered)).connection)
        elif step == "go" and inside:
            socket = list(inside)[which % len(inside)]
            gone = inside.pop(socket)
            roster.unregister(gone.connection)
            roster.gone(socket)
            registered = [each for each in registered if each is not gone]
        elif step == "go stranger" and strangers:
            roster.gone(strangers.pop(which % len(strangers)))
        elif step == "go dawdler" and dawdlers:
            roster.gone(dawdlers.pop(which % len(dawdlers)))
        assert roster.sockets == {*strangers, *dawdlers, *inside}
        assert roster.is_full == (len(roster.sockets) > sockets_max)
        assert len(strangers) <= half
        assert {each.connection.id for each in roster.registered()} == {each.connection.id for each in registered}
        assert list(roster.connections()) == [each.connection for each in roster.registered()]
        for each in registered:
            assert roster.find(each.connection.id) == roster.of_host(each.connection.host) == each
        assert len(roster) == len(registered)
