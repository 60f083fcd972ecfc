"""What was put aside: kept in bounds, tried again, discarded; and a flood of it suspends the agent it came from."""

from __future__ import annotations

import msgspec
import pytest
from doubles.fleet_play import Play, delivered

from processes.core.errors import LocalError
from processes.core.hub import flood, step
from processes.core.hub.effects import AddOutput, Drop, Effects, Put
from processes.core.records import dead_letter
from processes.core.records.command import State
from processes.core.records.dead_letter import DeadLetter, Why
from processes.core.travels import messages
from processes.core.travels.agent_frames import Heartbeat
from processes.core.travels.messages import (
    CensusTaken,
    CloseConnection,
    Death,
    DeliverAck,
    DiscardDeadLetter,
    EnrollHost,
    GiveCommand,
    HeartbeatReceived,
    LiftHost,
    OutputReceived,
    PutAside,
    RequestReceived,
    RetryDeadLetter,
    StatusReceived,
    TokenChanged,
    TokensPiece,
)
from processes.core.values import CANARY_HOST, CloseCode, OutputRecord, Presence, Stream


@pytest.fixture
def play() -> Play:
    play = Play()
    play.enroll("a", "b", "c", "d")
    play.connect("a", "c1")
    return play


def aside(
    play: Play, event: messages.Event | step.OwnEvent, id: str, why: Why = Why.POISON, *, again: bool = False
) -> Effects:
    """The event is put aside, and what follows is done."""
    kept = dead_letter.of_event(id, play.now.wall_s, event, why, error="it ended", name=f"name {id}")
    effects = step.put_aside(play.memory, event, kept, play.now, again=again).apply()
    play.settle()
    return effects


def beat(host: str = "a", connection: str = "c1", number: float = 1.0) -> HeartbeatReceived:
    return HeartbeatReceived(connection, "gateway", host, Heartbeat(command_pid=int(number)))


def report(command_id: str, host: str = "a") -> StatusReceived:
    return StatusReceived("c1", "gateway", host, "ok", 0, "", command_id)


# what put aside means


def test_a_copy_of_what_was_put_aside_is_answered_like_it_and_makes_no_further_dead_letter(play: Play) -> None:
    event = RequestReceived("r", "fanout", "ann", play.at_s + 5, GiveCommand("pull", ["a"]))
    for again in (False, True):
        effects = aside(play, event, "l1", again=again)
        assert [reply.status for _, reply in effects.replies] == [500]
        assert "l1" in effects.replies[0][1].body.decode()
        assert len([write for write in effects.writes if isinstance(write, Put) and write.table == "deadletters"]) == (
            0 if again else 1
        )


def test_output_put_aside_is_acknowledged_and_a_line_says_so_and_the_report_still_comes_through(play: Play) -> None:
    (command_id,) = play.give("pull", "a")
    play.ack("a", "c1", command_id)
    event = OutputReceived(
        "c1", "gateway", "a", [OutputRecord(n, Stream.STDOUT, f"line {n}") for n in range(3)], command_id
    )
    effects = aside(play, event, "l1")
    (ack,) = delivered(effects, DeliverAck)
    assert isinstance(ack, DeliverAck)
    assert ack.offset == 3
    (told,) = [write.records[0] for write in effects.writes if isinstance(write, AddOutput)]
    assert "l1" in told.data
    play.report("a", "c1", command_id)
    assert play.state(command_id) is State.SUCCEEDED


def test_a_census_goes_on_without_the_connection_that_is_poison(play: Play) -> None:
    bad, good = play.connection("b", "c2"), play.connection("c", "c3")
    play.do(CensusTaken("gateway", 9, "boot", 0, False, [play.memory.connections["c1"], good]))
    aside(play, CensusTaken("gateway", 9, "boot", 1, True, [bad]), "l1")
    assert {name for name, link in play.memory.links.items() if link.presence is Presence.ONLINE} == {"a", "c"}
    assert play.memory.settled
    assert play.memory.dead_letters["l1"].host == "b"


