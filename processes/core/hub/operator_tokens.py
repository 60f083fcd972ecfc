"""Operators' tokens: made, made anew, made void, and gone when their time is over. Pure.

    made ──▶ good ──its time is over──▶ listed as expired ──TOKEN_KEPT_S──▶ gone
              │ └──a new one takes its place──▶ good for the overlap ──▶ void, and gone
              └──revoked──▶ void, and gone

The fanouts judge tokens, by the rows in the database and the clock. What is void is also in the list beside the
database, so that no restored backup brings it back; what has expired needs no list, for its time stays over.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from processes.core.hub import noted
from processes.core.hub.memory import Draft, Memory
from processes.core.hub.refused import Refused
from processes.core.records.request import OperatorToken
from processes.core.shown.views import encode
from processes.core.travels.messages import CreateToken, Json, RevokeToken, RotateToken, TokenUsed
from processes.core.values import Now, Role, rfc3339, token_id

TOKEN_KEPT_S: Final = 30 * 86400.0  # for so long one that has expired is listed; guess: a month's holiday
TIMER: Final = "token"  # the kind of the timer at which a token's row goes
LEFT_S_MIN: Final = 1.0  # a clock that was set back makes a token's timer due again, but not at once
KEPT_S_MIN: Final = 3600.0  # a hub that begins while the clock is wrong lets go of no row that soon


def create(draft: Draft, request: CreateToken, actor: str) -> tuple[int, Json]:
    """Make a further token. Raises: Refused."""
    if request.role not in list(Role):
        raise Refused(400, "malformed", f"role {request.role!r} is none of {', '.join(Role)}")
    expires_wall_s = None if request.expires_s is None else draft.now.wall_s + request.expires_s
    token = OperatorToken(request.token_hash, request.role, request.label, draft.now.wall_s, expires_wall_s)
    _put(draft, token)
    noted.of_token(draft, token.token_hash, "created", actor, f"{token.role} {token.label}".rstrip())
    return 201, _made(token)


def rotate(draft: Draft, request: RotateToken, actor: str) -> tuple[int, Json]:
    """Make a token with the role, label and length of life of another one, which is void after the overlap.

    Raises: Refused.
    """
    old, now_wall_s = draft.get(draft.memory.tokens, request.token_hash), draft.now.wall_s
    if old is None or old.is_over(now_wall_s):
        raise Refused(404, "unknown_token", f"there is no good token {token_id(request.token_hash)!r}")
    if old.replaced_by:
        raise Refused(
            409, "replaced", f"token {token_id(old.token_hash)} was replaced by {old.replaced_by}: rotate that one"
        )
    life_s = None if old.expires_wall_s is None else old.expires_wall_s - old.created_wall_s
    expires_wall_s = None if life_s is None else now_wall_s + life_s
    token = OperatorToken(request.new_hash, old.role, old.label, now_wall_s, expires_wall_s)
    _put(draft, token)
    noted.of_token(draft, token.token_hash, "created", actor, f"{token.role} {token.label}".rstrip())
    until_wall_s = min(now_wall_s + request.overlap_s, old.expires_wall_s or math.inf)
    noted.of_token(draft, old.token_hash, "rotated", actor, f"replaced by {token_id(token.token_hash)}")
    if request.overlap_s > 0:
        _put(draft, msgspec.structs.replace(old, expires_wall_s=until_wall_s, replaced_by=token_id(token.token_hash)))
    else:
        _void(draft, old.token_hash)
    return 201, _made(token, old_until=rfc3339(until_wall_s))


def revoke(draft: Draft, request: RevokeToken, actor: str) -> tuple[int, Json]:
    """Make the token void, also one that this hub does not know: its hash is good nowhere again."""
    _void(draft, request.token_hash)
    noted.of_token(draft, request.token_hash, "revoked", actor)
    return 200, encode({"id": token_id(request.token_hash), "revoked": True})


def used(draft: Draft, event: TokenUsed) -> None:
    """Note when the token was last used, as a fanout tells once in some minutes; of one that is gone, nothing."""
    token = draft.get(draft.memory.tokens, event.token_hash)
    if token is not None and event.at_wall_s > (token.used_wall_s or 0.0):
        draft.put(draft.memory.tokens, token.token_hash, msgspec.structs.replace(token, used_wall_s=event.at_wall_s))


def elapsed(draft: Draft, token_hash: str) -> None:
    """Called when the token's timer is due: its row goes, unless the clock was set back since."""
    token = draft.get(draft.memory.tokens, token_hash)
    if token is None:
        return
    ends_wall_s = _ends_wall_s(token)
    if ends_wall_s is not None and draft.now.wall_s < ends_wall_s:
        draft.timers.append(_timer(token, draft.now))
    elif token.replaced_by:
        _void(draft, token_hash)
    else:
        draft.drop(draft.memory.tokens, token_hash)


def restored(memory: Memory, now: Now) -> None:
    """Set the timers of the tokens that an earlier hub has made. The caller orders the heap."""
    memory.timers += [_timer(token, now) for token in memory.tokens.values() if _ends_wall_s(token) is not None]


def _ends_wall_s(token: OperatorToken) -> float | None:
    """Return when its row goes; None: it stays."""
    if token.expires_wall_s is None:
        return None
    return token.expires_wall_s + (0.0 if token.replaced_by else TOKEN_KEPT_S)


def _timer(token: OperatorToken, now: Now) -> tuple[float, str, str]:
    left_s = (_ends_wall_s(token) or now.wall_s) - now.wall_s
    return now.boot_s + max(left_s, LEFT_S_MIN if token.replaced_by else KEPT_S_MIN), TIMER, token.token_hash


def _put(draft: Draft, token: OperatorToken) -> None:
    draft.put(draft.memory.tokens, token.token_hash, token)
    if _ends_wall_s(token) is not None:
        draft.timers.append(_timer(token, draft.now))


def _void(draft: Draft, token_hash: str) -> None:
    draft.revoke(token_hash)
    draft.drop(draft.memory.tokens, token_hash)


def _made(token: OperatorToken, **more: str | None) -> Json:
    told = {"id": token_id(token.token_hash), "role": token.role, "label": token.label}
    return encode({**told, "expires_at": rfc3339(token.expires_wall_s), **more})
