"""Opens connections to `queues`, for both ends: multiprocessing.connection's handshake, in which each end proves to the
other that it has the key. Every wait has a limit. The handshakes block: they run on a thread.

What follows the handshake is messages in that module's framing (core/travels/queue_framing.py), on the event loop.
Never use `send` and `recv` of that module: they unpickle, which lets everybody who has the key execute code.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from pathlib import Path
from typing import Final, TypeVar

from processes.core.errors import RemoteError

FULL: Final = b"#FULL#"  # the server's first message instead of a challenge: it has too many connections
FAILURES: Final = (OSError, EOFError, AuthenticationError, RemoteError)  # raised when the other end is away, or broken
_T = TypeVar("_T")
_TIMEVAL: Final = struct.Struct("@ll")  # struct timeval of setsockopt(2)


def open_socket(path: Path, timeout_s: float) -> socket.socket:
    """Return a socket to the server at `path`; both ends have proved the key. No wait takes longer than `timeout_s`.

    Raises: one of FAILURES; of them ConnectionRefusedError, if the server has too many connections.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        limit_waits(sock, timeout_s)
        sock.connect(os.fspath(path))
        key = key_path(path).read_bytes()  # after connect: a server writes its key before it listens
        with _connection(sock) as connection:
            try:
                answer_challenge(connection, key)
            except AssertionError:  # raised by multiprocessing if the first message is not a challenge
                raise ConnectionRefusedError("it has too many connections") from None
            deliver_challenge(connection, key)
    except BaseException:
        sock.close()
        raise
    return sock


def prove_as_server(sock: socket.socket, key: bytes) -> None:
    """Challenge the client to prove the key, then answer its challenge. Raises: one of FAILURES."""
    with _connection(sock) as connection:
        deliver_challenge(connection, key)
        answer_challenge(connection, key)


def refuse(sock: socket.socket) -> None:
    """Tell the client that there are too many connections, if it can be told at once."""
    with contextlib.suppress(*FAILURES), _connection(sock) as connection:
        connection.send_bytes(FULL)


def limit_waits(sock: socket.socket, wait_s: float) -> None:
    """Let connect, read and write of this socket fail with EAGAIN after `wait_s`: a stopped peer would never answer."""
    microseconds = int(wait_s % 1 * 1_000_000) or (1 if wait_s < 1 else 0)  # both 0 would mean no limit
    timeval = _TIMEVAL.pack(int(wait_s), microseconds)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)


def shut(sock: socket.socket) -> None:
    """End the connection at once, for both ends, whoever waits in it."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def key_path(path: Path) -> Path:
    """Return the path of the key of the server at this socket."""
    return path.with_suffix(".key")


@contextlib.contextmanager
def _connection(sock: socket.socket) -> Iterator[Connection]:
    # a Connection closes its descriptor itself, so it gets one of its own; it reads no byte beyond a message
    connection = Connection(os.dup(sock.fileno()))
    try:
        yield connection
    finally:
        connection.close()


def on_thread(name: str, work: Callable[[], _T], discard: Callable[[_T], object]) -> asyncio.Future[_T]:
    """Start `work` on a thread of its own, and return the future of its result. Nothing waits for the thread.

    If nobody waits for the result any more, it is handed to `discard`. Raises: ConnectionError, if there is no thread.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()

    def succeed(result: _T) -> None:
        if future.done():
            discard(result)
        else:
            future.set_result(result)

    def fail(error: Exception) -> None:
        if not future.done():
            future.set_exception(error)

    def run() -> None:
        try:
            result = work()
        except Exception as error:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(fail, error)
            return
        if future.cancelled():  # the loop may end before it would call anybody
            discard(result)
            return
        try:
            loop.call_soon_threadsafe(succeed, result)
        except RuntimeError:
            discard(result)

    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    except RuntimeError as error:
        raise ConnectionError(f"no thread for a connection: {error}") from None
    return future
