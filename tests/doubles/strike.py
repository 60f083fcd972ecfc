"""One failpoint reached in a real house: armed, commands given until it strikes, and what is true of every command
afterwards.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from doubles.agent_keeper import Keeper
from doubles.house import House, Operator

from processes.adapters import failpoint
from processes.adapters.state import agent_state
from processes.core.travels.pulse import Unreadable

HOST = "struck"
STRIKE_S_MAX = 60.0
RECOVER_S_MAX = 60.0
LEDGER_S_MAX = 60.0


class Truth(NamedTuple):
    """What is true of the one command that a point strikes; every other ends `succeeded`, having run once."""

    state: str
    times: int  # how often it ran
    message: str


RAN_ONCE = Truth("succeeded", 1, "")
TRUTHS = {
    # `started` is on disk and the program never began: it must not be started again, and its end is known
    "shim.after_started": Truth("failed", 0, "ended by SIGKILL"),
    # it ran, and how it ended died with the shim: nobody may guess that it was a success
    "shim.exited": Truth("lost", 1, "the shim died, outcome unknown"),
}


class Struck(NamedTuple):
    """One round: how many commands it took, and from the kill until the last of them was final."""

    name: str
    commands: int
    recovered_s: float


class Stricken:
    """A house's host whose `mark` appends its command's id to a file, its agent kept alive. Use as an async context."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.marks = house.state / "marks"
        self.operator: Operator
        self.keeper: Keeper
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Stricken:
        folder = self.house.state / f"host-{HOST}"
        if not folder.exists():
            self.marks.touch()
            self.house.host(HOST, {"mark": ["sh", "-c", f"echo $FLEETHUB_COMMAND_ID >> {self.marks}; echo done"]})
        self.keeper = await self._stack.enter_async_context(Keeper(self.house, folder))
        self.operator = await self._stack.enter_async_context(Operator(self.house))
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self._stack.aclose()

    async def strike(self, name: str) -> Struck:
        """The point strikes once, and afterwards every command is what it must be."""
        operator = self.operator
        await operator.healthy(RECOVER_S_MAX)
        await operator.until(lambda: operator.hosts.get(HOST, {}).get("presence") == "online", RECOVER_S_MAX)
        file = self._file(name)
        died = self._deaths(name)
        lost = self.house.ledger()["lost"]
        failpoint.arm(file, name)
        giving: list[asyncio.Task[list[str]]] = []
        deadline = time.monotonic() + STRIKE_S_MAX
        while file.exists():
            assert time.monotonic() < deadline, f"{name} was not reached{self.house.logs()}"
            if sum(not task.done() for task in giving) < 3:
                giving.append(asyncio.create_task(operator.give("mark", HOST)))
            await asyncio.sleep(0.02)
        struck_s = time.monotonic()
        await operator.until(lambda: self._deaths(name) != died, RECOVER_S_MAX)
        giving.append(asyncio.create_task(operator.give("mark", HOST)))
        ids = [command_id for given in await asyncio.gather(*giving) for command_id in given]
        ended = {command_id: await operator.ended(command_id, RECOVER_S_MAX) for command_id in ids}
        recovered_s = time.monotonic() - struck_s
        await self._verify(name, ended, lost)
        return Struck(name, len(ids), recovered_s)

    def _file(self, name: str) -> Path:
        return (
            self.house.settings.failpoint
            if name in failpoint.HUB
            else agent_state.failpoint(self.keeper.folder / "state")
        )

    def _deaths(self, name: str) -> object:
        """Something that changes once the struck process is dead. A shim's death shows in its command alone."""
        if name in failpoint.HUB:
            try:
                return self.house.pulse("hub").pid
            except Unreadable:
                return 0  # it died while it wrote its pulse
        return len(self.keeper.ends) if name in failpoint.AGENT else object()

    async def _verify(self, name: str, ended: dict[str, dict[str, Any]], lost: int) -> None:
        ran = Counter(self.marks.read_text().split())
        found = Counter(
            Truth(command["state"], ran[command_id], command.get("message", ""))
            for command_id, command in ended.items()
        )
        wanted = Counter({RAN_ONCE: len(ended)})
        if name in TRUTHS:
            wanted = Counter({RAN_ONCE: len(ended) - 1, TRUTHS[name]: 1})
        assert found == wanted, f"{name}: {found} {list(ended.values())}{self.house.logs()}"
        for command_id, command in ended.items():
            if command["state"] == "succeeded":
                answer = await self.operator.http.get(f"/api/v1/commands/{command_id}/output")
                shown = answer.json()
                assert ([record["data"] for record in shown["records"]], shown["complete"]) == (["done"], True), (
                    f"{name}: {shown}"
                )
        lost += sum(truth.state == "lost" for truth in wanted)
        deadline = time.monotonic() + LEDGER_S_MAX
        while True:  # the watchdog looks at the ledger now and then
            ledger = self.house.ledger()
            assert ledger["accepted"] == sum(count for state, count in ledger.items() if state != "accepted"), (
                f"{name}: {ledger}"
            )
            if ledger["lost"] == lost:
                return
            assert time.monotonic() < deadline, f"{name}: {ledger}, and {lost} should be lost"
            await asyncio.sleep(0.1)
