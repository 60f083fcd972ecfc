"""The audit trail: who did or tried what, to whom, when, and with what result. Pure.

A command's transitions are in the same trail (kind `command`, core/records/command.py). The hub writes the line of a
change in the transaction of that change. A fanout sends the lines that only it knows (sign-ins, refused attempts) to
the hub, which writes them.
"""

from __future__ import annotations

import enum

import msgspec

from processes.core.values import Time, rfc3339

TEXT_MAX = 200  # characters of a subject, actor or reason; longer ones are cut


class Kind(enum.StrEnum):
    """What a line is about."""

    COMMAND = "command"  # subject: its id; before, after: states
    # subject: its name; after: enrolled, enrolled_again, code_made, code_refused, rotation_asked, rotated, revoked,
    # removed, lifted
    HOST = "host"
    TOKEN = "token"  # noqa: S105  # not a secret. Subject: its id; after: created, rotated, revoked
    SESSION = "session"  # subject: the operator's address; after: signed_in, signed_out, refused, revoked
    DEAD_LETTER = "letter"  # subject: a dead letter's id; after: tried_again, discarded
    DATABASE = "database"  # subject: the backup's time; after: restored
    REQUEST = "request"  # subject: method and path; after: refused; reason: why


class AuditLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the trail; commands have records.command.Transition instead."""

    at_wall_s: float
    kind: Kind
    subject: str
    after: str
    actor: str
    reason: str = ""


class AuditView(msgspec.Struct, frozen=True):
    """One line in the API. `number` grows with each line and is the `before` of the next page."""

    number: int
    at: Time | None
    kind: Kind
    subject: str
    before: str | None
    after: str
    actor: str
    reason: str


def line(at_wall_s: float, kind: Kind, subject: str, after: str, *, actor: str, reason: str = "") -> AuditLine:
    """Return a line. Its texts may come from anybody, so they are cut to TEXT_MAX."""
    return AuditLine(at_wall_s, kind, subject[:TEXT_MAX], after, actor[:TEXT_MAX], reason[:TEXT_MAX])


def view(row: tuple[int, float, str, str, str | None, str, str, str]) -> AuditView:
    """Return a stored line for the API. `row`: number, at_wall_s, kind, subject, before, after, reason, actor."""
    number, at_wall_s, kind, subject, before, after, reason, actor = row
    return AuditView(number, rfc3339(at_wall_s), Kind(kind), subject, before, after, actor, reason)
