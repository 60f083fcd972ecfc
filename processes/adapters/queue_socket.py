"""One connection to `queues`, of either end: bytes over multiprocessing.connection, each end proves the key, every wait
has an end.

Never `send` and `recv`: they are pickle, and so code execution for whoever has the key.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from pathlib import Path
from typing import Final

from processes.core.travels.queue_calls import MESSAGE_BYTES_MAX

FULL: Final = b"#FULL#"  # the server's first message instead of a challenge: it has too many connections
FAILURES: Final = (OSError, EOFError, AuthenticationError)  # the ways in which the other end is away
_TIMEVAL: Final = struct.Struct("@ll")  # struct timeval of setsockopt(2)


class Wire:
    """A connected socket as messages. One thread sends and receives; any thread may `shut`."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._connection = Connection(os.dup(sock.fileno()))  # closes its descriptor by itself, so it has its own
        self._poll = select.poll()
        self._poll.register(sock.fileno(), select.POLLIN)

    def send(self, message: bytes) -> None:
        """Sends one message whole. Raises: one of FAILURES."""
        self._connection.send_bytes(message)

    def receive(self) -> bytes:
        """The next message. Raises: one of FAILURES."""
        return self._connection.recv_bytes(MESSAGE_BYTES_MAX)

    def readable(self, wait_s: float | None = 0.0) -> bool:
        """True once something, or the end, can be read; None waits without end."""
        return bool(self._poll.poll(None if wait_s is None else wait_s * 1000))

    def prove_as_server(self, key: bytes) -> None:
        """Asks the other end for the key and answers its asking. Raises: one of FAILURES."""
        deliver_challenge(self._connection, key)
        answer_challenge(self._connection, key)

    def prove_as_client(self, key: bytes) -> None:
        """The other end's part. Raises: one of FAILURES; ConnectionRefusedError, if the server has too many
        connections.
        """
        try:
            answer_challenge(self._connection, key)
        except AssertionError:  # multiprocessing's word for a first message that is no challenge
            raise ConnectionRefusedError("it has too many connections") from None
        deliver_challenge(self._connection, key)

    def limit(self, wait_s: float) -> None:
        """From now on no single read or write waits longer."""
        limit_waits(self._socket, wait_s)

    def shut(self) -> None:
        """Ends the connection under whoever waits in it."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Releases both descriptors. Only by the thread that sends and receives."""
        self._connection.close()
        self._socket.close()


def limit_waits(sock: socket.socket, wait_s: float) -> None:
    """connect, read and write of this socket fail with EAGAIN after `wait_s`: a stopped peer would hold them for
    ever.
    """
    timeval = _TIMEVAL.pack(
        int(wait_s), int(wait_s % 1 * 1_000_000) or (1 if wait_s < 1 else 0)
    )  # all 0 would mean no limit
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)


def open_wire(path: Path, timeout_s: float) -> Wire:
    """A proven connection to the server at `path`. Raises: one of FAILURES."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        limit_waits(sock, timeout_s)
        sock.connect(os.fspath(path))
        key = key_path(path).read_bytes()  # after connecting: a server writes its key before it can be connected to
        wire = Wire(sock)
    except BaseException:
        sock.close()
        raise
    try:
        wire.prove_as_client(key)
    except BaseException:
        wire.close()
        raise
    return wire


def key_path(path: Path) -> Path:
    """Where the key of the server at this socket lies."""
    return path.with_suffix(".key")
