"""Who comes in at the agents' port, and how many did not. Pure.

    request ──▶ the path of a knock ────────────────────────────────▶ 200: this process accepts and turns
            ──▶ wrong path ─────────────────────────────────────────▶ 404
            ──▶ this gateway stops, or a token for which it has no room (core/connections.py) ─▶ 503, try again
            ──▶ a token whose host was closed for a flood just now ──▶ 429, with the time it has to wait
            ──▶ a token that the table has ──────────────────────────▶ let in
            ──▶ no such token, and the table is not current ─────────▶ 503, never 401: the hub may know it
            ──▶ no such token, for the first time on this socket ────▶ asked again after DOUBT_S
            ──▶ no such token ───────────────────────────────────────▶ 401

An operator who enrolls a host gets its token as soon as the hub has written it; a gateway hears of it through another
queue, a moment later. An agent that connects in between must not be refused: after a 401 it would wait for a minute.
"""

from __future__ import annotations

import enum
import math
from collections import Counter
from typing import Final, NamedTuple

PATH: Final = "/ws"
KNOCK_PATH: Final = "/livez"  # as on the operators' port: answered as long as the process lives, whoever asks
DOUBT_S: Final = 1.0  # until an unknown token is looked up once more, and is wrong then; a delivery takes some 10 ms
RETRY_AFTER_S: Final = 2  # said with 503; a gateway asks for a token table that it lacks every few seconds
COMPLAINTS_S: Final = 60.0  # of one host: a line about a malformed frame at once, and then one in so long
COUNTS_S: Final = 10.0  # between two sums of refusals


class Refusal(NamedTuple):
    """An HTTP answer: a status, a sentence for a person, and after how many seconds to try again, if that is said."""

    status: int
    text: str
    retry_after_s: int | None = None


class Admission(enum.Enum):
    """Any other outcome of a request."""

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
    """Return the outcome of a request for an upgrade.

    `target`: its path and query. `known`: its token is in the table. `asked_before`: this request was put off once.
    `full`: there is no room for its host.
    `banned_s`: for so long its host is not let in yet.
    """
    if target == KNOCK_PATH:
        return Refusal(200, "This gateway accepts connections.\n")
    if target.partition("?")[0] != PATH:
        return Refusal(404, f"Agents connect to {PATH}.\n")
    if stopping or full:
        return Refusal(503, "No room. Try again later.\n", RETRY_AFTER_S)
    if known:
        return Refusal(429, "Too much came from this host.\n", math.ceil(banned_s)) if banned_s else Admission.LET_IN
    if not table_is_current:
        return Refusal(503, "The tokens are not known yet. Try again soon.\n", RETRY_AFTER_S)
    return Refusal(401, "The token is missing or wrong.\n") if asked_before else Admission.ASK_AGAIN


class RefusalCounts:
    """How many were not let in, by why. They are told as sums: whoever knocks a thousand times a second makes no
    thousand lines of a log.

    Units: `now_s` are seconds of the loop's clock.
    """

    def __init__(self, now_s: float) -> None:
        self._counts: Counter[str] = Counter()
        self._told_s = now_s

    def refused(self, refusal: Refusal) -> None:
        """Called when a request was not let in; a knock is none that was refused."""
        if refusal.status != 200:
            self._counts[f"status_{refusal.status}"] += 1

    def take(self, now_s: float) -> dict[str, int]:
        """Returns what was counted and not yet told, COUNTS_S after the last time at the earliest; else nothing."""
        if not self._counts or now_s - self._told_s < COUNTS_S:
            return {}
        counts, self._counts, self._told_s = dict(sorted(self._counts.items())), Counter(), now_s
        return counts


class Complaints:
    """How often the frames of each host were malformed, and when a line says so. A host with a stolen token that comes
    back again and again does not wash away what else stands in a gateway's log. Bounded by the hosts that have tokens.

    Units: `now_s` are seconds of the loop's clock.
    """

    def __init__(self) -> None:
        self._told_s: dict[str, float] = {}
        self._untold: Counter[str] = Counter()

    def times(self, host: str, more: int, now_s: float) -> int:
        """Count further malformed frames of this host. Return how many there were that no line has told of, if a line
        is to be written now; else 0.
        """
        self._untold[host] += more
        if now_s - self._told_s.get(host, -COMPLAINTS_S) < COMPLAINTS_S:
            return 0
        self._told_s[host] = now_s
        return self._untold.pop(host)
