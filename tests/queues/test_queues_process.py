"""`python -m processes.queues` as supervisord runs it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from doubles.deadline import WAIT_S

from processes.adapters.queue_link import QueueLink
from processes.adapters.queues import QueuesAway
from processes.adapters.state import pulse_file
from processes.core.values import Position


@pytest.fixture
def state() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="fhq"))
    yield folder
    shutil.rmtree(folder)


def start(state: Path) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLEETHUB_")}
    command = [sys.executable, "-m", "processes.queues"]
    return subprocess.Popen(command, env={**environment, "FLEETHUB_STATE": str(state)}, stderr=subprocess.DEVNULL)


async def until_up(link: QueueLink) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while True:
        try:
            await link.ping()
            return
        except QueuesAway:
            assert time.monotonic() < deadline_s
            await asyncio.sleep(0.01)


def test_sigterm_ends_it_with_0_and_its_readers_meet_the_end(state: Path) -> None:
    async def claim(process: subprocess.Popen[bytes]) -> None:
        link = QueueLink(state / "run" / "queues.sock", "hub")
        await until_up(link)
        reading = asyncio.create_task(link.read("events", Position(0, 0), wait_s=10))
        while not any(queue.readers for queue in await link.stats()):
            await asyncio.sleep(0)
        process.send_signal(signal.SIGTERM)
        with pytest.raises(QueuesAway):
            await reading
        assert await asyncio.to_thread(process.wait, WAIT_S) == 0
        await link.close()

    with start(state) as process:
        try:
            asyncio.run(claim(process))
        finally:
            process.kill()
    assert not (state / "run" / "queues.sock").exists()


def test_killed_its_successor_serves_at_once_with_a_pulse_of_its_own(state: Path) -> None:
    async def claim(process: subprocess.Popen[bytes], epochs: set[int]) -> None:
        link = QueueLink(state / "run" / "queues.sock", "gateway")
        await until_up(link)
        epochs.add((await link.append("events", [b"x"])).position.epoch)
        deadline_s = time.monotonic() + WAIT_S
        while True:
            pulse = pulse_file.read(state / "run" / "pulse", "queues")
            if pulse is not None and pulse.pid == process.pid and pulse.turn >= 3 and pulse.backlog == 1:
                break
            assert time.monotonic() < deadline_s
            await asyncio.sleep(0.01)
        await link.close()

    epochs: set[int] = set()
    for _ in range(2):
        with start(state) as process:
            try:
                asyncio.run(claim(process, epochs))
            finally:
                process.kill()
    assert len(epochs) == 2
