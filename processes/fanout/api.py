"""The HTTP API: its table of operations, the endpoints that change something, and the application that uvicorn runs."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import Meta
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from processes.adapters.settings import Settings
from processes.core.messages import (
    CancelCommand,
    CancelRun,
    CreateToken,
    Drill,
    EnrollHost,
    GiveCommand,
    Json,
    RemoveHost,
    RevokeHost,
    StartRun,
)  # fmt: skip
from processes.core.messages import Request as HubRequest
from processes.core.mirror import Mirror
from processes.core.report import IncidentView, Report
from processes.core.run import RunView
from processes.core.signin import SESSION_S_MAX, digest
from processes.core.values import CANARY_HOST, CANARY_OP, Role
from processes.core.views import CommandView, HostView, OutputPage
from processes.fanout.auth import Auth
from processes.fanout.openapi import Described, document
from processes.fanout.reads import CommandWithHistory, Reads
from processes.fanout.requests import Answer, Requests
from processes.fanout.web import (
    Endpoint,
    HostCheck,
    Problem,
    answered,
    body_of,
    check_origin,
    guarded,
    http_error,
    internal_error,
    json,
    principal_of,
)  # fmt: skip

PAGE: Final = Path(__file__).parent / "page"
PAGE_FILES: Final = {  # fixed: no path is ever made from a request
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/view.js": ("view.js", "text/javascript; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/favicon.svg": ("favicon.svg", "image/svg+xml"),
}
HOSTS_MAX: Final = 10_000  # in one request
Name = Annotated[str, Meta(min_length=1, max_length=253)]


class GiveBody(msgspec.Struct, forbid_unknown_fields=True):
    """POST /api/v1/commands."""

    op: Annotated[str, Meta(min_length=1, max_length=64)]
    hosts: Annotated[list[Name], Meta(min_length=1, max_length=HOSTS_MAX)]
    key: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    ttl_s: Annotated[float, Meta(ge=0, le=7 * 86400)] | None = None


class RunBody(msgspec.Struct, forbid_unknown_fields=True):
    """POST /api/v1/runs. Either hosts or where; an empty where is every host."""

    steps: Annotated[list[Annotated[str, Meta(min_length=1, max_length=64)]], Meta(min_length=1, max_length=20)]
    hosts: Annotated[list[Name], Meta(min_length=1, max_length=HOSTS_MAX)] | None = None
    where: Annotated[dict[str, str], Meta(max_length=20)] | None = None
    parallel: Annotated[int, Meta(ge=1, le=HOSTS_MAX)] | None = None
    max_failures: Annotated[int, Meta(ge=0, le=HOSTS_MAX)] | None = None
    ttl_s: Annotated[float, Meta(ge=0, le=7 * 86400)] | None = None
    key: Annotated[str, Meta(min_length=1, max_length=128)] | None = None


class EnrollBody(msgspec.Struct, forbid_unknown_fields=True):
    """POST /api/v1/hosts."""

    name: Name
    again: bool = False


class TokenBody(msgspec.Struct, forbid_unknown_fields=True):
    """POST /api/v1/tokens."""

    role: Role
    label: Annotated[str, Meta(max_length=100)] = ""


class DrillBody(msgspec.Struct, forbid_unknown_fields=True):
    """POST /api/v1/drill."""

    fault: Annotated[str, Meta(max_length=40)]


class LoginBody(msgspec.Struct, forbid_unknown_fields=True):
    """POST /login: one of them."""

    code: Annotated[str, Meta(max_length=512)] | None = None
    token: Annotated[str, Meta(max_length=512)] | None = None


class Operation(NamedTuple):
    """One endpoint. `role` None: no sign-in."""

    method: str
    path: str
    role: Role | None
    endpoint: Endpoint
    described: Described
    canary: bool = False


class Api:
    """The endpoints that change something: each is a request to the hub, or about the session."""

    def __init__(self, settings: Settings, auth: Auth, requests: Requests, mirror: Mirror) -> None:
        self._settings, self._auth, self._requests, self._mirror = settings, auth, requests, mirror

    async def login(self, request: Request) -> Response:
        """A session cookie for a one-time code or a token."""
        check_origin(self._auth, request)
        address = request.client.host if request.client else ""
        if not self._auth.attempts.allow(address, asyncio.get_running_loop().time()):
            raise Problem(429, "too_many", "too many sign-ins from here: wait a minute", {"retry-after": "60"})
        body = await body_of(request, LoginBody)
        if (body.code is None) == (body.token is None):
            raise Problem(400, "malformed", "give either code or token")
        signed_in = await self._auth.sign_in(body.code, body.token)
        if signed_in is None:
            raise Problem(401, "not_signed_in", "this code or token is not good (any more)", {"www-authenticate": "Bearer"})
        cookie, principal = signed_in
        response = json({"role": principal.role, "actor": principal.actor})
        self._set_cookie(response, cookie, int(SESSION_S_MAX))
        return response

    async def logout(self, request: Request) -> Response:
        """The session is over, everywhere."""
        await self._auth.sign_out(principal_of(request))
        response = json({"signed_out": True})
        self._set_cookie(response, "", 0)
        return response

    async def give(self, request: Request) -> Response:
        """A command for each of the hosts; answered once it is durable."""
        body = await body_of(request, GiveBody)
        canary = principal_of(request).canary
        if canary and (body.hosts != [CANARY_HOST] or body.op != CANARY_OP):
            raise Problem(403, "forbidden", "the canary commands itself only")
        if not canary and CANARY_HOST in body.hosts:
            raise Problem(404, "unknown_host", f"there is no host {CANARY_HOST!r}", None, host=CANARY_HOST)
        return await self._ask(request, GiveCommand(body.op, body.hosts, body.key, body.ttl_s))

    async def cancel(self, request: Request) -> Response:
        """Asks for the command's end; 409 if it has ended."""
        return await self._ask(request, CancelCommand(request.path_params["id"]))

    async def start_run(self, request: Request) -> Response:
        """A run over many hosts, which the hub carries on whatever the asker does."""
        body = await body_of(request, RunBody)
        asked = StartRun(body.steps, body.hosts, body.where, body.parallel, body.max_failures, body.ttl_s, body.key)
        return await self._ask(request, asked)

    async def cancel_run(self, request: Request) -> Response:
        """No further host is begun, and what is under way is asked to end; 409 if the run has ended."""
        return await self._ask(request, CancelRun(request.path_params["id"]))

    async def enroll(self, request: Request) -> Response:
        """A host and its token, which is told this once; the hub gets its hash only."""
        body = await body_of(request, EnrollBody)
        return await self._with_token(request, lambda token: EnrollHost(body.name, digest(token), body.again))

    async def revoke(self, request: Request) -> Response:
        """The host's token is void."""
        return await self._ask(request, RevokeHost(request.path_params["name"]))

    async def remove(self, request: Request) -> Response:
        """The host is gone; its open commands end."""
        return await self._ask(request, RemoveHost(request.path_params["name"]))

    async def create_token(self, request: Request) -> Response:
        """A further operator token, told this once."""
        body = await body_of(request, TokenBody)
        return await self._with_token(request, lambda token: CreateToken(digest(token), body.role.value, body.label))

    async def drill(self, request: Request) -> Response:
        """Rehearses a fault inside the hub."""
        body = await body_of(request, DrillBody)
        if not self._settings.file.drills.enabled:
            raise Problem(403, "drills_disabled", "drills are not enabled on this installation: set drills.enabled = true")
        return await self._ask(request, Drill(body.fault, self._mirror.epoch))

    async def _ask(self, request: Request, asked: HubRequest) -> Response:
        return answered(await self._requests.ask(principal_of(request).actor, asked))

    async def _with_token(self, request: Request, make: Any) -> Response:
        token = secrets.token_urlsafe(32)
        answer = await self._requests.ask(principal_of(request).actor, make(token))
        if answer.status // 100 == 2:
            fields = msgspec.json.decode(answer.body, type=dict[str, msgspec.Raw])
            fields["token"] = msgspec.Raw(msgspec.json.encode(token))
            answer = Answer(answer.status, Json(msgspec.json.encode(fields)))
        return answered(answer)

    def _set_cookie(self, response: Response, value: str, max_age_s: int) -> None:
        response.set_cookie(
            self._auth.cookie_name, value, max_age=max_age_s, path="/", secure=self._auth.public.secure, httponly=True, samesite="strict"
        )


