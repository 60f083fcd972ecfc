"""Common to all HTTP endpoints: who asks, whether that role may, JSON in and out, errors in one form."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import functools
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, Protocol, TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from processes.adapters.listener import Arrival
from processes.adapters.state.fleet_db import DatabaseUnreadable
from processes.core.budgets import TOKEN_CONNECTIONS_MAX
from processes.core.connections import Network, client_address
from processes.core.fanout.http_head import HEAD_BYTES_MAX, HEADERS_MAX, TOO_LARGE
from processes.core.fanout.signin import Principal, below, cookie_values
from processes.core.shown.short_ids import AmbiguousId
from processes.core.travels import shape
from processes.core.travels.messages import Json
from processes.core.values import HOST_NAME_MAX, Role
from processes.fanout.audit_notes import AuditNotes
from processes.fanout.auth import Auth
from processes.fanout.requests import Answer
from processes.fanout.requests import problem as problem_body

BODY_BYTES_MAX: Final = 1 << 20  # contract: 413 beyond it
BODY_S_MAX: Final = 10.0  # for the whole body of a request
SIGN_IN: Final = "sign in first: a Bearer token or the session cookie"
RETRY_AFTER_S: Final = 2  # a hub is replaced within 5 s, `queues` within 1 s

Headers = Sequence[tuple[bytes, bytes]]
Endpoint = Callable[[Request], Awaitable[Response]]
S = TypeVar("S", bound=msgspec.Struct)


class Problem(Exception):
    """An error that is answered in the API's form."""

    def __init__(
        self, status: int, code: str, message: str, headers: dict[str, str] | None = None, **more: object
    ) -> None:
        super().__init__(message)
        self.status, self.headers = status, dict(headers or {})
        self.body = problem_body(code, message, **more)
        if status in (429, 503):
            self.headers.setdefault("retry-after", str(RETRY_AFTER_S))


def json(
    body: Json | bytes | msgspec.Struct | dict[str, Any], status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """Return a JSON answer; bytes are JSON already."""
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return Response(content, status, headers, "application/json")


def answered(answer: Answer) -> Response:
    """Return the hub's answer unchanged, as a response."""
    headers = {"retry-after": str(RETRY_AFTER_S)} if answer.status in (429, 503) else None
    return json(answer.body, answer.status, headers)


def told(problem: Problem) -> Response:
    """Return the problem as a response."""
    return json(problem.body, problem.status, problem.headers)


async def body_of(request: Request, kind: type[S]) -> S:
    """Return the request's body, strictly of this type. Raises: Problem 400 (naming the field), 408, 413."""
    body = bytearray()
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length[:20]) > BODY_BYTES_MAX:
        raise Problem(413, "too_large", f"the body is larger than {BODY_BYTES_MAX} bytes", {"connection": "close"})
    try:
        async with asyncio.timeout(BODY_S_MAX):
            async for chunk in request.stream():
                body += chunk
                if len(body) > BODY_BYTES_MAX:
                    raise Problem(
                        413, "too_large", f"the body is larger than {BODY_BYTES_MAX} bytes", {"connection": "close"}
                    )
    except TimeoutError:
        raise Problem(408, "too_late", f"no whole body within {BODY_S_MAX:g} s", {"connection": "close"}) from None
    except ClientDisconnect:
        raise Problem(400, "malformed", "the body ended early") from None
    if complaint := shape.complaint(bytes(body)):
        raise Problem(400, "malformed", f"the body is past a bound: {complaint}")
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        text, _, place = str(error).partition(" - at `$")
        more = {"field": place.rstrip("`").lstrip(".")} if place else {}
        message = f"{text} in {more['field']}" if more.get("field") else text
        raise Problem(400, "malformed", message, None, **more) from None


