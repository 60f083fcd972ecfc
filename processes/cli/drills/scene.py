"""One round of a drill: the stage, the stream of commands, and the moments that its figures are counted from."""

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

FOUND_S_MAX: Final = 60.0  # what was not found by then is not going to be


class Scene:
    """One round: the stage, the stream of commands, and the moments that its figures are counted from."""

    def __init__(self, stage: Stage, drill: Drill, stream: Stream, stack: AsyncExitStack, lasts_s: float) -> None:
        self.stage, self.drill, self.stream, self.stack, self.lasts_s = stage, drill, stream, stack, lasts_s
        self.began_s = self.since_s = time.monotonic()  # the fault; and from when the way back to health is counted
        self.detected_s: float | None = None  # None: as the incident says
        self.recovered_s: float | None = None  # None: as the incident says, or until all is well
        self.trouble: list[str] = []
        self.pids = stage.pids()
        self.dead_letters: set[str] = set()  # dead letters that were there before

    def begins(self) -> None:
        """The fault is here, now."""
        self.began_s = self.since_s = time.monotonic()

    def mends(self) -> None:
        """The fault is over: from now on it must get well."""
        self.since_s = time.monotonic()

    def found(self) -> None:
        """It is seen, now."""
        self.detected_s = time.monotonic() - self.began_s

    def strike(self, name: str, number: signal.Signals) -> None:
        """The signal, to a process of the installation. Raises: Late, if there is none."""
        pulse = self.stage.pulse(name)
        self.begins()
        send(pulse.pid, pulse.start_ticks, number)

    async def lasts(self) -> None:
        """The condition is held for as long as the drill asks."""
        await asyncio.sleep(max(0.0, self.began_s + self.lasts_s - time.monotonic()))


@contextlib.contextmanager
def held(group: Mapping[int, int]) -> Iterator[None]:
    """The processes are stopped; continued at the end, and by a child of ours should we be killed meanwhile."""
    pids = " ".join(map(str, group))
    guard = subprocess.Popen(  # noqa: S603  # pids
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
        guard.communicate()  # its standard input ends, and so it continues them
