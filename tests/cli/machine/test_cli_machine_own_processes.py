"""Which processes are this installation's: nobody else's is ever touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from doubles.deadline import WAIT_S

from processes.adapters import ownership
from processes.adapters.settings import Settings, load
from processes.adapters.state.pulse_file import start_ticks
from processes.cli.machine import own_processes
from processes.cli.machine.own_processes import OwnProcess

SLEEP = "import select; select.poll().poll(60000)"
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load({"FLEETHUB_STATE": str(tmp_path)})


@pytest.fixture
def start(settings: Settings) -> Iterator[Start]:
    """Starts a Python that sleeps, with the words after it as its arguments and this state folder in its
    environment.
    """
    begun = []

    def start(*words: str, **environ: str) -> subprocess.Popen[bytes]:
        given = {"FLEETHUB_STATE": str(settings.state), **environ}
        begun.append(subprocess.Popen([sys.executable, "-c", SLEEP, *words], env=given))
        return begun[-1]

    yield start
    for process in begun:
        process.kill()
        process.wait()


def as_member(**more: str) -> dict[str, str]:
    return {"SUPERVISOR_PROCESS_NAME": "hub", "SUPERVISOR_GROUP_NAME": "hub", **more}


def test_members_are_those_that_a_supervisord_started_for_this_state(
    settings: Settings, start: Start, tmp_path: Path
) -> None:
    member = start("-m", "processes.hub", **as_member())
    holder = start(**as_member(SUPERVISOR_GROUP_NAME="gateway", SUPERVISOR_PROCESS_NAME="gateway_0"))
    start("-m", "processes.hub")  # by hand
    start("-m", "processes.hub", **as_member(FLEETHUB_STATE=f"{tmp_path}2"))  # another installation
    start("sh", "-c", "nixos-rebuild switch", **as_member())  # something that a member runs
    assert {found.pid for found in own_processes.members_of(settings)} == {member.pid, holder.pid}


@pytest.mark.parametrize("spelling", ["{link}", "{state}/run/..", "{state}/", "{state}/./", "/{state}"])
def test_the_same_folder_under_another_name_is_the_same_installation(start: Start, spelling: str) -> None:
    """The bug it would catch: `down` by way of a link says that nothing runs, and removes the living socket."""
    with tempfile.TemporaryDirectory(prefix="fh") as short:  # the socket in it needs a short path
        same_folder(start, Path(short), spelling)


def same_folder(start: Start, tmp_path: Path, spelling: str) -> None:
    state, link = tmp_path / "state", tmp_path / "link"
    (state / "run").mkdir(parents=True)
    link.symlink_to("state")
    names = {"FLEETHUB_STATE": spelling.format(link=link, state=state)}
    shim_folder = f"{names['FLEETHUB_STATE']}/agent-state/runs/1"
    Path(shim_folder).mkdir(parents=True)
    member = start("-m", "processes.hub", **as_member(**names))
    supervisord = start("supervisor.supervisord", **names)
    shim = start("/x/processes/agent/shim.py", shim_folder, "60", "1", "sleep", "60", **names)
    for found in (load({"FLEETHUB_STATE": str(state)}), load({"FLEETHUB_STATE": str(link)}), load(names)):
        assert [each.pid for each in own_processes.members_of(found)] == [member.pid]
        assert [each.pid for each in own_processes.shims_of(found)] == [shim.pid]
        assert (running := own_processes.supervisord_of(found)) is not None
        assert running.pid == supervisord.pid
    elsewhere = load({"FLEETHUB_STATE": str(tmp_path / "other")})
    assert own_processes.members_of(elsewhere) == []


def test_who_only_looks_at_supervisords_log_is_not_supervisord(settings: Settings, start: Start) -> None:
    start("tail", "-f", "supervisord.log")
    start("vi", "supervisord.conf")
    assert own_processes.supervisord_of(settings) is None


def test_commands_that_still_run_are_found_by_their_run_folder(settings: Settings, start: Start) -> None:
    shim = start("/x/processes/agent/shim.py", f"{settings.state}/agent-state/runs/1", "60", "1", "sleep", "60")
    start("/x/processes/agent/shim.py", "/elsewhere/agent-state/runs/1", "60", "1", "sleep", "60")
    assert [found.pid for found in own_processes.shims_of(settings)] == [shim.pid]
    assert own_processes.members_of(settings) == []


def test_a_pid_that_was_given_to_another_process_is_not_signalled(start: Start) -> None:
    """The bug it would catch: `down` kills a stranger that has the pid of a process that is long gone."""
    stranger = start()
    before = OwnProcess(stranger.pid, (start_ticks(stranger.pid) or 0) - 1, [], {})
    assert own_processes.send(before, signal.SIGKILL) is False
    assert stranger.poll() is None
    assert own_processes.send(before._replace(start_ticks=start_ticks(stranger.pid) or 0), signal.SIGKILL) is True
    assert stranger.wait(WAIT_S) == -signal.SIGKILL


def test_waiting_ends_with_the_last_one_and_names_those_that_stay(start: Start) -> None:
    one, other = start(), start()
    both = [OwnProcess(each.pid, start_ticks(each.pid) or 0, [], {}) for each in (one, other)]
    os.kill(one.pid, signal.SIGKILL)
    assert own_processes.wait_gone(both, 0.3) == [both[1]]
    os.kill(other.pid, signal.SIGKILL)
    assert own_processes.wait_gone(both, 5) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has members that are another user")
def test_a_gateway_that_is_a_user_of_its_own_is_a_member_and_a_stranger_is_none(settings: Settings) -> None:
    """The bug it would catch: `up` begins beside a gateway that its dead supervisord has left, and `down` leaves it."""
    settings.state.chmod(0o755)
    environ = {"FLEETHUB_STATE": str(settings.state), **as_member()}
    command = ["/bin/sh", "-c", "read never", "-m", "processes.gateway"]
    begun = [
        subprocess.Popen(command, env=environ, user=user, stdin=subprocess.PIPE)
        for user in (ownership.LESSER[7], 12345)
    ]
    try:
        assert [found.pid for found in own_processes.members_of(settings)] == [begun[0].pid]
    finally:
        for process in begun:
            process.kill()
            process.communicate()
