"""The hub's heart: presence, requests, deliveries and reports, step by step."""

from __future__ import annotations

import msgspec
import pytest
from doubles.fleet_play import Play, delivered, sent

from processes.core.hub import step
from processes.core.hub.rules import Rules
from processes.core.records import dead_letter
from processes.core.records.command import State
from processes.core.records.dead_letter import DeadLetter, Why
from processes.core.travels import messages
from processes.core.travels.agent_frames import CommandOptions, Heartbeat, Register
from processes.core.travels.messages import CancelCommand, DeliverAck, DeliverKill, GiveCommand
from processes.core.values import CANARY_HOST, OutputRecord, Presence, Stream


@pytest.fixture
def play() -> Play:
    """A hub with two hosts, both connected."""
    play = Play()
    play.enroll("a", "b")
    play.connect("a", "c1")
    play.connect("b", "c2")
    return play


def presence(play: Play, host: str) -> Presence:
    return play.memory.links[host].presence


# the founding incident: register, then unregister


def test_register_then_unregister_goes_on(play: Play) -> None:
    """The lock that was taken twice: a disconnect while the same step's registration is fresh leaves a hub that steps
    on.
    """
    for number in range(1000):
        play.connect("a", f"x{number}")
        play.disconnect("a", f"x{number}")
        assert presence(play, "a") is Presence.OFFLINE
    assert presence(play, "b") is Presence.ONLINE
    assert play.ask(GiveCommand("pull", ["b"])).status == 202


# presence


def test_a_disconnect_of_an_older_connection_counts_nothing(play: Play) -> None:
    play.at_s += 1
    play.connect("a", "c9")
    play.disconnect("a", "c1")
    assert presence(play, "a") is Presence.ONLINE
    play.disconnect("a", "c9")
    assert presence(play, "a") is Presence.OFFLINE


def test_a_second_connection_replaces_the_first_which_is_closed(play: Play) -> None:
    play.at_s += 1
    closed = delivered(play.connect("a", "c9"), messages.CloseConnection)
    assert [(c.connection, c.code) for c in closed if isinstance(c, messages.CloseConnection)] == [("c1", 4409)]


def test_missed_heartbeats_make_a_host_stale_and_one_more_makes_it_online(play: Play) -> None:
    for _ in range(10):
        play.wait(5)
        play.beat("b", "c2")
    assert (presence(play, "a"), presence(play, "b")) == (Presence.STALE, Presence.ONLINE)
    play.beat("a", "c1")
    assert presence(play, "a") is Presence.ONLINE


def test_restored_hosts_are_stale_until_the_census_and_then_offline_or_online(play: Play) -> None:
    info = play.memory.connections["c1"]
    play.restart()
    assert presence(play, "a") is presence(play, "b") is Presence.STALE
    play.do(messages.CensusTaken("gateway", 1, "boot", 0, True, [info]))
    assert (presence(play, "a"), presence(play, "b")) == (Presence.ONLINE, Presence.OFFLINE)


def test_without_a_census_restored_hosts_are_offline_after_the_settling_time(play: Play) -> None:
    play.restart()
    play.wait(4.9)
    assert presence(play, "a") is Presence.STALE
    play.wait(0.2)
    assert presence(play, "a") is Presence.OFFLINE


def test_a_census_in_pieces_ends_what_is_in_none_of_them(play: Play) -> None:
    info = play.memory.connections["c1"]
    play.do(messages.CensusTaken("gateway", 1, "boot", 0, False, [info]))
    assert presence(play, "b") is Presence.ONLINE
    play.do(messages.CensusTaken("gateway", 1, "boot", 1, True, []))
    assert (presence(play, "a"), presence(play, "b")) == (Presence.ONLINE, Presence.OFFLINE)


def test_a_connection_that_registers_during_a_census_is_not_ended_by_it(play: Play) -> None:
    play.do(messages.CensusTaken("gateway", 1, "boot", 0, False, [play.memory.connections["c1"]]))
    play.at_s += 1
    play.connect("b", "c22")
    play.do(messages.CensusTaken("gateway", 1, "boot", 1, True, []))
    assert presence(play, "b") is Presence.ONLINE


