"""Starts shims, looks into their run folders, cancels and clears them away: all on one thread, in the order of the
calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from processes.adapters import failpoint
from processes.agent import folder, leftovers, shim
from processes.agent.config import Config
from processes.agent.folder import SpoolReader
from processes.core.agent.effects import Look, Observed
from processes.core.agent.remembered import Ended, FolderVerdict, Started, judge
from processes.core.values import Unknown

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/current-system/sw/bin"
_SHIM: Final = str(Path(shim.__file__))

_Result = TypeVar("_Result")


class Runner:
    """The commands of one agent, as processes and folders. Shims that it started are its children until they or it
    ends.
    """

    def __init__(self, config: Config, boot_id: str) -> None:
        self._config = config
        self._boot_id = boot_id
        self._runs = config.state / "runs"
        self._runs.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._thread = ThreadPoolExecutor(1, "runner")
        self._shims: dict[str, subprocess.Popen[bytes]] = {}
        self._spools: dict[str, SpoolReader] = {}
        self._started: dict[str, Started] = {}  # as it was read once: the folder may lose it
        self._unknown: dict[str, Ended] = {}  # of those whose end nobody knows: looked into and cleared up once
        self._leaving: list[subprocess.Popen[bytes]] = []  # their commands are forgotten, their exit not yet collected
        self._exits: set[int] = set()  # descriptors that become readable when a shim ends
        self.on_exit: Callable[[], None] = lambda: None  # called in the event loop when a shim has ended

    async def prepare(self, command_id: str) -> None:
        """The command has a run folder, durably, in which one shim may begin it. Raises: OSError."""
        await self._call(lambda: folder.prepare(self._place(command_id)))

    async def launch(self, command_id: str, op: str) -> None:
        """A shim is started, and `on_exit` is called when it ends. Raises: OSError, then there is none."""
        exit_fd = await self._call(lambda: self._launch(command_id, op))
        if exit_fd is not None:
            self._exits.add(exit_fd)
            asyncio.get_running_loop().add_reader(exit_fd, self._exited, exit_fd)

    async def kill(self, command_id: str, name: str) -> None:
        """The command's shim, alive or about to be started, knows that the command is to end by this signal."""
        await self._call(lambda: self._kill(command_id, name))

    async def look(self, wanted: Look) -> Observed:
        """What is true of a command now, with output from where it was wanted. Raises: OSError, if nobody can say just
        now.
        """
        return await self._call(lambda: self._look(wanted))

    async def remove(self, command_id: str) -> None:
        """Nothing is left of the command's run."""
        await self._call(lambda: self._remove(command_id))

    async def tidy(self, open_ids: Collection[str]) -> list[str]:
        """Run folders of none of these commands are gone, unless something still runs there. Returns their names."""
        return await self._call(lambda: self._tidy(open_ids))

    async def reap(self) -> None:
        """Collect what ended of those that init hands to this agent: it is process 1 of a container, for instance."""
        await self._call(self._reap)

    def close(self) -> None:
        """No more calls. What runs, runs on."""
        for exit_fd in list(self._exits):
            self._forget_exit(exit_fd)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _call(self, call: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def _exited(self, exit_fd: int) -> None:
        self._forget_exit(exit_fd)
        self.on_exit()

    def _forget_exit(self, exit_fd: int) -> None:
        self._exits.discard(exit_fd)
        asyncio.get_running_loop().remove_reader(exit_fd)
        os.close(exit_fd)

    # on the thread

    def _place(self, command_id: str) -> Path:
        return folder.place(self._runs, command_id)

    def _launch(self, command_id: str, op: str) -> int | None:
        """Return a descriptor that becomes readable when the shim ends; None: its end is found by looking."""
        self._reap()
        offer = self._config.commands[op]
        place = self._place(command_id)
        failpoint.reach("agent.starting")
        drills = {} if (armed_by := failpoint.allowed()) is None else {shim.FAILPOINTS: str(armed_by)}
        arguments = [str(place), str(offer.timeout_s), str(self._config.output_bytes_max), *offer.argv]
        with (place / "shim.err").open("ab") as said:
            started = subprocess.Popen(  # noqa: S603 - argv comes from the agent's file, and never meets a shell
                [sys.executable, "-I", "-S", _SHIM, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                env=clean_environment(command_id, op, self._config.name) | {"FLEETHUB_RUN": str(place)} | drills,
                # a signal to the agent's group is not for it; it has no parent-death signal either
                start_new_session=True,
                cwd="/",
            )
        failpoint.reach("agent.started")
        before = self._shims.get(command_id)
        if before is not None:
            self._leaving.append(before)
        self._shims[command_id] = started
        try:
            return os.pidfd_open(started.pid)  # not collected yet, so the pid is the shim's
        except OSError:
            return None

    def _kill(self, command_id: str, name: str) -> None:
        place = self._place(command_id)
        is_written = False
        with contextlib.suppress(OSError):
            folder.cancel(place, name)
            is_written = True
        pid = self._child(command_id) or folder.shim(place) or leftovers.shim(place)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # ended meanwhile: nothing is left to stop
                os.kill(pid, signal.SIGUSR1 if is_written else signal.SIGUSR2)

    def _look(self, wanted: Look) -> Observed:
        command_id, place = wanted.command_id, self._place(wanted.command_id)
        run, ended = self._judge(command_id, place)
        said = folder.last_words(place) if run is FolderVerdict.UNSTARTED else ""
        started = self._started.get(command_id)
        spool = self._spools.setdefault(command_id, SpoolReader(place))
        records = spool.read(wanted.first, wanted.room_bytes) if wanted.room_bytes else []
        total = spool.total() if run is FolderVerdict.ENDED else None
        pid = started.pid if started is not None else None
        return Observed(command_id, run, pid, wanted.first, records, ended, total, said)

    def _judge(self, command_id: str, place: Path) -> tuple[FolderVerdict, Ended | None]:
        if command_id in self._unknown:
            return FolderVerdict.ENDED, self._unknown[command_id]
        found = folder.facts(place, self._child(command_id) is not None)
        if found.ended is None and not found.lives:  # before it is called dead, it is looked for outside of its folder
            found = folder.facts(place, leftovers.shim(place) is not None)
        if found.started is not None and found.started.pid:
            self._started[command_id] = found.started
        run, ended = judge(found, self._boot_id)
        if ended is None or found.ended is not None:
            return run, ended
        if ended.reason != Unknown.REBOOTED:
            ended = _told(ended, *leftovers.end(self._started.get(command_id), command_id, place))
        self._unknown[command_id] = ended
        return run, ended

    def _child(self, command_id: str) -> int | None:
        """The pid of the shim that this very agent started for the command and that has not ended yet."""
        launched = self._shims.get(command_id)
        return launched.pid if launched is not None and launched.poll() is None else None

    def _remove(self, command_id: str) -> None:
        folder.remove(self._place(command_id))
        self._spools.pop(command_id, None)
        self._started.pop(command_id, None)
        self._unknown.pop(command_id, None)
        launched = self._shims.pop(command_id, None)
        if launched is not None:
            self._leaving.append(launched)
        self._reap()

    def _tidy(self, open_ids: Collection[str]) -> list[str]:
        needed = {self._place(command_id).name for command_id in open_ids}
        stale = [
            place for place in self._runs.iterdir() if place.name not in needed and not folder.facts(place, False).lives
        ]
        for place in stale:
            folder.remove(place)
        return [place.name for place in stale]

    def _reap(self) -> None:
        self._leaving = [leaving for leaving in self._leaving if leaving.poll() is None]
        for shim_process in self._shims.values():
            shim_process.poll()  # the status of a shim is its own to collect
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _told(ended: Ended, killed: int, survived: int) -> Ended:
    """The end, and what became of the rest of a program that nobody watches any more."""
    text = f"; what was left of it was killed: {killed} processes" if killed else ""
    text += f", {survived} of which cannot be killed" if survived else ""
    return msgspec.structs.replace(ended, message=ended.message + text)


def absent(config: Config) -> Iterator[tuple[str, str]]:
    """Yield the operations whose program is not there now, or may not be run, each with that program.

    That is a warning and no mistake: what installs the program may itself be an operation.
    """
    path = clean_environment("", "", "").get("PATH")
    for op, offer in config.commands.items():
        if shutil.which(offer.argv[0], path=path) is None:
            yield op, offer.argv[0]


def clean_environment(command_id: str, op: str, host: str, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """All that a command gets: nothing of the agent's own settings or secrets."""
    try:
        user, home = (entry := pwd.getpwuid(os.getuid())).pw_name, entry.pw_dir
    except KeyError:
        user, home = str(os.getuid()), "/"
    return {
        "PATH": environ.get("PATH") or PATH,
        "HOME": home,
        "LANG": environ.get("LANG") or "C.UTF-8",
        "USER": user,
        "FLEETHUB_COMMAND_ID": command_id,
        "FLEETHUB_OP": op,
        "FLEETHUB_HOST": host,
    }
