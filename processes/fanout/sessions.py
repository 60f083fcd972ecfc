"""The endpoints of sessions: they are listed, and ended by an admin or by their own actor.

A session's id is no secret (the cookie is signed), but only admins and its own actor get to see it. All fanouts share
run/sessions.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from processes.adapters.state import session_files
from processes.adapters.state.session_files import SessionFile
from processes.core.fanout.signin import SESSION_S_MAX, Principal
from processes.core.shown.pages import SessionsPage, SessionView
from processes.core.travels.audit import Kind
from processes.core.values import Role, rfc3339
from processes.fanout.audit_notes import AuditNotes
from processes.fanout.auth import Auth
from processes.fanout.web import Problem, json, principal_of

LISTED_MAX: Final = 500  # the newest; older ones can still be ended by id

_ID: Final = re.compile(r"[A-Za-z0-9_-]{8,64}")


class Sessions:
    """Each public method is an endpoint."""

    def __init__(self, auth: Auth, audit_notes: AuditNotes) -> None:
        self._auth, self._audit_notes = auth, audit_notes

    async def listed(self, request: Request) -> Response:
        """Return the open sessions, newest first: all of them to an admin, their own to others."""
        principal = principal_of(request)
        found = await asyncio.to_thread(session_files.listed, self._auth.run)
        mine = [(id, file) for id, file in found if self._auth.is_open(id, file) and _may(principal, file)]
        mine.sort(key=lambda session: -session[1].at)
        return json(SessionsPage([_view(id, file, principal) for id, file in mine[:LISTED_MAX]]))

    async def end(self, request: Request) -> Response:
        """End the session, on every fanout within two seconds."""
        principal, session_id = principal_of(request), request.path_params["id"]
        found = None
        if _ID.fullmatch(session_id):
            found = await asyncio.to_thread(session_files.read, self._auth.run, session_id)
        if found is None or not self._auth.is_open(session_id, found) or not _may(principal, found):
            raise Problem(404, "unknown_session", f"there is no session {session_id!r}")
        await self._auth.end(session_id, found.at)
        whose = f"of {found.actor}, {session_id[:8]}"
        self._audit_notes.note(Kind.SESSION, found.address, "revoked", actor=principal.actor, reason=whose)
        return json({"id": session_id, "ended": True})


def _may(principal: Principal, file: SessionFile) -> bool:
    return principal.role.may(Role.ADMIN) or (file.actor, file.role) == (principal.actor, principal.role)


def _view(id: str, file: SessionFile, principal: Principal) -> SessionView:
    current = principal.by_cookie and principal.credential == id
    ends_wall_s = file.at + SESSION_S_MAX
    return SessionView(
        id, file.actor, file.role, rfc3339(file.at), rfc3339(ends_wall_s), file.address, file.browser, current
    )
