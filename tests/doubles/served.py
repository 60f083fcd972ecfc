"""A server of the queues on an event loop of its own, in a thread, so that tests without a loop can call it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import structlog

from processes.queues.server import Server

LOG = structlog.stdlib.get_logger("fleethub")
REAP_S = 0.01

_T = TypeVar("_T")


class Served:
    """The server and its loop's thread. Whatever is asked of the server is asked there."""

    def __init__(self, socket: Path, **limits: float) -> None:
        self.socket, self._limits = socket, limits
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="served", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            raise self._failure

    async def _serve(self) -> None:
        self.loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            self.server = Server(self.socket, LOG, **self._limits)  # type: ignore[arg-type]  # of ints and floats
            self.server.start()
        except BaseException as failure:
            self._failure = failure
            self._started.set()
            return
        self._started.set()
        while not self._stop.is_set():
            self.server.reap(time.monotonic())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), REAP_S)
        self.server.close()
        while self.server._peers:
            await asyncio.sleep(0)  # what was ended is told so in the next turns

    def ask(self, question: Callable[[], _T]) -> _T:
        """What the question returns in the server's loop."""

        async def asking() -> _T:
            return question()

        return asyncio.run_coroutine_threadsafe(asking(), self.loop).result()

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()


@contextlib.contextmanager
def serving(socket: Path, **limits: float) -> Iterator[Served]:
    """A server at the socket, with these limits."""
    served = Served(socket, **limits)
    served.start()
    try:
        yield served
    finally:
        served.stop()
