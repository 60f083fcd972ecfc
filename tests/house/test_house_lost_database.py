"""A database that is taken away under a running house: everybody who is asked says so, nothing begins empty by itself,
and what was accepted comes back. In a folder whose path has every character that has a meaning somewhere.

The tests of this file follow each other: each goes on with what the one before it left.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from doubles.house import House

from processes.adapters.state import fleet_db, status_file
from processes.core.shown.status import Overall, Report

pytestmark = pytest.mark.house


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with House(prefix="f h?a#b%41%(x)s;") as found:
        yield found


def until(house: House, what: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, house.logs()
        time.sleep(0.1)


def report(house: House) -> Report:
    return status_file.current_report(house.settings)


def ask(house: House, method: str, path: str, **more: Any) -> httpx.Response:
    token = house.settings.operator_token.read_text().strip()
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.request(method, f"http://{house.operators}/api/v1{path}", headers=headers, timeout=30, **more)


def hosts(house: House) -> set[str]:
    return {host["name"] for host in ask(house, "GET", "/hosts").json()["hosts"]}


def given(house: House) -> str:
    """A command that this machine's agent has carried out, accepted in spite of a hub that is just being replaced."""
    (host,) = hosts(house)
    asked = {"op": "uptime", "hosts": [host], "key": str(time.monotonic_ns())}
    until(house, lambda: ask(house, "POST", "/commands", json=asked).status_code in (200, 202))
    command_id = ask(house, "POST", "/commands", json=asked).json()["commands"][0]["id"]
    until(house, lambda: ask(house, "GET", f"/commands/{command_id}").json().get("state") == "succeeded")
    return str(command_id)


def removed(house: House, pattern: str) -> None:
    for path in house.state.glob(pattern):
        path.unlink()


def test_a_log_that_is_removed_costs_a_hub_and_nothing_else(house: House) -> None:
    first = given(house)
    epoch = report(house).epoch
    removed(house, "fleet.db-wal")
    second = given(house)
    until(house, lambda: report(house).verdict is Overall.OK and report(house).commands.succeeded == 2)
    assert report(house).epoch > epoch
    assert {each["id"] for each in ask(house, "GET", "/commands").json()["commands"]} == {first, second}


def test_a_database_that_is_removed_is_told_of_by_all_who_are_asked_and_none_begins_by_itself(house: House) -> None:
    removed(house, "fleet.db*")
    ask(house, "POST", "/hosts", json={"name": "late"})
    until(house, lambda: "fleet.db is missing" in " ".join(report(house).reasons))
    status = house.cli("status")
    assert status.returncode == 2
    assert "fleet.db is missing" in status.stdout
    checks = {check["check"]: check for check in house.json("doctor")["checks"] if check["level"] == "bad"}
    assert "is missing" in checks["fleet.db"]["found"]
    assert "up --new" in checks["fleet.db"]["advice"]
    for arguments in (["up"], ["up", "--new"]):
        done = house.cli(*arguments)
        assert done.returncode == 1, arguments
        assert ("fleet.db is missing" if arguments == ["up"] else "runs") in done.stderr
    assert house.cli("down").returncode == 0
    up = house.cli("up")
    assert up.returncode == 1
    assert "fleet.db is missing" in up.stderr
    assert "up --new" in up.stderr
    assert house.pids() == [], "nothing is started with it"
    assert not house.settings.database.exists()


def kept(house: House) -> set[Path]:
    return set(house.settings.replaced.glob("*.db"))


def test_what_the_hub_still_held_is_restored_and_kept_where_an_empty_installation_is_begun(house: House) -> None:
    (aside,) = kept(house)
    done = house.cli("restore", str(aside), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["hosts"] == 1
    assert fleet_db.reading(house.settings.database, fleet_db.ledger).succeeded == 2
    assert fleet_db.refusal(house.settings.database, house.settings.epoch_file, None) == ""
    before = kept(house)
    up = house.cli("up", "--new", "--no-agent")
    assert up.returncode == 0, up.stderr
    assert hosts(house) == set()
    (old,) = kept(house) - before
    assert str(old) in up.stdout
    assert len(fleet_db.reading(old, fleet_db.hosts)) == 1
    assert report(house).epoch > fleet_db.reading(old, fleet_db.epoch)
