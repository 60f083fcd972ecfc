"""A process of the house that only turns, until a file tells it to stop turning: python frozen_process.py KIND.

A file STATE/fault-NAME with one word makes it fail that way: sleep, deadlock, busy, await, exit, stalled, grow. The
file is taken away first, so its successor is well. `stalled`, `grow`, `toil` and `rest` leave it
turning. It keeps its loop as every process does: adapters/bootstrap opens it, each turn ends with a pulse.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from pathlib import Path

from processes.adapters import bootstrap
from processes.adapters.bootstrap import Process

TURN_S = 0.05


async def main(process: Process) -> None:
    """Turns, and freezes when asked to."""
    process.pulse.pulse.epoch = 1
    process.pulse.pulse.hosts = process.pulse.pulse.online = 3
    fault = process.settings.state / f"fault-{process.name}"
    while not process.stop.is_set():
        word = taken(fault)
        if word == "await":
            await wait_for_ever()
        elif word == "stalled":
            process.pulse.pulse.backlog, process.pulse.pulse.oldest_ns = 7, time.monotonic_ns()
        elif word:
            FAULTS[word]()
        begun_s = time.thread_time()
        while time.thread_time() - begun_s < sum(toil_s):
            pass
        process.pulse.beat()
        await asyncio.sleep(TURN_S)


def taken(fault: Path) -> str:
    """The fault's word, which is then gone; empty if there is none."""
    try:
        word = fault.read_text()
        fault.unlink()
    except FileNotFoundError:
        return ""
    return word.strip()


def sleep_for_ever() -> None:
    """A blocking call where none may be."""
    time.sleep(3600)


def take_twice() -> None:
    """A lock that is taken by who holds it."""
    lock = threading.Lock()
    with lock, lock:
        pass


def turn_for_ever() -> None:
    """A busy loop."""
    while True:
        pass


async def wait_for_ever() -> None:
    """The loop's one task waits for what never comes, while the event loop itself is well."""
    await asyncio.Event().wait()


kept: list[bytearray] = []
toil_s: list[float] = []  # CPU that each turn takes


def toil() -> None:
    """From now on a turn takes work: with a CPU it is soon done."""
    toil_s.append(0.02)


def rest() -> None:
    """No more."""
    toil_s.clear()


def grow() -> None:
    """300 MiB that are never let go."""
    kept.append(bytearray(os.urandom(1 << 20) * 300))


FAULTS = {
    "grow": grow,
    "toil": toil,
    "rest": rest,
    "sleep": sleep_for_ever,
    "deadlock": take_twice,
    "busy": turn_for_ever,
}

if __name__ == "__main__":
    bootstrap.run(sys.argv[1], main)
