"""The mark that a drill is under way: a lock that its rehearser holds, and that the kernel lets go should it die.

The watchdog marks the incidents of that time, and its budget does not count its kills then.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

from processes.adapters import lock

WAIT_S: Final = 1.0  # whoever looks at the mark holds it for a moment


def hold(run: Path) -> int:
    """A drill is under way until the returned descriptor is closed. Raises: ResourceError, if another one is."""
    return lock.hold(_place(run), WAIT_S)


def is_held(run: Path) -> bool:
    """True while a drill is under way. Cost: about 10 µs."""
    try:
        fd = os.open(_place(run), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _place(run: Path) -> Path:
    return run / "lock" / "drill"
