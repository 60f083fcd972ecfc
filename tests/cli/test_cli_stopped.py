"""What an operator stopped: `up` says so at once, and a `stop` that fails leaves the desired state as it was."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from processes.adapters.settings import Settings, load
from processes.adapters.state import desired_state
from processes.cli.__main__ import execute
from processes.cli.machine import own_processes
from processes.cli.verbs import installation

SLEEP = "import select; print(flush=True); select.poll().poll(60000)"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """An installation whose supervisord runs, as far as /proc tells, and does not answer."""
    monkeypatch.setenv("FLEETHUB_STATE", str(tmp_path))
    found = load()
    (found.run / "lock").mkdir(parents=True)
    supervisord = subprocess.Popen([sys.executable, "-c", SLEEP, "supervisor.supervisord"], stdout=subprocess.PIPE)
    assert supervisord.stdout is not None
    supervisord.stdout.readline()
    assert own_processes.supervisord_of(found) is not None
    yield found
    supervisord.kill()
    supervisord.communicate()


@pytest.mark.parametrize("name", ["queues", "hub", "gateway", "fanout", "watchdog"])
def test_up_names_what_is_stopped_and_waits_for_nothing(
    settings: Settings, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    desired_state.change(settings, {name: desired_state.STOPPED})
    assert execute(["up"]) == 1
    of_rights = ("warning: gateways run as", "warning: fanouts run as", "warning: gateways and fanouts run as")
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith(of_rights)]
    assert lines == [
        f"fleethub: it runs, but {name} is stopped, as you asked, and so it cannot get well",
        f"  fleethub start {name}",
    ]


def test_one_of_several_gateways_that_is_stopped_keeps_nobody_waiting(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEETHUB_GATEWAY_PROCESSES", "2")
    desired_state.change(settings, {"gateway:0": desired_state.STOPPED, "agent": desired_state.STOPPED})
    installation._refuse_what_cannot_get_well(load())


@pytest.mark.parametrize("before", [desired_state.RUNNING, desired_state.STOPPED])
def test_a_stop_that_fails_leaves_the_desired_state_as_it_was(
    settings: Settings, capsys: pytest.CaptureFixture[str], before: str
) -> None:
    """The bug it would catch: the hub goes on, is taken for stopped by the watchdog, and nobody judges it any more."""
    desired_state.change(settings, {"hub": before})
    assert execute(["stop", "hub"]) == 1
    assert desired_state.read(settings) == {"hub": before}
    assert "fleethub down, fleethub up" in capsys.readouterr().err
