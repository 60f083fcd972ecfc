"""Adds a line to the audit trail, in the transaction of what it tells of. Pure."""

from __future__ import annotations

from processes.core.hub.effects import AddAudit
from processes.core.hub.memory import Draft
from processes.core.travels import audit
from processes.core.travels.audit import Kind
from processes.core.values import token_id


def of_host(draft: Draft, name: str, after: str, actor: str, reason: str = "") -> None:
    """Note what became of a host."""
    note(draft, (Kind.HOST, name), after, actor, reason)


def of_token(draft: Draft, token_hash: str, after: str, actor: str, reason: str = "") -> None:
    """Note what became of an operator's token."""
    note(draft, (Kind.TOKEN, token_id(token_hash)), after, actor, reason)


def note(draft: Draft, subject: tuple[Kind, str], after: str, actor: str, reason: str = "") -> None:
    """Note what became of it, who did that, and why."""
    draft.effects.writes.append(AddAudit(audit.line(draft.now.wall_s, *subject, after, actor=actor, reason=reason)))
