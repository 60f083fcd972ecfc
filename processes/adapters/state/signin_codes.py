"""One-time codes: run/codes, a file for each code, named by its SHA-256, with the content "EXPIRY_WALL_S ROLE".

The command line makes them; the fanout that unlinks the file first has used the code. The folder may be a fanout's own
user's (adapters/own_user.py): the command line follows no link in it.
"""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path
from typing import Final

from processes.adapters.state import durable
from processes.core.values import Role, digest

CODE_BYTES_MAX: Final = 200  # of a file
LOOKED_AT_MAX: Final = 10_000  # files in one look for expired ones


def put(run: Path, code: str, role: Role, until_wall_s: float) -> None:
    """Make the code valid until then, and remove expired ones. Raises: OSError."""
    folder = run / "codes"
    folder.mkdir(mode=0o700, exist_ok=True)
    _forget_expired(folder)
    found = folder.stat()
    group = None if found.st_uid == os.geteuid() else found.st_gid
    durable.replace(_place(run, code), f"{until_wall_s:.0f} {role}\n".encode(), group=group)


def use(run: Path, code: str) -> Role | None:
    """Return the code's role if the code is valid; it is not valid a second time."""
    path = _place(run, code)
    try:
        with path.open() as file:
            path.unlink()
            durable.sync_folder(path.parent)
            until, _, role = file.read(CODE_BYTES_MAX).strip().partition(" ")
        return Role(role) if time.time() <= float(until) else None
    except (OSError, ValueError):
        return None


def _place(run: Path, code: str) -> Path:
    return run / "codes" / digest(code)


def _forget_expired(folder: Path) -> None:
    for path in itertools.islice(folder.iterdir(), LOOKED_AT_MAX):
        try:
            expired = float(durable.read_theirs(path, CODE_BYTES_MAX).split()[0]) < time.time()
        except (OSError, ValueError, IndexError):
            continue
        if expired:
            path.unlink(missing_ok=True)
