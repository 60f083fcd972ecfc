"""`fleethub run` on a real house: steps in order, limits kept, exit codes told, and neither a dead hub nor a dead CLI
ends a run.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from doubles.deadline import WAIT_S
from doubles.house import House

pytestmark = pytest.mark.house


class Fleet:
    """A house with the hosts h1 and h2. Their op `gated` ends once its gate is opened; each op leaves a line in
    `log`.
    """

    def __init__(self, house: House) -> None:
        self.house = house
        self.log, self.gate = house.state / "ops.log", house.state / "gate"
        note = f'echo "$FLEETHUB_OP $FLEETHUB_HOST" >> {self.log}; echo "$FLEETHUB_OP on $FLEETHUB_HOST"'
        gated = f"{note}; until [ -e {self.gate} ]; do sleep 0.05; done; echo through >&2; echo last"
        ops = {"a": note, "b": note, "h2only": f'{note}; test "$FLEETHUB_HOST" = h2', "gated": gated}
        for name in ("h1", "h2"):
            house.agent(name, {op: ["/bin/sh", "-c", script] for op, script in ops.items()})
        self.until(
            lambda: (
                {host["name"]: host["presence"] for host in house.json("hosts")["hosts"]}.items()
                >= {"h1": "online", "h2": "online"}.items()
            )
        )

    def done(self) -> list[str]:
        """What the hosts did so far, in order."""
        return self.log.read_text().splitlines() if self.log.exists() else []

    def fresh(self) -> None:
        """Nothing is done yet, and the gate is closed."""
        self.log.unlink(missing_ok=True)
        self.gate.unlink(missing_ok=True)

    def until(self, condition: Callable[[], bool]) -> None:
        """Waits for something, with a deadline."""
        deadline_mono_s = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < deadline_mono_s, f"did not happen within {WAIT_S} s{self.house.logs()}"
            time.sleep(0.02)

    @contextlib.contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """The CLI as a process of its own, gone afterwards."""
        command = [sys.executable, "-m", "processes.cli", "run", *arguments]
        cli = subprocess.Popen(
            command, env=self.house.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            yield cli
        finally:
            self.gate.touch()
            cli.kill()
            cli.communicate()


@pytest.fixture(scope="module")
def the_fleet() -> Iterator[Fleet]:
    with House() as house:
        yield Fleet(house)


@pytest.fixture
def fleet(the_fleet: Fleet) -> Fleet:
    the_fleet.fresh()
    return the_fleet


def test_steps_go_one_after_the_other_on_each_host_and_hosts_so_many_at_a_time(fleet: Fleet) -> None:
    done = fleet.house.cli("run", "a,b", "h1", "h2", "--parallel", "1")
    assert done.returncode == 0, done.stderr
    assert fleet.done() == ["a h1", "b h1", "a h2", "b h2"]
    assert done.stdout.splitlines() == ["h1 | a on h1", "h1 | b on h1", "h2 | a on h2", "h2 | b on h2"]
    assert done.stderr.splitlines()[-1].endswith("succeeded: 2 succeeded")


def test_a_failed_host_leaves_and_is_named_with_its_step_and_command(fleet: Fleet) -> None:
    done = fleet.house.cli("run", "h2only,a", "--all", "--yes", "--where", "name=h1", "--json")
    document = json.loads(done.stdout)
    (command,) = document["commands"]
    assert (done.returncode, document["run"]["state"], command["state"], command["exit_code"]) == (
        1,
        "failed",
        "failed",
        1,
    )
    done = fleet.house.cli("run", "h2only,a", "h1", "h2")
    assert done.returncode == 1
    assert sorted(fleet.done()) == ["a h2", "h2only h1", "h2only h1", "h2only h2"]
    assert sum(line.startswith("fleethub: h1: failed at h2only: exit code 1") for line in done.stderr.splitlines()) == 1
    line, last, counts = done.stderr.splitlines()[-3:]
    assert last == "  | h2only on h1"
    assert line.startswith("h1: failed at h2only: ")
    assert re.search(r"exit code 1  \((bin/)?fleethub command ", line)
    assert counts.endswith("failed: 1 succeeded, 1 failed")


def test_after_too_many_failures_the_rest_is_not_attempted(fleet: Fleet) -> None:
    done = fleet.house.cli("run", "h2only", "h1", "h2", "--parallel", "1", "--max-failures", "0")
    assert done.returncode == 1
    assert fleet.done() == ["h2only h1"]
    assert "h2: not attempted" in done.stderr.splitlines()
    counts, stopped = done.stderr.splitlines()[-2:]
    assert counts.endswith("failed: 1 failed, 1 not attempted")
    assert stopped.startswith("stopped after 1 failure: 1 host not attempted (--max-failures 0)")


def test_a_host_that_has_not_answered_at_wait_makes_4_and_its_run_can_be_cancelled(fleet: Fleet) -> None:
    done = fleet.house.cli("run", "gated,a", "h1", "--wait", "1", "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["run"]["state"]) == (4, "running"), done.stderr
    cancelled = fleet.house.cli("cancel", document["run"]["id"])
    assert cancelled.returncode == 0, cancelled.stderr
    fleet.until(lambda: bool(fleet.house.json("runs", document["run"]["id"])["state"] == "cancelled"))
    assert fleet.house.cli("runs", document["run"]["id"], "--follow").returncode == 1
    assert fleet.house.json("runs", "--limit", "1")["runs"][0]["id"] == document["run"]["id"]
    assert fleet.done() == ["gated h1"]


def test_a_hub_killed_in_the_middle_neither_ends_the_run_nor_loses_or_repeats_a_line(fleet: Fleet) -> None:
    with fleet.running("a,gated,b", "h1", "h2") as cli:
        fleet.until(lambda: sorted(fleet.done()) == ["a h1", "a h2", "gated h1", "gated h2"])
        killed = fleet.house.pulse("hub").pid
        os.kill(killed, signal.SIGKILL)
        fleet.gate.touch()
        out, err = cli.communicate(timeout=WAIT_S)
    assert cli.returncode == 0, err
    assert fleet.house.pulse("hub").pid != killed
    assert sorted(fleet.done()) == ["a h1", "a h2", "b h1", "b h2", "gated h1", "gated h2"]
    for host in ("h1", "h2"):
        lines = [line for line in out.splitlines() if line.startswith(host)]
        assert lines == [f"{host} | {line}" for line in (f"a on {host}", f"gated on {host}", "last", f"b on {host}")]
        assert err.splitlines().count(f"{host} | through") == 1


def test_a_killed_command_line_leaves_the_run_to_the_hub(fleet: Fleet) -> None:
    with fleet.running("gated,b", "h1", "h2") as cli:
        fleet.until(lambda: sorted(fleet.done()) == ["gated h1", "gated h2"])
        cli.kill()
        cli.wait()
        fleet.gate.touch()
        fleet.until(lambda: bool(fleet.house.json("runs", "--limit", "1")["runs"][0]["state"] != "running"))
    assert fleet.house.json("runs", "--limit", "1")["runs"][0]["state"] == "succeeded"
    assert sorted(fleet.done()) == ["b h1", "b h2", "gated h1", "gated h2"]


def test_a_hub_that_stays_away_makes_5_and_names_the_key(fleet: Fleet) -> None:
    assert fleet.house.cli("stop", "hub").returncode == 0
    done = fleet.house.cli("run", "a", "h1", "--json")
    assert (done.returncode, json.loads(done.stdout)["error"]) == (5, "not_accepted")
    assert "fleethub run --key " in done.stderr
    assert fleet.house.cli("start", "hub").returncode == 0
