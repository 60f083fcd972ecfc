"""Operators' requests on their way to the hub and back: appended to `events`, answered in the broadcasts.

The answer is 503 if the hub can never see the request, and 504 if the fanout cannot know whether it did. Appending
twice does no harm: the hub gives the same answer to the same `request_id`.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from processes.adapters.clock import Clock
from processes.adapters.logs import Log
from processes.adapters.queues import Queues, QueuesAway
from processes.core.travels import messages
from processes.core.travels.messages import Json, Replied, Request, RequestReceived

DEADLINE_S: Final = 5.0  # contract: the hub refuses a request that it steps later
GRACE_S: Final = 1.0  # for an answer that was given at the last moment
AWAY_S_MAX: Final = 2.0  # for which `queues` may be away before 503; it is back within one second
AGAIN_S: Final = 0.1  # between two tries to append
OPEN_MAX: Final = 1000  # requests that wait for the hub; beyond it 503

# causes of QueuesAway that arise before anything was sent
NOTHING_SENT: Final = (FileNotFoundError, ConnectionRefusedError)


class Answer(NamedTuple):
    """An HTTP status and a JSON body."""

    status: int
    body: Json


class _Open:
    def __init__(self, item: bytes, future: asyncio.Future[Replied]) -> None:
        self.item, self.future = item, future
        self.appended = False  # True also if it may have been: the connection broke during the call


def problem(code: str, message: str, **more: object) -> Json:
    """Return the body of an error answer."""
    return Json(msgspec.json.encode({"error": code, "message": message, **more}))


UNAVAILABLE: Final = Answer(
    503, problem("hub_unavailable", "the request did not reach the hub and will not be carried out: ask again")
)
UNKNOWN: Final = Answer(
    504, problem("outcome_unknown", "no answer in time, but it may yet be carried out: ask again with the same key")
)
UNKNOWN_WITHOUT_KEY: Final = Answer(
    504,
    problem(
        "outcome_unknown", "no answer in time, but it may yet be carried out: look whether it was before asking again"
    ),
)


def _new_id() -> str:
    return uuid.uuid4().hex


class Requests:
    """The requests that wait for an answer."""

    def __init__(
        self, link: Queues, fanout: str, log: Log,
        *, clock: Clock = Clock(), new_id: Callable[[], str] = _new_id,  # noqa: B008  # a clock has no state
    ) -> None:  # fmt: skip
        self._link, self._fanout, self._log, self._clock, self._new_id = link, fanout, log, clock, new_id
        self._open: dict[str, _Open] = {}
        self._rounds = 0  # how often all was sent again
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """Return how many requests wait now."""
        return len(self._open)

    async def ask(self, actor: str, request: Request) -> Answer:
        """Return the hub's answer, or UNAVAILABLE or UNKNOWN. Takes at most DEADLINE_S + GRACE_S."""
        if len(self._open) >= OPEN_MAX:
            return UNAVAILABLE
        loop = asyncio.get_running_loop()
        request_id = self._new_id()
        deadline_boot_s = self._clock.now().boot_s + DEADLINE_S
        deadline_s = loop.time() + DEADLINE_S
        event = RequestReceived(request_id, self._fanout, actor, deadline_boot_s, request)
        waiting = self._open[request_id] = _Open(messages.encode(event), loop.create_future())
        try:
            if not await self._append(waiting, deadline_s):
                return UNAVAILABLE
            async with asyncio.timeout_at(deadline_s + GRACE_S):
                replied = await waiting.future
            return Answer(replied.status, replied.body)
        except TimeoutError:
            self._log.warning("a request got no answer", request=request_id, kind=type(request).__name__)
            return UNKNOWN if getattr(request, "key", None) else UNKNOWN_WITHOUT_KEY
        finally:
            del self._open[request_id]

    def replied(self, message: Replied) -> None:
        """Called when an answer comes; its request may be gone or answered already."""
        waiting = self._open.get(message.request_id)
        if waiting is not None and not waiting.future.done():
            waiting.future.set_result(message)

    def again(self) -> None:
        """Send every waiting request again. To be called when requests or answers may have been lost."""
        self._rounds += 1
        open_ = [waiting for waiting in self._open.values() if waiting.appended and not waiting.future.done()]
        if open_:
            task = asyncio.get_running_loop().create_task(self._append_again(open_))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _append(self, waiting: _Open, deadline_s: float) -> bool:
        """Append the request. Return False if the hub can never see it."""
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        while not waiting.future.done() and loop.time() < deadline_s:
            rounds = self._rounds
            try:
                appended = await self._link.append(messages.EVENTS, [waiting.item])
            except QueuesAway as away:
                if not isinstance(away.__cause__, NOTHING_SENT):
                    waiting.appended = True
                elif not waiting.appended and loop.time() - started_s > AWAY_S_MAX:
                    return False
                await asyncio.sleep(AGAIN_S)
                continue
            if appended.accepted:
                waiting.appended = True
                if rounds != self._rounds:
                    continue  # another hub began meanwhile, and may leave what it found
            return waiting.appended
        return waiting.appended

    async def _append_again(self, open_: list[_Open]) -> None:
        for _ in range(int(DEADLINE_S / AGAIN_S)):
            items = [waiting.item for waiting in open_ if not waiting.future.done()]
            if not items:
                return
            try:
                if (await self._link.append(messages.EVENTS, items)).accepted:
                    return
            except QueuesAway:
                pass
            await asyncio.sleep(AGAIN_S)
