"""What a late report may say of a command that is lost."""

from __future__ import annotations

import pytest
from doubles.fleet_play import Play

from processes.core.records.command import State
from processes.core.travels.messages import DeliverAck, StatusReceived
from processes.core.values import Unknown


@pytest.mark.parametrize(("exit_code", "state"), [(None, State.LOST), (143, State.FAILED)])
def test_a_journal_that_never_knew_a_command_cannot_say_that_it_was_not_started(
    exit_code: int | None, state: State
) -> None:
    """A cancel that comes after the journal was replaced is answered `cancelled before it was started`; it may run all
    the same.
    """
    play = Play()
    play.enroll("h1")
    play.connect("h1", "c1")
    (command_id,) = play.give("pull", "h1")
    play.wait(1.0)
    play.connect("h1", "c2", journal_id="another")
    assert play.memory.commands[command_id].reason == "journal_replaced"
    done = play.do(StatusReceived("c2", "gateway", "h1", "cancelled", exit_code, "", command_id))
    assert play.memory.commands[command_id].state is state
    assert [m.command_id for _, m in done.deliveries if isinstance(m, DeliverAck)] == [command_id]


@pytest.mark.parametrize("reason", list(Unknown))
@pytest.mark.parametrize("heard", [False, True])
def test_an_agent_that_cannot_know_the_end_makes_a_command_lost_with_its_reason(reason: Unknown, heard: bool) -> None:
    play = Play()
    play.enroll("h1")
    play.connect("h1", "c1")
    (command_id,) = play.give("pull", "h1")
    if heard:
        play.ack("h1", "c1", command_id)
    told = StatusReceived("c1", "gateway", "h1", "error", None, "outcome unknown", command_id, "pull", reason)
    for _ in range(2):  # sent again until it is acknowledged
        done = play.do(told)
        command = play.command(command_id)
        assert (command.state, command.reason, command.message) == (State.LOST, reason, "outcome unknown")
        assert [m.command_id for _, m in done.deliveries if isinstance(m, DeliverAck)] == [command_id]
    assert play.memory.ledger.lost == 1


def test_an_agent_that_says_why_it_did_not_run_a_command_is_quoted() -> None:
    play = Play()
    play.enroll("h1")
    play.connect("h1", "c1")
    (command_id,) = play.give("pull", "h1")
    play.do(StatusReceived("c1", "gateway", "h1", "error", None, "not run", command_id, "pull", "not_started"))
    assert (play.state(command_id), play.command(command_id).reason) == (State.FAILED, "not_started")
