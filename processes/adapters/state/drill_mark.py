"""The mark that a drill is under way: a lock that the drill holds, and that the kernel releases if the drill dies.

The watchdog marks the incidents of that time, and its restart budget does not count its kills then.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from processes.adapters.state import lock

WAIT_S: Final = 1.0  # a process that looks at the mark holds it for a moment


def hold(run: Path) -> int:
    """Mark a drill as under way until the returned descriptor is closed. Raises: ResourceError, if another drill is."""
    return lock.hold(_place(run), WAIT_S)


def is_held(run: Path) -> bool:
    """Return whether a drill is under way. An unreadable mark counts as none: the watchdog must not end for it."""
    try:
        return lock.is_held(_place(run))
    except OSError:
        return False


def _place(run: Path) -> Path:
    return lock.place(run, "drill")
