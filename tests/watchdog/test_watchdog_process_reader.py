"""Whose pulse is believed when it names a process; with real processes and pulses."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from processes.adapters import ownership
from processes.adapters.state.pulse_file import PulseFile, start_ticks
from processes.adapters.supervisor import Supervised
from processes.watchdog.process_reader import ProcessReader

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has lesser users")
USER = ownership.LESSER[0]


@pytest.fixture
def processes() -> Iterator[dict[str, int]]:
    """The pids of one process of root's and one of the lesser user's."""
    started = {
        name: subprocess.Popen(["/bin/sleep", "600"], user=user, group=user)
        for name, user in (("root's", 0), ("its", USER))
    }
    yield {name: process.pid for name, process in started.items()}
    for process in started.values():
        process.kill()
        process.wait()


def adopted(folder: Path, name: str, pid: int, known: int = 0) -> int:
    """Which process is watched, killed and examined under this name, if its pulse names this one."""
    pulse = PulseFile(folder, name)
    pulse.pulse.pid, pulse.pulse.start_ticks = pid, start_ticks(pid) or 0
    pulse.beat()
    pulse.close()

    async def look() -> int:
        reader = ProcessReader(folder, {name: 0}, lambda *_: None)
        row = {name: Supervised(name, "RUNNING", known, 0, 0, "")} if known else None
        reader.look(row, time.monotonic())
        found = reader.subjects[name].pid
        reader.close()
        return found

    return asyncio.run(look())


@pytest.mark.parametrize("name", ["gateway", "gateway:1"])
def test_pulse_of_a_lesser_user_names_no_process_of_another_user(
    tmp_path: Path, processes: dict[str, int], name: str
) -> None:
    """The bug it would catch: a gateway that strangers have taken over has root's watchdog kill any process."""
    folder = tmp_path / "pulse"
    folder.mkdir()
    os.chown(tmp_path, 0, USER)
    tmp_path.chmod(0o710)
    assert adopted(folder, name, processes["root's"]) == 0
    assert adopted(folder, name, 1) == 0
    assert adopted(folder, name, processes["its"]) == processes["its"]
    assert adopted(folder, name, processes["root's"], known=processes["its"]) == processes["its"]
    assert adopted(folder, name, processes["root's"], known=processes["root's"]) == processes["root's"], "supervisord's"
    assert adopted(folder, "hub", processes["root's"]) == processes["root's"]
    tmp_path.chmod(0o700)  # no gateway has a user of its own
    assert adopted(folder, name, processes["root's"]) == processes["root's"]
