"""The words for what keeps a database from being written, from what the kernel tells. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

FREE_BYTES_MIN: Final = 1 << 20  # a commit and a checkpoint need more; less than that is a full disk
# SQLite's locks of a writer: WAL_WRITE_LOCK and the two beside it in the -shm file, or any in the database itself
WRITER_FIRST: Final = 120
WRITER_LAST: Final = 122


class DiskRoom(NamedTuple):
    """What is left of a file system. files_free None: it does not count them."""

    bytes_free: int
    files_free: int | None
    read_only: bool


class FileLock(NamedTuple):
    """A lock of /proc/locks. pid: of its holder; 0 or -1 if that is in another container. Bytes from `first` on."""

    pid: int
    device: str  # MAJOR:MINOR in hex
    inode: int
    first: int


def of_room(room: DiskRoom, path: str) -> str:
    """Return why nothing can be written on the disk of this path; empty: there is room."""
    if room.read_only:
        return f"the disk of {path} is read-only"
    if room.bytes_free < FREE_BYTES_MIN:
        return f"the disk of {path} is full ({room.bytes_free >> 10} KiB are free)"
    if room.files_free == 0:
        return f"the disk of {path} can hold no more files (no inode is free)"
    return ""


def of_locks(holders: Iterable[tuple[int, str]], name: str) -> str:
    """Return who holds the database; empty: nobody is known. Shape of `holders`: pid and name of its program."""
    found = [f"process {pid} ({program or 'unknown'})" if pid > 0 else "another container" for pid, program in holders]
    return f"{' and '.join(found)} hold{'s' * (len(found) == 1)} {name}" if found else ""


def write_locks(text: str) -> list[FileLock]:
    """Return the locks for writing that somebody has, from the text of /proc/locks. Who waits for one is left out."""
    found = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 8 or fields[3] != "WRITE":  # of one that waits (->) the word stands further on
            continue
        major, _, rest = fields[5].partition(":")
        minor, _, inode = rest.partition(":")
        if inode.isdigit() and fields[6].isdigit() and fields[4].lstrip("-").isdigit():
            found.append(FileLock(int(fields[4]), f"{major}:{minor}", int(inode), int(fields[6])))
    return found
