"""Evidence: what it names, and that nothing which hangs or is missing delays the kill."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from doubles.deadline import WAIT_S

from processes.adapters import proc
from processes.adapters.settings import Agents, File, Operators, Settings
from processes.watchdog import evidence, listening
from processes.watchdog.evidence import (
    collect,
    on_thread,
    pyspy,
    short,
    where_stuck,
    where_stuck_pyspy,
    where_waiting,
)
from processes.watchdog.process_reader import Subject

ROOT = Path(evidence.__file__).parents[2]

STACKS = f'''Thread 0x00007f0000000002 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 320 in wait
Current thread 0x00007f0000000001 (most recent call first):
  File "{ROOT}/processes/hub/loop.py", line 120 in step
  File "/x/asyncio/runners.py", line 118 in run
'''

PYSPY = f"""Process 7: python -m processes.hub
Python v3.11.7 (/usr/bin/python3.11)

Thread 12 (idle): "tasks"
    sigwait (bootstrap.py:12)
Thread 7 (idle): "MainThread"
    step (hub side) ({ROOT}/processes/hub/loop.py:120)
    run (asyncio/runners.py:118)
"""


def test_the_main_threads_innermost_frame_is_named_relative_to_the_package() -> None:
    assert where_stuck(STACKS) == "processes/hub/loop.py:120 step"


def test_when_more_threads_live_than_are_listed_the_last_is_not_taken_for_the_main_one() -> None:
    """faulthandler lists a hundred and writes three dots."""
    assert where_stuck(STACKS + "...\n") is None


@pytest.mark.parametrize("nothing", ["", "# the process is gone\n", "garbage\n" * 3])
def test_no_stacks_name_nothing(nothing: str) -> None:
    assert where_stuck(nothing) is None
    assert where_stuck_pyspy(nothing) is None
    assert where_waiting(nothing) is None


def test_the_second_witness_names_the_main_thread() -> None:
    assert where_stuck_pyspy(PYSPY) == "processes/hub/loop.py:120 step (hub side)"


def test_the_main_tasks_innermost_await_is_named() -> None:
    tasks = """# 1
<Task pending name='Task-7' coro=<a()>>
  File "/x/a.py", line 1 in a
<Task pending name='Task-1' coro=<b()>>
  File "/x/b.py", line 2 in b
  File "/x/c.py", line 3 in c
