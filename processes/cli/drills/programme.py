"""Plays several drills, one after the other: on the running installation, or on a second one with a small disk."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Final

from processes.adapters.settings import Settings, load
from processes.cli.drills import faults
from processes.cli.drills.rehearsal import rehearse
from processes.cli.drills.stage import Stage
from processes.cli.terminal.failure import Failure
from processes.core.cli.drills import Drill, DrillResult, Figures, together

STATE_DISK: Final = "32m"  # sizes as mount(8) takes them
LOG_DISK: Final = "4m"  # starting an installation fills a fifth of it


class Programme:
    """The drills of one call. `left_out`: the drills that could not be rehearsed here, and why."""

    def __init__(self, settings: Settings, *, short: bool, slack: float, say: Callable[[str], None]) -> None:
        self._settings, self._short, self._slack, self._say = settings, short, slack, say
        self.left_out: list[tuple[str, str]] = []

    async def play(self, chosen: Sequence[Drill], rounds: int, *, skipping: bool) -> list[DrillResult]:
        """Play the drills, and return a row for each, in order.

        `skipping`: leave out a drill that is not possible here, instead of failing. Raises: Failure.
        """
        rows = []
        async with Stage(self._settings) as stage:
            enabled = await stage.enabled()
            for number, drill in enumerate(chosen, 1):
                if (why := impossible(drill, stage, enabled)) is not None:
                    if not skipping:
                        raise why
                    self.left_out.append((drill.name, why.message))
                    continue
                self._say(f"{number} of {len(chosen)}  {drill.name}: {drill.what} …")
                rows.append(
                    together(drill, [await self._round(stage, drill, each, rounds) for each in range(1, rounds + 1)])
                )
        return rows

    async def _round(self, stage: Stage, drill: Drill, number: int, rounds: int) -> Figures:
        if drill.mounts:
            async with second(self._settings, drill) as other:
                figures = await rehearse(other, drill, self._short, self._slack)
        else:
            figures = await self._at_home(stage, drill)
        times = [
            f"{word} {took_s:.2f} s"
            for word, took_s in (("found", figures.detected_s), ("well", figures.recovered_s))
            if took_s is not None
        ]
        verdict = "ok" if figures.ok else "; ".join(figures.trouble)
        self._say(
            f"    {f'round {number} of {rounds}: ' if rounds > 1 else ''}"
            f"{', '.join([*times, f'{figures.commands} commands'])}: {verdict}"
        )
        return figures

    async def _at_home(self, stage: Stage, drill: Drill) -> Figures:
        try:
            return await rehearse(stage, drill, self._short, self._slack)
        except Failure as failure:
            if failure.code != "unwell":
                raise
            return Figures(name=drill.name, trouble=[failure.message])  # the next drill may find it well again


def impossible(drill: Drill, stage: Stage, enabled: bool) -> Failure | None:
    """Why this drill cannot be rehearsed here, and what to do about it; None if it can."""
    if drill.inside and not enabled:
        advice = (
            "Set drills.enabled = true in fleethub.toml (FLEETHUB_DRILLS_ENABLED=true), "
            "then: fleethub down, fleethub up"
        )
        return Failure(
            "drills_disabled", f"{drill.name} is a fault inside a process, and drills are not enabled here", advice
        )
    if drill.name == "agent-kill" and "agent" not in stage.pids():
        return Failure("no_agent", "this machine's agent does not run, so it cannot be killed", "fleethub start agent")
    if drill.mounts and os.geteuid() != 0:
        return Failure(
            "not_root",
            f"{drill.name} needs a small tmpfs, which only root may mount",
            "Run it as root, or leave it out.",
        )
    return None


@contextlib.asynccontextmanager
async def second(settings: Settings, drill: Drill) -> AsyncIterator[Stage]:
    """Start a second installation with its state folder or its logs on a small tmpfs; end and remove it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="fh-disk-"))
    clean = {key: value for key, value in os.environ.items() if not key.startswith("FLEETHUB_")}
    environ = {
        **clean,
        "FLEETHUB_STATE": str(folder / "state"),
        "FLEETHUB_OPERATORS_LISTEN": f"127.0.0.1:{_free_port()}",
        "FLEETHUB_AGENTS_LISTEN": f"127.0.0.1:{_free_port()}",
    }
    state = Path(environ["FLEETHUB_STATE"])
    disk, size = (state, STATE_DISK) if drill.name == "disk-full" else (state / "log", LOG_DISK)
    disk.mkdir(parents=True, mode=0o700)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        await asyncio.to_thread(mount, disk, size)
        stack.callback(_run, ["umount", "--lazy", str(disk)])
        stack.callback(faults.verb, environ, "down")
        done = await asyncio.to_thread(faults.up, environ)
        if done.returncode:
            raise Failure("no_second", f"the second installation did not start: {done.stderr.strip()}")
        yield await stack.enter_async_context(Stage(load(environ), disk))


def mount(disk: Path, size: str) -> None:
    """Mount a small tmpfs that belongs to this user alone, as a state folder must. Raises: Failure."""
    _run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "fleethub", str(disk)])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)  # noqa: S603
    if done.returncode:
        raise Failure("refused", f"{' '.join(command)}: {done.stderr.strip()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
