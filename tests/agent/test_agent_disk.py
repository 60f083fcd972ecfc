"""A full disk at the agent: commands are refused with the reason, output is cut with a mark, nothing is doubled, and it
recovers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doubles.agent_process import AgentProcess, agent_process, until
from doubles.hub_wire import TOKEN, HubWire

from processes.adapters.state import pulse_file
from processes.agent import folder, shim
from processes.agent.folder import SpoolReader
from processes.core.agent.remembered import ReportStatus

UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


def waiting(home: Path, name: str) -> str:
    return f"while [ ! -e {home}/{name} ]; do sleep 0.02; done"


def test_journal_that_may_not_grow_refuses_loudly_and_the_agent_lives_on_and_recovers(tmp_path: Path) -> None:
    """The kernel refuses each write of the agent beyond one byte, its log's too: as on a disk that is full, on any
    machine.
    """

    async def scene() -> None:
        runs = tmp_path / "runs.txt"
        async with (
            HubWire() as hub,
            agent_process(tmp_path, hub.url, TOKEN, {"count": ["/bin/sh", "-c", f"echo run >> {runs}"]}) as agent,
        ):
            await hub.registered()
            assert agent.process is not None
            resource.prlimit(agent.process.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
            await hub.command("count", "c1")
            await hub.first("command_rejected", "c1")
            await hub.command("count", "c1")
            await hub.until(lambda: len(hub.of("command_rejected", "c1")) == 2, "the second refusal")
            assert {rejected["reason"] for rejected in hub.of("command_rejected", "c1")} == {"journal_failed"}
            resource.prlimit(agent.process.pid, resource.RLIMIT_FSIZE, UNLIMITED)
            await hub.command("count", "c1")
            await hub.until(lambda: len(hub.of("command_rejected", "c1")) == 3, "what was refused stays refused")
            await hub.command("count", "c2")
            assert (await hub.report("c2"))["status"] == "ok"
            assert (runs.read_text().split(), hub.connections) == (["run"], 1)

    asyncio.run(scene())


@contextlib.contextmanager
def small_disk(path: Path, size: str) -> Iterator[None]:
    """A file system of its own at `path`."""
    path.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "fleethub-test", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root; the tests beside this one show the same without")
def test_disk_full_in_the_middle_costs_output_and_new_commands_and_nothing_else(tmp_path: Path) -> None:
    state, runs = tmp_path / "agent-state", tmp_path / "runs.txt"
    script = (
        f"echo run >> {runs}; echo begun; {waiting(tmp_path, 'full')}; "
        f"i=0; while [ $i -lt 10000 ]; do echo 'line that is lost'; i=$((i+1)); done; touch {tmp_path}/said; "
        f"{waiting(tmp_path, 'room')}; echo after; exit 3"
    )
    commands: dict[str, Any] = {
        "slow": ["/bin/sh", "-c", script],
        "count": {"argv": ["/bin/sh", "-c", f"echo count >> {runs}"], "concurrent": True},
    }

    async def scene() -> None:
        async with HubWire() as hub, agent_process(tmp_path, hub.url, TOKEN, commands) as agent:
            await hub.registered()
            await hub.command("slow", "c1")
            await hub.until(lambda: hub.output.get("c1"), "its first line")
            ballast = state / "ballast"
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(b"\0" * 512)
            (tmp_path / "full").touch()
            await until((tmp_path / "said").exists, "the output that there is no room for")
            await hub.command("count", "c2")
            assert (await hub.first("command_rejected", "c2"))["reason"] == "disk_full"
            turn = agent_turn(agent)
            await until(lambda: agent_turn(agent) > turn + 5, "the loop's turns")

            await agent.kill()  # and the next one starts on the full disk
            agent.start()
            await hub.registered(2)
            ballast.unlink()
            (tmp_path / "room").touch()
            report = await hub.report("c1")
            assert (report["status"], report["exit_code"]) == ("error", 3)
            lines = hub.lines("c1")
            assert (lines[0], lines[-1]) == ("begun", "after")
            marks = [line for line in lines if "bytes of output are missing here: No space left on device" in line]
            kept = lines.count(
                "line that is lost"
            )  # what the shim read before the disk was full, or when there was room again
            assert marks
            assert len(lines) == kept + len(marks) + 2
            assert report["message"] == f"{(10_000 - kept) * len('line that is lost ')} bytes of output were discarded"
            await hub.command("count", "c3")
            assert (await hub.report("c3"))["status"] == "ok"
            assert runs.read_text().split() == ["run", "count"]

    with small_disk(state, "1m"):
        asyncio.run(scene())


def agent_turn(agent: AgentProcess) -> int:
    pulse = pulse_file.read(agent.state / "pulse", "agent")
    return 0 if pulse is None else pulse.turn


def test_output_that_the_disk_does_not_take_is_counted_marked_and_costs_no_exit(tmp_path: Path) -> None:
    folder.prepare(tmp_path)
    (tmp_path / "spool").symlink_to("/dev/full")
    argv = ["python3", "-I", "-S", str(shim.__file__), str(tmp_path), "30", "100000", "sh", "-c", "echo lost; exit 4"]
    assert subprocess.run(argv, timeout=60).returncode == 0
    ended = folder.facts(tmp_path, False).ended
    assert ended is not None
    assert (ended.status, ended.exit_code, ended.message) == (ReportStatus.ERROR, 4, "5 bytes of output were discarded")


def test_output_goes_on_behind_a_mark_once_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = shim.Spool(str(tmp_path / "spool"), 1000)
    spool.take(1, b"one\n")
    spool._fd, real = os.open("/dev/full", os.O_WRONLY), spool._fd
    spool.take(1, b"lost\n")
    spool.take(2, b"lost too\n")
    spool._fd = real
    spool.take(1, b"two\n")
    spool.finish()
    mark = "[fleethub: 14 bytes of output are missing here: No space left on device]"
    assert [record.text for record in SpoolReader(tmp_path).read(0, 10_000)] == ["one", mark, "two"]
    assert spool.discarded_bytes == 14


def test_mark_is_written_at_the_end_if_nothing_follows(tmp_path: Path) -> None:
    spool = shim.Spool(str(tmp_path / "spool"), 1000)
    spool._fd, real = os.open("/dev/full", os.O_WRONLY), spool._fd
    spool.take(1, b"lost\n")
    spool._fd = real
    spool.finish()
    assert [record.text[:30] for record in SpoolReader(tmp_path).read(0, 10_000)] == ["[fleethub: 5 bytes of output a"]


def test_slow_disk_holds_up_the_answer_and_neither_heartbeats_nor_turns(tmp_path: Path) -> None:
    """The journal is locked for a while, as if its fsync did not return: the loop must not wait with it."""

    async def scene() -> None:
        async with HubWire() as hub, agent_process(tmp_path, hub.url, TOKEN, {"count": ["true"]}) as agent:
            await hub.registered()
            other = sqlite3.connect(agent.state / "journal.db", isolation_level=None)
            other.execute("BEGIN EXCLUSIVE")
            await hub.command("count", "c1")
            beats, turn = len(hub.of("heartbeat")), agent_turn(agent)
            await hub.until(lambda: len(hub.of("heartbeat")) >= beats + 4, "heartbeats meanwhile")
            assert agent_turn(agent) > turn
            assert hub.of("command_ack", "c1") == hub.of("command_rejected", "c1") == []
            other.execute("ROLLBACK")
            other.close()
            assert (await hub.report("c1"))["status"] == "ok"

    asyncio.run(scene())
