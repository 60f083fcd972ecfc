"""Users of their own for the processes that strangers reach, where the installation was started as root.

Root's user owns the database, the keys and every other process, without any capability too. So gateways and fanouts
become users that own nothing, and have only what they opened or were lent before: their descriptors (log, pulse,
stacks), folders of their own, and what their groups may read.

A gateway has the socket and key of `queues` and the canary's hashes. It stands in run/ and names these from there, so
that the state folder stays closed to it, and so do the folders above. A fanout has the gateways' group too, for the
same things in run/, and a user and group of its own, which no gateway has: by these it passes the state folder, reads
the databases and what else it shows or judges sign-ins by, and keeps sessions and histories. SQLite opens files by
their whole path, so the folders above must let it pass.

The users have numbers (ownership.LESSER) and no names: nothing has to be set up. Each state folder has its own two.
root goes on owning all files in its folders: no name that root writes to is in a folder that a lesser user may change,
but those of `lend`, in which root reads, removes, makes files that were not there, and follows no link.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import grp
import os
import pwd
import stat
import sys
import time
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

import processes
from processes.adapters import ownership, rights
from processes.adapters.ownership import LESSER
from processes.adapters.settings import Alarms, Settings
from processes.core.errors import ResourceError

ALONE_S_MAX: Final = 5.0  # for another process that lends; guess: thousands of files take less than a second
KINDS: Final = ("gateway", "fanout")  # the kinds of processes that have one
LENT: Final = {  # the folders in the state folder that are such a process's own
    "gateway": ("run/contested", "run/impersonated"),
    "fanout": ("history", "run/codes", "run/guessed", "run/sessions", "run/signed_out"),
}
# what a fanout reads; of a folder all that is in it. All gateways and fanouts use the socket and read key and canary
_READ: Final = (
    "operator.token", "revoked", "fleet.db", "fleet.db-wal", "fleet.db-shm", "incidents.db", "incidents.db-wal",
    "incidents.db-shm", "incidents", "run/watchdog.json", "run/wanted.json", "run/cookie.key", "run/pulse",
    "run/gave_up", "run/signed_out_until",
)  # fmt: skip
# what root must be able to do to it still: become it, give it files, end it, read its stacks
_NEEDED: Final = {"CAP_CHOWN": 0, "CAP_KILL": 5, "CAP_SETGID": 6, "CAP_SETUID": 7, "CAP_SYS_PTRACE": 19}
_PR_SET_DUMPABLE: Final = 4  # prctl(2)


def of(state: Path, kind: str) -> int:
    """Return the number of the user and group of this kind of process in this installation.

    Raises: ResourceError, if somebody has each of the numbers.
    """
    first = zlib.crc32(os.fsencode(state)) % len(LESSER)
    shared = _free(first)
    return shared if kind == "gateway" else _free(first + len(LESSER) // 2, shared)


def kind_of(user: int, run: Path) -> str | None:
    """Return whose user this is, by whom the folders are open to; None: no lesser user's. Raises: OSError."""
    for kind in KINDS:
        if user == ownership.group_let_into(_entered(run, kind)):
            return kind
    return None


def let_in(run: Path, kind: str) -> int | None:
    """Return the user of this kind of process, by whom its folder is open to; None: it has none. Raises: OSError."""
    return ownership.group_let_into(_entered(run, kind))


def hindrances(settings: Settings, kind: str) -> list[str]:
    """Return why root cannot make a process of this kind another user here; empty if it can.

    Cost: a few dozen stats.
    """
    found = []
    lacking = [name for name, number in _NEEDED.items() if not rights.has(number)]
    if lacking:
        found.append(f"this root has no {', '.join(lacking)}")
    try:
        number = of(settings.state, kind)
    except ResourceError as error:
        return [*found, str(error)]
    if not _is_mapped(number):
        found.append(f"user {number} does not exist in this container")
    if (place := unreadable(number, {number})) is not None:
        found.append(f"a user who is not root cannot read {place}")
    # what a link names, and all above the link itself: SQLite opens by the whole path
    for above in (*settings.state.absolute().parents, settings.state.resolve().parent) if kind == "fanout" else ():
        if not rights.readable(above, number, {number}, 0o1):
            found.append(f"a user who is not root cannot pass {above} to the databases")
            break
    return found


def unreadable(user: int, groups: Collection[int]) -> Path | None:
    """Return a place of fleethub's own program that the user cannot read; None: it can read all of it."""
    return next((place for place in _programs() if not rights.readable(place, user, groups)), None)


def is_wanted(settings: Settings, kind: str) -> bool:
    """Return whether a process of this kind is to become a user of its own: only root can."""
    if os.geteuid() != 0 or kind not in KINDS:
        return False
    return settings.file.gateway.own_user if kind == "gateway" else settings.file.fanout.own_user


def show(settings: Settings, kind: str) -> None:
    """Let a process of this kind read what is root's and it needs; what is not there yet is shown by its writer.

    Raises: OSError.
    """
    state, run = settings.state, settings.state / "run"
    shared = of(state, "gateway")
    run.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chown(run, -1, shared)
    run.chmod(0o710)
    for path in (settings.queues_socket, settings.queues_socket.with_suffix(".key"), settings.canary):
        ownership.let_read(path, shared)
    if kind == "fanout":
        own = of(state, kind)
        _open_state(state, own)
        for folder in (settings.pulses, run / "gave_up"):
            folder.mkdir(mode=0o700, exist_ok=True)
        for name in _READ:
            _show_all(state / name, own)


