"""The endpoints of the HTTP API that change something: requests to the hub, and signing in and out."""

from __future__ import annotations

import contextlib
import secrets
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from processes.adapters.settings import Settings
from processes.core.fanout.mirror import Mirror
from processes.core.fanout.signin import SESSION_S_MAX, Principal
from processes.core.travels.audit import Kind
from processes.core.travels.messages import (
    CancelCommand,
    CancelRun,
    CreateToken,
    EnrollHost,
    GiveCommand,
    Json,
    LiftHost,
    MakeCode,
    RehearseFault,
    RemoveHost,
    RevokeHost,
    RevokeToken,
    RotateHost,
    RotateToken,
    StartRun,
)  # fmt: skip
from processes.core.travels.messages import Request as HubRequest
from processes.core.travels.operator_requests import (
    CodeBody,
    DrillBody,
    EnrollBody,
    GiveBody,
    LoginBody,
    RotateBody,
    RunBody,
    TokenBody,
)  # fmt: skip
from processes.core.values import CANARY_HOST, CANARY_OP, digest
from processes.fanout.agent_download import AgentDownload
from processes.fanout.audit_notes import AuditNotes
from processes.fanout.auth import Auth, TooManyAttempts
from processes.fanout.query_api import QueryApi
from processes.fanout.read_api import ReadApi
from processes.fanout.requests import Answer, Requests
from processes.fanout.web import (
    Problem,
    address_of,
    answered,
    body_of,
    check_fresh,
    check_origin,
    check_there,
    json,
    principal_of,
)  # fmt: skip

CODE_BYTES = 18  # of chance in an enrolment code; source: 144 bits, which nobody guesses before it expires


