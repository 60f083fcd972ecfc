"""Who asks: a Bearer token, or a session cookie that was given for a token or a one-time code. Works without the
hub.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from pathlib import Path
from typing import Final

import msgspec

from processes.adapters.settings import Settings
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

KEY_BYTES: Final = 32
TOKEN_CHARS_MAX: Final = 512
BROWSER_CHARS_MAX: Final = 200  # of what a browser says it is


class SessionFile(msgspec.Struct, frozen=True):
    """One open session in run/sessions, under its id. Units: at in seconds since 1970."""

    actor: str
    role: Role
    at: float
    address: str = ""
    browser: str = ""


class Auth:
    """The checks at the door of every request and connection."""

    def __init__(self, settings: Settings, looking: FolderWatch, key: bytes) -> None:
        file = settings.file
        self.public = Public.of(file.operators.url, file.operators.listen, bool(file.tls.certificate))
        self.tls = bool(file.tls.certificate)
        self.attempts = Attempts()
        self._ended: set[str] = set()  # sessions that ended here, until a look has seen it
        self._settings, self._looking, self._key = settings, looking, key
        self.sessions = settings.run / "sessions"
        # cookies do not know ports: two installations on one machine must not overwrite each other's
        self.cookie_name = ("__Host-" if self.public.secure else "") + "fleethub-" + digest(key.hex())[:8]

    def host_ok(self, host: str) -> bool:
        """False: answer 421."""
        return host_allowed(host, self.public)

    def origin_ok(self, origin: str, host: str) -> bool:
        """False: answer 403."""
        return origin_allowed(origin, host, self.public, self.tls)

    def known(self, authorization: str, cookies: dict[str, str]) -> Principal | None:
        """Who asks, as far as it is known without looking again; for where nothing can be awaited."""
        token = bearer(authorization)
        if token is not None:
            return self._looking.sights.credentials.get(digest(token))
        return self._session(cookies)

    async def find(self, authorization: str, cookies: dict[str, str]) -> Principal | None:
        """As `known`, and for a token that is not known the state folder is looked at once more."""
        token = bearer(authorization)
        return await self._looking.find(digest(token)) if token is not None else self._session(cookies)

    def still_good(self, principal: Principal) -> bool:
        """False once its token or session has ended."""
        if not principal.by_cookie:
            return principal.credential in self._looking.sights.credentials
        overdue = principal.until_wall_s is not None and time.time() > principal.until_wall_s
        return not overdue and not self._has_ended(principal.credential)

    async def sign_in(
        self, code: str | None, token: str | None, address: str = "", browser: str = ""
    ) -> tuple[str, Principal] | None:
        """A new session's cookie and whom it speaks for; None if the code or token is not good. A code is good once."""
        if code is not None:
            role = await asyncio.to_thread(self._use_code, code)
            found = None if role is None else Principal(role, "admin" if role is Role.ADMIN else role.value, "code")
        else:
            found = await self._looking.find(digest(token or "")) if token else None
        if found is None or found.canary:
            return None
        session_id, now_s = secrets.token_urlsafe(18), time.time()
        session = Principal(found.role, found.actor, session_id, by_cookie=True, until_wall_s=now_s + SESSION_S_MAX)
        file = SessionFile(found.actor, found.role, now_s, address, browser[:BROWSER_CHARS_MAX])
        await asyncio.to_thread(self._put_session, session_id, file)
        return cookie(self._key, session_id, found.role, found.actor, now_s), session

    async def sign_out(self, principal: Principal) -> None:
        """Ends the session everywhere: every fanout sees it within a look."""
        if principal.by_cookie:
            await self.end(principal.credential)

    async def end(self, session_id: str) -> None:
        """The session of this id is over: here at once, everywhere within a look."""
        self._ended = {each for each in self._ended if each not in self._looking.sights.signed_out} | {session_id}
        await asyncio.to_thread(self._put_signed_out, session_id)

    def _session(self, cookies: dict[str, str]) -> Principal | None:
        text = cookies.get(self.cookie_name)
        found = read_cookie(self._key, text, time.time()) if text else None
        return None if found is None or self._has_ended(found.credential) else found

    def _has_ended(self, session_id: str) -> bool:
        return session_id in self._ended or session_id in self._looking.sights.signed_out

    def _put_signed_out(self, session_id: str) -> None:
        folder = self._settings.run / "signed_out"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / session_id).touch(mode=0o600)
        (self.sessions / session_id).unlink(missing_ok=True)

    def _put_session(self, session_id: str, file: SessionFile) -> None:
        """Listed from now on. On a full disk it is not, and ends by its time: nobody is kept out at the worst
        moment.
        """
        with contextlib.suppress(OSError):
            self.sessions.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self.sessions / session_id, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(fd, "wb") as whole:
                whole.write(msgspec.json.encode(file))
            for path in self.sessions.iterdir():  # those that nobody ended; sign-ins are rare
                if file.at - path.stat().st_mtime > SESSION_S_MAX:
                    path.unlink(missing_ok=True)

    def _use_code(self, code: str) -> Role | None:
        """The code's role if it is good; whoever unlinks its file has used it."""
        path = self._settings.run / "codes" / digest(code)
        try:
            with path.open() as file:
                path.unlink()
                until, _, role = file.read(200).strip().partition(" ")
            return Role(role) if time.time() <= float(until) else None
        except (OSError, ValueError):
            return None


def bearer(authorization: str) -> str | None:
    """The token of an Authorization header; None if it has none."""
    scheme, _, token = authorization.partition(" ")
    return token.strip()[:TOKEN_CHARS_MAX] if scheme.lower() == "bearer" and token.strip() else None


def cookie_key(path: Path) -> bytes:
    """The key that signs sessions, made if it is missing; several fanouts that start at once get the same one.

    Raises: OSError, if the state folder cannot be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(fd, secrets.token_bytes(KEY_BYTES))
        os.fsync(fd)
        os.link(fresh, path)
    except FileExistsError:
        pass  # it is there already, or another fanout was first
    finally:
        os.close(fd)
        fresh.unlink()
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise OSError(f"{path} does not hold {KEY_BYTES} bytes: remove it, and everybody signs in anew")
    return key
