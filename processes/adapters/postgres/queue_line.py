"""One connection to PostgreSQL on a thread of its own, opened anew when it is lost: calls, one after another.

A call may find nothing yet: then it is tried again when its channel is notified, every POLL_S besides, and for the
last time when its wait is over. Each call has a deadline: past it, the socket is shut, which ends a query at once
wherever it waits. No query is ever cancelled, and TCP's timers do not help with a server that is frozen, since its
kernel goes on to acknowledge.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

import psycopg

from processes.adapters.postgres.dsn import conninfo, one_line
from processes.adapters.queues import QueuesAway
from processes.core.errors import FleethubError

POLL_S: Final = 0.2  # between two looks of a call that waits, if no notification comes
WAITING_MAX: Final = 1000  # calls that wait on one line; as with the process `queues`
# No statement_timeout: the deadline is ours. The statistics of these tables are never fresh, so the plans are told; a
# scan that is told not to be looks dear enough for the compiler, which takes half a second
SESSION: Final = (
    "SET jit = off; SET synchronous_commit = off; SET lock_timeout = '1s'; SET client_connection_check_interval = '1s';"
    "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_bitmapscan = off;"
    "SET idle_in_transaction_session_timeout = '2s'"
)

T = TypeVar("T")
Connection = psycopg.Connection[tuple[Any, ...]]


class Call(Generic[T]):
    """`work`: called on the thread; returns None if there is nothing yet. until_s: when it is called for the last time.

    Units: *_s of time.monotonic.
    """

    def __init__(self, work: Callable[[Connection], T | None], channel: str, until_s: float) -> None:
        self.work, self.channel, self.until_s = work, channel, until_s
        self.look_s = 0.0  # when to look, if no notification comes before
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[T] = self.loop.create_future()

    def succeed(self, result: T) -> None:
        """Give the caller the result; from the thread."""

        def say() -> None:
            if not self.future.done():
                self.future.set_result(result)

        self._say(say)

    def fail(self, error: Exception) -> None:
        """Give the caller the error; from the thread."""

        def say() -> None:
            if not self.future.done():
                self.future.set_exception(error)

        self._say(say)

    def _say(self, word: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self.loop.call_soon_threadsafe(word)


class Line:
    """A connection, or none yet, and its thread. `opened`: called there with each new connection; may refuse it.

    Invariant: what belongs to the thread is touched by no other, but for `_fresh`, `_socket`, `_in_hand` and `_closed`,
    which the lock guards.
    """

    def __init__(
        self, url: str, name: str, timeout_s: float, opened: Callable[[Connection], None] = lambda _: None
    ) -> None:
        self._conninfo = conninfo(url, name)
        self._timeout_s, self._opened = timeout_s, opened
        self._lock = threading.Lock()
        self._fresh: deque[Call[Any]] = deque()
        self._socket: socket.socket | None = None  # of the connection: to shut it from another thread
        self._in_hand: Call[Any] | None = None
        self._closed = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._connection: Connection | None = None
        self._waiting: list[Call[Any]] = []
        self._channels: set[str] = set()
        self._thread = threading.Thread(target=self._run, name=f"postgres-{name.rpartition(' ')[2]}", daemon=True)

    async def call(self, work: Callable[[Connection], T | None], wait_s: float = 0.0, channel: str = "") -> T:
        """Return what `work` returns. After QueuesAway it is not called again; what it has done may stand or not.

        wait_s: how long it may find nothing. Raises: QueuesAway; what `work` and `opened` raise of ours.
        """
        call = Call(work, channel, time.monotonic() + wait_s)
        with self._lock:
            if self._closed:
                raise QueuesAway("the link is closed")
            if len(self._fresh) + len(self._waiting) >= WAITING_MAX:
                raise QueuesAway(f"{WAITING_MAX} calls wait already")
            if self._thread.ident is None:
                self._start()
            self._fresh.append(call)
            os.eventfd_write(self._wake, 1)
        try:
            async with asyncio.timeout(self._timeout_s + wait_s):
                return await call.future
        except TimeoutError:
            self._shut(call)
            raise QueuesAway("PostgreSQL does not answer: no answer in time") from None

    def close(self) -> None:
        """End the connection; calls that still wait fail."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._thread.ident is None:
                os.close(self._wake)
                return
            self._shut_socket()
            os.eventfd_write(self._wake, 1)

    def _start(self) -> None:
        try:
            self._thread.start()
        except RuntimeError as error:
            raise QueuesAway(f"no thread for a connection: {error}") from None

    def _shut(self, call: Call[Any]) -> None:
        """End the connection if the call is what it is busy with. One that waits behind others is just forgotten."""
        with self._lock:
            if self._in_hand is call:
                self._shut_socket()

    def _shut_socket(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    # on the thread

    def _run(self) -> None:
        while not self._closed:
            self._look()
            self._listen()
        self._drop(QueuesAway("the link is closed"))
        with self._lock:
            left, self._fresh = self._fresh, deque()
            os.close(self._wake)
        for call in left:
            call.fail(QueuesAway("the link is closed"))

    def _look(self) -> None:
        """Carry out what is fresh, and what waits and is due."""
        with self._lock:
            fresh, self._fresh = self._fresh, deque()
        now_s = time.monotonic()
        due = [call for call in self._waiting if min(call.look_s, call.until_s) <= now_s]
        self._waiting = [call for call in self._waiting if call not in due and not call.future.done()]
        for call in (*due, *fresh):
            if not call.future.done() and not self._closed:
                self._carry_out(call)
            elif self._closed:
                call.fail(QueuesAway("the link is closed"))

    def _carry_out(self, call: Call[Any]) -> None:
        with self._lock:
            self._in_hand = call
        is_last = time.monotonic() >= call.until_s
        try:
            result = call.work(self._open())
        except (psycopg.Error, OSError) as error:
            away = QueuesAway(f"PostgreSQL does not answer: {one_line(error)}")
            away.__cause__ = error
            call.fail(away)
            self._drop(away)
        except FleethubError as error:
            call.fail(error)
        except Exception as error:  # a fault of ours: the caller's process ends by it
            call.fail(error)
            self._drop(QueuesAway("the connection was given up"))
        else:
            if result is not None:
                call.succeed(result)
            elif is_last:
                call.fail(QueuesAway("nothing was found in time"))
            else:
                call.look_s = time.monotonic() + POLL_S
                self._waiting.append(call)
        with self._lock:
            self._in_hand = None

    def _open(self) -> Connection:
        """Return the connection, on which the thread listens to the channels of all calls that wait."""
        if self._connection is None:
            connection: Connection = psycopg.connect(self._conninfo, autocommit=True)
            self._connection = connection
            with self._lock:
                self._socket = socket.socket(fileno=os.dup(connection.fileno()))
                if self._closed:
                    raise QueuesAway("the link is closed")
            connection.execute(SESSION)
            try:
                self._opened(connection)
            except FleethubError as error:
                self._drop(QueuesAway(str(error)))
                raise
            connection.add_notify_handler(lambda note: self._notified(note.channel))
        return self._connection

    def _listen(self) -> None:
        """Wait until something is to be done. Notice the end of the connection meanwhile."""
        with self._lock:
            if self._fresh or self._closed:
                os.eventfd_write(self._wake, 1)
        now_s = time.monotonic()
        next_s = min((min(call.look_s, call.until_s) for call in self._waiting), default=None)
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        if self._connection is not None:
            poll.register(self._connection.fileno(), select.POLLIN)
        ready = poll.poll(None if next_s is None else max(0.0, next_s - now_s) * 1000)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        if self._connection is not None and any(fd != self._wake for fd, _ in ready):
            self._hear(self._connection)

    def _hear(self, connection: Connection) -> None:
        """Take what the server says unasked: notifications, or its end."""
        try:
            connection.pgconn.consume_input()
        except psycopg.Error as error:
            self._drop(QueuesAway(f"PostgreSQL does not answer: {one_line(error)}"))
            return
        while (note := connection.pgconn.notifies()) is not None:
            self._notified(note.relname.decode())

    def _notified(self, channel: str) -> None:
        for call in self._waiting:
            if call.channel == channel:
                call.look_s = 0.0

    def _drop(self, error: Exception) -> None:
        """End the connection. What waits fails."""
        with self._lock:
            connection, self._connection = self._connection, None
            duplicate, self._socket = self._socket, None
        if duplicate is not None:
            duplicate.close()
        if connection is not None:
            connection.close()
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call.fail(error)
