"""run/farewell/NAME holds the pid of a process that was asked to end (SIGTERM), written before it ends.

By it the watchdog tells an end that somebody asked for from a death, whoever asked and however fast the successor came.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from processes.adapters.state import durable

PID_BYTES_MAX: Final = 32


def say(run: Path, name: str) -> None:
    """Note that this process was asked to end. Never raises: a full disk only makes the end look unexpected."""
    with contextlib.suppress(OSError):
        path = place(run, name)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        durable.replace(path, str(os.getpid()).encode(), durable=False)


def said(run: Path, name: str, pid: int) -> bool:
    """Return whether exactly this process was asked to end."""
    try:
        with place(run, name).open("rb") as file:
            return file.read(PID_BYTES_MAX) == str(pid).encode()
    except OSError:
        return False


def place(run: Path, name: str) -> Path:
    """Return the file of a process."""
    return run / "farewell" / name
