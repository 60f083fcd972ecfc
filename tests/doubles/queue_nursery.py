"""Real processes that a test may kill a hundred times: forked from one that has everything imported, so a start costs
milliseconds.

A program of its own, started by Nursery: for each line that it reads it waits for the child before to be dead, forks
the next one, and that says its pid once it is ready. It has one thread, so forking it is safe; when its test ends, it
and its child end too.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

import structlog

from processes.adapters import bootstrap
from processes.adapters.queue_link import QueueLink
from processes.core.values import Position
from processes.queues.server import Server


class Nursery:
    """kind `server`: serves at the socket; `reader`: waits in a read of `events` there. One child at a time."""

    def __init__(self, kind: str, socket: Path) -> None:
        command = [sys.executable, __file__, kind, str(socket)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = 0

    def __enter__(self) -> Nursery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def start(self) -> int:
        """The pid of a new child that is ready; the one before it must have been killed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.pid = int(self._process.stdout.readline())
        return self.pid

    def kill(self) -> None:
        """The child is dead, by SIGKILL."""
        death = os.pidfd_open(self.pid)
        os.kill(self.pid, signal.SIGKILL)
        try:
            select.select([death], [], [])
        finally:
            os.close(death)


def serve(socket: Path) -> None:
    """A child: the server."""

    async def serving() -> None:
        server = Server(socket, structlog.stdlib.get_logger("fleethub"))
        server.start()
        print(os.getpid(), flush=True)
        await asyncio.Event().wait()

    asyncio.run(serving())


def read(socket: Path) -> None:
    """A child: a reader that waits, over and over. Ready when it has begun; that the server knows of it, the test sees
    in `readers`.
    """

    async def reading() -> None:
        link, position = QueueLink(socket, "hub"), Position(0, 0)
        print(os.getpid(), flush=True)
        while True:
            batch = await link.read("events", position, wait_s=10)
            position = batch.position

    asyncio.run(reading())


def main() -> None:
    """The nursery itself."""
    kind, socket = sys.argv[1], Path(sys.argv[2])
    bootstrap.die_with_parent()
    child = 0
    while sys.stdin.readline():
        if child:
            os.waitpid(child, 0)
        child = os.fork()
        if child == 0:
            bootstrap.die_with_parent()
            {"server": serve, "reader": read}[kind](socket)
            os._exit(1)
    if child:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
