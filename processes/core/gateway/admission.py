"""Who is let in at the agents' port. Pure.

    request ──▶ wrong path ─────────────────────────────────────────▶ 404
            ──▶ this gateway stops, or has no room ──────────────────▶ 503, try again
            ──▶ a token that the table has ──────────────────────────▶ let in
            ──▶ no such token, and the table is not current ─────────▶ 503, never 401: the hub may know it
            ──▶ no such token, for the first time on this socket ────▶ asked again after DOUBT_S
            ──▶ no such token ───────────────────────────────────────▶ 401

An operator who enrolls a host gets its token as soon as the hub has written it; a gateway hears of it through another
queue, a moment later. An agent that connects in between must not be refused: after a 401 it would wait for a minute.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

PATH: Final = "/ws"
DOUBT_S: Final = 1.0  # until an unknown token is looked up for a second and last time; a delivery takes some 10 ms


class Refusal(NamedTuple):
    """An HTTP answer: a status, and a sentence for a person."""

    status: int
    text: str


class Admission(enum.Enum):
    """Any other outcome of a request."""

    LET_IN = enum.auto()
    ASK_AGAIN = enum.auto()  # after DOUBT_S


def admit(
    target: str, *, known: bool, table_is_current: bool, asked_before: bool, stopping: bool, full: bool
) -> Admission | Refusal:
    """Return the outcome of a request for an upgrade.

    `target`: its path and query. `known`: its token is in the table. `asked_before`: this request was put off once.
    """
    if target.partition("?")[0] != PATH:
        return Refusal(404, f"Agents connect to {PATH}.\n")
    if stopping or full:
        return Refusal(503, "No room. Try again later.\n")
    if known:
        return Admission.LET_IN
    if not table_is_current:
        return Refusal(503, "The tokens are not known yet. Try again soon.\n")
    return Refusal(401, "The token is missing or wrong.\n") if asked_before else Admission.ASK_AGAIN
