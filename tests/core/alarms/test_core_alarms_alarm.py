"""Alarms begin once, are over once, and are remembered over restarts."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from processes.core.alarms import alarm
from processes.core.alarms.alarm import (
    CLEAR_S,
    EVENTS_MAX,
    STANDING_MAX,
    AlarmState,
    AlarmWatch,
    Condition,
    ConditionsSeen,
    Phase,
)
from processes.core.values import Severity


def condition(key: str, after_s: float = 0.0) -> Condition:
    return Condition(key, Severity.WARNING, f"{key} is wrong", "look", after_s, "right again")


class Play:
    """Looks, one after the other."""

    def __init__(self, state: AlarmState | None = None) -> None:
        self.state, self.watch = state or AlarmState(), AlarmWatch()

    def look(self, now_s: float, *conditions: Condition, **more: object) -> list[tuple[str, str]]:
        """What is told at this look."""
        before = self.state.number
        seen = msgspec.structs.replace(ConditionsSeen(list(conditions)), **more)
        self.state, self.watch = alarm.turn(self.state, self.watch, seen, now_s, 1000.0 + now_s)
        return [(event.key, str(event.phase)) for event in self.state.events if event.number > before]


def test_what_stands_long_enough_begins_once_and_is_over_once_it_stayed_away() -> None:
    play = Play()
    a = condition("a", after_s=10)
    assert play.look(0, a) == []
    assert play.look(9.9, a) == []
    assert play.look(10, a) == [("a", "begun")]
    assert play.look(11, a) == []
    assert play.look(12) == []
    assert play.look(12 + CLEAR_S - 0.1) == []
    assert play.look(12 + CLEAR_S) == [("a", "over")]
    assert play.look(100) == []
    assert play.state.events[-1].text == "right again"


def test_the_end_is_told_as_it_came_where_that_is_known() -> None:
    play = Play()
    play.look(0, condition("a"), condition("b"))
    play.look(1, over={"a": "made room"})
    assert play.look(1 + CLEAR_S, over={"a": "made room"}) == [("a", "over"), ("b", "over")]
    assert [event.text for event in play.state.events[-2:]] == ["made room", "right again"]


def test_what_flickers_before_its_time_is_never_told_and_what_flickers_after_is_told_once() -> None:
    play = Play()
    a = condition("a", after_s=10)
    for now_s in range(0, 60, 5):
        assert play.look(now_s, a) == []
        assert play.look(now_s + 4) == []  # each absence begins it anew
    b = condition("b")
    assert play.look(100, b) == [("b", "begun")]
    for now_s in range(101, 200, 4):
        assert play.look(now_s) == []
        assert play.look(now_s + 3, b) == []


def test_incident_that_began_and_ended_between_two_looks_is_told_both_ways_and_not_again() -> None:
    play = Play()
    i = condition("incident:1")
    assert play.look(0, ended=[i]) == [("incident:1", "begun"), ("incident:1", "over")]
    assert play.look(1, ended=[i]) == []
    assert play.state.standing == {}


def test_restarted_watchdog_tells_nothing_again_and_the_end_of_what_it_did_not_see_end() -> None:
    first = Play()
    first.look(0, condition("incident:1"), condition("storage"))
    second = Play(msgspec.json.decode(msgspec.json.encode(first.state), type=AlarmState))
    assert second.look(500, condition("incident:1"), condition("storage")) == []
    assert second.look(501, condition("storage"), ended=[condition("incident:1")]) == [("incident:1", "over")]


def test_what_nobody_can_know_yet_is_not_over() -> None:
    play = Play()
    play.look(0, condition("incident:1"), condition("storage"))
    told = [play.look(now_s, unknown=("incident:", "lasting:")) for now_s in (1.0, 1 + CLEAR_S, 50.0)]
    assert told == [[], [("storage", "over")], []]
    assert play.look(51) == []
    assert play.look(51 + CLEAR_S) == [("incident:1", "over")]


def test_what_happens_is_told_once_and_is_never_over() -> None:
    play = Play()
    assert play.look(0, once=[condition("lost:3")]) == [("lost:3", "once")]
    assert [play.look(now_s) for now_s in (1.0, 100.0)] == [[], []]


def test_incidents_that_are_old_news_are_not_told() -> None:
    play = Play(alarm.noted(AlarmState(), ["incident:1"]))
    assert play.look(0, ended=[condition("incident:1"), condition("incident:2")]) == [
        ("incident:2", "begun"),
        ("incident:2", "over"),
    ]


def test_nothing_grows_without_end() -> None:
    play = Play()
    play.look(0, *(condition(f"c{n}") for n in range(STANDING_MAX + 10)))
    assert len(play.state.standing) == STANDING_MAX
    for n in range(EVENTS_MAX):
        play.look(1.0, *(condition(f"c{n}") for n in range(STANDING_MAX)), once=[condition(f"o{n}")])
    assert len(play.state.events) == EVENTS_MAX
    assert play.state.events[-1].number == play.state.number == STANDING_MAX + EVENTS_MAX
    play.state = alarm.noted(play.state, [f"incident:{n}" for n in range(alarm.NOTED_MAX + 5)])
    assert len(play.state.noted) == alarm.NOTED_MAX


def test_beyond_the_limit_a_condition_begins_when_another_is_over() -> None:
    play = Play()
    many = [condition(f"c{n}") for n in range(STANDING_MAX)]
    play.look(0, *many)
    late = condition("late")
    assert play.look(1, *many, late) == []
    assert play.look(2, *many[1:], late) == []
    assert play.look(2 + CLEAR_S, *many[1:], late) == [("c0", "over")]
    assert play.look(3 + CLEAR_S, *many[1:], late) == [("late", "begun")]


@pytest.mark.parametrize("seen", list(itertools.product([False, True], repeat=7)))
def test_begun_and_over_alternate_whatever_is_seen(seen: tuple[bool, ...]) -> None:
    play = Play()
    told = [
        entry
        for step, stands in enumerate(seen)
        for entry in play.look(step * CLEAR_S, *([condition("a")] if stands else []))
    ]
    phases = [phase for _, phase in told]
    assert phases == [str(phase) for phase in itertools.islice(itertools.cycle([Phase.BEGUN, Phase.OVER]), len(phases))]
    assert ("a" in play.state.standing) == (bool(phases) and phases[-1] == "begun")