class ChangeApi:
    """Each method is an endpoint."""

    def __init__(  # noqa: PLR0917  # its parts
        self,
        settings: Settings,
        auth: Auth,
        requests: Requests,
        mirror: Mirror,
        read_api: ReadApi,
        audit_notes: AuditNotes,
    ) -> None:
        self._settings, self._auth, self._requests, self._mirror = settings, auth, requests, mirror
        self._read_api, self._audit_notes = read_api, audit_notes
        self.query_api = QueryApi(read_api.finder, requests)
        self.agent_download = AgentDownload(settings.agents_url)

    async def login(self, request: Request) -> Response:
        """Give a session cookie for a one-time code or a token."""
        check_origin(self._auth, request)
        address = address_of(request)
        body = await body_of(request, LoginBody)
        if (body.code is None) == (body.token is None):
            raise Problem(400, "malformed", "give either code or token")

        async def charge(token: Principal) -> None:
            if request.state.charge is not None:
                await request.state.charge(token.owner)

        browser = request.headers.get("user-agent", "")
        try:
            signed_in = await self._auth.sign_in(body.code, body.token, address, browser, charge)
        except TooManyAttempts:
            told = "too many sign-ins with what is not good: wait a minute"
            raise Problem(429, "too_many", told, {"retry-after": "60"}) from None
        if signed_in is None:
            raise Problem(
                401, "not_signed_in", "this code or token is not good (any more)", {"www-authenticate": "Bearer"}
            )
        before = self._auth.known("", request.headers.getlist("cookie"))
        if before is not None:  # of the same browser: nobody can use it any more
            with contextlib.suppress(OSError):  # a full disk: it ends by its time
                await self._auth.end(before.credential, before.since_wall_s)
        cookie, principal = signed_in
        self._audit_notes.note(Kind.SESSION, address, "signed_in", actor=principal.actor, reason=principal.role)
        response = json({"role": principal.role, "actor": principal.actor})
        self._set_cookie(response, cookie, int(SESSION_S_MAX))
        return response

    async def logout(self, request: Request) -> Response:
        """End the session, everywhere."""
        await self._auth.sign_out(principal_of(request))
        address = address_of(request)
        self._audit_notes.note(Kind.SESSION, address, "signed_out", actor=principal_of(request).actor)
        response = json({"signed_out": True})
        self._set_cookie(response, "", 0)
        return response

    async def give(self, request: Request) -> Response:
        """Give a command to each of the hosts; answered once it is durable."""
        body = await body_of(request, GiveBody)
        canary = principal_of(request).canary
        if canary and (body.hosts != [CANARY_HOST] or body.op != CANARY_OP):
            raise Problem(403, "forbidden", "the canary commands itself only")
        if not canary and CANARY_HOST in body.hosts:
            raise Problem(404, "unknown_host", f"there is no host {CANARY_HOST!r}", None, host=CANARY_HOST)
        check_fresh(self._auth, request, [body.op])
        return await self._ask(request, GiveCommand(**msgspec.structs.asdict(body)))

    async def cancel(self, request: Request) -> Response:
        """Ask for the command's end; 409 if it has ended."""
        return await self._ask(request, CancelCommand(request.path_params["id"]))

    async def start_run(self, request: Request) -> Response:
        """Start a run over many hosts. The hub carries it on, whatever becomes of the client."""
        body = await body_of(request, RunBody)
        check_fresh(self._auth, request, body.steps)
        if body.query is not None and body.where is not None:
            raise Problem(400, "malformed", "give either query or where")
        hosts = await self._read_api.finder.chosen(body.hosts, body.query)
        return await self._ask_about_run(request, StartRun(**{**msgspec.structs.asdict(body), "hosts": hosts}))

    async def cancel_run(self, request: Request) -> Response:
        """Begin no further host, and ask for the end of the commands under way; 409 if the run has ended."""
        return await self._ask_about_run(request, CancelRun(request.path_params["id"]))

    async def enroll(self, request: Request) -> Response:
        """Enroll a host and tell its token, this once; the hub gets only the token's hash."""
        body = await body_of(request, EnrollBody)
        agents_url = {"agents_url": self._settings.agents_url}
        return await self._with_token(
            request, lambda token: EnrollHost(body.name, digest(token), body.again, body.labels), agents_url
        )

    async def make_code(self, request: Request) -> Response:
        """Make a one-time code by which a host enrols itself, and tell it, this once."""
        body, name = await body_of(request, CodeBody), request.path_params["name"]
        code = f"{name}:{secrets.token_urlsafe(CODE_BYTES)}"
        asked = MakeCode(name, digest(code), body.again, body.expires_s, body.labels)
        told = {
            "code": code,
            "agents_url": self._settings.agents_url,
            "operators_url": self._settings.file.operators.url,
        }
        told |= await self.agent_download.named()  # a host that has fleethub enrols itself without that file too
        return await self._with_secret(request, asked, told)

    async def rotate_host(self, request: Request) -> Response:
        """Have the host's agent make a new token."""
        return await self._ask(request, RotateHost(request.path_params["name"]))

    async def revoke(self, request: Request) -> Response:
        """Revoke the host's token."""
        return await self._ask(request, RevokeHost(request.path_params["name"]))

    async def lift(self, request: Request) -> Response:
        """Lift the suspension of the host's token."""
        return await self._ask(request, LiftHost(request.path_params["name"]))

    async def remove(self, request: Request) -> Response:
        """Remove the host; its open commands end."""
        return await self._ask(request, RemoveHost(request.path_params["name"]))

    async def create_token(self, request: Request) -> Response:
        """Create a further operator token and tell it, this once."""
        body = await body_of(request, TokenBody)
        return await self._with_token(
            request, lambda token: CreateToken(digest(token), body.role.value, body.label, body.expires_s)
        )

    async def rotate_token(self, request: Request) -> Response:
        """Create a token in the place of another one, which is good for an overlap, and tell it, this once."""
        body = await body_of(request, RotateBody)
        old = await self._token_hash(request.path_params["id"])
        return await self._with_token(request, lambda token: RotateToken(old, digest(token), body.overlap_s))

    async def revoke_token(self, request: Request) -> Response:
        """Revoke a further operator token; its sessions and connections end."""
        return await self._ask(request, RevokeToken(await self._token_hash(request.path_params["id"])))

    async def drill(self, request: Request) -> Response:
        """Rehearse a fault inside the hub."""
        body = await body_of(request, DrillBody)
        if not self._settings.file.drills.enabled:
            raise Problem(
                403, "drills_disabled", "drills are not enabled on this installation: set drills.enabled = true"
            )
        return await self._ask(request, RehearseFault(body.fault, self._mirror.epoch))

    async def _token_hash(self, named: str) -> str:
        """Return the hash of the token of this id. Raises: Problem 404; DatabaseUnreadable."""
        found = [token_hash for token_hash, view in await self._read_api.known_tokens() if view.id == named]
        if len(found) != 1:
            raise Problem(404, "unknown_token", f"there is no token {named!r}")
        return found[0]

    async def _ask(self, request: Request, asked: HubRequest) -> Response:
        await check_there(request)
        return answered(await self._requests.ask(principal_of(request).actor, asked))

    async def _ask_about_run(self, request: Request, asked: HubRequest) -> Response:
        await check_there(request)
        answer = await self._requests.ask(principal_of(request).actor, asked)
        return answered(await self._read_api.with_hosts(answer))

    async def _with_token(self, request: Request, make: Any, more: dict[str, str] | None = None) -> Response:
        token = secrets.token_urlsafe(32)
        return await self._with_secret(request, make(token), {"token": token, **(more or {})})

    async def _with_secret(self, request: Request, asked: HubRequest, told: dict[str, str]) -> Response:
        """Answer with what the hub says, and with what it does not know."""
        await check_there(request)
        answer = await self._requests.ask(principal_of(request).actor, asked)
        if answer.status // 100 == 2:
            fields = msgspec.json.decode(answer.body, type=dict[str, msgspec.Raw])
            for name, value in told.items():
                fields[name] = msgspec.Raw(msgspec.json.encode(value))
            answer = Answer(answer.status, Json(msgspec.json.encode(fields)))
        return answered(answer)

    def _set_cookie(self, response: Response, value: str, max_age_s: int) -> None:
        response.set_cookie(
            self._auth.cookie_name,
            value,
            max_age=max_age_s,
            path="/",
            secure=self._auth.public.secure,
            httponly=True,
            samesite="strict",
        )
