"""The hub's one state loop. A turn, in order:

1. take events from the inbox and step them (core/hub/turn.py decides which; an idle loop steps a Tick in the same way);
2. carry out the turn's Outcome in the order of its fields: note refusals, publish effects that need no disk, commit a
   batch, publish the effects that waited for the commit, acknowledge;
3. write the pulse.

A slow, locked or full database does not stop the loop: a commit is a task beside the turns, one at a time, and the next
turn is told that the storage is busy, or blocked if the commit lasts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Final

from processes.adapters import failpoint
from processes.adapters.bootstrap import Process
from processes.adapters.clock import Clock
from processes.adapters.queues import Queues, QueuesAway
from processes.adapters.wake import Wake
from processes.core.hub.effects import Effects
from processes.core.hub.memory import Memory
from processes.core.hub.turn import NOWHERE, TICK_S, CommitBatch, Outcome, Storage, Turn
from processes.core.records.dead_letter import DeadLetter
from processes.core.travels.messages import EVENTS
from processes.core.travels.pulse import Blocked
from processes.core.values import Position, Presence
from processes.hub.barrier import Barrier
from processes.hub.publisher import Mark, Publisher
from processes.hub.store import StorageBlocked, Store

STORAGE_BLOCKED_S: Final = 1.0  # a commit takes 3 ms; after so long the storage counts as blocked
FLUSH_S_MAX: Final = 3.0  # for the last commits, when asked to stop
RENEW_S: Final = 1.0  # between two signs of life of a hub that leads others; half of the shortest lease
PRUNE_S: Final = 60.0  # between two looks at what is past its time
PRUNE_AGAIN_S: Final = 0.5  # between two bites while there is more: commands never wait long behind housekeeping
FOLD_S: Final = 5.0  # between a commit and the folding in of its log; guess: often enough for who copies one file
READ_ITEMS_MAX: Final = 1000
AWAY_S: Final = 0.05  # between two tries to read from queues that are away


class Loop:
    """One hub's life, from a restored memory to its stop."""

    def __init__(
        self, process: Process, store: Store, memory: Memory, link: Queues, position: Position,
        *, taken_at: Position = NOWHERE,
        clock: Clock = Clock(), tick_s: float = TICK_S, prune_s: float = PRUNE_S,  # noqa: B008  # no state
    ) -> None:  # fmt: skip
        self._process, self._store, self._memory, self._link, self._clock = process, store, memory, link, clock
        self._log, self._pulse = process.log, process.pulse.pulse
        self._retention = process.settings.file.retention
        refused_before = Position(self._pulse.refused_epoch, self._pulse.refused_sequence)
        self._turns = Turn(memory, Barrier(process, memory), position, refused_before, taken_at=taken_at, tick_s=tick_s)
        self._publisher = Publisher(link, memory, process.log, self._turns.unsaid)
        self._read_position, self._tick_s = position, tick_s
        self._wake, self._room = Wake(), asyncio.Event()
        self._room.set()
        self._commit: asyncio.Task[None] | None = None
        self._commit_since_s = 0.0
        self._commit_says = ""
        self._pruned_s = self._folded_s = self._renewed_s = clock.mono_s()
        self._prune_s = prune_s
        # to be tried again, which may end this hub: whoever asked for it is told before
        self._retries: deque[tuple[list[DeadLetter], Mark]] = deque()
        self._floor_s = 0.0  # of the intervals of heartbeats, as it was logged last

    async def run(self) -> None:
        """Turn until the process is asked to stop. Raises: every exception that must end the process."""
        tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._publisher.run())]
        stopping = asyncio.create_task(self._process.stop.wait())
        for task in (*tasks, stopping):
            task.add_done_callback(lambda _: self._wake.set())
        self._beat()  # the memory is restored: a freeze from now on is one of the loop, not of the start
        try:
            while not self._process.stop.is_set():
                await self._wait()
                self._turn()
                for task in tasks:
                    if task.done():
                        task.result()  # raises the exception that ended the task: the process ends with it
            await self._finish()
        finally:
            for waiting in (*tasks, stopping):
                waiting.cancel()

    async def _wait(self) -> None:
        await self._wake.wait(0.0 if self._turns.has_work else self._tick_s)

    def _turn(self) -> None:
        if self._commit is not None and self._commit.done():
            self._commit.result()
            self._commit = None
        while self._retries and self._publisher.has_said(self._retries[0][1]):
            self._turns.try_again(self._retries.popleft()[0])
        self._carry_out(self._turns.turn(self._clock.now(), self._storage(), self._clock.mono_ns()))
        if self._turns.has_room:
            self._room.set()
        self._beat()

    # carrying out

    def _carry_out(self, outcome: Outcome) -> None:
        """Carry out the outcome in the order of its fields."""
        if outcome.refused is not None:
            self._process.pulse.refuse(outcome.refused.epoch, outcome.refused.sequence)
        self._tell(outcome.now)
        if outcome.batch is not None:
            self._begin(self._write(outcome.batch, outcome.then, outcome.acknowledge))
        elif outcome.acknowledge is not None:
            if self._store.is_shared:
                self._renew_or_keep_house(outcome.acknowledge)
                return
            self._publisher.acknowledge(outcome.acknowledge)
            self._keep_house(self._clock.mono_s())

    def _renew_or_keep_house(self, position: Position) -> None:
        """Acknowledge nothing that is not committed: a hub that froze would else let go of what its successor on
        another machine has not read.
        """
        now_s = self._clock.mono_s()
        if now_s - self._renewed_s >= RENEW_S:
            self._renewed_s = now_s
            self._begin(self._renew(position))
        else:
            self._keep_house(now_s)

    async def _renew(self, position: Position) -> None:
        await self._store.renew(position, self._blocked)
        self._publisher.acknowledge(position)

    def _tell(self, effects: Effects) -> None:
        self._publisher.tell(effects)
        if effects.retries:
            self._retries.append((effects.retries, self._publisher.mark()))

    async def _write(self, batch: CommitBatch, then: Effects, acknowledge: Position | None) -> None:
        self._renewed_s = self._clock.mono_s()
        failpoint.reach("hub.before_begin")
        # plant: commit-first
        for name, error in await self._store.commit(batch, self._blocked):
            self._log.error("a host's record could not be written as its agent said it", host=name, error=error)
            self._turns.unsaid("HostRecord", name, error)
        failpoint.reach("hub.after_commit")
        self._pulse.committed = self._store.written
        self._tell(then)
        if acknowledge is not None:
            self._publisher.acknowledge(acknowledge)

    # housekeeping, while nothing is to be written

    def _keep_house(self, now_s: float) -> None:
        if now_s - self._pruned_s >= self._prune_s:
            self._pruned_s = now_s
            self._begin(unless_blocked(self._prune))
        elif self._store.has_log and now_s - self._folded_s >= FOLD_S:
            self._folded_s = now_s
            self._begin(unless_blocked(self._store.fold_log))

    async def _prune(self) -> None:
        kept = self._retention
        if await self._store.prune(self._clock.now(), kept.commands_days * 86400, int(kept.output_mb * 2**20)):
            self._pruned_s = self._clock.mono_s() - self._prune_s + min(PRUNE_AGAIN_S, self._prune_s)

    # the storage

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        self._commit_since_s, self._commit_says = self._clock.mono_s(), ""
        self._commit = asyncio.create_task(work)
        self._commit.add_done_callback(lambda _: self._wake.set())

    def _storage(self) -> Storage:
        if self._commit is None:
            return Storage.IDLE
        lasts_s = self._clock.mono_s() - self._commit_since_s
        return Storage.BLOCKED if lasts_s > STORAGE_BLOCKED_S else Storage.BUSY

    def _blocked(self, says: str) -> None:
        """Called when the database could not take the batch, which is tried again."""
        if says != self._commit_says:
            self._commit_says = says
            self._log.warning("the database cannot be written now; the same batch is tried again", error=says)

    # the inbox

    async def _read(self) -> None:
        """Fill the inbox from the events queue, for ever, as fast as there is room."""
        while True:
            await self._room.wait()
            try:
                batch = await self._link.read(EVENTS, self._read_position, items_max=READ_ITEMS_MAX, wait_s=1.0)
            except QueuesAway:
                await asyncio.sleep(AWAY_S)
                continue
            if batch.gap:
                self._log.warning(
                    "events were lost with their queue; censuses and repeats mend it", epoch=batch.position.epoch
                )
            self._turns.receive(batch.items, batch.position, self._clock.mono_ns(), self._clock.now())
            self._pulse.received += len(batch.items)
            self._read_position = batch.position
            if not self._turns.has_room:
                self._room.clear()
            if batch.items:
                self._wake.set()

    # pulse and end

    def _beat(self) -> None:
        pulse, memory, turns, publisher = self._pulse, self._memory, self._turns, self._publisher
        counts = memory.counts()
        pulse.stepped, pulse.backlog, pulse.oldest_ns = turns.stepped, turns.backlog, turns.oldest_ns
        pulse.published, pulse.delivered, pulse.dropped = publisher.published, publisher.delivered, publisher.dropped
        pulse.online, pulse.stale, pulse.offline = (counts[presence] for presence in Presence)
        pulse.connections, pulse.hosts = pulse.online, memory.hosts_known
        blocked = Blocked.STORAGE if self._storage() is Storage.BLOCKED else Blocked.NOTHING
        if blocked is Blocked.NOTHING and publisher.away:
            blocked = Blocked.QUEUES
        pulse.blocked_on, pulse.storage_ns = str(blocked), self._store.call_since_ns
        pulse.dead_letters, pulse.suspended = len(memory.dead_letters), memory.hosts_suspended
        if memory.pace.floor_s != self._floor_s:
            self._log.info("agents are told how often to send heartbeats", at_least_every_s=memory.pace.floor_s)
            self._floor_s = memory.pace.floor_s
        self._process.pulse.beat()

    async def _finish(self) -> None:
        """Commit everything that was stepped, and publish everything that is committed."""
        async with asyncio.timeout(FLUSH_S_MAX):
            await self._commit_over()
            self._turns.flush()
            self._turn()
            await self._commit_over()
        await self._publisher.drain(0.5)

    async def _commit_over(self) -> None:
        """Wait until the commit under way, if there is one, has ended; the pulse goes on meanwhile."""
        while self._commit is not None:
            if (await asyncio.wait({self._commit}, timeout=self._tick_s))[0]:
                self._commit.result()
                self._commit = None
            self._beat()


async def unless_blocked(work: Callable[[], Coroutine[None, None, object]]) -> None:
    """Does it, but leaves a database alone that is locked or full: what was to be done is done the next time."""
    with contextlib.suppress(StorageBlocked):
        await work()
