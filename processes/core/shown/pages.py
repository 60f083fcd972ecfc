"""The API's answers that hold several things, or one thing and more: what the fanout encodes and the command line
decodes. Pure.

`next` is the `before` (of hosts: the `after`) of the following page, None at the end.
"""

from __future__ import annotations

import msgspec

from processes.core.records.dead_letter import LetterView
from processes.core.records.run import RunView
from processes.core.shown.status import IncidentView, Overall
from processes.core.shown.views import CommandView, HostView, TransitionView
from processes.core.travels.audit import AuditView
from processes.core.values import Role, Time


class HostsPage(msgspec.Struct, frozen=True):
    """GET /api/v1/hosts, by name. source: hub, or database while no hub has spoken yet."""

    hosts: list[HostView]
    source: str = "hub"
    next: str | None = None


class CommandsPage(msgspec.Struct, frozen=True):
    """GET /api/v1/commands, newest first."""

    commands: list[CommandView]
    next: str | None = None


class CommandWithHistory(CommandView, frozen=True):
    """GET /api/v1/commands/ID."""

    history: list[TransitionView] = msgspec.field(default_factory=list)


class RunsPage(msgspec.Struct, frozen=True):
    """GET /api/v1/runs, newest first. Each run names its hosts only in GET /api/v1/runs/ID."""

    runs: list[RunView]
    next: str | None = None


class IncidentsPage(msgspec.Struct, frozen=True):
    """GET /api/v1/incidents, newest first."""

    incidents: list[IncidentView]
    next: str | None = None


class IncidentWithEvidence(IncidentView, frozen=True):
    """GET /api/v1/incidents/ID. evidence_text: each file of its evidence by name, a long one only in part."""

    evidence_text: dict[str, str] = msgspec.field(default_factory=dict)


class AuditPage(msgspec.Struct, frozen=True):
    """GET /api/v1/audit, newest first."""

    audit: list[AuditView]
    next: int | None = None


class TokenView(msgspec.Struct, frozen=True):
    """An operator token, but never the token itself."""

    id: str
    role: Role
    label: str
    created_at: Time | None


class TokensPage(msgspec.Struct, frozen=True):
    """GET /api/v1/tokens, oldest first. The installation's own (operator.token) is not among them."""

    tokens: list[TokenView]


class TokenMade(msgspec.Struct, frozen=True):
    """POST /api/v1/tokens. The token is told this once."""

    id: str
    role: Role
    label: str
    token: str


class TokenGone(msgspec.Struct, frozen=True):
    """DELETE /api/v1/tokens/ID."""

    id: str
    revoked: bool


class HostEnrolled(msgspec.Struct, frozen=True):
    """POST /api/v1/hosts. The token is told this once. `agents_url`: what the host's agent dials."""

    name: str
    token: str
    host_id: str = ""
    agents_url: str = ""


class HostRemoved(msgspec.Struct, frozen=True):
    """DELETE /api/v1/hosts/NAME."""

    name: str
    commands_ended: int


class DeadLettersPage(msgspec.Struct, frozen=True):
    """GET /api/v1/deadletters, newest first."""

    deadletters: list[LetterView]


class LetterGone(msgspec.Struct, frozen=True):
    """POST /api/v1/deadletters/ID/discard."""

    id: str
    discarded: bool


class HealthView(msgspec.Struct, frozen=True):
    """GET /healthz. reason: a fixed word, empty when all is well."""

    verdict: Overall
    reason: str


class Alive(msgspec.Struct, frozen=True):
    """GET /livez."""

    live: bool


class Me(msgspec.Struct, frozen=True):
    """GET /api/v1/me."""

    role: Role
    actor: str
    drills_enabled: bool


class SignedIn(msgspec.Struct, frozen=True):
    """POST /login."""

    role: Role
    actor: str


class SignedOut(msgspec.Struct, frozen=True):
    """POST /logout."""

    signed_out: bool


class SessionEnded(msgspec.Struct, frozen=True):
    """DELETE /api/v1/sessions/ID."""

    id: str
    ended: bool


class Rehearsed(msgspec.Struct, frozen=True):
    """POST /api/v1/drill, of a fault that the hub lived through."""

    fault: str


class Named(msgspec.Struct, frozen=True):
    """The part of a command or a run that is always told: of one that ended long ago, no more."""

    id: str


class Error(msgspec.Struct, frozen=True, omit_defaults=True):
    """Any answer that is not what was asked for. error: a fixed word; message: for a person; the rest: what it is
    about, if known.
    """

    error: str
    message: str
    field: str | msgspec.UnsetType = msgspec.UNSET  # of the body or the query
    host: str | msgspec.UnsetType = msgspec.UNSET
    command: CommandView | msgspec.UnsetType = msgspec.UNSET  # that has ended already
    run: RunView | msgspec.UnsetType = msgspec.UNSET
