"""All tokens that were ever revoked: `revoked`, an append-only list beside the database.

The hub alone writes it, before it commits the revocation. Who is let in is decided by fleet.db; this list only ever
takes away from that. A hub that begins voids these tokens in its database (the gateways get their token table from
that hub), every fanout leaves them out of what it reads there, and `restore` takes them out of a backup. So whatever
becomes of the database, no such token is good again.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from processes.adapters import ownership
from processes.adapters.state import durable


def beside(database: Path) -> Path:
    """Return the path of a database's list."""
    return database.with_name("revoked")


def read(path: Path) -> frozenset[str]:
    """Return the hashes in the list; none if there is no list yet. A line that was torn by a crash is left out.

    Raises: OSError.
    """
    try:
        lines = path.read_text(errors="replace").split("\n")
    except FileNotFoundError:
        return frozenset()
    return frozenset(line for line in lines[:-1] if line)


class Look(msgspec.Struct, frozen=True):
    """The list as it was last read. `mark`: by which one sees a change. `hashes` None: nobody could read it yet."""

    mark: tuple[int, int, int] = (0, 0, 0)
    hashes: frozenset[str] | None = None


def look(path: Path, before: Look) -> Look:
    """Return the list as it is now; as it was before, while it cannot be read.

    Cost: one stat, while nobody adds to it.
    """
    try:
        stat = path.stat()
        mark = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        return before if mark == before.mark and before.hashes is not None else Look(mark, read(path))
    except FileNotFoundError:
        return Look(hashes=before.hashes or frozenset())  # it is never shortened, so what stood in it counts
    except OSError:
        return before


def add(path: Path, token_hashes: Iterable[str]) -> None:
    """Add the hashes to the list, durably; one that is there already is not written again.

    Raises: OSError, and then none of them was added.
    """
    known = read(path)
    fresh = [token_hash for token_hash in dict.fromkeys(token_hashes) if token_hash not in known]
    if fresh:
        durable.append_lines(path, fresh, group=ownership.group_let_into(path.parent))
