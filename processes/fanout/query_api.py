"""The endpoints of labels and of saved queries."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from processes.core.shown.pages import SavedQueries, SavedQueryView
from processes.core.travels.messages import LabelHosts, RemoveQuery, SaveQuery
from processes.core.travels.operator_requests import LabelBody, SavedQueryBody
from processes.core.values import rfc3339
from processes.fanout.host_finder import HostFinder, check
from processes.fanout.requests import Requests
from processes.fanout.web import Problem, answered, body_of, check_there, json, principal_of


class QueryApi:
    """Each method is an endpoint."""

    def __init__(self, finder: HostFinder, requests: Requests) -> None:
        self._finder, self._requests = finder, requests

    async def label(self, request: Request) -> Response:
        """Set and remove labels of hosts that are named, or that a query finds."""
        body = await body_of(request, LabelBody)
        hosts = await self._finder.chosen(body.hosts, body.query)
        if hosts is None:
            raise Problem(400, "malformed", "give hosts or query")
        asked = LabelHosts(hosts, body.set, body.remove, body.query or "")
        await check_there(request)
        return answered(await self._requests.ask(principal_of(request).actor, asked))

    async def saved(self, request: Request) -> Response:
        """Return the saved queries, by name."""
        views = [
            SavedQueryView(saved.name, saved.query, saved.actor, rfc3339(saved.at_wall_s))
            for saved in await self._finder.saved()
        ]
        return json(SavedQueries(views))

    async def save(self, request: Request) -> Response:
        """Keep a query under a name."""
        body = await body_of(request, SavedQueryBody)
        if not check(body.query).tests:
            raise Problem(400, "bad_query", "a query without terms finds every host: it needs no name")
        await check_there(request)
        return answered(await self._requests.ask(principal_of(request).actor, SaveQuery(body.name, body.query)))

    async def remove(self, request: Request) -> Response:
        """Forget a saved query."""
        await check_there(request)
        asked = RemoveQuery(request.path_params["name"])
        return answered(await self._requests.ask(principal_of(request).actor, asked))
