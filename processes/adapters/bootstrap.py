"""The start and the end of every process under supervisord, in the same order for all.

A process's `__main__` calls `run("hub", main)`. `main` gets a Process and returns after it has closed what it opened.
SIGTERM and SIGINT set `process.stop`. Any exception ends the process with exit code 70, and supervisord starts it
again: that is always better than going on half broken.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import io
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
from types import FrameType
from typing import Any, Final, NoReturn, TextIO

import msgspec
import uvloop

from processes.adapters import logs, own_user, rights, settings, tls_keeper
from processes.adapters.own_process import STOP_S_MAX, SWITCH_INTERVAL_S, leave, open_stacks
from processes.adapters.settings import Settings, SettingsError
from processes.adapters.state import asked_to_end, deaths, durable, gave_up, lock, session_files, stacks_file
from processes.adapters.state.deaths import Poison
from processes.adapters.state.pulse_file import PulseFile
from processes.core.errors import EXIT_BROKEN, EXIT_OK, EXIT_SETTINGS, FleethubError, ResourceError

FRAMES_MAX: Final = 100  # told of one thread or task, as faulthandler does
_PR_SET_PDEATHSIG: Final = 1  # prctl(2)
_PR_SET_PTRACER: Final = 0x59616D61  # prctl(2): "Yama"
_PR_SET_PTRACER_ANY: Final = -1
# times the memory limit: the watchdog replaces a process at the limit, but looks only a few times a second
RUNAWAY_FACTOR: Final = 2
RUNAWAY_BYTES: Final = 512 << 20  # and this, for stacks and arenas of threads that are reserved and never touched


@dataclass(frozen=True)
class Process:
    """One running process of the installation, and what `run` has opened for it."""

    name: str  # hub, gateway, gateway:1 … (values.process_name)
    boot: str  # random, new at each start
    settings: Settings
    log: logs.Log
    pulse: PulseFile
    stop: asyncio.Event  # set when SIGTERM or SIGINT came
    poison: Poison  # the events that must not be stepped: they ended the predecessors


def run(kind: str, main: Callable[[Process], Coroutine[None, None, None]], number: int = 0) -> NoReturn:
    """Run `main` to its end, then exit: with 0 after a stop, 70 after an exception, 78 if the settings are wrong."""
    try:
        found = settings.load()
    except SettingsError as error:
        print(f"fleethub {kind}: {error}", file=sys.stderr, flush=True)
        os._exit(EXIT_SETTINGS)
    code = EXIT_BROKEN
    if number >= len(found.names(kind)):
        print(f"fleethub {kind}: the settings have no such process", file=sys.stderr, flush=True)
        os._exit(EXIT_SETTINGS)
    name = found.names(kind)[number]
    os.umask(0o077)
    user, why_root = None, list[str]()
    try:
        if kind in rights.EXPOSED:
            found, user, why_root = confine(found, kind, name)
    except (FleethubError, OSError) as error:
        gave_up.say(found.run, name, str(error))
        print(f"fleethub {name}: {error}", file=sys.stderr, flush=True)
        os._exit(EXIT_BROKEN)
    die_with_parent()
    allow_tracing()
    limit_memory(found.file.memory.bytes_max(kind), kind)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})  # before any thread: only the tasks thread takes it
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    log = logs.open_log(found.log, name, held=user is not None)
    stacks: TextIO = io.StringIO()  # as long as there is no file
    try:
        lock.hold(lock.place(found.run, name), wait_s=5.0)
        poison = deaths.examine(found, name)  # before anything of the predecessor is written over
        stacks = open_stacks(stacks_file.folder(found.run), name)
        pulse = PulseFile(found.pulses, name)
        process = Process(name, uuid.uuid4().hex[:12], found, log, pulse, asyncio.Event(), poison)
        if user is not None and not pulse.is_on_disk:
            why_root.append("its pulse has no room on the disk, and only root can make one later")
        elif user is not None:
            durable.hold(deaths.place(found, name))  # after the predecessor's end is examined: that is written whole
            own_user.become(user, own_user.groups(found, kind))
            die_with_parent()  # the kernel forgets it when the user changes
        log.info("started", pid=os.getpid(), user=os.geteuid())
        if why_root:
            log.warning("goes on as root, without its capabilities", why="; ".join(why_root))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_guarded(process, main))
        code = EXIT_OK
        gave_up.forget(found.run, name)
        log.info("stopped")
    except FleethubError as error:
        log.error("gave up", error=str(error))
        gave_up.say(found.run, name, str(error))
        print(f"fleethub {name}: {error}", file=sys.stderr, flush=True)
    except BaseException:
        log.error("died of an exception", exc_info=True)
        traceback.print_exc()
        with contextlib.suppress(OSError):
            traceback.print_exc(file=stacks)  # for the successor, in case the event in hand is to blame
            stacks.flush()
    finally:
        leave(code)


def confine(found: Settings, kind: str, name: str) -> tuple[Settings, int | None, list[str]]:
    """Take from a process that strangers reach what it can do without, and open what it needs of that beforehand.

    Return the settings as it sees them from now on, the user that it is to become (None: it stays who it is), and, if
    that is root, why. Raises: FleethubError or OSError, if it must not go on.
    """
    user, why_root = None, list[str]()
    if own_user.is_wanted(found, kind):
        why_root = own_user.hindrances(found, kind)
        if not why_root:
            try:
                if kind == "fanout":
                    session_files.cookie_key(found.run)  # it could not make one later
                found, user = own_user.prepare(found, kind), own_user.of(found.state, kind)
            except (FleethubError, OSError) as error:
                why_root = [str(error)]
    if os.geteuid() == 0 and tls_keeper.is_needed(found.file.tls, user or 0):
        files = tls_keeper.keep(found.file.tls)
        found = msgspec.structs.replace(found, file=msgspec.structs.replace(found.file, tls=files))
    rights.let_none_in()
    if user is None:
        own_user.take_back(found, kind)
        rights.give_up()
        return found, None, why_root
    durable.hold(stacks_file.of_tasks(stacks_file.folder(found.run), name))
    durable.hold(asked_to_end.place(found.run, name))
    durable.hold(gave_up.place(found.run, name))
    return found, user, why_root


async def _guarded(process: Process, main: Callable[[Process], Coroutine[None, None, None]]) -> None:
    loop = asyncio.get_running_loop()
    _write_tasks_on_signal(loop, stacks_file.of_tasks(stacks_file.folder(process.settings.run), process.name))

    def stop() -> None:
        process.log.info("stopping")
        asked_to_end.say(process.settings.run, process.name)
        process.stop.set()
        overdue = threading.Timer(STOP_S_MAX, leave, (EXIT_BROKEN,))  # on a thread, because the loop itself may hang
        overdue.daemon = True
        overdue.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    await main(process)


def die_with_parent() -> None:
    """Let the kernel kill this process when supervisord dies, so that no orphan ever serves beside its successor.

    The parent may have died before the prctl call. Then nobody reads our stderr any more, and poll says so. (A
    comparison of getppid would be wrong where supervisord is process 1.)
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    poll = select.poll()
    poll.register(2, 0)
    if any(events & select.POLLERR for _, events in poll.poll(0)):
        os._exit(EXIT_BROKEN)


