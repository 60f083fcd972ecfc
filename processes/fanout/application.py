"""The application that uvicorn runs: a route for each operation, for the page's files and for the API's document."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Scope

from processes.core.connections import Network
from processes.fanout import page_files
from processes.fanout.audit_notes import AuditNotes
from processes.fanout.auth import Auth
from processes.fanout.change_api import ChangeApi
from processes.fanout.condition_api import ConditionApi
from processes.fanout.dead_letter_api import DeadLetterApi
from processes.fanout.openapi import Listed, document
from processes.fanout.operations import NAMED, Operation, operations
from processes.fanout.read_api import ReadApi
from processes.fanout.request_budget import RequestBudget
from processes.fanout.sessions import Sessions
from processes.fanout.web import (
    Endpoint,
    HeadCheck,
    Problem,
    check_fresh,
    guarded,
    http_error,
    internal_error,
    json,
)


def application(  # noqa: PLR0917  # its parts
    change_api: ChangeApi, read_api: ReadApi, auth: Auth, audit_notes: AuditNotes, dead_letter_api: DeadLetterApi,
    condition_api: ConditionApi, *, trusted: Sequence[Network], budget: RequestBudget,
) -> ASGIApp:  # fmt: skip
    """Return the whole HTTP side. `trusted`: the proxies whose X-Forwarded-For is believed."""
    table = operations(change_api, read_api, Sessions(auth, audit_notes), dead_letter_api, condition_api)
    listed = [Listed(o.method, o.path, o.role, o.described) for o in table]
    version = importlib.metadata.version("fleethub")
    spec = json(document(listed, version, auth.cookie_name, NAMED, auth.public.prefix)).body

    async def openapi(request: Request) -> Response:
        return json(bytes(spec))

    paths: dict[str, dict[str, Endpoint]] = {}
    for o in table:
        paths.setdefault(o.path, {})[o.method] = guarded(
            auth, o.role, _fresh(auth, o, _asked_well(o)), canary=o.canary, audit_notes=audit_notes,
            budget=budget, cost=o.cost,
        )  # fmt: skip
    routes = [Route(path, _by_method(endpoints), methods=list(endpoints)) for path, endpoints in paths.items()]
    routes.append(Route("/openapi.json", guarded(auth, None, openapi), methods=["GET"]))
    routes.append(change_api.agent_download.route(auth))
    routes += page_files.routes(auth)
    app = Starlette(routes=routes, exception_handlers={HTTPException: http_error, Exception: internal_error})
    app.router.redirect_slashes = False

    def is_known(scope: Scope) -> bool:
        request = Request(scope)
        return auth.known(request.headers.get("authorization", ""), request.headers.getlist("cookie")) is not None

    return HeadCheck(budget.of_addresses(app, is_known), auth, trusted)  # which finds out whose address it is


def _asked_well(operation: Operation) -> Endpoint:
    """Return the endpoint behind a check of its query: an unknown filter must not be ignored in silence."""
    known = [query.name for query in operation.described.query]
    if not operation.path.startswith("/api/"):
        return operation.endpoint

    async def enter(request: Request) -> Response:
        for name in request.query_params:
            if name not in known:
                offered = f"there are: {', '.join(known)}" if known else "there are none here"
                raise Problem(
                    400, "malformed", f"there is no parameter {name[:50]!r}; {offered}", None, field=name[:50]
                )
            if len(request.query_params.getlist(name)) > 1:
                raise Problem(400, "malformed", f"{name} is given twice", None, field=name)
        return await operation.endpoint(request)

    return enter


def _fresh(auth: Auth, operation: Operation, endpoint: Endpoint) -> Endpoint:
    """Return the endpoint behind a check of how long ago its session signed in."""

    async def enter(request: Request) -> Response:
        if operation.role is not None:
            check_fresh(auth, request, [operation.described.id])
        return await endpoint(request)

    return enter


def _by_method(endpoints: dict[str, Endpoint]) -> Endpoint:
    """Return one endpoint for a path. With a route for each method, Starlette's 405 would name
    the first's method alone.
    """

    async def enter(request: Request) -> Response:
        return await endpoints["GET" if request.method == "HEAD" else request.method](request)

    return enter
