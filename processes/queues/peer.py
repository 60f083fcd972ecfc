"""One connection of the server: calls come in, each is answered before the next, a read may wait for its answer."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Final, cast

from processes.adapters.queue_socket import shut
from processes.adapters.timer import Timer
from processes.core.errors import RemoteError
from processes.core.travels import queue_calls
from processes.core.travels.queue_calls import AnyReply, ReadCall
from processes.core.travels.queue_framing import IncomingStream, framed
from processes.core.values import Position

CALLS_MAX: Final = 1000  # that wait behind a read; a link of ours sends nothing behind one
TOGETHER_BYTES: Final = 64 * 1024  # of answers, then they are written: whoever does not read them is noticed


class Peer(asyncio.Protocol):
    """One connection. `proven`: it has shown the key. `reading`: the queue of its last read. `lesser`: the
    kind of process whose own user it is (gateway, fanout); empty: it is this user's, or root's.

    busy_since_s: since when half a message is here, or a reply is not read; before `proven`, since when it is there.
    None: neither. Units: seconds of time.monotonic.
    waits_with: the read that is not answered yet. waits_after: the position after which it goes on.
    `answer` returns None if the call waits; `forget` is called once, when the connection has ended, with the reason.
    """

    def __init__(
        self,
        sock: socket.socket,
        pid: int,
        answer: Callable[[Peer, bytes], AnyReply | None],
        forget: Callable[[Peer, Exception | None], None],
        *,
        lesser: str = "",
    ) -> None:
        self.pid, self.lesser, self.proven, self.reading = pid, lesser, False, ""
        self.busy_since_s: float | None = time.monotonic()
        self.waits_with: ReadCall | None = None
        self.waits_after = Position(0, 0)
        self._socket, self._answer, self._forget = sock, answer, forget
        self._incoming = IncomingStream()
        self._calls: deque[bytes] = deque()
        self._is_unread = False  # replies wait for a peer that does not read them
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._limit = Timer(self._look_at_time)
        self._over: Callable[[Peer], None] = lambda _: None
        self._error: Exception | None = None

    async def open(self, proving: asyncio.Future[None]) -> None:
        """Take calls as soon as the peer has proved the key. Deal with every failure."""
        try:
            await proving
            self._socket.setblocking(False)
            self.proven, self.busy_since_s = True, None
            await self._loop.connect_accepted_socket(lambda: self, self._socket)
        except BaseException as error:
            if self._transport is None:
                self._socket.close()
                self._forget(self, error if isinstance(error, Exception) else None)
            if not isinstance(error, Exception):
                raise

    def end(self, error: Exception | None = None) -> None:
        """End the connection at once. `forget` is called when it has ended."""
        self._error = self._error or error
        shut(self._socket)  # also ends a handshake, and a transport that is only being made
        if self._transport is not None:
            self._transport.abort()

    def reply(self, reply: AnyReply) -> None:
        """Send the answer of a read that has waited, and go on with what came behind it."""
        self._write([framed(queue_calls.encode(reply))])
        if self._calls:
            self._loop.call_soon(self._go_on)

    def wait(self, call: ReadCall, after: Position, over: Callable[[Peer], None]) -> None:
        """Let the read wait; `over` is called when its time is over and it was not answered."""
        self.waits_with, self.waits_after, self._over = call, after, over
        self._limit.set(call.wait_s)

    # called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called when the event loop has taken the connection over."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is of no class of asyncio

    def data_received(self, data: bytes) -> None:
        """Called with what has come. Answer every call that is whole."""
        try:
            self._calls.extend(self._incoming.feed(data))
        except RemoteError as error:
            self.end(error)
            return
        self._go_on()
        if len(self._calls) > CALLS_MAX:
            self.end(RemoteError("too_many", f"more than {CALLS_MAX} calls behind a read"))

    def pause_writing(self) -> None:
        """Called when many bytes of replies are unread: nothing more is answered until they are read."""
        self._is_unread = True
        if self._transport is not None:
            self._transport.pause_reading()
        self._note_whether_busy()

    def resume_writing(self) -> None:
        """Called when the replies are read."""
        self._is_unread = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
            self._go_on()

    def connection_lost(self, error: Exception | None) -> None:
        """Called when the connection has ended."""
        self._limit.close()
        self._calls.clear()
        self._forget(self, self._error or error)

    # calls

    def _go_on(self) -> None:
        """Answer the calls that wait. Answers go together, as long as they are small."""
        unwritten: list[bytes] = []
        size = 0
        try:
            while self._calls and self.waits_with is None and not self._is_unread:
                answer = self._answer(self, self._calls.popleft())
                if answer is None:
                    continue
                unwritten.append(framed(queue_calls.encode(answer)))
                size += len(unwritten[-1])
                if size >= TOGETHER_BYTES:
                    self._write(unwritten)
                    unwritten, size = [], 0
            self._write(unwritten)
        except Exception as error:  # a fault of ours: it costs this connection, whose caller tries again
            self.end(error)
        self._note_whether_busy()

    def _write(self, replies: list[bytes]) -> None:
        if self._transport is not None and replies:
            self._transport.write(b"".join(replies))

    def _note_whether_busy(self) -> None:
        if not len(self._incoming) and not self._is_unread:
            self.busy_since_s = None
        elif self.busy_since_s is None:
            self.busy_since_s = time.monotonic()

    def _look_at_time(self) -> None:
        """Called when the last read that waited has waited for long enough; it may have been answered before."""
        if self.waits_with is not None:
            self._over(self)
