"""A process that was asked to end (SIGTERM) says so before it does: run/farewell/NAME holds its pid.

So the watchdog can tell an end that somebody asked for from a death, whoever asked, however fast the successor came.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def say(run: Path, name: str) -> None:
    """This process was asked to end. Never raises: a full disk only makes the end look unexpected."""
    with contextlib.suppress(OSError):
        folder = run / "farewell"
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / name).write_text(str(os.getpid()))


def said(run: Path, name: str, pid: int) -> bool:
    """True if exactly this process was asked to end."""
    try:
        return (run / "farewell" / name).read_text() == str(pid)
    except OSError:
        return False
