"""The endpoints of conditions and silences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from processes.adapters.state import fleet_db
from processes.core.fanout.mirror import Mirror
from processes.core.records.condition import ConditionState, ConditionView, SilenceView, condition_view
from processes.core.shown.pages import ConditionsPage, SilencesPage
from processes.core.shown.status import Report
from processes.core.travels.messages import AcknowledgeCondition, EndSilence, MakeSilence
from processes.core.travels.messages import Request as HubRequest
from processes.core.travels.operator_requests import QUERY_CHARS_MAX, AcknowledgeBody, SilenceBody
from processes.core.values import GRAVITY
from processes.fanout.database_reader import Reader
from processes.fanout.host_finder import HostFinder
from processes.fanout.queries import LISTED_MAX
from processes.fanout.requests import Requests
from processes.fanout.web import answered, body_of, check_there, flag, integer, json, principal_of, text

HOUSE: Final = "house"  # the kind of a condition of the installation itself
PREFIX_MIN: Final = 4  # characters of an id that are enough, if no other one begins with them

_condition = msgspec.json.Decoder(ConditionView)
_silence = msgspec.json.Decoder(SilenceView)


class ConditionApi:
    """Each method is an endpoint."""

    def __init__(
        self,
        mirror: Mirror,
        reader: Reader,
        requests: Requests,
        finder: HostFinder,
        report: Callable[[], Report],
    ) -> None:
        self._mirror, self._reader, self._requests, self._report = mirror, reader, requests, report
        self._finder = finder

    async def listed(self, request: Request) -> Response:
        """Return what stands, the gravest first, the installation's own too; ?query, ?host, ?over=1, ?limit."""
        limit, host = integer(request, "limit", LISTED_MAX, 1, LISTED_MAX), text(request, "host")
        asked = text(request, "query", QUERY_CHARS_MAX)
        hosts = None if asked is None else set(await self._finder.find(asked))
        report, shown = self._report(), self._mirror.shown
        views = [_condition.decode(row) for row in shown.rows("condition")]
        found = [view for view in views if view.state is not ConditionState.OVER]
        found.sort(key=lambda view: (-GRAVITY[view.severity], view.since or "", view.id))
        if host is None and hosts is None:
            found = [*_of_the_house(report), *found]
        if flag(request, "over", False):
            kept = await self._reader.read(lambda db: fleet_db.conditions(db, limit=limit, host=host))
            found += [condition_view(each) for each in kept if not each.open]
        found = [
            view for view in found if (host is None or view.host == host) and (hosts is None or view.host in hosts)
        ]
        page = [_with_told(view, report) for view in found[:limit]]
        return json(ConditionsPage(page, "hub" if self._mirror.live else "database"))

    async def acknowledge(self, request: Request) -> Response:
        """Note that somebody has seen the condition: only its end is told any more."""
        body = await body_of(request, AcknowledgeBody)
        id = self._whole_id("condition", request.path_params["id"])
        return await self._ask(request, AcknowledgeCondition(id, body.why))

    async def silences(self, request: Request) -> Response:
        """Return the silences, the one that ends last first."""
        views = [_silence.decode(row) for row in self._mirror.shown.rows("silence")]
        return json(SilencesPage(sorted(views, key=lambda view: view.until or "", reverse=True)))

    async def silence(self, request: Request) -> Response:
        """Have nobody told of the hosts that the query finds, for a time."""
        body = await body_of(request, SilenceBody)
        query = await self._finder.parsed(body.query)  # of a saved one its text is kept: it may be forgotten or changed
        return await self._ask(request, MakeSilence(query.text, body.why, body.for_s, body.in_s))

    async def unsilence(self, request: Request) -> Response:
        """End a silence before its time."""
        return await self._ask(request, EndSilence(self._whole_id("silence", request.path_params["id"])))

    def _whole_id(self, kind: str, named: str) -> str:
        """Return the id that begins so, if there is one alone; else what was named, for the hub to refuse."""
        shown = self._mirror.shown
        if shown.row(kind, named) is None and len(named) >= PREFIX_MIN:
            found = [change.id for change in shown.changes(kind) if change.id.startswith(named)]
            if len(found) == 1:
                return found[0]
        return named

    async def _ask(self, request: Request, asked: HubRequest) -> Response:
        await check_there(request)
        return answered(await self._requests.ask(principal_of(request).actor, asked))


def _of_the_house(report: Report) -> list[ConditionView]:
    return [
        ConditionView(
            each.id, None, HOUSE, each.severity, ConditionState.OPEN, each.title, each.text, each.since,
            begun_at=each.since, told=each.told,
        )
        for each in report.conditions
    ]  # fmt: skip


def _with_told(view: ConditionView, report: Report) -> ConditionView:
    told = report.told.get(view.group or view.id)
    return view if not told else msgspec.structs.replace(view, told=told)
