"""A shim that is killed: its program is not left to itself, and what nobody can know is said to be unknown."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import psutil
import pytest
from doubles.agent_process import AgentProcess, agent_process, until
from doubles.deadline import WAIT_S
from doubles.hub_wire import TOKEN, HubWire

from processes.adapters.state.pulse_file import start_ticks
from processes.agent import folder, leftovers, shim
from processes.core.agent.remembered import Started

Claim = Callable[[HubWire, AgentProcess], Coroutine[Any, Any, None]]
FAMILY = "trap '' TERM HUP; sh -c 'echo $$; while :; do sleep 0.1; done' & echo $$; while :; do sleep 0.1; done"


def play(home: Path, commands: dict[str, Any], claim: Claim) -> None:
    async def scene() -> None:
        async with HubWire() as hub, agent_process(home, hub.url, TOKEN, commands) as agent:
            await hub.registered()
            await claim(hub, agent)

    asyncio.run(scene())


def fields(path: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in path.read_text().splitlines())


async def family(hub: HubWire, command_id: str = "c1") -> list[int]:
    """The pids of a command that runs FAMILY."""
    await hub.command("family", command_id)
    await hub.until(lambda: len(hub.output.get(command_id, {})) == 2, "both pids")
    return [int(line) for line in hub.lines(command_id)]


def readers_of(pid: int) -> list[psutil.Process]:
    """The processes that read what this one writes to stdout and stderr, and nothing else."""
    pipes = {os.readlink(f"/proc/{pid}/fd/{number}") for number in (1, 2)}
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            if os.readlink(f"/proc/{process.pid}/fd/0") in pipes:
                found.append(process)
    return found


def is_alive(process: psutil.Process) -> bool:
    """Not so of a zombie: in a container nobody may collect it."""
    return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)


@pytest.mark.parametrize("leader_too", [False, True])
def test_program_of_a_killed_shim_is_ended_with_its_children_and_told_as_unknown(
    tmp_path: Path, leader_too: bool
) -> None:
    """With the program's first process gone too, the rest of its session is still known by the command's id."""

    async def claim(hub: HubWire, agent: AgentProcess) -> None:
        pids = await family(hub)
        folder = agent.run_folder("c1")
        if leader_too:
            os.kill(int(fields(folder / "lock")["pid"]), signal.SIGSTOP)  # or it would see the end and write it
            os.kill(int(fields(folder / "started")["pid"]), signal.SIGKILL)
        os.kill(int(fields(folder / "lock")["pid"]), signal.SIGKILL)
        report = await hub.report("c1")
        assert (report["status"], report["reason"], report.get("exit_code")) == ("error", "shim_died", None)
        assert "outcome unknown; what was left of it was killed" in report["message"]
        await until(lambda: not any(map(start_ticks, pids)), "the end of both")
        await hub.command("family", "c1", attempt=2)
        await hub.until(lambda: hub.of("command_ack", "c1")[-1]["state"] == "duplicate", "the journal's answer")

    play(tmp_path, {"family": ["/bin/sh", "-c", FAMILY]}, claim)


def test_what_another_agent_of_this_machine_runs_under_the_same_id_is_left_alone(tmp_path: Path) -> None:
    """The bug it would catch: two installations on one machine, or two runs of these tests, end each other's commands."""
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    running = subprocess.Popen(
        ["sleep", "1000"], env={"FLEETHUB_COMMAND_ID": "c1", "FLEETHUB_RUN": str(theirs)}, start_new_session=True
    )
    try:
        assert leftovers.end(None, "c1", mine) == (0, 0)
        assert running.poll() is None
        assert leftovers.end(None, "c1", theirs) == (1, 0)
        assert running.wait(WAIT_S) == -signal.SIGKILL
    finally:
        running.kill()


def test_next_agent_ends_what_a_shim_killed_together_with_its_agent_left_behind(tmp_path: Path) -> None:
    async def claim(hub: HubWire, agent: AgentProcess) -> None:
        pids = await family(hub)
        await agent.kill(signal.SIGKILL)
        os.kill(int(fields(agent.run_folder("c1") / "lock")["pid"]), signal.SIGKILL)
        assert all(map(start_ticks, pids))
        agent.start()
        assert (await hub.report("c1"))["reason"] == "shim_died"
        await until(lambda: not any(map(start_ticks, pids)), "the end of both")

    play(tmp_path, {"family": ["/bin/sh", "-c", FAMILY]}, claim)


def test_a_strangers_session_under_a_number_that_was_used_again_is_left_alone() -> None:
    """The number of a session may be another's by now: neither a living leader that began later, nor a foreign child of
    a gone one.
    """
    stranger = subprocess.Popen(
        ["/bin/sh", "-c", "sleep 1000 & echo $!; wait"], stdout=subprocess.PIPE, start_new_session=True
    )
    assert stranger.stdout is not None
    child = int(stranger.stdout.readline())
    try:
        assert leftovers.end(Started(stranger.pid, 1, "boot"), "c1", Path("/none")) == (0, 0)
        stranger.kill()
        stranger.wait()
        assert leftovers.end(Started(stranger.pid, 1, "boot"), "c1", Path("/none")) == (0, 0)
        assert start_ticks(child) is not None
    finally:
        os.kill(child, signal.SIGKILL)
        stranger.stdout.close()


