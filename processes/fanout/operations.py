"""The table of the API's operations: endpoint, path, role, and their description in the API's document."""

from __future__ import annotations

from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta

from processes.core.budgets import SIGN_IN_COST
from processes.core.fanout.history import HistoryView
from processes.core.records.condition import ConditionView, SilenceView
from processes.core.records.dead_letter import DeadLetterView
from processes.core.records.run import RunView
from processes.core.shown.dead_letters import DeadLetterGone, DeadLettersPage
from processes.core.shown.inventory import TargetGroup
from processes.core.shown.pages import (
    Alive,
    AuditPage,
    CommandsPage,
    CommandWithHistory,
    ConditionsPage,
    HealthView,
    HostCode,
    HostEnrolled,
    HostRemoved,
    HostsLabelled,
    HostsPage,
    IncidentsPage,
    IncidentWithEvidence,
    Me,
    Named,
    Rehearsed,
    RunsPage,
    SavedQueries,
    SavedQueryGone,
    SavedQueryView,
    SessionEnded,
    SessionsPage,
    SignedIn,
    SignedOut,
    SilencesPage,
    TokenGone,
    TokenMade,
    TokensPage,
)
from processes.core.shown.short_ids import CHARS_MIN
from processes.core.shown.status import Report
from processes.core.shown.views import CommandView, HostView, OutputPage
from processes.core.travels.operator_requests import (
    AcknowledgeBody,
    CodeBody,
    DrillBody,
    EnrollBody,
    GiveBody,
    LabelBody,
    LoginBody,
    RotateBody,
    RunBody,
    SavedQueryBody,
    SilenceBody,
    TokenBody,
)  # fmt: skip
from processes.core.values import Role
from processes.fanout import openapi_prose
from processes.fanout.change_api import ChangeApi
from processes.fanout.condition_api import ConditionApi
from processes.fanout.dead_letter_api import DeadLetterApi
from processes.fanout.openapi import Described, either
from processes.fanout.queries import (
    AUDIT_QUERY,
    COMMANDS_QUERY,
    CONDITIONS_QUERY,
    DEAD_LETTERS_QUERY,
    HISTORY_QUERY,
    HOSTS_QUERY,
    INCIDENTS_QUERY,
    OUTPUT_QUERY,
    RUN_QUERY,
    RUNS_QUERY,
    TARGETS_QUERY,
)
from processes.fanout.query_api import QueryApi
from processes.fanout.read_api import ReadApi
from processes.fanout.sessions import Sessions
from processes.fanout.web import Endpoint

NAMED: Final = (CommandView, RunView, Named)  # the types that `either` refers to
SHORT_ID: Final = (
    f"The id may be the beginning of one, of {CHARS_MIN} characters or more; if several begin so: 409, with candidates."
)
ToldCommand = Annotated[msgspec.Raw, Meta(extra_json_schema=either(CommandView, Named))]
ToldRun = Annotated[msgspec.Raw, Meta(extra_json_schema=either(RunView, Named))]


class GivenPage(msgspec.Struct, frozen=True):
    """POST /api/v1/commands: the commands that were accepted."""

    commands: list[CommandView]


class Repeated(msgspec.Struct, frozen=True):
    """POST /api/v1/commands with a key again: of commands that ended long ago it has only the ids."""

    commands: list[ToldCommand]


GIVE_EXAMPLE: Final = {"op": "pull", "hosts": ["web1", "web2"], "key": "pull-of-monday", "ttl_s": 600}
RUN_EXAMPLE: Final = {
    "steps": ["pull", "switch"],
    "where": {"host_type": "web"},
    "parallel": 5,
    "max_failures": 1,
    "key": "switch-of-monday",
}


class Operation(NamedTuple):
    """One endpoint. `role` None: no sign-in."""

    method: str
    path: str
    role: Role | None
    endpoint: Endpoint
    described: Described
    canary: bool = False
    cost: int = 1  # as how many requests it counts (core/budgets.py)