def test_the_census_is_answered_with_every_token(play: Play) -> None:
    effects = play.do(messages.CensusTaken("gateway", 1, "boot", 0, True, []))
    pieces = [m for m in delivered(effects, messages.TokensPiece) if isinstance(m, messages.TokensPiece)]
    assert [token.host for piece in pieces for token in piece.tokens] == ["a", "b"]
    assert pieces[-1].last


# accepting


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (GiveCommand("pull", ["a", "nobody"]), 404, "unknown_host"),
        (GiveCommand("reboot", ["a"]), 422, "unknown_op"),
        (GiveCommand("pull", ["a", "a"]), 400, "malformed"),
        (GiveCommand("pull", []), 400, "malformed"),
        (GiveCommand("rm -rf /", ["a"]), 400, "malformed"),
        (GiveCommand("pull", ["a"], ttl_s=-1), 400, "malformed"),
        (GiveCommand("pull", ["a"], ttl_s=8 * 86400), 400, "malformed"),
        (GiveCommand("pull", ["a"], key="k" * 129), 400, "malformed"),
        (GiveCommand("pull", [CANARY_HOST]), 404, "unknown_host"),
        (CancelCommand("nothing"), 404, "unknown_command"),
        (messages.EnrollHost("not a name", "h"), 400, "malformed"),
        (messages.EnrollHost(CANARY_HOST, "h"), 400, "malformed"),
        (messages.EnrollHost("a", "h"), 409, "exists"),
        (messages.RevokeHost("nobody"), 404, "unknown_host"),
        (messages.RemoveHost(CANARY_HOST), 404, "unknown_host"),
        (messages.CreateToken("h", "king"), 400, "malformed"),
        (messages.RehearseFault("deadlock", 1), 409, "drills_disabled"),
    ],
)
def test_a_bad_request_is_refused_whole_and_changes_nothing(
    play: Play, request_: messages.Request, status: int, code: str
) -> None:
    before = play.memory.ledger
    event = messages.RequestReceived("r", "fanout", "ann", play.at_s + 5, request_)
    effects = play.do(event)
    ((_, reply),) = effects.replies
    assert (reply.status, msgspec.json.decode(reply.body)["error"]) == (status, code)
    assert not effects.durable
    assert play.memory.ledger == before


def test_a_request_past_its_deadline_is_refused_and_not_done(play: Play) -> None:
    reply = play.ask(GiveCommand("pull", ["a"]), deadline_s=-0.1)
    assert (reply.status, play.memory.ledger.accepted) == (503, 0)


def test_the_same_request_asked_again_gets_the_same_answer_once_done(play: Play) -> None:
    first = play.ask(GiveCommand("pull", ["a"]), request_id="r")
    again = play.ask(GiveCommand("pull", ["a"]), request_id="r")
    assert (again.status, again.body) == (first.status, first.body)
    assert play.memory.ledger.accepted == 1


def test_the_same_request_asked_of_the_next_hub_gets_the_same_answer(play: Play) -> None:
    first = play.ask(GiveCommand("pull", ["a"]), request_id="r")
    play.restart()
    assert play.ask(GiveCommand("pull", ["a"]), request_id="r").body == first.body
    assert play.memory.ledger.accepted == 1


def test_a_key_gives_the_same_commands_and_refuses_another_request(play: Play) -> None:
    ids = play.give("pull", "a", key="k")
    again = play.ask(GiveCommand("pull", ["a"], "k"))
    assert (again.status, [c["id"] for c in msgspec.json.decode(again.body)["commands"]]) == (200, ids)
    assert play.ask(GiveCommand("pull", ["b"], "k")).status == 409
    assert play.ask(GiveCommand("pull", ["a"], "k", ttl_s=1.0)).status == 409
    assert play.ask(GiveCommand("pull", ["nobody"], "k")).status == 409
    assert play.ask(GiveCommand("not_offered", ["a"], "k")).status == 409
    assert play.memory.ledger.accepted == 1


