"""Hosts that two agents claim to be: run/contested, an empty file for each host. Gateways write, the watchdog alarms.

The file's time of change is when the host was last contested.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import time
from pathlib import Path
from typing import Final

from processes.adapters.state import durable

LATELY_S: Final = 300.0  # a contest goes on as long as both agents do: each is let in again after 30 s
HOSTS_MAX: Final = 50  # in one listing
LOOKED_AT_MAX: Final = 10_000  # files in one look: as many as a fleet has hosts

_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,255}")


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
    return [path.name for path in lately_changed(_folder(run), LATELY_S)][:HOSTS_MAX]


def lately_changed(folder: Path, lately_s: float) -> list[Path]:
    """Return the files that were changed within `lately_s`, and remove the others. Blocks.

    The folder may belong to a user who is trusted less than this one (adapters/own_user.py): no link is followed, and
    what no name of a host or process can be is removed, as is what is too much. Raises: OSError.
    """
    if not folder.exists():
        return []
    found, now_s = [], time.time()
    for path in sorted(itertools.islice(folder.iterdir(), LOOKED_AT_MAX)):
        try:
            if now_s - path.lstat().st_mtime > lately_s or not _NAME.fullmatch(path.name):
                path.unlink(missing_ok=True)
            elif not path.name.startswith("."):  # no temporary file, nor one that a kill left behind
                found.append(path)
        except (FileNotFoundError, IsADirectoryError):
            continue
    return found


def _folder(run: Path) -> Path:
    return run / "contested"
