"""Certificate and key for a process that cannot read them itself: another user's key, or root's for a lesser user.

Before the process gives its rights up, it makes a child that keeps them. The child looks at the two files, writes what
they hold into files without a name, which the process has too, and takes nothing from it: it ends when the process
does. So a renewed certificate is shown without a restart, and no copy of the key is on any disk.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from pathlib import Path
from typing import Final, NoReturn

from processes.adapters import rights, tls
from processes.adapters.settings import Tls

FILE_BYTES_MAX: Final = 1 << 20


def is_needed(files: Tls, user: int) -> bool:
    """Return whether this user, without any capability, could not read both files."""
    names = (files.certificate, files.key)
    return any(name and not rights.readable(Path(name), user, {user}) for name in names)


def keep(files: Tls, look_s: float = tls.LOOK_S) -> Tls:
    """Make the child, and return where certificate and key are from now on. For a process that has one thread.

    Raises: ResourceError, if the files are of no use.
    """
    tls.context_of(files)  # for its error, which names the files
    kept = tuple(os.memfd_create(name) for name in ("certificate", "key"))
    for fd in kept:
        os.fchmod(fd, 0o666)  # by its name in /proc it is opened anew; the folder there lets in its own process only
    alive, _ = os.pipe()  # the other end is never closed: the child hears of it, however this process ends
    seen = _renewed(files, kept, None)
    if os.fork() == 0:
        _follow(files, kept, alive, seen, look_s)
    os.close(alive)
    return Tls(*(f"/proc/self/fd/{fd}" for fd in kept))


def _follow(files: Tls, kept: tuple[int, ...], alive: int, seen: tuple[bytes, ...] | None, look_s: float) -> NoReturn:
    """Renew what is kept until the parent is gone. Nothing else stays open here, least of all the port."""
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # it ends with its parent, and not before
        after = -1
        for fd in sorted((alive, *kept)):
            os.closerange(after + 1, fd)
            after = fd
        os.closerange(after + 1, os.sysconf("SC_OPEN_MAX"))
        poll = select.poll()
        poll.register(alive, 0)
        while not poll.poll(look_s * 1000):
            with contextlib.suppress(OSError):  # a file is being replaced: the next look finds both
                seen = _renewed(files, kept, seen)
    finally:
        os._exit(0)


def _renewed(files: Tls, kept: tuple[int, ...], before: tuple[bytes, ...] | None) -> tuple[bytes, ...]:
    """Return what the files hold, which is kept now. Raises: OSError."""
    found = tuple(_content(Path(name)) for name in (files.certificate, files.key))
    if found != before:
        for fd, content in zip(kept, found, strict=True):
            os.ftruncate(fd, 0)
            os.pwrite(fd, content, 0)  # into memory: whole, or with an error
    return found


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(FILE_BYTES_MAX)
