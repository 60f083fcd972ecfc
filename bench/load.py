"""The generator (generator.c): compiled where it is wanted, started, and spoken to by lines."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from doubles.deadline import WAIT_S

from processes.adapters import proc

SOURCE: Final = Path(__file__).with_name("generator.c")
WARNINGS: Final = ("-Wall", "-Wextra", "-Werror")


class NoCompiler(Exception):
    """There is no C compiler; the text says what to install."""


def cache() -> Path:
    """Return the folder of this user for what is built for measuring; it may be removed at any time."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base) / "fleethub-bench"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def compiled() -> Path:
    """Return the generator, compiled if this very source was not yet. Raises: NoCompiler."""
    source = SOURCE.read_bytes()
    program = cache() / f"generator-{hashlib.sha256(source).hexdigest()[:16]}"
    if not program.exists():
        fresh = program.with_name(f"{program.name}.{os.getpid()}")
        try:
            subprocess.run(["cc", "-O2", "-std=gnu17", *WARNINGS, "-o", fresh, SOURCE], check=True)
        except FileNotFoundError:
            raise NoCompiler("there is no C compiler (cc): install one, such as Debian's package gcc") from None
        fresh.replace(program)
    return program


def loop(sockets: int, frame_bytes: int, seconds: float) -> dict[str, Any]:
    """Return how many frames a plain loop of write() brings to so many sockets, and the CPU that it takes for that."""
    words = [str(compiled()), "loop", str(sockets), str(frame_bytes), str(seconds)]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True, timeout=seconds + WAIT_S)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


class Load:
    """One running generator, as an asynchronous context. Every answer is the JSON that it printed."""

    def __init__(self, role: str, port: int, tokens: Path, count: int, dialect: str = "fleethub") -> None:
        """`role`: agents or watch."""
        self._words = [str(compiled()), role, str(port), str(tokens), str(count), dialect]
        self._process: asyncio.subprocess.Process | None = None
        self.connected_s = 0.0  # how long it took until all were connected

    async def __aenter__(self) -> Load:
        self._process = await asyncio.create_subprocess_exec(
            *self._words, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        try:
            self.connected_s = (await self._answer(WAIT_S))["seconds"]
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self._end()

    @property
    def pid(self) -> int:
        """Return the generator's process; 0 before it is started."""
        return 0 if self._process is None else self._process.pid

    def cpu_s(self) -> float:
        """Return how many seconds of CPU it has used so far."""
        stat = proc.stat(self.pid)
        return stat.cpu_ticks / proc.TICKS_PER_S if stat else 0.0

    async def ask(self, line: str, seconds: float = 0.0) -> dict[str, Any]:
        """Say a line, and return its answer, which may take so many seconds and a while."""
        await self.say(line)
        return await self._answer(seconds + WAIT_S)

    async def say(self, line: str) -> None:
        """Say a line whose answer is asked for later."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        await self._process.stdin.drain()

    async def _answer(self, seconds: float) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), seconds)
        assert line, f"the generator ended: {self._words[1:]}"
        found: dict[str, Any] = json.loads(line)
        assert "error" not in found, found
        return found

    async def _end(self) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
