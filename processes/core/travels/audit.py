"""The audit trail: who did or tried what, to whom, when, and what came of it. Pure.

A command's transitions stand in the same trail (kind `command`, core/records/command.py). What a hub accepts it writes
in the same transaction; what a fanout alone knows (sign-ins, refused attempts) it sends, and the hub writes it.
"""

from __future__ import annotations

import enum

import msgspec

from processes.core.values import Time, rfc3339

TEXT_MAX = 200  # characters of a subject, actor or reason; what is longer is cut


class Kind(enum.StrEnum):
    """What a line is about."""

    COMMAND = "command"  # subject: its id; before, after: states
    HOST = "host"  # subject: its name; after: enrolled, enrolled_again, revoked, removed, lifted
    TOKEN = "token"  # noqa: S105  # a kind. Subject: its id; after: created, revoked
    SESSION = "session"  # subject: the address; after: signed_in, signed_out, refused, revoked
    LETTER = "letter"  # subject: a dead letter's id; after: tried_again, discarded
    DATABASE = "database"  # subject: the backup's time; after: restored
    REQUEST = "request"  # subject: method and path; after: refused; reason: why


class AuditLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the trail, but those of commands."""

    at_wall_s: float
    kind: Kind
    subject: str
    after: str
    actor: str
    reason: str = ""


class AuditView(msgspec.Struct, frozen=True):
    """One line in the API. `number` grows with each line, and is the `before` of the next page."""

    number: int
    at: Time | None
    kind: Kind
    subject: str
    before: str | None
    after: str
    actor: str
    reason: str


def line(at_wall_s: float, kind: Kind, subject: str, after: str, *, actor: str, reason: str = "") -> AuditLine:
    """A line whose texts, which may come from anybody, are within their limits."""
    return AuditLine(at_wall_s, kind, subject[:TEXT_MAX], after, actor[:TEXT_MAX], reason[:TEXT_MAX])


def view(row: tuple[int, float, str, str, str | None, str, str, str]) -> AuditView:
    """A stored line from outside: number, at_wall_s, kind, subject, before, after, reason, actor."""
    number, at_wall_s, kind, subject, before, after, reason, actor = row
    return AuditView(number, rfc3339(at_wall_s), Kind(kind), subject, before, after, actor, reason)