def operations(api: Api, reads: Reads) -> list[Operation]:
    """Everything that can be asked for, and by whom."""
    looks, gives, rules = Role.VIEWER, Role.OPERATOR, Role.ADMIN
    described = Described
    commands = described("Gives commands; the same key again gives the same commands", GiveBody, 202)
    return [
        Operation("GET", "/healthz", None, reads.healthz, described("200 only while a canary command goes round")),
        Operation("GET", "/livez", None, reads.livez, described("200 while this process lives")),
        Operation("GET", "/metrics", looks, reads.metrics, described("Prometheus text")),
        Operation("POST", "/login", None, api.login, described("A session cookie for a one-time code or a token", LoginBody)),
        Operation("POST", "/logout", looks, api.logout, described("Ends the session")),
        Operation("GET", "/ws", None, reads.upgrade_required, described("The WebSocket for operators", status=101)),
        Operation("GET", "/api/v1/me", looks, reads.me, described("Who asks")),
        Operation("GET", "/api/v1/status", looks, reads.status, described("The watchdog's view", answer=Report)),
        Operation("GET", "/api/v1/hosts", looks, reads.hosts, described("All hosts", answer=HostView, listed="hosts")),
        Operation("GET", "/api/v1/hosts/{name}", looks, reads.host, described("One host", answer=HostView)),
        Operation("GET", "/api/v1/commands", looks, reads.commands, described("Commands", answer=CommandView, listed="commands")),
        Operation("GET", "/api/v1/commands/{id}", looks, reads.command, described("One command", answer=CommandWithHistory), canary=True),
        Operation("GET", "/api/v1/commands/{id}/output", looks, reads.output, described("Its output", answer=OutputPage)),
        Operation("GET", "/api/v1/incidents", looks, reads.incidents, described("Incidents", answer=IncidentView, listed="incidents")),
        Operation("GET", "/api/v1/incidents/{id}", looks, reads.incident, described("One incident", answer=IncidentView)),
        Operation("POST", "/api/v1/commands", gives, api.give, commands._replace(answer=CommandView, listed="commands"), canary=True),
        Operation("POST", "/api/v1/commands/{id}/cancel", gives, api.cancel, described("Cancels", None, 202, CommandView)),
        Operation("GET", "/api/v1/runs", looks, reads.runs, described("Fleet runs", answer=RunView, listed="runs")),
        Operation("GET", "/api/v1/runs/{id}", looks, reads.run, described("One fleet run", answer=RunView)),
        Operation("POST", "/api/v1/runs", gives, api.start_run, described("Starts a fleet run", RunBody, 202, RunView)),
        Operation("POST", "/api/v1/runs/{id}/cancel", gives, api.cancel_run, described("Cancels a run", None, 202, RunView)),
        Operation("POST", "/api/v1/hosts", rules, api.enroll, described("Enrols a host and tells its token once", EnrollBody, 201)),
        Operation("DELETE", "/api/v1/hosts/{name}", rules, api.remove, described("Removes a host")),
        Operation("POST", "/api/v1/hosts/{name}/revoke", rules, api.revoke, described("Voids a host's token", answer=HostView)),
        Operation("POST", "/api/v1/tokens", rules, api.create_token, described("A further operator token", TokenBody, 201)),
        Operation("POST", "/api/v1/drill", rules, api.drill, described("Rehearses a fault inside the hub", DrillBody)),
    ]