"""
    assert where_waiting(tasks) == "/x/c.py:3 c"


def test_only_paths_of_the_package_are_shortened() -> None:
    assert short(f"{ROOT}/processes/hub/loop.py") == "processes/hub/loop.py"
    assert short(f"{ROOT}/tests/x.py") == f"{ROOT}/tests/x.py"
    assert short("/usr/lib/x.py") == "/usr/lib/x.py"


def test_pyspy_that_is_missing_or_hangs_costs_only_itself(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        asyncio.run(pyspy(1, tmp_path / "none"))
    hanging = tmp_path / "py-spy"
    hanging.write_text("#!/bin/sh\nexec sleep 600\n")
    hanging.chmod(0o755)

    async def hang() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pyspy(1, hanging), 0.3)

    asyncio.run(hang())
    gc.collect()  # a pipe that was left open would be told now
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    assert not [pid for pid in children if "sleep" in proc.text(int(pid), "cmdline")], "not even a zombie"


def test_a_call_that_hangs_on_a_thread_is_left_behind() -> None:
    async def ask() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(on_thread(lambda: time.sleep(5)), 0.05)
        assert await on_thread(lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            await on_thread(lambda: 1 / 0)

    asyncio.run(ask())


async def _collected(
    tmp_path: Path, child: subprocess.Popen[bytes], state: str = "S", evidence_s_max: float = WAIT_S
) -> evidence.Evidence:
    found = Settings(tmp_path, tmp_path / "fleethub.toml", File())
    stat = proc.stat(child.pid)
    assert stat is not None
    subject = Subject("hub", child.pid, stat.start_ticks, os.pidfd_open(child.pid), stat=stat._replace(state=state))
    collected = await collect(tmp_path / "incidents" / "x", subject, found, [], evidence_s_max=evidence_s_max)
    os.close(subject.pidfd)
    return collected


def test_a_process_that_answers_no_signal_is_not_waited_for_and_leaves_the_rest(tmp_path: Path) -> None:
    """It ignores SIGUSR1 and SIGUSR2 and writes no files: stacks and tasks are missing, the second witness is not."""
    code = "import signal,time\nfor n in (10, 12): signal.signal(n, signal.SIG_IGN)\nprint(flush=True)\ndef stuck(): time.sleep(600)\nstuck()"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        collected = asyncio.run(_collected(tmp_path, child, evidence_s_max=2.0))
        assert collected.stuck_at is not None
        assert collected.stuck_at.endswith(" stuck")
        folder = tmp_path / "incidents" / "x"
        assert "nothing in time" in (folder / "stacks.txt").read_text()
        assert "nothing in time" in (folder / "tasks.txt").read_text()
        assert str(child.pid) in (folder / "proc.json").read_text()
    finally:
        child.kill()
        child.communicate()


def test_a_process_that_is_gone_leaves_what_there_is(tmp_path: Path) -> None:
    """Neither facts nor witnesses; the files say why not, and nothing raises."""
    child = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); import time; time.sleep(600)"], stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.readline()

    async def gone() -> evidence.Evidence:
        found = Settings(tmp_path, tmp_path / "fleethub.toml", File())
        subject = Subject("hub", child.pid, 1, os.pidfd_open(child.pid))
        child.kill()
        child.communicate()
        collected = await collect(tmp_path / "incidents" / "x", subject, found, [])
        os.close(subject.pidfd)
        return collected

    collected = asyncio.run(gone())
    assert collected.stuck_at is None
    assert "gone" in (tmp_path / "incidents" / "x" / "stacks.txt").read_text()
    assert "could not be collected" in (tmp_path / "incidents" / "x" / "proc.json").read_text()


def test_a_disk_that_takes_nothing_still_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "incidents").write_text("a file where the folder should be")
    child = subprocess.Popen(
        [sys.executable, "-c", "def stuck():\n import time; print(flush=True); time.sleep(600)\nstuck()"], stdout=-1
    )
    try:
        assert child.stdout is not None
        child.stdout.readline()
        child.send_signal(signal.SIGSTOP)
        collected = asyncio.run(_collected(tmp_path, child, "T"))
        assert collected.files == []
        assert collected.stuck_at is not None
        assert collected.stuck_at.endswith(" stuck")
    finally:
        child.kill()
        child.communicate()


def test_logs_are_cut_to_their_tails(tmp_path: Path) -> None:
    (tmp_path / "gateway-1.log").write_text("old\n" + "x" * evidence.TAIL_BYTES)
    (tmp_path / "gateway-2.out").write_text("last words\n")
    text = evidence.logs_of(tmp_path, "gateway:1")
    assert "old" not in text
    assert "last words" in text
    assert "No such file" in evidence.logs_of(tmp_path, "hub")


def test_a_disk_that_is_full_leaves_no_file_and_still_names_the_line(tmp_path: Path) -> None:
    """Nothing can be written, as on a full disk: the line is in the incident all the same."""
    code = "def stuck():\n import time; print(flush=True); time.sleep(600)\nstuck()"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        child.send_signal(signal.SIGSTOP)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        collected = asyncio.run(_collected(tmp_path, child, "T"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        child.kill()
        child.communicate()
    assert collected.files == []
    assert collected.stuck_at is not None
    assert collected.stuck_at.endswith(" stuck")


def test_no_secret_of_the_process_is_in_its_evidence(tmp_path: Path) -> None:
    """Its environment, its arguments, its local variables and its descriptors' names may hold tokens."""
    secret = "canary-3f1b9a77"
    code = (
        "import signal, sys, faulthandler\nfrom pathlib import Path\nfrom processes.adapters import bootstrap\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})\nbootstrap.open_stacks(Path(sys.argv[1]), 'hub')\n"
        "import asyncio\n"
        "async def main(token):\n"
        "    bootstrap._write_tasks_on_signal(asyncio.get_running_loop(), Path(sys.argv[1]) / 'hub.tasks')\n"
        "    print(flush=True)\n    await waits(token)\n"
        "async def waits(token):\n    await asyncio.sleep(600)\n"
        "asyncio.run(main(sys.argv[2]))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "run" / "stacks"), secret], stdout=subprocess.PIPE,
        env={**os.environ, "FLEETHUB_OPERATOR_TOKEN": secret, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        assert child.stdout is not None
        child.stdout.readline()
        collected = asyncio.run(_collected(tmp_path, child))
    finally:
        child.kill()
        child.communicate()
    folder = tmp_path / "incidents" / "x"
    texts = {path.name: path.read_text() for path in folder.iterdir()}
    assert set(texts) == set(collected.files)
    assert "waits" in texts["tasks.txt"]
    assert "most recent call first" in texts["stacks.txt"]
    assert not [name for name, text in texts.items() if secret in text]


def test_the_kill_does_not_wait_for_a_part_that_hangs_once_the_stacks_are_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()  # until all is collected, this part hangs
    monkeypatch.setattr(psutil, "Process", lambda _: over.wait())
    code = "def stuck():\n import time; print(flush=True); time.sleep(600)\nstuck()"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        child.send_signal(signal.SIGSTOP)
        collected = asyncio.run(_collected(tmp_path, child, "T"))
    finally:
        over.set()
        child.kill()
        child.communicate()
    assert collected.stuck_at is not None
    assert "nothing in time" in (tmp_path / "incidents" / "x" / "proc.json").read_text()


TCP = """\
   0: 0100007F:1E15 00000000:0000 0A 00000000:00000003 00:00000000 00000000     0        0 9041 1 0000000000000000 100 0
   1: 0100007F:1E14 00000000:0000 0A 00000000:00000009 00:00000000 00000000     0        0 9042 1 0000000000000000 100 0
   2: 0100007F:1E15 0100007F:D9F2 01 00000000:00000000 00:00000000 00000000     0        0 9043 1 0000000000000000 20 4
   3: 0100007F:1E15 0100007F:D9F4 08 00000000:00000001 00:00000000 00000000     0        0 9044 1 0000000000000000 20 4
   4: 0100007F:D9F2 0100007F:1E15 01 00000000:00000000 00:00000000 00000000     0        0 9045 1 0000000000000000 20 4
"""
NETSTAT = """\
TcpExt: SyncookiesSent ListenOverflows ListenDrops TCPHPHits
TcpExt: 0 68 70 5
IpExt: InNoRoutes InOctets
IpExt: 1 2
"""


def test_of_a_port_it_is_told_who_waits_there_and_what_the_kernel_dropped() -> None:
    assert listening.at_port(TCP.splitlines(), 0x1E15) == [
        "listening socket: 3 connections wait to be accepted",
        "connections: CLOSE_WAIT 1, ESTABLISHED 1",
    ]
    assert listening.at_port(TCP.splitlines(), 7) == ["nobody listens there", "connections: none"]
    assert listening.drops(NETSTAT) == "ListenOverflows 68, ListenDrops 70"
    assert listening.drops("") == "ListenOverflows unknown, ListenDrops unknown"


@pytest.mark.parametrize("kind", ["hub", "gateway", "fanout:1"])
def test_the_evidence_of_a_process_with_a_port_has_what_waits_there(tmp_path: Path, kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock, socket.create_connection(sock.getsockname()):
        listen = f"127.0.0.1:{sock.getsockname()[1]}"
        file = File(agents=Agents(listen), operators=Operators(listen))
        subject = Subject(kind, pid=os.getpid())  # without a pidfd no signal is sent
        asyncio.run(collect(tmp_path, subject, Settings(tmp_path, tmp_path / "x", file), []))
        told = tmp_path / "listening.txt"
        assert told.exists() == (kind != "hub")
        if kind != "hub":
            lines = told.read_text().splitlines()
            assert lines[1] == "listening socket: 1 connections wait to be accepted"
            assert re.fullmatch(rf"descriptors of process {os.getpid()}: \d+; Max open files .*", lines[-1])