def test_a_key_stands_for_its_commands_whatever_became_of_their_hosts(play: Play) -> None:
    ids = play.give("pull", "a", key="k")
    play.ask(messages.RemoveHost("a"))
    again = play.ask(GiveCommand("pull", ["a"], "k"))
    assert (again.status, [c["id"] for c in msgspec.json.decode(again.body)["commands"]]) == (200, ids)


def test_too_many_open_commands_of_a_host_are_refused(play: Play) -> None:
    play.rules = play.memory.rules = Rules(queued_per_host_max=3)
    for _ in range(3):
        play.give("pull", "a")
    assert play.ask(GiveCommand("pull", ["a"])).status == 429
    assert play.ask(GiveCommand("pull", ["b"])).status == 202


def test_too_many_open_commands_in_all_are_refused_with_the_number_until_some_have_ended(play: Play) -> None:
    play.rules = play.memory.rules = Rules(open_max=3)
    (command_id,) = play.give("pull", "a")
    assert play.ask(GiveCommand("pull", ["a", "b"])).status == 202
    refused = play.ask(GiveCommand("pull", ["b"]))
    assert (refused.status, msgspec.json.decode(refused.body)["error"]) == (429, "too_many")
    assert "3 commands are open in all" in msgspec.json.decode(refused.body)["message"]
    assert play.memory.ledger.accepted == 3
    play.report("a", "c1", command_id)
    assert play.ask(GiveCommand("pull", ["b"])).status == 202


def test_the_ops_of_a_host_that_was_never_seen_are_accepted(play: Play) -> None:
    play.enroll("new")
    assert play.ask(GiveCommand("anything", ["new"])).status == 202


# delivering


def test_a_command_goes_out_at_once_and_ends_by_the_agents_word(play: Play) -> None:
    (command_id,) = play.give("pull", "a")
    assert play.state(command_id) is State.SENT
    play.ack("a", "c1", command_id)
    assert play.state(command_id) is State.RUNNING
    acks = delivered(play.report("a", "c1", command_id), DeliverAck)
    assert play.state(command_id) is State.SUCCEEDED
    assert [(a.command_id, a.offset) for a in acks if isinstance(a, DeliverAck)] == [(command_id, None)]


def test_commands_of_a_host_go_out_one_after_the_other_in_order(play: Play) -> None:
    ids = [play.give("pull", "a")[0] for _ in range(3)]
    order = []
    for _ in range(3):
        (running,) = [i for i in ids if play.state(i) is State.SENT]
        order.append(running)
        play.report("a", "c1", running)
    assert order == ids


def test_a_concurrent_op_goes_out_beside_another(play: Play) -> None:
    play.at_s += 1
    play.connect("a", "c10", commands=["pull", "uptime"], command_options={"uptime": CommandOptions(concurrent=True)})
    pull, waiting = play.give("pull", "a")[0], play.give("pull", "a")[0]
    beside = play.give("uptime", "a")[0]
    assert [play.state(i) for i in (pull, waiting, beside)] == [State.SENT, State.QUEUED, State.SENT]


def test_an_offline_host_gets_its_commands_when_it_is_back(play: Play) -> None:
    play.disconnect("a", "c1")
    (command_id,) = play.give("pull", "a")
    assert play.state(command_id) is State.QUEUED
    assert sent(play.connect("a", "c9")) == [command_id]


def test_a_queued_command_expires_and_a_sent_one_never_does(play: Play) -> None:
    play.disconnect("a", "c1")
    (queued,), (going,) = play.give("pull", "a", ttl_s=60), play.give("pull", "b", ttl_s=60)
    play.wait(61)
    assert (play.state(queued), play.command(queued).reason) == (State.EXPIRED, "host_offline")
    assert play.state(going) is State.SENT


