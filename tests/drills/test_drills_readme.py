"""The README's tour and the API's page, run word for word as a new user would."""

from __future__ import annotations

import os
import re
import socket
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
            if line == lines[-1]:
                the_page_of_the_api_works(house)
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


def the_page_of_the_api_works(house: House) -> None:
    """Each block of docs/api.md does what it says, one after the other in one shell."""
    page = (CHECKOUT / "docs" / "api.md").read_text().replace("http://127.0.0.1:7700", f"http://{house.operators}")
    blocks = re.findall(r"```(sh|python)\n(.*?)```", page, re.DOTALL)
    assert [language for language, _ in blocks] == ["sh", "sh", "python"]
    script = "\n".join(text if language == "sh" else f"python -P - <<'END'\n{text}\nEND" for language, text in blocks)
    folder = house.settings.state / "api"
    folder.mkdir()
    path = f"{CHECKOUT / 'bin'}:{CHECKOUT / '.venv' / 'bin'}:{house.environment.get('PATH', os.defpath)}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=folder, env={**house.environment, "PATH": path},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}{done.stderr}{house.logs()}"
    said = done.stdout.replace(" ", "")
    assert '"key":"nightly-1"' in said
    assert '"op":"uptime"' in said
    assert f"{socket.gethostname()} online" in done.stdout
