"""How often the hub has agents send heartbeats."""

from __future__ import annotations

import msgspec
import pytest
from doubles.fleet_play import Play
from hypothesis import given
from hypothesis import strategies as st

from processes.core.hub import pace
from processes.core.hub.effects import Effects
from processes.core.hub.memory import HeartbeatPace
from processes.core.hub.pace import BUSY_S, CALM_S, FLOORS_S, TOLD_MAX, governed
from processes.core.hub.rules import Rules
from processes.core.hub.step import Tick
from processes.core.shown.views import host_view
from processes.core.travels.messages import CensusTaken, DeliverRegistered
from processes.core.values import CANARY_HOST, Presence

PER_S = 10.0  # of the fleets here


def told(effects: Effects) -> dict[str, float]:
    """Return which hosts were told an interval, and which."""
    return {m.host: m.heartbeat_interval for _, m in effects.deliveries if isinstance(m, DeliverRegistered)}


def fleet(count: int, *, protocol: int = 1) -> Play:
    """Return a settled fleet whose agents want a heartbeat every 5 s."""
    play = Play(Rules(heartbeats_per_s=PER_S))
    names = [f"h{number:03}" for number in range(count)]
    play.enroll(*names)
    play.do(CensusTaken("gateway", 1, "boot", 0, True))
    for name in names:
        play.connect(name, f"c-{name}", protocol=protocol)
    return play


def ticks(play: Play, seconds: float) -> Effects:
    """Let time pass while every agent sends a heartbeat as often as it was told; return what that asked for."""
    done = Effects()
    beats = dict.fromkeys(play.memory.links, play.at_s)
    for _ in range(round(seconds / 0.1)):
        play.at_s += 0.1
        done.extend(play.do(Tick()))
        for name, link in list(play.memory.links.items()):
            if link.connection and play.at_s - beats[name] >= max(5.0, link.told_s):
                beats[name] = play.at_s
                done.extend(play.beat(name, f"c-{name}"))
    return done


@given(st.lists(st.tuples(st.integers(0, 100_000), st.floats(0.1, 200.0)), min_size=1, max_size=40))
def test_a_fleet_stays_within_the_rate_at_every_moment(history: list[tuple[int, float]]) -> None:
    now, boot_s = HeartbeatPace(), 0.0
    for connected, passes_s in history:
        boot_s += passes_s
        now = governed(now, connected, 1000.0, 0.0, boot_s)
        interval_s = max(now.floor_s, 1.0)  # the gateways tell the hub one a second at most
        assert connected / interval_s <= 1000.0 or now.floor_s == FLOORS_S[-1]


@given(st.integers(1_001, 40_000), st.lists(st.floats(0.96, 1.04), min_size=2, max_size=50))
def test_hosts_that_come_and_go_do_not_change_the_interval_again_and_again(count: int, shares: list[float]) -> None:
    """The bug it would catch: one host more, one host less, and all agents are told another interval each time."""
    now, boot_s, changes = HeartbeatPace(), 0.0, 0
    for share in shares:
        boot_s += CALM_S + 1.0
        after = governed(now, int(count * share), 1000.0, 0.0, boot_s)
        changes += after.floor_s != now.floor_s
        now = after
    assert changes <= 2, "once to where it belongs, and once more if it began just below a step"


@given(st.floats(0.0, 1000.0), st.integers(0, 100_000))
def test_it_is_shortened_by_one_step_after_a_calm_minute_and_not_before(passes_s: float, connected: int) -> None:
    before = HeartbeatPace(FLOORS_S[-1], 100.0, 100.0)
    after = governed(before, connected, 1000.0, 0.0, 100.0 + passes_s)
    if passes_s < CALM_S:
        assert after.floor_s == before.floor_s
    assert after.floor_s in FLOORS_S[-2:]


def test_a_hub_that_is_busy_without_end_stretches_the_intervals_step_by_step_and_calm_brings_them_back() -> None:
    now, floors = HeartbeatPace(), []
    for second in range(1, 40):
        now = governed(now, 10, 1000.0, float(second), float(second))
        floors.append(now.floor_s)
    assert floors[int(BUSY_S) - 2] == 0.0
    assert sorted(set(floors)) == [0.0, 10.0, 20.0, 40.0]
    for second in range(40, 40 + 10 * int(CALM_S)):
        now = governed(now, 10, 1000.0, 0.0, float(second))
    assert now.floor_s == 0.0


