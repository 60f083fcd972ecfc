"""An SQLite file, opened by whoever only reads it. The path may hold any character that the file system allows."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

Files = dict[str, tuple[int, int] | None]  # by the suffix of the name: device and inode of what is there


class NoFile(Exception):
    """What is at the path is no regular file: a pipe would be waited for without end, a device read without end."""


def files_at(path: Path) -> Files:
    """Return what is at the names of a database, its log and its shared memory.

    Whoever has it open has other files once they changed, though SQLite itself says nothing of it. Cost: three stats.
    """
    found: Files = {}
    for suffix in ("", "-wal", "-shm"):
        try:
            there = os.stat(f"{path}{suffix}")
            found[suffix] = (there.st_dev, there.st_ino)
        except OSError:
            found[suffix] = None
    return found


def open_for_reading(path: Path, timeout_s: float, *, still: bool = False) -> sqlite3.Connection:
    """Return a connection that cannot write. Transactions are begun by hand.

    `still`: nobody writes meanwhile, so that a database without a log is read without making one beside it.
    Units: `timeout_s` is how long one call waits for a lock. Raises: OSError, NoFile, sqlite3.Error.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise NoFile(f"{path} is no regular file")
    alone = "&immutable=1" if still and not path.with_name(path.name + "-wal").exists() else ""
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro{alone}",  # with ?, # and % of the path quoted: they would end or change it
        uri=True,
        timeout=timeout_s,
        isolation_level=None,
        check_same_thread=False,
    )
