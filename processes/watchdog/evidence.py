"""Collects evidence of a frozen process before it is killed: all parts in parallel, within EVIDENCE_S_MAX.

The stacks are what a rescue is delayed for; once they are in, the other parts get REST_S more.

A part that fails or hangs costs itself and nothing else: a line that says why stands in its place. No local variables
are ever collected: they would hold secrets.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import psutil

from processes.adapters import ownership, proc
from processes.adapters import settings as settings_of
from processes.adapters.settings import Settings
from processes.adapters.state import durable, stacks_file
from processes.adapters.supervisor import HELD
from processes.core.shown.status import QueueReport
from processes.watchdog import listening, process_reader
from processes.watchdog.process_reader import Subject

EVIDENCE_S_MAX: Final = 1.0  # the kill waits no longer
REST_S: Final = 0.2  # measured: every part that answers at all does so within 0.1 s
STACKS: Final = ("stacks.txt", "pyspy.txt")
TAIL_BYTES: Final = 64 * 1024
PART_BYTES_MAX: Final = 1 << 20  # of one file in an incident's folder
REAP_S: Final = 0.2  # after a kill
POLL_S: Final = 0.01
ASKED_MAX: Final = 3  # the kernel may let another thread take the signal, if the main one has just taken another
SETTLED_S: Final = 0.03  # a dump that did not grow for so long is complete; faulthandler writes it in about 2 ms

_FRAME: Final = re.compile(r'^\s+File "(.+)", line (\d+|\?\?\?) in (.+)$')
_PYSPY_FRAME: Final = re.compile(r"^\s+(\S.*) \((.+):(\d+)\)$")
# the process's arguments: whatever somebody put there stays out
_ARGUMENTS: Final = re.compile(r"\AProcess \d+:.*?^(?=Python v)", re.DOTALL | re.MULTILINE)
_PACKAGE: Final = Path(__file__).resolve().parents[2]

T = TypeVar("T")


@dataclass(frozen=True)
class Evidence:
    """What was collected: file names in the incident's folder, and where the main thread stands, if that is known."""

    files: list[str]
    stuck_at: str | None
    waits_at: str | None = None  # where the main task waits, if the main thread is in the event loop itself
    stopped: bool = False  # by a signal or a debugger: then it does not matter where it stands


async def collect(
    folder: Path,
    subject: Subject,
    settings: Settings,
    queues: list[QueueReport],
    *,
    evidence_s_max: float = EVIDENCE_S_MAX,
) -> Evidence:
    """Fills the incident's folder. Never raises, never takes longer than `evidence_s_max` (and a moment for the
    files).
    """
    stacks = stacks_file.folder(settings.run)
    stopped = subject.stat is not None and subject.stat.state in "Tt"
    parts: dict[str, Awaitable[str]] = {
        "pulse.json": _given(_json(subject.pulse)),
        "queues.json": _given(_json(queues)),
        "proc.json": on_thread(lambda: facts(subject.pid)),
        "stacks.txt": stacks_of(subject, stacks_file.of_main(stacks, subject.name), stopped),
        "tasks.txt": tasks_of(subject, stacks_file.of_tasks(stacks, subject.name), stopped),
        "pyspy.txt": pyspy(subject.pid),
        "log.txt": on_thread(lambda: logs_of(settings.log, subject.name)),
    }
    ports = {"gateway": settings.file.agents.listen, "fanout": settings.file.operators.listen}
    if listen := ports.get(subject.name.partition(":")[0]):
        parts["listening.txt"] = on_thread(lambda: listening.of(subject.pid, settings_of.address(listen)[1]))
    tasks = {name: asyncio.ensure_future(part) for name, part in parts.items()}
    deadline_s = time.monotonic() + evidence_s_max
    await asyncio.wait([tasks[name] for name in STACKS], timeout=evidence_s_max)
    await asyncio.wait(tasks.values(), timeout=max(0.0, min(REST_S, deadline_s - time.monotonic())))
    texts: dict[str, str] = {}
    for name, task in tasks.items():
        if not task.done():
            task.cancel()
            texts[name] = "# nothing in time\n"
        elif task.cancelled() or task.exception() is not None:
            texts[name] = f"# could not be collected: {task.exception() if not task.cancelled() else 'cancelled'}\n"
        else:
            texts[name] = task.result()
    where = where_stuck(texts["stacks.txt"]) or where_stuck_pyspy(texts["pyspy.txt"])
    written: list[str] = []
    with contextlib.suppress(TimeoutError, OSError):  # a full or hanging disk must not keep a frozen process alive
        written = await within(evidence_s_max, on_thread(lambda: _write(folder, texts)))
    return Evidence(written, where, where_waiting(texts["tasks.txt"]), stopped)


