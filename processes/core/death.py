"""One death of a process with an event in hand. Pure."""

from __future__ import annotations

import msgspec


class Death(msgspec.Struct, frozen=True, omit_defaults=True):
    """A death by the process's own fault, with `name` in hand; boot, pid and start ticks say which process, for ever.

    Units: boot_s of CLOCK_BOOTTIME of the boot named in `boot`, wall_s since 1970; both of when its successor looked at it.
    """

    name: str
    cause: str  # a value of poison.Cause
    boot: str
    boot_s: float
    wall_s: float
    pid: int
    start_ticks: int
    incident: str = ""
    stacks: str = ""