def test_ttl_zero_to_an_offline_host_is_accepted_and_expires_at_once(play: Play) -> None:
    play.disconnect("a", "c1")
    reply = play.ask(GiveCommand("pull", ["a"], ttl_s=0))
    (view,) = msgspec.json.decode(reply.body)["commands"]
    assert (reply.status, view["state"], view["reason"]) == (202, "expired", "host_offline")


def test_ttl_zero_to_an_online_host_goes_out_with_time_to_start(play: Play) -> None:
    effects_before = len(play.effects.deliveries)
    (command_id,) = play.give("pull", "a", ttl_s=0)
    assert play.state(command_id) is State.SENT
    (delivery,) = [m for _, m in play.effects.deliveries[effects_before:] if isinstance(m, messages.DeliverCommand)]
    assert delivery.expires_boot_s is not None
    assert delivery.expires_boot_s > play.at_s


def test_a_sent_command_without_an_answer_is_redelivered_until_it_is_acknowledged(play: Play) -> None:
    (command_id,) = play.give("pull", "a")
    assert sent(play.wait(4.9)) == []
    assert sent(play.wait(0.2)) == [command_id]
    assert sent(play.wait(5.1)) == [command_id]
    assert play.command(command_id).attempt == 3
    play.ack("a", "c1", command_id)
    assert sent(play.wait(60)) == []


def test_an_undelivered_command_goes_out_again_when_the_host_is_back(play: Play) -> None:
    (command_id,) = play.give("pull", "a")
    play.do(messages.Undelivered("c1", "gateway", "a", command_id, 1))
    play.disconnect("a", "c1")
    assert sent(play.connect("a", "c9")) == [command_id]


# coming back


def test_a_sent_command_that_the_same_journal_does_not_name_is_redelivered(play: Play) -> None:
    (command_id,) = play.give("pull", "a")
    play.disconnect("a", "c1")
    assert sent(play.connect("a", "c9")) == [command_id]


def test_a_sent_command_that_another_journal_does_not_name_is_lost(play: Play) -> None:
    (command_id,) = play.give("pull", "a")
    play.disconnect("a", "c1")
    assert sent(play.connect("a", "c9", journal_id="other")) == []
    assert (play.state(command_id), play.command(command_id).reason) == (State.LOST, "journal_replaced")


def test_a_running_command_that_the_agent_does_not_name_is_lost(play: Play) -> None:
    (command_id,) = play.give("pull", "a")
    play.ack("a", "c1", command_id)
    play.disconnect("a", "c1")
    assert sent(play.connect("a", "c9")) == []
    assert (play.state(command_id), play.command(command_id).reason) == (State.LOST, "forgotten")


def test_a_command_that_the_agent_names_runs_on(play: Play) -> None:
    (command_id,) = play.give("pull", "a")
    play.disconnect("a", "c1")
    assert play.command(command_id).unheard_wall_s is not None
    assert sent(play.connect("a", "c9", known=[command_id])) == []
    assert (play.state(command_id), play.command(command_id).unheard_wall_s) == (State.RUNNING, None)


def test_a_census_repeats_an_old_registration_and_forgets_nothing(play: Play) -> None:
    """A hub that starts gets the register frame from before the command: that says nothing about the command."""
    (command_id,) = play.give("pull", "a")
    play.ack("a", "c1", command_id)
    infos = [play.memory.connections["c1"], play.memory.connections["c2"]]
    play.at_s += 1
    play.restart()
    assert sent(play.do(messages.CensusTaken("gateway", 1, "boot", 0, True, infos))) == []
    assert play.state(command_id) is State.RUNNING


def test_a_hub_that_died_before_delivering_leaves_it_to_its_successor(play: Play) -> None:
    (command_id,) = play.give("pull", "a")
    infos = [play.memory.connections["c1"], play.memory.connections["c2"]]
    play.at_s += 1
    play.restart()
    assert sent(play.do(messages.CensusTaken("gateway", 1, "boot", 0, True, infos))) == [command_id]


