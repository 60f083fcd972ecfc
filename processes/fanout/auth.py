"""Finds out who asks: by a Bearer token, or by a session cookie that was given for a token or a code. Needs no hub."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Final

from processes.adapters.settings import Settings
from processes.adapters.state import session_files, signin_codes
from processes.adapters.state.session_files import SessionFile
from processes.core.fanout.signin import (
    SESSION_S_MAX,
    Attempts,
    Principal,
    Public,
    cookie,
    digest,
    host_allowed,
    origin_allowed,
    read_cookie,
)
from processes.core.values import Role
from processes.fanout.state_folder import FolderWatch

TOKEN_CHARS_MAX: Final = 512
BROWSER_CHARS_MAX: Final = 200  # of a browser's User-Agent


class Auth:
    """Finds out who sends a request or opens a connection, and whether that is still allowed."""

    def __init__(self, settings: Settings, folder_watch: FolderWatch, key: bytes) -> None:
        file = settings.file
        self.public = Public.of(file.operators.url, file.operators.listen, bool(file.tls.certificate))
        self.tls = bool(file.tls.certificate)
        self.attempts = Attempts()
        self._ended: set[str] = set()  # sessions that ended here, until the folder watch has seen that
        self._folder_watch, self._key = folder_watch, key
        self.run = settings.run
        # cookies do not know ports: two installations on one machine must not overwrite each other's
        self.cookie_name = ("__Host-" if self.public.secure else "") + "fleethub-" + digest(key.hex())[:8]

    def host_ok(self, host: str) -> bool:
        """Return whether the Host header is allowed; if not, answer 421."""
        return host_allowed(host, self.public)

    def origin_ok(self, origin: str, host: str) -> bool:
        """Return whether the Origin header is allowed; if not, answer 403."""
        return origin_allowed(origin, host, self.public, self.tls)

    def known(self, authorization: str, cookies: dict[str, str]) -> Principal | None:
        """Return who asks, by the last look at the state folder; for callers that cannot await."""
        token = bearer(authorization)
        if token is not None:
            return self._folder_watch.seen.credentials.get(digest(token))
        return self._session(cookies)

    async def find(self, authorization: str, cookies: dict[str, str]) -> Principal | None:
        """Return who asks, as `known` does, but look at the state folder once more for an unknown token."""
        token = bearer(authorization)
        return await self._folder_watch.find(digest(token)) if token is not None else self._session(cookies)

    def still_good(self, principal: Principal) -> bool:
        """Return whether the token or session is still valid."""
        if not principal.by_cookie:
            return principal.credential in self._folder_watch.seen.credentials
        overdue = principal.until_wall_s is not None and time.time() > principal.until_wall_s
        return not overdue and not self._has_ended(principal.credential)

    async def sign_in(
        self, code: str | None, token: str | None, address: str = "", browser: str = ""
    ) -> tuple[str, Principal] | None:
        """Return a new session's cookie and principal; None if the code or token is not valid. A code is valid once."""
        if code is not None:
            role = await asyncio.to_thread(signin_codes.use, self.run, code)
            found = None if role is None else Principal(role, "admin" if role is Role.ADMIN else role.value, "code")
        else:
            found = await self._folder_watch.find(digest(token or "")) if token else None
        if found is None or found.canary:
            return None
        session_id, now_s = secrets.token_urlsafe(18), time.time()
        session = Principal(found.role, found.actor, session_id, by_cookie=True, until_wall_s=now_s + SESSION_S_MAX)
        file = SessionFile(found.actor, found.role, now_s, address, browser[:BROWSER_CHARS_MAX])
        await asyncio.to_thread(session_files.put, self.run, session_id, file, SESSION_S_MAX)
        return cookie(self._key, session_id, found.role, found.actor, now_s), session

    async def sign_out(self, principal: Principal) -> None:
        """End the session everywhere: other fanouts see that at their next look."""
        if principal.by_cookie:
            await self.end(principal.credential)

    async def end(self, session_id: str) -> None:
        """End the session of this id: here at once, on the other fanouts at their next look."""
        self._ended = {each for each in self._ended if each not in self._folder_watch.seen.signed_out} | {session_id}
        await asyncio.to_thread(session_files.end, self.run, session_id)

    def _session(self, cookies: dict[str, str]) -> Principal | None:
        text = cookies.get(self.cookie_name)
        found = read_cookie(self._key, text, time.time()) if text else None
        return None if found is None or self._has_ended(found.credential) else found

    def _has_ended(self, session_id: str) -> bool:
        return session_id in self._ended or session_id in self._folder_watch.seen.signed_out


def bearer(authorization: str) -> str | None:
    """Return the token of an Authorization header; None if it has none."""
    scheme, _, token = authorization.partition(" ")
    return token.strip()[:TOKEN_CHARS_MAX] if scheme.lower() == "bearer" and token.strip() else None
