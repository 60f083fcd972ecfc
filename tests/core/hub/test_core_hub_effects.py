"""Which effects may not overtake the disk."""

from __future__ import annotations

import pytest
from doubles.fleet_play import Play

from processes.core.hub import step
from processes.core.travels.agent_frames import Heartbeat
from processes.core.travels.messages import GiveCommand, HeartbeatReceived, RequestReceived, StatusReceived


@pytest.fixture
def play() -> Play:
    """A fleet of one connected host."""
    play = Play()
    play.enroll("h1")
    play.connect("h1", "c1")
    return play


def test_a_request_asked_again_promises_what_its_first_asking_wrote(play: Play) -> None:
    """Its answer needs no write of its own, but it may not be told before the commit of the first."""
    request = RequestReceived("r1", "fanout", "ann", play.at_s + 5, GiveCommand("pull", ["h1"]))
    assert step.step(play.memory, request, play.now).apply().durable
    again = step.step(play.memory, request, play.now).effects
    assert not again.durable
    assert again.promises


def test_a_report_said_twice_is_acknowledged_no_sooner_than_the_first(play: Play) -> None:
    (command_id,) = play.give("pull", "h1")
    report = StatusReceived("c1", "gateway", "h1", "ok", 0, "", command_id)
    assert step.step(play.memory, report, play.now).apply().durable
    again = step.step(play.memory, report, play.now).effects
    assert not again.durable
    assert again.promises


def test_presence_promises_nothing(play: Play) -> None:
    """It goes on while the database is locked."""
    beat = HeartbeatReceived("c1", "gateway", "h1", Heartbeat())
    effects = step.step(play.memory, beat, play.now).effects
    assert not effects.durable
    assert not effects.promises
