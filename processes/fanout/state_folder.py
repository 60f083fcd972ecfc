"""The state folder as a fanout reads it, off its loop: the watchdog's report, incidents, and who may sign in."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import sqlite3
from typing import Final

import msgspec

from processes.adapters import ownership, truth_reader
from processes.adapters.ownership import NotPrivate
from processes.adapters.settings import Settings
from processes.adapters.state import canary_file, fleet_db, incidents_db, revocations, session_files, status_file
from processes.adapters.state.sqlite_file import KeptReading, NoFile
from processes.core.fanout.signin import SESSION_S_MAX, Principal
from processes.core.records.request import OperatorToken
from processes.core.shown.status import IncidentView, Report
from processes.core.travels.messages import Json
from processes.core.values import CANARY_HOST, Role, digest

LOOK_S: Final = 0.5  # between two looks; a revoked session ends within 2 s
INCIDENTS_SHOWN: Final = 50  # the newest; all are in the API
TOKEN_BYTES_MAX: Final = 4096
# by a connection that is kept: it is tried with one of its own then, which knows how to wait and what to say
UNREADABLE: Final = (fleet_db.DatabaseUnreadable, sqlite3.Error, NoFile, OSError, msgspec.DecodeError)
FINDING_MAX: Final = 50  # unknown tokens that are looked for at a time; further ones are unknown


class FolderSeen(msgspec.Struct, frozen=True):
    """One look. `credentials`: SHA-256 of a token → who that is; `own_hash`: which of them is the installation's own.
    `signed_out`: ids of sessions that ended early; None: nobody could read them yet. `ended_until_wall_s`: all sessions
    that had begun by then have ended too. `used`: when each listed session was last used.
    """

    report: Report
    incidents: list[IncidentView]
    credentials: dict[str, Principal]
    own_hash: str
    signed_out: frozenset[str] | None
    ended_until_wall_s: float
    used: dict[str, float]
    revoked: revocations.Look
    hub_record_wall_s: float  # when the database was last written


class KeptReadings:
    """What is read of the two databases at each look. Used by one thread at a time."""

    def __init__(self, settings: Settings) -> None:
        self.tokens = KeptReading(settings.database, fleet_db.open_for_reading, fleet_db.tokens)
        self.incidents = KeptReading(
            settings.incidents_database, incidents_db.open_for_reading,
            lambda connection: incidents_db.listed(connection, INCIDENTS_SHOWN),
        )  # fmt: skip


def look(settings: Settings, before: FolderSeen | None, kept: KeptReadings | None = None) -> FolderSeen:
    """Return one look at the state folder. Cost: 0.2 ms with `kept` while nobody writes, else some ms; blocks, so never
    on the loop.
    """
    revoked = revocations.look(revocations.beside(settings.database), before.revoked if before else revocations.Look())
    own_hash = _own_hash(settings, before.own_hash if before else "")
    return FolderSeen(
        status_file.current_report(settings),
        _incidents(settings, kept),
        credentials(settings, before, revoked, own_hash, kept),
        own_hash,
        session_files.ended(settings.run, SESSION_S_MAX, before.signed_out if before else None),
        session_files.ended_until(settings.run, before.ended_until_wall_s if before else 0.0),
        session_files.used(settings.run, before.used if before else {}),
        revoked,
        _written_wall_s(settings),
    )


def credentials(
    settings: Settings,
    before: FolderSeen | None,
    revoked: revocations.Look,
    own_hash: str,
    kept: KeptReadings | None = None,
) -> dict[str, Principal]:
    """Return every token that is good now, or until the time in its principal. While the database is unreadable, its
    tokens of the look before hold.

    What was ever made void is not good, whatever the database says. While nobody could read the list of that, no token
    of the database is good.
    """
    found: dict[str, Principal] = {}
    try:
        found = {token.token_hash: _principal(token) for token in _tokens(settings, kept)}
    except (fleet_db.DatabaseUnreadable, ValueError):
        known = before.credentials if before else {}
        found = {key: known[key] for key in known if before and key != before.own_hash and not known[key].canary}
    found = {key: found[key] for key in found if revoked.hashes is not None and key not in revoked.hashes}
    if own_hash:
        found[own_hash] = Principal(Role.ADMIN, "admin", own_hash)
    canary = canary_file.read(settings.canary)
    if canary is not None:
        key = canary.operator_token_hash
        found[key] = Principal(Role.OPERATOR, CANARY_HOST, key, canary=True)
    return found


def _tokens(settings: Settings, kept: KeptReadings | None) -> list[OperatorToken]:
    """Return the tokens of the database. Raises: DatabaseUnreadable, ValueError."""
    if kept is not None and not settings.file.store.url:
        with contextlib.suppress(*UNREADABLE):
            return kept.tokens.newest()
    return truth_reader.reading(settings, fleet_db.tokens)


def _incidents(settings: Settings, kept: KeptReadings | None) -> list[IncidentView]:
    if kept is not None:
        with contextlib.suppress(*UNREADABLE):
            return kept.incidents.newest()
    return incidents_db.incidents(settings.incidents_database, INCIDENTS_SHOWN)


def _principal(token: OperatorToken) -> Principal:
    actor = token.label or f"token-{token.token_hash[:8]}"
    until_wall_s = math.inf if token.expires_wall_s is None else token.expires_wall_s
    return Principal(Role(token.role), actor, token.token_hash, until_wall_s=until_wall_s)


def _own_hash(settings: Settings, before: str) -> str:
    """Return the hash of the installation's own token; empty if there is none, or if others could have put it there or
    have read it. While the process has no descriptor or memory to read it with, it is the same as before.
    """
    try:
        token = ownership.read_private(settings.operator_token, TOKEN_BYTES_MAX).decode().strip()
    except OSError as error:
        return before if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM) else ""
    except (NotPrivate, UnicodeDecodeError):
        return ""
    return digest(token) if token else ""


def _written_wall_s(settings: Settings) -> float:
    times = [0.0]
    for path in (settings.database, settings.database.with_name(settings.database.name + "-wal")):
        try:
            times.append(path.stat().st_mtime)
        except OSError:
            continue
    return max(times)


class FolderWatch:
    """The newest look, renewed every LOOK_S by one thread at a time. One that hangs on a disk delays no request."""

    def __init__(self, settings: Settings, first: FolderSeen) -> None:
        self._settings, self._kept = settings, KeptReadings(settings)
        self.seen = first
        self._task: asyncio.Task[FolderSeen] | None = None
        self._next_s = 0.0
        self._has_found = False  # an unknown token was looked for since the look under way began
        self._one = asyncio.Lock()  # one extra look at a time, however many unknown tokens come
        self._finding = 0

    def turn(self, now_s: float) -> FolderSeen | None:
        """Return a new look if one is ready, and start the next when it is time."""
        fresh: FolderSeen | None = None
        if self._task is not None and self._task.done():
            fresh = self._task.result()
            void = fresh.revoked.hashes
            if self._has_found and void is not None:  # since that look began: what it saw of tokens is older
                newest = {key: each for key, each in self.seen.credentials.items() if key not in void}
                fresh = msgspec.structs.replace(fresh, credentials=newest, own_hash=self.seen.own_hash)
            self.seen, self._task = fresh, None
        if self._task is None and now_s >= self._next_s:
            self._next_s, self._has_found = now_s + LOOK_S, False
            self._task = asyncio.get_running_loop().create_task(
                asyncio.to_thread(look, self._settings, self.seen, self._kept)
            )
        return fresh

    async def find(self, token_hash: str) -> Principal | None:
        """Return who has this token; look once more for a token that may have been made a moment ago."""
        if token_hash not in self.seen.credentials and self._finding < FINDING_MAX:
            self._finding += 1
            try:
                async with self._one:
                    if token_hash not in self.seen.credentials:
                        own_hash, newest = await asyncio.to_thread(self._newest, self.seen)
                        self.seen = msgspec.structs.replace(self.seen, credentials=newest, own_hash=own_hash)
                        self._has_found = True
            finally:
                self._finding -= 1
        return self.seen.credentials.get(token_hash)

    def _newest(self, before: FolderSeen) -> tuple[str, dict[str, Principal]]:
        own_hash = _own_hash(self._settings, before.own_hash)
        return own_hash, credentials(self._settings, before, before.revoked, own_hash)


def rows(seen: FolderSeen) -> dict[str, dict[str, Json]]:
    """Return the rows that are shown of a look, by kind and id."""
    report = seen.report
    overall = {
        "verdict": report.verdict,
        "reasons": report.reasons,
        "troubles": report.troubles,
        "epoch": report.epoch,
        "canary": report.canary,
        "fleet": report.fleet,
        "queues": report.queues,
        "watchdog_silent_s": report.watchdog_silent_s,
    }
    return {
        "process": {process.name: Json(msgspec.json.encode(process)) for process in report.processes},
        "incident": {incident.id: Json(msgspec.json.encode(incident)) for incident in seen.incidents},
        "overall": {"overall": Json(msgspec.json.encode(overall))},
    }
