"""Whatever is removed, emptied, cut, made read-only or full at an agent, at whatever moment: a command runs at most
once, ends as what is true (`lost` at the hub, where nobody knows), and its host takes the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from doubles.agent_process import AgentProcess, agent_process, until
from doubles.hub_wire import TOKEN, HubWire

from processes.adapters import clock
from processes.adapters.state.pulse_file import start_ticks
from processes.agent.folder import HOLE_MARK
from processes.core.values import Unknown

Claim = Callable[[HubWire, AgentProcess], Coroutine[Any, Any, None]]
UNKNOWN = set(Unknown)  # the hub makes `lost` of them
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


def play(
    home: Path,
    commands: dict[str, Any],
    claim: Claim,
    *,
    prepare: Callable[[AgentProcess], None] | None = None,
    begins_anew: bool = False,
) -> None:
    """Runs `claim` with a hub and an agent that is registered and offers `next`, which always succeeds. `begins_anew`:
    its journal goes, so it becomes its own program anew.
    """

    async def scene() -> None:
        offers = {"next": ["true"], **commands}
        async with HubWire() as hub:
            if prepare is not None:
                prepare(AgentProcess(home, hub.url, TOKEN, offers))
            async with agent_process(home, hub.url, TOKEN, offers, forked=not begins_anew) as agent:
                await hub.registered()
                await claim(hub, agent)

    asyncio.run(scene())


def runs(home: Path) -> int:
    path = home / "runs.txt"
    return len(path.read_text().split()) if path.exists() else 0


def waiting(home: Path, name: str = "go") -> str:
    """A piece of shell that goes on once the test has made the file."""
    return f"while [ ! -e {home}/{name} ]; do sleep 0.02; done"


def script(home: Path, *pieces: str) -> list[str]:
    """An argv that leaves a word in a file each time it is really run."""
    return ["/bin/sh", "-c", "; ".join([f"echo run >> {home}/runs.txt", *pieces])]


async def next_one_runs(hub: HubWire, command_id: str = "n1") -> None:
    """The host is not blocked: it takes a command and runs it."""
    await hub.command("next", command_id)
    assert (await hub.report(command_id))["status"] == "ok"


def end(home: Path, what: str) -> None:
    """Does to a run folder, or to all of them, what others may do at any time."""
    (folder,) = (home / "agent-state" / "runs").iterdir()
    match what:
        case "the folder is removed":
            shutil.rmtree(folder)
        case "all folders are removed":
            shutil.rmtree(folder.parent)
        case "the folder is emptied":
            for file in folder.iterdir():
                file.unlink()
        case "each file is cut to nothing":
            for file in folder.iterdir():
                os.truncate(file, 0)
        case "its start is forgotten":
            (folder / "started").unlink()
        case "its lock is removed":
            (folder / "lock").unlink()
        case "the folder is a file":
            shutil.rmtree(folder)
            folder.write_text("")


WAYS = ["the folder is removed", "all folders are removed", "the folder is emptied", "each file is cut to nothing",
        "its start is forgotten", "its lock is removed", "the folder is a file"]  # fmt: skip


def test_command_that_removes_all_run_folders_runs_once_and_ends_as_unknown(tmp_path: Path) -> None:
    """CASE: an op that tidies up, seen before its agent has looked: five starts, and then `not run`."""

    async def claim(hub: HubWire, agent: AgentProcess) -> None:
        await hub.command("clean", "c1")
        report = await hub.report("c1")
        assert (report["status"], report["reason"]) == ("error", "record_unreadable")
        assert "its run folder was removed or emptied, outcome unknown" in report["message"]
        await next_one_runs(hub)
        assert runs(tmp_path) == 1
        assert agent.logged().count("starting") == 2, "one for each command"

    play(
        tmp_path,
        {"clean": ["/bin/sh", "-c", f"rm -rf {tmp_path}/agent-state/runs/*; echo run >> {tmp_path}/runs.txt"]},
        claim,
    )


@pytest.mark.parametrize(("way", "restarted"), [(way, False) for way in WAYS] + [(way, True) for way in WAYS[:4]])
def test_command_whose_folder_goes_while_it_runs_runs_on_once_and_ends(
    tmp_path: Path, way: str, restarted: bool
) -> None:
    """CASE: it stayed `running` for ever, and the next agent executed it again."""

    async def claim(hub: HubWire, agent: AgentProcess) -> None:
        await hub.command("slow", "c1")
        await hub.until(lambda: hub.output.get("c1"), "its output")
        pid = int(hub.lines("c1")[0])
        end(tmp_path, way)
        if restarted:
            await agent.kill(signal.SIGKILL)
            agent.start()
            assert [known["command_id"] for known in (await hub.registered(2))["known"]] == ["c1"]
        beats = len(hub.of("heartbeat"))
        await hub.until(lambda: len(hub.of("heartbeat")) > beats + 3, "it is watched for a while")
        assert "c1" not in hub.reports
        assert start_ticks(pid) is not None
        (tmp_path / "go").touch()
        report = await hub.report("c1")
        assert report["status"] == "ok" or report["reason"] in UNKNOWN, report
        if way in ("the folder is removed", "all folders are removed", "the folder is a file"):
            assert report["reason"] == "record_unreadable", "nobody can know"
        await next_one_runs(hub)
        assert runs(tmp_path) == 1

    play(tmp_path, {"slow": script(tmp_path, "echo $$", waiting(tmp_path))}, claim)


@pytest.mark.parametrize("way", ["the folder is removed", "the folder is emptied", "each file is cut to nothing"])
def test_command_that_ended_while_no_agent_lived_and_whose_folder_went_is_not_run_again(
    tmp_path: Path, way: str
) -> None:
    async def claim(hub: HubWire, agent: AgentProcess) -> None:
        await hub.command("slow", "c1")
        await hub.until(lambda: hub.output.get("c1"), "its output")
        await agent.kill(signal.SIGKILL)
        (tmp_path / "go").touch()
        await until((agent.run_folder("c1") / "exit").exists, "its exit")
        end(tmp_path, way)
        agent.start()
        assert (await hub.report("c1"))["reason"] in UNKNOWN
        await next_one_runs(hub)
        assert runs(tmp_path) == 1

    play(tmp_path, {"slow": script(tmp_path, "echo begun", waiting(tmp_path))}, claim)


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("way", ["cancel", "timeout"])
def test_cancel_and_time_limit_end_a_command_without_a_run_folder(tmp_path: Path, way: str, restarted: bool) -> None:
    async def claim(hub: HubWire, agent: AgentProcess) -> None:
        await hub.command("slow", "c1")
        await hub.until(lambda: len(hub.output.get("c1", {})) == 2, "its output")
        pids = [int(line) for line in hub.lines("c1")]
        end(tmp_path, "all folders are removed")
        if restarted:
            await agent.kill(signal.SIGKILL)
            agent.start()
            await hub.registered(2)
        if way == "cancel":
            await hub.send("kill_command", signal="SIGTERM", pid=0, command_id="c1")
        assert (await hub.report("c1"))["reason"] in UNKNOWN
        assert not any(map(start_ticks, pids))
        await next_one_runs(hub)
        assert runs(tmp_path) == 1

    offer = {
        "argv": script(tmp_path, "sleep 1000 & echo $!; echo $$", "wait"),
        "timeout_s": 4.0 if way == "timeout" else 100.0,
    }
    play(tmp_path, {"slow": offer}, claim)


def test_agent_whose_whole_state_goes_tells_the_end_and_begins_anew_by_itself(tmp_path: Path) -> None:
    """CASE: nothing was logged, and the host was blocked until somebody restarted the agent."""

    async def claim(hub: HubWire, agent: AgentProcess) -> None:
        before = (await hub.registered())["journal_id"]
        await hub.command("slow", "c1")
        await hub.until(lambda: hub.output.get("c1"), "its output")
        agent.state.rename(tmp_path / "gone")  # at once: agent and shim may be writing
        shutil.rmtree(tmp_path / "gone", ignore_errors=True)
        await hub.command("next", "c2")
        assert (await hub.first("command_rejected", "c2"))["reason"] in ("busy", "journal_failed")
        (tmp_path / "go").touch()
        assert (await hub.report("c1"))["reason"] == "record_unreadable"
        again = await hub.registered(2)
        assert again["journal_id"] != before
        assert again["known"] == []
        assert agent.process is not None
        assert agent.process.poll() is None, "the same process: nobody had to start it"
        assert "begins anew" in agent.logged()
        await next_one_runs(hub)
        assert runs(tmp_path) == 1
        second = AgentProcess(tmp_path, hub.url, TOKEN)
        second.start()
        assert second.process is not None
        assert await asyncio.to_thread(second.process.wait, 20) == 70, "its lock is a new one too"

    play(tmp_path, {"slow": script(tmp_path, "echo begun", waiting(tmp_path))}, claim, begins_anew=True)


@pytest.mark.parametrize(
    ("fault", "moment"),
    [("removed", "idle"), ("cut", "idle")]
    + [(fault, "running") for fault in ("removed", "emptied", "cut", "overwritten")],
)
def test_journal_that_goes_refuses_runs_nothing_twice_and_is_begun_anew(
    tmp_path: Path, fault: str, moment: str
) -> None:
    async def claim(hub: HubWire, agent: AgentProcess) -> None:
        before = (await hub.registered())["journal_id"]
        if moment == "running":
            await hub.command("slow", "c1")
            await hub.until(lambda: hub.output.get("c1"), "its output")
        journal = agent.state / "journal.db"
        match fault:
            case "removed":
                journal.unlink()
            case "emptied":
                os.truncate(journal, 0)
            case "cut":
                os.truncate(journal, journal.stat().st_size // 2)
            case "overwritten":
                journal.write_bytes(b"not a database " * 3000)
        await hub.command("beside", "c2")
        assert (await hub.first("command_rejected", "c2"))["reason"] == "journal_failed"
        if moment == "running":
            (tmp_path / "go").touch()
            report = await hub.report("c1")
            assert (report["status"], report["exit_code"]) == ("ok", 0), "its end is known all the same"
        again = await hub.registered(2)
        assert again["journal_id"] != before, "so the hub sends nothing again of what it had sent before"
        assert again["known"] == []
        await next_one_runs(hub)
        assert runs(tmp_path) == (moment == "running")
        assert "journal failed" in agent.logged()
        aside = list(agent.state.glob("journal.db.damaged-*"))
        assert len(aside) == (fault in ("cut", "overwritten"))

    beside = {"argv": script(tmp_path), "concurrent": True}
    play(
        tmp_path, {"slow": script(tmp_path, "echo begun", waiting(tmp_path)), "beside": beside}, claim, begins_anew=True
    )


def test_damaged_journal_of_a_dead_agent_is_kept_aside_and_what_runs_is_not_run_again(tmp_path: Path) -> None:
    async def claim(hub: HubWire, agent: AgentProcess) -> None:
        await hub.command("slow", "c1")
        await hub.until(lambda: hub.output.get("c1"), "its output")
        await agent.kill(signal.SIGKILL)
        os.truncate(agent.state / "journal.db", 5000)
        agent.start()
        again = await hub.registered(2)
        assert (again["known"], len(list(agent.state.glob("journal.db.damaged-*")))) == ([], 1)
        assert "the journal was damaged" in agent.logged()
        await next_one_runs(hub)
        (tmp_path / "go").touch()
        assert runs(tmp_path) == 1

    play(tmp_path, {"slow": script(tmp_path, "echo begun", waiting(tmp_path))}, claim)


@pytest.mark.parametrize("restarted", [False, True])
def test_spool_that_is_cut_while_its_program_runs_costs_output_only(tmp_path: Path, restarted: bool) -> None:
    """What comes later is shown, a mark stands for what is missing, and the end is the program's."""

    async def claim(hub: HubWire, agent: AgentProcess) -> None:
        await hub.command("slow", "c1")
        await hub.until(lambda: hub.output.get("c1"), "its output")
        os.truncate(agent.run_folder("c1") / "spool", 0)
        if restarted:
            await agent.kill(signal.SIGKILL)
        (tmp_path / "go").touch()
        if restarted:
            await until((agent.run_folder("c1") / "exit").exists, "its exit")
            agent.start()
        report = await hub.report("c1")
        assert (report["status"], report["exit_code"]) == ("error", 3)
        lines = hub.lines("c1")
        assert lines[0] in ("before", HOLE_MARK), "a hub keeps what it had under this offset"
        assert lines[-1] == "after"
        await next_one_runs(hub)

    play(tmp_path, {"slow": script(tmp_path, "echo before", waiting(tmp_path), "echo after", "exit 3")}, claim)


