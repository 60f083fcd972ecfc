"""What keeps the database of a state folder from being written: a full disk, or another program that holds it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from processes.adapters import proc
from processes.core.shown import hindrance
from processes.core.shown.hindrance import WRITER_FIRST, WRITER_LAST, DiskRoom

LOCKS_BYTES_MAX: Final = 1 << 20


def now(database: Path, own: int) -> str:
    """Return it in words; empty: it is not known. `own`: the hub's pid, which holds the database rightly.

    Blocks as long as the disk does, so it is called on a thread. Never raises.
    """
    try:
        found = os.statvfs(database.parent)
    except OSError as error:
        return f"the folder {database.parent} cannot be read: {os.strerror(error.errno or 0)}"
    room = DiskRoom(
        found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None, bool(found.f_flag & os.ST_RDONLY)
    )
    return hindrance.of_room(room, str(database.parent)) or hindrance.of_locks(holders(database, own), database.name)


def holders(database: Path, own: int) -> list[tuple[int, str]]:
    """Return pid and program of each process that has locked the database for writing, but `own`."""
    try:
        with open("/proc/locks", "rb") as file:  # of the kernel, and read whole
            locks = hindrance.write_locks(file.read(LOCKS_BYTES_MAX).decode(errors="replace"))
    except OSError:
        return []
    found: dict[int, str] = {}
    for path, first, last in (
        (database.with_name(database.name + "-shm"), WRITER_FIRST, WRITER_LAST),
        (database, 0, 1 << 62),
    ):
        try:
            stat = os.stat(path)
        except OSError:
            continue
        device = f"{os.major(stat.st_dev):02x}:{os.minor(stat.st_dev):02x}"
        for lock in locks:
            if (lock.device, lock.inode) == (device, stat.st_ino) and first <= lock.first <= last and lock.pid != own:
                found[lock.pid] = proc.text(lock.pid, "comm", 64).strip() if lock.pid > 0 else ""
    return sorted(found.items())
