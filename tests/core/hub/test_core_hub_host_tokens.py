"""A host's token that its own agent makes anew: asked for until it came, and never another connection's or host's."""

from __future__ import annotations

import msgspec
import pytest
from doubles.fleet_play import Play, delivered

from processes.core.hub.effects import Effects, Revoke
from processes.core.travels import messages
from processes.core.travels.agent_frames import Heartbeat, Register
from processes.core.travels.messages import DeliverRegistered, DeliverRotate, RotateHost, TokenChanged, TokenOffered
from processes.core.values import CloseCode

NEW = "1" * 64


@pytest.fixture
def play() -> Play:
    play = Play()
    play.enroll("a", "b")
    play.connect("a", "c1")
    return play


def offer(play: Play, connection: str = "c1", token_hash: str = NEW) -> Effects:
    return play.do(TokenOffered(connection, "gateway", "a", token_hash))


def rotate(play: Play) -> int:
    return play.ask(RotateHost("a")).status


def test_an_agent_that_is_asked_gives_its_host_a_new_token_and_the_old_one_is_void_for_ever(play: Play) -> None:
    assert rotate(play) == 202
    assert delivered(play.effects, DeliverRotate) == [DeliverRotate(1, "c1")]
    done = offer(play)
    assert Revoke("hash-a") in done.writes
    (change,) = delivered(done, TokenChanged)
    assert isinstance(change, TokenChanged)
    assert (change.token.token_hash if change.token else None, change.code) == (NEW, CloseCode.RESTART)
    host = play.memory.hosts["a"]
    assert (host.token_hash, host.rotation_wall_s) == (NEW, None)
    assert delivered(play.connect("a", "c2"), DeliverRotate) == [], "it has been done"


def test_a_wish_outlives_connections_and_hubs_and_is_told_behind_the_registration(play: Play) -> None:
    play.disconnect("a", "c1")
    assert rotate(play) == 202
    assert delivered(play.effects, DeliverRotate) == []
    for number in (2, 3):
        done = play.connect("a", f"c{number}")
        told = [
            type(message) for _, message in done.deliveries if isinstance(message, DeliverRegistered | DeliverRotate)
        ]
        assert told == [DeliverRegistered, DeliverRotate]
        play.restart()
    play.connect("a", "c4")
    assert Revoke("hash-a") in offer(play, "c4").writes


@pytest.mark.parametrize("restarts", [False, True])
def test_nothing_is_taken_that_was_not_asked_for_or_comes_from_elsewhere(play: Play, *, restarts: bool) -> None:
    """The bugs it would catch: a token said twice voids itself; an old connection's word counts."""
    assert offer(play).writes == []
    rotate(play)
    if restarts:
        play.restart()
        play.connect("a", "c1")
    play.connect("a", "c2")
    assert offer(play, "c1").writes == [], "a connection of the past"
    assert offer(play, "c2", "hash-b").writes == [], "another host's token"
    assert offer(play, "c2", "hash-a").writes == [], "its own: that is no new one"
    offer(play, "c2")
    assert offer(play, "c2").writes == [], "said again"
    assert play.memory.hosts["a"].token_hash == NEW
    assert play.memory.hosts["b"].token_hash == "hash-b"


def test_who_has_no_token_or_cannot_make_one_is_not_asked(play: Play) -> None:
    assert play.ask(RotateHost("nobody")).status == 404
    play.ask(messages.RevokeHost("b"))
    assert play.ask(RotateHost("b")).status == 409
    info = play.connection("a", "c2", register=Register("a"))
    play.do(messages.AgentRegistered("c2", "gateway", "a", info))
    refused = play.ask(RotateHost("a"))
    assert refused.status == 409
    assert "--again" in msgspec.json.decode(refused.body)["message"]


@pytest.mark.parametrize(
    "request_",
    [messages.RevokeHost("a"), messages.EnrollHost("a", "hash-x", again=True)],
    ids=lambda r: type(r).__name__,
)
def test_a_revocation_in_between_wins(play: Play, request_: messages.Request) -> None:
    """The bug it would catch: a revoked host gives itself a token that is good."""
    rotate(play)
    play.ask(request_)
    assert offer(play).writes == []
    assert play.memory.hosts["a"].token_hash in (None, "hash-x")


def test_an_agents_next_token_that_was_made_void_is_not_taken(play: Play) -> None:
    """The bug it would catch: a rotation that was cut short leaves a secret, and the next one brings it back."""
    rotate(play)
    offer(play)
    play.ask(messages.EnrollHost("a", "hash-b", again=True))
    play.connect("a", "c2")
    rotate(play)
    assert offer(play, "c2").writes == []
    assert play.memory.hosts["a"].token_hash == "hash-b"


def test_a_wish_is_told_again_with_each_heartbeat_until_the_answer_has_come(play: Play) -> None:
    """The bug it would catch: an answer that is lost, or comes while storage is blocked, leaves the old token good."""
    beat = messages.HeartbeatReceived("c1", "gateway", "a", Heartbeat())
    assert delivered(play.do(beat), DeliverRotate) == []
    rotate(play)
    for _ in range(2):
        assert delivered(play.do(beat), DeliverRotate) == [DeliverRotate(1, "c1")]
    offer(play)
    assert delivered(play.do(beat), DeliverRotate) == []