async def stacks_of(subject: Subject, path: Path, stopped: bool) -> str:
    """Return the main thread's Python stack, as faulthandler writes it at SIGUSR1: also in C code, or with a lock."""
    if stopped:
        return "# not asked for: the process is stopped and takes no signals\n"
    text = ""
    for _ in range(ASKED_MAX):
        before = _size(path)
        if not process_reader.send(subject, signal.SIGUSR1):
            return text or "# the process is gone\n"
        size, since_s = before, time.monotonic()
        while size == before or time.monotonic() - since_s < SETTLED_S:
            await asyncio.sleep(POLL_S)
            if (now := _size(path)) != size:
                size, since_s = now, time.monotonic()
        with path.open("rb") as file:
            file.seek(before)
            text = file.read(PART_BYTES_MAX).decode(errors="replace")
        if not _is_beside(text):
            break
    return text


async def tasks_of(subject: Subject, path: Path, stopped: bool) -> str:
    """Return the other threads and the asyncio tasks with their stacks, as the process's tasks thread writes them at
    SIGUSR2.
    """
    if stopped:
        return "# not asked for: the process is stopped and takes no signals\n"
    before = _mark(path)
    if not process_reader.send(subject, signal.SIGUSR2):
        return "# the process is gone\n"
    mark, since_s = before, time.monotonic()
    while mark == before or time.monotonic() - since_s < SETTLED_S:  # some write it in place
        await asyncio.sleep(POLL_S)
        if (now := _mark(path)) != mark:
            mark, since_s = now, time.monotonic()
    with path.open("rb") as file:
        return file.read(PART_BYTES_MAX).decode(errors="replace")


async def pyspy(pid: int, program: Path | None = None) -> str:
    """Return the dump of py-spy, which works on stopped processes too. `program`: by default beside the interpreter."""
    path = program or Path(sys.executable).parent / "py-spy"
    child = await asyncio.create_subprocess_exec(
        path, "dump", "--nonblocking", "--full-filenames", "--pid", str(pid), stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        output, _ = await child.communicate()
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            # its pipe and its zombie are left to nobody; one that a kill does not end is
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REAP_S):
                    await child.communicate()
    return _ARGUMENTS.sub(f"Process {pid}:\n", output[:PART_BYTES_MAX].decode(errors="replace"))


def facts(pid: int) -> str:
    """Return what /proc and psutil say, as JSON. May hang for a process in state D."""
    process = psutil.Process(pid)
    with process.oneshot():
        times, memory = process.cpu_times(), process.memory_info()
        found: dict[str, object] = {
            "pid": pid,
            "state": process.status(),
            "threads": process.num_threads(),
            "cpu_user_s": times.user,
            "cpu_system_s": times.system,
            "rss_bytes": memory.rss,
            "descriptors": proc.descriptors(pid),
            "switches": process.num_ctx_switches()._asdict(),
        }
    for name in ("wchan", "stack", "schedstat", "status", "cgroup", "io", "smaps_rollup"):
        found[name] = proc.text(pid, name).strip()
    return _json(found)


