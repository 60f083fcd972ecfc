"""Lines of the audit trail that a fanout alone knows (sign-ins, refused requests), on their way to the hub, which
writes them.

core/fanout/tally.py decides which lines there are: what is refused costs a bounded number of them, however often it is
tried. No request waits for them: they wait here, in a bounded number, while `queues` or the hub is away. A fanout that
is killed takes the refusals of its last minute with it; one that is asked to end writes them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from processes.adapters.queues import Queues, QueuesAway
from processes.adapters.timer import not_before
from processes.core.connections import site_of
from processes.core.fanout.signin import Principal
from processes.core.fanout.tally import Noted, Tally
from processes.core.travels import audit, messages
from processes.core.travels.audit import AuditLine, Kind
from processes.core.travels.messages import AuditNoted

WAITING_MAX: Final = 1000  # lines; guess: the lines of an outage of minutes. Beyond it the oldest are lost
BATCH_MAX: Final = 20  # lines in one message
AGAIN_S: Final = 0.5
LEAVE_S_MAX: Final = 0.5  # for the last lines of a fanout that ends
CONNECTED_S: Final = 3600.0  # one token that connects from one network again and again is one line in so long
CONNECTED_MAX: Final = 1000  # such tokens and networks that are remembered


class AuditNotes:
    """The lines that wait, and the counts of the minute. All calls belong to the loop's thread.

    `on_guesses` is called with a text when so many credentials were wrong within a minute that somebody is to be told.
    """

    def __init__(
        self, link: Queues, fanout: str, on_guesses: Callable[[str], object] = lambda _: None, *,
        tally: Tally | None = None,
    ) -> None:  # fmt: skip
        self._link, self._fanout, self._on_guesses = link, fanout, on_guesses
        self._loop = asyncio.get_running_loop()
        self._tally = tally or Tally(self._loop.time())
        self._waiting: deque[AuditLine] = deque(maxlen=WAITING_MAX)
        self._batch: list[AuditLine] = []  # of them, under way
        self._sending: asyncio.Task[None] | None = None
        self._minute: asyncio.TimerHandle | None = None
        self._connected_s: dict[tuple[str, str], float] = {}
        self.refused = 0  # requests, those without any credential included

    def note(self, kind: Kind, subject: str, after: str, *, actor: str, reason: str = "") -> None:
        """Send a line about what happened; the same again within the minute is counted."""
        line = self._tally.happened(Noted(kind, subject, after, actor, reason), self._loop.time())
        self._send([] if line is None else [line])
        self._await_minute()

    def note_refused(
        self, request: str, reason: str, address: str, principal: Principal | None, *, is_guess: bool = False
    ) -> None:
        """Count a refused request. `request`: its method and path. `is_guess`: its credential was wrong."""
        self.refused += 1
        actor = principal.actor if principal is not None else f"nobody at {site_of(address)}"
        self._tally.refused(Noted(Kind.REQUEST, request, "refused", actor, reason), is_known=principal is not None)
        if is_guess:
            self._tally.guessed(site_of(address))
        self._await_minute()

    def note_connected(self, principal: Principal, address: str) -> None:
        """Note that a token opened a WebSocket: the first time, and once in CONNECTED_S while it goes on doing so."""
        key, now_s = (principal.credential, site_of(address)), self._loop.time()
        if now_s - self._connected_s.get(key, float("-inf")) < CONNECTED_S:
            return
        self._connected_s.pop(key, None)
        self._connected_s[key] = now_s
        if len(self._connected_s) > CONNECTED_MAX:
            del self._connected_s[next(iter(self._connected_s))]
        self.note(Kind.SESSION, address, "connected", actor=principal.actor, reason=f"{principal.role} by its token")

    async def leave(self) -> None:
        """Send what was counted, as far as LEAVE_S_MAX allows."""
        if self._minute is not None:
            self._minute.cancel()
            self._end_minute()
        if self._sending is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LEAVE_S_MAX):
                    await self._sending

    def _await_minute(self) -> None:
        if self._minute is None:
            self._minute = not_before(self._loop, self._tally.due_s(), self._end_minute)

    def _end_minute(self) -> None:
        self._minute = None
        self._send(self._tally.take(self._loop.time()))
        guessing = self._tally.take_guessing()
        if guessing is not None:
            self._on_guesses(str(guessing))
        if self._tally.is_counting:
            self._await_minute()

    def _send(self, lines: Iterable[Noted]) -> None:
        at_wall_s = time.time()
        self._waiting.extend(
            audit.line(at_wall_s, line.kind, line.subject, line.after, actor=line.actor, reason=line.reason)
            for line in lines
        )
        if self._waiting and (self._sending is None or self._sending.done()):
            self._sending = self._loop.create_task(self._bring())

    async def _bring(self) -> None:
        while self._batch or self._waiting:
            if not self._batch:
                self._batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_MAX))]
            try:
                noted = messages.encode(AuditNoted(self._fanout, self._batch))
                is_sent = (await self._link.append(messages.EVENTS, [noted])).accepted
            except QueuesAway:
                is_sent = False
            if is_sent:
                self._batch = []
            else:
                await asyncio.sleep(AGAIN_S)  # nothing tells when there is room again
