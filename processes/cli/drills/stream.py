"""Gives commands one after the other while something breaks, and tells what became of each."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections import Counter
from typing import Final

import httpx
import msgspec

from processes.cli.drills.stage import ASK_S, MARK, Late, Stage
from processes.core.cli import drills
from processes.core.cli.drills import Given, StreamEnd
from processes.core.records.command import State
from processes.core.shown.views import CommandView

PAUSE_S: Final = 0.05
GIVE_S_MAX: Final = 120.0  # longer than any drill keeps the hub away
END_S_MAX: Final = 60.0  # from the acceptance of the last until all are final


class Stream:
    """Gives `mark` to the stage's first host as a careful script does: each request has a key, and is repeated."""

    def __init__(self, stage: Stage) -> None:
        self.ids: list[str] = []
        self.refusals: Counter[str] = Counter()  # how many, by the code of the error
        self.wait_s = 0.0  # the longest time until a command was accepted
        self._stage = stage
        self._asked_s = 0.0
        self._task = asyncio.create_task(self._give())

    async def more(self, count: int, wait_s: float = GIVE_S_MAX) -> None:
        """Wait until `count` more commands are accepted. Raises: Late."""
        wanted = len(self.ids) + count
        await self._stage.until(
            lambda: len(self.ids) >= wanted or self._task.done(), f"{count} more commands accepted", wait_s
        )
        if self._task.done():
            self._task.result()

    async def stop(self) -> None:
        """Give no more. A command that is being asked for just now is not counted, even if the hub has accepted it."""
        self._task.cancel()
        await asyncio.wait({self._task})

    async def outcome(self) -> StreamEnd:
        """Wait until all accepted commands are final, and tell what became of them."""
        ended: dict[str, CommandView | str] = {}
        deadline_s = time.monotonic() + END_S_MAX
        for command_id in self.ids:
            try:
                ended[command_id] = await self._stage.ended(command_id, deadline_s - time.monotonic())
            except Late as error:
                ended[command_id] = str(error)
        ran = Counter(self._stage.marks.read_text().split())
        return drills.outcome([_given(its_id, found, ran[its_id]) for its_id, found in ended.items()])

    async def _give(self) -> None:
        while True:
            await self._accepted()
            await asyncio.sleep(PAUSE_S)

    async def _accepted(self) -> None:
        key = uuid.uuid4().hex
        body = {"op": MARK, "hosts": [self._stage.hosts[0]], "key": key}
        asked_s = time.monotonic()
        while True:
            with contextlib.suppress(httpx.TransportError):
                answer = await self._stage.http.post("/api/v1/commands", json=body)
                if answer.is_success:
                    given = msgspec.json.decode(answer.content, type=_Given)
                    self.ids += [command.id for command in given.commands]
                    self.wait_s = max(self.wait_s, time.monotonic() - asked_s)
                    return
                self.refusals[_code(answer)] += 1
                if answer.status_code not in (429, 503, 504):
                    raise Late(f"a command was answered {answer.status_code} {answer.text[:200]}")
            if time.monotonic() - asked_s > GIVE_S_MAX:
                raise Late(f"a command was not accepted within {GIVE_S_MAX:.0f} s")
            await asyncio.sleep(ASK_S)


def _given(command_id: str, found: CommandView | str, ran: int) -> Given:
    if isinstance(found, str):
        return Given(command_id, None, found, ran)
    return Given(command_id, State(found.state), found.reason, ran)


class _Id(msgspec.Struct, frozen=True):
    id: str


class _Given(msgspec.Struct, frozen=True):
    commands: list[_Id]


class _Error(msgspec.Struct, frozen=True):
    error: str = "unknown"


def _code(answer: httpx.Response) -> str:
    with contextlib.suppress(msgspec.DecodeError):
        return msgspec.json.decode(answer.content, type=_Error).error
    return f"HTTP {answer.status_code}"
