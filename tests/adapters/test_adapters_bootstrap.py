"""What a process does to itself at its start: who may look into it, and how much memory it may take."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

GREEDY = """
from processes.adapters import bootstrap
bootstrap.limit_memory({limit}, "{kind}")
try:
    taken = bytes(3 << 30)  # zeros that the kernel need not make: it counts them all the same
except MemoryError:
    print("refused", flush=True)
else:
    print("taken", flush=True)
"""
STUCK = """
from processes.adapters import bootstrap
bootstrap.allow_tracing()
def stuck():
    import time
    print(flush=True)
    time.sleep(600)
stuck()
"""


@pytest.mark.parametrize(
    ("limit", "kind", "says"),
    [
        (256 << 20, "hub", "refused"),
        (0, "hub", "taken"),
        (256 << 20, "agent", "taken"),
        (256 << 20, "watchdog", "taken"),
    ],
)
def test_an_allocation_that_runs_away_is_refused_before_the_machine_suffers(limit: int, kind: str, says: str) -> None:
    """Not in the agent and the watchdog, whose children would inherit it."""
    code = GREEDY.format(limit=limit, kind=kind)
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == f"{says}\n"
    )


def test_pyspy_sees_a_process_that_is_not_its_child_without_any_privilege() -> None:
    drop = ["setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"] if os.getuid() == 0 else []
    if drop and shutil.which("setpriv") is None:
        pytest.skip("this user is root, and there is no setpriv to drop its privileges")
    target = subprocess.Popen([*drop, sys.executable, "-c", STUCK], stdout=subprocess.PIPE)
    try:
        assert target.stdout is not None
        target.stdout.readline()
        spy = Path(sys.executable).parent / "py-spy"
        told = subprocess.run(
            [*drop, spy, "dump", "--nonblocking", "--pid", str(target.pid)], capture_output=True, text=True
        )
        assert "stuck" in told.stdout, told.stderr
    finally:
        target.kill()
        target.communicate()
