"""One connection to `queues`, for both ends: messages over multiprocessing.connection.

Each end proves to the other that it has the key, and every wait has a limit. Never use `send` and `recv` of that
module: they unpickle, which lets everybody who has the key execute code.
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
FAILURES: Final = (OSError, EOFError, AuthenticationError)  # raised when the other end is away
_TIMEVAL: Final = struct.Struct("@ll")  # struct timeval of setsockopt(2)


class Wire:
    """A connected socket that carries messages. One thread sends and receives; any thread may call `shut`."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        # a Connection closes its descriptor itself, so it gets one of its own
        self._connection = Connection(os.dup(sock.fileno()))
        self._poll = select.poll()
        self._poll.register(sock.fileno(), select.POLLIN)

    def send(self, message: bytes) -> None:
        """Send one message. Raises: one of FAILURES."""
        self._connection.send_bytes(message)

    def receive(self) -> bytes:
        """Receive the next message. Raises: one of FAILURES."""
        return self._connection.recv_bytes(MESSAGE_BYTES_MAX)

    def readable(self, wait_s: float | None = 0.0) -> bool:
        """Return True if a message or the end can be read within `wait_s`; None waits for ever."""
        return bool(self._poll.poll(None if wait_s is None else wait_s * 1000))

    def prove_as_server(self, key: bytes) -> None:
        """Challenge the client to prove the key, then answer its challenge. Raises: one of FAILURES."""
        deliver_challenge(self._connection, key)
        answer_challenge(self._connection, key)

    def prove_as_client(self, key: bytes) -> None:
        """Answer the server's challenge, then challenge the server.

        Raises: one of FAILURES; of them ConnectionRefusedError, if the server has too many connections.
        """
        try:
            answer_challenge(self._connection, key)
        except AssertionError:  # raised by multiprocessing if the first message is not a challenge
            raise ConnectionRefusedError("it has too many connections") from None
        deliver_challenge(self._connection, key)

    def limit(self, wait_s: float) -> None:
        """Let no read or write wait longer than `wait_s` from now on."""
        limit_waits(self._socket, wait_s)

    def shut(self) -> None:
        """End the connection, so that a thread that waits in it wakes up."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close both descriptors. Only the thread that sends and receives may call this."""
        self._connection.close()
        self._socket.close()


def limit_waits(sock: socket.socket, wait_s: float) -> None:
    """Let connect, read and write of this socket fail with EAGAIN after `wait_s`: a stopped peer would never answer."""
    microseconds = int(wait_s % 1 * 1_000_000) or (1 if wait_s < 1 else 0)  # both 0 would mean no limit
    timeval = _TIMEVAL.pack(int(wait_s), microseconds)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)


def open_wire(path: Path, timeout_s: float) -> Wire:
    """Connect to the server at `path`; both ends have proved the key. Raises: one of FAILURES."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        limit_waits(sock, timeout_s)
        sock.connect(os.fspath(path))
        key = key_path(path).read_bytes()  # after connect: a server writes its key before it listens
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
    """Return the path of the key of the server at this socket."""
    return path.with_suffix(".key")
