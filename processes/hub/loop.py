"""The hub's one state loop. A turn, in order:

1. take a batch of events (an idle loop gets a Tick by the same way);
2. step each, behind an exception barrier: one that raises has changed nothing and is put aside;
3. commit what must last, in one transaction a batch, with the events position;
4. publish, deliver, answer, acknowledge: only what is committed;
5. write the pulse.

A slow, locked or full database does not stop the turning. At most one batch is in commit; meanwhile events that need no
disk go on, and those that do are parked, in order. When it lasts (STORAGE_BLOCKED_S), new requests are refused, reports
are left unacknowledged (agents send them again), and the pulse says so. The refused ones still stand behind the
position that is on disk: the pulse keeps up to where, so that a hub which reads them after this one's death refuses
them too.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import deque
from collections.abc import Coroutine
from typing import Final, NamedTuple

from processes.adapters import clock, failpoint
from processes.adapters.bootstrap import Process
from processes.adapters.queue_link import QueueLink, QueuesAway
from processes.core.errors import LocalError
from processes.core.hub import step
from processes.core.hub.effects import Effects, PutHost, PutReply
from processes.core.hub.memory import Draft, Memory
from processes.core.hub.step import Tick
from processes.core.records import dead_letter, poison
from processes.core.records.dead_letter import DeadLetter
from processes.core.shown.replica import Replica
from processes.core.travels import messages
from processes.core.travels.messages import Event, RequestReceived
from processes.core.travels.pulse import Blocked
from processes.core.values import Position, Presence
from processes.hub.barrier import Barrier
from processes.hub.publisher import Publisher
from processes.hub.store import Commit, Store

BATCH_MAX: Final = 200  # events a turn; at about 50 µs each a turn stays near 10 ms
TICK_S: Final = 0.1
INBOX_MAX: Final = 4_000  # events read ahead; the rest waits in the queue
PARKED_MAX: Final = 10_000  # events that wait for a commit; beyond it they are treated as when storage is blocked
STORAGE_BLOCKED_S: Final = 1.0  # a commit takes 3 ms; one that takes this long is no hiccup
WRITE_BEHIND_S: Final = 1.0  # heartbeats reach the disk this much later at most
FLUSH_S_MAX: Final = 3.0  # for the last commits, when asked to stop
PRUNE_S: Final = 60.0  # a bite each time, so that commands never wait long behind housekeeping
SNAPSHOT_ROWS: Final = 200  # a piece


class Taken(NamedTuple):
    """One event of the inbox."""

    event: Event
    name: str  # its kind and digest, for the pulse
    position: Position
    since_ns: int
    letter: DeadLetter | None = None  # it was put aside before, and is tried again


class Loop:
    """One hub's life, from a restored memory to its stop."""

    def __init__(self, process: Process, journal: Store, memory: Memory, link: QueueLink, position: Position) -> None:
        self._process, self._journal, self._memory, self._link = process, journal, memory, link
        self._log, self._pulse = process.log, process.pulse.pulse
        self._barrier = Barrier(process, memory)
        self._retention = process.settings.file.retention
        self._inbox: deque[Taken] = deque()
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._read_position = self._taken_position = position
        self._refused_before = Position(self._pulse.refused_epoch, self._pulse.refused_sequence)
        self._refused: dict[
            str, float
        ] = {}  # request id → its deadline, in seconds of CLOCK_BOOTTIME: copies of it may still come
        self._unwritten: dict[
            str, PutReply
        ] = {}  # refusals that are not on disk: written before the position goes past them
        self._parked: deque[Taken] = deque()
        self._again: deque[Taken] = deque()  # dead letters to be tried again
        for letter in memory.letters.values():
            if letter.retrying:
                self._try_again(letter)
        self._replica = _replica_of(memory)
        queues = [
            *map(messages.broadcasts_of, memory.rules.fanouts),
            *map(messages.deliveries_of, memory.rules.gateways),
        ]
        self._publisher = Publisher(link, queues, memory.epoch, process.log)
        self._commit: asyncio.Task[None] | None = None
        self._commit_since_s = 0.0
        self._commit_says = ""
        self._held = Effects()  # of the batch that is being gathered, until its commit begins
        self._ticked_s = self._flushed_s = self._pruned_s = time.monotonic()

    async def run(self) -> None:
        """Turns until the process is to stop. Raises: whatever must end the process."""
        tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._publisher.run())]
        for task in tasks:
            task.add_done_callback(lambda _: self._wake.set())
        stopping = asyncio.create_task(self._process.stop.wait())
        stopping.add_done_callback(lambda _: self._wake.set())
        self._beat()  # the memory stands: what freezes now froze in the loop, not at its start
        try:
            while not self._process.stop.is_set():
                await self._turn()
                for task in tasks:
                    if task.done():
                        task.result()  # raises what it died of: the process ends with it
            await self._finish()
        finally:
            for waiting in (*tasks, stopping):
                waiting.cancel()

    async def _turn(self) -> None:
        if not self._inbox:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), TICK_S)
        else:
            await asyncio.sleep(0)
        self._wake.clear()
        if self._commit is not None and self._commit.done():
            self._commit.result()
            self._commit = None
        if self._commit is None:
            for _ in range(len(self._parked)):
                self._step(self._parked.popleft())
        elif self._storage_blocked():
            self._let_go_parked()
        for _ in range(len(self._again)):
            first = Position(
                self._taken_position.epoch, self._taken_position.sequence + 1
            )  # parked, it holds nothing back
            self._step(self._again.popleft()._replace(position=first))
        for _ in range(min(BATCH_MAX, len(self._inbox))):
            taken = self._inbox.popleft()
            self._taken_position = taken.position
            self._step(taken)
        if len(self._inbox) < INBOX_MAX:
            self._room.set()
        self._time_passes()
        self._begin_commit()
        self._beat()

    # step

    def _step(self, taken: Taken) -> None:
        """The event is stepped, or parked if it needs a disk that is busy."""
        if self._was_refused(taken):
            self._refuse(taken)
            return
        draft = self._barrier.step(taken.event, taken.name, taken.letter)
        # plant: asked-again
        if self._commit is not None and (draft.effects.durable or draft.effects.promises):
            self._park(taken)
            return
        self._pulse.stepped += 1
        self._apply(draft)
        if isinstance(taken.event, messages.StatusReceived):
            failpoint.reach("hub.report_stepped")

    def _try_again(self, letter: DeadLetter) -> None:
        try:
            event = dead_letter.revived(letter)
        except LocalError as error:  # kept by a version that could read it
            self._log.error("a dead letter cannot be tried again", letter=letter.id, error=str(error))
            return
        self._again.append(Taken(event, dead_letter.name_again(letter), Position(0, 0), time.monotonic_ns(), letter))
        self._wake.set()

    def _park(self, taken: Taken) -> None:
        if self._storage_blocked() or len(self._parked) >= PARKED_MAX:
            self._let_go(taken)
        else:
            self._parked.append(taken)

    def _let_go_parked(self) -> None:
        for _ in range(len(self._parked)):
            self._let_go(self._parked.popleft())

    def _let_go(self, taken: Taken) -> None:
        """A request is refused aloud; what agents reported stays unacknowledged, and is said again; a foreign agent's
        word waits.
        """
        event, room = taken.event, len(self._parked) < PARKED_MAX
        if taken.letter is not None:
            self._again.append(taken)
        elif isinstance(event, RequestReceived) and event.request_id not in self._memory.replies:
            self._refuse(taken)
        elif room and (isinstance(event, RequestReceived) or step.said_once(self._memory, event)):
            self._parked.append(taken)  # a request asked twice has its answer in the commit under way

    def _refuse(self, taken: Taken) -> None:
        """Aloud, and for good: whoever reads this request again refuses it too, by the mark; whoever gets a copy of it,
        by the reply.
        """
        assert isinstance(taken.event, RequestReceived)
        place, pulse = taken.position, self._pulse
        # plant: refused-copies
        self._refused[taken.event.request_id] = taken.event.deadline_boot_s
        if place.epoch != pulse.refused_epoch or place.sequence > pulse.refused_sequence:
            # plant: refused-for-the-next-hub
            self._process.pulse.refuse(place.epoch, place.sequence)
        now = clock.now()
        effects = step.refuse_for_storage(self._memory, taken.event, now).apply()
        for _, reply in effects.replies:
            self._unwritten[reply.request_id] = PutReply(reply.request_id, now.wall_s, reply.status, reply.body)
        self._carry_out(effects)

    def _was_refused(self, taken: Taken) -> bool:
        """True for a copy of a refused request, and for one that the hub before this one may have refused: what it
        carried out has its answer on disk.
        """
        if not isinstance(taken.event, RequestReceived) or taken.letter is not None:
            return False
        place, before = taken.position, self._refused_before
        passed = place.epoch != before.epoch or place.sequence > before.sequence
        return taken.event.request_id in self._refused or (
            not passed and taken.event.request_id not in self._memory.replies
        )

    def _forget_refused(self, now_boot_s: float) -> None:
        """What is past its deadline is refused for that: the oldest go first, as they came."""
        for request_id in [
            id for id, deadline in itertools.takewhile(lambda each: each[1] < now_boot_s, self._refused.items())
        ]:
            del self._refused[request_id]
            self._unwritten.pop(request_id, None)  # a copy of it is refused for its deadline

    def _apply(self, draft: Draft) -> None:
        effects = draft.apply()
        self._barrier.applied(effects)
        if effects.at_once:
            at_once, effects.at_once = effects.at_once, []
            self._carry_out(Effects(changes=at_once))
        if effects.durable or (
            effects.promises and self._held.durable
        ):  # a request asked twice in one batch is answered after it
            self._held.extend(effects)
        else:
            self._carry_out(effects)

    def _time_passes(self) -> None:
        now_s = time.monotonic()
        if now_s - self._ticked_s >= TICK_S:
            self._ticked_s = now_s
            self._forget_refused(clock.now().boot_s)
            self._apply(self._barrier.step(Tick(), "Tick"))
        if self._commit is not None:
            return
        for event in step.due(self._memory):
            self._apply(self._barrier.step(event, poison.name_of_own(type(event).__name__, repr(event))))
        for _ in range(step.DUE_MAX):
            timer = step.elapsed(self._memory, clock.now())
            if timer is None:
                break
            self._apply(self._barrier.step(timer, poison.name_of_own(timer.kind, timer.command_id)))

    # commit

    def _storage_blocked(self) -> bool:
        return self._commit is not None and time.monotonic() - self._commit_since_s > STORAGE_BLOCKED_S

    def _begin_commit(self) -> None:
        now_s = time.monotonic()
        if self._commit is not None:
            return
        if now_s - self._flushed_s >= WRITE_BEHIND_S:
            self._flushed_s = now_s
            dirty = self._memory.dirty
            self._held.writes += [PutHost(self._memory.hosts[name]) for name in dirty]
            dirty.clear()
        # plant: refused-on-disk
        self._held.writes += self._unwritten.values()
        self._unwritten.clear()
        if self._held.durable:
            held, self._held = self._held, Effects()
            batch = Commit(
                held.writes, self._memory.ledger, self._memory.next_number, self._settled_position(), clock.now()
            )
            self._commit_task(self._committed(batch, held))
        else:
            if now_s - self._pruned_s >= PRUNE_S:
                self._pruned_s = now_s
                self._commit_task(self._prune())
            self._publisher.acknowledge(self._settled_position())

    def _commit_task(self, work: Coroutine[None, None, None]) -> None:
        self._commit_since_s, self._commit_says = time.monotonic(), ""
        self._commit = asyncio.create_task(work)
        self._commit.add_done_callback(lambda _: self._wake.set())

    async def _committed(self, batch: Commit, held: Effects) -> None:
        failpoint.reach("hub.before_begin")
        # plant: commit-first
        await self._journal.commit(batch, self._told_blocked)
        failpoint.reach("hub.after_commit")
        self._pulse.committed += len(batch.writes)
        self._carry_out(held)
        self._publisher.acknowledge(batch.position)

    def _told_blocked(self, says: str) -> None:
        if says != self._commit_says:
            self._commit_says = says
            self._log.warning("the database cannot be written now; the same batch is tried again", error=says)

    def _settled_position(self) -> Position:
        """Everything up to here has been stepped, and is in this commit or in one before."""
        if not self._parked:
            return self._taken_position
        first = self._parked[0].position
        return Position(first.epoch, first.sequence - 1)

    async def _prune(self) -> None:
        now = clock.now()
        before_wall_s = now.wall_s - self._retention.commands_days * 86400
        await self._journal.prune(now, before_wall_s, int(self._retention.output_mb * 2**20))

    # publish, deliver, answer

    def _carry_out(self, effects: Effects) -> None:
        epoch, publisher, rules = self._memory.epoch, self._publisher, self._memory.rules
        for gateway, delivery in effects.deliveries:
            if isinstance(delivery, messages.DeliverAck) and delivery.offset is None:
                failpoint.reach("hub.report_committed")
            if gateway in rules.gateways:  # one that was configured away is not told any more
                publisher.put(messages.deliveries_of(gateway), delivery)
                self._pulse.delivered += 1
        for change in effects.changes:
            self._replica.apply(change)
        for fanout in rules.fanouts:
            queue = messages.broadcasts_of(fanout)
            if effects.changes:
                publisher.put(queue, messages.Changed(epoch, effects.changes))
            for grew in effects.grew:
                publisher.put(queue, grew)
        for fanout, snapshot in effects.snapshots:
            if fanout in rules.fanouts:
                self._put_snapshot(messages.broadcasts_of(fanout), snapshot)
        for fanout, name in effects.tried_again:
            if fanout in rules.fanouts:
                publisher.put(messages.broadcasts_of(fanout), messages.TryAgain(epoch, name))
        for letter in effects.retries:
            self._try_again(letter)
        for fanout, reply in effects.replies:
            if fanout in rules.fanouts:
                publisher.put(messages.broadcasts_of(fanout), reply, bulk=False)

    def _put_snapshot(self, queue: str, snapshot: str) -> None:
        pieces = list(self._replica.pieces(SNAPSHOT_ROWS))
        for number, piece in enumerate(pieces):
            last = number == len(pieces) - 1
            self._publisher.put(queue, messages.SnapshotPiece(self._memory.epoch, snapshot, number, last, piece))

    # the inbox

    async def _read(self) -> None:
        """Fills the inbox from the events queue, as fast as there is room."""
        while True:
            await self._room.wait()
            try:
                batch = await self._link.read(messages.EVENTS, self._read_position, items_max=1000, wait_s=1.0)
            except QueuesAway:
                await asyncio.sleep(0.05)
                continue
            if batch.gap:
                self._log.warning(
                    "events were lost with their queue; censuses and repeats mend it", epoch=batch.position.epoch
                )
            self._receive(batch.items, batch.position)

    def _receive(self, items: list[bytes], position: Position) -> None:
        first = position.sequence - len(items) + 1
        since_ns = time.monotonic_ns()
        for number, item in enumerate(items):
            try:
                event = messages.decode_event(item)
            except Exception as error:  # a message of a newer version, or a broken one: it must not stop the others
                self._apply(self._barrier.undecodable(item, error))
                continue
            place = Position(position.epoch, first + number)
            for single in poison.singly(event) if isinstance(event, messages.CensusTaken) else (event,):
                self._inbox.append(Taken(single, poison.name_of(single, item), place, since_ns))
        self._pulse.received += len(items)
        self._read_position = position
        if not items:
            if not self._inbox:
                self._taken_position = (
                    max(self._taken_position, position) if position.epoch == self._taken_position.epoch else position
                )
            return
        if len(self._inbox) >= INBOX_MAX:
            self._room.clear()
        self._wake.set()

    # pulse and end

    def _beat(self) -> None:
        pulse, counts = self._pulse, self._memory.counts()
        pulse.backlog = len(self._inbox) + len(self._parked)
        oldest = self._parked[0] if self._parked else self._inbox[0] if self._inbox else None
        pulse.oldest_ns = oldest.since_ns if oldest else 0
        pulse.published, pulse.dropped = self._publisher.published, self._publisher.dropped
        pulse.online, pulse.stale, pulse.offline = (counts[presence] for presence in Presence)
        pulse.connections, pulse.hosts = pulse.online, sum(counts.values())
        blocked = (
            Blocked.STORAGE if self._storage_blocked() else Blocked.QUEUES if self._publisher.away else Blocked.NOTHING
        )
        pulse.blocked_on, pulse.storage_ns = str(blocked), self._journal.call_since_ns
        pulse.letters, pulse.suspended = len(self._memory.letters), len(self._memory.suspended)
        self._process.pulse.beat()

    async def _finish(self) -> None:
        """The state is flushed: what was stepped is committed, what is committed is told."""
        async with asyncio.timeout(FLUSH_S_MAX):
            await self._commit_over()
            self._flushed_s = 0.0
            self._begin_commit()
            await self._commit_over()
        await self._publisher.drain(0.5)

    async def _commit_over(self) -> None:
        """The commit under way, if one is, has ended; the pulse goes on meanwhile."""
        while self._commit is not None:
            if (await asyncio.wait({self._commit}, timeout=TICK_S))[0]:
                self._commit.result()
                self._commit = None
            self._beat()


def _replica_of(memory: Memory) -> Replica:
    """The rows that operators see, as they are when a hub starts."""
    replica = Replica()
    for change in step.all_changes(memory):
        replica.apply(change)
    return replica
