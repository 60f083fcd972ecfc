"""The gateway's turn: deliveries to the sockets → the result of the last append → the next append → pulse.

Calls to `queues` run beside the turns, one reading and one appending at a time; a turn only takes their results.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from processes.adapters.accepts import Accepts
from processes.adapters.clock import Clock
from processes.adapters.queue_reader import QueueReader
from processes.adapters.queues import Queues, QueuesAway
from processes.adapters.state.pulse_file import PulseFile
from processes.core.errors import LocalError
from processes.core.gateway.outbox import OutgoingBatch as OutBatch
from processes.core.travels import messages
from processes.core.travels.pulse import Blocked
from processes.core.travels.queue_calls import Appended
from processes.gateway.gate import Gate

TURN_S_MAX: Final = 0.25  # an idle loop turns too
UNANSWERED_S: Final = 0.5  # an append that takes so long waits for `queues`, which is judged by itself
DELIVERIES_MAX: Final = 500  # a turn; about 20 ms
DRAIN_S_MAX: Final = 2.5  # for closing handshakes (each ends after Limits.close_s_max) and the last events


class Loop:
    """One gateway's loop, from its first census until its connections are closed."""

    def __init__(
        self, gate: Gate, link: Queues, pulse: PulseFile, stop: asyncio.Event, accepts: Accepts | None = None,
        *, clock: Clock = Clock(), turn_s_max: float = TURN_S_MAX,  # noqa: B008  a clock has no state
    ) -> None:  # fmt: skip
        self._clock, self._turn_s_max = clock, turn_s_max
        self._gate, self._link, self._pulse, self._stop, self._accepts = gate, link, pulse, stop, accepts
        self._loop = asyncio.get_running_loop()
        self._deliveries = QueueReader(link, messages.deliveries_of(gate.name), DELIVERIES_MAX, gate.wake.set)
        self._events_epoch = 0
        self._appending: asyncio.Task[Appended | None] | None = None
        self._appending_away = False
        self._appending_since_s = 0.0
        self._undecodable = 0  # deliveries of a later version

    async def run(self) -> None:
        """Turn until the process is asked to stop."""
        stopping = asyncio.create_task(self._stop.wait())
        stopping.add_done_callback(lambda _: self._gate.wake.set())
        self._gate.take_census()
        while not self._stop.is_set():
            await self._wait()
            self._turn()

    async def drain(self) -> None:
        """Ask every agent to come back later and tell the hub of each disconnect, within DRAIN_S_MAX at most."""
        self._gate.end_all()
        deadline_s = self._loop.time() + DRAIN_S_MAX
        while (self._gate.roster.sockets or len(self._gate.outbox)) and self._loop.time() < deadline_s:
            await self._wait()
            self._turn()
        self._deliveries.cancel()
        if self._appending is not None:
            self._appending.cancel()

    async def _wait(self) -> None:
        now_s = self._loop.time()
        due_s = self._gate.outbox.due_s()
        wait_s = self._turn_s_max if due_s is None else min(max(due_s - now_s, 0.0), self._turn_s_max)
        await self._gate.wake.wait(wait_s)

    def _turn(self) -> None:
        now_s = self._loop.time()
        self._take_deliveries()
        self._take_appended(now_s)
        self._gate.look(now_s)
        self._append_next(now_s)
        self._beat(now_s)

    def _take_deliveries(self) -> None:
        batch = self._deliveries.take()
        if batch is not None:
            if batch.gap:
                self._gate.log.warning("deliveries were lost", queue=self._deliveries.queue)
                self._gate.miss_deliveries()
            for item in batch.items:
                self._deliver(item)
            self._link.epoch = self._gate.epoch
        self._deliveries.ask()

    def _deliver(self, item: bytes) -> None:
        try:
            message = messages.decode_delivery(item)
        except (LocalError, msgspec.DecodeError) as error:  # of a later version: its hub delivers what matters again
            self._undecodable += 1
            self._gate.log.error("a delivery that this version does not understand", why=str(error))
            return
        self._gate.deliver(message)

    def _append_next(self, now_s: float) -> None:
        if self._appending is None:
            batch = self._gate.outbox.next(now_s)
            if batch is not None:
                self._appending_since_s = now_s
                self._appending = self._loop.create_task(self._append(batch))
                self._appending.add_done_callback(lambda _: self._gate.wake.set())

    async def _append(self, batch: OutBatch) -> Appended | None:
        """Append the batch. Return None if `queues` is away: it is not known then whether the batch was appended."""
        try:
            return await self._link.append(messages.EVENTS, batch.items, bulk=batch.bulk)
        except QueuesAway:
            return None

    def _take_appended(self, now_s: float) -> None:
        if self._appending is None or not self._appending.done():
            return
        outcome, self._appending = self._appending.result(), None
        self._appending_away = outcome is None
        if outcome is None or not outcome.accepted:
            self._gate.outbox.refused(now_s)
        else:
            self._pulse.pulse.published += self._gate.outbox.appended()
        if outcome is not None and outcome.position.epoch != self._events_epoch:
            if self._events_epoch:  # `queues` was started anew, and what `events` held is lost
                self._gate.log.warning("events was emptied", epoch=outcome.position.epoch)
                self._gate.take_census()
            self._events_epoch = outcome.position.epoch

    def _beat(self, now_s: float) -> None:
        gate, pulse = self._gate, self._pulse.pulse
        oldest_s = gate.outbox.oldest_s()
        pulse.epoch, pulse.received, pulse.delivered = gate.epoch, gate.received, gate.delivered
        pulse.backlog, pulse.connections = len(gate.outbox), len(gate.roster.sockets)
        pulse.oldest_ns = 0 if oldest_s is None else self._clock.mono_ns() - int(max(now_s - oldest_s, 0.0) * 1e9)
        unanswered = self._appending is not None and now_s - self._appending_since_s > UNANSWERED_S
        away = self._deliveries.away or self._appending_away or unanswered
        pulse.blocked_on = Blocked.QUEUES if away else Blocked.NOTHING
        pulse.dropped, pulse.errors = gate.dropped + self._undecodable, gate.malformed
        pulse.refused = gate.impersonations
        if self._accepts is not None:
            self._accepts.enter(pulse, self._clock.mono_ns())
        self._pulse.beat()