def operations(
    change_api: ChangeApi,
    read_api: ReadApi,
    sessions: Sessions,
    dead_letter_api: DeadLetterApi,
    condition_api: ConditionApi,
) -> list[Operation]:
    """Return all operations."""
    return [
        *_open(change_api, read_api),
        *_health(read_api),
        *_fleet(read_api),
        *_labels(change_api.query_api),
        *_commands(change_api, read_api),
        *_runs(change_api, read_api),
        *_dead_letters(dead_letter_api),
        *_conditions(condition_api),
        *_access(change_api, read_api, sessions),
        *_ruling(change_api, read_api),
    ]


def _open(change_api: ChangeApi, read_api: ReadApi) -> list[Operation]:
    of, health = Described, {200: HealthView, 503: HealthView}
    healthz = of("get_health", "health", "200 only while a canary command goes round", health)
    livez = of("get_liveness", "health", "200 while this process lives", {200: Alive})
    login = of(
        "sign_in", "access", "A session cookie for a one-time code or a token", {200: SignedIn}, LoginBody,
        errors=(401, 403, 429),
        text="Works while the hub is away. Either `code` or `token`.", sets_cookie=True,
    )  # fmt: skip
    live = of(
        "open_websocket",
        "live",
        "The WebSocket for operators",
        {101: None},
        errors=(426,),
        text=openapi_prose.SOCKET,
        role=Role.VIEWER,
    )
    return [
        Operation("GET", "/healthz", None, read_api.healthz, healthz),
        Operation("GET", "/livez", None, read_api.livez, livez),
        Operation("POST", "/login", None, change_api.login, login, cost=SIGN_IN_COST),
        Operation("GET", "/ws", None, read_api.upgrade_required, live),
    ]


def _look(path: str, endpoint: Endpoint, described: Described, *, canary: bool = False) -> Operation:
    return Operation("GET", path, Role.VIEWER, endpoint, described, canary)


def _give(path: str, endpoint: Endpoint, described: Described, *, canary: bool = False) -> Operation:
    return Operation("POST", path, Role.OPERATOR, endpoint, described._replace(asks_hub=True), canary)


def _rule(method: str, path: str, endpoint: Endpoint, described: Described) -> Operation:
    return Operation(method, path, Role.ADMIN, endpoint, described._replace(asks_hub=method != "GET"))


def _health(read_api: ReadApi) -> list[Operation]:
    of, tag = Described, "health"
    incident = of(
        "get_incident",
        "incidents",
        "One incident",
        {200: IncidentWithEvidence},
        errors=(409,),
        text=f"With its evidence as text. {SHORT_ID}",
    )
    incidents = of(
        "list_incidents",
        "incidents",
        "Incidents, newest first",
        {200: IncidentsPage},
        query=INCIDENTS_QUERY,
        errors=(404,),
    )
    return [
        _look(
            "/metrics", read_api.metrics, of("get_metrics", tag, "Prometheus text", {200: str}, media="text/plain")
        )._replace(cost=10),
        _look("/api/v1/status", read_api.status, of("get_status", tag, "The installation's status", {200: Report})),
        _look("/api/v1/incidents", read_api.incidents, incidents),
        _look("/api/v1/incidents/{id}", read_api.incident, incident),
    ]


def _fleet(read_api: ReadApi) -> list[Operation]:
    of, tag = Described, "hosts"
    history = of("get_host_metrics", tag, "Its last hour or day", {200: HistoryView}, query=HISTORY_QUERY)
    targets = of(
        "list_targets", tag, "Targets for Prometheus (http_sd)", {200: list[TargetGroup]}, query=TARGETS_QUERY,
        text="`instance` is the host's name; the labels that begin with `__meta_fleethub_` are for relabelling.",
    )  # fmt: skip
    return [
        _look("/api/v1/sd/prometheus", read_api.targets, targets)._replace(cost=10),
        _look(
            "/api/v1/hosts",
            read_api.hosts,
            of("list_hosts", tag, "Hosts, by name", {200: HostsPage}, query=HOSTS_QUERY),
        )._replace(cost=10),
        _look("/api/v1/hosts/{name}", read_api.host, of("get_host", tag, "One host", {200: HostView})),
        _look("/api/v1/hosts/{name}/metrics", read_api.history, history)._replace(cost=5),
    ]


