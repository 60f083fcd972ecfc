"""Agents that are started again when they die, as a server's own supervision would do it."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from types import TracebackType

from doubles.house import House

LOOK_S = 0.02


class Keeper:
    """Keeps the agent of one host's folder running. Use as an async context, within the house's."""

    def __init__(self, house: House, folder: Path) -> None:
        self.house, self.folder = house, folder
        self.name = folder.name.removeprefix("host-")
        self.ends: list[int] = []  # return codes
        self.agent: subprocess.Popen[bytes]
        self._task: asyncio.Task[None]

    async def __aenter__(self) -> Keeper:
        self._start()
        self._task = asyncio.create_task(self._keep())
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})
        self.agent.kill()
        self.agent.wait()

    def _start(self) -> None:
        self.agent = self.house.start_agent(self.folder, FLEETHUB_DRILLS_ENABLED="true")

    async def _keep(self) -> None:
        while True:
            if (code := self.agent.poll()) is not None:
                self.ends.append(code)
                self._start()
            await asyncio.sleep(LOOK_S)
