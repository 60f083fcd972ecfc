"""A wall clock that a test moves, for whole processes: with this folder on PYTHONPATH, `time.time()` is off by what a
file says.

WALL_CLOCK_FILE names the file; it holds seconds. Only Python's `time.time` is moved (it is the only wall clock that the
processes and supervisord ask); CLOCK_MONOTONIC and CLOCK_BOOTTIME stand as they are, as on a machine whose clock
somebody sets.
"""

from __future__ import annotations

import os
import time

REREAD_S = 0.02

path = os.environ.get("WALL_CLOCK_FILE", "")
if path:
    real = time.time
    known = [0.0, -1.0]  # seconds off, and when the file was last read

    def moved() -> float:
        """The wall clock as the file wants it."""
        now_s = time.monotonic()
        if now_s - known[1] > REREAD_S:
            known[1] = now_s
            try:
                with open(path) as file:
                    known[0] = float(file.read())
            except (OSError, ValueError):
                known[0] = 0.0
        return real() + known[0]

    time.time = moved
