"""Who is connected: one registered connection of a host, by table and by random comings and goings."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processes.core.gateway.agent_connection import AgentConnection
from processes.core.gateway.roster import CONTESTED_S, Member, Roster
from processes.core.travels.messages import Token


def member(socket: int, host: str = "a") -> Member[int]:
    return Member(socket, AgentConnection(f"boot.{socket}", "gateway", Token(f"hash-{host}", host, "1"), "peer", 0.0))


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
    roster: Roster[int] = Roster()
    assert [roster.contested("a", 100.0 + each) for each in at_s] == contested
    assert not roster.contested("b", 100.0), "of another host"


@pytest.mark.parametrize(
    ("lives", "returned"),
    [
        ("A", "."),
        ("AAAA", "...."),  # a connection that breaks and comes back
        ("ABCDEFGHA", "........."),  # reboots, or a journal that is made anew; what was long ago is forgotten
        ("ABA", "..!"),
        ("ABAB", "..!!"),
        ("AABBA", "....!"),
        ("ABCABC", "...!!!"),  # two copies
    ],
)
def test_a_life_that_comes_back_after_another_one_shows_a_copied_machine(lives: str, returned: str) -> None:
    """The bug it would catch: two copies wait for half a minute each, so three replacements never come in a minute."""
    roster: Roster[int] = Roster()
    assert "".join(".!"[roster.returns("a", life)] for life in lives) == returned
    assert not roster.returns("b", "A"), "of another host"


def test_the_connection_that_was_replaced_takes_nothing_away_when_it_ends() -> None:
    roster: Roster[int] = Roster()
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
        st.sampled_from(("make", "make", "register", "unregister", "go")),
        st.integers(0, 30),
    ),
    max_size=120,
)


@given(STEPS)
def test_whoever_comes_and_goes_a_host_has_one_connection(steps: Any) -> None:
    """The bug it would catch: a host that is found by one name and not by the other."""
    roster: Roster[int] = Roster()
    inside: dict[int, Member[int]] = {}
    registered: list[Member[int]] = []
    for number, (step, which) in enumerate(steps):
        if step == "make":
            roster.sockets.add(number)
            inside[number] = member(number, f"h{which % 3}")
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
        assert roster.sockets == set(inside)
        assert {each.connection.id for each in roster.registered()} == {each.connection.id for each in registered}
        assert list(roster.connections()) == [each.connection for each in roster.registered()]
        for each in registered:
            assert roster.find(each.connection.id) == roster.of_host(each.connection.host) == each
        assert len(roster) == len(registered)
