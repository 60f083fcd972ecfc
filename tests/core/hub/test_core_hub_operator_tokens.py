"""Operators' tokens over their lives: what is kept, what is void for ever, and what no restart or clock brings back."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from doubles.fleet_play import Play

from processes.core.hub.effects import AddAudit, Drop, Effects, Put, Revoke
from processes.core.hub.operator_tokens import KEPT_S_MIN, TOKEN_KEPT_S
from processes.core.travels.messages import CreateToken, RevokeToken, RotateToken, TokenUsed
from processes.core.values import token_id

DAY_S = 86400.0
OLD, NEW = "a" * 64, "b" * 64


@pytest.fixture
def play() -> Play:
    return Play()


def made(play: Play, token_hash: str = OLD, expires_s: float | None = None) -> None:
    assert play.ask(CreateToken(token_hash, "operator", "script", expires_s)).status == 201


def rotated(play: Play, overlap_s: float) -> Any:
    reply = play.ask(RotateToken(OLD, NEW, overlap_s))
    return reply.status, msgspec.json.decode(reply.body)


def revoked(effects: Effects) -> list[str]:
    return [write.token_hash for write in effects.writes if isinstance(write, Revoke)]


def audited(play: Play) -> list[tuple[str, str]]:
    lines = [write.line for write in play.effects.writes if isinstance(write, AddAudit)]
    return [(line.subject, line.after) for line in lines]


def test_an_expired_token_is_listed_for_a_month_and_then_its_row_goes_though_hubs_restart(play: Play) -> None:
    made(play, expires_s=DAY_S)
    made(play, NEW)
    for _ in range(4):
        play.restart()
        play.wait((DAY_S + TOKEN_KEPT_S) / 4 - 1)
        assert OLD in play.memory.tokens
    assert play.memory.tokens[OLD].is_over(play.now.wall_s)
    gone = play.wait(KEPT_S_MIN)
    assert Drop("tokens", OLD) in gone.writes
    assert list(play.memory.tokens) == [NEW], "one without an end stays"


def test_a_clock_that_is_wrong_when_a_hub_begins_takes_no_row_away(play: Play) -> None:
    made(play, expires_s=DAY_S)
    play.jumped_s = 400 * DAY_S
    play.restart()
    play.wait(60.0)
    play.jumped_s = 0.0
    play.wait(KEPT_S_MIN)
    assert OLD in play.memory.tokens
    assert not play.memory.tokens[OLD].is_over(play.now.wall_s)


@pytest.mark.parametrize("restarts", [False, True])
def test_a_rotated_token_is_good_for_the_overlap_and_then_void_for_ever(play: Play, *, restarts: bool) -> None:
    """The bug it would catch: a backup of before the rotation makes the old token good again."""
    made(play, expires_s=90 * DAY_S)
    play.wait(10 * DAY_S)
    status, told = rotated(play, 600.0)
    assert (status, told["id"], told["role"], told["label"]) == (201, token_id(NEW), "operator", "script")
    new, old = play.memory.tokens[NEW], play.memory.tokens[OLD]
    assert new.expires_wall_s == play.now.wall_s + 90 * DAY_S, "the same length of life, from now on"
    assert old.expires_wall_s == play.now.wall_s + 600.0
    assert rotated(play, 600.0)[0] == 409, "it has a successor: a second one would go unnoticed"
    if restarts:
        play.restart()
    assert revoked(play.wait(599.0)) == []
    assert revoked(play.wait(1.5)) == [OLD]
    assert list(play.memory.tokens) == [NEW]
    assert audited(play)[-2:] == [(token_id(NEW), "created"), (token_id(OLD), "rotated")]


def test_without_an_overlap_the_old_token_is_void_in_the_same_transaction(play: Play) -> None:
    made(play)
    before = len(play.effects.writes)
    assert rotated(play, 0.0)[0] == 201
    writes = play.effects.writes[before:]
    assert Revoke(OLD) in writes
    assert [write.key for write in writes if isinstance(write, Put) and write.table == "tokens"] == [NEW]
    assert list(play.memory.tokens) == [NEW]


def test_an_overlap_makes_no_token_good_for_longer_than_it_was(play: Play) -> None:
    made(play, expires_s=300.0)
    rotated(play, 600.0)
    assert play.memory.tokens[OLD].expires_wall_s == play.now.wall_s + 300.0


def test_what_is_void_expired_or_unknown_is_not_rotated(play: Play) -> None:
    assert rotated(play, 0.0)[0] == 404
    made(play, expires_s=60.0)
    play.wait(60.0)
    assert rotated(play, 0.0)[0] == 404, "expired"
    made(play)
    play.ask(RevokeToken(OLD))
    assert rotated(play, 0.0)[0] == 404, "revoked a moment ago, by somebody else"
    assert list(play.memory.tokens) == []


def test_a_use_is_noted_once_it_is_later_and_never_makes_a_row(play: Play) -> None:
    made(play)
    play.do(TokenUsed("fanout", OLD, 5e8))
    play.do(TokenUsed("fanout", OLD, 4e8))  # by another fanout, later on its way
    assert play.memory.tokens[OLD].used_wall_s == 5e8
    play.ask(RevokeToken(OLD))
    assert play.do(TokenUsed("fanout", OLD, 6e8)).writes == []
    assert OLD not in play.memory.tokens


def test_a_clock_that_was_set_back_puts_the_end_of_an_overlap_off_and_does_not_lose_it(play: Play) -> None:
    made(play)
    rotated(play, 600.0)
    play.jumped_s = -300.0
    assert revoked(play.wait(600.0)) == []
    assert revoked(play.wait(301.0)) == [OLD]
