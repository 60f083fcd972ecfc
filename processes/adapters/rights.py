"""What a process may do to the machine beyond what its user may: nothing, once it has given that up.

The gateway and the fanout read what strangers send. Started as root they would carry every capability of the kernel
(other users' files, other processes' memory, raw sockets, kernel modules) behind their parsers. They need none of it:
supervisord binds their ports, and a key that they cannot read is read for them (tls_keeper.py).
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Final

from processes.core.errors import ResourceError

EXPOSED: Final = ("gateway", "fanout")  # the kinds of processes that strangers can reach
_PR_CAPBSET_READ: Final = 23  # prctl(2)
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_VERSION_3: Final = 0x20080522  # capset(2): sets of 64 bits, in two halves
_CAPABILITIES_MAX: Final = 64


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Half(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def let_none_in() -> None:
    """Empty the bounding and the ambient set, and let no program that is executed give any capability back. Those that
    this process has it keeps.

    Each thread has sets of its own, and a new one inherits them: so this is called before there is a second thread.
    Another user's process has no capabilities and may not shrink its bounding set; without new privileges that set is
    void. Raises: ResourceError, if the kernel refuses: a process that strangers reach does not go on with them.
    """
    assert threading.active_count() == 1
    libc = ctypes.CDLL(None, use_errno=True)
    _prctl(libc, _PR_SET_NO_NEW_PRIVS, 1)
    _prctl(libc, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    for capability in range(_CAPABILITIES_MAX):
        if libc.prctl(_PR_CAPBSET_READ, capability, 0, 0, 0) != 1:
            continue  # it is not in the set, or this kernel has no such capability
        if libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) and ctypes.get_errno() != errno.EPERM:
            raise _refused("prctl")


def give_up() -> None:
    """Empty this thread's other sets of capabilities too. Raises: ResourceError, if the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, none = _Header(_VERSION_3, 0), (_Half * 2)()
    if libc.capset(ctypes.byref(header), none):
        raise _refused("capset")


def has(capability: int) -> bool:
    """Return whether this process has the capability, by its number in capabilities(7)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    effective = next((line.partition(":")[2] for line in lines if line.startswith("CapEff:")), "0")
    return bool(int(effective, 16) >> capability & 1)


def readable(
    path: Path, user: int | None = None, groups: Collection[int] | None = None, wanted: int = 0o4
) -> bool:  # fmt: skip
    """Return whether a user may read the file by modes alone, without a capability; by default this one. What is not
    there: yes. `wanted`: 1, to pass a folder.

    Cost: one stat for the file and each folder above.
    """
    if user is None or groups is None:
        user, groups = os.geteuid(), {os.getegid(), *os.getgroups()}
    for place in (path.resolve(), *path.resolve().parents):
        try:
            found = place.stat()
        except OSError:
            return True  # whoever opens it says why that fails
        shift = 6 if found.st_uid == user else 3 if found.st_gid in groups else 0
        if not stat.S_IMODE(found.st_mode) >> shift & wanted:
            return False
        wanted = 0o1
    return True


def _prctl(libc: ctypes.CDLL, option: int, argument: int) -> None:
    if libc.prctl(option, argument, 0, 0, 0):
        raise _refused("prctl")


def _refused(call: str) -> ResourceError:
    return ResourceError(f"the rights of this process cannot be given up: {call}: {os.strerror(ctypes.get_errno())}")
