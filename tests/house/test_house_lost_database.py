"""A database that is removed under a running house: everybody who is asked says so, nothing begins empty by itself, and
what was accepted comes back. In a folder whose path has every character that has a meaning somewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from doubles.house import House

from processes.adapters.state import fleet_db

pytestmark = pytest.mark.house


def until(house: House, what: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, house.logs()
        time.sleep(0.2)


def hosts(house: House) -> set[str]:
    return {host["name"] for host in house.json("hosts")["hosts"]}


def test_a_removed_database_is_told_of_everywhere_and_comes_back_or_is_begun_anew_on_demand() -> None:
    with House(prefix="f h?a#b%41%(x)s;") as house:
        house.enroll("kept")
        (own,) = hosts(house) - {"kept"}
        done = house.cli("run", "uptime", own)
        assert done.returncode == 0, done.stdout + done.stderr
        accepted = house.json("status")["commands"]["accepted"]
        for path in house.state.glob("fleet.db*"):
            path.unlink()
        house.cli("run", "uptime", own, "--no-wait", "--hub", f"http://{house.operators}", "--token-file",
                  str(house.settings.operator_token))  # fmt: skip
        until(house, lambda: "fleet.db is missing" in " ".join(house.json("status")["reasons"]))
        assert "fleet.db is missing" in house.cli("status").stdout
        checks = {check["check"]: check for check in house.json("doctor")["checks"] if check["level"] == "bad"}
        assert "is missing" in checks["fleet.db"]["found"]
        assert "up --new" in checks["fleet.db"]["advice"]
        up = house.cli("up")
        assert up.returncode == 1
        assert "fleet.db is missing" in up.stderr
        assert "up --new" in up.stderr
        assert house.cli("up", "--new").returncode == 1, "not while it runs"

        assert house.cli("down").returncode == 0
        assert house.cli("up").returncode == 1
        assert house.pids() == [], "nothing is started with it"
        assert not house.settings.database.exists()
        (aside,) = house.settings.replaced.glob("*.db")
        restored = house.cli("restore", str(aside))
        assert restored.returncode == 0, restored.stderr
        up = house.cli("up", "--no-agent")
        assert up.returncode == 0, up.stderr
        assert hosts(house) == {"kept", own}
        assert house.json("status")["commands"]["accepted"] >= accepted

        assert house.cli("down").returncode == 0
        new = house.cli("up", "--new", "--no-agent")
        assert new.returncode == 0, new.stderr
        assert hosts(house) == set()
        (old,) = (path for path in house.settings.replaced.glob("*.db") if path != aside)
        assert str(old) in new.stdout
        assert {host.name for host in fleet_db.reading(old, fleet_db.hosts)} >= {"kept", own}
        assert house.json("status")["epoch"] > fleet_db.reading(old, fleet_db.epoch)
