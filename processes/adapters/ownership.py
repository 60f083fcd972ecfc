"""Whose the state folder and its secrets are, and who else can get at them.

Whoever can write into the state folder can put in a token of his own or a program to run; whoever can read a secret can
use it. So neither is accepted, and what to type against it is said. A file counts by its own mode and by that of its
folder: one that others could read by its mode is closed to them in a folder of mode 0700.

Root lends some of it to its lesser users (adapters/own_user.py), by their groups: a folder that they may enter has mode
0710, a file that they may read 0640. Nobody else has such a group.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from processes.core.errors import ResourceError

READABLE: Final = 0o044
CHANGEABLE: Final = 0o022
PRIVATE: Final = 0o077
TLS_KEY: Final = 0o027  # a group may read it: Debian's ssl-cert, for instance
# numbers of users and groups that nobody else has: neither systemd nor any distribution gives them to anybody. Source:
# systemd, "Users, Groups, UIDs and GIDs on systemd Systems"
LESSER: Final = range(60706, 61184)


class Fault(NamedTuple):
    """What is wrong with a file or folder, and the command that mends it."""

    path: Path
    what: str
    mend: str

    def __str__(self) -> str:
        return f"{self.what}: {self.mend}"


class NotPrivate(ResourceError):
    """A secret that others can get at; the text says how, and what mends it."""


def owners() -> frozenset[int]:
    """Return whose files we trust: our own, and those of root, who may do anything anyway."""
    return frozenset({0, os.geteuid()})


def fault(path: Path, found: os.stat_result, forbidden: int, trusted: Collection[int]) -> Fault | None:
    """Return what is wrong with the owner or the mode; None: nothing. `forbidden`: bits that the mode may not have."""
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid == 0 and found.st_gid in LESSER:
        forbidden &= ~0o040  # root has lent it
    if found.st_uid not in trusted:
        return Fault(path, f"{path} belongs to user {found.st_uid}", f"chown {os.geteuid()} {shlex.quote(str(path))}")
    if not mode & forbidden:
        return None
    changeable = bool(mode & forbidden & CHANGEABLE)
    groups_only = not mode & forbidden & 0o007
    who = "its group" if groups_only else "others"
    mend = f"chmod {'g' if groups_only else 'go'}-{'rwx' if forbidden & READABLE else 'w'} {shlex.quote(str(path))}"
    return Fault(path, f"{path} can be {'changed' if changeable else 'read'} by {who} (mode {mode:04o})", mend)


def file_fault(path: Path, forbidden: int, trusted: Collection[int], *, behind_folder: bool = False) -> Fault | None:
    """Return what is wrong with a file; None: nothing, or it is not there. Links are followed.

    `behind_folder`: what its folder keeps others from does not count. Raises: OSError.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    if behind_folder:
        folder = path.parent.stat()
        # whom root lent the folder is another than the group of a file in it that was not lent
        entering = 0o070 if folder.st_gid == found.st_gid or folder.st_gid not in LESSER else 0o007
        forbidden &= (entering if folder.st_mode & 0o010 else 0) | (0o007 if folder.st_mode & 0o001 else 0)
    return fault(path, found, forbidden, trusted)


def group_let_into(folder: Path) -> int | None:
    """Return the group of the lesser user that this folder of root's is open to; None if it is open to none.

    Raises: OSError.
    """
    found = folder.stat()
    lent = found.st_uid == 0 and found.st_gid in LESSER and stat.S_IMODE(found.st_mode) & 0o072 == 0o010
    return found.st_gid if lent else None


def let_read(place: Path | int, group: int, more: int = 0) -> None:
    """Let the group read the file, or pass the folder; nothing, if it is not there, or if this process may not give it
    away: root without capabilities may not. `place`: a path or a descriptor; `more`: bits that its mode has besides.
    Raises: OSError.
    """
    with contextlib.suppress(PermissionError, FileNotFoundError):
        found = os.stat(place)
        kept = stat.S_IMODE(found.st_mode) & 0o700
        given = 0o010 if stat.S_ISDIR(found.st_mode) else 0o060 if stat.S_ISSOCK(found.st_mode) else 0o040
        os.chown(place, -1, group)
        os.chmod(place, kept | given | more)


def read_private(path: Path, bytes_max: int, *, forbidden: int = PRIVATE) -> bytes:
    """Return the content of a file that is only ours. `forbidden`: bits that its mode may not have.

    Raises: NotPrivate, if it is not; OSError.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe in its place is not waited for
    try:
        found = os.fstat(fd)
        wrong = fault(path, found, forbidden, owners())
        if wrong is not None or not stat.S_ISREG(found.st_mode):
            raise NotPrivate(str(wrong or f"{path} is no regular file"))
        return os.read(fd, bytes_max)
    finally:
        os.close(fd)


def faults_above(folder: Path) -> Iterator[Fault]:
    """What is wrong with the folders above: who can rename the folder can put another one in its place."""
    for above in folder.resolve().parents:
        found = above.stat()
        if not found.st_mode & stat.S_ISVTX and (wrong := fault(above, found, CHANGEABLE, owners())) is not None:
            yield wrong
