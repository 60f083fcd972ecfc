"""The state of one round of a drill, which a fault acts on."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from typing import Final

from processes.cli.drills.stage import Late, Stage, send
from processes.cli.drills.stream import Stream
from processes.core.cli.drills import Drill

FOUND_S_MAX: Final = 60.0  # a fault that was not found by then never will be


class Scene:
    """One round: the stage, the stream of commands, and the moments that its figures are counted from."""

    def __init__(self, stage: Stage, drill: Drill, stream: Stream, stack: AsyncExitStack, lasts_s: float) -> None:
        self.stage, self.drill, self.stream, self.stack, self.lasts_s = stage, drill, stream, stack, lasts_s
        self.began_s = self.since_s = time.monotonic()  # when the fault began; and from when recovery is counted
        self.detected_s: float | None = None  # None: the incident tells
        self.recovered_s: float | None = None  # None: the incident tells, or it is when all is well
        self.trouble: list[str] = []
        self.pids = stage.pids()
        self.dead_letters: set[str] = set()  # those that existed before

    def begins(self) -> None:
        """Called when the fault begins."""
        self.began_s = self.since_s = time.monotonic()

    def mends(self) -> None:
        """Called when the fault is over: recovery is counted from here."""
        self.since_s = time.monotonic()

    def found(self) -> None:
        """Called when the fault shows."""
        self.detected_s = time.monotonic() - self.began_s

    def strike(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a process of the installation, as the fault. Raises: Late, if it is gone."""
        pulse = self.stage.pulse(name)
        self.begins()
        send(pulse.pid, pulse.start_ticks, number)

    async def lasts(self) -> None:
        """Wait until the condition has lasted as long as the drill asks."""
        await asyncio.sleep(max(0.0, self.began_s + self.lasts_s - time.monotonic()))


@contextlib.contextmanager
def held(group: Mapping[int, int]) -> Iterator[None]:
    """Stop the processes, and continue them at the end; if we are killed meanwhile, a child of ours continues them."""
    pids = " ".join(map(str, group))
    rescuer = subprocess.Popen(  # noqa: S603  # pids
        ["/bin/sh", "-c", f"read _; kill -CONT {pids}"],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        for pid, start_ticks in group.items():
            with contextlib.suppress(Late):
                send(pid, start_ticks, signal.SIGSTOP)
        yield
    finally:
        rescuer.communicate()  # this closes its standard input, and so it continues them
