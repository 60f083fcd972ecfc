"""Who comes in at the agents' port. Pure.

    request ──▶ wrong path ─────────────────────────────────────────▶ 404
            ──▶ this gateway stops, or has no room ──────────────────▶ 503, try again
            ──▶ a token whose host was closed for a flood just now ──▶ 429, with the time it has to wait
            ──▶ a token that the table has ──────────────────────────▶ let in
            ──▶ no such token, and the table is not current ─────────▶ 503, never 401: the hub may know it
            ──▶ no such token, for the first time on this socket ────▶ asked again after DOUBT_S
            ──▶ no such token ───────────────────────────────────────▶ 401

Whoever enrolled a host has its token as soon as the hub has written it, and a gateway hears of it by another queue, a
moment later: nobody is turned away for being fast. (Our agents wait for a minute after a 401.)
"""

from __future__ import annotations

import enum
import math
from typing import Final, NamedTuple

PATH: Final = "/ws"
RETRY_S: Final = 2.0  # said with 503
DOUBT_S: Final = 1.0  # until an unknown token is looked up once more, and is wrong then; a delivery takes some 10 ms


class Refusal(NamedTuple):
    """An HTTP answer: a status, a sentence for a person, and after how many seconds to try again, if that is said."""

    status: int
    text: str
    retry_s: int | None = None


class Admission(enum.Enum):
    """What else may become of a request."""

    LET_IN = enum.auto()
    ASK_AGAIN = enum.auto()  # after DOUBT_S


def admit(
    target: str,
    *,
    known: bool,
    table_is_current: bool,
    asked_before: bool,
    stopping: bool,
    full: bool,
    banned_s: float = 0.0,
) -> Admission | Refusal:
    """Says what becomes of a request for an upgrade. `target`: its path and query. `known`: its token is in the table.
    `asked_before`: the same request was told to wait once. `banned_s`: so long its host is not let in yet.
    """
    if target.partition("?")[0] != PATH:
        return Refusal(404, f"Agents connect to {PATH}.\n")
    if stopping or full:
        return Refusal(503, "No room. Try again later.\n", math.ceil(RETRY_S))
    if known:
        return Refusal(429, "Too much came from this host.\n", math.ceil(banned_s)) if banned_s else Admission.LET_IN
    if not table_is_current:
        return Refusal(503, "The tokens are not known yet. Try again soon.\n", math.ceil(RETRY_S))
    return Refusal(401, "The token is missing or wrong.\n") if asked_before else Admission.ASK_AGAIN
