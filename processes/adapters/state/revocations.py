"""The tokens that were ever made void: an append-only list beside the database, so that no restored backup makes one
good again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def read(path: Path) -> frozenset[str]:
    """The hashes in the list; none if there is no list yet. A line that was torn by a crash is left out. Raises:
    OSError.
    """
    try:
        lines = path.read_text(errors="replace").split("\n")
    except FileNotFoundError:
        return frozenset()
    return frozenset(line for line in lines[:-1] if line)


def add(path: Path, token_hashes: Iterable[str]) -> None:
    """The hashes are in the list, durably. One that is there already is not written again. Raises: OSError."""
    known = read(path)
    fresh = [token_hash for token_hash in dict.fromkeys(token_hashes) if token_hash not in known]
    if not fresh:
        return
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(fd).st_size
        torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
        os.write(fd, (("\n" if torn else "") + "".join(f"{token_hash}\n" for token_hash in fresh)).encode())
        os.fsync(fd)
    finally:
        os.close(fd)
