"""The time by which the past is forgotten: the wall clock, once what it says has lasted. Pure.

A wall clock that is wrong for a minute, a year ahead, would else make everything look old, and what is pruned is gone.
So one reading is never believed. Time passes as fast as CLOCK_BOOTTIME says. A wall clock that is ahead of that is
doubted until it has been steadily ahead for LASTING_S of a running machine. One that is behind is believed at once, for
then less is forgotten. The price: after a long time without power, and in the first day of an installation, nothing is
forgotten for a day.
"""

from __future__ import annotations

from typing import Final

import msgspec

from processes.core.values import Now

LASTING_S: Final = 86400.0  # guess: whoever sets a clock wrong, or serves a wrong time, has noticed by then
SMALL_S: Final = 60.0  # a step of the wall clock that nobody need doubt, from one look to the next


class LastingTime(msgspec.Struct, frozen=True):
    """The time that is believed, and what its next reading needs.

    Units: `boot_s` in seconds of CLOCK_BOOTTIME in the boot `boot_id`; *_wall_s in seconds since 1970. doubted_s: how
    long the wall clock has been steadily ahead of what is believed. Invariant: believed_wall_s <= seen_wall_s.
    """

    boot_id: str
    boot_s: float
    seen_wall_s: float
    believed_wall_s: float = 0.0
    doubted_s: float = 0.0


def after(before: LastingTime | None, boot_id: str, now: Now) -> LastingTime:
    """Return what is believed at this reading of both clocks. `before`: at the last one; None: there was none."""
    if before is None:
        return LastingTime(boot_id, now.boot_s, now.wall_s, min(0.0, now.wall_s))
    same_boot = before.boot_id == boot_id
    passed_s = max(0.0, now.boot_s - before.boot_s) if same_boot else 0.0
    believed_wall_s, doubted_s = before.believed_wall_s + passed_s, 0.0
    if now.wall_s - believed_wall_s <= SMALL_S:
        believed_wall_s = now.wall_s
    else:
        moved_s = now.wall_s - before.seen_wall_s  # over a reboot nobody can say more than that it did not go back
        steady = abs(moved_s - passed_s) <= SMALL_S if same_boot else moved_s >= 0
        doubted_s = before.doubted_s + passed_s if steady else 0.0
        if doubted_s >= LASTING_S:
            believed_wall_s, doubted_s = now.wall_s, 0.0
    return LastingTime(boot_id, now.boot_s, now.wall_s, believed_wall_s, doubted_s)
