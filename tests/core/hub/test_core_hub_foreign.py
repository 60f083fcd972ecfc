"""Foreign agents give no ids and say nothing twice: what their words are taken for."""

from __future__ import annotations

import msgspec
import pytest
from doubles.fleet_play import Play

from processes.core.gateway.agent_connection import AgentConnection
from processes.core.hub import step
from processes.core.hub.effects import Effects
from processes.core.records.command import State
from processes.core.records.host import PROGRESS_MAX, Progress, progress_of
from processes.core.travels import agent_frames
from processes.core.travels.messages import (
    CensusTaken,
    DeliverCommand,
    HeartbeatReceived,
    Json,
    OutputReceived,
    ProgressReceived,
    RejectReceived,
    RemoveHost,
    StatusReceived,
    Token,
    Undelivered,
)


def _connection() -> AgentConnection:
    connection = AgentConnection("boot.1", "gateway", Token("hash", "nix", "e1"), "address", 0.0)
    connection.read([(agent_frames.encode(agent_frames.Register("nix")), True)], 1.0)
    return connection


def _said(connection: AgentConnection, *frames: agent_frames.AgentFrame) -> list[object]:
    return [
        emitted.event
        for emitted in connection.read([(agent_frames.encode(frame), True) for frame in frames], 2.0).events
    ]


def test_each_word_is_tied_to_the_command_it_is_of() -> None:
    """So that an event which comes to the hub twice is never taken for one of the next command."""
    connection = _connection()
    connection.wrote("c1", "pull")
    connection.wrote("c2", "test")
    output, first, second, third = _said(
        connection, agent_frames.Output("line"),
        agent_frames.StatusFrame("ok"), agent_frames.StatusFrame("error"), agent_frames.StatusFrame("ok"),
    )  # fmt: skip
    assert isinstance(output, OutputReceived)
    assert output.command_id == "c1"
    assert [event.command_id for event in (first, second, third) if isinstance(event, StatusReceived)] == [
        "c1",
        "c2",
        None,
    ]


def test_a_rejection_is_of_the_newest_command() -> None:
    connection = _connection()
    connection.wrote("c1", "pull")
    connection.wrote("c2", "test")
    (event,) = _said(connection, agent_frames.CommandRejected("command already running"))
    assert isinstance(event, RejectReceived)
    assert event.command_id == "c2"


def test_a_stop_prints_nothing_of_its_own() -> None:
    connection = _connection()
    connection.wrote("c1", "stop")
    (of_before,) = _said(connection, agent_frames.Output("line"))
    connection.wrote("c2", "pull")
    (of_pull,) = _said(connection, agent_frames.Output("line"))
    assert isinstance(of_before, OutputReceived)
    assert isinstance(of_pull, OutputReceived)
    assert (of_before.command_id, of_pull.command_id) == (None, "c2")


def test_a_census_says_that_the_agent_ran_nothing_once_it_said_so() -> None:
    connection = _connection()
    for pending, idle in (("pull", False), (None, True), ("pull", True)):
        _said(connection, agent_frames.Heartbeat(pending_command=pending))
        info = connection.census()
        assert info is not None
        assert info.idle is idle


def _running() -> tuple[Play, str]:
    play = Play()
    play.enroll("nix")
    play.connect("nix", "c1", protocol=0)
    play.beat("nix", "c1")
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
    record = agent_frames.Output("line").records()[0]
    play.do(OutputReceived("c1", "gateway", "nix", [record], command_id))
    assert play.memory.commands[command_id].output_next == before + (not ended)


def test_half_of_a_line_end_of_two_characters_is_no_line_that_is_drawn_over() -> None:
    """The bug it would catch: of a program that ends its lines with CR LF, the page would show the last line alone."""
    assert [record.data for record in agent_frames.Output("line\r").records()] == ["line"]
    assert [record.data for record in agent_frames.Output("10 %\r", offset=3).records()] == ["10 %\r"]


