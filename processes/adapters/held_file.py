"""Files that a process opens while it may still make files, and writes to when it may not any more."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def open_held(path: Path) -> int:
    """Return the descriptor of a file, made if it is missing, that this process will write to when it may make none.

    On a full disk: of one without a name, which nobody reads. Raises: OSError.
    """
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return os.memfd_create(path.name)
