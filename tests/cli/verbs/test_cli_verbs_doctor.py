"""doctor: what is well is said to be well, what is wrong is named with what to do; within a second, whatever the state
is.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from processes.adapters import settings
from processes.adapters.state import fleet_db
from processes.cli.__main__ import execute
from processes.cli.checks import machine
from processes.cli.checks.finding import Level

TIME_OK, TIME_ERROR = 0, 5  # adjtimex(2)


def kernel_says(monkeypatch: pytest.MonkeyPatch, answer: int) -> None:
    """What adjtimex answers."""
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(adjtimex=lambda _: answer))


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = tmp_path / "st"
    found.mkdir(mode=0o700)
    for name in ("OPERATORS", "AGENTS"):
        with socket.create_server(("127.0.0.1", 0)) as server:
            monkeypatch.setenv(f"FLEETHUB_{name}_LISTEN", f"127.0.0.1:{server.getsockname()[1]}")
    monkeypatch.setenv("FLEETHUB_STATE", str(found))
    kernel_says(monkeypatch, TIME_OK)  # nobody keeps a test machine's clock
    return found


def examined(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, dict[str, Any]]]:
    code = execute(["doctor", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["verdict"] == ["ok", "warning", "bad"][code]
    found: dict[str, dict[str, Any]] = {}
    for check in document["checks"]:
        if check["check"] not in found or check["level"] != "ok":
            found[check["check"]] = check
    return code, found


def test_a_folder_in_which_nothing_runs_is_a_warning_and_everything_else_is_well(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet_db.open_for_writing(state / "fleet.db").close()
    (state / "fleet.db").chmod(0o600)
    code, found = examined(capsys)
    assert code == 1
    # where these tests run as root, its Python may be closed to others
    closed = {"rights of gateway", "rights of fanout"}
    assert {name for name, check in found.items() if check["level"] != "ok"} - closed == {"processes"}
    names = (
        "settings",
        "state folder",
        "file modes",
        "fleet.db",
        "ports",
        "descriptors",
        "disk",
        "clock",
        "versions",
        "systemd",
    )
    assert set(found) >= set(names)
    assert found["processes"]["advice"]


def test_a_database_is_missed_only_where_a_hub_has_begun(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The bug it would catch: `env` alone makes it say that there was a database."""
    assert execute(["env"]) == 0
    capsys.readouterr()
    assert "fleet.db" not in examined(capsys)[1]
    (state / "epoch").write_text("1\n")
    code, found = examined(capsys)
    assert (code, found["fleet.db"]["level"]) == (2, "bad")


def test_each_thing_that_is_wrong_is_named_with_what_to_do(
    state: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (state / "run").mkdir(mode=0o755)
    (state / "run").chmod(0o755)
    (state / "operator.token").write_text("secret")
    (state / "operator.token").chmod(0o644)
    (state / "fleet.db").write_bytes(os.urandom(8192))
    future = time.time() + 7200
    os.utime(state / "fleet.db", (future, future))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("FLEETHUB_AGENTS_LISTEN", f"127.0.0.1:{taken.getsockname()[1]}")
        code, found = examined(capsys)
    assert code == 2
    bad = {name for name, check in found.items() if check["level"] == "bad"}
    assert bad == {"run", "file modes", "fleet.db", "clock", "ports"}
    assert all(found[name]["advice"] for name in bad)
    assert "secret" not in json.dumps(found)


def test_a_clock_that_nobody_keeps_right_is_a_warning(
    state: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert examined(capsys)[1]["clock"]["level"] == "ok"
    kernel_says(monkeypatch, TIME_ERROR)
    found = examined(capsys)[1]["clock"]
    assert (found["level"], "chrony" in found["advice"]) == ("warning", True)


def test_a_disk_that_is_nearly_full_is_bad_with_what_to_do(state: Path) -> None:
    (found, *_) = machine.disk(settings.load(), deep=False, bytes_bad=1 << 62)
    assert (found.check, found.level) == ("disk", Level.BAD)
    assert found.advice


def test_a_locked_database_and_a_check_that_raises_do_not_keep_it(
    state: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = fleet_db.open_for_writing(state / "fleet.db")
    writer.execute("PRAGMA locking_mode = EXCLUSIVE")
    writer.execute("BEGIN EXCLUSIVE")

    listed = os.listdir

    def broken(path: Any) -> Any:
        if path == "/proc":
            raise OSError("made up")
        return listed(path)

    monkeypatch.setattr(os, "listdir", broken)
    code, found = examined(capsys)
    writer.close()
    assert code >= 1
    assert found["fleet.db"]["level"] != "ok"
    assert "made up" in found["processes"]["found"]


def test_wrong_settings_are_the_one_finding(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (state / "fleethub.toml").write_text("[operators]\nlisen = 'x'\n")
    code, found = examined(capsys)
    assert (code, set(found)) == (2, {"settings"})
    assert "did you mean operators.listen" in found["settings"]["found"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root's processes have something to give up")
@pytest.mark.parametrize("kind", ["gateway", "fanout"])
def test_why_gateways_and_fanouts_are_root_is_told_with_what_to_do(
    kind: str, state: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = state.parent / "program.py"  # nobody but root may enter the folder of this test
    program.touch()
    monkeypatch.setattr("processes.__file__", str(program))
    told = examined(capsys)[1][f"rights of {kind}"]
    assert told["level"] == "warning"
    assert f"a user who is not root cannot read {program}" in told["found"]
    assert ("to the databases" in told["found"]) is (kind == "fanout")  # SQLite names them from the root on
    assert "where every user can read them" in told["advice"]
    monkeypatch.setenv(f"FLEETHUB_{kind.upper()}_OWN_USER", "false")
    told = examined(capsys)[1][f"rights of {kind}"]
    assert told["level"] == "ok"
    assert f"as {kind}.own_user says" in told["found"]
