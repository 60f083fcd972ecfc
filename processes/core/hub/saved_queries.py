"""Queries that operators keep under a name. The hub keeps their text and never reads it: fanouts do. Pure."""

from __future__ import annotations

from typing import Final

from processes.core.hub import noted
from processes.core.hub.memory import Draft
from processes.core.hub.refused import Refused
from processes.core.records.saved_query import SavedQuery
from processes.core.shown.pages import SavedQueryGone, SavedQueryView
from processes.core.shown.views import encode
from processes.core.travels.audit import Kind
from processes.core.travels.messages import Json, RemoveQuery, SaveQuery
from processes.core.values import rfc3339

QUERIES_MAX: Final = 200  # guess: a menu of the page


def save(draft: Draft, request: SaveQuery, actor: str) -> tuple[int, Json]:
    """Keep the query under its name, in the place of the one before. Raises: Refused."""
    table = draft.memory.queries
    if draft.get(table, request.name) is None and len(table) >= QUERIES_MAX:
        raise Refused(429, "too_many", f"{QUERIES_MAX} queries are saved: remove some")
    saved = SavedQuery(request.name, request.query, actor, draft.now.wall_s)
    draft.put(table, saved.name, saved)
    noted.note(draft, (Kind.QUERY, saved.name), "saved", actor, saved.query)
    return 200, encode(view(saved))


def remove(draft: Draft, request: RemoveQuery, actor: str) -> tuple[int, Json]:
    """Forget the query of this name. Raises: Refused."""
    table = draft.memory.queries
    if draft.get(table, request.name) is None:
        raise Refused(404, "unknown_query", f"there is no saved query {request.name!r}: see `fleethub queries`")
    draft.drop(table, request.name)
    noted.note(draft, (Kind.QUERY, request.name), "removed", actor)
    return 200, encode(SavedQueryGone(request.name, True))


def view(saved: SavedQuery) -> SavedQueryView:
    """Return the query as the API shows it."""
    return SavedQueryView(saved.name, saved.query, saved.actor, rfc3339(saved.at_wall_s))