def test_a_timer_that_is_poison_is_taken_so_that_the_next_one_comes(play: Play) -> None:
    play.give("pull", "b", ttl_s=10)
    play.at_s += 20
    timer = step.elapsed(play.memory, play.now)
    assert timer is not None
    kept = dead_letter.of_event("l1", 1.0, timer, Why.POISON, error="")
    step.put_aside(play.memory, timer, kept, play.now).apply()
    assert step.elapsed(play.memory, play.now) is None


# bounds


def test_the_oldest_of_too_many_dead_letters_go_in_number_and_in_bytes(play: Play) -> None:
    for number in range(dead_letter.DEAD_LETTERS_MAX):
        play.memory.dead_letters.put_row(f"l{number}", DeadLetter(f"l{number}", 1.0, "X", Why.RAISED))
    effects = step.keep(play.memory, DeadLetter("new", 2.0, "X", Why.RAISED), play.now).apply()
    assert [write.key for write in effects.writes if isinstance(write, Drop)] == ["l0"]
    assert len(play.memory.dead_letters) == dead_letter.DEAD_LETTERS_MAX
    large = DeadLetter("large", 3.0, "X", Why.RAISED, event=b"x" * (dead_letter.DEAD_LETTERS_BYTES_MAX - 2000))
    step.keep(play.memory, large, play.now).apply()
    assert sum(kept.size_bytes for kept in play.memory.dead_letters.values()) <= dead_letter.DEAD_LETTERS_BYTES_MAX
    assert list(play.memory.dead_letters)[-1] == "large"


# trying again


def test_a_retried_report_is_kept_until_it_was_stepped_and_ends_its_lost_command(play: Play) -> None:
    (command_id,) = play.give("pull", "a")
    aside(play, report(command_id), "l1")
    assert play.state(command_id) is State.LOST
    done = play.do(RequestReceived("r", "fanout", "ann", play.at_s + 5, RetryDeadLetter("l1")))
    assert done.replies[0][1].status == 202
    (kept,) = done.retries
    assert (kept.retrying, kept.retries) == (True, 1)
    assert play.memory.dead_letters["l1"].retrying, "a hub that dies now must begin with it"
    play.do(dead_letter.revived(kept))
    assert play.state(command_id) is State.SUCCEEDED


def test_a_retried_request_is_carried_out_though_its_deadline_is_over(play: Play) -> None:
    aside(play, RequestReceived("r", "fanout", "ann", play.at_s + 5, EnrollHost("new", "hash")), "l1")
    play.at_s += 1000
    (kept,) = play.do(RequestReceived("q", "fanout", "ann", play.at_s + 5, RetryDeadLetter("l1"))).retries
    assert play.do(dead_letter.revived(kept)).replies[0][1].status == 201
    assert "new" in play.memory.hosts


def test_each_retry_is_another_name_so_that_its_deaths_are_counted_anew() -> None:
    kept = DeadLetter("l1", 1.0, "StatusReceived", Why.POISON)
    again = msgspec.structs.replace(kept, retries=1)
    assert dead_letter.name_again(kept) != dead_letter.name_again(again) == dead_letter.name_again(again)


def test_what_is_of_its_moment_cannot_be_tried_again_and_what_is_unknown_is_not_there(play: Play) -> None:
    """A registration of a connection that is long gone would show its host as connected."""
    aside(play, beat(), "l1")
    aside(play, step.Due("a"), "l2")
    for id, status in (("l1", 409), ("l2", 409), ("none", 404)):
        assert play.ask(RetryDeadLetter(id)).status == status
    assert not play.memory.dead_letters["l1"].retrying


def test_undecodable_is_tried_again_only_once_this_version_can_read_it(play: Play) -> None:
    item = messages.encode(RequestReceived("r", "fanout", "ann", 1.0, EnrollHost("new", "hash")))
    kept = DeadLetter("l1", 1.0, dead_letter.UNDECODABLE, Why.UNDECODABLE, event=item)
    revived = dead_letter.revived(kept)
    assert isinstance(revived, RequestReceived)
    with pytest.raises(LocalError):
        dead_letter.revived(msgspec.structs.replace(kept, event=b"\x63" + item[1:]))


