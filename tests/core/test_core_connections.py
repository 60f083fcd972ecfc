"""Which connections a port has: who goes when there are too many, who is refused, and whose address it is, by table and
by random comings and goings against a plain list.
"""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processes.core.connections import (
    KEPT_MAX,
    Connections,
    Crowd,
    PortLimits,
    agents_limits,
    client_address,
    is_within,
    operators_limits,
    plain,
    site_of,
)

ROOMS = (1, 2, 3, 4, 5, 8, 20, 33, 64, 100, 1000, 3584, 4096, 19_488, 65_024)
TRUSTED = [ipaddress.ip_network(each) for each in ("10.0.0.0/8", "127.0.0.1", "fd00::/8")]


def port(**limits: int) -> Connections[int]:
    wide = {"all_max": 100, "silent_max": 4, "strangers_max": 4, "known_max": 6, "kept": 2, "client_max": 3}
    return Connections(PortLimits(**{**wide, **limits}))


@pytest.mark.parametrize("most", [1, 2, 3, 4, 5, 10, 100])
def test_of_a_crowd_of_one_address_the_oldest_goes_past_half_of_it(most: int) -> None:
    crowd: Crowd[int] = Crowd(most)
    half = max(most // 2, 1)
    assert [crowd.add(number, "a") for number in range(half)] == [[]] * half
    assert [crowd.add(half + number, "a") for number in range(50)] == [[number] for number in range(50)]
    assert len(crowd) == half


def test_a_crowd_of_one_address_crowds_out_itself_and_nobody_else() -> None:
    """The bug it would catch: the oldest of all goes, so whoever floods ends everybody else's."""
    crowd: Crowd[str] = Crowd(10)
    assert [crowd.add(f"b{number}", "b") for number in range(3)] == [[]] * 3
    assert [crowd.add(f"c{number}", "c") for number in range(3)] == [[]] * 3
    gone = [each for number in range(1000) for each in crowd.add(f"a{number}", "a")]
    assert gone == [f"a{number}" for number in range(996)], "four of it have room, and these are the newest"
    assert {"b0", "b1", "b2", "c0", "c1", "c2", "a999"} <= set(crowd._address)


def test_of_a_crowd_of_as_many_addresses_the_oldest_goes() -> None:
    crowd: Crowd[int] = Crowd(10)
    gone = [each for number in range(1000) for each in crowd.add(number, f"address {number}")]
    assert gone == list(range(990))


def test_an_address_that_has_fewer_than_others_loses_none_of_its_own_to_them() -> None:
    crowd: Crowd[str] = Crowd(6)
    for key in ("a1", "a2", "a3", "b1", "b2", "c1"):
        assert crowd.add(key, key[0]) == []
    assert crowd.add("c2", "c") == ["a1"]
    assert crowd.add("c3", "c") == ["c1"], "it has most now"
    assert crowd.oldest() == "b1", "all have as many: the address that has had so many for longest"


ADDRESSES = ("a", "a", "a", "a", "b", "b", "c", "d")
STEPS = st.lists(st.tuples(st.sampled_from(("add", "add", "add", "remove", "shrink")), st.integers(0, 30)), max_size=80)


@given(st.integers(1, 9), STEPS)
def test_a_crowd_does_what_a_plain_list_does(most: int, steps: Any) -> None:
    """The bugs it would catch: a rank that is not kept, an address that is forgotten, one that goes twice, a newcomer
    that goes for itself.
    """
    crowd: Crowd[int] = Crowd(most)
    plain: list[tuple[int, str]] = []  # oldest first
    for number, (step, which) in enumerate(steps):
        if step == "shrink":
            crowd.most = most = 1 + which % 9
        elif step == "remove":
            wanted = which % (number + 1)
            assert crowd.remove(wanted) == any(key == wanted for key, _ in plain)
            plain = [each for each in plain if each[0] != wanted]
        else:
            address = ADDRESSES[which % len(ADDRESSES)]
            gone = crowd.add(number, address)
            plain.append((number, address))
            assert number not in gone
            for key in gone:
                of = {each: sum(a == each for _, a in plain) for _, each in plain}
                victim = dict(plain)[key]
                too_many = of[address] > max(most // 2, 1) and key == gone[0]
                assert victim == address if too_many else of[victim] == max(of.values())
                assert key == next(k for k, a in plain if a == victim), "not the oldest of its address"
                plain.remove((key, victim))
            assert len(plain) <= max(most, 1)
        assert {key for key, _ in plain} == set(crowd._address)
        assert len(crowd) == len(plain)
        assert (crowd.oldest() is None) == (not plain)


@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("limits_of", [agents_limits, operators_limits])
def test_the_parts_of_a_port_fit_into_its_room(room: int, limits_of: Any) -> None:
    limits = limits_of(room, 8)
    assert min(limits.silent_max, limits.strangers_max, limits.known_max) >= 1
    assert 0 <= limits.kept < limits.known_max or room < 8
    if limits_of is operators_limits and room >= 4:
        assert limits.silent_max + limits.strangers_max + limits.known_max <= room
    if room >= 4096:
        assert limits.kept == KEPT_MAX


@pytest.mark.parametrize("room", [room for room in ROOMS if room >= 4])
def test_silent_ones_have_half_of_the_agents_port_at_most_and_never_nothing(room: int) -> None:
    agents: Connections[int] = Connections(agents_limits(room, 1))
    for number in range(min(room, 500)):
        for each in agents.accepted(number, f"address {number}"):
            agents.gone(each)
        agents.claimed(number, f"host {number}", is_kept_for=True)
    known = agents.known
    assert known == min(room, 500, agents.limits.known_max)
    for number in range(1000, 1000 + room // 2 + 1000):  # past their half by a thousand
        for each in agents.accepted(number, f"stranger {number}"):
            agents.gone(each)
        assert number in agents.silent, "the newest is never refused"
        assert len(agents.silent) <= max(room // 2, 1)
        assert len(agents) <= room
    assert agents.known == known, "no known one was ended for a silent one"


def test_what_was_told_to_end_has_its_descriptor_until_it_is_gone() -> None:
    """The bug it would catch: of many that come in one pass of the loop, those told to end are not counted."""
    agents = port(all_max=6, silent_max=4)
    ended = [each for number in range(10) for each in agents.accepted(number, f"address {number}")]
    assert ended == [0, 1, *range(6, 10)], "past the room the newcomer itself goes"
    agents.gone(0)
    assert agents.accepted(10, "x") == [2]


def test_what_was_told_to_end_cannot_become_anything_any_more() -> None:
    agents = port(silent_max=1)
    assert agents.accepted(1, "a") == []
    assert agents.accepted(2, "b") == [1]
    assert agents.spoke(1, "a") == []
    assert not agents.claimed(1, "web1")
    assert (len(agents.strangers), agents.known, len(agents)) == (0, 0, 2)


def test_whoever_speaks_leaves_the_silent_ones_and_neither_crowds_out_the_other() -> None:
    operators = port()
    for number in range(4):
        operators.accepted(number, f"address {number}")
        assert operators.spoke(number, f"address {number}") == []
    assert [operators.accepted(number, f"address {number}") for number in range(10, 14)] == [[]] * 4
    assert operators.spoke(10, "address 10") == [0], "of the strangers, not of the silent ones"
    assert operators.accepted(14, "address 14") == []
    assert operators.accepted(15, "address 15") == [11], "of the silent ones"


def test_a_stranger_behind_a_proxy_counts_for_whom_it_speaks() -> None:
    operators = port(strangers_max=4)
    for number in range(3):
        operators.accepted(number, "proxy")
        operators.spoke(number, f"client {number}")
    operators.spoke(0, "client 1")
    operators.accepted(3, "proxy")
    operators.spoke(3, "client 3")
    operators.accepted(4, "proxy")
    assert operators.spoke(4, "client 4") == [1], "the client with two has the older one ended"


@pytest.mark.parametrize(
    ("taken", "client", "kept", "wanted"),
    [
        ((), "a", False, True),
        (("a", "a"), "a", False, True),
        (("a", "a", "a"), "a", False, False),
        (("a", "a", "a"), "b", False, True),
        (("a", "a", "b", "b"), "c", False, False),  # the last two are kept
        (("a", "a", "b", "b"), "c", True, True),
        (("a", "a", "b", "b", "c"), "c", True, True),
        (("a", "a", "b", "b", "c", "c"), "d", True, False),
        (("a", "a", "a"), "a", True, False),  # no client is without a bound
    ],
)
def test_a_client_has_so_many_and_the_last_are_kept(
    taken: tuple[str, ...], client: str, kept: bool, wanted: bool
) -> None:
    operators = port(silent_max=90)
    for number, each in enumerate(taken):
        operators.accepted(number, f"address {number}")
        assert operators.claimed(number, each, is_kept_for=True)
    operators.accepted(99, "x")
    assert operators.claimed(99, client, is_kept_for=kept) is wanted
    assert (99 in operators.silent) is not wanted
    assert operators.of_client(client) == taken.count(client) + wanted


def test_a_connection_that_changes_its_client_counts_once_and_a_gone_one_not_at_all() -> None:
    operators = port()
    operators.accepted(1, "a")
    assert all(operators.claimed(1, client) for client in ("x", "x", "y", "x"))
    assert (operators.of_client("x"), operators.of_client("y"), operators.known) == (1, 0, 1)
    operators.spoke(1, "a")
    assert (operators.of_client("x"), operators.known, len(operators.strangers)) == (0, 0, 1)
    assert operators.claimed(1, "x", client_max=1)
    operators.accepted(2, "a")
    assert not operators.claimed(2, "x", client_max=1)
    operators.gone(1)
    operators.gone(1)
    assert (operators.of_client("x"), operators.known, len(operators)) == (0, 0, 1)


LIVES = st.lists(
    st.tuples(st.sampled_from(("accept", "accept", "accept", "speak", "claim", "go", "go ended")), st.integers(0, 40)),
    max_size=150,
)


@given(
    st.builds(
        PortLimits, st.integers(4, 30), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(0, 3),
        st.integers(1, 4),
    ),
    LIVES,
)  # fmt: skip
def test_whoever_comes_and_goes_every_bound_holds(limits: PortLimits, lives: Any) -> None:
    """The bugs it would catch: a connection in two crowds, one that is told to end twice, a client's count that
    drifts, a known one that is ended, more in all than there is room for.
    """
    found: Connections[int] = Connections(limits)
    state: dict[int, str] = {}  # silent, stranger, ended, or a client
    for number, (step, which) in enumerate(lives):
        address, client = f"a{which % 5}", f"c{which % 4}"
        picked = list(state)[which % len(state)] if state else -1
        ended: list[int] = []
        if step == "accept":
            ended = found.accepted(number, address)
            if len(state) < limits.all_max:
                state[number] = "silent"
            else:
                assert ended == [number]
                ended = []
        elif step == "speak":
            ended = found.spoke(picked, address)
            if state.get(picked, "ended") != "ended":
                state[picked] = "stranger"
        elif step == "claim" and found.claimed(picked, client, is_kept_for=which % 3 == 0):
            assert state[picked] != "ended"
            state[picked] = client
        elif step == "go" and state:
            found.gone(picked)
            del state[picked]
        elif step == "go ended":
            for key in [key for key, what in state.items() if what == "ended"]:
                found.gone(key)
                del state[key]
        for key in ended:
            assert state[key] in {"silent", "stranger"}
            state[key] = "ended"
        kinds = list(state.values())
        clients = [what for what in kinds if what.startswith("c")]
        assert len(found) == len(state) <= limits.all_max
        assert len(found.silent) == kinds.count("silent") <= limits.silent_max
        assert len(found.strangers) == kinds.count("stranger") <= limits.strangers_max
        assert found.known == len(clients) <= limits.known_max
        for each in clients:
            assert found.of_client(each) == clients.count(each) <= limits.client_max


@pytest.mark.parametrize(
    ("address", "site"),
    [
        ("192.0.2.7", "192.0.2.7"), ("::ffff:192.0.2.7", "192.0.2.7"), ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8:0:0:ffff::2", "2001:db8::/64"), ("2001:db8:0:1::1", "2001:db8:0:1::/64"), ("::1", "::/64"),
        ("fe80::1%eth0", "fe80::/64"), ("", ""), ("unknown", "unknown"), ("1.2.3", "1.2.3"),
    ],
)  # fmt: skip
def test_one_address_is_an_ipv4_address_or_64_bits_of_ipv6(address: str, site: str) -> None:
    assert site_of(address) == site


@pytest.mark.parametrize(
    ("peer", "header", "client"),
    [
        ("192.0.2.7", [], "192.0.2.7"),
        ("192.0.2.7", ["1.2.3.4"], "192.0.2.7"),  # of anybody else the header is ignored
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", ["1.2.3.4, 192.0.2.7"], "192.0.2.7"),  # what stands before it was said by a stranger
        ("10.0.0.1", ["1.2.3.4", "192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", ["192.0.2.7, 10.9.9.9"], "192.0.2.7"),  # through two proxies
        ("10.0.0.1", ["192.0.2.7", "10.9.9.9, 10.1.1.1"], "192.0.2.7"),
        ("10.0.0.1", ["10.9.9.9"], "10.9.9.9"),
        ("10.0.0.1", ["1.2.3.4, rubbish"], "10.0.0.1"),
        ("10.0.0.1", ["1.2.3.4, "], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["127.0.0.1"], "127.0.0.1"),
        ("10.0.0.1", ["192.0.2.7:4711"], "192.0.2.7"),
        ("10.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("10.0.0.1", ["2001:db8::1"], "2001:db8::1"),
        ("::ffff:10.0.0.1", ["192.0.2.7"], "192.0.2.7"),
        ("fd00::1", ["192.0.2.7"], "192.0.2.7"),
        ("", ["192.0.2.7"], ""),
    ],
)  # fmt: skip
def test_behind_a_trusted_proxy_the_client_is_the_last_that_is_not_trusted(
    peer: str, header: list[str], client: str
) -> None:
    assert client_address(peer, header, TRUSTED) == client
    assert client_address(peer, header, []) == peer.removeprefix("::ffff:"), (
        "without the setting nobody's header counts"
    )


@given(st.lists(st.text(max_size=20), max_size=5))
def test_whatever_a_stranger_writes_he_is_not_taken_for_another(said: list[str]) -> None:
    """His proxy appends his address: nothing before it counts."""
    assert client_address("10.0.0.1", [*said, "192.0.2.7"], TRUSTED) == "192.0.2.7"
    assert client_address("192.0.2.7", said, TRUSTED) == "192.0.2.7"
    assert not is_within("unknown", TRUSTED)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("::ffff:10.1.2.3", "10.1.2.3"), ("::FFFF:10.1.2.3", "10.1.2.3"), ("10.1.2.3", "10.1.2.3"), ("::1", "::1"),
        ("::ffff:0:1", "::ffff:0:1"), ("2001:db8::7", "2001:db8::7"), ("", ""),
    ],
)  # fmt: skip
def test_ipv4_behind_a_socket_for_ipv6_is_ipv4(address: str, shown: str) -> None:
    assert plain(address) == shown
    assert client_address(address, [], []) == shown
