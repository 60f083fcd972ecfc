"""What a late report may say of a command that is lost."""

from __future__ import annotations

import pytest
from doubles.fleet_play import Play

from processes.core.command import State
from processes.core.messages import DeliverAck, StatusReceived


@pytest.mark.parametrize(("exit_code", "state"), [(None, State.LOST), (143, State.FAILED)])
def test_a_journal_that_never_knew_a_command_cannot_say_that_it_was_not_started(exit_code: int | None, state: State) -> None:
    """A cancel that comes after the journal was replaced is answered `cancelled before it was started`; it may run all the same."""
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
