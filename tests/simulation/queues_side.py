"""The queues process: the real Queues of core, behind calls that take time, get lost, and are done or not when they
fail.

A copy of no shell but the server's `_perform` and `_read`: admit, then the queue. What a client meets: refused (not
running), reset (died in the middle), silence (stopped, or its answer lost): in the last two nobody knows whether the
call was done, and a stopped server does it when it goes on, long after its caller gave up, in an order of its own.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from simulation.timeline import Life

from processes.adapters.queues import QueuesAway
from processes.core.errors import Fenced
from processes.core.queues.bounded_queue import QueueSet
from processes.core.travels.queue_calls import EPOCH_MAX, Appended, Batch, QueueStats, check_append
from processes.core.values import Position

if TYPE_CHECKING:
    from simulation.world import World

TIMEOUT_S = 2.0
POLL_S = 5.0  # a read waits so long; the real one's second only costs turns


class _Call:
    def __init__(
        self,
        life: Life,
        link: VirtualLink,
        work: Callable[[QueueSet], Any],
        future: asyncio.Future[Any],
        queue: str | None,
    ) -> None:
        self.life, self.link, self.work, self.future = life, link, work, future
        self.reading = queue
        self.epoch = link.epoch
        self.answered = False


def away(cause: Exception) -> QueuesAway:
    """QueuesAway as the real link raises it."""
    error = QueuesAway(f"queues is away: {cause!r}")
    error.__cause__ = cause
    return error


class VirtualQueues:
    """The server. `core` None: not running."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.core: QueueSet | None = None
        self.stopped_until_s = 0.0
        self.losing = 0.0  # the part of answers that get lost now
        self._stopped: list[_Call] = []
        self._calls: dict[_Call, None] = {}
        self._waiting: dict[str, list[tuple[_Call, Position, int, int]]] = {}

    def start(self) -> None:
        """Empty, of a new epoch."""
        self.core = QueueSet(self._world.dice.randrange(1, EPOCH_MAX))

    def crash(self) -> None:
        """All memory is gone; whoever waits for an answer meets the end of its connection."""
        self.core = None
        self._stopped.clear()
        self._waiting.clear()
        calls, self._calls = self._calls, {}
        for call in calls:
            self._fail(call, away(ConnectionResetError()))

    def stop_for(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after so long: what arrived meanwhile is done then, in any order."""
        self.stopped_until_s = self._world.loop.now_s + seconds
        self._world.after(seconds, self._go_on)

    def arrive(self, call: _Call) -> None:
        """The call is on its way to the server."""
        self._world.loop.call_later(self._world.io_s(), self._perform, call)

    def _go_on(self) -> None:
        calls, self._stopped = self._stopped, []
        self._world.dice.shuffle(calls)
        for call in calls:
            self._perform(call)

    def _perform(self, call: _Call) -> None:
        if self.core is None:
            self._fail(call, away(ConnectionRefusedError()))
            return
        if self.stopped_until_s > self._world.loop.now_s:
            self._stopped.append(call)
            self._world.loop.call_later(TIMEOUT_S, self._fail, call, away(TimeoutError()))
            return
        self._calls[call] = None
        try:
            if self.core.admit(call.link.role, call.epoch):
                self._tell_older()
            answer = call.work(self.core)
        except Exception as error:
            self._fail(call, error)
            return
        if answer is not None:
            self._answer(call, answer)

    def _answer(self, call: _Call, answer: object) -> None:
        if call.answered:
            return
        if call.reading is None and self._world.dice.random() < self.losing:
            self._world.count("answer of queues lost")
            self._world.loop.call_later(TIMEOUT_S, self._fail, call, away(TimeoutError()))
            return
        call.life.later(self._world.io_s(), self._resolve, call, answer)

    def _resolve(self, call: _Call, answer: object) -> None:
        self._calls.pop(call, None)
        if not call.answered:
            call.answered = True
            if not call.future.done():
                call.future.set_result(answer)

    def _fail(self, call: _Call, error: Exception) -> None:
        if not call.answered:
            call.answered = True
            self._calls.pop(call, None)
            call.life.later(self._world.io_s(), self._raise, call, error)

    def _raise(self, call: _Call, error: Exception) -> None:
        if not call.future.done():
            call.future.set_exception(error)

    # long polls

    def poll(self, call: _Call, queue: str, after: Position, items_max: int, bytes_max: int) -> Batch | None:
        """What is there now; None: the call waits for more."""
        assert self.core is not None
        batch = self.core.named(queue).read(after, items_max, bytes_max)
        if batch.items or batch.gap:
            return batch
        entry = (call, batch.position, items_max, bytes_max)
        self._waiting.setdefault(queue, []).append(entry)
        self._world.loop.call_later(POLL_S, self._poll_over, queue, entry)
        return None

    def grown(self, queue: str) -> None:
        """Whoever waits for this queue looks again."""
        for call, after, items_max, bytes_max in self._waiting.pop(queue, ()):
            if call.life.alive and not call.answered:
                self._world.loop.call_soon(self._again, call, queue, after, items_max, bytes_max)

    def _again(self, call: _Call, queue: str, after: Position, items_max: int, bytes_max: int) -> None:
        if self.core is None or call.answered:
            return
        try:
            self.core.admit(call.link.role, call.epoch)
            batch = self.poll(call, queue, after, items_max, bytes_max)
        except Exception as error:
            self._fail(call, error)
            return
        if batch is not None:
            self._answer(call, batch)

    def _poll_over(self, queue: str, entry: tuple[_Call, Position, int, int]) -> None:
        waiting = self._waiting.get(queue, [])
        if entry in waiting:
            waiting.remove(entry)
            self._answer(entry[0], Batch([], entry[1], False))

    def _tell_older(self) -> None:
        for queue in list(self._waiting):
            self.grown(queue)


class VirtualLink:
    """An engine of adapters.queues, of which three calls are used."""

    def __init__(self, world: World, life: Life, role: str) -> None:
        self.epoch = 0
        self.role = role
        self._client, self._numbers = world.dice.randrange(EPOCH_MAX), itertools.count(1)
        self._world, self._life = world, life
        self._line = asyncio.Lock()  # a call begins when the one before it has ended, or was given up

    async def append(self, queue: str, items: Sequence[bytes], *, bulk: bool = False, lossy: bool = False) -> Appended:
        """As QueueLink."""
        listed = list(items)
        check_append(listed)
        if self.role == "hub":
            self._world.witness.published(queue, listed)

        number = next(self._numbers)

        def work(core: QueueSet) -> Appended:
            core.admit_append(self._client, number)
            appended = core.named(queue).append(listed, self._world.loop.now_s, bulk=bulk, lossy=lossy)
            self._world.queues.grown(queue)
            return appended

        answer: Appended = await self._ask(f"append {queue}", work)
        return answer

    async def read(
        self, queue: str, after: Position, *, items_max: int = 1000, bytes_max: int = 1 << 20, wait_s: float = 1.0
    ) -> Batch:  # fmt: skip
        """As QueueLink."""
        call: _Call | None = None

        def work(_: QueueSet) -> Batch | None:
            assert call is not None
            return self._world.queues.poll(call, queue, after, items_max, bytes_max)

        call = self._call(work, queue)
        self._world.queues.arrive(call)
        batch: Batch = await call.future
        return batch

    async def acknowledge(self, queue: str, position: Position) -> None:
        """As QueueLink."""

        def work(core: QueueSet) -> bool:
            core.named(queue).acknowledge(position)
            return True

        await self._ask(f"acknowledge {queue}", work)

    async def stats(self) -> list[QueueStats]:
        """No process of the simulation asks for them."""
        raise NotImplementedError

    async def ping(self) -> float:
        """No process of the simulation does that."""
        raise NotImplementedError

    async def close(self) -> None:
        """No process of the simulation does that: it is killed."""
        raise NotImplementedError

    def _call(self, work: Callable[[QueueSet], Any], reading: str | None = None) -> _Call:
        return _Call(self._life, self, work, self._world.loop.create_future(), reading)

    async def _ask(self, what: str, work: Callable[[QueueSet], Any]) -> Any:
        async with self._line:
            self._life.spend(f"before {what}")
            call = self._call(work)
            self._world.queues.arrive(call)
            try:
                answer = await call.future
            except Fenced:
                self._world.count("fenced")
                raise
        self._life.spend(f"after {what}")
        return answer
