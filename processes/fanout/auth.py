"""Finds out who asks: by a Bearer token, or by a session cookie that was given for a token or a code. Needs no hub."""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from processes.adapters.settings import Settings
from processes.adapters.state import session_files, signin_codes
from processes.adapters.state.session_files import SessionFile
from processes.core.connections import site_of
from processes.core.fanout.signin import (
    SESSION_S_MAX,
    TOKEN_SESSIONS_MAX,
    TOKEN_USE_TOLD_S,
    Attempts,
    Principal,
    Public,
    Uses,
    cookie,
    cookie_values,
    host_allowed,
    is_fresh,
    is_idle,
    is_over,
    origin_allowed,
    read_cookie,
    session_of,
)
from processes.core.values import digest
from processes.fanout.state_folder import FolderWatch

TOKEN_CHARS_MAX: Final = 512
BROWSER_CHARS_MAX: Final = 200  # of a browser's User-Agent


async def _free(_: Principal) -> None:
    """Charge nothing."""


class TooManyAttempts(Exception):
    """The credential is not known, and too many such came lately."""


class Auth:
    """Finds out who sends a request or opens a connection, and whether that is still allowed."""

    def __init__(
        self, settings: Settings, folder_watch: FolderWatch, key: bytes, wall_s: Callable[[], float] = time.time,
        *, on_token_use: Callable[[str, float], object] = lambda *_: None,
    ) -> None:  # fmt: skip
        """`on_token_use` is called with the hash of a token that is used and the time, once in some minutes at most."""
        file = settings.file
        self.public = Public.of(file.operators.url, file.operators.listen, bool(file.tls.certificate))
        self.tls = bool(file.tls.certificate)
        self._operators = file.operators
        self.attempts = Attempts()
        self._ended: set[str] = set()  # sessions that ended here, until the folder watch has seen that
        self._uses = Uses()
        self._token_uses, self._on_token_use = Uses(TOKEN_USE_TOLD_S), on_token_use
        self._folder_watch, self._key, self._wall_s = folder_watch, key, wall_s
        self.run = settings.run
        # cookies do not know ports: two installations on one machine must not overwrite each other's
        self.cookie_name = ("__Host-" if self.public.secure else "") + "fleethub-" + digest(key.hex())[:8]

    def host_ok(self, host: str) -> bool:
        """Return whether the Host header is allowed; if not, answer 421."""
        return host_allowed(host, self.public)

    def origin_ok(self, origin: str, host: str) -> bool:
        """Return whether the Origin header is allowed; if not, answer 403."""
        return origin_allowed(origin, host, self.public, self.tls)

    def known(self, authorization: str, cookies: Sequence[str]) -> Principal | None:
        """Return who asks, by the last look at the state folder; for callers that cannot await. `cookies`: the
        request's headers of that name.
        """
        token = bearer(authorization)
        if token is not None:
            return self._in_time(self._folder_watch.seen.credentials.get(digest(token)))
        return self._session(cookies)

    async def find(self, authorization: str, cookies: Sequence[str], address: str = "") -> Principal | None:
        """Return who asks, as `known` does, but look at the state folder once more for an unknown token, unless too
        many unknown ones came from there.
        """
        token = bearer(authorization)
        if token is not None:
            try:
                return self._in_time(await self._of_token(token, site_of(address), "bearer"))
            except TooManyAttempts:
                return None
        session = self._read(cookies)
        if session is not None:
            await self._folder_watch.find(session.token_hash)  # the token may have been made a moment ago
        return self._session(cookies)

    def still_good(self, principal: Principal) -> bool:
        """Return whether the token or session of an open connection is still valid. Being open counts as use."""
        if not principal.by_cookie:
            return self._in_time(self._folder_watch.seen.credentials.get(principal.credential)) is not None
        good = not is_over(principal.since_wall_s, self._wall_s()) and self._is_granted(principal)
        if good:
            self._use(principal)
        return good

    async def _of_token(self, token: str, network: str, kind: str) -> Principal | None:
        """Return whose token it is. One that is known is never refused, whatever others have guessed.

        Raises: TooManyAttempts, if nobody looked for it.
        """
        token_hash = digest(token)
        found = self._folder_watch.seen.credentials.get(token_hash)
        if found is None:
            if not self.attempts.allow(network, kind, asyncio.get_running_loop().time()):
                raise TooManyAttempts
            found = await self._folder_watch.find(token_hash)
            if found is not None:
                self.attempts.succeeded(network, kind)
        return found

    def is_kept_for(self, principal: Principal) -> bool:
        """Return whether room is kept for its connections: the canary's, and this installation's own token's."""
        return principal.canary or principal.owner == self._folder_watch.seen.own_hash

    async def sign_in(
        self, code: str | None, token: str | None, address: str = "", browser: str = "",
        on_token: Callable[[Principal], Awaitable[None]] = _free,
    ) -> tuple[str, Principal] | None:  # fmt: skip
        """Return a new session's cookie and principal; None if the code or token is not valid. A code is valid once.
        `on_token`: called with the token that is good, before anything is made; it may raise.

        Raises: TooManyAttempts, after too many that were not valid; never for a good code, nor for a known token.
        """
        network = site_of(address)
        if code is not None:
            role = await asyncio.to_thread(signin_codes.use, self.run, code)
            own_hash = self._folder_watch.seen.own_hash  # to which the sessions belong that codes make
            found = Principal(role, role.value, own_hash) if role is not None and own_hash else None
            if found is None and not self.attempts.allow(network, "code", asyncio.get_running_loop().time()):
                raise TooManyAttempts
        else:
            found = self._in_time(await self._of_token(token, network, "token")) if token else None
        if found is None or found.canary:
            return None
        if code is None:
            await on_token(found)
        session_id, now_s, owner = secrets.token_hex(18), self._wall_s(), found.credential
        session = session_of(session_id, owner, found.role, found.actor, now_s)
        file = SessionFile(found.actor, found.role, now_s, address, browser[:BROWSER_CHARS_MAX], owner)
        await asyncio.to_thread(session_files.put, self.run, session_id, file, SESSION_S_MAX)
        with contextlib.suppress(OSError):  # on a full disk there are more for a while: nobody must be kept out then
            await self._end_too_many(session)
        return cookie(self._key, session), session

    async def _end_too_many(self, session: Principal) -> None:
        """End those of one owner's sessions beyond TOKEN_SESSIONS_MAX that were not used for longest.

        Raises: OSError.
        """
        listed = await asyncio.to_thread(session_files.listed, self.run)
        theirs = {id: file for id, file in listed if (file.token_hash, file.role) == (session.token_hash, session.role)}
        if len(theirs) > TOKEN_SESSIONS_MAX:
            used = await asyncio.to_thread(session_files.used, self.run, {})
            used[session.credential] = math.inf
            by_use = sorted(theirs, key=lambda id: max(used.get(id, 0.0), self._uses.last_wall_s(id)))
            for id in by_use[: len(theirs) - TOKEN_SESSIONS_MAX]:
                await self.end(id, theirs[id].at)

    async def sign_out(self, principal: Principal) -> None:
        """End the session everywhere: other fanouts see that at their next look."""
        if principal.by_cookie:
            await self.end(principal.credential, principal.since_wall_s)

    async def end(self, session_id: str, since_wall_s: float) -> None:
        """End the session of this id, which began then: here at once, on the other fanouts at their next look."""
        self._ended = {each for each in self._ended if each not in (self._folder_watch.seen.signed_out or ())}
        self._ended.add(session_id)
        await asyncio.to_thread(session_files.end, self.run, session_id, since_wall_s)

    def wants_sign_in(self, principal: Principal, doing: Iterable[str]) -> str:
        """Return what of this needs a sign-in that is fresher than this one; empty: nothing."""
        if is_fresh(principal, self._wall_s(), self._operators.fresh_s):
            return ""
        return next((name for name in doing if name in self._operators.fresh_for), "")

    def is_open(self, session_id: str, file: SessionFile) -> bool:
        """Return whether the listed session is still good."""
        session = session_of(session_id, file.token_hash, file.role, file.actor, file.at)
        return not is_over(file.at, self._wall_s()) and not self._is_idle(session) and self._is_granted(session)

    def _read(self, cookies: Sequence[str]) -> Principal | None:
        found = (read_cookie(self._key, text, self._wall_s()) for text in cookie_values(cookies, self.cookie_name))
        return next((session for session in found if session is not None), None)

    def _session(self, cookies: Sequence[str]) -> Principal | None:
        found = self._read(cookies)
        if found is None or self._is_idle(found) or not self._is_granted(found):
            return None
        self._use(found)
        return found

    def _is_granted(self, session: Principal) -> bool:
        """Return whether its token is good and nobody has ended it. While nobody could read who has, no session is."""
        seen, id = self._folder_watch.seen, session.credential
        return (
            self._in_time(seen.credentials.get(session.token_hash)) is not None
            and seen.signed_out is not None
            and id not in seen.signed_out
            and id not in self._ended
            and session.since_wall_s > seen.ended_until_wall_s
        )

    def _in_time(self, found: Principal | None) -> Principal | None:
        """Return the token's principal, unless its time is over; that is told as its use."""
        now_wall_s = self._wall_s()
        if found is None or now_wall_s >= found.until_wall_s:
            return None
        listed = not found.canary and found.credential != self._folder_watch.seen.own_hash
        if listed and self._token_uses.note(found.credential, now_wall_s):
            self._on_token_use(found.credential, now_wall_s)
        return found

    def _is_idle(self, session: Principal) -> bool:
        id = session.credential
        used_wall_s = max(self._uses.last_wall_s(id), self._folder_watch.seen.used.get(id, 0.0))
        return is_idle(session.since_wall_s, used_wall_s, self._wall_s())

    def _use(self, session: Principal) -> None:
        """Note the use here at once, and in the session's file for the other fanouts, beside the turns."""
        if self._uses.note(session.credential, self._wall_s()):
            asyncio.get_running_loop().run_in_executor(None, session_files.use, self.run, session.credential)


def bearer(authorization: str) -> str | None:
    """Return the token of an Authorization header; None if it has none."""
    scheme, _, token = authorization.partition(" ")
    return token.strip()[:TOKEN_CHARS_MAX] if scheme.lower() == "bearer" and token.strip() else None