def _labels(query_api: QueryApi) -> list[Operation]:
    of = Described
    label = of(
        "label_hosts", "hosts", "Sets and removes labels of hosts", {200: HostsLabelled}, LabelBody, errors=(404,),
        text="Of all these hosts, or of none. With `query` alone, of those that it finds now; with both, of `hosts`.",
        example={"query": "name:web*", "set": {"role": "web"}, "remove": ["spare"]},
    )  # fmt: skip
    save = of(
        "save_query", "queries", "Keeps a query under a name", {200: SavedQueryView}, SavedQueryBody, errors=(429,),
        text="`@NAME` stands for it wherever a query is asked for.",
        example={"name": "web", "query": "role=web !os:debian"},
    )  # fmt: skip
    remove = of("remove_query", "queries", "Forgets a saved query", {200: SavedQueryGone})
    listed = of("list_queries", "queries", "Saved queries, by name", {200: SavedQueries})
    return [
        _give("/api/v1/hosts/labels", query_api.label, label)._replace(cost=10),
        _look("/api/v1/queries", query_api.saved, listed),
        _give("/api/v1/queries", query_api.save, save),
        _give("/api/v1/queries/{name}", query_api.remove, remove)._replace(method="DELETE"),
    ]


def _commands(change_api: ChangeApi, read_api: ReadApi) -> list[Operation]:
    of, tag = Described, "commands"
    listed = of(
        "list_commands", tag, "Commands, newest first", {200: CommandsPage}, query=COMMANDS_QUERY, errors=(404,)
    )
    give = of(
        "give_commands", tag, "Gives a command to each host", {202: GivenPage, 200: Repeated}, GiveBody,
        errors=(404, 409, 422, 429),
        text="Answered once it is durable. If one host is unknown (404) or does not offer the op (422), the whole "
        "request is refused. The same `key` again: 200, and the same commands.", example=GIVE_EXAMPLE,
    )  # fmt: skip
    ask = (
        "202: it has ended, or its agent is asked to end it; the command says which, then and later. "
        "409: it had ended already."
    )
    cancel = of("cancel_command", tag, "Cancels a command", {202: CommandView}, errors=(409,), text=ask)
    output = of(
        "get_command_output",
        tag,
        "Its output",
        {200: OutputPage},
        query=OUTPUT_QUERY,
        errors=(409,),
        text=SHORT_ID,
    )
    return [
        _look("/api/v1/commands", read_api.commands, listed),
        _give("/api/v1/commands", change_api.give, give, canary=True),
        _look(
            "/api/v1/commands/{id}",
            read_api.command,
            of("get_command", tag, "One command", {200: CommandWithHistory}, errors=(409,), text=SHORT_ID),
            canary=True,
        ),
        _look("/api/v1/commands/{id}/output", read_api.output, output),
        _give("/api/v1/commands/{id}/cancel", change_api.cancel, cancel),
    ]


def _runs(change_api: ChangeApi, read_api: ReadApi) -> list[Operation]:
    of, tag = Described, "runs"
    start = of(
        "start_run", tag, "Starts a fleet run", {202: RunView, 200: ToldRun}, RunBody, errors=(404, 409, 422, 429),
        text="Either `hosts`, `where` or `query`; an empty `where` is every host. With `query` it runs on the hosts "
        "that it finds now, or, with `hosts` beside it, on these. A host leaves at its first step that does not "
        "succeed; once more than `max_failures` have failed no further host is begun. The same `key` again: 200, and "
        "the same run.",
        example=RUN_EXAMPLE,
    )  # fmt: skip
    cancel = of(
        "cancel_run",
        tag,
        "Cancels a run",
        {202: RunView},
        errors=(409,),
        text="No further host is begun, and the commands under way are asked to end.",
    )
    return [
        _look(
            "/api/v1/runs",
            read_api.runs,
            of("list_runs", tag, "Fleet runs, newest first", {200: RunsPage}, query=RUNS_QUERY, errors=(404,)),
        ),
        _give("/api/v1/runs", change_api.start_run, start),
        _look(
            "/api/v1/runs/{id}",
            read_api.run,
            of("get_run", tag, "One fleet run", {200: RunView}, query=RUN_QUERY, errors=(409,), text=SHORT_ID),
        ),
        _give("/api/v1/runs/{id}/cancel", change_api.cancel_run, cancel),
    ]