WAYS_OUT = {
    "another process group": "timeout 300 sh -c 'echo $$; sleep 300; true' & wait",
    "another session": "setsid sh -c 'echo $$; sleep 300; true' & wait",
    "another session that is waited for": "setsid -w sh -c 'echo $$; sleep 300; true'",
    "an orphan in another session that is deaf": "(setsid sh -c 'trap \"\" TERM HUP; echo $$; while :; do sleep 0.1; done' &); sleep 300",
}


@pytest.mark.parametrize(
    ("way", "how"),
    [(way, "cancel") for way in WAYS_OUT]
    + [(way, how) for way in list(WAYS_OUT)[::3] for how in ("timeout", "cancel without its folder")],
)
def test_cancel_and_time_limit_end_what_left_the_programs_group_or_session(tmp_path: Path, way: str, how: str) -> None:
    """CASE: coreutils' `timeout` makes a group of its own; it went on after `cancelled`."""

    async def claim(hub: HubWire, agent: AgentProcess) -> None:
        await hub.command("strays", "c1")
        await hub.until(lambda: hub.output.get("c1"), "the pid of what goes its own way")
        pid = int(hub.lines("c1")[0])
        if how == "cancel without its folder":
            shutil.rmtree(agent.run_folder("c1"))
        if how != "timeout":
            await hub.send("kill_command", signal="SIGTERM", pid=0, command_id="c1")
        report = await hub.report("c1")
        ended = {"cancel": "cancelled", "timeout": "timed_out"}.get(how, "error")
        assert (report["status"], start_ticks(pid)) == (ended, None)
        assert how == "cancel without its folder" or report["exit_code"] == 143

    timeout_s = 3.0 if how == "timeout" else 100.0
    play(tmp_path, {"strays": {"argv": ["/bin/bash", "-c", WAYS_OUT[way]], "timeout_s": timeout_s}}, claim)


def test_what_cannot_be_ended_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of another user, or one that hangs in the kernel: nobody may read `cancelled` and believe it gone."""
    monkeypatch.setattr(shim, "KILL_ROUNDS_MAX", 2)
    with subprocess.Popen(["sleep", "1000"]) as child:
        try:
            with monkeypatch.context() as deaf:
                deaf.setattr(os, "kill", lambda *_: None)
                assert shim._end_all() == f"1 of its processes cannot be ended and still run: sleep ({child.pid})"
        finally:
            child.kill()


def test_what_is_hidden_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With hidepid an agent does not see what another user runs, sudo for instance: it is not gone because of that."""
    monkeypatch.setattr(shim, "KILL_ROUNDS_MAX", 2)
    monkeypatch.setattr(shim, "_descendants", dict)
    with subprocess.Popen(["sleep", "1000"]) as child:
        try:
            assert shim._end_all() == "some of its processes are hidden from this agent and still run"
        finally:
            child.kill()


def test_end_of_a_program_that_leaves_a_daemon_leaves_that_alone_and_says_that_its_output_is_cut(
    tmp_path: Path,
) -> None:
    """CASE: nobody read the daemon's output any more, and its first line after the end ended it (SIGPIPE)."""
    after, go = tmp_path / "after", tmp_path / "go"
    later = f"while [ ! -e {go} ]; do sleep 0.05; done; echo out; echo err >&2; echo saved > {after}; exec sleep 1000"

    async def claim(hub: HubWire, agent: AgentProcess) -> None:
        await hub.command("daemon", "c1")
        report = await hub.report("c1")
        pid = int(hub.lines("c1")[0])
        assert (report["status"], start_ticks(pid) is not None) == ("ok", True)
        assert "still held its output open" in report["message"]
        await until(lambda: [each.name() for each in readers_of(pid)] == ["cat", "cat"], "a reader of each stream")
        readers = readers_of(pid)
        for reader in readers:  # it is no part of the command: not of its run, nor of what an agent looks for
            assert "FLEETHUB_RUN" not in reader.environ()
            assert not [file.path for file in reader.open_files() if str(agent.state) in file.path]
        go.touch()
        await until(after.exists, "what the daemon does after its lines")
        assert start_ticks(pid) is not None
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not any(map(is_alive, readers)), "the end of its readers")

    play(tmp_path, {"daemon": ["/bin/sh", "-c", f"setsid sh -c '{later}' & echo $!"]}, claim)


