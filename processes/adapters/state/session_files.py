"""Sign-ins as files that all fanouts of a machine share: run/sessions, run/signed_out and run/cookie.key.

A session is a signed cookie; its file, named by its id, lists it, and the file's time of change tells when the session
was last used. A file of the same name in signed_out ends it early: every fanout sees that file at its next look. There
`until` stands for many of them.
Everything here blocks.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from processes.adapters import clock, ownership
from processes.adapters.state import durable
from processes.core.values import Role

KEY_BYTES: Final = 32
SIGNED_OUT_MAX: Final = 100_000  # files of ended sessions; of more, the older half becomes one time
MARK_BYTES_MAX: Final = 200
UNTIL: Final = "until"  # in signed_out; shorter than a session's id


class SessionFile(msgspec.Struct, frozen=True):
    """One open session, under its id. Units: at in seconds since 1970. A file of a version before has no token_hash."""

    actor: str
    role: Role
    at: float
    address: str = ""
    browser: str = ""
    token_hash: str = ""


_file = msgspec.json.Decoder(SessionFile)


def put(run: Path, session_id: str, file: SessionFile, age_s_max: float) -> None:
    """List the session, and remove the files of those older than `age_s_max`.

    Never raises. On a full disk the session is not listed and ends by its time: nobody must be kept out at the worst
    moment.
    """
    with contextlib.suppress(OSError):
        folder = run / "sessions"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        durable.create(folder / session_id, msgspec.json.encode(file), durable=False)
        for path in folder.iterdir():  # of sessions that were never ended; sign-ins are rare
            if file.at - path.stat().st_mtime > age_s_max:
                path.unlink(missing_ok=True)


def read(run: Path, session_id: str) -> SessionFile | None:
    """Return one session, however old; None if it is not listed or cannot be read."""
    try:
        return _file.decode((run / "sessions" / session_id).read_bytes())
    except (OSError, msgspec.DecodeError):
        return None


def listed(run: Path) -> list[tuple[str, SessionFile]]:
    """Return all sessions that can be read, with their ids; none if nobody has signed in yet."""
    try:
        names = [path.name for path in (run / "sessions").iterdir() if not path.name.startswith(".")]
    except OSError:
        return []
    return [(name, file) for name in names if (file := read(run, name)) is not None]


def use(run: Path, session_id: str) -> None:
    """Note that the session is used now, by its file's time. Never raises: a session that is not listed has no file."""
    with contextlib.suppress(OSError):
        os.utime(run / "sessions" / session_id)


def used(run: Path, before: dict[str, float]) -> dict[str, float]:
    """Return when each listed session was last used, in seconds since 1970; `before`, while that cannot be read."""
    found: dict[str, float] = {}
    try:
        for path in (run / "sessions").iterdir():
            with contextlib.suppress(FileNotFoundError):  # it has just ended
                found[path.name] = path.stat().st_mtime
    except FileNotFoundError:
        return {}
    except OSError:
        return before
    return found


def end(run: Path, session_id: str, since_wall_s: float) -> None:
    """End the session, which began then, everywhere and durably. Raises: OSError."""
    folder = run / "signed_out"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    mark = f"{_boot_id()} {clock.now().boot_s:.0f} {since_wall_s!r}\n"
    durable.replace(folder / session_id, mark.encode())
    (run / "sessions" / session_id).unlink(missing_ok=True)


def ended(run: Path, age_s_max: float, before: frozenset[str] | None) -> frozenset[str] | None:
    """Return the ids of sessions that ended early, beside those of `ended_until`.

    While they cannot be read: what was read before; None if they were never read, and then no session is good. Removes
    those of sessions that have ended by their time, which is older than `age_s_max`, and makes few of too many.
    """
    try:
        paths = [path for path in (run / "signed_out").iterdir() if path.name != UNTIL]
    except FileNotFoundError:  # nobody has signed out yet; but who once has, has
        return before or frozenset()
    except OSError:
        return before
    now_s = time.time()
    found: dict[str, float] = {}
    for path in paths:
        try:
            at_wall_s = path.stat().st_mtime
            if now_s - at_wall_s > age_s_max and _age_s_min(path) > age_s_max:
                path.unlink(missing_ok=True)
                continue
        except FileNotFoundError:  # another fanout has just removed it
            continue
        except OSError:
            at_wall_s = now_s  # it is there, however old: the session has ended
        found[path.name] = at_wall_s
    if len(found) > SIGNED_OUT_MAX:
        oldest = sorted(found, key=found.__getitem__)[: len(found) - SIGNED_OUT_MAX // 2]
        with contextlib.suppress(OSError):  # as long as the disk refuses, all of them are read
            _end_all_until(run, oldest, now_s)
    return frozenset(found)


def ended_until(run: Path, before_wall_s: float) -> float:
    """Return the time until which all sessions that had begun have ended; 0: there is none. While it cannot be read:
    what was read before. It never goes back.
    """
    until_wall_s = before_wall_s
    for path in (_until_place(run), run / "signed_out_until"):  # the second is of a version before
        with contextlib.suppress(OSError, ValueError):
            until_wall_s = max(until_wall_s, float(path.read_bytes()[:MARK_BYTES_MAX]))
    return until_wall_s


def _end_all_until(run: Path, session_ids: Iterable[str], now_wall_s: float) -> None:
    """Make one time of many ended sessions: all that had begun by then have ended. A few that had not are ended with
    them: better than that one which somebody has ended is good again. Raises: OSError.
    """
    covered: list[Path] = []
    until_wall_s = 0.0
    for session_id in session_ids:
        path = run / "signed_out" / session_id
        words = path.read_bytes()[:MARK_BYTES_MAX].decode(errors="replace").split()
        try:
            since_wall_s = float(words[2])
        except (IndexError, ValueError):  # of a version before: a session has begun before its end
            since_wall_s = path.stat().st_mtime
        if since_wall_s <= now_wall_s:  # else whoever signs in now would be ended too
            covered.append(path)
            until_wall_s = max(until_wall_s, since_wall_s)
    durable.replace(_until_place(run), f"{ended_until(run, until_wall_s)!r}\n".encode())
    for path in covered:
        path.unlink(missing_ok=True)


def _until_place(run: Path) -> Path:
    return run / "signed_out" / UNTIL


def _age_s_min(path: Path) -> float:
    """Return for how long at least the session has ended, whatever became of the wall clock. A file of a version before
    is empty. Raises: OSError.
    """
    with path.open("rb") as file:
        words = file.read(MARK_BYTES_MAX).decode(errors="replace").split()
    boot_id, then_s = words[:2] if len(words) > 1 else ("", "")
    now_s = clock.now().boot_s
    return now_s - float(then_s) if boot_id == _boot_id() and then_s.isdecimal() else now_s


def _boot_id() -> str:
    try:
        return clock.boot_id()
    except FileNotFoundError:
        return "unknown"  # where there is no /proc


def key_place(run: Path) -> Path:
    """Return the file of the key that signs sessions."""
    return run / "cookie.key"


def cookie_key(run: Path) -> bytes:
    """Return the key that signs sessions, made if it is missing; several fanouts that start at once get the same one.

    Raises: OSError, if the state folder cannot be written, or the file holds something else; NotPrivate.
    """
    path = key_place(run)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):  # it is there already, or another fanout was first
        if not path.exists():
            durable.create(path, secrets.token_bytes(KEY_BYTES))
    key = ownership.read_private(path, KEY_BYTES + 1)
    if len(key) != KEY_BYTES:
        raise OSError(f"{path} does not hold {KEY_BYTES} bytes: remove it, and everybody signs in anew")
    return key