def test_discarded_is_gone(play: Play) -> None:
    aside(play, beat(), "l1")
    assert play.ask(DiscardDeadLetter("l1")).status == 200
    assert "l1" not in play.memory.dead_letters
    assert play.ask(DiscardDeadLetter("l1")).status == 404


def test_what_a_fanout_left_out_is_one_dead_letter_however_often_it_is_said_and_a_retry_tells_that_fanout(
    play: Play,
) -> None:
    deaths = [Death("host ab", "frozen", "boot", 1.0, 1e9, pid, pid) for pid in (1, 2)]
    for _ in range(2):
        play.do(PutAside("fanout:1", "host ab", "host", "a", deaths))
    (kept,) = play.memory.dead_letters.values()
    assert (kept.process, kept.kind, len(kept.deaths)) == ("fanout:1", "host", 2)
    done = play.do(RequestReceived("r", "fanout", "ann", play.at_s + 5, RetryDeadLetter(kept.id)))
    assert done.tried_again == [("fanout:1", "host ab")]
    assert not play.memory.dead_letters


def test_a_listing_shows_neither_event_nor_stacks_and_one_dead_letter_both(play: Play) -> None:
    death = Death("n", "frozen", "boot", 1.0, 1e9, 7, 7, "incident-1", "File loop.py")
    kept = dead_letter.of_event("l1", 1e9, beat(), Why.POISON, error="first line\nlast line", deaths=[death])
    short, whole = dead_letter.view(kept, whole=False), dead_letter.view(kept, whole=True)
    assert (short.error, bytes(short.event), short.deaths[0].stacks) == ("last line", b"null", None)
    assert (whole.error, whole.deaths[0].stacks, whole.deaths[0].incident) == (
        "first line\nlast line",
        "File loop.py",
        "incident-1",
    )
    assert msgspec.json.decode(whole.event)["host"] == "a"
    assert msgspec.json.decode(msgspec.json.encode(whole), type=dead_letter.DeadLetterView) == whole


# a flood


def suspended(play: Play, name: str) -> bool:
    return bool(play.memory.hosts[name].suspended)


def test_the_second_deadly_event_suspends_after_four_restarts_and_closes_the_connection(play: Play) -> None:
    aside(play, beat(number=1), "l1")
    assert not suspended(play, "a")
    effects = aside(play, beat(number=2), "l2")
    assert suspended(play, "a")
    (change,) = delivered(effects, TokenChanged)
    assert isinstance(change, TokenChanged)
    assert (change.host, change.token, change.code) == ("a", None, CloseCode.SUSPENDED)
    assert 4500 <= change.code <= 4999


def test_events_that_raise_suspend_at_the_fifth_within_ten_minutes_and_not_spread_over_longer(play: Play) -> None:
    for number in range(flood.FLOOD_MAX - 1):
        aside(play, beat(number=number), f"l{number}", Why.RAISED)
    play.at_s += flood.FLOOD_S + 1
    aside(play, beat(number=8), "l8", Why.RAISED)
    assert not suspended(play, "a")
    for number in range(10, 10 + flood.FLOOD_MAX - 1):
        aside(play, beat(number=number), f"l{number}", Why.RAISED)
    assert suspended(play, "a")


def test_when_events_of_many_hosts_raise_the_fault_is_the_hubs_and_nobody_is_suspended(play: Play) -> None:
    for number in range(3 * flood.FLOOD_MAX):
        for host in "abcd":
            aside(play, beat(host, number=number), f"{host}{number}", Why.RAISED)
    # those that began before the others had any may not be told from a flood; with all four at it, nobody is
    assert not any(suspended(play, host) for host in "abcd")


