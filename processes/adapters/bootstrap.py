"""The door of every process under supervisord: the same order of opening, the same ways out.

A process's `__main__` is `run("hub", main)`; `main` gets a Process and returns when it has closed what it opened.
SIGTERM and SIGINT set `process.stop`. Any exception ends the process with 70: supervisord starts it anew, which is
always better than to go on half broken.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import faulthandler
import os
import resource
import select
import signal
import socket
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

import uvloop

from processes.adapters import logs, settings
from processes.adapters.settings import Settings, SettingsError
from processes.adapters.state import asked_to_end, deaths, durable, lock, stacks_file
from processes.adapters.state.deaths import Poison
from processes.adapters.state.pulse_file import PulseFile
from processes.core.errors import FleethubError, ResourceError

EXIT_OK: Final = 0
EXIT_SETTINGS: Final = 78  # EX_CONFIG of sysexits.h
EXIT_BROKEN: Final = 70  # EX_SOFTWARE of sysexits.h
STOP_S_MAX: Final = 4.5  # from SIGTERM to the end; a promise of 5 s to users, less the interpreter's own start and end
# measured: a loop spinning at 100 % starves its helper threads for seconds with the default
SWITCH_INTERVAL_S: Final = 0.0005
_PR_SET_PDEATHSIG: Final = 1  # prctl(2)
_PR_SET_PTRACER: Final = 0x59616D61  # prctl(2): "Yama"
_PR_SET_PTRACER_ANY: Final = -1
# of the memory limit: the watchdog replaces at the limit, but looks only a few times a second
RUNAWAY_FACTOR: Final = 2
RUNAWAY_BYTES: Final = 512 << 20  # beyond it, for stacks and arenas of threads that are reserved and never touched


@dataclass(frozen=True)
class Process:
    """One process of the installation, opened."""

    name: str  # the contract's: hub, gateway or gateway:1 …
    boot: str  # random, new at each start
    settings: Settings
    log: logs.Log
    pulse: PulseFile
    stop: asyncio.Event  # set once SIGTERM or SIGINT came
    poison: Poison  # what is not to be stepped: it ended the predecessors


def run(kind: str, main: Callable[[Process], Coroutine[None, None, None]], number: int = 0) -> NoReturn:
    """Runs `main` to its end and exits: 0 after a stop, 70 after an exception, 78 with wrong settings."""
    try:
        found = settings.load()
    except SettingsError as error:
        print(f"fleethub {kind}: {error}", file=sys.stderr, flush=True)
        os._exit(EXIT_SETTINGS)
    code = EXIT_BROKEN
    name = found.names(kind)[number]
    os.umask(0o077)
    die_with_parent()
    let_witness_in()
    limit_memory(found.file.memory.bytes_max(kind), kind)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})  # before any thread: only the witness thread takes it
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    log = logs.open_log(found.log, name)
    stacks = stacks_file.of_threads(stacks_file.folder(found.run), name)
    try:
        lock.hold(lock.place(found.run, name), wait_s=5.0)
        poison = deaths.examine(found, name)  # before anything of the predecessor is written over
        stacks = open_stacks(stacks_file.folder(found.run), name)
        pulse = PulseFile(found.pulses, name)
        process = Process(name, uuid.uuid4().hex[:12], found, log, pulse, asyncio.Event(), poison)
        log.info("started", pid=os.getpid())
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_guarded(process, main, stacks))
        code = EXIT_OK
        log.info("stopped")
    except FleethubError as error:
        log.error("gave up", error=str(error))
        print(f"fleethub {name}: {error}", file=sys.stderr, flush=True)
    except BaseException:
        log.error("died of an exception", exc_info=True)
        traceback.print_exc()
        with contextlib.suppress(OSError), stacks.open("a") as file:
            traceback.print_exc(file=file)  # for the successor, should it have to say what an event did
    finally:
        leave(code)


def leave(code: int) -> NoReturn:
    """Ends the process now, whatever threads still run, with the log written (for half a second at most)."""
    flusher = threading.Thread(target=logs.close, daemon=True)
    flusher.start()
    flusher.join(0.5)
    os._exit(code)


async def _guarded(process: Process, main: Callable[[Process], Coroutine[None, None, None]], stacks: Path) -> None:
    loop = asyncio.get_running_loop()
    _witness_tasks(loop, stacks_file.of_tasks(stacks.parent, process.name))

    def stop() -> None:
        process.log.info("stopping")
        asked_to_end.say(process.settings.run, process.name)
        process.stop.set()
        overdue = threading.Timer(STOP_S_MAX, leave, (EXIT_BROKEN,))  # a thread: the loop may be what hangs
        overdue.daemon = True
        overdue.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    await main(process)


def die_with_parent() -> None:
    """When supervisord dies, so does this process, at once: no orphan ever serves beside its successor.

    The parent may have died before the prctl: then nobody reads our stderr any more, and poll says so. (Comparing
    getppid is fooled where supervisord is process 1.)
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    poll = select.poll()
    poll.register(2, 0)
    if any(events & select.POLLERR for _, events in poll.poll(0)):
        os._exit(EXIT_BROKEN)


