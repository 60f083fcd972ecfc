"""An SQLite file, opened by whoever only reads it. The path may hold any character that the file system allows."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path


class NoFile(Exception):
    """What is at the path is no regular file: a pipe would be waited for without end, a device read without end."""


def open_for_reading(path: Path, timeout_s: float) -> sqlite3.Connection:
    """Return a connection that cannot write. Transactions are begun by hand.

    Units: `timeout_s` is how long one call waits for a lock. Raises: OSError, NoFile, sqlite3.Error.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise NoFile(f"{path} is no regular file")
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro",  # with ?, # and % of the path quoted: they would end or change it
        uri=True,
        timeout=timeout_s,
        isolation_level=None,
        check_same_thread=False,
    )
