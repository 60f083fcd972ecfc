"""What a restored backup means: lost and not delivered, ended runs, void tokens, a ledger that adds up."""

from __future__ import annotations

from doubles.fleet_play import Play

from processes.core.cli import rollback
from processes.core.records.command import State
from processes.core.records.run import Part, RunState, run_view
from processes.core.travels import messages
from processes.core.travels.messages import StartRun


def play_with_every_state() -> Play:
    play = Play()
    for name in ("a", "b", "c"):
        play.enroll(name)
        play.connect(name, f"c-{name}")
    play.give("pull", "a")
    (running,) = play.give("pull", "b")
    play.do(messages.AckReceived("c-b", "gateway", "b", running, "accepted"))
    play.give("pull", "c")
    return play


def test_all_that_was_open_is_lost_and_the_ledgers_add_up() -> None:
    play = play_with_every_state()
    play.give("pull", "a")
    memory = play.memory
    opened = [command for command in memory.commands.values() if command.open]
    assert {command.state for command in opened} >= {State.QUEUED, State.RUNNING, State.SENT}
    found = rollback.restored(memory.hosts.values(), opened, [], memory.ledger, revoked=frozenset(), now_wall_s=5.0)
    assert {(command.state, command.reason) for command in found.commands} == {(State.LOST, "restored")}
    assert len(found.commands) == len(opened) == len(found.transitions)
    assert found.ledger.balanced
    assert (found.ledger.lost, found.ledger.accepted) == (len(opened), memory.ledger.accepted)
    assert found.ledger.queued + found.ledger.sent + found.ledger.running == 0
    for host in found.hosts:
        assert host.ledger.balanced
        assert host.ledger.lost == sum(command.host == host.name for command in opened)


def test_a_run_begins_no_further_host() -> None:
    play = play_with_every_state()
    play.do(
        messages.RequestReceived(
            "r", "fanout", "ann", 1e12, StartRun(["pull"], ["a", "b", "c"], None, 1, None, None, None)
        )
    )
    (run,) = [run for run in play.memory.runs.values() if run.open]
    parts = [(run.id, part) for part in play.memory.run_parts.values()]
    assert (run.active, run.total) == (len(parts), 3) == (1, 3)
    found = rollback.restored([], [], [run], play.memory.ledger, parts=parts, revoked=frozenset(), now_wall_s=5.0)
    ((run_id, part),) = found.parts
    assert (run_id, part.part, part.reason) == (run.id, Part.FAILED, "restored")
    (ended,) = found.runs
    assert (ended.state, ended.finished_wall_s) == (RunState.CANCELLED, 5.0)
    view = run_view(ended, ("a", "b", "c"), {part.host: part})
    assert [each.state for each in view.hosts] == [Part.FAILED, Part.NOT_ATTEMPTED, Part.NOT_ATTEMPTED]
    assert (view.failed, view.not_attempted, view.active, view.pending) == (1, 2, 0, 0)


def test_a_token_that_is_void_since_stays_void() -> None:
    play = play_with_every_state()
    revoked = play.memory.hosts["b"].token_hash
    assert revoked is not None
    found = rollback.restored(
        play.memory.hosts.values(), [], [], play.memory.ledger, revoked=frozenset({revoked}), now_wall_s=5.0
    )
    hosts = {host.name: host.token_hash for host in found.hosts}
    assert hosts["b"] is None
    assert hosts["a"] is not None
    assert found.revoked == 1
