"""A forked process is what `python -m` starts: the same words, environment, output, exit code and ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from doubles import forked
from doubles.deadline import WAIT_S, until


def test_it_says_and_ends_as_the_program_does(tmp_path: Path) -> None:
    environment = {**os.environ, "FLEETHUB_STATE": str(tmp_path)}
    words = ["--config", str(tmp_path / "none.toml")]
    program = subprocess.run([sys.executable, "-m", "processes.agent", *words], env=environment, capture_output=True)
    process = forked.start("agent", words, environment=environment)
    assert process.wait(WAIT_S) == program.returncode != 0
    assert process.stderr is not None
    with process.stderr as stderr:
        assert stderr.read() == program.stderr != b""


def test_it_is_waited_for_ended_by_signals_and_leaves_no_zombie(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    with (tmp_path / "said").open("ab") as log:
        process = forked.start("queues", environment={**os.environ, "FLEETHUB_STATE": str(tmp_path)}, log=log)
    try:
        until((tmp_path / "run" / "queues.sock").exists)
        assert (process.poll(), os.getsid(process.pid)) == (None, process.pid)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
    finally:
        process.kill()
    assert process.wait(WAIT_S) == process.poll() == -signal.SIGKILL
    assert not psutil.pid_exists(process.pid)
    process.terminate()
