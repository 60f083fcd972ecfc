"""One connection to `queues` on the event loop, opened anew when it is lost: calls, and their replies in order.

A call is sent at the end of this pass of the event loop, together with all others that were made in it: so whoever
reads what they append is woken once and gets it together. The server answers the calls of a connection in their order.
Each call has a deadline; one timer watches them all.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections import deque
from collections.abc import Collection
from pathlib import Path
from typing import Final, cast

from processes.adapters.queue_socket import on_thread, open_socket
from processes.adapters.timer import not_before
from processes.core.errors import RemoteError
from processes.core.travels.queue_framing import IncomingStream, framed

WAITING_MAX: Final = 1000  # calls that wait for their replies on one line; guess: seconds of work for `queues`
LATE_S: Final = 0.05  # for a reply that is there already when its deadline has passed: only the loop was late


class _Call:
    """One request and the future of its reply. `held`: the server may hold the reply back on purpose."""

    __slots__ = ("deadline_s", "future", "held", "request")

    def __init__(self, request: bytes, future: asyncio.Future[bytes], deadline_s: float, held: bool) -> None:
        self.request, self.future, self.deadline_s, self.held = request, future, deadline_s, held

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class _Connection(asyncio.Protocol):
    """A connection that has proved the key. `sent`: the calls whose replies have not come, in order."""

    def __init__(self, line: Line, sock: socket.socket) -> None:
        self.sent: deque[_Call] = deque()
        self.was_late = False  # it got LATE_S, and no reply has come since
        self._line, self._incoming = line, IncomingStream()
        self._transport: asyncio.Transport | None = None
        self._poll = select.poll()
        self._poll.register(sock.fileno(), select.POLLIN)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called when the event loop has taken the connection over."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is of no class of asyncio
        self._line.opened(self)

    def send(self, calls: Collection[_Call]) -> None:
        """Send the calls behind the others, as one write."""
        assert self._transport is not None
        self.sent.extend(calls)
        self._transport.write(b"".join([framed(call.request) for call in calls]))

    def data_received(self, data: bytes) -> None:
        """Called with what has come. Hand each reply to its caller."""
        try:
            for reply in self._incoming.feed(data):
                if not self.sent:
                    raise RemoteError("unasked", "a reply that nobody has asked for")
                call = self.sent.popleft()
                self.was_late = False
                if not call.future.done():  # its caller may have been cancelled
                    call.future.set_result(reply)
        except RemoteError as error:
            self._line.lost(self, error)

    def connection_lost(self, error: Exception | None) -> None:
        """Called when the connection has ended."""
        self._line.lost(self, error or EOFError("the connection has ended"))

    def readable(self) -> bool:
        """Return True if something, or the end, can be read now. Not to be called after the end."""
        assert self._transport is not None
        return self._transport.is_closing() or bool(self._poll.poll(0))

    def abort(self) -> None:
        """Close the connection without waiting for anything."""
        if self._transport is not None:
            self._transport.abort()


class Line:
    """A connection, or none yet, and the calls that wait for it.

    Invariant: calls are unsent only in the pass of the event loop in which they are made, and while a connection is
    being opened.
    """

    def __init__(self, path: Path, name: str, timeout_s: float) -> None:
        self._path, self._name, self._timeout_s = path, name, timeout_s
        self._connection: _Connection | None = None
        self._unsent: deque[_Call] = deque()
        self._opening: asyncio.Task[None] | None = None
        self._will_send = False  # at the end of this pass of the event loop
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = 0.0
        self._closed = False

    async def exchange(self, request: bytes, wait_s: float = 0.0) -> bytes:
        """Send the request and return the reply. `wait_s`: how much longer the server may hold it back on purpose.

        Raises: one of queue_socket.FAILURES. If the caller is cancelled, the reply is of no interest; the connection is
        given up if the reply would hold others up, or if nobody else waits on it.
        """
        call = self._begin(request, wait_s)
        try:
            return await call.future
        except asyncio.CancelledError:
            self._abandon(call)
            raise

    def close(self) -> None:
        """End the connection; calls that still wait fail."""
        self._closed = True
        error = ConnectionError("the link is closed")
        if self._opening is not None:
            self._opening.cancel()
        self._fail_unsent(error)
        if self._connection is not None:
            self.lost(self._connection, error)
        if self._timer is not None:
            self._timer.cancel()

    def opened(self, connection: _Connection) -> None:
        """Called when the connection can be used. Send what waits for it."""
        self._connection = connection
        self._send_all(connection)

    def lost(self, connection: _Connection, error: Exception) -> None:
        """Called when the connection has ended, or is of no use any more. Its calls fail."""
        if self._connection is connection:
            self._connection = None
        connection.abort()
        while connection.sent:
            connection.sent.popleft().fail(error)

    def _begin(self, request: bytes, wait_s: float) -> _Call:
        if self._closed:
            raise ConnectionError("the link is closed")
        sent = 0 if self._connection is None else len(self._connection.sent)
        if sent + len(self._unsent) >= WAITING_MAX:
            raise BlockingIOError(f"{WAITING_MAX} calls wait already")
        loop = asyncio.get_running_loop()
        call = _Call(request, loop.create_future(), loop.time() + self._timeout_s + wait_s, wait_s > 0)
        self._unsent.append(call)
        if not self._will_send:
            self._will_send = True
            loop.call_soon(self._send, loop)
        self._watch(loop, call.deadline_s)
        return call

    def _send(self, loop: asyncio.AbstractEventLoop) -> None:
        """Called at the end of a pass in which calls were made."""
        self._will_send = False
        if not self._unsent:
            return
        connection = self._connection
        if connection is not None and not connection.sent and connection.readable():
            # there was no call, so this is the end of the connection: the server was replaced
            self.lost(connection, EOFError("the connection has ended"))
            connection = None
        if connection is not None:
            self._send_all(connection)
        elif self._opening is None:
            self._opening = loop.create_task(self._open())

    def _send_all(self, connection: _Connection) -> None:
        if self._unsent:
            connection.send(self._unsent)
            self._unsent.clear()

    async def _open(self) -> None:
        """Open a connection and send what waits for it. If it cannot be opened, what waits fails."""
        try:
            sock = await on_thread(
                f"queues-{self._name}", lambda: open_socket(self._path, self._timeout_s), socket.socket.close
            )
            try:
                sock.setblocking(False)
                await asyncio.get_running_loop().create_unix_connection(lambda: _Connection(self, sock), sock=sock)
            except BaseException:
                sock.close()
                raise
        except Exception as error:  # the callers get it, and the next call tries anew
            self._fail_unsent(error)
        self._opening = None

    def _fail_unsent(self, error: Exception) -> None:
        while self._unsent:
            self._unsent.popleft().fail(error)

    def _abandon(self, call: _Call) -> None:
        connection = self._connection
        if call in self._unsent:
            self._unsent.remove(call)
        elif connection is not None and call in connection.sent and (call.held or len(connection.sent) == 1):
            self.lost(connection, EOFError("the connection was given up"))

    # deadlines

    def _watch(self, loop: asyncio.AbstractEventLoop, deadline_s: float) -> None:
        """Have `_expire` called at the deadline at the latest. A timer that is over too early is set anew then."""
        if self._timer is not None:
            if self._timer_s <= deadline_s:
                return
            self._timer.cancel()
        self._timer, self._timer_s = not_before(loop, deadline_s, self._expire, loop), deadline_s

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now_s, connection = loop.time(), self._connection
        overdue = [call for call in self._unsent if call.deadline_s <= now_s]
        sent = [] if connection is None else [call for call in connection.sent if call.deadline_s <= now_s]
        if connection is not None and sent and not connection.was_late and connection.readable():
            connection.was_late = True
            self._watch(loop, now_s + LATE_S)
            return
        for call in overdue:
            self._unsent.remove(call)
        for call in (*overdue, *sent):
            call.fail(TimeoutError("no answer in time"))
        if connection is not None and sent:
            self.lost(connection, EOFError("the connection was given up: a call before this one got no answer"))
        left = [*self._unsent, *(() if self._connection is None else self._connection.sent)]
        if left:
            self._watch(loop, min(call.deadline_s for call in left))