def let_witness_in() -> None:
    """py-spy, a child of the watchdog and no parent of ours, may read this process's stacks where Yama forbids it by
    default.

    Only processes of this same user: what else the kernel asks of a tracer stays. A kernel without Yama says EINVAL,
    and asks nothing.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PTRACER, ctypes.c_long(_PR_SET_PTRACER_ANY), 0, 0, 0)


def limit_memory(bytes_max: int, kind: str) -> None:
    """An allocation that runs away fails here, as MemoryError, before the machine suffers.

    RLIMIT_DATA: what is private and writable. (RLIMIT_AS would count the address space that threads and allocators only
    reserve.)
    Not for the agent and the watchdog: their children, an operator's commands among them, would inherit it.
    """
    if bytes_max and kind not in ("agent", "watchdog"):
        wanted = RUNAWAY_FACTOR * bytes_max + RUNAWAY_BYTES
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def listening_socket(descriptor: int = 0) -> socket.socket:
    """The socket that supervisord holds for a kind of process, so that nobody is refused while one is replaced.

    Raises: ResourceError, if there is none.
    """
    try:
        sock = socket.socket(fileno=descriptor)
        listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ResourceError(
            f"descriptor {descriptor} is no socket ({error}): supervisord starts this process with one"
        ) from None
    if not listening:
        raise ResourceError(f"descriptor {descriptor} is a socket that does not listen")
    sock.setblocking(False)
    return sock


def open_stacks(folder: Path, name: str) -> Path:
    """SIGUSR1 writes all Python stacks to FOLDER/NAME.stacks, even in C code or with a lock held. Returns that path."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = stacks_file.of_threads(folder, name)
    file = path.open("w")
    faulthandler.enable(file)
    faulthandler.register(signal.SIGUSR1, file=file, all_threads=True, chain=False)
    return path


def _witness_tasks(loop: asyncio.AbstractEventLoop, path: Path) -> None:
    """A thread that writes the asyncio tasks' stacks to `path` whenever SIGUSR2 comes, whatever the loop does
    meanwhile.
    """

    def witness() -> None:
        while True:
            signal.sigwait({signal.SIGUSR2})
            try:
                stacks = "".join(_awaits(task) for task in asyncio.all_tasks(loop))
                durable.replace(path, f"# {time.monotonic_ns()}\n{stacks}".encode(), durable=False)
            except (OSError, RuntimeError):
                continue  # the disk is full, or the set of tasks changed while it was read: the next signal tries again

    threading.Thread(target=witness, name="witness", daemon=True).start()


def _awaits(task: asyncio.Task[object]) -> str:
    """The task and where it waits, outermost frame first. (Task.print_stack shows only the first frame of a waiting
    coroutine.)
    """
    lines = [f"{task!r}\n"]
    waiting: object = task.get_coro()
    for _ in range(100):
        frame = (
            getattr(waiting, "cr_frame", None)
            or getattr(waiting, "gi_frame", None)
            or getattr(waiting, "ag_frame", None)
        )
        if frame is None:
            break
        lines.append(f'  File "{frame.f_code.co_filename}", line {frame.f_lineno} in {frame.f_code.co_name}\n')
        waiting = (
            getattr(waiting, "cr_await", None)
            or getattr(waiting, "gi_yieldfrom", None)
            or getattr(waiting, "ag_await", None)
        )
    return "".join(lines)
