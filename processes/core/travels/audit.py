"""The audit trail: who did or tried what, to whom, when, and with what result. Pure.

A command's transitions are in the same trail (kind `command`, core/records/command.py). The hub writes the line of a
change in the transaction of that change. A fanout sends the lines that only it knows (sign-ins, refused attempts) to
the hub, which writes them; a gateway's events tell of agents that claimed to be another host.

The lines are a chain: each carries a hash of the line before it and of its own fields (`chained`), and the numbers have
no gaps. Lines go only from the oldest on, and the checkpoint has number and hash of the last one that went. So a line
that was changed, removed or put in afterwards is found by whoever computes the hashes again (core/travels/
audit_chain.py). Whoever can write the database can also compute the hashes of everything behind a change anew; that is
found by a head (number and hash of a line) that is known outside: each alarm brings one.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterable
from typing import Final

import msgspec

from processes.core.values import Time, rfc3339

TEXT_MAX: Final = 200  # characters of a subject, actor or reason; longer ones are cut
AHEAD_S_MAX: Final = 86400.0  # a line that is so much younger than now was written under a wrong clock


class Kind(enum.StrEnum):
    """What a line is about."""

    COMMAND = "command"  # subject: its id; before, after: states
    CANCEL = "cancel"  # subject: a command's or run's id; after: asked, each time that somebody does
    # subject: its name; after: enrolled, enrolled_again, code_made, code_refused, rotation_asked, rotated, revoked,
    # removed, lifted, labelled, impersonated
    HOST = "host"
    TOKEN = "token"  # noqa: S105  # not a secret. Subject: its id; after: created, rotated, revoked
    SESSION = "session"  # subject: the operator's address; after: signed_in, signed_out, revoked, connected
    DEAD_LETTER = "letter"  # subject: a dead letter's id; after: tried_again, discarded
    QUERY = "query"  # subject: a saved query's name; after: saved, removed; reason: its text
    CONDITION = "condition"  # subject: its id; after: acknowledged
    SILENCE = "silence"  # subject: its id; after: made, ended
    DATABASE = "database"  # subject: the backup's time; after: restored
    REQUEST = "request"  # subject: method and path of the first; after: refused; reason: why, and how often


class AuditLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the trail; commands have records.command.Transition instead."""

    at_wall_s: float
    kind: Kind
    subject: str
    after: str
    actor: str
    reason: str = ""


class AuditView(msgspec.Struct, frozen=True):
    """One line in the API. `number` grows by one with each line and is the `before` of the next page.

    `hash`: SHA-256 in hex of the line before it and of this line (`chained`); None: it is older than the chain.
    """

    number: int
    at: Time | None
    kind: Kind
    subject: str
    before: str | None
    after: str
    actor: str
    reason: str
    hash: str | None = None


class Head(msgspec.Struct, frozen=True):
    """A line of the trail by its number, and its hash in hex; an empty hash: nothing is chained up to it."""

    number: int
    hash: str

    def __str__(self) -> str:
        """Return it as it is told to people, and taken from them."""
        return f"{self.number}:{self.hash}"


class Ageing(msgspec.Struct, frozen=True):
    """What pruning must know of a line. `is_kept`: it is about a command that is still there."""

    number: int
    at_wall_s: float
    is_kept: bool


def line(at_wall_s: float, kind: Kind, subject: str, after: str, *, actor: str, reason: str = "") -> AuditLine:
    """Return a line. Its texts may come from anybody, so they are cut to TEXT_MAX."""
    return AuditLine(at_wall_s, kind, subject[:TEXT_MAX], after, actor[:TEXT_MAX], reason[:TEXT_MAX])


def view(row: tuple[int, float, str, str, str | None, str, str, str, str]) -> AuditView:
    """Return a stored line for the API. `row`: number, at_wall_s, kind, subject, before, after, reason, actor, hash in
    hex (empty: none).
    """
    number, at_wall_s, kind, subject, before, after, reason, actor, digest = row
    return AuditView(number, rfc3339(at_wall_s), Kind(kind), subject, before, after, actor, reason, digest or None)


def chained(before: bytes, line: AuditView) -> bytes:
    """Return the hash of a line: SHA-256 of the hash of the line before it, and then of the line's fields in canonical
    encoding: the JSON array [number, at, kind, subject, before, after, actor, reason] in UTF-8 without white space, as
    the API gives them; of JSON's escapes only those that it demands. `before`: 32 bytes, or none for the first line.

    The array is that of Python's json.dumps(fields, ensure_ascii=False, separators=(",", ":")).
    """
    fields = (line.number, line.at, line.kind, line.subject, line.before, line.after, line.actor, line.reason)
    return hashlib.sha256(before + msgspec.json.encode(fields)).digest()


def last_to_go(lines: Iterable[Ageing], now_wall_s: float, kept_s: float) -> int:
    """Return the number of the last line that goes by its age, with all before it; 0: none.

    `lines`: the oldest, by number. A line about a command that is still there stays for twice the time at most. One
    whose time has not come yet was written under a wrong clock, and goes with those around it.
    """
    last = 0
    for each in lines:
        if each.at_wall_s > now_wall_s + AHEAD_S_MAX:
            continue
        if each.at_wall_s >= now_wall_s - kept_s * (2 if each.is_kept else 1):
            break
        last = each.number
    return last
