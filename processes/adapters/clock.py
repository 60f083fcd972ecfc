"""The clocks."""

from __future__ import annotations

import time
from pathlib import Path

from processes.core.values import Now


def now() -> Now:
    """Read both clocks together: CLOCK_BOOTTIME for deadlines, wall time for people."""
    return Now(time.clock_gettime(time.CLOCK_BOOTTIME), time.time())


def boot_id() -> str:
    """Return the kernel's random id of this boot: CLOCK_BOOTTIME can be compared only within one boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class Clock:
    """The clocks of this machine, as a loop gets them by its constructor (a simulation gives it others)."""

    def now(self) -> Now:
        """Return CLOCK_BOOTTIME and wall time, read together."""
        return now()

    def mono_s(self) -> float:
        """Return seconds of CLOCK_MONOTONIC."""
        return time.monotonic()

    def mono_ns(self) -> int:
        """Return nanoseconds of CLOCK_MONOTONIC."""
        return time.monotonic_ns()
