"""A real agent process for tests: its file, its life, its death, and what it leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import psutil
from doubles import forked
from doubles.deadline import WAIT_S
from doubles.forked import Started

from processes.adapters.state.pulse_file import start_ticks
from processes.agent import folder


class AgentProcess:
    """An agent in a folder of its own. `start` and `kill` as often as wanted: its state stays.

    `forked`: False where the agent is to become its own program anew, which it knows by its command line.
    """

    def __init__(
        self,
        home: Path,
        url: str,
        token: str,
        commands: Mapping[str, Sequence[str] | Mapping[str, Any]] | None = None,
        *,
        forked: bool = True,
    ) -> None:
        self._forked = forked
        self.home = home
        self.config = home / "agent.toml"
        self.state = home / "agent-state"
        self.log = home / "agent.log"
        self.process: Started | None = None
        home.mkdir(parents=True, exist_ok=True)
        (home / "agent.token").write_text(token + "\n")
        (home / "agent.token").chmod(0o600)
        self.write(url, commands or {})

    def write(self, url: str, commands: Mapping[str, Sequence[str] | Mapping[str, Any]], **more: Any) -> None:
        """Writes the agent's file."""
        lines = [f"hub = {_toml(url)}", 'name = "web1"', *(f"{key} = {_toml(value)}" for key, value in more.items())]
        lines += [] if "heartbeat_s" in more else ["heartbeat_s = 0.3"]
        for op, offer in commands.items():
            fields = offer if isinstance(offer, Mapping) else {"argv": list(offer)}
            lines += [f"[commands.{op}]", *(f"{key} = {_toml(value)}" for key, value in fields.items())]
        self.config.write_text("\n".join(lines) + "\n")

    def start(self, before: Sequence[str] = (), **environ: str) -> None:
        """Starts it; the log goes on in the same file. `before`: words of a program that becomes the agent."""
        outside = {key: value for key, value in os.environ.items() if not key.startswith(("FLEETHUB_", "SUPERVISOR_"))}
        words, environment = ["--config", str(self.config)], {**outside, **environ}
        with self.log.open("ab") as log:
            if self._forked and not before:
                self.process = forked.start("agent", words, environment=environment, log=log)
                return
            self.process = subprocess.Popen(
                [*before, sys.executable, "-m", "processes.agent", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    async def kill(self, number: int = signal.SIGKILL, *, group: bool = False) -> int:
        """Sends the signal (to its whole process group, if so told) and waits for the end; returns the exit code."""
        assert self.process is not None, "not started"
        (os.killpg if group else os.kill)(self.process.pid, number)
        return await asyncio.to_thread(self.process.wait, WAIT_S)

    def run_folder(self, command_id: str) -> Path:
        return folder.place(self.state / "runs", command_id)

    def logged(self) -> str:
        return self.log.read_text(errors="replace")

    def end_all(self) -> None:
        """Ends the agent, its shims and their commands, each named by pid and start time."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(WAIT_S)
        runs = str(self.state / "runs")
        commands = [_fields(found / "started") for found in (self.state / "runs").glob("*")]
        for process in psutil.process_iter(["cmdline"]):
            if any(
                word.startswith(runs) for word in process.info["cmdline"] or ()
            ):  # a shim of ours: nobody else has this path
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        for fields in commands:
            pid, ticks = int(fields.get("pid") or 0), int(fields.get("start_ticks") or -1)
            if pid and start_ticks(pid) == ticks:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)


@contextlib.asynccontextmanager
async def agent_process(
    home: Path,
    url: str,
    token: str,
    commands: Mapping[str, Sequence[str] | Mapping[str, Any]] | None = None,
    *,
    forked: bool = True,
) -> AsyncIterator[AgentProcess]:
    """An agent that is started, and is gone with all it started when the block ends. `forked`: as of AgentProcess."""
    agent = AgentProcess(home, url, token, commands, forked=forked)
    agent.start()
    try:
        yield agent
    except BaseException:
        sys.stderr.write(agent.logged())
        raise
    finally:
        agent.end_all()


async def until(holds: Any, what: str, wait_s: float = WAIT_S) -> None:
    """Waits for something outside of any event: a file, a process."""
    deadline = time.monotonic() + wait_s
    while not holds():
        assert time.monotonic() < deadline, f"never came: {what}"
        await asyncio.sleep(0.01)


def _fields(path: Path) -> dict[str, str]:
    try:
        return dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)
    except OSError:  # removed, or no folder at all: what a test did to it
        return {}


def _toml(value: Any) -> str:
    return msgspec.json.encode(value).decode()  # strings, numbers, booleans and lists of them are written alike
