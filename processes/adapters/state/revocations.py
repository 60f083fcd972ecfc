"""All tokens that were ever revoked: `revoked`, an append-only list beside the database.

The hub alone writes it, before it commits a revocation; `restore` reads it, so that no restored backup makes such a
token valid again.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

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


def add(path: Path, token_hashes: Iterable[str]) -> None:
    """Add the hashes to the list, durably; one that is there already is not written again.

    Raises: OSError, and then none of them was added.
    """
    known = read(path)
    fresh = [token_hash for token_hash in dict.fromkeys(token_hashes) if token_hash not in known]
    if fresh:
        durable.append_lines(path, fresh)
