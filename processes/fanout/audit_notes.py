"""Lines of the audit trail that a fanout alone knows (sign-ins, refused attempts), on their way to
the hub, which writes them.

No request waits for them: the lines wait here, in a bounded number, while `queues` or the hub is away. A client that
tries thousands of wrong tokens fills neither the queue nor the disk: beyond RATE_MAX lines a second the lines are only
counted, and the count is noted.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Final, Protocol

from processes.adapters.queue_link import QueuesAway
from processes.core.travels import audit, messages
from processes.core.travels.audit import AuditLine, Kind
from processes.core.travels.messages import AuditNoted
from processes.core.travels.queue_calls import Appended

WAITING_MAX: Final = 1000  # lines; guess: the lines of an outage of minutes
RATE_MAX: Final = 20  # lines a second
AGAIN_S: Final = 0.5


class Queues(Protocol):
    """The part of adapters.queue_link.QueueLink that is used here."""

    async def append(self, queue: str, items: list[bytes], *, bulk: bool = False, lossy: bool = False) -> Appended: ...


class AuditNotes:
    """The lines that wait. All calls belong to the loop's thread."""

    def __init__(self, link: Queues, fanout: str) -> None:
        self._link, self._fanout = link, fanout
        self._waiting: deque[AuditLine] = deque()
        self._second, self._in_second, self._skipped = 0, 0, 0
        self._task: asyncio.Task[None] | None = None

    def note(self, kind: Kind, subject: str, after: str, *, actor: str, reason: str = "") -> None:
        """Send a line, or count it if there are too many."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._in_second = second, 0
        self._in_second += 1
        if self._in_second > RATE_MAX or len(self._waiting) >= WAITING_MAX:
            self._skipped += 1
            return
        if self._skipped:
            self._put(Kind.REQUEST, f"{self._skipped} lines", "skipped", self._fanout, "too many at a time")
            self._skipped = 0
        self._put(kind, subject, after, actor, reason)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._send())

    def _put(self, kind: Kind, subject: str, after: str, actor: str, reason: str) -> None:
        self._waiting.append(audit.line(time.time(), kind, subject, after, actor=actor, reason=reason))

    async def _send(self) -> None:
        while self._waiting:
            lines = [self._waiting[place] for place in range(min(len(self._waiting), RATE_MAX))]
            try:
                noted = messages.encode(AuditNoted(self._fanout, lines))
                sent = (await self._link.append(messages.EVENTS, [noted])).accepted
            except QueuesAway:
                sent = False
            if sent:
                for _ in lines:
                    self._waiting.popleft()
            else:
                await asyncio.sleep(AGAIN_S)  # nothing tells when there is room again
