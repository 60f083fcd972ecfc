"""`env`: the variables and folders that supervisord.conf needs."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from doubles.deadline import WAIT_S

from processes.adapters.settings import load
from processes.cli.machine import environment
from processes.cli.terminal.failure import Failure

NASTY = 'it\'s a "state" with $HOME, `id`, spaces & ; #'


def test_exports_survive_a_shell_word_for_word(tmp_path: Path) -> None:
    text = environment.exports({"FLEETHUB_STATE": NASTY, "FLEETHUB_PYTHON": str(tmp_path)})
    done = subprocess.run(
        ["/bin/sh", "-c", 'eval "$0"; printf %s "$FLEETHUB_STATE"', text],
        capture_output=True,
        text=True,
        check=True,
        timeout=WAIT_S,
    )
    assert done.stdout == NASTY


def test_every_value_stands_in_single_quotes(tmp_path: Path) -> None:
    settings = load({"FLEETHUB_STATE": str(tmp_path)})
    for line in environment.exports(environment.variables(settings)).splitlines():
        name, _, value = line.removeprefix("export ").partition("=")
        assert name.isupper()
        assert value.startswith("'")
        assert value.endswith("'")


def test_members_are_one_more_than_processes(tmp_path: Path) -> None:
    """Member 0 of a group only holds its socket."""
    settings = load({"FLEETHUB_STATE": str(tmp_path), "FLEETHUB_GATEWAY_PROCESSES": "3"})
    found = environment.variables(settings)
    assert (found["FLEETHUB_GATEWAY_MEMBERS"], found["FLEETHUB_FANOUT_MEMBERS"]) == ("4", "2")


def test_the_path_of_commands_is_the_operators_own_and_a_shell_finds_supervisord(tmp_path: Path) -> None:
    """CASE: the hub's venv stood first on the PATH of commands, so that `pip install` in one changed the hub."""
    assert "PATH" not in environment.variables(load({"FLEETHUB_STATE": str(tmp_path)}))
    own = str(Path(sys.executable).absolute().parent)
    assert environment.path({"PATH": "/usr/bin:/bin"}) == f"{own}:/usr/bin:/bin"
    assert environment.path({"PATH": f"/usr/bin:{own}"}) == f"/usr/bin:{own}"


def test_a_path_that_supervisord_would_misread_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="FLEETHUB_STATE"):
        environment.variables(load({"FLEETHUB_STATE": f'{tmp_path}/a"b'}))


def test_folders_are_made_and_closed_to_others(tmp_path: Path) -> None:
    settings = load({"FLEETHUB_STATE": str(tmp_path / "state")})
    (tmp_path / "state" / "run").mkdir(parents=True, mode=0o755)
    environment.make_folders(settings)
    for folder in (settings.run, settings.log):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(Failure, match=r"state folder cannot be used: .*/run: File exists"):
        environment.make_folders(load({"FLEETHUB_STATE": str(tmp_path)}))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_state_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    os.chown(tmp_path / "state", 65534, 65534)
    with pytest.raises(Failure, match="belongs to user 65534"):
        environment.make_folders(load({"FLEETHUB_STATE": str(tmp_path / "state")}))


def test_the_configuration_is_the_checkouts() -> None:
    assert environment.configuration().name == "supervisord.conf"
    assert environment.configuration().exists()


@pytest.mark.parametrize(("url", "start"), [("", "true"), ("postgresql://db1/x", "false")])
def test_supervisord_starts_the_process_queues_unless_postgresql_has_them(tmp_path: Path, url: str, start: str) -> None:
    settings = load({"FLEETHUB_STATE": str(tmp_path), "FLEETHUB_QUEUES_URL": url})
    assert environment.variables(settings)["FLEETHUB_QUEUES_START"] == start
