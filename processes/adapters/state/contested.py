"""Hosts that two agents claim to be: run/contested, an empty file for each host. Gateways write, the watchdog alarms.

The file's time of change is when the host was last contested.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Final

from processes.adapters.state import durable

LATELY_S: Final = 300.0  # a contest goes on as long as both agents do: each is let in again after 30 s
HOSTS_MAX: Final = 50  # in one listing


def say(run: Path, host: str) -> None:
    """Note that the host is contested now. Blocks. Never raises: on a full disk only an alarm is missing."""
    with contextlib.suppress(OSError):
        folder = _folder(run)
        folder.mkdir(mode=0o700, exist_ok=True)
        durable.replace(folder / host, b"", durable=False)


def lately(run: Path) -> list[str]:
    """Return the hosts that were contested within LATELY_S, at most HOSTS_MAX. Removes the files of others. Blocks.

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
        elif not path.name.startswith("."):  # no temporary file, nor one that a kill left behind
            found.append(path.name)
    return found[:HOSTS_MAX]


def _folder(run: Path) -> Path:
    return run / "contested"