def integer(request: Request, name: str, default: int, least: int, most: int) -> int:
    """Return a number of the query. Raises: Problem 400."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 16 or not least <= int(text) <= most:
        raise Problem(400, "malformed", f"{name} must be a number from {least} to {most}", None, field=name)
    return int(text)


E = TypeVar("E", bound=enum.StrEnum)


def choice(request: Request, name: str, kind: type[E]) -> E | None:
    """Return one of a few words of the query; None if it is not given. Raises: Problem 400."""
    word = request.query_params.get(name)
    if word is None:
        return None
    if word not in list(kind):
        raise Problem(400, "malformed", f"{name} must be one of {', '.join(kind)}", None, field=name)
    return kind(word)


def flag(request: Request, name: str, default: bool) -> bool:
    """Return a 0 or 1 of the query as a bool. Raises: Problem 400."""
    return bool(integer(request, name, int(default), 0, 1))


def text(request: Request, name: str, chars_max: int = HOST_NAME_MAX) -> str | None:
    """Return a text of the query, at most as long as a host's name and without NUL; None if it is not
    given. Raises: Problem 400.
    """
    found = request.query_params.get(name)
    if found is not None and (len(found) > chars_max or "\0" in found):
        raise Problem(400, "malformed", f"{name} must be a text of at most {chars_max} characters", None, field=name)
    return found


def principal_of(request: Request) -> Principal:
    """Return who asks, in a guarded endpoint."""
    found = request.state.principal
    assert isinstance(found, Principal)
    return found


async def check_there(request: Request) -> None:
    """Check that the client still waits for the answer, and may still ask. To be called last, before the hub is asked.

    A request that was given up in the listening socket's backlog, while no fanout ran, must not be carried out by the
    next fanout. And its body may have come seconds after its head: whoever was revoked in between has nothing done.
    Raises: Problem 401; or one that nobody reads.
    """
    for _ in range(2):
        await asyncio.sleep(0)  # a turn of the event loop in between reads the end of file that follows such a request
    arrival: Arrival | None = getattr(request.state, "arrival", None)
    if arrival is not None and arrival.is_gone:
        raise Problem(400, "malformed", "the client is gone")
    if not request.state.still_good():
        raise Problem(401, "not_signed_in", SIGN_IN, {"www-authenticate": "Bearer"})


def guarded(
    auth: Auth,
    role: Role | None,
    endpoint: Endpoint,
    *,
    canary: bool = False,
    audit_notes: AuditNotes | None = None,
    budget: Charges | None = None,
    cost: int = 1,
) -> Endpoint:
    """Return the endpoint behind a check of the sign-in: 401 or 403 if it fails.

    `role` None: no sign-in. `canary`: the canary may use it too. Refused requests are counted for the audit trail:
    those that would change something, those of a wrong credential, and those of a good one that may not. The answer to
    a GET gets an ETag.
    `budget`: whose allowances it is charged to; `cost`: as how many requests it counts.
    """

    async def enter(request: Request) -> Response:
        response = await answer(request)
        principal = getattr(request.state, "principal", None)
        if budget is not None and principal is not None and response.status_code != 429:
            budget.answered(principal.owner, len(response.body))
        looks = request.method in ("GET", "HEAD")
        is_refused = response.status_code in (401, 403) if looks else 400 <= response.status_code < 500
        if audit_notes is not None and is_refused:
            _note_refused(auth, audit_notes, request, response)
        if looks and role is not None and response.status_code == 200:
            return _tagged(request, response)
        return response

    async def answer(request: Request) -> Response:
        request.state.charge = None if budget is None else lambda owner: budget.take(owner, cost)
        try:
            if role is not None:
                request.state.principal = await _admit(auth, request, role, canary)
                if budget is not None:
                    await budget.take(request.state.principal.owner, cost)
            return await endpoint(request)
        except Problem as problem:
            return told(problem)
        except DatabaseUnreadable as error:
            return told(Problem(503, "database_unreadable", str(error)))
        except AmbiguousId as error:
            return told(Problem(409, error.code, error.message, None, candidates=error.candidates))

    return enter


def _tagged(request: Request, response: Response) -> Response:
    """Return the answer with its ETag, or 304 without a body to a client that has the answer already."""
    tag = f'"{hashlib.blake2b(response.body, digest_size=16).hexdigest()}"'
    known = {
        each.strip().removeprefix("W/") for line in request.headers.getlist("if-none-match") for each in line.split(",")
    }
    if tag in known or "*" in known:
        return Response(status_code=304, headers={"etag": tag})
    response.headers["etag"] = tag
    return response


class Charges(Protocol):
    """What requests are charged to (request_budget.py)."""

    async def take(self, credential: str, cost: int) -> None:
        """Charge a request to its credential. Raises: Problem 429, while the credential is in debt."""

    def answered(self, credential: str, size: int) -> None:
        """Charge the bytes of an answer to the credential that asked."""


class _Refusal(msgspec.Struct, frozen=True):
    error: str = ""


def _note_refused(auth: Auth, audit_notes: AuditNotes, request: Request, response: Response) -> None:
    principal = getattr(request.state, "principal", None)
    if principal is not None and principal.canary:
        return
    signs_in = request.url.path == "/login"
    has_token = bool(request.headers.getlist("authorization")) or signs_in
    if (
        principal is None
        and not has_token
        and not any(cookie_values(request.headers.getlist("cookie"), auth.cookie_name))
    ):
        audit_notes.refused += 1  # it had no credential at all: a line about it would tell nothing
        return
    reason = f"HTTP {response.status_code}"
    with contextlib.suppress(msgspec.DecodeError):
        reason = msgspec.json.decode(response.body, type=_Refusal).error or reason
    is_guess = principal is None and has_token and response.status_code in (401, 429)
    asked = f"{request.method} {request.url.path}"
    audit_notes.note_refused(asked, reason, address_of(request), principal, is_guess=is_guess)


def address_of(request: Request) -> str:
    """Return the address that the request came from."""
    return request.client.host if request.client else ""


async def _admit(auth: Auth, request: Request, role: Role, canary: bool) -> Principal:
    authorization = request.headers.getlist("authorization")
    token = authorization[0] if len(authorization) == 1 else ""
    found = await auth.find(token, request.headers.getlist("cookie"), address_of(request))
    if found is None:
        raise Problem(401, "not_signed_in", SIGN_IN, {"www-authenticate": "Bearer"})
    request.state.principal = found  # the audit trail names it if the request is refused
    request.state.still_good = functools.partial(auth.still_good, found)
    arrival: Arrival | None = getattr(request.state, "arrival", None)
    if arrival is not None and not arrival.claim(found.owner, is_kept_for=auth.is_kept_for(found)):
        told = f"too many connections are open, of this token ({TOKEN_CONNECTIONS_MAX} at most) or in all: close some"
        raise Problem(429, "too_many", told, {"connection": "close"})
    if found.by_cookie and request.method not in ("GET", "HEAD"):
        check_origin(auth, request)
    if found.canary and not canary:
        raise Problem(403, "forbidden", "the canary may not")
    if not found.role.may(role):
        raise Problem(403, "forbidden", f"the role {found.role} may not; {role} may")
    return found


def check_fresh(auth: Auth, request: Request, doing: Iterable[str]) -> None:
    """Check that the session may do this without a new sign-in (operators.fresh_for). Raises: Problem 403."""
    if name := auth.wants_sign_in(principal_of(request), doing):
        raise Problem(403, "sign_in_again", f"{name} needs a sign-in of the last minutes: sign in again, and repeat it")


def check_origin(auth: Auth, request: Request) -> None:
    """Check that no foreign page made the browser ask. Raises: Problem 403."""
    origins = request.headers.getlist("origin")
    if origins and not (len(origins) == 1 and auth.origin_ok(origins[0], request.headers.get("host", ""))):
        raise Problem(403, "foreign_origin", "this page is not ours")


class HeadCheck:
    """The application behind a check of each request's head: its size, its framing, and the Host header. It also finds
    out whose address it is that asks, behind trusted proxies.
    """

    def __init__(self, app: ASGIApp, auth: Auth, trusted: Sequence[Network]) -> None:
        self._app, self._auth, self._trusted = app, auth, trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Called by uvicorn for each request."""
        headers = scope["headers"]
        self._find_client(scope)
        problem = _problem_of_head(scope["raw_path"] + scope["query_string"], headers) or self._problem_of_host(headers)
        prefix = self._auth.public.prefix
        if problem is not None:
            await told(problem)(scope, receive, send)
        elif prefix and scope["path"] == prefix:
            await Response(status_code=308, headers={"location": f"{prefix}/"})(scope, receive, send)
        else:
            raw = below(scope["raw_path"].decode("latin-1"), prefix).encode("latin-1")
            await self._app({**scope, "path": below(scope["path"], prefix), "raw_path": raw}, receive, send)

    def _find_client(self, scope: Scope) -> None:
        peer, port = scope["client"] or ("", 0)
        said = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
        address = client_address(peer, said, self._trusted)
        scope["client"] = (address, port)
        arrival: Arrival | None = scope.get("state", {}).get("arrival")
        if arrival is not None:
            arrival.spoke(address)

    def _problem_of_host(self, headers: Headers) -> Problem | None:
        hosts = [value.decode("latin-1") for name, value in headers if name == b"host"]
        if len(hosts) <= 1 and self._auth.host_ok("".join(hosts)):
            return None
        return Problem(
            421, "misdirected", "this is not the host that you asked for: set operators.url to its public address"
        )


def _problem_of_head(target: bytes, headers: Headers) -> Problem | None:
    """Return what is wrong with the head as a whole; the connection ends with that answer."""
    close = {"connection": "close"}
    size = len(target) + sum(len(name) + len(value) + 4 for name, value in headers)
    if size > HEAD_BYTES_MAX or len(headers) > HEADERS_MAX:
        return Problem(431, "too_large", TOO_LARGE, close)
    return None


async def http_error(request: Request, error: Exception) -> Response:
    """Return the answer to a request that routing refuses (404, 405), in the API's form."""
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}.get(error.status_code, "refused")
    return json(problem_body(code, str(error.detail)), error.status_code, dict(error.headers or {}))


async def internal_error(request: Request, error: Exception) -> Response:
    """Return the answer after an exception in an endpoint, whose traceback is in the log."""
    return json(problem_body("internal", "the fanout could not do it: its log says why"), 500)