def test_a_late_report_ends_a_lost_command_once_and_is_always_acknowledged(play: Play) -> None:
    (command_id,) = play.give("pull", "a")
    play.ack("a", "c1", command_id)
    play.disconnect("a", "c1")
    play.at_s += 1
    play.connect("a", "c9")
    assert play.state(command_id) is State.LOST
    for status in ("ok", "error"):
        assert len(delivered(play.report("a", "c9", command_id, status), DeliverAck)) == 1
    command = play.command(command_id)
    assert (command.state, command.lost_wall_s is not None) == (State.SUCCEEDED, True)


def test_silence_makes_a_command_lost_only_after_the_setting(play: Play) -> None:
    (command_id,) = play.give("pull", "a")
    play.ack("a", "c1", command_id)
    play.disconnect("a", "c1")
    play.wait(86_000)
    assert play.state(command_id) is State.RUNNING
    play.wait(500)
    assert (play.state(command_id), play.command(command_id).reason) == (State.LOST, "silence")


def test_a_report_of_another_host_changes_nothing(play: Play) -> None:
    """Identity: an agent can end only its own commands."""
    (command_id,) = play.give("pull", "a")
    play.report("b", "c2", command_id)
    play.ack("b", "c2", command_id)
    assert play.state(command_id) is State.SENT


def test_commands_belong_to_the_enrolment_not_to_the_name(play: Play) -> None:
    ((running,),) = [play.give("pull", "a")]
    queued = play.give("pull", "a")[0]
    play.ask(messages.RemoveHost("a"))
    assert (play.state(running), play.state(queued)) == (State.LOST, State.CANCELLED)
    play.enroll("a")
    assert sent(play.connect("a", "c9")) == []
    play.report("a", "c9", running)
    assert play.state(running) is State.LOST


def test_a_revoked_host_is_told_to_every_gateway_and_keeps_its_commands(play: Play) -> None:
    play.disconnect("a", "c1")
    (command_id,) = play.give("pull", "a")
    event = messages.RequestReceived("r", "fanout", "ann", play.at_s + 5, messages.RevokeHost("a"))
    (changed,) = delivered(play.do(event), messages.TokenChanged)
    assert isinstance(changed, messages.TokenChanged)
    assert (changed.host, changed.token) == ("a", None)
    assert play.state(command_id) is State.QUEUED


# cancelling


def test_a_queued_command_is_cancelled_at_once_and_a_sent_one_by_the_agents_word(play: Play) -> None:
    sent_id, queued = play.give("pull", "a")[0], play.give("pull", "a")[0]
    assert play.ask(CancelCommand(queued)).status == 202
    assert play.state(queued) is State.CANCELLED
    done = play.do(messages.RequestReceived("r", "fanout", "ann", play.at_s + 5, CancelCommand(sent_id)))
    assert len(delivered(done, DeliverKill)) == 1
    assert play.state(sent_id) is State.SENT
    play.report("a", "c1", sent_id, "cancelled", -15)
    assert play.state(sent_id) is State.CANCELLED
    assert play.ask(CancelCommand(sent_id)).status == 409


def test_whoever_cancels_first_is_named_also_if_somebody_asks_again(play: Play) -> None:
    (command_id,) = play.give("pull", "a")
    for actor, later_s in (("bob", 1.0), ("admin", 4.0)):
        play.do(
            messages.RequestReceived(f"by {actor}", "fanout", actor, play.at_s + later_s, CancelCommand(command_id))
        )
    assert play.command(command_id).cancel_actor == "bob"


def test_a_completed_exit_wins_over_a_cancel(play: Play) -> None:
    (command_id,) = play.give("pull", "a")
    play.ask(CancelCommand(command_id))
    play.report("a", "c1", command_id, "ok", 0)
    assert play.state(command_id) is State.SUCCEEDED


