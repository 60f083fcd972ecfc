"""A process that cannot go on, and knows why, says so before it ends: run/gave_up/NAME holds its pid and the reason.

So `status`, `doctor` and the watchdog's incidents can tell why a process is not there, for as long as it is not.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Final

from processes.adapters import ownership
from processes.adapters.state import durable

CHARS_MAX: Final = 1000  # of a reason
BYTES_MAX: Final = 4 * CHARS_MAX + 32  # of the file
LATELY_S: Final = 600.0  # a process that cannot begin is tried again at least once a minute, and says it again


def say(run: Path, name: str, reason: str) -> None:
    """Note why this process ends. Never raises: a full disk only leaves the reason to the log."""
    with contextlib.suppress(OSError):
        path = place(run, name)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        content = f"{os.getpid()} {' '.join(reason.split())[:CHARS_MAX]}\n".encode()
        durable.replace(path, content, durable=False, group=ownership.group_let_into(path.parent))


def forget(run: Path, name: str) -> None:
    """Remove what a predecessor said. Never raises."""
    with contextlib.suppress(OSError):
        durable.remove(place(run, name))


def said(run: Path, name: str) -> str:
    """Return why the process that is not there ended; empty if it did not say so lately, or if nobody can say."""
    try:
        path = place(run, name)
        if time.time() - path.stat().st_mtime > LATELY_S:
            return ""
        with path.open("rb") as file:
            return file.read(BYTES_MAX).decode(errors="replace").partition(" ")[2].strip()
    except OSError:
        return ""


def place(run: Path, name: str) -> Path:
    """Return the file of a process."""
    return run / "gave_up" / name
