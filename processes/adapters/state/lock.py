"""One process of a name in a state folder: an exclusive lock that the kernel releases when its holder dies."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from processes.core.errors import ResourceError


def place(run: Path, name: str) -> Path:
    """Return the lock file of a process (NAME), of `up`, of the wanted state (wanted) or of a drill (drill)."""
    return run / "lock" / name


def hold(path: Path, wait_s: float = 0.0) -> int:
    """Take the lock and return its descriptor, which must be kept open (it is not inherited by children).

    Raises: ResourceError, if another process still has it after `wait_s`; its text names the holder.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < deadline:
                time.sleep(0.01)  # the holder is dying, or another start won: look again soon
                continue
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            raise ResourceError(f"{path} is held by process {holder}") from None
        holder_line = f"{os.getpid()}\n".encode()
        os.pwrite(fd, holder_line, 0)  # before the file is cut: on a full disk freed room may be gone
        os.ftruncate(fd, len(holder_line))
        return fd


def is_held(path: Path) -> bool:
    """Return whether a process has the lock. A lock file that is not there is not held.

    Takes a shared lock for a moment, so `hold` should wait a little.
    Cost: about 10 µs. Raises: OSError, if the file cannot be opened.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