def _dead_letters(dead_letter_api: DeadLetterApi) -> list[Operation]:
    def dead_letter_operation(method: str, path: str, endpoint: Endpoint, described: Described) -> Operation:
        described = described._replace(tag="dead letters", asks_hub=method != "GET")
        return Operation(method, f"/api/v1/deadletters{path}", Role.OPERATOR, endpoint, described)

    of, listed = Described, {200: DeadLettersPage}
    return [
        dead_letter_operation(
            "GET",
            "",
            dead_letter_api.listed,
            of("list_dead_letters", "", "Dead letters, newest first", listed, query=DEAD_LETTERS_QUERY),
        ),
        dead_letter_operation(
            "GET",
            "/{id}",
            dead_letter_api.one,
            of("get_dead_letter", "", "One dead letter", {200: DeadLetterView}, errors=(409,), text=SHORT_ID),
        ),
        dead_letter_operation(
            "POST",
            "/{id}/retry",
            dead_letter_api.retry,
            of("retry_dead_letter", "", "Steps it once more", {202: DeadLetterView}, errors=(409,)),
        ),
        dead_letter_operation(
            "POST",
            "/{id}/discard",
            dead_letter_api.discard,
            of("discard_dead_letter", "", "Discards it", {200: DeadLetterGone}),
        ),
    ]


def _conditions(condition_api: ConditionApi) -> list[Operation]:
    of, tag = Described, "conditions"
    listed = of(
        "list_conditions", tag, "What is wrong now, the gravest first", {200: ConditionsPage}, query=CONDITIONS_QUERY,
        text="Also of the installation itself, with host null. What is part of a condition of many hosts names it as "
        "`group`.",
    )  # fmt: skip
    acknowledge = of(
        "acknowledge_condition", tag, "Somebody has seen it", {200: ConditionView}, AcknowledgeBody, errors=(409,),
        text="Only its end is told any more; what happened once is over by this. 409: it is over.",
    )  # fmt: skip
    silence = of(
        "make_silence", tag, "Nobody is told of some hosts for a time", {201: SilenceView}, SilenceBody, errors=(429,),
        text="Of the hosts that the query finds at each moment. Their conditions are listed as silenced.",
    )  # fmt: skip
    end = of("end_silence", tag, "Ends a silence before its time", {200: SilenceView}, errors=(409,))
    return [
        _look("/api/v1/conditions", condition_api.listed, listed)._replace(cost=5),
        _give("/api/v1/conditions/{id}/acknowledge", condition_api.acknowledge, acknowledge),
        _look(
            "/api/v1/silences", condition_api.silences, of("list_silences", tag, "The silences", {200: SilencesPage})
        ),
        _give("/api/v1/silences", condition_api.silence, silence),
        Operation(
            "DELETE", "/api/v1/silences/{id}", Role.OPERATOR, condition_api.unsilence, end._replace(asks_hub=True)
        ),
    ]