def test_a_fleet_that_has_grown_is_told_at_a_pace_and_none_of_it_is_shown_as_stale() -> None:
    play = fleet(120)  # wants 24 a second, and 10 are taken: every 20 s
    first = play.do(Tick())
    assert not told(first)
    counts = []
    for _ in range(4):
        play.at_s += 0.1
        counts.append(len(told(play.do(Tick()))))
    assert counts == [TOLD_MAX, TOLD_MAX, 20, 0]
    assert {link.told_s for name, link in play.memory.links.items() if name != CANARY_HOST} == {20.0}
    ticks(play, 90.0)
    counts_now = play.memory.counts()
    assert counts_now[Presence.ONLINE] == 120, counts_now
    view = host_view(play.memory.hosts["h000"], play.memory.links["h000"])
    assert view.heartbeat_interval_s == 20.0


def test_a_stretched_agent_that_falls_silent_is_stale_after_three_of_its_intervals() -> None:
    play = fleet(120)
    play.do(Tick())
    for _ in range(4):
        play.wait(0.1)
    heard_s = play.at_s
    play.beat("h000", "c-h000")
    play.at_s = heard_s + 59.0
    play.do(Tick())
    shown = [play.memory.links["h000"].presence]
    play.at_s = heard_s + 61.0
    play.do(Tick())
    assert [*shown, play.memory.links["h000"].presence] == [Presence.ONLINE, Presence.STALE]


def test_an_agent_that_comes_to_a_stretched_fleet_is_told_the_interval_with_its_registration() -> None:
    play = fleet(120)
    play.do(Tick())
    play.enroll("late")
    assert told(play.connect("late", "c-late")) == {"late": 20.0}
    play.enroll("slow")
    assert told(play.connect("slow", "c-slow", heartbeat_interval=60.0)) == {"slow": 60.0}


def test_a_foreign_agent_keeps_its_own_interval_and_is_told_once() -> None:
    play = fleet(120, protocol=0)
    done = ticks(play, 3.0)
    assert not told(done)
    assert play.memory.pace.floor_s == 20.0
    assert {link.told_s for link in play.memory.links.values()} == {0.0}
    play.beat("h000", "c-h000")
    play.wait(16.0)
    assert play.memory.links["h000"].presence is Presence.STALE, "three of its own intervals"


def test_a_new_hub_knows_what_agents_were_told_and_tells_none_of_them_twice() -> None:
    play = fleet(120)
    play.do(Tick())
    ticks(play, 1.0)
    infos = [
        msgspec.structs.replace(info, told_s=play.memory.links[info.host].told_s)
        for info in play.memory.connections.values()
    ]
    play.restart()
    again = play.do(CensusTaken("gateway", 2, "boot", 0, True, infos))
    assert set(told(again).values()) == {20.0}, "the gateways ignore what they have told"
    assert not told(ticks(play, 30.0))
    assert play.memory.counts()[Presence.ONLINE] == 120


@pytest.mark.parametrize("leave", [60, 115])
def test_a_fleet_that_has_shrunk_comes_back_to_its_own_interval(leave: int) -> None:
    play = fleet(120)
    play.do(Tick())
    ticks(play, 1.0)
    for number in range(leave):
        play.disconnect(f"h{number:03}", f"c-h{number:03}")
    done = ticks(play, 2.5 * CALM_S)
    wanted = {60: {10.0}, 115: {5.0}}[leave]
    assert set(told(done).values()) == wanted
    assert play.memory.counts()[Presence.ONLINE] == 120 - leave


def test_the_canary_keeps_its_own_pace() -> None:
    play = fleet(120)
    done = play.do(Tick())
    done.extend(ticks(play, 1.0))
    assert CANARY_HOST not in told(done)
    assert pace.FLOORS_S[0] == play.memory.links[CANARY_HOST].told_s


def test_an_agent_that_is_told_a_longer_interval_and_never_heard_again_is_stale_all_the_same() -> None:
    """The bug it would catch: the timer of its last heartbeat is over in the new patience, and there is no other."""
    play = fleet(120)
    for _ in range(5):
        play.wait(0.1)
    shown = []
    for seconds in (16.0, 50.0):
        play.wait(seconds)
        shown.append(play.memory.counts()[Presence.STALE])
    assert shown == [0, 120]
