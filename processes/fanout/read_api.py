"""The endpoints that only read: the replica, the database, the state folder. None of them needs the hub."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import sqlite3
import time
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from processes.adapters import proc
from processes.adapters.settings import Settings
from processes.adapters.state import audit_trail, fleet_db, incidents_db, pulse_file, sqlite_file, status_file
from processes.adapters.state.fleet_db import DatabaseUnreadable
from processes.core.fanout import health
from processes.core.fanout.history import Histories, Span
from processes.core.fanout.mirror import Mirror
from processes.core.records.command import Command, State
from processes.core.records.run import Run, RunState, RunView, run_view
from processes.core.shown import inventory
from processes.core.shown.pages import (
    AuditPage,
    CommandWithHistory,
    IncidentsPage,
    IncidentWithEvidence,
    Me,
    TokensPage,
    TokenView,
)
from processes.core.shown.status import Overall
from processes.core.shown.views import OutputPage, command_view, encode, output_page, transition_view
from processes.core.travels.audit import Kind
from processes.core.travels.messages import Json
from processes.core.travels.operator_frames import OFFSET_MAX
from processes.core.travels.operator_requests import QUERY_CHARS_MAX, REQUEST_HOSTS_MAX
from processes.core.travels.pulse import Pulse, Unreadable
from processes.core.values import CANARY_HOST, Presence
from processes.fanout import metrics
from processes.fanout.database_reader import Reader
from processes.fanout.host_finder import HostFinder
from processes.fanout.queries import LISTED_MAX, TargetBy
from processes.fanout.requests import Answer
from processes.fanout.web import Problem, choice, flag, integer, json, principal_of, text

OUTPUT_RECORDS_MAX: Final = 1000
HEALTH_S_MAX: Final = 2.0  # after so long without an answer of the state folder the health is degraded


class _HostKeys(msgspec.Struct):
    presence: str = ""


_inventory_host = msgspec.json.Decoder(inventory.InventoryHost)
_host_keys = msgspec.json.Decoder(_HostKeys)


class _AboutRun(msgspec.Struct):
    """What the hub answers about a run: the run itself, or why not, with the run as it is."""

    id: str = ""
    run: _AboutRun | None = None


class ReadApi:
    """Each method is an endpoint."""

    def __init__(
        self,
        settings: Settings,
        mirror: Mirror,
        database_reader: Reader,
        metric: metrics.Metrics,
        histories: Histories,
    ) -> None:
        self._settings, self._mirror, self._database_reader, self._metrics = settings, mirror, database_reader, metric
        self._histories = histories
        self.finder = HostFinder(mirror, database_reader)
        self._version = importlib.metadata.version("fleethub")
        self._exporting: asyncio.Task[bytes] | None = None
        self._judging: asyncio.Task[health.Health] | None = None

    async def livez(self, request: Request) -> Response:
        """Answer 200 while this process lives."""
        return json({"live": True})

    async def healthz(self, request: Request) -> Response:
        """Answer 200 only while the whole works: the hub advances, and a canary command went round lately."""
        if self._judging is None or self._judging.done():  # one at a time, shared by all requests: no sign-in is needed
            self._judging = asyncio.get_running_loop().create_task(asyncio.to_thread(_health, self._settings))
        try:
            found = await asyncio.wait_for(asyncio.shield(self._judging), HEALTH_S_MAX)
        except TimeoutError:
            found = health.Health(Overall.DEGRADED, "state_folder_mute")
        body = {"verdict": found.verdict, "reason": found.reason}
        return json(body, 200 if found.ok else 503, None if found.ok else {"retry-after": "2"})

    async def metrics(self, request: Request) -> Response:
        """Return the metrics as Prometheus text."""
        if self._exporting is None or self._exporting.done():  # one at a time, shared: a viewer may ask for hundreds
            rows, each = self._own_rows(), self._settings.file.metrics.hosts
            told = self._standing_rows()
            exporting = asyncio.to_thread(self._metrics.export, rows, each=each, conditions=told)
            self._exporting = asyncio.get_running_loop().create_task(exporting)
        return Response(await asyncio.shield(self._exporting), media_type=metrics.CONTENT_TYPE)

    async def status(self, request: Request) -> Response:
        """Return the status, as `fleethub status --json` shows it."""
        return json(await asyncio.to_thread(status_file.current_report, self._settings))

    async def me(self, request: Request) -> Response:
        """Return who asks, whether drills are enabled, and which fleethub this is."""
        principal = principal_of(request)
        return json(Me(principal.role, principal.actor, self._settings.file.drills.enabled, self._version))

    async def hosts(self, request: Request) -> Response:
        """Return the hosts, by name: all of them, or ?limit, ?after=NAME, ?presence=online, ?search=PART, ?query=…."""
        limit = integer(request, "limit", REQUEST_HOSTS_MAX, 1, REQUEST_HOSTS_MAX)
        presence, search, after = choice(request, "presence", Presence), text(request, "search"), text(request, "after")
        query = text(request, "query", QUERY_CHARS_MAX)
        rows = self._mirror.shown.changes("host") if query is None else await self.finder.rows(query)
        changes = sorted((c for c in rows if _asked_for(c.id, after, search)), key=lambda c: c.id)
        found = [c for c in changes if presence is None or _host_keys.decode(c.fields).presence == presence]
        page = found[:limit] if "limit" in request.query_params else found
        body = {
            "hosts": [msgspec.Raw(c.fields) for c in page],
            "source": "hub" if self._mirror.live else "database",
            "next": page[-1].id if len(page) < len(found) else None,
        }
        return json(body)

    async def targets(self, request: Request) -> Response:
        """Return the hosts as targets for Prometheus; ?port, ?by=name, ?presence=online, ?query=…."""
        port, by = integer(request, "port", inventory.PORT, 1, 65535), choice(request, "by", TargetBy)
        presence = choice(request, "presence", Presence)
        query = text(request, "query", QUERY_CHARS_MAX)
        rows = self._own_rows() if query is None else [change.fields for change in await self.finder.rows(query)]
        hosts = [_inventory_host.decode(row) for row in rows]
        found = [host for host in hosts if presence in (None, host.presence)]
        return json(msgspec.json.encode(inventory.targets(found, port, by_name=by is TargetBy.NAME)))

    async def host(self, request: Request) -> Response:
        """Return one host."""
        return json(self._host(request.path_params["name"]))

    async def history(self, request: Request) -> Response:
        """Return one host's metrics and presences of the last hour (or ?span=day), as this fanout has seen them."""
        name, span = request.path_params["name"], choice(request, "span", Span)
        self._host(name)
        return json(self._histories.view(name, span or Span.HOUR))

    def _own_rows(self) -> list[Json]:
        return [change.fields for change in self._mirror.shown.changes("host") if change.id != CANARY_HOST]

    def _standing_rows(self) -> list[Json]:
        return self._mirror.shown.rows("condition")

    def _host(self, name: str) -> Json:
        row = None if name == CANARY_HOST else self._mirror.shown.row("host", name)
        if row is None:
            raise Problem(404, "unknown_host", f"there is no host {name!r}", None, host=name)
        return row

    async def commands(self, request: Request) -> Response:
        """Return commands, newest first; ?limit, ?before=ID, ?host, ?run, ?state, ?open=1, ?query=…."""
        limit = integer(request, "limit", 100, 1, LISTED_MAX)
        state, before = choice(request, "state", State), text(request, "before")
        host, run, open_only = text(request, "host"), text(request, "run"), flag(request, "open", False)
        query = text(request, "query", QUERY_CHARS_MAX)
        hosts = None if query is None else await self.finder.find(query)

        def read(connection: sqlite3.Connection) -> list[Command] | None:
            last = None if before is None else fleet_db.command(connection, before)
            if before is not None and last is None:
                return None
            number = last.number if last else None
            return fleet_db.commands(
                connection,
                limit=limit,
                before=number,
                host=host,
                run=run,
                state=state,
                open_only=open_only,
                hosts=hosts,
            )

        found = await self._database_reader.read(read)
        if found is None:
            raise Problem(404, "unknown_command", f"there is no command {before!r}", None, field="before")
        views = [command_view(command) for command in found if command.host != CANARY_HOST]
        return json({"commands": views, "next": found[-1].id if len(found) == limit else None})

    async def command(self, request: Request) -> Response:
        """Return one command, with its history."""
        command_id, canary = request.path_params["id"], principal_of(request).canary

        def read(connection: sqlite3.Connection) -> CommandWithHistory | None:
            command = fleet_db.command(connection, command_id if canary else _command_meant(connection, command_id))
            if command is None or (command.host == CANARY_HOST) is not canary:
                return None
            history = [transition_view(transition) for transition in fleet_db.transitions(connection, command.id)]
            return CommandWithHistory(**msgspec.structs.asdict(command_view(command)), history=history)

        return json(_known(await self._database_reader.read(read), command_id))

    async def output(self, request: Request) -> Response:
        """Return a page of a command's output; ?from=OFFSET."""
        command_id = request.path_params["id"]
        first = integer(request, "from", 0, 0, OFFSET_MAX)

        def read(connection: sqlite3.Connection) -> OutputPage | None:
            command = fleet_db.command(connection, _command_meant(connection, command_id))
            if command is None or command.host == CANARY_HOST:
                return None
            return output_page(command, fleet_db.output(connection, command.id, first, OUTPUT_RECORDS_MAX), first)

        return json(_known(await self._database_reader.read(read), command_id))

    async def runs(self, request: Request) -> Response:
        """Return fleet runs without their hosts, newest first; ?limit, ?before=ID, ?state."""
        limit = integer(request, "limit", 100, 1, LISTED_MAX)
        before, state = text(request, "before"), choice(request, "state", RunState)

        def read(connection: sqlite3.Connection) -> list[Run] | None:
            last = None if before is None else fleet_db.run(connection, before)
            if before is not None and last is None:
                return None
            return fleet_db.runs(connection, limit=limit, before=last.number if last else None, state=state)

        found = await self._database_reader.read(read)
        if found is None:
            raise Problem(404, "unknown_run", f"there is no run {before!r}", None, field="before")
        return json({"runs": [run_view(run) for run in found], "next": found[-1].id if len(found) == limit else None})

    async def run(self, request: Request) -> Response:
        """Return one fleet run, host by host; ?hosts=0: hosts are only counted."""
        run_id = request.path_params["id"]
        hosts = flag(request, "hosts", True)

        def read(connection: sqlite3.Connection) -> RunView | None:
            its_id = sqlite_file.meant(connection, "runs", run_id, "runs")
            if hosts:
                return fleet_db.whole_run(connection, its_id)
            found = fleet_db.run(connection, its_id)
            return None if found is None else run_view(found)

        found = await self._database_reader.read(read)
        if found is None:
            raise Problem(404, "unknown_run", f"there is no run {run_id!r}")
        return json(found)

    async def with_hosts(self, answer: Answer) -> Answer:
        """Return the hub's answer about a run, with the run's hosts: the hub leaves these to the database, where they
        are before it answers. If it cannot be read now, they are left out, since what was asked for is done.
        """
        about = msgspec.json.decode(answer.body, type=_AboutRun)
        run_id = about.id if about.run is None else about.run.id
        if not run_id:
            return answer
        try:
            view = await self._database_reader.read(lambda connection: fleet_db.whole_run(connection, run_id))
        except DatabaseUnreadable:
            return answer
        if view is None:
            return answer
        if about.run is None:
            return Answer(answer.status, encode(view))
        fields = msgspec.json.decode(answer.body, type=dict[str, msgspec.Raw])
        return Answer(answer.status, encode({**fields, "run": view}))

    async def incidents(self, request: Request) -> Response:
        """Return incidents, newest first; ?limit, ?before=ID, ?process."""
        limit = integer(request, "limit", 200, 1, LISTED_MAX)
        before, process = text(request, "before"), text(request, "process")
        path = self._settings.incidents_database
        found = await asyncio.to_thread(incidents_db.incidents, path, limit, before, process)
        if not found and before is not None and await asyncio.to_thread(incidents_db.incident, path, before) is None:
            raise Problem(404, "unknown_incident", f"there is no incident {before!r} (any more)", None, field="before")
        return json(IncidentsPage(found, found[-1].id if len(found) == limit else None))

    async def incident(self, request: Request) -> Response:
        """Return one incident, with its evidence as text."""
        incident_id = request.path_params["id"]
        found = await asyncio.to_thread(_incident, self._settings, incident_id)
        if found is None:
            raise Problem(404, "unknown_incident", f"there is no incident {incident_id!r}")
        return json(found)

    async def audit(self, request: Request) -> Response:
        """Return the audit trail, newest first; ?limit, ?before=NUMBER, ?kind, ?subject, ?actor."""
        limit, kind = integer(request, "limit", 100, 1, LISTED_MAX), choice(request, "kind", Kind)
        before = integer(request, "before", OFFSET_MAX, 1, OFFSET_MAX)
        subject, actor = text(request, "subject"), text(request, "actor")

        def read(connection: sqlite3.Connection) -> AuditPage:
            found = fleet_db.audit(connection, limit=limit, before=before, kind=kind, subject=subject, actor=actor)
            following = found[-1].number if len(found) == limit else None
            return AuditPage(found, following, audit_trail.checkpoint(connection))

        return json(await self._database_reader.read(read))

    async def tokens(self, request: Request) -> Response:
        """Return the operator tokens that were created, but never the tokens themselves."""
        return json(TokensPage([view for _, view in await self.known_tokens()]))

    async def known_tokens(self) -> list[tuple[str, TokenView]]:
        """Return the operator tokens as they are shown, each with its hash. Raises: DatabaseUnreadable."""
        now_wall_s = time.time()
        return await self._database_reader.read(lambda connection: fleet_db.token_views(connection, now_wall_s))

    async def upgrade_required(self, request: Request) -> Response:
        """Answer 426 to a GET /ws that is not an upgrade request."""
        raise Problem(426, "upgrade_required", "this is a WebSocket", {"upgrade": "websocket", "connection": "upgrade"})


def _asked_for(name: str, after: str | None, search: str | None) -> bool:
    return (
        name != CANARY_HOST and (after is None or name > after) and (search is None or search.lower() in name.lower())
    )


def _command_meant(connection: sqlite3.Connection, given: str) -> str:
    return sqlite_file.meant(connection, "commands", given, "commands", f"host <> '{CANARY_HOST}'")


def _known(found: msgspec.Struct | None, command_id: str) -> msgspec.Struct:
    if found is None:
        raise Problem(404, "unknown_command", f"there is no command {command_id!r}")
    return found


def _health(settings: Settings) -> health.Health:
    hub: Pulse | None = None  # without a pulse the hub counts as down
    with contextlib.suppress(Unreadable, OSError):
        hub = pulse_file.read(settings.pulses, "hub")
    alive = hub is not None and proc.alive(hub.pid, hub.start_ticks)
    report = status_file.last_report(settings.report)
    return health.judge(hub, alive, report, time.monotonic(), settings.file.watchdog.stall_s)


def _incident(settings: Settings, incident_id: str) -> IncidentWithEvidence | None:
    found = incidents_db.incident(settings.incidents_database, incident_id)
    return None if found is None else incidents_db.with_evidence(found, settings.evidence)
