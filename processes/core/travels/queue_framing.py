"""Messages on a stream of bytes, as multiprocessing.connection frames them: four bytes with the length, then so many.
Pure.

Source: `_send_bytes` and `_recv_bytes` of multiprocessing.connection.Connection. There a length of -1 announces a
longer length; no message of ours is so long.
"""

from __future__ import annotations

from typing import Final

from processes.core.errors import RemoteError
from processes.core.travels.queue_calls import MESSAGE_BYTES_MAX

PREFIX_BYTES: Final = 4


class IncomingStream:
    """The bytes that have come of one connection, until they are whole messages.

    Invariant: fewer bytes are kept than the longest message may have, besides those of the last `feed`.
    """

    def __init__(self, message_bytes_max: int = MESSAGE_BYTES_MAX) -> None:
        self._kept = bytearray()
        self._bytes_max = message_bytes_max

    def __len__(self) -> int:
        """Return how many bytes of a message that is not whole yet are kept."""
        return len(self._kept)

    def feed(self, data: bytes) -> list[bytes]:
        """Return the messages that are whole with these bytes, in order. Raises: RemoteError, for one that is too long.

        Cost: linear in the bytes, however they are cut.
        """
        kept = self._kept
        if not kept and len(data) >= PREFIX_BYTES and len(data) == PREFIX_BYTES + int.from_bytes(data[:PREFIX_BYTES]):
            self._check(len(data) - PREFIX_BYTES)
            return [data[PREFIX_BYTES:]]  # one message came in one piece, as nearly all do
        kept += data
        found: list[bytes] = []
        at = 0
        while len(kept) - at >= PREFIX_BYTES:
            start = at + PREFIX_BYTES
            size = int.from_bytes(kept[at:start])
            self._check(size)
            if len(kept) - start < size:
                break
            at = start + size
            found.append(bytes(kept[start:at]))
        del kept[:at]
        return found

    def _check(self, size: int) -> None:
        if size > self._bytes_max:
            raise RemoteError("too_big", f"a message of {size} bytes, at most {self._bytes_max}")


def framed(message: bytes) -> bytes:
    """Return the message with its length before it."""
    return len(message).to_bytes(PREFIX_BYTES) + message
