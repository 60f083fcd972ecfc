"""A user of its own for a process that strangers reach, where the installation was started as root.

Root's user owns the database, the keys and every other process, without any capability too. So the gateway becomes a
user that owns nothing, and has only what it opened or was lent before: its descriptors (log, pulse, stacks), its own
folders in run/, and by its group the socket and key of `queues` and the canary's file. It stands in run/ and names
these from there, so that the state folder stays closed to it, and so do the folders above.

The user has a number and no name: nothing has to be set up. The numbers are those that neither systemd nor any
distribution gives to anybody (Source: systemd, "Users, Groups, UIDs and GIDs on systemd Systems"), and each state
folder has one of its own. root goes on owning all files in its folders: no name that root writes to is in a folder
that a lesser user may change, but those of `lend`, in which root only reads and removes, and follows no link.
"""

from __future__ import annotations

import contextlib
import ctypes
import grp
import os
import pwd
import stat
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

import processes
from processes.adapters import rights
from processes.adapters.settings import Alarms, Settings
from processes.core.errors import ResourceError

KINDS: Final = ("gateway",)  # the kinds of processes that have one
LENT: Final = {"gateway": ("contested", "impersonated")}  # the folders in run/ that are such a process's own
NUMBERS: Final = range(60706, 61184)  # of users and groups that nobody else has
# what root must be able to do to it still: become it, give it files, end it, read its stacks
_NEEDED: Final = {"CAP_CHOWN": 0, "CAP_KILL": 5, "CAP_SETGID": 6, "CAP_SETUID": 7, "CAP_SYS_PTRACE": 19}
_PR_SET_DUMPABLE: Final = 4  # prctl(2)


def of(state: Path) -> int:
    """Return the number of the gateways' user and group in this installation.

    Raises: ResourceError, if somebody has each of the numbers.
    """
    first = zlib.crc32(os.fsencode(state)) % len(NUMBERS)
    numbers: list[int] = [*NUMBERS[first:], *NUMBERS[:first]]
    for number in numbers:
        if not _is_named(number):
            return number
    raise ResourceError(f"each of the users {NUMBERS[0]} to {NUMBERS[-1]} has a name: they belong to somebody")


def hindrances(settings: Settings) -> list[str]:
    """Return why root cannot make a process another user here; empty if it can.

    Cost: a few dozen stats.
    """
    found = []
    lacking = [name for name, number in _NEEDED.items() if not rights.has(number)]
    if lacking:
        found.append(f"this root has no {', '.join(lacking)}")
    try:
        number = of(settings.state)
    except ResourceError as error:
        return [*found, str(error)]
    if not _is_mapped(number):
        found.append(f"user {number} does not exist in this container")
    for place in _programs():
        if not rights.readable(place, number, {number}):
            found.append(f"a user who is not root cannot read {place}")
            break
    return found


def is_wanted(settings: Settings, kind: str) -> bool:
    """Return whether a process of this kind is to become a user of its own: only root can."""
    return os.geteuid() == 0 and kind in KINDS and settings.file.gateway.own_user


def prepare(settings: Settings, kind: str, number: int) -> Settings:
    """Lend the user what it needs, go to run/, and return the settings as they are seen from there.

    Alarms' targets, which have passwords, are not among them. Raises: OSError.
    """
    run, tls = settings.run, settings.file.tls
    run.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chown(run, -1, number)
    run.chmod(0o710)
    for name in (settings.queues_socket.name, f"{settings.queues_socket.stem}.key", settings.canary.name):
        _share(run / name, number)
    for name in LENT[kind]:
        lend(run / name, number)
    os.chdir(run)
    absolute = msgspec.structs.replace(
        tls, certificate=tls.certificate and os.path.abspath(tls.certificate), key=tls.key and os.path.abspath(tls.key)
    )
    file = msgspec.structs.replace(settings.file, tls=absolute, alarms=Alarms())
    return msgspec.structs.replace(settings, file=file, run_folder=Path())


def lend(folder: Path, user: int) -> None:
    """Make the folder this user's. What another user left in it goes first: it may be a link that root made the user's
    by its name. Raises: OSError.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.lstat().st_uid != user:
        for entry in folder.iterdir():
            with contextlib.suppress(IsADirectoryError, FileNotFoundError):
                entry.unlink()
        os.chown(folder, user, user, follow_symlinks=False)


def take_back(settings: Settings, kind: str) -> None:
    """Make the folders root's again that a process of this kind had: without capabilities it could not write there.
    Never raises: then only an alarm is missing.
    """
    for name in LENT.get(kind, ()) if os.geteuid() == 0 else ():
        try:
            if (settings.run / name).exists():
                lend(settings.run / name, 0)
        except OSError:
            continue


def become(number: int) -> None:
    """Be this user from now on, in all threads, without any other group. The kernel takes the capabilities with it.

    Raises: OSError.
    """
    os.setgroups([])
    os.setresgid(number, number, number)
    os.setresuid(number, number, number)
    rights.give_up()
    # what is its own in /proc is closed to a process that was root; the watchdog, which is root, reads it all the same
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)


def group_let_into(folder: Path) -> int | None:
    """Return the group of the lesser user that this folder of root's is open to; None if it is closed to all others.

    Raises: OSError.
    """
    found = folder.stat()
    lent = found.st_uid == 0 and found.st_gid in NUMBERS and stat.S_IMODE(found.st_mode) & 0o077 == 0o010
    return found.st_gid if lent else None


def close(folder: Path) -> None:
    """Close the folder to everybody else, but for a lesser user that it is open to. Raises: OSError."""
    folder.chmod(0o700 if group_let_into(folder) is None else 0o710)


def _share(path: Path, group: int) -> None:
    """Let the group use the file, which is in a folder of root's; one that is not there yet is shared by its writer."""
    try:
        os.chown(path, -1, group, follow_symlinks=False)
        path.chmod(0o660 if stat.S_ISSOCK(path.stat().st_mode) else 0o640)
    except FileNotFoundError:
        return


def _programs() -> Iterator[Path]:
    """Places of the program and of what it runs on: whoever reads these reads all of them."""
    yield from (Path(processes.__file__), Path(msgspec.__file__), Path(os.__file__), Path(sys.executable))


def _is_named(number: int) -> bool:
    for known in (pwd.getpwuid, grp.getgrgid):
        try:
            known(number)
        except KeyError:
            continue
        return True
    return False


def _is_mapped(number: int) -> bool:
    """Return whether the user exists in this user namespace. Source: user_namespaces(7)."""
    for name in ("uid_map", "gid_map"):
        try:
            lines = [line.split() for line in Path(f"/proc/self/{name}").read_text().splitlines()]
        except OSError:
            continue  # a kernel without user namespaces
        if not any(int(first) <= number < int(first) + int(count) for first, _, count in lines):
            return False
    return True
