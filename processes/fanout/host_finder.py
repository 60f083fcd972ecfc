"""Finds hosts by queries, in the rows that this fanout shows: the hub never reads a query."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Iterator
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypedDict

import msgspec

from processes.adapters.state import fleet_db
from processes.core.fanout.mirror import Mirror
from processes.core.records.saved_query import SavedQuery
from processes.core.shown.query import ELSEWHERE, Look, Query, QueryError, parse
from processes.core.shown.replica import HostApart
from processes.core.travels.messages import Change, Json
from processes.core.values import CANARY_HOST
from processes.fanout.database_reader import Reader
from processes.fanout.web import Problem

AT_ONCE_S: Final = 0.005  # for which hosts are looked at without a pause: whoever said much of itself takes longer
PART_BYTES: Final = 64 * 1024  # of rows that are looked at together
DECODERS_MAX: Final = 64
RANK: Final = {"queued": 1, "sent": 2, "running": 3}  # which of a host's open commands counts: as the page shows them


class _CommandKeys(msgspec.Struct):
    host: str = ""
    op: str = ""
    state: str = ""


class Doing(NamedTuple):
    """The command that a host is at."""

    op: str = ""
    state: str = ""


_Decoder = msgspec.json.Decoder[dict[str, Any]]
_IDLE: Final = Doing()
_command_keys = msgspec.json.Decoder(_CommandKeys)


@functools.lru_cache(maxsize=DECODERS_MAX)
def _decoders(looks: frozenset[Look]) -> tuple[_Decoder, _Decoder]:
    """Return what decodes what a query looks at in a host's row and skips all else, which is most of the time; and what
    does so for a row in which something else stands where objects are usual.
    """
    usual: dict[str, Any] = {}
    for key in sorted({key for key, _ in looks}):
        within = sorted({inner for place, inner in looks if place == key})
        is_whole = "" in within or key not in ELSEWHERE
        usual[key] = Any if is_whole else _object_type(dict.fromkeys(within, Any)) | None
    any_row = dict.fromkeys(usual, Any)
    return msgspec.json.Decoder(_object_type(usual)), msgspec.json.Decoder(_object_type(any_row))


def _object_type(fields: dict[str, Any]) -> Any:
    return TypedDict("found", fields, total=False)  # type: ignore[operator]


def _decoded(looks: frozenset[Look], rows: list[Json]) -> list[dict[str, Any]]:
    usual, any_row = _decoders(looks)
    try:
        return [usual.decode(row) for row in rows]
    except msgspec.ValidationError:
        return [any_row.decode(row) for row in rows]


def _hear(looks: frozenset[Look], hosts: list[dict[str, Any]], heard: list[Json | None]) -> None:
    """Put what was heard of hosts since their rows were made in its place."""
    places = [place for place, fields in enumerate(heard) if fields is not None]
    fresh = _decoded(looks, [fields for fields in heard if fields is not None])
    for place, fields in zip(places, fresh, strict=True):
        hosts[place].update(fields)


class HostFinder:
    """Finds the hosts of the mirror that match a query."""

    def __init__(self, mirror: Mirror, database_reader: Reader) -> None:
        self._mirror, self._database_reader = mirror, database_reader
        self._turn = asyncio.Lock()  # one query looks at a time: a pass of the loop has a part of one, however many ask

    async def saved(self) -> list[SavedQuery]:
        """Return the saved queries, by name. Raises: DatabaseUnreadable."""
        return await self._database_reader.read(fleet_db.saved_queries)

    async def parsed(self, text: str) -> Query:
        """Return the query of this text; `@NAME` stands for a saved one. Raises: Problem 400, with the place; 404."""
        told, saved = "", text
        if text.startswith("@"):
            name = text[1:]
            found = {each.name: each.query for each in await self.saved()}
            if name not in found:
                raise Problem(404, "unknown_query", f"there is no saved query {name[:80]!r}: see `fleethub queries`")
            told, saved = f"the saved query {name}: ", found[name]
        return check(saved, told)

    async def find(self, text: str) -> list[str]:
        """Return the names of the hosts that the query finds, in order. Raises: Problem 400 or 404."""
        query = await self.parsed(text)
        async with self._turn:
            return await self._found(query)

    async def rows(self, text: str) -> list[Change]:
        """Return the rows of the hosts that the query finds, by name. Raises: Problem 400 or 404."""
        row = self._mirror.shown.row
        return [Change("host", name, found) for name in await self.find(text) if (found := row("host", name))]

    async def _found(self, query: Query) -> list[str]:
        shown, looks = self._mirror.shown, query.looks
        rows = sorted((each for each in shown.hosts_apart() if each[0] != CANARY_HOST), key=itemgetter(0))
        doing = self._doing() if query.asks_running else {}
        standing = shown.standing_kinds() if "conditions" in query.keys else {}
        now_wall_s, found = time.time(), list[str]()
        rest_at_s = time.monotonic() + AT_ONCE_S
        for some in _parts(rows):
            hosts = _decoded(looks, [row for _, row, _ in some])
            _hear(looks, hosts, [heard for _, _, heard in some])
            if standing:
                for host, (name, _, _) in zip(hosts, some, strict=True):
                    host["conditions"] = standing.get(name, [])
            places = query.found(hosts, now_wall_s, [doing.get(name, _IDLE) for name, _, _ in some])
            found += [some[place][0] for place in places]
            if time.monotonic() >= rest_at_s:
                await asyncio.sleep(0)
                rest_at_s = time.monotonic() + AT_ONCE_S
        return found

    async def chosen(self, hosts: list[str] | None, text: str | None) -> list[str] | None:
        """Return the hosts that a request is about: those that are named, else those that the query finds (at least
        one); None: neither is given. Raises: Problem 400; 404, if there is none.

        With both, the query is only checked: it found these hosts when they were shown to whoever asks now.
        """
        if text is None or hosts is not None:
            if text is not None:
                await self.parsed(text)
            return hosts
        if not (await self.parsed(text)).tests:
            raise Problem(400, "bad_query", "a query without terms finds every host: say so by where = {} or by names")
        found = await self.find(text)
        if not found:
            raise Problem(404, "unknown_host", "no host matches the query: see `fleethub hosts`", None, query=text)
        return found

    def _doing(self) -> dict[str, Doing]:
        """Return of each host the open command that is furthest."""
        found: dict[str, Doing] = {}
        for row in self._mirror.shown.rows("command"):
            keys = _command_keys.decode(row)
            rank = RANK.get(keys.state, 0)
            if rank > RANK.get(found.get(keys.host, _IDLE).state, 0):
                found[keys.host] = Doing(keys.op, keys.state)
        return found


def _parts(rows: list[HostApart]) -> Iterator[list[HostApart]]:
    """Yield the rows, PART_BYTES or so at a time, for hosts that have said much of themselves cost more to look at."""
    first, size = 0, 0
    for place, (_, row, _) in enumerate(rows):
        size += len(row)
        if size >= PART_BYTES:
            yield rows[first : place + 1]
            first, size = place + 1, 0
    yield rows[first:]


def check(text: str, told: str = "") -> Query:
    """Return the query of this text. `told`: what stands before what is wrong with it. Raises: Problem 400."""
    try:
        return parse(text)
    except QueryError as error:
        message = f"{told}{error.message}"
        raise Problem(400, error.code, message, None, field="query", start=error.start, end=error.end) from None
