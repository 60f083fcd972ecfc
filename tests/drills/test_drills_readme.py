"""The README's tour, run word for word as a new user would."""

from __future__ import annotations

import re
import subprocess

import pytest
from doubles.house import CHECKOUT, House

pytestmark = pytest.mark.house


def test_the_first_tour_works_line_by_line() -> None:
    text = (CHECKOUT / "README.md").read_text()
    section = text.partition("## First tour")[2]
    (tour,) = re.findall(r"```sh\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)
    lines = [line for line in tour.splitlines() if line]
    assert lines[0] == "bin/fleethub up"
    assert lines[-1] == "bin/fleethub down"
    house = House()
    said = {}
    try:
        for line in lines:
            done = subprocess.run(
                ["sh", "-ec", line], cwd=CHECKOUT, env=house.environment, capture_output=True, text=True, timeout=240
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}{house.logs()}"
            said[line] = done.stdout
        assert "load average:" in said['bin/fleethub run uptime "$(hostname)"']
        assert "uptime" in said["bin/fleethub runs"]
        assert "frozen" in said["bin/fleethub incidents"]
        assert "web1" in said["bin/fleethub hosts"]
        assert house.pids() == []
    finally:
        house.__exit__(None, None, None)