def logs_of(folder: Path, name: str) -> str:
    """Return the tails of the process's own log and of the output that supervisord captured."""
    kind, _, number = name.partition(":")
    captured = f"{kind}-{int(number or 0) + 1}.out" if kind in HELD else f"{kind}.out"
    text = ""
    for file in (f"{name.replace(':', '-')}.log", captured):
        text += f"# {file}\n{_tail(folder / file)}\n"
    return text


def where_stuck(stacks: str) -> str | None:
    """Return FILE:LINE FUNCTION of the main thread's innermost frame in faulthandler's text; None if it has none."""
    if _is_beside(stacks):
        return None
    for line in stacks.splitlines():
        if frame := _FRAME.match(line):
            return f"{short(frame[1])}:{frame[2]} {frame[3]}"
    return None


def _is_beside(stacks: str) -> bool:
    """Return whether this is the stack of another thread than the main one: those begin in threading's _bootstrap."""
    return stacks.endswith(" in _bootstrap\n")


def where_stuck_pyspy(dump: str) -> str | None:
    """Return the same from py-spy's text, which names the main thread, or at least numbers it like its process."""
    pid = re.match(r"Process (\d+):", dump)
    lines = iter(dump.splitlines())
    for line in lines:
        if line.startswith("Thread ") and ('"MainThread"' in line or (pid and line.startswith(f"Thread {pid[1]} "))):
            frame = _PYSPY_FRAME.match(next(lines, ""))
            return f"{short(frame[2])}:{frame[3]} {frame[1]}" if frame else None
    return None


def where_waiting(tasks: str) -> str | None:
    """Return FILE:LINE FUNCTION of the main task's innermost await (asyncio's first) in the tasks thread's text."""
    for block in re.split(r"^(?=<Task)", tasks, flags=re.MULTILINE):
        frames = [frame for line in block.splitlines() if (frame := _FRAME.match(line))]
        if "name='Task-1'" in block.partition("\n")[0] and frames:
            return f"{short(frames[-1][1])}:{frames[-1][2]} {frames[-1][3]}"
    return None


def short(path: str) -> str:
    """Return the path relative to the package's root if it is inside (processes/hub/loop.py), else unchanged."""
    relative = os.path.relpath(path, _PACKAGE) if path.startswith(f"{_PACKAGE}/") else path
    return relative if relative.startswith("processes/") else path


def on_thread(call: Callable[[], T]) -> asyncio.Future[T]:
    """Make the call on a thread of its own, and return a future of its result. A thread that hangs is left behind:
    calls that hang cannot use up a pool.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # T itself may be None

    def run() -> None:
        result: T | None = None
        problem: BaseException | None = None
        try:
            result = call()
        except Exception as error:  # of any kind: the caller gets it
            problem = error
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nothing awaits the result any more
            loop.call_soon_threadsafe(settle, result, problem)

    threading.Thread(target=run, daemon=True).start()
    return future


async def within(timeout_s: float, awaitable: Awaitable[T]) -> T:
    """Return the awaitable's result. Raises: TimeoutError.

    Not asyncio.wait_for: that of Python 3.11 swallows a cancellation that meets a result.
    """
    async with asyncio.timeout(timeout_s):
        return await awaitable


async def _given(text: str) -> str:
    return text


def _json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=1).decode() + "\n"


def _write(folder: Path, texts: dict[str, str]) -> list[str]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    group = ownership.group_let_into(folder.parent.parent)
    if group is not None:  # a fanout's own user shows it
        ownership.let_read(folder.parent, group)
        ownership.let_read(folder, group)
    written = []
    for name, text in texts.items():
        with contextlib.suppress(OSError):
            durable.replace(folder / name, text.encode(errors="replace"), durable=False, group=group)
            written.append(name)
    return written


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            return file.read(TAIL_BYTES).decode(errors="replace")
    except OSError as error:
        return f"# {error}"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _mark(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_ino, found.st_mtime_ns
