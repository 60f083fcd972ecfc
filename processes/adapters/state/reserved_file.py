"""A file that has its room on the disk beforehand: it can be rewritten when the disk is full.

It is rewritten in place, so a reader may meet half of it; the checksum tells, and the reader tries again.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from pathlib import Path
from typing import Final

from processes.adapters import ownership

BYTES: Final = 256 << 10  # of the watchdog's report; 100 processes are about 100 KiB
TRIES: Final = 3  # to read it; a write takes less than a millisecond
_HEAD: Final = struct.Struct("<II")  # length of the content, and its CRC-32


def reserve(path: Path, group: int | None = None) -> int:
    """Return a descriptor of the file, which has its room then. `group`: who may read it too. Raises: OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(fd).st_blocks * 512 < BYTES:
            os.posix_fallocate(fd, 0, BYTES)
        if group is not None:
            ownership.let_read(fd, group)
    except BaseException:
        os.close(fd)
        raise
    return fd


def write(fd: int, content: bytes) -> None:
    """Replace the content. Raises: OSError, also if it is larger than the room."""
    whole = _HEAD.pack(len(content), zlib.crc32(content)) + content
    if len(whole) > BYTES:
        raise OSError(errno.EFBIG, f"{len(whole)} bytes do not fit into the {BYTES} that are reserved")
    if os.pwrite(fd, whole, 0) != len(whole):
        raise OSError(errno.ENOSPC, "only a part was written")


def read(path: Path) -> bytes | None:
    """Return the content; None: there is none that is whole. Never raises."""
    for _ in range(TRIES):
        try:
            whole = path.read_bytes()
            length, checksum = _HEAD.unpack_from(whole)
        except (OSError, struct.error):
            return None
        content = whole[_HEAD.size : _HEAD.size + length]
        if length and zlib.crc32(content) == checksum:
            return content
    return None
