"""The hub's unit for systemd: what must stand in it, for every place that the hub can live in; and systemd's own
opinion of it.
"""

from __future__ import annotations

import configparser
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from doubles.deadline import WAIT_S

from processes.adapters import own_user, settings
from processes.cli.machine import supervision
from processes.cli.terminal.failure import Failure
from processes.cli.verbs import installation
from processes.cli.verbs.systemd_unit import agent_unit, closed_to, hub_unit, not_carried

PYTHON = Path("/opt/fleethub/bin/python")
ANALYZE = shutil.which("systemd-analyze")


def unit(environ: Mapping[str, str] | None = None, python: Path = PYTHON, user: str = "fleethub") -> str:
    environ = environ or {}
    return hub_unit(python, settings.load(environ), user, environ)


def service(text: str) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's keys have capitals
    parser.read_string(text)
    return parser["Service"]


def test_watchdog_answers_for_the_whole() -> None:
    found = service(unit())
    assert (found["Type"], found["NotifyAccess"], found["Restart"], found["KillMode"]) == (
        "notify",
        "all",
        "always",
        "mixed",
    )
    assert float(found["WatchdogSec"]) >= 30
    assert shlex.split(found["ExecStart"]) == [
        str(PYTHON),
        "-P",
        "-m",
        "processes.cli",
        "up",
        "--foreground",
        "--no-agent",
    ]


def test_settings_of_the_environment_that_the_unit_does_not_carry_are_named() -> None:
    """The bug it would catch: under systemd it listens elsewhere than where it was tried."""
    carried, left = (
        {"FLEETHUB_STATE": "/s", "PATH": "x"},
        {"FLEETHUB_OPERATORS_LISTEN": "127.0.0.1:1", "FLEETHUB_INSECURE": "1"},
    )
    assert not_carried(settings.load(carried), carried) == ""
    both = {**carried, **left}
    said = (
        "FLEETHUB_INSECURE, FLEETHUB_OPERATORS_LISTEN are set here, but are not in the unit: "
        "put them into /s/fleethub.toml"
    )
    assert not_carried(settings.load(both), both) == said
    assert not_carried(settings.load(left), left).endswith(" into /var/lib/fleethub/fleethub.toml")


def test_a_user_who_cannot_read_the_program_is_named_beside_the_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bug it would catch: a unit for a checkout in /root, which then starts again and again."""
    folder = Path(tempfile.mkdtemp(prefix="fhu"))  # 0700
    try:
        program = folder / "os.py"
        program.touch(0o644)
        monkeypatch.setattr(own_user, "_programs", lambda: iter([Path("/usr"), program]))
        assert closed_to("root") == ""
        for user in ("nobody", "nobody-of-that-name"):
            assert closed_to(user).startswith(f"the user {user} cannot read {program}, so this unit will not start")
        folder.chmod(0o755)
        assert closed_to("nobody") == closed_to("nobody-of-that-name") == ""
    finally:
        shutil.rmtree(folder)


def test_its_times_are_longer_than_what_they_wait_for() -> None:
    found = service(unit())
    assert float(found["TimeoutStartSec"]) > supervision.LAUNCH_S_MAX / 2 + installation.HEALTHY_S_MAX
    assert float(found["TimeoutStopSec"]) > supervision.DOWN_S_MAX + 2 * 3.0


def test_state_folder_of_var_lib_is_made_by_systemd_and_another_one_is_made_writable(tmp_path: Path) -> None:
    standard = service(unit())
    assert (standard["StateDirectory"], standard["StateDirectoryMode"]) == ("fleethub", "0700")
    assert standard["Environment"] == "FLEETHUB_STATE=/var/lib/fleethub"
    inner = service(unit({"FLEETHUB_STATE": "/var/lib/fleet/two"}))
    assert inner["StateDirectory"] == "fleet/two"
    other = service(unit({"FLEETHUB_STATE": str(tmp_path)}))
    assert (other["ReadWritePaths"], "StateDirectory" in other) == (str(tmp_path), False)
    assert other["ProtectSystem"] == "strict"


def test_homes_stay_readable_where_something_of_it_is_in_one() -> None:
    environ = {"FLEETHUB_STATE": "/var/lib/fleethub"}
    assert service(unit(environ, Path("/home/alice/fleethub/.venv/bin/python")))["ProtectHome"] == "read-only"
    assert service(unit({"FLEETHUB_STATE": "/home/alice/state"}))["ProtectHome"] == "read-only"


def test_low_port_gets_the_one_capability_it_needs_and_nothing_else_any() -> None:
    assert service(unit())["CapabilityBoundingSet"] == ""
    low = service(unit({"FLEETHUB_OPERATORS_LISTEN": "127.0.0.1:443"}))
    assert low["AmbientCapabilities"] == low["CapabilityBoundingSet"] == "CAP_NET_BIND_SERVICE"


def test_paths_with_spaces_and_percents_are_read_back() -> None:
    found = service(unit(python=Path("/opt/a b%c/python")))
    assert shlex.split(found["ExecStart"])[0].replace("%%", "%") == "/opt/a b%c/python"


@pytest.mark.parametrize("user", ["", "a b", "x\nExecStartPre=/bin/evil", "Ä", "-x"])
def test_what_is_no_user_is_refused(user: str) -> None:
    with pytest.raises(Failure):
        unit(user=user)


@pytest.mark.skipif(ANALYZE is None, reason="systemd is not installed here")
@pytest.mark.parametrize("kind", ["hub", "agent"])
def test_systemd_finds_no_fault(tmp_path: Path, kind: str) -> None:
    assert ANALYZE is not None
    path = tmp_path / f"fleethub-{kind}.service"
    python = Path(sys.executable)
    text = (
        unit({"FLEETHUB_STATE": str(tmp_path / "a b")}, python)
        if kind == "hub"
        else agent_unit(python, tmp_path / "agent.toml")
    )
    path.write_text(text)
    found = subprocess.run([ANALYZE, "verify", path], capture_output=True, text=True, timeout=WAIT_S)
    complaints = [line for line in found.stderr.splitlines() if str(path) in line or path.name in line]
    assert complaints == []
    if kind == "hub":
        rated = subprocess.run(
            [ANALYZE, "security", "--offline=true", "--threshold=30", path],
            capture_output=True,
            text=True,
            timeout=WAIT_S,
        )
        assert rated.returncode == 0, rated.stdout[-2000:] + rated.stderr


def test_daemon_does_not_answer_to_the_unit_that_its_caller_lives_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`up` in somebody's shell, and not in our unit: what supervisord is started with holds nothing of theirs."""
    seen = tmp_path / "environ"
    program = tmp_path / "supervisord"
    program.write_text(f"#!/bin/sh\nenv > {seen}\n")
    program.chmod(0o700)
    for name in supervision.SYSTEMD:
        monkeypatch.setenv(name, "x")
    (tmp_path / "run").mkdir()
    found = settings.load({"FLEETHUB_STATE": str(tmp_path)})
    supervision.launch(found, [str(program)])
    names = {line.partition("=")[0] for line in seen.read_text().splitlines()}
    assert "FLEETHUB_STATE" in names
    assert not names & supervision.SYSTEMD
    child = supervision.launch_in_foreground(found, [str(program)])
    assert child.wait(30) == 0
    assert {line.partition("=")[0] for line in seen.read_text().splitlines()} >= supervision.SYSTEMD
    assert os.environ["NOTIFY_SOCKET"] == "x"