def test_what_a_command_leaves_is_reaped_by_an_agent_that_is_the_first_process(tmp_path: Path) -> None:
    """CASE: in a container whose process 1 is the agent, each command that left something left a zombie too."""

    async def claim(hub: HubWire, agent: AgentProcess) -> None:
        assert agent.process is not None
        for number in range(3):
            await hub.command("leaves", f"c{number}")
            assert (await hub.report(f"c{number}"))["status"] == "ok"
        await until(lambda: not list((agent.state / "runs").iterdir()), "the end of the last run folder")
        (tmp_path / "go").touch()
        children = psutil.Process(agent.process.pid).children
        await until(lambda: not children(recursive=True), "the end of all that was left")

    left = f"(while [ ! -e {tmp_path}/go ]; do sleep 0.05; done >/dev/null 2>&1 &)"
    become = "import ctypes, os, sys; ctypes.CDLL(None).prctl(36, 1, 0, 0, 0); os.execv(sys.executable, sys.argv[1:])"

    async def scene() -> None:
        async with HubWire() as hub:
            agent = AgentProcess(tmp_path, hub.url, TOKEN, {"leaves": ["/bin/sh", "-c", left]})
            agent.start(before=[sys.executable, "-c", become])
            try:
                await hub.registered()
                await claim(hub, agent)
            finally:
                agent.end_all()

    asyncio.run(scene())


def test_reboot_in_the_middle_has_its_own_reason(tmp_path: Path) -> None:
    async def claim(hub: HubWire, agent: AgentProcess) -> None:
        await family(hub)
        await agent.kill(signal.SIGKILL)
        folder = agent.run_folder("c1")
        before = fields(folder / "started")
        os.kill(int(fields(folder / "lock")["pid"]), signal.SIGKILL)
        os.killpg(int(before["pid"]), signal.SIGKILL)
        (folder / "started").write_text(
            f"pid={before['pid']}\nstart_ticks={before['start_ticks']}\nboot_id=the-boot-before\n"
        )
        agent.start()
        report = await hub.report("c1")
        assert (report["status"], report["reason"]) == ("error", "rebooted")
        assert "rebooted during the command, outcome unknown" in report["message"]
        assert len(hub.lines("c1")) == 2, "what is known is kept"

    play(tmp_path, {"family": ["/bin/sh", "-c", FAMILY]}, claim)


def test_a_bar_of_progress_is_shown_while_it_is_drawn(tmp_path: Path) -> None:
    """The bug it would catch: a line that ends only when all is done is shown when all is done."""
    script = f"n=0; while [ ! -e {tmp_path}/go ]; do n=$((n+1)); printf '%s %%\\r' $n; sleep 0.05; done; printf '100 %%\\r\\nall\\r\\ndone'"

    async def claim(hub: HubWire, _agent: AgentProcess) -> None:
        await hub.command("bar", "c1")
        await hub.until(lambda: len(hub.output.get("c1", {})) >= 2, "two looks at it")
        (tmp_path / "go").touch()
        await hub.until(lambda: hub.reports.get("c1"), "the end")
        *bar, last, after, end = hub.lines("c1")
        assert all(line.endswith(" %\r") for line in bar)
        assert (last.rpartition("\r")[2], after, end) == ("100 %", "all", "done")

    play(tmp_path, {"bar": ["/bin/sh", "-c", script]}, claim)


def test_shim_takes_the_room_for_its_end_before_it_starts_anything(tmp_path: Path) -> None:
    folder.prepare(tmp_path)
    (tmp_path / "exit.new").symlink_to("/dev/full")
    argv = ["python3", "-I", "-S", str(shim.__file__), str(tmp_path), "30", "1000", "touch", f"{tmp_path}/ran"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode not in (0, shim.EXIT_NOT_RUN)
    assert "No space left" in done.stderr
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "started").exists()


def test_shim_that_cannot_write_its_end_gives_up_at_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exit.new").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        shim._write_exit("ok", 0, "", wait_s_max=0.0)
    assert not (tmp_path / "exit").exists()


def test_what_the_disk_takes_byte_by_byte_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`started` and `exit` are whole, or nothing says that they are there."""
    monkeypatch.chdir(tmp_path)
    folder.prepare(tmp_path)
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, content: write(fd, bytes(content)[:1]))
    shim._write_started()
    shim._write_exit("ok", 0, "")
    assert [line.partition("=")[0] for line in Path("started").read_text().splitlines()] == [
        "pid", "start_ticks", "boot_id",
    ]  # fmt: skip
    assert Path("exit").read_text() == "status=ok\ncode=0\nmessage=\n"


def test_room_that_the_disk_gives_only_a_part_of_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command does not start without all the room that its end will need."""
    monkeypatch.chdir(tmp_path)
    write, left = os.write, [100]

    def nearly_full(fd: int, content: bytes) -> int:
        if left[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken, left[0] = min(left[0], len(content)), max(0, left[0] - len(content))
        return write(fd, bytes(content)[:taken])

    monkeypatch.setattr(os, "write", nearly_full)
    with pytest.raises(OSError, match="No space"):
        shim._fill_exit(b" " * shim.EXIT_BYTES)