@pytest.mark.parametrize("way", ["removed", "emptied", "unreadable"])
def test_spool_that_goes_after_the_end_and_before_the_report_costs_output_only(tmp_path: Path, way: str) -> None:
    """CASE: the report waited for output that nobody had any more, and the host with it."""

    async def claim(hub: HubWire, agent: AgentProcess) -> None:
        hub.acknowledges_output = False
        await hub.command("much", "c1")
        await until((agent.run_folder("c1") / "exit").exists, "its exit")
        await hub.until(lambda: len(hub.output.get("c1", {})) > 500, "the first window of its output")
        beats = len(hub.of("heartbeat"))
        await hub.until(lambda: len(hub.of("heartbeat")) > beats + 3, "the window is full")
        spool = agent.run_folder("c1") / "spool"
        if way == "removed":
            spool.unlink()
        elif way == "emptied":
            os.truncate(spool, 0)
        else:
            spool.unlink()
            spool.mkdir()
        hub.acknowledges_output = True
        await hub.send("ack", command_id="c1", offset=len(hub.output["c1"]))
        report = await hub.report("c1")
        assert (report["status"], report["exit_code"]) == ("ok", 0)
        assert "some of its output was lost" in report["message"]
        await next_one_runs(hub)

    play(
        tmp_path,
        {"much": ["/bin/sh", "-c", "yes 0123456789012345678901234567890123456789012345678 | head -n 20000"]},
        claim,
    )