def _access(change_api: ChangeApi, read_api: ReadApi, sessions: Sessions) -> list[Operation]:
    of, tag, mine = Described, "access", "One's own; an admin: anybody's."
    logout = of("sign_out", tag, "Ends the session", {200: SignedOut}, sets_cookie=True)
    end = of("end_session", tag, "Ends a session", {200: SessionEnded}, text=mine)
    token = of(
        "create_token", tag, "A further operator token", {201: TokenMade}, TokenBody,
        text="It is told this once. Without `expires_s` it is good until it is revoked.",
    )  # fmt: skip
    rotate = of(
        "rotate_token", tag, "A token in the place of another one", {201: TokenMade}, RotateBody, errors=(409,),
        text="It has the role, label and length of life of the old one, which is good for `overlap_s` more; then its "
        "sessions and connections end. 409: it was replaced already.",
    )  # fmt: skip
    return [
        Operation("POST", "/logout", Role.VIEWER, change_api.logout, logout),
        _look("/api/v1/me", read_api.me, of("get_me", tag, "Who asks", {200: Me})),
        _look(
            "/api/v1/sessions",
            sessions.listed,
            of("list_sessions", tag, "Open sessions", {200: SessionsPage}, text=mine),
        ),
        Operation("DELETE", "/api/v1/sessions/{id}", Role.VIEWER, sessions.end, end),
        _rule(
            "GET",
            "/api/v1/tokens",
            read_api.tokens,
            of("list_tokens", tag, "Operator tokens, never the tokens themselves", {200: TokensPage}),
        ),
        _rule("POST", "/api/v1/tokens", change_api.create_token, token),
        _rule("POST", "/api/v1/tokens/{id}/rotate", change_api.rotate_token, rotate),
        _rule(
            "DELETE",
            "/api/v1/tokens/{id}",
            change_api.revoke_token,
            of("revoke_token", tag, "Voids an operator token", {200: TokenGone}),
        ),
    ]


def _ruling(change_api: ChangeApi, read_api: ReadApi) -> list[Operation]:
    of, tag = Described, "hosts"
    enroll = of(
        "enroll_host", tag, "Enrols a host and tells its token once", {201: HostEnrolled}, EnrollBody, errors=(409,),
        text="A name that is taken is refused (409), unless `again`: then it gets a new token and the old one is void.",
    )  # fmt: skip
    code = of(
        "make_enrolment_code", tag, "A one-time code by which a host enrols itself", {201: HostCode}, CodeBody,
        errors=(409,),
        text="The host's agent exchanges it for a token that it makes itself and nobody is shown. `again`: also for "
        "a host that is enrolled; its token is good until the code is used.",
    )  # fmt: skip
    rotate = of(
        "rotate_host", tag, "Has the host's agent make a new token", {202: HostView}, errors=(409,),
        text="Now, or when it connects. The agent sends the hash alone; the old token is void once the hub has it, and "
        "the agent comes back with the new one. 409: its agent cannot, or the host has no token.",
    )  # fmt: skip
    remove = of(
        "remove_host",
        tag,
        "Removes a host",
        {200: HostRemoved},
        text="Its open commands end: cancelled, or lost if they were sent.",
    )
    revoke = of("revoke_host", tag, "Voids a host's token", {200: HostView}, text="Its connection ends within 2 s.")
    lift = of("lift_host", tag, "Lifts the suspension of a host's token", {200: HostView})
    audit = of("list_audit", "audit", "Who did or tried what, newest first", {200: AuditPage}, query=AUDIT_QUERY)
    drill = of(
        "start_drill",
        "drills",
        "Rehearses a fault",
        {200: Rehearsed},
        DrillBody,
        errors=(409,),
        text="Only with `drills.enabled`.",
    )
    return [
        _rule("POST", "/api/v1/hosts", change_api.enroll, enroll),
        _rule("DELETE", "/api/v1/hosts/{name}", change_api.remove, remove),
        _rule("POST", "/api/v1/hosts/{name}/code", change_api.make_code, code),
        _rule("POST", "/api/v1/hosts/{name}/rotate", change_api.rotate_host, rotate),
        _rule("POST", "/api/v1/hosts/{name}/revoke", change_api.revoke, revoke),
        _give("/api/v1/hosts/{name}/lift", change_api.lift, lift),
        _rule("GET", "/api/v1/audit", read_api.audit, audit)._replace(cost=5),
        _rule("POST", "/api/v1/drill", change_api.drill, drill),
    ]