def test_a_cancel_while_the_host_is_away_reaches_it_when_it_is_back(play: Play) -> None:
    (command_id,) = play.give("pull", "a")
    play.ack("a", "c1", command_id)
    play.disconnect("a", "c1")
    play.ask(CancelCommand(command_id))
    kills = delivered(play.connect("a", "c9", known=[command_id]), DeliverKill)
    assert [k.command_id for k in kills if isinstance(k, DeliverKill)] == [command_id]


# output


def output(
    play: Play,
    command_id: str | None,
    *offsets: int | None,
    data: str = "line",
    host: str = "a",
    connection: str = "c1",
) -> list[int | None]:
    records = [OutputRecord(offset, Stream.STDOUT, data) for offset in offsets]
    effects = play.do(messages.OutputReceived(connection, "gateway", host, records, command_id))
    return [ack.offset for ack in delivered(effects, DeliverAck) if isinstance(ack, DeliverAck)]


def test_output_is_kept_once_and_acknowledged_by_offset(play: Play) -> None:
    (command_id,) = play.give("pull", "a")
    assert output(play, command_id, 0, 1) == [2]
    assert output(play, command_id, 1, 2) == [3]
    assert output(play, command_id, 5) == [3]  # something is missing before it
    rows = [w for w in play.effects.writes if type(w).__name__ == "AddOutput"]
    assert [record.offset for row in rows for record in row.records] == [0, 1, 2]  # type: ignore[union-attr]


def test_output_of_a_command_that_is_not_known_is_acknowledged_and_not_kept(play: Play) -> None:
    assert output(play, "nothing", 0, 1) == [2]
    assert not [w for w in play.effects.writes if type(w).__name__ == "AddOutput"]


def test_output_past_the_limit_is_marked_once_and_still_acknowledged(play: Play) -> None:
    play.memory.rules = Rules(output_bytes_max=100)
    (command_id,) = play.give("pull", "a")
    assert output(play, command_id, 0, 1, 2, 3, data="x" * 60) == [4]
    rows = [w for w in play.effects.writes if type(w).__name__ == "AddOutput"]
    kept = [record.data for row in rows for record in row.records]  # type: ignore[union-attr]
    assert len(kept) == 2
    assert "cut" in kept[1]
    assert play.command(command_id).output_truncated


# foreign agents


@pytest.fixture
def foreign() -> Play:
    play = Play()
    play.enroll("f")
    play.do(messages.AgentRegistered("f1", "gateway", "f", play.connection("f", "f1", register=Register("f"))))
    play.beat("f", "f1")
    return play


def test_a_foreign_agents_report_ends_its_command_and_is_not_acknowledged(foreign: Play) -> None:
    (command_id,) = foreign.give("pull", "f")
    assert (
        output(foreign, command_id, None, None, host="f", connection="f1") == []
    )  # no ack: it would not understand one
    assert foreign.command(command_id).output_next == 2
    assert delivered(foreign.report("f", "f1", command_id, "ok"), DeliverAck) == []
    assert foreign.state(command_id) is State.SUCCEEDED


def test_a_foreign_agent_never_gets_a_command_twice(foreign: Play) -> None:
    (command_id,) = foreign.give("pull", "f")
    assert sent(foreign.wait(60)) == []
    info = msgspec.structs.replace(foreign.memory.connections["f1"], written=[command_id])
    foreign.restart()
    assert sent(foreign.do(messages.CensusTaken("gateway", 1, "boot", 0, True, [info]))) == []


def test_a_foreign_agent_gets_it_again_only_if_its_frame_was_surely_not_written(foreign: Play) -> None:
    (command_id,) = foreign.give("pull", "f")
    info = foreign.memory.connections["f1"]
    foreign.at_s += 1
    foreign.restart()
    assert sent(foreign.do(messages.CensusTaken("gateway", 1, "boot", 0, True, [info]))) == [command_id]


