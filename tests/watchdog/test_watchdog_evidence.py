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
from typing import Any

import psutil
import pytest
from doubles.deadline import WAIT_S

from processes.adapters import bootstrap, proc
from processes.adapters.settings import Agents, File, Operators, Settings
from processes.watchdog import evidence, listening, process_reader
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

STACKS = f'''Stack (most recent call first):
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


BESIDE = """Stack (most recent call first):
  File "/usr/lib/python3.11/signal.py", line 82 in sigwait
  File "/usr/lib/python3.11/threading.py", line 1002 in _bootstrap
"""


def test_the_stack_of_another_thread_is_not_taken_for_the_main_ones() -> None:
    assert where_stuck(BESIDE) is None


@pytest.mark.parametrize("deaf", [1, evidence.ASKED_MAX])
def test_when_another_thread_takes_the_signal_it_is_sent_again(
    deaf: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, sent = tmp_path / "hub.stacks", []

    def send(*_: object) -> bool:
        sent.append(1)
        with path.open("a") as file:
            file.write(BESIDE if len(sent) <= deaf else STACKS)
        return True

    monkeypatch.setattr(process_reader, "send", send)
    subject: Any = None
    text = asyncio.run(evidence.stacks_of(subject, path, stopped=False))
    assert text == (STACKS if deaf < evidence.ASKED_MAX else BESIDE)
    assert len(sent) == min(deaf + 1, evidence.ASKED_MAX)


@pytest.mark.parametrize("nothing", ["", "# the process is gone\n", "garbage\n" * 3])
def test_no_stacks_name_nothing(nothing: str) -> None:
    assert where_stuck(nothing) is None
    assert where_stuck_pyspy(nothing) is None
    assert where_waiting(nothing) is None


def test_the_second_witness_names_the_main_thread() -> None:
    assert where_stuck_pyspy(PYSPY) == "processes/hub/loop.py:120 step (hub side)"


def test_the_main_tasks_innermost_await_is_named() -> None:
    tasks = """# 1
Thread "queues-hub" (most recent call first):
  File "/x/q.py", line 9 in q
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


def test_the_looking_harms_no_process_whose_other_threads_run(tmp_path: Path) -> None:
    """The bug it would catch: faulthandler reads the frames of running threads, and a hub that was only looked at ends
    with SIGSEGV (python/cpython#116008; with all threads this test fails within thirty looks).
    """
    code = (
        "import signal, sys, threading\nfrom pathlib import Path\nfrom processes.adapters import bootstrap\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})\nfolder = Path(sys.argv[1])\n"
        "bootstrap.open_stacks(folder, 'hub')\nimport asyncio\n"
        "async def waits(deep):\n    await (waits(deep - 1) if deep else asyncio.sleep(600))\n"
        "async def main():\n"
        "    tasks = [asyncio.create_task(waits(10)) for _ in range(20)]\n    await asyncio.sleep(0)\n"
        "    bootstrap._write_tasks_on_signal(asyncio.get_running_loop(), folder / 'hub.tasks')\n"
        "    print(flush=True)\n    taken_twice = threading.Lock()\n    taken_twice.acquire()\n"
        "    taken_twice.acquire()\n"
        "asyncio.run(main())"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert child.stdout is not None
    child.stdout.readline()
    for look in range(200):
        child.send_signal(signal.SIGUSR2)
        time.sleep(look % 20 * 0.0002)  # so that the other signal finds the tasks thread anywhere in its work
        child.send_signal(signal.SIGUSR1)
        time.sleep(0.004)
    child.kill()
    assert child.wait() == -signal.SIGKILL, "it lived until it was killed"
    child.communicate()


def test_the_stacks_of_other_threads_are_with_the_tasks() -> None:
    over = threading.Event()

    def waits_for_the_end() -> None:
        over.wait()

    beside = threading.Thread(target=waits_for_the_end, name="beside")
    beside.start()
    try:
        text = bootstrap._threads()
    finally:
        over.set()
        beside.join()
    block = text[text.index('Thread "beside" (most recent call first):\n') :]
    assert "in waits_for_the_end" in block.partition("\nThread ")[0]
    assert "MainThread" not in text, "it is in the stacks"


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