def application(api: Api, reads: Reads, auth: Auth) -> ASGIApp:
    """The whole HTTP side."""
    table = operations(api, reads)
    spec = json(document([(o.method, o.path, o.role is not None, o.described) for o in table])).body

    async def openapi(request: Request) -> Response:
        return json(bytes(spec))

    routes = [
        Route(o.path, guarded(auth, o.role, o.endpoint, canary=o.canary), methods=[o.method], name=f"{o.method} {o.path}")
        for o in _by_path(table)
    ]
    routes.append(Route("/openapi.json", guarded(auth, None, openapi), methods=["GET"]))
    routes += [Route(path, _static(PAGE / name, kind), methods=["GET"]) for path, (name, kind) in PAGE_FILES.items()]
    app = Starlette(routes=routes, exception_handlers={HTTPException: http_error, Exception: internal_error})
    app.router.redirect_slashes = False
    return HostCheck(app, auth)


def _by_path(table: list[Operation]) -> list[Operation]:
    """One operation a route: Starlette answers 405 for the first route of a path unless another one of it fits whole, so order is free."""
    return sorted(table, key=lambda o: o.path)


def _static(path: Path, kind: str) -> Endpoint:
    content = path.read_bytes()

    async def page(request: Request) -> Response:
        return Response(content, media_type=kind)

    return page