def test_a_foreign_command_whose_connection_was_lost_is_lost_unless_the_agent_names_it(foreign: Play) -> None:
    (command_id,) = foreign.give("pull", "f")
    foreign.disconnect("f", "f1")
    foreign.at_s += 1
    foreign.do(messages.AgentRegistered("f2", "gateway", "f", foreign.connection("f", "f2", register=Register("f"))))
    assert foreign.state(command_id) is State.SENT
    foreign.beat("f", "f2", "pull")
    assert foreign.state(command_id) is State.RUNNING
    foreign.disconnect("f", "f2")
    foreign.at_s += 1
    foreign.do(messages.AgentRegistered("f3", "gateway", "f", foreign.connection("f", "f3", register=Register("f"))))
    foreign.beat("f", "f3", None)
    assert (foreign.state(command_id), foreign.command(command_id).reason) == (State.LOST, "connection_lost")


def comes_back(play: Play, before: bytes, after: bytes, op: str) -> str:
    """A foreign host that says `before` of itself gets an op, its connection is lost, and it comes back saying
    `after`.
    """
    for connection, facts in (("f1", before), ("f2", after)):
        play.at_s += 1
        info = play.connection("f", connection, register=Register("f"))
        play.do(
            messages.AgentRegistered(
                connection, "gateway", "f", msgspec.structs.replace(info, facts=messages.Json(facts))
            )
        )
        if connection == "f1":
            play.do(messages.HeartbeatReceived("f1", "gateway", "f", Heartbeat(), messages.Json(before)))
            (command_id,) = play.give(op, "f")
            play.disconnect("f", connection)
    play.do(messages.HeartbeatReceived("f2", "gateway", "f", Heartbeat(), messages.Json(after)))
    return command_id


@pytest.mark.parametrize(
    ("op", "after", "state"),
    [
        ("switch", b'{"generation":"2"}', State.SUCCEEDED),
        ("pull-switch", b'{"generation":"2"}', State.SUCCEEDED),
        ("switch", b'{"generation":"1"}', State.LOST),
        ("switch", b"{}", State.LOST),
        ("reboot", b'{"generation":"2"}', State.LOST),
    ],
)
def test_a_switch_without_a_report_succeeded_only_if_the_host_shows_it(op: str, after: bytes, state: State) -> None:
    play = Play()
    play.enroll("f")
    command = play.command(comes_back(play, b'{"generation":"1"}', after, op))
    assert command.state is state
    assert "before: generation 1" in command.message, "both sets of evidence are told"
    assert "after: " in command.message


# the canary


def test_the_canary_goes_round_and_leaves_no_trace_in_ledger_and_counts(play: Play) -> None:
    info = messages.Connection(
        "can", "gateway", CANARY_HOST, CANARY_HOST, Register(CANARY_HOST, protocol=1, commands=["noop"])
    )
    play.do(messages.AgentRegistered("can", "gateway", CANARY_HOST, info))
    beat = play.do(messages.HeartbeatReceived("can", "gateway", CANARY_HOST, Heartbeat(command_pid=7)))
    assert bytes(beat.rows[0].fields).count(b'"beat":7') == 1
    before = play.memory.ledger
    (command_id,) = play.give("noop", CANARY_HOST)
    play.ack(CANARY_HOST, "can", command_id)
    done = play.report(CANARY_HOST, "can", command_id)
    assert [c.kind for c in done.rows if c.id == command_id] == ["command", "command_removed"]
    assert (play.memory.ledger, command_id in play.memory.commands) == (before, False)
    assert sum(play.memory.counts().values()) == 2
    said_again = play.report(CANARY_HOST, "can", command_id)  # a hub that died took the acknowledgement with it
    assert len(delivered(said_again, DeliverAck)) == 1
    assert not play.memory.dead_letters


def test_the_canary_goes_round_while_operators_have_filled_all_room_for_commands(play: Play) -> None:
    """The bug it would catch: who gives as many commands as may be open makes the whole look stalled."""
    play.rules = play.memory.rules = Rules(open_max=1)
    play.give("pull", "a")
    assert play.ask(GiveCommand("pull", ["b"])).status == 429
    assert play.ask(GiveCommand("noop", [CANARY_HOST])).status == 202


