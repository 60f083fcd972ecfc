"""Random histories of a fleet against a slow, obvious oracle: what is told, and what is not."""

from __future__ import annotations

import random

import pytest
from doubles.judged_fleet import JudgedFleet

from processes.core.conditions.freshness import FRESH_S, House
from processes.core.conditions.rules import Rule
from processes.core.travels.judged import ConditionKind

FOR_S = 60
SEEDS = 400
STEP_S = 4
RULES = (Rule(ConditionKind.OFFLINE, for_s=FOR_S), Rule(ConditionKind.DISK, limit=90.0, for_s=FOR_S))


def absences(chance: random.Random, length_s: int) -> list[tuple[int, int]]:
    """When one host is away: from, until."""
    found, at_s = [], STEP_S * chance.randint(1, 30)
    while at_s < length_s:
        away_s = STEP_S * chance.choice([chance.randint(1, 10), chance.randint(22, 75)])
        found.append((at_s, at_s + away_s))
        at_s += away_s + STEP_S * chance.randint(22, 100)
    return found


@pytest.mark.parametrize("block", range(10))
def test_exactly_the_hosts_that_are_away_for_longer_than_their_patience_are_told_and_none_while_the_house_is_not_well(
    block: int,
) -> None:
    """Bug it would catch: a false alarm after the house's own trouble, or an absence that is forgotten by it."""
    for seed in range(block * SEEDS // 10, (block + 1) * SEEDS // 10):
        chance, length_s = random.Random(seed), 900
        play = JudgedFleet(RULES)
        hosts = {f"h{n}": absences(chance, length_s) for n in range(3)}  # fewer than are told as one
        play.add(*hosts)
        begun_s = play.at_s
        sick_s = chance.randint(100, 600) if chance.random() < 0.5 else None
        sick_until_s = (sick_s or 0) + chance.randint(2, 60)
        told: list[tuple[str, int]] = []
        for second in range(0, length_s, STEP_S):
            for host, times in hosts.items():
                if any(second == begin for begin, _ in times):
                    play.lose(host)
                if any(second == end for _, end in times):
                    play.back(host)
            is_sick = sick_s is not None and sick_s <= second < sick_until_s
            play.house = House(1, is_well=not is_sick, is_anew=is_sick)
            before = len(play.told)
            play.go(STEP_S, step_s=STEP_S)
            told += [(each.host or "", second) for each in play.told[before:]]
            assert not (is_sick and len(play.told) > before), (seed, second)
        for host, times in hosts.items():
            for begin, end in times:
                said = [at for name, at in told if name == host and begin <= at <= end + 12]
                spoilt = sick_s is not None and begin < sick_until_s + FRESH_S + 16 and end > sick_s
                if spoilt:
                    assert all(at >= sick_until_s + FRESH_S - STEP_S or at < (sick_s or 0) for at in said), (seed, host)
                    must = min(end, length_s) - max(begin, sick_until_s or 0) > FOR_S + FRESH_S + 16
                    must = must and host not in [name for name, _ in told]  # else it may go on to stand
                else:
                    must = min(end, length_s) - begin > FOR_S + 16
                    assert end - begin >= FOR_S or not said, (seed, host, begin, end)
                assert len(said) <= (2 if spoilt else 1), (seed, host, said)
                assert said or not must, (seed, host, begin, end, sick_s, sick_until_s)
        assert begun_s > 0


@pytest.mark.parametrize("block", range(5))
def test_a_rack_among_scattered_losses_is_one_alarm_by_its_label_within_90_s_in_any_order(block: int) -> None:
    """Bug it would catch: a host told beside its rack, a rack told twice, a rack that a stray host hides."""
    for seed in range(block * 20, (block + 1) * 20):
        chance = random.Random(seed)
        play = JudgedFleet(RULES)
        size = chance.randint(5, 40)
        rack = [f"r{n}" for n in range(size)]
        others = [f"o{n}" for n in range(chance.randint(size, 60))]
        play.add(*rack, rack="b4", env="prod", address=f"10.0.{chance.randint(4, 5)}.7:1")
        play.add(*others, rack="a1", env="prod", address="10.0.5.9:1")
        stray = chance.sample(others, chance.randint(0, 3))
        at = {host: chance.randint(0, 25) for host in rack} | {host: chance.randint(0, 200) for host in stray}
        first_s = min(at[host] for host in rack)
        for second in range(300):
            play.lose(*[host for host, lost_s in at.items() if lost_s == second])
            play.go(1)
            groups = [title for title in play.titles if "rack=b4" in title]
            if second > first_s + 90:
                assert len(groups) == 1, (seed, second, play.titles)
        assert sorted(title for title in play.titles if "rack=b4" not in title) == sorted(
            f"{host} is offline" for host in stray
        ), seed
        (group,) = [each for each in play.open if each.kind is ConditionKind.MANY]
        assert group.hosts == group.left == size, seed
        play.back(*at)
        play.go(30)
        assert play.open == [], seed
