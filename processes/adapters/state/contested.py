"""Hosts of which two agents claim to be one: a gateway says so, a file a host in run/contested, and the watchdog
alarms.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Final

LATELY_S: Final = 300.0  # a contest goes on as long as both agents do: each is let in again after 30 s
HOSTS_MAX: Final = 50  # that are told of


def say(run: Path, host: str) -> None:
    """This host is contested now. Blocks. Never raises: a full disk only keeps an alarm away."""
    with contextlib.suppress(OSError):
        folder = run / "contested"
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / host).write_bytes(b"")
        os.utime(folder / host)


def lately(run: Path) -> list[str]:
    """Hosts that were contested within LATELY_S, at most HOSTS_MAX. What is older is forgotten. Blocks. Raises:
    OSError.
    """
    folder = run / "contested"
    if not folder.exists():
        return []
    found = []
    for path in sorted(folder.iterdir()):
        age_s = time.time() - path.stat().st_mtime
        if age_s <= LATELY_S:
            found.append(path.name)
        else:
            path.unlink(missing_ok=True)
    return found[:HOSTS_MAX]