@contextlib.contextmanager
def small_disk(path: Path, size: str) -> Iterator[None]:
    """A file system of its own at `path`."""
    path.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "fleethub-test", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@needs_root
def test_run_folders_on_a_full_disk_start_nothing_say_so_and_recover(tmp_path: Path) -> None:
    """The journal's disk has room and the run folders' has none: `not run` is said, and is true for ever."""
    run_folders = tmp_path / "agent-state" / "runs"

    async def claim(hub: HubWire, agent: AgentProcess) -> None:
        ballast = run_folders / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 512)
        await hub.command("count", "c1", ttl_s=3.0)
        report = await hub.report("c1")
        assert (report["status"], report["reason"]) == ("error", "expired")
        assert "not run" in report["message"]
        await agent.kill()
        ballast.unlink()
        agent.start()
        await hub.registered(2)
        await next_one_runs(hub)
        assert runs(tmp_path) == 0

    with small_disk(run_folders, "64k"):
        play(tmp_path, {"count": script(tmp_path)}, claim)


@contextlib.contextmanager
def read_only(path: Path) -> Iterator[None]:
    """Whoever goes through this path finds a read-only file system. Files that are open already can be written."""
    subprocess.run(["mount", "--bind", str(path), str(path)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(path)], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@needs_root
@pytest.mark.parametrize("way", ["ends", "is cancelled"])
def test_command_on_a_disk_that_becomes_read_only_ends_and_the_host_goes_on_once_it_is_writable(
    tmp_path: Path, way: str
) -> None:
    async def claim(hub: HubWire, agent: AgentProcess) -> None:
        await hub.command("slow", "c1")
        await hub.until(lambda: hub.output.get("c1"), "its output")
        pid = int(hub.lines("c1")[0])
        with read_only(agent.state):
            await hub.command("beside", "c2")
            assert (await hub.first("command_rejected", "c2"))["reason"] == "journal_failed"
            if way == "ends":
                (tmp_path / "go").touch()
            else:
                await hub.send("kill_command", signal="SIGTERM", pid=0, command_id="c1")
            report = await hub.report("c1")
            assert report["status"] == ("ok" if way == "ends" else "cancelled")
            assert start_ticks(pid) is None
        await next_one_runs(hub)
        assert (runs(tmp_path), hub.connections) == (1, 1)

    beside = {"argv": script(tmp_path), "concurrent": True}
    play(tmp_path, {"slow": script(tmp_path, "echo $$", waiting(tmp_path)), "beside": beside}, claim, begins_anew=True)


OLD_JOURNAL = Path(__file__).parent / "journal_of_803da06.sql"


def test_journal_of_the_version_before_leads_to_no_start_where_no_folder_proves_anything(tmp_path: Path) -> None:
    """CASE: it accepted a command, and may have started it before its run folder was removed."""

    def prepare(agent: AgentProcess) -> None:
        agent.state.mkdir()
        base = sqlite3.connect(agent.state / "journal.db", isolation_level=None)
        base.executescript(OLD_JOURNAL.read_text().replace("0b6f2c50-9c57-4a7e-8e1f-6f0f5ad1f5ad", clock.boot_id()))
        base.close()
        done = agent.run_folder("accepted-2")
        done.mkdir(parents=True)
        (done / "started").write_text(f"pid=4194303\nstart_ticks=1\nboot_id={clock.boot_id()}\n")
        (done / "exit").write_text("status=error\ncode=4\nmessage=\n")

    async def claim(hub: HubWire, _: AgentProcess) -> None:
        assert (await hub.report("accepted-1"))["reason"] == "record_unreadable"
        assert (await hub.report("accepted-2"))["exit_code"] == 4
        assert (await hub.report("cancelled-1"))["status"] == "cancelled"
        await next_one_runs(hub)
        assert runs(tmp_path) == 0

    play(tmp_path, {"pull": script(tmp_path)}, claim, prepare=prepare)