def test_the_canary_and_who_only_strays_are_never_suspended(play: Play) -> None:
    for number in range(9):
        aside(play, beat(CANARY_HOST, number=number), f"c{number}")
        play.report("a", "c1", f"stray{number}")
    assert not suspended(play, "a")
    assert not play.memory.hosts_suspended


def test_a_stray_report_that_is_repeated_is_kept_once_written_once_and_acknowledged_each_time(play: Play) -> None:
    """The bug it would catch: a thousand agents that repeat one report each keep the hub busy with its thousand dead
    letters, so honest agents' reports wait for seconds.
    """
    first = play.do(report("none"))
    assert [write.table for write in first.writes if isinstance(write, Put)] == ["deadletters"]
    play.wait(1.0)
    again = play.do(report("none"))
    assert not again.writes
    assert [len(delivered(effects, DeliverAck)) for effects in (first, again)] == [1, 1]
    other = play.do(msgspec.structs.replace(report("none"), message="another end"))
    assert [write.table for write in other.writes if isinstance(write, Put)] == ["deadletters"]


def test_a_suspended_agents_words_are_neither_stepped_nor_acknowledged_nor_kept(play: Play) -> None:
    """What waits in the queue of a flood would else cost two restarts each; a good agent says it again when it is
    lifted.
    """
    (command_id,) = play.give("pull", "a")
    flooded(play)
    number = len(play.memory.dead_letters)
    for effects in (play.do(report(command_id)), aside(play, report(command_id), "l9")):
        assert not delivered(effects, DeliverAck)
        assert [m.code for m in delivered(effects, CloseConnection) if isinstance(m, CloseConnection)] == [
            CloseCode.SUSPENDED
        ]
    assert play.state(command_id) is State.SENT
    assert len(play.memory.dead_letters) == number
    play.disconnect("a", "c1")
    assert play.memory.links["a"].presence is Presence.OFFLINE


def test_nobody_gets_in_with_a_suspended_token_until_it_is_lifted_whatever_restarts(play: Play) -> None:
    flooded(play)
    play.restart()
    assert [name for name, host in play.memory.hosts.items() if host.suspended] == ["a"]
    pieces = delivered(play.do(CensusTaken("gateway", 1, "b", 0, True)), TokensPiece)
    tokens = [token.host for piece in pieces for token in piece.tokens]  # type: ignore[union-attr]
    assert tokens == ["b", "c", "d"]
    closed = delivered(play.do(CensusTaken("gateway", 2, "b", 0, True, [play.connection("a", "c9")])), CloseConnection)
    assert [m.code for m in closed if isinstance(m, CloseConnection)] == [CloseCode.SUSPENDED]
    done = play.do(RequestReceived("r", "fanout", "ann", play.at_s + 5, LiftHost("a")))
    (change,) = delivered(done, TokenChanged)
    assert isinstance(change, TokenChanged)
    assert change.token is not None
    assert msgspec.json.decode(done.replies[0][1].body)["suspended"] == ""
    play.connect("a", "c10")
    assert play.memory.links["a"].presence is Presence.ONLINE


def test_after_a_lift_the_count_begins_anew_and_enrolling_again_lifts_too(play: Play) -> None:
    flooded(play)
    play.ask(LiftHost("a"))
    aside(play, beat(number=7), "l7")
    assert not suspended(play, "a")
    aside(play, beat(number=8), "l8")
    assert suspended(play, "a")
    assert play.ask(EnrollHost("a", "other", again=True)).status == 201
    assert not suspended(play, "a")
    assert not play.memory.hosts_suspended
    aside(play, beat(number=9), "l9")
    assert not suspended(play, "a")


def test_what_a_hub_before_put_aside_counts_on(play: Play) -> None:
    """Poison ends the hub: a count in memory alone would never come to two."""
    aside(play, beat(number=1), "l1")
    play.restart()
    aside(play, beat(number=2), "l2")
    assert suspended(play, "a")


def flooded(play: Play) -> None:
    for number in (1, 2):
        aside(play, beat(number=number), f"f{number}")
    assert suspended(play, "a")