def test_a_command_never_written_is_sent_on_the_connection_that_came_meanwhile() -> None:
    play = Play()
    play.enroll("nix")
    play.connect("nix", "c1", protocol=0)
    play.beat("nix", "c1")
    (command_id,) = play.give("pull", "nix")
    play.wait(1.0)
    play.connect("nix", "c2", protocol=0)
    assert not play.do(Undelivered("c1", "gateway", "nix", command_id, 1)).deliveries, "what it runs is not known yet"
    done = play.beat("nix", "c2")
    sent = [message for _, message in done.deliveries if isinstance(message, DeliverCommand)]
    assert [(message.connection, message.command_id, message.attempt) for message in sent] == [("c2", command_id, 2)]


def _sent(effects: Effects) -> list[str]:
    return [message.command_id for _, message in effects.deliveries if isinstance(message, DeliverCommand)]


def test_nothing_is_sent_before_the_agent_says_that_it_runs_nothing() -> None:
    """What it runs may be of the enrolment before this one, and its words carry no ids: they would be taken for the new
    command's.
    """
    play = Play()
    play.enroll("nix")
    play.connect("nix", "c1", protocol=0)
    play.beat("nix", "c1")
    (old,) = play.give("switch", "nix")
    play.ask(RemoveHost("nix"))
    play.enroll("nix")
    assert not _sent(play.connect("nix", "c2", protocol=0))
    (new,) = play.give("pull", "nix")
    assert play.state(new) is State.QUEUED
    assert not _sent(play.beat("nix", "c2", "switch"))
    play.do(OutputReceived("c2", "gateway", "nix", agent_frames.Output("of the switch").records()))
    play.do(StatusReceived("c2", "gateway", "nix", "ok", 0, op="switch"))
    assert not _sent(play.beat("nix", "c2", "switch")), "the late one that still names it"
    assert (play.state(old), play.state(new), play.command(new).output_next) == (State.LOST, State.QUEUED, 0)
    assert _sent(play.beat("nix", "c2")) == [new]


def test_a_new_hub_learns_from_the_census_that_the_agent_ran_nothing() -> None:
    """So that its commands do not wait for a heartbeat each time that the hub is replaced."""
    play = Play()
    play.enroll("nix")
    play.connect("nix", "c1", protocol=0)
    info = msgspec.structs.replace(play.memory.connections["c1"], idle=True)
    play.restart()
    play.do(CensusTaken("gateway", 1, "boot", 0, True, [info]))
    assert len(play.give("pull", "nix")) == 1
    assert [command.state for command in play.memory.commands.values()] == [State.SENT]


def test_a_command_found_running_may_be_stopped_and_ends_by_a_word_without_an_id() -> None:
    play, command_id = _running()
    play.wait(1.0)
    play.connect("nix", "c2", protocol=0)
    assert play.command(command_id).connection == "c1"
    play.beat("nix", "c2", "pull")
    assert play.command(command_id).adopted
    (stop, later) = (*play.give("stop", "nix"), *play.give("test", "nix"))
    assert (play.state(stop), play.state(later)) == (State.SENT, State.QUEUED)
    play.report("nix", "c2", None, "error", -1)
    assert (play.state(command_id), play.command(command_id).exit_code) == (State.FAILED, -1)
    play.report("nix", "c2", stop)
    assert _sent(play.beat("nix", "c2")) == [later]


def test_a_status_of_an_earlier_connections_command_counts_before_the_first_heartbeat() -> None:
    play, command_id = _running()
    play.wait(1.0)
    play.connect("nix", "c2", protocol=0)
    play.report("nix", "c2", None, "ok")
    assert play.state(command_id) is State.SUCCEEDED


def test_a_word_without_an_id_that_comes_twice_is_not_taken_for_one_of_the_next_command() -> None:
    """A gateway appends again what it does not know to be appended; the queues may have been replaced in between."""
    play, _ = _running()
    play.wait(1.0)
    play.connect("nix", "c2", protocol=0)
    play.beat("nix", "c2", "pull")
    play.report("nix", "c2", None, "ok")
    play.beat("nix", "c2")
    (following,) = play.give("pull", "nix")
    play.report("nix", "c2", None, "ok")
    assert play.state(following) is State.SENT
    play.wait(1.0)
    play.connect("nix", "c3", protocol=0)
    play.report("nix", "c2", None, "ok")
    assert play.state(following) is State.SENT