def prepare(settings: Settings, kind: str) -> Settings:
    """Lend the user of this kind of process what it needs, and return the settings as they are seen by it; a gateway
    goes to run/ for that.

    Alarms' targets, which have passwords, are not among them. Raises: OSError, ResourceError.
    """
    number = of(settings.state, kind)
    with _alone(settings.run):
        show(settings, kind)
        for name in LENT[kind]:
            lend(settings.state / name, number)
    file = msgspec.structs.replace(settings.file, alarms=Alarms())
    if kind == "fanout":
        return msgspec.structs.replace(settings, file=file)
    tls = file.tls
    absolute = msgspec.structs.replace(
        tls, certificate=tls.certificate and os.path.abspath(tls.certificate), key=tls.key and os.path.abspath(tls.key)
    )
    os.chdir(settings.run)
    return msgspec.structs.replace(settings, file=msgspec.structs.replace(file, tls=absolute), run_folder=Path())


def lend(folder: Path, user: int) -> None:
    """Make the folder this user's, with the files that were its owner's, or are the user's since somebody died at this.
    What else is in it goes: it may be a link that root would make the user's by its name. Raises: OSError.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    before = folder.lstat().st_uid
    if before != user:
        os.chown(folder, 0, 0, follow_symlinks=False)  # nobody changes it meanwhile
        folder.chmod(0o700)
        for entry in folder.iterdir():
            if not _hand_over(entry, {before, user}, user):
                with contextlib.suppress(IsADirectoryError, FileNotFoundError):
                    entry.unlink()
        os.chown(folder, user, user, follow_symlinks=False)


@contextlib.contextmanager
def _alone(run: Path) -> Iterator[None]:
    """Wait until no other process lends: two fanouts may start at once. Raises: OSError, also after ALONE_S_MAX."""
    run.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(run, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    until_s = time.monotonic() + ALONE_S_MAX
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until_s:
                    raise
                time.sleep(0.01)
        yield
    finally:
        os.close(fd)


def take_back(settings: Settings, kind: str) -> None:
    """Make the folders root's again that a process of this kind had: without capabilities it could not write there.
    Never raises: then only an alarm is missing, or a list.
    """
    for name in LENT.get(kind, ()) if os.geteuid() == 0 else ():
        try:
            if _lives(of(settings.state, kind)):
                return  # one that could become that user: they are its own
            if (settings.state / name).exists():
                lend(settings.state / name, 0)
        except (OSError, ResourceError):
            continue


def _lives(user: int) -> bool:
    """Return whether a process of this user runs."""
    for place in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if place.name.isdigit() and place.stat().st_uid == user:
                return True
    return False


def groups(settings: Settings, kind: str) -> list[int]:
    """Return the groups that a user of this kind has besides its own."""
    return [of(settings.state, "gateway")] if kind == "fanout" else []


def become(number: int, groups: Sequence[int] = ()) -> None:
    """Be this user from now on, in all threads, with no other group but these. The kernel takes the capabilities with
    it. Raises: OSError.
    """
    os.setgroups(groups)
    os.setresgid(number, number, number)
    os.setresuid(number, number, number)
    rights.give_up()
    # what is its own in /proc is closed to a process that was root; the watchdog, which is root, reads it all the same
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)


def close(folder: Path) -> None:
    """Close the folder to everybody else, but for a lesser user that it is open to. Raises: OSError."""
    folder.chmod(0o700 if ownership.group_let_into(folder) is None else 0o710)


def _free(first: int, taken: int = 0) -> int:
    for place in range(first, first + len(LESSER)):
        number = LESSER[place % len(LESSER)]
        if number != taken and not _is_named(number):
            return number
    raise ResourceError(f"each of the users {LESSER[0]} to {LESSER[-1]} has a name: they belong to somebody")


def _entered(run: Path, kind: str) -> Path:
    return run if kind == "gateway" else run.parent


def _open_state(folder: Path, group: int) -> None:
    """Let the group pass the folder. What others could read in it, and could not reach, stays closed to the group."""
    mode = stat.S_IMODE(folder.stat().st_mode)
    if ownership.group_let_into(folder) != group:
        for entry in folder.iterdir() if not mode & 0o001 else ():
            with contextlib.suppress(FileNotFoundError):
                if not entry.is_symlink() and (found := stat.S_IMODE(entry.stat().st_mode)) & 0o007:
                    entry.chmod(found & ~0o007)
        os.chown(folder, -1, group)
        folder.chmod(mode & ~0o070 | 0o010)


def _show_all(path: Path, group: int) -> None:
    """Let the group read the file, or all files in the folder; one that was shown is looked through no more."""
    if not path.is_dir():
        ownership.let_read(path, group)
        return
    was_shown = ownership.group_let_into(path) == group
    ownership.let_read(path, group)
    for entry in path.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if not (was_shown and entry.is_dir() and ownership.group_let_into(entry) == group):
                _show_all(entry, group)


def _hand_over(path: Path, owners: set[int], user: int) -> bool:
    """Make the file this user's; return whether it was a file of one of the owners, with no other name."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1 or found.st_uid not in owners:
            return False
        os.fchown(fd, user, user)
        return True
    finally:
        os.close(fd)


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