def test_of_a_host_that_offers_a_thousand_operations_a_refusal_names_a_few(play: Play) -> None:
    play.connect("a", "c9", commands=[f"op{number}" for number in range(1000)])
    refused = play.ask(GiveCommand("pull", ["a"]))
    message = msgspec.json.decode(refused.body)["message"]
    assert (refused.status, message.endswith("op19 and 980 more")) == (422, True)
    play.connect("a", "c10", commands=["op1", "op2"])
    assert msgspec.json.decode(play.ask(GiveCommand("pull", ["a"])).body)["message"].endswith("it offers: op1, op2")


def test_the_canarys_next_round_is_not_held_up_by_one_that_a_gateway_took_with_it(play: Play) -> None:
    register = Register(CANARY_HOST, protocol=1, journal_id="journal", commands=["noop"])
    info = messages.Connection("can", "gateway", CANARY_HOST, CANARY_HOST, register)
    play.do(messages.AgentRegistered("can", "gateway", CANARY_HOST, info))
    (first,), (second,) = play.give("noop", CANARY_HOST), play.give("noop", CANARY_HOST)
    play.do(messages.CensusTaken("gateway", 1, "next", 0, True, []))
    again = msgspec.structs.replace(info, connection="can2", since_boot_s=play.at_s)
    assert sent(play.do(messages.AgentRegistered("can2", "gateway", CANARY_HOST, again))) == [first]
    assert sent(play.report(CANARY_HOST, "can2", first)) == [second]


# the barrier


def _dead_letter(event: messages.Event) -> DeadLetter:
    return dead_letter.of_event("letter-1", 1.0, event, Why.RAISED, error="Traceback …")


def test_a_step_that_raises_has_changed_nothing_and_its_asker_is_told(play: Play) -> None:
    event = messages.RequestReceived("r", "fanout", "ann", play.at_s + 5, GiveCommand("pull", ["a"]))
    effects = step.put_aside(play.memory, event, _dead_letter(event), play.now).apply()
    assert [reply.status for _, reply in effects.replies] == [500]
    assert play.memory.ledger.accepted == 0


def test_a_report_that_raises_is_acknowledged_as_quarantined_and_its_command_lost(play: Play) -> None:
    (command_id,) = play.give("pull", "a")
    event = messages.StatusReceived("c1", "gateway", "a", "ok", 0, "", command_id)
    effects = step.put_aside(play.memory, event, _dead_letter(event), play.now).apply()
    (ack,) = delivered(effects, DeliverAck)
    assert isinstance(ack, DeliverAck)
    assert ack.quarantined
    assert (play.state(command_id), play.command(command_id).reason) == (State.LOST, "quarantined")


def test_the_ledger_adds_up_after_all_of_it(play: Play) -> None:
    for number in range(20):
        (command_id,) = play.give("pull", "a" if number % 2 else "b", ttl_s=number)
        if number % 3 == 0:
            play.ask(CancelCommand(command_id))
        play.wait(1)
    assert play.memory.ledger.accepted == 20
    assert play.memory.ledger.balanced


def test_the_ledger_of_each_host_adds_up_to_that_of_all(play: Play) -> None:
    for number in range(12):
        name, connection = ("a", "c1") if number % 3 else ("b", "c2")
        (command_id,) = play.give("pull", name)
        if number == 11:
            play.ask(CancelCommand(command_id))
        play.report(name, connection, command_id, "error" if number % 2 else "ok")
    a, b, both = play.memory.hosts["a"].ledger, play.memory.hosts["b"].ledger, play.memory.ledger
    assert (a.accepted, a.succeeded, a.failed) == (8, 4, 4)
    assert (b.accepted, b.succeeded, b.failed) == (4, 2, 2)
    assert a.balanced
    assert b.balanced
    assert all(getattr(a, name) + getattr(b, name) == getattr(both, name) for name in both.__struct_fields__)
