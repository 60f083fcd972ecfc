"""Tells the hub which operator tokens are used, beside the turns and without a promise."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from processes.adapters.queue_link import QueuesAway
from processes.core.travels import messages
from processes.core.travels.messages import TokenUsed
from processes.fanout.queues import Queues

UNDER_WAY_MAX: Final = 100  # appends; a use beyond that is told the next time, minutes later


class TokenUses:
    """The notes that are on their way. All calls belong to the loop's thread."""

    def __init__(self, link: Queues, fanout: str) -> None:
        self._link, self._fanout = link, fanout
        self._tasks: set[asyncio.Task[None]] = set()

    def tell(self, token_hash: str, at_wall_s: float) -> None:
        """Called when a token is used, once in some minutes for one token."""
        if len(self._tasks) < UNDER_WAY_MAX:
            noted = messages.encode(TokenUsed(self._fanout, token_hash, at_wall_s))
            task = asyncio.get_running_loop().create_task(self._send(noted))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _send(self, noted: bytes) -> None:
        with contextlib.suppress(QueuesAway):
            await self._link.append(messages.EVENTS, [noted], bulk=True)
