"""The mark that a drill is under way: a lock that its rehearser holds, and that the kernel lets go should it die.

The watchdog marks the incidents of that time, and its budget does not count its kills then.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from processes.adapters.state import lock

WAIT_S: Final = 1.0  # whoever looks at the mark holds it for a moment


def hold(run: Path) -> int:
    """A drill is under way until the returned descriptor is closed. Raises: ResourceError, if another one is."""
    return lock.hold(_place(run), WAIT_S)


def is_held(run: Path) -> bool:
    """True while a drill is under way. A mark that cannot be read is none: the watchdog must not end for it."""
    try:
        return lock.is_held(_place(run))
    except OSError:
        return False


def _place(run: Path) -> Path:
    return lock.place(run, "drill")
