"""The processes of this machine that belong to one state folder: found in /proc, and verified before each signal."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from processes.adapters import ownership, proc
from processes.adapters.settings import KINDS, Settings

_MODULES = tuple(f"processes.{kind}" for kind in KINDS)


class OwnProcess(NamedTuple):
    """A process: its pid and start together identify it for ever. Units: start_ticks as in /proc/PID/stat."""

    pid: int
    start_ticks: int
    command: list[str]
    environ: dict[str, str]


def supervisord_of(settings: Settings) -> OwnProcess | None:
    """The supervisord that runs this state folder, alive or stopped; None if there is none.

    Its pid file is not trusted: since it was written, the pid may have gone to another program.
    """
    found = [
        found
        for found in _of_state(settings)
        if "SUPERVISOR_PROCESS_NAME" not in found.environ and _is_supervisord(found.command)
    ]
    # the younger ones are its forks that have not yet become the members that they will be
    return min(found, key=lambda each: each.start_ticks, default=None)


def members_of(settings: Settings) -> list[OwnProcess]:
    """The living processes that a supervisord started for this state folder, the holders of its sockets included.

    An agent's commands and their shims are not members: they outlive an installation on purpose.
    """
    return [found for found in _of_state(settings) if "SUPERVISOR_PROCESS_NAME" in found.environ and _is_member(found)]


def shims_of(settings: Settings) -> list[OwnProcess]:
    """The shims of this machine's own agent: one for each of its commands that still run."""
    own = _Folder(settings.state)
    return [
        found
        for found in _all()
        if any(
            word.endswith("agent/shim.py") and any(own.is_at(found.pid, str(above)) for above in Path(after).parents)
            for word, after in zip(found.command, found.command[1:], strict=False)
        )
    ]


def send(found: OwnProcess, number: signal.Signals) -> bool:
    """Send the signal to that very process. Returns False if it is gone."""
    try:
        fd = os.pidfd_open(found.pid)
    except ProcessLookupError:
        return False
    try:
        if not proc.alive(found.pid, found.start_ticks):  # looked at while the descriptor holds the pid
            return False
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True


def wait_gone(processes: Iterable[OwnProcess], wait_s: float) -> list[OwnProcess]:
    """Wait until all have ended, at most `wait_s`. Returns those that still live."""
    deadline_mono_s = time.monotonic() + wait_s
    left = []
    for found in processes:
        if proc.alive(found.pid, found.start_ticks) and not _ended(found, deadline_mono_s - time.monotonic()):
            left.append(found)
    return left


def _ended(found: OwnProcess, wait_s: float) -> bool:
    try:
        fd = os.pidfd_open(found.pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)  # readable once the process has ended, a zombie included
        return bool(poll.poll(max(0.0, wait_s) * 1000)) or not proc.alive(found.pid, found.start_ticks)
    finally:
        os.close(fd)


def _is_supervisord(command: list[str]) -> bool:
    words = command[:4]  # interpreter, its options, the program; a later word is an argument of another program
    return "supervisor.supervisord" in words or any(os.path.basename(word) == "supervisord" for word in words[:2])


def _is_member(found: OwnProcess) -> bool:
    from processes.adapters.supervisor import HELD  # noqa: PLC0415  # with it comes XML-RPC

    name, group = found.environ["SUPERVISOR_PROCESS_NAME"], found.environ.get("SUPERVISOR_GROUP_NAME")
    holds_a_socket = group in HELD and name.endswith("_0")
    return holds_a_socket or any(
        word == "-m" and after in _MODULES for word, after in zip(found.command, found.command[1:], strict=False)
    )


def _of_state(settings: Settings) -> Iterator[OwnProcess]:
    own = _Folder(settings.state)
    return (found for found in _all() if own.is_at(found.pid, found.environ.get("FLEETHUB_STATE", "")))


class _Folder:
    """A folder, known again under whatever name a process has for it: a link, a mount, a path with `..` in it."""

    def __init__(self, path: Path) -> None:
        self._path, self._identity = str(path), _identity(str(path))

    def is_at(self, pid: int, name: str) -> bool:
        """Return whether the process finds this folder under the name."""
        if name == self._path:
            return True
        if not name.startswith("/") or self._identity is None:
            return False
        # it may see other mounts than we do; where this user may not look through its eyes, ours have to do
        return (_identity(f"/proc/{pid}/root{name}") or _identity(name)) == self._identity


def _identity(path: str) -> tuple[int, int] | None:
    """The device and inode of what is there; None: nothing, or this user may not look."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _all() -> Iterator[OwnProcess]:
    own = os.geteuid()
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        place = Path("/proc", name)
        # OSError: the process ended while we looked, or this user may not look at it
        with contextlib.suppress(OSError):
            user = place.stat().st_uid
            if user != own and not (
                own == 0 and user in ownership.LESSER
            ):  # root's gateway and fanout are users of their own
                continue
            command = _words(place / "cmdline")
            stat = proc.stat(int(name))
            if command and stat is not None and stat.state not in "ZX":
                pairs = (word.partition("=") for word in _words(place / "environ"))
                yield OwnProcess(int(name), stat.start_ticks, command, {key: value for key, _, value in pairs})


def _words(path: Path) -> list[str]:
    return [os.fsdecode(word) for word in path.read_bytes().split(b"\0") if word]
