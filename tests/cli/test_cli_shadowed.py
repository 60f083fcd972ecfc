"""A PYTHONPATH for the caller's other programs: what stands there is not taken for fleethub's own libraries."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from doubles.deadline import WAIT_S

CHECKOUT = Path(__file__).resolve().parents[2]


def test_modules_on_pythonpath_do_not_stand_in_for_ours(tmp_path: Path) -> None:
    """ROS and module systems set it. The bug it would catch: every verb ends in a traceback out of queue.py."""
    for name in ("click", "queue", "msgspec"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not ours')\n")
    environ = {**os.environ, "PYTHONPATH": str(tmp_path), "FLEETHUB_STATE": str(tmp_path / "state")}
    done = subprocess.run(
        [str(CHECKOUT / "bin" / "fleethub"), "--version"], env=environ, capture_output=True, text=True, timeout=WAIT_S
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("fleethub ")