def allow_tracing() -> None:
    """Allow py-spy to read this process's stacks where Yama would forbid it.

    py-spy is a child of the watchdog, not a parent of this process. The kernel's other conditions for a tracer stay, so
    only processes of the same user may trace. A kernel without Yama answers EINVAL, and needs no permission.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PTRACER, ctypes.c_long(_PR_SET_PTRACER_ANY), 0, 0, 0)


def limit_memory(bytes_max: int, kind: str) -> None:
    """Let an allocation that runs away fail in this process, as MemoryError, before the machine suffers.

    RLIMIT_DATA limits private writable memory. (RLIMIT_AS would also count address space that threads and allocators
    only reserve.) The agent and the watchdog get no limit, because their children would inherit it, and an operator's
    commands are among them.
    """
    if bytes_max and kind not in ("agent", "watchdog"):
        limit_data(RUNAWAY_FACTOR * bytes_max + RUNAWAY_BYTES)


def limit_data(bytes_max: int) -> None:
    """Let this process, and those that it will start, have so much private writable memory each."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = bytes_max if hard == resource.RLIM_INFINITY else min(bytes_max, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def listening_socket(descriptor: int = 0) -> socket.socket:
    """Return the listening socket that supervisord holds, so that no client is refused while a process is replaced.

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


def _write_tasks_on_signal(loop: asyncio.AbstractEventLoop, path: Path) -> None:
    """Start a thread that writes the stacks of the other threads and of all asyncio tasks to `path` at SIGUSR2, however
    busy the loop is.
    """

    def write() -> None:
        while True:
            signal.sigwait({signal.SIGUSR2})
            try:
                stacks = "".join(_awaits(task) for task in asyncio.all_tasks(loop))
                written = f"# {time.monotonic_ns()}\n{_threads()}{stacks}"
                durable.replace(path, written.encode(), durable=False)
            except (OSError, RuntimeError):
                continue  # the disk is full, or the tasks changed during the reading: the next signal tries again

    threading.Thread(target=write, name="tasks", daemon=True).start()


def _threads() -> str:
    """Return the stacks of all threads but this one and the main one, each with its innermost frame first."""
    frames, left_out = sys._current_frames(), (threading.get_ident(), threading.main_thread().ident)
    text = ""
    for thread in threading.enumerate():
        frame = None if thread.ident in left_out else frames.get(thread.ident or 0)
        text += f'Thread "{thread.name}" (most recent call first):\n' if frame is not None else ""
        for _ in range(FRAMES_MAX):
            if frame is None:
                break
            text += _frame(frame)
            frame = frame.f_back
    return text


def _frame(frame: FrameType) -> str:
    return f'  File "{frame.f_code.co_filename}", line {frame.f_lineno} in {frame.f_code.co_name}\n'


def _awaits(task: asyncio.Task[object]) -> str:
    """Return the task and the frames in which it waits, the outermost first.

    (Task.print_stack shows only the first frame of a waiting coroutine.)
    """
    lines = [f"{task!r}\n"]
    waiting: object = task.get_coro()
    for _ in range(FRAMES_MAX):
        frame = _first_of(waiting, "cr_frame", "gi_frame", "ag_frame")
        if frame is None:
            break
        lines.append(_frame(frame))
        waiting = _first_of(waiting, "cr_await", "gi_yieldfrom", "ag_await")
    return "".join(lines)


def _first_of(awaitable: object, *names: str) -> Any:
    """Return the first of these attributes that is there: each kind of awaitable has its own."""
    return next((found for name in names if (found := getattr(awaitable, name, None))), None)
