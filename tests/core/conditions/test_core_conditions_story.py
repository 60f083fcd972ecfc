"""The story, twenty times with other times and sizes: false and missed alarms are none."""

from __future__ import annotations

import random

import pytest
from doubles.judged_fleet import JudgedFleet

from processes.core.conditions.freshness import House


@pytest.mark.parametrize("seed", range(20))
def test_of_a_bad_night_exactly_the_lost_rack_and_its_sick_host_are_told(seed: int) -> None:
    """Bug it would catch: an alarm about a host whose trouble was the hub's, a gateway's or an operator's."""
    chance = random.Random(seed)
    play = JudgedFleet()
    rack = [f"b4-{number:02}" for number in range(40)]
    others = [f"web{number:02}" for number in range(chance.randint(30, 60))]
    play.add(*rack, rack="b4", env="prod", gateway="gateway:0")
    play.add(*others, rack="a1", env="prod", gateway="gateway:1")
    play.go(chance.randint(60, 120))

    # a rack vanishes
    for host in chance.sample(rack, 40):
        play.lose(host)
        if chance.random() < 0.3:
            play.go(1)
    play.go(75)
    assert play.titles == ["40 hosts of rack=b4 went offline at once"]

    # one of them comes back sick, the others well
    sick, well = rack[chance.randrange(40)], []
    play.back(sick, gateway="gateway:0")
    play.go(400, lambda: play.beat(sick, disk=95.0))
    assert play.titles[1:] == [f"{sick} has a disk that is almost full"]
    well = [host for host in rack if host != sick]
    for host in chance.sample(well, 39):
        play.back(host, gateway="gateway:0")
        play.go(chance.choice([0, 0, 1]))
    play.go(120, lambda: play.beat(sick, disk=40.0))
    assert play.open == []

    # a gateway is killed: its hosts are away until it is back, and come back within a minute
    play.go(1)
    play.house = House(1, gateways=frozenset({"gateway:0"}))
    play.lose(*rack)
    play.go(chance.randint(3, 15))
    play.house = House(1)
    for host in chance.sample(rack, 40):
        play.back(host, gateway="gateway:0")
        play.go(chance.choice([0, 1, 2]))
    play.go(120)

    # the hub is frozen and replaced: for a while everybody is stale
    play.house = House(1, is_well=False)
    play.go(chance.randint(3, 200))
    play.house = House(2, is_well=False, is_anew=True)
    play.change(*rack, *others, presence="stale")
    play.go(chance.randint(1, 8))
    play.house = House(2)
    for host in chance.sample([*rack, *others], len(rack) + len(others)):
        play.back(host, gateway="gateway:0")
        play.go(chance.choice([0, 0, 0, 1]))
    play.go(120)

    # a host reboots by command
    rebooted = chance.choice(others)
    play.command(rebooted, "reboot", "running")
    play.lose(rebooted)
    play.go(chance.randint(70, 280))
    play.back(rebooted)
    play.command(rebooted, "reboot", "succeeded")
    play.go(120)

    # maintenance, silenced beforehand: listed, and not told
    play.silence(("rack=a1", 0, 3600))
    play.go(10)
    play.lose(*others)
    play.go(200)
    assert len(play.open) == len(others)
    assert {each.silence for each in play.open} == {"s0"}
    play.back(*others)
    play.go(60)
    assert play.open == []
    assert len(play.told) == 2, play.titles
