"""Hosts that two agents claim to be: run/contested, an empty file a host. A gateway writes it; the watchdog alarms.

How long ago it was said is the file's time of change.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Final

from processes.adapters.state import durable

LATELY_S: Final = 300.0  # a contest goes on as long as both agents do: each is let in again after 30 s
HOSTS_MAX: Final = 50  # that are told of


def say(run: Path, host: str) -> None:
    """Notes that the host is contested now. Blocks. Never raises: a full disk only keeps an alarm away."""
    with contextlib.suppress(OSError):
        folder = _folder(run)
        folder.mkdir(mode=0o700, exist_ok=True)
        durable.replace(folder / host, b"", durable=False)


def lately(run: Path) -> list[str]:
    """Hosts that were contested within LATELY_S, at most HOSTS_MAX. Older ones are forgotten. Blocks.

    Raises: OSError.
    """
    folder = _folder(run)
    if not folder.exists():
        return []
    found = []
    for path in sorted(folder.iterdir()):
        age_s = time.time() - path.stat().st_mtime
        if age_s > LATELY_S:
            path.unlink(missing_ok=True)
        elif not path.name.startswith("."):  # a temporary file, or what a kill left of one
            found.append(path.name)
    return found[:HOSTS_MAX]


def _folder(run: Path) -> Path:
    return run / "contested"
