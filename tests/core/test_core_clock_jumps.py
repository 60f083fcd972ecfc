"""Wall time is set by an hour or a day, forwards or back: nothing ends before its time, and nothing goes on for
ever.
"""

from __future__ import annotations

import pytest
from doubles.fleet_play import Play

from processes.core.hub.rules import Rules
from processes.core.records.command import State
from processes.core.travels.messages import CensusTaken
from processes.core.values import Presence

HOUR_S, DAY_S = 3600.0, 86400.0
JUMPS_S = (HOUR_S, -HOUR_S, DAY_S, -DAY_S)
LOST_AFTER_S = 900.0


@pytest.fixture
def play() -> Play:
    play = Play(Rules(lost_after_s=LOST_AFTER_S))
    play.enroll("a")
    play.connect("a", "c1")
    return play


def presence(play: Play) -> Presence:
    return play.memory.links["a"].presence


@pytest.mark.parametrize("jump_s", JUMPS_S)
def test_a_jump_makes_nobody_stale_and_a_silent_host_stale_in_its_time(play: Play, jump_s: float) -> None:
    play.beat("a", "c1")
    play.jumped_s = jump_s
    play.wait(10.0)
    assert presence(play) is Presence.ONLINE
    play.wait(10.0)
    assert presence(play) is Presence.STALE
    play.beat("a", "c1")
    assert presence(play) is Presence.ONLINE


@pytest.mark.parametrize("jump_s", JUMPS_S)
def test_a_jump_expires_nothing_that_waits_and_lets_nothing_wait_longer(play: Play, jump_s: float) -> None:
    play.disconnect("a", "c1")
    (command_id,) = play.give("pull", "a", ttl_s=600.0)
    play.jumped_s = jump_s
    play.wait(599.0)
    play.restart()
    assert play.state(command_id) is State.QUEUED
    play.wait(2.0)
    assert play.state(command_id) is State.EXPIRED


@pytest.mark.parametrize("jump_s", JUMPS_S)
@pytest.mark.parametrize("restarted", [False, True])
def test_a_jump_loses_no_running_command_and_silence_is_said_in_its_time(
    play: Play, jump_s: float, restarted: bool
) -> None:
    (command_id,) = play.give("pull", "a")
    play.ack("a", "c1", command_id)
    play.disconnect("a", "c1")
    play.jumped_s = jump_s
    play.wait(LOST_AFTER_S - 100.0)
    if restarted:
        play.restart()
    play.wait(99.0)
    assert play.state(command_id) is State.RUNNING
    play.wait(3.0)
    assert (play.state(command_id), play.command(command_id).reason) == (State.LOST, "silence")


@pytest.mark.parametrize(
    ("away_s", "jump_s", "rest_s"), [(300.0, 0.0, 600.0), (300.0, -DAY_S, LOST_AFTER_S), (300.0, DAY_S, 0.0)]
)
def test_over_a_reboot_of_the_hubs_machine_wall_time_counts_and_its_rest_is_clamped(
    play: Play, away_s: float, jump_s: float, rest_s: float
) -> None:
    """Both of the rest of a silence and of a wait: never more than the whole, never less than nothing."""
    (running,) = play.give("pull", "a")
    play.ack("a", "c1", running)
    play.disconnect("a", "c1")
    (queued,) = play.give("pull", "a", ttl_s=LOST_AFTER_S)
    play.at_s += away_s
    play.jumped_s, play.boot = jump_s, "boot after"
    play.restart()
    play.wait(max(0.0, rest_s - 1.0))
    assert {play.state(running), play.state(queued)} == (
        {State.RUNNING, State.QUEUED} if rest_s else {State.LOST, State.EXPIRED}
    )
    play.wait(2.0)
    assert (play.state(running), play.state(queued)) == (State.LOST, State.EXPIRED)


def test_a_hub_that_was_away_counts_the_silence_from_when_it_looks_itself(play: Play) -> None:
    """A day without a hub is no day without the host."""
    (command_id,) = play.give("pull", "a")
    play.ack("a", "c1", command_id)
    play.at_s += 3 * LOST_AFTER_S
    play.restart()
    play.wait(10.0)
    assert play.state(command_id) is State.RUNNING
    assert play.command(command_id).unheard_wall_s is not None
    play.wait(LOST_AFTER_S)
    assert play.state(command_id) is State.LOST


def test_a_census_after_the_hub_has_settled_ends_the_silence_of_what_runs(play: Play) -> None:
    (command_id,) = play.give("pull", "a")
    play.ack("a", "c1", command_id)
    info = play.memory.connections["c1"]
    play.restart()
    play.wait(10.0)
    play.do(CensusTaken("gateway", 1, "boot", 0, True, [info]))
    assert play.command(command_id).unheard_wall_s is None
    play.wait(3 * LOST_AFTER_S)
    assert play.state(command_id) is State.RUNNING
