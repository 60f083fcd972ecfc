"""What an operator stopped: `up` says so at once, and a `stop` that fails leaves the desired state as it was."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from processes.adapters.settings import Settings, load
from processes.adapters.state import desired_state
from processes.adapters.supervisor import SupervisorAway
from processes.cli.__main__ import execute
from processes.cli.machine import own_processes, supervision
from processes.cli.machine.own_processes import OwnProcess
from processes.cli.verbs import installation


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """An installation that runs, as far as /proc tells."""
    monkeypatch.setenv("FLEETHUB_STATE", str(tmp_path))
    monkeypatch.setattr(own_processes, "supervisord_of", lambda _: OwnProcess(os.getpid(), 1, [], {}))
    found = load()
    (found.run / "lock").mkdir(parents=True)
    return found


def failing(error: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("name", ["queues", "hub", "gateway", "fanout", "watchdog"])
def test_up_names_what_is_stopped_and_waits_for_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setattr(installation, "_wait_healthy", failing(AssertionError("it waits")))
    desired_state.change(settings, {name: desired_state.STOPPED})
    assert execute(["up"]) == 1
    lines = capsys.readouterr().err.splitlines()
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
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], before: str
) -> None:
    """The bug it would catch: the hub goes on, is taken for stopped by the watchdog, and nobody judges it any more."""
    monkeypatch.setattr(supervision, "supervisor_of", lambda *_: None)
    monkeypatch.setattr(supervision, "stop", failing(SupervisorAway("supervisord does not answer")))
    desired_state.change(settings, {"hub": before})
    assert execute(["stop", "hub"]) == 1
    assert desired_state.read(settings) == {"hub": before}
    assert "fleethub down, fleethub up" in capsys.readouterr().err
