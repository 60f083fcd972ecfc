"""The clocks."""

from __future__ import annotations

import time
from pathlib import Path

from processes.core.values import Now


def now() -> Now:
    """Both clocks, read together: CLOCK_BOOTTIME for deadlines, wall time for people."""
    return Now(time.clock_gettime(time.CLOCK_BOOTTIME), time.time())


def boot_id() -> str:
    """The kernel's random id of this boot: CLOCK_BOOTTIME of another boot means nothing here."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
