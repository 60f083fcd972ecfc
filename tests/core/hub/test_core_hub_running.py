"""What a host is shown to run: what the state of its commands says, not its agent's last heartbeat."""

from __future__ import annotations

from doubles.fleet_play import Play

from processes.core.hub.effects import Effects
from processes.core.hub.memory import OFFLINE
from processes.core.records.command import State
from processes.core.shown.views import host_view
from processes.core.travels.agent_frames import CommandOptions
from processes.core.travels.messages import Change


def shown(play: Play, host: str) -> str | None:
    return host_view(play.memory.hosts[host], play.memory.links[host]).pending_command


def house(**options: CommandOptions) -> Play:
    play = Play()
    play.enroll("web1")
    play.connect("web1", "c1", commands=list(options), command_options=options)
    play.beat("web1", "c1")
    return play


def test_a_host_is_never_shown_to_run_what_has_ended() -> None:
    """CASE: `hosts` showed it up to one heartbeat after the same program listed the command as succeeded."""
    play = house(pull=CommandOptions())
    (command_id,) = play.give("pull", "web1")
    play.ack("web1", "c1", command_id)
    assert shown(play, "web1") == "pull"  # before any heartbeat says so
    play.beat("web1", "c1", "pull")
    ended: Effects = play.report("web1", "c1", command_id)
    assert play.state(command_id) is State.SUCCEEDED
    assert shown(play, "web1") is None
    told = [change for change in (*ended.at_once, *ended.changes) if isinstance(change, Change)]
    assert any(b'"pending_command":null' in bytes(change.fields) for change in told)
    play.beat("web1", "c1", "pull")  # sent before the report, and taken in after it
    assert shown(play, "web1") is None
    play.restart()
    assert host_view(play.memory.hosts["web1"], OFFLINE).pending_command is None


def test_beside_a_command_that_ended_the_other_that_runs_is_shown() -> None:
    play = house(pull=CommandOptions(), look=CommandOptions(concurrent=True))
    pull, look = play.give("pull", "web1")[0], play.give("look", "web1")[0]
    play.ack("web1", "c1", pull)
    play.ack("web1", "c1", look)
    assert shown(play, "web1") == "pull"
    play.report("web1", "c1", pull)
    assert shown(play, "web1") == "look"
    play.report("web1", "c1", look)
    assert shown(play, "web1") is None


def test_of_a_foreign_agent_its_own_word_counts() -> None:
    """It may run what no operator of this hub gave it."""
    play = Play()
    play.enroll("nix")
    play.connect("nix", "c1", protocol=0)
    play.beat("nix", "c1", "switch")
    assert shown(play, "nix") == "switch"
