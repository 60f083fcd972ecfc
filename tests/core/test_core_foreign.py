"""Foreign agents give no ids and say nothing twice: what their words are taken for."""

from __future__ import annotations

import pytest
from doubles.fleet_play import Play

from processes.core import wire
from processes.core.command import State
from processes.core.messages import DeliverCommand, OutputReceived, RejectReceived, StatusReceived, Token, Undelivered
from processes.core.session import Session


def _session() -> Session:
    session = Session("boot.1", "gateway", Token("hash", "nix", "e1"), "address")
    session.read([(wire.encode(wire.Register("nix")), True)], 1.0)
    return session


def _said(session: Session, *frames: wire.AgentFrame) -> list[object]:
    return [emitted.event for emitted in session.read([(wire.encode(frame), True) for frame in frames], 2.0).events]


def test_each_word_is_tied_to_the_command_it_is_of() -> None:
    """So that an event which comes to the hub twice is never taken for one of the next command."""
    session = _session()
    session.wrote("c1", "pull")
    session.wrote("c2", "test")
    output, first, second, third = _said(
        session, wire.Output("line"), wire.Status("ok"), wire.Status("error"), wire.Status("ok"),
    )  # fmt: skip
    assert isinstance(output, OutputReceived)
    assert output.command_id == "c1"
    assert [event.command_id for event in (first, second, third) if isinstance(event, StatusReceived)] == ["c1", "c2", None]


def test_a_rejection_is_of_the_newest_command() -> None:
    session = _session()
    session.wrote("c1", "pull")
    session.wrote("c2", "test")
    (event,) = _said(session, wire.CommandRejected("command already running"))
    assert isinstance(event, RejectReceived)
    assert event.command_id == "c2"


def _running() -> tuple[Play, str]:
    play = Play()
    play.enroll("nix")
    play.connect("nix", "c1", protocol=0)
    (command_id,) = play.give("pull", "nix")
    play.beat("nix", "c1", "pull")
    assert play.memory.commands[command_id].state is State.RUNNING
    return play, command_id


def test_a_report_that_was_lost_on_its_way_is_not_waited_for_without_an_end() -> None:
    """The queues may die with it, and the agent never says it again, however long its connection lives."""
    play, command_id = _running()
    play.wait(10.0)
    play.beat("nix", "c1")
    assert play.memory.commands[command_id].state is State.RUNNING  # that beat may be older than the command
    play.wait(25.0)
    play.beat("nix", "c1", "pull")
    assert play.memory.commands[command_id].state is State.RUNNING
    play.beat("nix", "c1")
    command = play.memory.commands[command_id]
    assert (command.state, command.reason) == (State.LOST, "unreported")


@pytest.mark.parametrize("ended", [False, True])
def test_output_said_twice_is_not_added_to_a_command_that_has_ended(ended: bool) -> None:
    play, command_id = _running()
    if ended:
        play.report("nix", "c1", command_id)
    before = play.memory.commands[command_id].output_next
    record = wire.Output("line").record()
    play.do(OutputReceived("c1", "gateway", "nix", [record], command_id))
    assert play.memory.commands[command_id].output_next == before + (not ended)


def test_a_command_never_written_is_sent_on_the_connection_that_came_meanwhile() -> None:
    """Its registration was looked at before the hub knew; nothing else would ever look at the command again."""
    play = Play()
    play.enroll("nix")
    play.connect("nix", "c1", protocol=0)
    (command_id,) = play.give("pull", "nix")
    play.wait(1.0)
    play.connect("nix", "c2", protocol=0)
    done = play.do(Undelivered("c1", "gateway", "nix", command_id, 1))
    sent = [message for _, message in done.deliveries if isinstance(message, DeliverCommand)]
    assert [(message.connection, message.command_id, message.attempt) for message in sent] == [("c2", command_id, 2)]
