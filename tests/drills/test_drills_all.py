"""Every drill once, in its short form, on one installation: each ends as it should, and nothing of it is left behind.

How long it took is not judged here but by `fleethub drill`, on the machine whose times they are.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from doubles.deadline import WAIT_S, until
from doubles.house import CHECKOUT, House

from processes.adapters.state import incidents_db
from processes.core.cli.drills import DRILLS
from processes.core.shown.status import Overall
from processes.core.travels.pulse import Blocked

pytestmark = [pytest.mark.house, pytest.mark.timeout(900)]

LATE = re.compile(r"(found|well|accepted) after [\d.]+ s; the bound is \d+ s")
SHORT = [drill.name for drill in DRILLS if not drill.long]


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """One installation."""
    with House() as house:
        yield house


@pytest.fixture(scope="module")
def rows(house: House) -> dict[str, dict[str, Any]]:
    """What `drill --all --short` says of each."""
    done = house.cli("drill", "--all", "--short", "--json", timeout_s=840)
    assert done.stdout, done.stderr
    said = json.loads(done.stdout)
    assert said.get("left_out") == [], said
    found = {row["name"]: row for row in said["drills"]}
    assert (done.returncode == 0) == all(row["ok"] for row in found.values())
    return found


def wrong(row: dict[str, Any]) -> list[str]:
    """What went wrong in a drill, but for its times."""
    return [line for line in row["trouble"] if not LATE.fullmatch(line)]


@pytest.mark.parametrize("name", SHORT)
def test_a_drill_ends_as_it_should(house: House, rows: dict[str, dict[str, Any]], name: str) -> None:
    row = rows[name]
    assert wrong(row) == [], f"{row}{house.logs()}"
    assert (row["lost"], row["doubled"]) == (0, 0)
    assert row["commands"] >= 6
    if (drill := next(drill for drill in DRILLS if drill.name == name)).process:
        incident = incidents_db.incident(house.settings.incidents_database, row["incident"])
        assert incident is not None
        assert (incident.process, incident.drill, incident.stuck_at) == (drill.process, True, row["stuck_at"])
        assert drill.verdict != "dead" or "SIGKILL" in incident.reason, "how it ended is named"
        assert name != "fatal" or any("started again" in line for line in incident.events)


def test_drills_leave_the_fleet_and_the_ledger_as_they_were(house: House, rows: dict[str, dict[str, Any]]) -> None:
    assert list(rows) == SHORT
    assert [host["name"] for host in house.json("hosts")["hosts"] if host["name"].startswith("drill-")] == []

    def settled() -> bool:
        ledger = house.ledger()
        assert ledger["accepted"] == sum(count for state, count in ledger.items() if state != "accepted") > 100
        assert ledger["lost"] == 0
        return (ledger["queued"], ledger["sent"], ledger["running"]) == (0, 0, 0)

    until(settled, house.logs)  # the watchdog looks at the ledger once a second


def test_rounds_give_median_and_worst(house: House) -> None:
    (row,) = json.loads(house.cli("drill", "hub-kill", "--rounds", "2", "--json", timeout_s=300).stdout)["drills"]
    assert wrong(row) == [], row
    assert row["rounds"] == 2
    assert 0 < row["recovered_median_s"] <= row["recovered_s"]


def drilling(house: House, *names: str) -> subprocess.Popen[bytes]:
    """A drill under way, to be interrupted."""
    return subprocess.Popen(
        [str(CHECKOUT / "bin" / "fleethub"), "drill", *names],
        stdout=subprocess.DEVNULL,
        # what one that is killed leaves behind goes with the house
        env={**house.environment, "TMPDIR": str(house.state)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )  # fmt: skip


def test_ctrl_c_in_the_middle_undoes_the_fault(house: House) -> None:
    drill = drilling(house, "database-locked")
    until(lambda: house.pulse("hub").blocked_on == Blocked.STORAGE, house.logs)
    os.kill(drill.pid, signal.SIGINT)
    assert drill.wait(WAIT_S) == 130
    until(lambda: not house.pulse("hub").blocked_on, house.logs)
    until(lambda: house.verdict() is Overall.OK, house.logs)
    assert [host["name"] for host in house.json("hosts")["hosts"] if host["name"].startswith("drill-")] == []


def test_a_drill_that_is_killed_leaves_nobody_stopped(house: House) -> None:
    """The worst place: the whole group is stopped, supervisord and watchdog included, and nobody else would continue
    it.
    """
    pids = {name: house.pulse(name).pid for name in ("queues", "hub", "gateway", "fanout", "watchdog", "agent")}
    drill = drilling(house, "suspend")
    until(lambda: stopped(pids["watchdog"]) and stopped(pids["hub"]), house.logs)
    drill.kill()
    drill.wait()
    until(lambda: not any(stopped(pid) for pid in pids.values()), house.logs)
    until(lambda: house.verdict() is Overall.OK, house.logs)
    assert {name: house.pulse(name).pid for name in pids} == pids
    for host in house.json("hosts")["hosts"]:
        if host["name"].startswith("drill-"):
            assert house.cli("remove", host["name"]).returncode == 0


def stopped(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "T"
