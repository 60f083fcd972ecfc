"""The table of the API's operations: what can be asked for, by whom, and what is said of it in the document."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from processes.core.dead_letter import LetterView
from processes.core.history import HistoryView
from processes.core.pages import (
    AuditPage,
    CommandsPage,
    CommandWithHistory,
    DeadLettersPage,
    HealthView,
    HostEnrolled,
    HostRemoved,
    HostsPage,
    IncidentsPage,
    IncidentWithEvidence,
    LetterGone,
    Me,
    Named,
    RunsPage,
    SignedIn,
    TokenGone,
    TokenMade,
    TokensPage,
)
from processes.core.report import Report
from processes.core.run import RunView
from processes.core.values import Role
from processes.core.views import CommandView, HostView, OutputPage
from processes.fanout.api import Api, DrillBody, EnrollBody, GiveBody, LoginBody, RunBody, TokenBody
from processes.fanout.letters import Letters
from processes.fanout.openapi import Described
from processes.fanout.queries import (
    AUDIT_QUERY,
    COMMANDS_QUERY,
    HISTORY_QUERY,
    HOSTS_QUERY,
    INCIDENTS_QUERY,
    LETTERS_QUERY,
    OUTPUT_QUERY,
    RUN_QUERY,
    RUNS_QUERY,
)
from processes.fanout.reads import Reads
from processes.fanout.sessions import Sessions, SessionView
from processes.fanout.web import Endpoint


class SessionsPage(msgspec.Struct, frozen=True):
    """GET /api/v1/sessions."""

    sessions: list[SessionView]


class GivenPage(msgspec.Struct, frozen=True):
    """POST /api/v1/commands: what was accepted."""

    commands: list[CommandView]


class Repeated(msgspec.Struct, frozen=True):
    """POST /api/v1/commands with a key again: of commands that ended long ago only the ids are told."""

    commands: list[dict[str, Any]]


class Operation(NamedTuple):
    """One endpoint. `role` None: no sign-in."""

    method: str
    path: str
    role: Role | None
    endpoint: Endpoint
    described: Described
    canary: bool = False


def operations(api: Api, reads: Reads, sessions: Sessions, letters: Letters) -> list[Operation]:
    """Everything that can be asked for, and by whom."""
    return [*_open(api, reads), *_looking(reads, sessions), *_giving(api), *_letters(letters), *_ruling(api, reads)]


def _open(api: Api, reads: Reads) -> list[Operation]:
    of, health = Described, {200: HealthView, 503: HealthView}
    cookie = "A session cookie for a one-time code or a token"
    return [
        Operation("GET", "/healthz", None, reads.healthz, of("200 only while a canary command goes round", health)),
        Operation("GET", "/livez", None, reads.livez, of("200 while this process lives", {200: dict[str, bool]})),
        Operation("POST", "/login", None, api.login, of(cookie, {200: SignedIn}, LoginBody, errors=(401, 403))),
        Operation("GET", "/ws", None, reads.upgrade_required, of("The WebSocket for operators", {101: None}, errors=(426,))),
    ]


def _looking(reads: Reads, sessions: Sessions) -> list[Operation]:
    def look(path: str, endpoint: Endpoint, described: Described, *, canary: bool = False) -> Operation:
        return Operation("GET", path, Role.VIEWER, endpoint, described, canary)

    of = Described
    return [
        look("/metrics", reads.metrics, of("Prometheus text", {200: str}, media="text/plain")),
        look("/api/v1/me", reads.me, of("Who asks", {200: Me})),
        look("/api/v1/status", reads.status, of("The watchdog's view", {200: Report})),
        look("/api/v1/hosts", reads.hosts, of("Hosts, by name", {200: HostsPage}, query=HOSTS_QUERY)),
        look("/api/v1/hosts/{name}", reads.host, of("One host", {200: HostView})),
        look("/api/v1/hosts/{name}/metrics", reads.history, of("Its last hour or day", {200: HistoryView}, query=HISTORY_QUERY)),
        look("/api/v1/commands", reads.commands, of("Commands, newest first", {200: CommandsPage}, query=COMMANDS_QUERY, errors=(404,))),
        look("/api/v1/commands/{id}", reads.command, of("One command", {200: CommandWithHistory}), canary=True),
        look("/api/v1/commands/{id}/output", reads.output, of("Its output", {200: OutputPage}, query=OUTPUT_QUERY)),
        look(
            "/api/v1/incidents", reads.incidents, of("Incidents, newest first", {200: IncidentsPage}, query=INCIDENTS_QUERY, errors=(404,))
        ),
        look("/api/v1/incidents/{id}", reads.incident, of("One incident", {200: IncidentWithEvidence})),
        look("/api/v1/runs", reads.runs, of("Fleet runs, newest first", {200: RunsPage}, query=RUNS_QUERY, errors=(404,))),
        look("/api/v1/runs/{id}", reads.run, of("One fleet run", {200: RunView}, query=RUN_QUERY)),
        look("/api/v1/sessions", sessions.listed, of("Sessions", {200: SessionsPage})),
        Operation("DELETE", "/api/v1/sessions/{id}", Role.VIEWER, sessions.end, of("Ends a session", {200: dict[str, Any]})),
    ]


def _giving(api: Api) -> list[Operation]:
    def give(path: str, endpoint: Endpoint, described: Described, *, canary: bool = False) -> Operation:
        return Operation("POST", path, Role.OPERATOR, endpoint, described, canary)

    of, refused, again = Described, (404, 409, 422), "the same key again: 200, and the same"
    commands = of(f"Gives commands; {again} commands", {202: GivenPage, 200: Repeated}, GiveBody, errors=refused)
    return [
        Operation("POST", "/logout", Role.VIEWER, api.logout, of("Ends the session", {200: dict[str, bool]})),
        give("/api/v1/commands", api.give, commands, canary=True),
        give("/api/v1/commands/{id}/cancel", api.cancel, of("Cancels", {202: CommandView}, errors=(409,))),
        give("/api/v1/hosts/{name}/lift", api.lift, of("Lifts the suspension of a host's token", {200: HostView})),
        give("/api/v1/runs", api.start_run, of(f"Starts a fleet run; {again} run", {202: RunView, 200: Named}, RunBody, errors=refused)),
        give("/api/v1/runs/{id}/cancel", api.cancel_run, of("Cancels a run", {202: RunView}, errors=(409,))),
    ]


def _letters(letters: Letters) -> list[Operation]:
    def letter(method: str, path: str, endpoint: Endpoint, described: Described) -> Operation:
        return Operation(method, f"/api/v1/deadletters{path}", Role.OPERATOR, endpoint, described)

    of = Described
    return [
        letter("GET", "", letters.listed, of("Dead letters, newest first", {200: DeadLettersPage}, query=LETTERS_QUERY)),
        letter("GET", "/{id}", letters.one, of("One dead letter", {200: LetterView})),
        letter("POST", "/{id}/retry", letters.retry, of("Steps it once more", {202: LetterView}, errors=(409,))),
        letter("POST", "/{id}/discard", letters.discard, of("Throws it away", {200: LetterGone})),
    ]


def _ruling(api: Api, reads: Reads) -> list[Operation]:
    def rule(method: str, path: str, endpoint: Endpoint, described: Described) -> Operation:
        return Operation(method, path, Role.ADMIN, endpoint, described)

    of = Described
    enrol = of("Enrols a host and tells its token once", {201: HostEnrolled}, EnrollBody, errors=(409,))
    return [
        rule("POST", "/api/v1/hosts", api.enroll, enrol),
        rule("DELETE", "/api/v1/hosts/{name}", api.remove, of("Removes a host", {200: HostRemoved})),
        rule("POST", "/api/v1/hosts/{name}/revoke", api.revoke, of("Voids a host's token", {200: HostView})),
        rule("GET", "/api/v1/tokens", reads.tokens, of("Operator tokens, never the tokens themselves", {200: TokensPage})),
        rule("POST", "/api/v1/tokens", api.create_token, of("A further operator token", {201: TokenMade}, TokenBody)),
        rule("DELETE", "/api/v1/tokens/{id}", api.revoke_token, of("Voids an operator token", {200: TokenGone})),
        rule("GET", "/api/v1/audit", reads.audit, of("Who did or tried what, newest first", {200: AuditPage}, query=AUDIT_QUERY)),
        rule("POST", "/api/v1/drill", api.drill, of("Rehearses a fault", {200: dict[str, str]}, DrillBody, errors=(409,))),
    ]
