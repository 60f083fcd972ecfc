"""Writes files so that each is whole: it has the old content or the new, never anything between.

All files of the state folder are written through here, but those of databases and libraries. Each function promises:

- After it returned, the content is there; with `durable` it is there after a power failure too.
- When it raises OSError (a full disk, a quota, a folder that is gone), the file is as it was before, and no temporary
  file is left behind. Only a folder that cannot be synced at the very end leaves the new content in place.
- When the process is killed in between, the file has the old content or the new. A temporary file may stay, under a
  name that nobody else uses or reads; `sweep` removes it.

Several processes may replace one path at the same time: the last rename wins, and each content is whole. (One write may
take less than it was given without an error; only the next one fails because the disk is full.)
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from processes.adapters import ownership
from processes.adapters.held_file import open_held

TEMPORARY: Final = ".new"  # how the name of every temporary file ends; it begins with a dot
STALE_S: Final = 60.0  # an older temporary file is left over from a kill. Guess: far longer than any write takes

_held: dict[Path, int] = {}

_FRESH: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def hold(path: Path) -> None:
    """Open the file, made if it is missing, for all that this process writes to it: it is about to lose the right to
    make files in its folder. Such a file is rewritten in place, so it is not whole for a moment. Raises: OSError.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _held[path] = open_held(path)


def replace(
    path: Path, content: bytes, *, mode: int = 0o600, durable: bool = True, group: int | None = None
) -> None:  # fmt: skip
    """Replace the file by one with `content`, in one step. A link in its place is replaced, not followed.

    `group`: who may read it too. Raises: OSError.
    """
    if path in _held:
        _rewrite(_held[path], content, durable=durable)
        return
    fresh = _written(path, content, mode, durable=durable, group=group)
    try:
        os.replace(fresh, path)
    except BaseException:
        _remove(fresh)
        raise
    if durable:
        sync_folder(path.parent)


def remove(path: Path) -> None:
    """Remove the file, if it is there; one that is held is emptied. Raises: OSError."""
    if path in _held:
        _rewrite(_held[path], b"", durable=False)
        return
    path.unlink(missing_ok=True)


def read_theirs(path: Path, bytes_max: int) -> bytes:
    """Return the beginning of a file in a folder of a user who is trusted less than this one.

    Neither is a link followed, nor a pipe waited for, nor a file read that has a name elsewhere too.
    Raises: FileNotFoundError, if it is not there or is no such file; OSError.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):  # a link; a socket
            raise
        raise FileNotFoundError(errno.ENOENT, f"{path} is a link or no file") from None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            raise FileNotFoundError(errno.ENOENT, f"{path} is no file of its own")
        return os.read(fd, bytes_max)
    finally:
        os.close(fd)


def create(path: Path, content: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Make the file with this content; of several processes that try at the same time one succeeds.

    Raises: FileExistsError, if it is there already; OSError.
    """
    fresh = _written(path, content, mode, durable=durable)
    try:
        os.link(fresh, path)
    finally:
        _remove(fresh)
    if durable:
        sync_folder(path.parent)


def append_lines(path: Path, lines: Iterable[str], *, mode: int = 0o600, group: int | None = None) -> None:
    """Add the lines at the file's end, durably; make the file if there is none. For one writer at a time. `group`: who
    may read it too.

    A piece that a kill left without its newline becomes a line of its own, so that no new line is joined to it.
    Raises: OSError, and then none of the lines is there.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        if group is not None:
            ownership.let_read(fd, group)
        size = os.fstat(fd).st_size
        torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
        content = "\n" * torn + "".join(f"{line}\n" for line in lines)
        try:
            write_all(fd, content.encode())
            os.fsync(fd)
            if size == 0:
                sync_folder(path.parent)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(fd, size)
            raise
    finally:
        with contextlib.suppress(OSError):  # the lines are synced or removed by now: an error of close tells nothing
            os.close(fd)


def write_all(fd: int, content: bytes) -> None:
    """Write all of it, however little the kernel takes at a time. Raises: OSError, and then a part may be written."""
    rest = memoryview(content)
    while rest:
        count = os.write(fd, rest)
        if count == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rest = rest[count:]


def sync_file(path: Path) -> None:
    """Make the file's content durable. Raises: OSError."""
    _sync(path, os.O_RDONLY | os.O_CLOEXEC)


def sync_folder(path: Path) -> None:
    """Make the folder's names durable. Raises: OSError."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def sweep(folder: Path) -> None:
    """Remove temporary files that killed processes left in the folder. Never raises: they only take room."""
    with contextlib.suppress(OSError):
        for path in folder.glob(f".*{TEMPORARY}"):
            if time.time() - path.lstat().st_mtime > STALE_S:
                path.unlink(missing_ok=True)


def _rewrite(fd: int, content: bytes, *, durable: bool) -> None:
    os.ftruncate(fd, 0)
    write_all(fd, content)  # it is open for appending
    if durable:
        os.fsync(fd)


def _written(path: Path, content: bytes, mode: int, *, durable: bool, group: int | None = None) -> Path:
    """Return a temporary file beside `path` that holds the content. It gets its mode before it gets any content."""
    fresh = path.with_name(f".{path.name}.{os.urandom(8).hex()}{TEMPORARY}")
    fd = os.open(fresh, _FRESH, mode)
    try:
        try:
            os.fchmod(fd, mode)  # without the umask
            if group is not None:
                ownership.let_read(fd, group, mode & 0o070)
            write_all(fd, content)
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
    except BaseException:
        _remove(fresh)
        raise
    return fresh


def _remove(fresh: Path) -> None:
    with contextlib.suppress(OSError):
        os.unlink(fresh)


def _sync(path: Path, flags: int) -> None:
    fd = os.open(path, flags)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
