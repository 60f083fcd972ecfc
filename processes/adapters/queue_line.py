"""One thread with one connection to `queues`: calls and their replies in order, each with a deadline.

The thread waits for the server, so that the event loop never does.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from pathlib import Path
from typing import Final

from processes.adapters.queue_socket import Wire, open_wire

WAITING_MAX: Final = 1000  # exchanges that wait for their turn on one line; guess: seconds of work for `queues`


class _Exchange:
    """One request and its outcome. `request` None tells the thread to end."""

    def __init__(self, request: bytes | None, timeout_s: float, wait_s: float) -> None:
        self.request, self.timeout_s, self.wait_s = request, timeout_s, wait_s
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[bytes] = self.loop.create_future()
        self.outcome: bytes | Exception | None = None  # set by the thread, before the loop is told
        self.abandoned = False  # set by the loop, under the line's lock

    def settle(self) -> None:
        """Hand the outcome to the awaiting caller. Runs in the loop."""
        if not self.future.done() and self.outcome is not None:
            if isinstance(self.outcome, Exception):
                self.future.set_exception(self.outcome)
            else:
                self.future.set_result(self.outcome)


class Line:
    """A thread and its connection. `keep` False: every exchange opens a connection of its own."""

    def __init__(self, socket: Path, name: str, *, keep: bool = True) -> None:
        self._socket, self._name, self._keep = socket, name, keep
        self._inbox: queue.SimpleQueue[_Exchange] = queue.SimpleQueue()
        self._lock = threading.Lock()  # guards the next two, which the loop and the thread share
        self._current: _Exchange | None = None
        self._wire: Wire | None = None
        self._started = self._closed = False

    async def exchange(self, request: bytes, timeout_s: float, wait_s: float = 0.0) -> bytes:
        """Send the request and return the reply. `wait_s`: how much longer the server may hold it back on purpose.

        Raises: one of queue_socket.FAILURES. If the caller is cancelled, the exchange and its connection are given up.
        """
        if self._closed:
            raise ConnectionError("the link is closed")
        if self._inbox.qsize() >= WAITING_MAX:
            raise BlockingIOError(f"{WAITING_MAX} calls wait already")
        self._start()
        exchange = _Exchange(request, timeout_s, wait_s)
        self._inbox.put(exchange)
        timer = exchange.loop.call_later(timeout_s + wait_s, self._expire, exchange)
        try:
            return await exchange.future
        finally:
            timer.cancel()
            if exchange.outcome is None:
                self._abandon(exchange)

    async def close(self) -> None:
        """End the thread and close its connection; wait for that a second at most."""
        if self._closed or not self._started:
            self._closed = True
            return
        self._closed = True
        end = _Exchange(None, 0.0, 0.0)
        self._inbox.put(end)
        with self._lock:
            current = self._current
        if current is not None:
            self._abandon(current)
            if not current.future.done():
                current.future.set_exception(ConnectionError("the link is closed"))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(end.future, 1.0)

    def _start(self) -> None:
        if not self._started:
            try:
                threading.Thread(target=self._run, name=f"queues-{self._name}", daemon=True).start()
            except RuntimeError as error:
                raise ConnectionError(f"no thread for a call: {error}") from None
            self._started = True

    def _expire(self, exchange: _Exchange) -> None:
        exchange.settle()  # the outcome may be there already, if only the loop was late
        if not exchange.future.done():
            exchange.future.set_exception(TimeoutError(f"no answer within {exchange.timeout_s + exchange.wait_s:g} s"))

    def _abandon(self, exchange: _Exchange) -> None:
        with self._lock:
            exchange.abandoned = True
            if self._current is exchange and self._wire is not None:
                self._wire.shut()  # wakes the thread, which alone may close the connection

    # In the thread

    def _run(self) -> None:
        while True:
            exchange = self._inbox.get()
            if exchange.request is None:
                self._drop()
                self._tell(exchange, b"")
                return
            with self._lock:
                if exchange.abandoned:
                    continue
                self._current = exchange
            try:
                outcome: bytes | Exception = self._perform(exchange, exchange.request)
            except Exception as error:  # the caller gets it, and the thread goes on with a fresh connection
                self._drop()
                outcome = error
            with self._lock:
                self._current = None
            self._tell(exchange, outcome)

    def _perform(self, exchange: _Exchange, request: bytes) -> bytes:
        if self._wire is not None and self._wire.readable():
            self._drop()  # there was no request, so this is the end of the connection: the server was replaced
        wire = self._wire
        if wire is None:
            wire = open_wire(self._socket, exchange.timeout_s)
            with self._lock:
                self._wire = wire
                if exchange.abandoned:
                    raise EOFError("given up")
        wire.limit(exchange.timeout_s + exchange.wait_s)
        wire.send(request)
        reply = wire.receive()
        if not self._keep:
            self._drop()
        return reply

    def _drop(self) -> None:
        with self._lock:
            wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    @staticmethod
    def _tell(exchange: _Exchange, outcome: bytes | Exception) -> None:
        exchange.outcome = outcome
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            exchange.loop.call_soon_threadsafe(exchange.settle)
