"""The API's answers that are pages, confirmations or errors; the fanout encodes them, clients decode them. Pure.

`next` is the `before` parameter (of hosts: the `after`) of the next page; None at the end.
"""

from __future__ import annotations

import msgspec

from processes.core.records.condition import ConditionView, SilenceView
from processes.core.records.run import RunView
from processes.core.shown.status import IncidentView, Overall
from processes.core.shown.views import CommandView, HostView, TransitionView
from processes.core.travels.audit import AuditView, Head
from processes.core.values import Role, Time


class HostsPage(msgspec.Struct, frozen=True):
    """GET /api/v1/hosts, by name. source: hub; or database, until the fanout has heard from a hub."""

    hosts: list[HostView]
    source: str = "hub"
    next: str | None = None


class HostsLabelled(msgspec.Struct, frozen=True):
    """POST /api/v1/hosts/labels. `hosts`: all that were named or found; `changed`: how many of them have other labels
    now. `query`: by which they were found.
    """

    hosts: list[str]
    changed: int
    query: str = ""


class SavedQueryView(msgspec.Struct, frozen=True):
    """A saved query. `@NAME` stands for it wherever a query is asked for."""

    name: str
    query: str
    actor: str
    saved_at: Time | None


class SavedQueries(msgspec.Struct, frozen=True):
    """GET /api/v1/queries, by name."""

    queries: list[SavedQueryView]


class SavedQueryGone(msgspec.Struct, frozen=True):
    """DELETE /api/v1/queries/NAME."""

    name: str
    removed: bool


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
    """GET /api/v1/incidents/ID. evidence_text: name → text of each file of its evidence; long ones are cut."""

    evidence_text: dict[str, str] = msgspec.field(default_factory=dict)


class ConditionsPage(msgspec.Struct, frozen=True):
    """GET /api/v1/conditions: those that stand, the gravest first; then those that are over, if they were asked for."""

    conditions: list[ConditionView]
    source: str = "hub"


class SilencesPage(msgspec.Struct, frozen=True):
    """GET /api/v1/silences: those that count or will, and the newest that have ended."""

    silences: list[SilenceView]


class AuditPage(msgspec.Struct, frozen=True):
    """GET /api/v1/audit, newest first. `checkpoint`: the line behind which the chain of the lines' hashes begins; None:
    the hub does not chain them yet.
    """

    audit: list[AuditView]
    next: int | None = None
    checkpoint: Head | None = None


class TokenView(msgspec.Struct, frozen=True):
    """What is shown of an operator token; never the token itself.

    expires_at null: it is good until it is revoked. last_used_at: to within some minutes; null: never. replaced_by: the
    id of the token that took its place.
    """

    id: str
    role: Role
    label: str
    created_at: Time | None
    expires_at: Time | None = None
    expired: bool = False
    last_used_at: Time | None = None
    replaced_by: str = ""


class TokensPage(msgspec.Struct, frozen=True):
    """GET /api/v1/tokens, oldest first, without the installation's own (operator.token)."""

    tokens: list[TokenView]


class TokenMade(msgspec.Struct, frozen=True):
    """POST /api/v1/tokens and /api/v1/tokens/ID/rotate. The token is shown only in this answer.

    old_until: of a rotation, until when the old token is good.
    """

    id: str
    role: Role
    label: str
    token: str
    expires_at: Time | None = None
    old_until: Time | None = None


class TokenGone(msgspec.Struct, frozen=True):
    """DELETE /api/v1/tokens/ID."""

    id: str
    revoked: bool


class HostEnrolled(msgspec.Struct, frozen=True):
    """POST /api/v1/hosts. The token is shown only in this answer. `agents_url`: the URL that the host's agent dials."""

    name: str
    token: str
    host_id: str = ""
    agents_url: str = ""
    lifted: str = ""  # why it was suspended, if that was lifted with it


class HostCode(msgspec.Struct, frozen=True):
    """POST /api/v1/hosts/NAME/code. The code is shown only in this answer. `suspended`: why the host is; the use of the
    code lifts that. `operators_url`: operators.url, below which /agent is; `agent_sha256`: the digest of that file;
    `agent_file_missing`: why there is none, and so no digest.
    """

    name: str
    code: str
    expires_at: Time | None
    host_id: str = ""
    agents_url: str = ""
    suspended: str = ""
    operators_url: str = ""
    agent_sha256: str = ""
    agent_file_missing: str = ""


class HostRemoved(msgspec.Struct, frozen=True):
    """DELETE /api/v1/hosts/NAME."""

    name: str
    commands_ended: int


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
    version: str = ""  # of this fleethub: agents of ours with a lower one are old


class SignedIn(msgspec.Struct, frozen=True):
    """POST /login."""

    role: Role
    actor: str


class SignedOut(msgspec.Struct, frozen=True):
    """POST /logout."""

    signed_out: bool


class SessionView(msgspec.Struct, frozen=True):
    """One session in the API. `ends_at`: at the latest. `current`: the request was made with it."""

    id: str
    actor: str
    role: Role
    signed_in_at: Time | None
    ends_at: Time | None
    address: str
    browser: str
    current: bool


class SessionsPage(msgspec.Struct, frozen=True):
    """GET /api/v1/sessions."""

    sessions: list[SessionView]


class SessionEnded(msgspec.Struct, frozen=True):
    """DELETE /api/v1/sessions/ID."""

    id: str
    ended: bool


class Rehearsed(msgspec.Struct, frozen=True):
    """POST /api/v1/drill, if the hub survived the fault."""

    fault: str


class Named(msgspec.Struct, frozen=True):
    """The id of a command or a run. The answer has no more of one that ended long ago."""

    id: str


class Error(msgspec.Struct, frozen=True, omit_defaults=True):
    """Every answer with an error status. error: a fixed word; message: for a person.

    The other fields are there if the error is about such a thing.
    """

    error: str
    message: str
    field: str | msgspec.UnsetType = msgspec.UNSET  # of the body or the query that is wrong
    host: str | msgspec.UnsetType = msgspec.UNSET
    candidates: list[str] | msgspec.UnsetType = msgspec.UNSET  # ids that begin as the one that was given
    command: CommandView | msgspec.UnsetType = msgspec.UNSET  # the command that has ended already
    run: RunView | msgspec.UnsetType = msgspec.UNSET
    query: str | msgspec.UnsetType = msgspec.UNSET
    start: int | msgspec.UnsetType = msgspec.UNSET  # of what is wrong in a query: its first character, from 0 …
    end: int | msgspec.UnsetType = msgspec.UNSET  # … and the one behind it
    condition: str | msgspec.UnsetType = msgspec.UNSET
    silence: str | msgspec.UnsetType = msgspec.UNSET