def test_a_command_taken_for_running_by_a_late_heartbeat_is_sent_again_if_it_was_never_written() -> None:
    """The heartbeat after a status still names the command that has ended: the next one may be of the same op."""
    play, command_id = _running()
    play.disconnect("nix", "c1")
    play.wait(1.0)
    assert _sent(play.connect("nix", "c2", protocol=0)) == []
    play.do(Undelivered("c1", "gateway", "nix", command_id, 1))
    assert _sent(play.beat("nix", "c2")) == [command_id]


def _progress(play: Play, told: bytes, connection: str = "c1") -> list[dict[str, object]]:
    """What operators are shown of it."""
    done = play.do(ProgressReceived(connection, "gateway", "nix", Json(told)))
    return [
        shown["progress"]
        for c in done.rows
        if c.kind == "host" and "progress" in (shown := msgspec.json.decode(c.fields))
    ]


def test_an_agents_progress_is_shown_until_its_connection_ends() -> None:
    play, _ = _running()
    step = {"current": 1, "total": 4, "status": "in_progress"}
    assert _progress(play, msgspec.json.encode({"pull": step})) == [{"pull": step}]
    assert _progress(play, msgspec.json.encode({"pull": step})) == [], "said again, it is no change"
    assert _progress(play, msgspec.json.encode({"pull": step}), "another") == [], "of a connection that is not current"
    gone = play.disconnect("nix", "c1")
    assert [msgspec.json.decode(c.fields)["progress"] for c in gone.rows if c.kind == "host"] == [{}]


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        (b"{}", {}),
        (b'{"pull": 1, "test": {"current": 2}}', {"test": Progress(2)}),
        (b'{"pull": {"current": -1}, "test": {"total": 1e99}, "x": {"status": null}}', {}),
        (b'{"%s": {}}' % (b"x" * 65), {}),
        (b'{"x": {"status": "%s"}}' % (b"y" * 65), {}),
        (b"[]", {}),
        (b"{", {}),
    ],
)
def test_progress_that_cannot_be_understood_is_left_out(told: bytes, shown: dict[str, Progress]) -> None:
    assert progress_of(Json(told)) == shown


def test_progress_of_any_number_of_operations_is_kept_of_some() -> None:
    assert len(progress_of(Json(msgspec.json.encode({f"op{n}": {} for n in range(1000)})))) == PROGRESS_MAX


def test_what_is_volatile_is_shown_at_once_though_its_step_also_moves_a_command() -> None:
    """Else it would be shown after the commit, and so after what came later: a host that is gone would be shown
    online.
    """
    play = Play()
    play.enroll("nix")
    play.connect("nix", "c1", protocol=0)
    play.beat("nix", "c1")
    play.give("pull", "nix")
    draft = step.step(
        play.memory,
        HeartbeatReceived("c1", "gateway", "nix", agent_frames.Heartbeat(agent_frames.Metrics(cpu=9.0), "pull")),
        play.now,
    )
    effects = draft.apply()
    assert effects.durable
    (at_once,) = [msgspec.json.decode(change.fields) for change in effects.at_once]
    assert at_once["metrics"] == {"cpu": 9.0}
    assert [sorted(msgspec.json.decode(change.fields)) for change in effects.rows if change.kind == "host"] == [
        ["ledger"]
    ]


def test_the_next_hub_learns_from_the_census_how_far_the_agent_is() -> None:
    connection = _connection()
    step = {"pull": {"current": 1, "total": 4, "status": "in_progress"}}
    _said(connection, agent_frames.OperationProgress(step))
    info = connection.census()
    assert info is not None
    play = Play()
    play.enroll("nix")
    info = msgspec.structs.replace(info, connection="c1", enrolment=play.memory.hosts["nix"].enrolment)
    done = play.do(CensusTaken("gateway", 1, "boot", 0, True, [info]))
    (shown,) = [msgspec.json.decode(change.fields) for change in done.rows if change.kind == "host"]
    assert shown["progress"] == step
    _said(connection, agent_frames.OperationProgress({f"op{n}": {} for n in range(500)}))
    large = connection.census()
    assert large is not None
    assert large.progress == b"{}", "a census of many hosts stays small"
