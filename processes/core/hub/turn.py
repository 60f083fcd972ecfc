"""A turn of the hub's loop: which events are stepped, which wait for the disk, which are refused, and up to where
`events` may be acknowledged. Pure: the loop carries out an Outcome in the order of its fields.

    received ──▶ inbox ──step──▶ applied to the memory ──▶ Outcome
                          │
                          └─ needs to be written while a commit is under way ──▶ parked, in order
                               ├─ the commit ends in time             ──▶ stepped (again), on the newer memory
                               └─ the disk is blocked, or too many wait
                                    ├─ a request                      ──▶ refused with storage_blocked, for good
                                    ├─ an event that is sent again    ──▶ dropped, unacknowledged
                                    └─ any other event                ──▶ stays parked

The theory: at most one batch is in commit, and an effect that is not on disk is neither published nor acknowledged.
Events that need no disk overtake those that do; nothing else overtakes anything. Whether an event needs it, only its
step tells; those of the kinds that nearly always do (WRITTEN) are parked unstepped while a commit is under way, or most
of them would be stepped twice.

A refused request still stands in `events` behind the position that is on disk. Three marks keep it refused. The loop's
pulse has the last refused position: a successor that reads the request again refuses it. This turn remembers the
request's id until its deadline: a copy is refused. (A hub that follows one of another machine has no such pulse: it
leaves the requests that stood in `events` when it took over.) And the refusal is written with the commit that moves the
position past the request: a copy that comes even later gets that reply.
"""

from __future__ import annotations

import enum
import itertools
from collections import deque
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from processes.core.errors import LocalError
from processes.core.hub import beats, step
from processes.core.hub.beats import Heard
from processes.core.hub.effects import Effects, Put, Write
from processes.core.hub.memory import Draft, Memory
from processes.core.hub.step import OwnEvent, Tick
from processes.core.records import dead_letter, poison
from processes.core.records.dead_letter import DeadLetter
from processes.core.records.host import HostRecord
from processes.core.records.ledger import Ledger
from processes.core.records.request import KeptReply
from processes.core.travels import messages
from processes.core.travels.messages import (
    AckReceived,
    CensusTaken,
    Event,
    HeartbeatsReceived,
    HostsHeard,
    OutputReceived,
    RejectReceived,
    RequestReceived,
    StatusReceived,
)
from processes.core.values import Now, Position

NOWHERE: Final = Position(0, 0)
COST_MAX: Final = 200  # of the events of a turn; at about 50 µs each a turn stays near 10 ms
BEATS_PER_COST: Final = 10  # heartbeats of a batch that cost about as much as one other event
TICK_S: Final = 0.2  # a timer is over so much later at most; twice within the age that the watchdog calls quiet
INBOX_MAX: Final = 4_000  # events read ahead; the others wait in the queue
UNSAID_MAX: Final = 100  # failures outside of steps, until they are dead letters; beyond it the oldest go unnamed
PARKED_MAX: Final = 10_000  # events that wait for a commit; beyond it they are treated as when storage is blocked
WRITE_BEHIND_S: Final = 1.0  # heartbeats of up to WRITE_BEHIND_MAX hosts reach the disk this much later at most
WRITE_BEHIND_MAX: Final = 500  # hosts written behind at once, those first that wait longest; some 20 ms of a commit
# of one host's record in a second; a larger one reaches the disk so many times later. A usual one has 2 KB; guess
WRITE_BEHIND_BYTES_MAX: Final = 16 * 1024
# kinds of events that nearly always change what is on disk
WRITTEN: Final = (RequestReceived, AckReceived, RejectReceived, OutputReceived, StatusReceived)
OP_CHARS: Final = 128  # about what an op and its options take in a record


class Storage(enum.Enum):
    """The state of the database during this turn."""

    IDLE = enum.auto()  # nothing is under way: a batch may begin
    BUSY = enum.auto()  # a transaction is under way
    BLOCKED = enum.auto()  # a transaction takes longer than any healthy one: locked, full, or slow


class Taken(NamedTuple):
    """One event that waits to be stepped."""

    event: Event
    name: str  # its kind and digest, for the pulse
    position: Position
    since_ns: int  # CLOCK_MONOTONIC of its arrival
    retried: DeadLetter | None = None  # the event was put aside as this before, and is tried again
    tried: bool = False  # it was stepped, and must be written


class Barrier(Protocol):
    """Steps events, so that one whose step raises is put aside and does not stop the loop (hub/barrier.py)."""

    def step(self, event: Event | OwnEvent, name: str, now: Now, retried: DeadLetter | None = None) -> Draft:
        """Return the draft of the step, or of putting its event aside."""

    def beats(self, event: HeartbeatsReceived, name: str, now: Now) -> Heard:
        """Take the common heartbeats of a batch into the memory; return what that shows, and those to step alone."""

    def undecodable(self, item: bytes, error: Exception, now: Now, host: str) -> Draft:
        """Return the draft that keeps an item that cannot be decoded, as a dead letter. `host`: whose it is, if that
        could be read; else empty.
        """

    def applied(self, effects: Effects) -> None:
        """Called when the draft of these effects was applied."""

    def unsaid(self, what: str, host: str, error: str, now: Now) -> Draft:
        """Return the draft that keeps, as a dead letter, why something that this host said was not written or shown."""

    def not_retried(self, kept: DeadLetter, error: LocalError) -> None:
        """Called when a dead letter is to be tried again and this version cannot decode it."""


class CommitBatch(NamedTuple):
    """The content of one transaction."""

    writes: list[Write]
    ledger: Ledger
    next_number: int
    position: Position  # of `events`: all events up to here are dealt with by this transaction, or by one before it
    now: Now


@dataclass(slots=True)
class Outcome:
    """The result of a turn. The loop carries it out in the order of the fields."""

    # 1. The last refused position, noted in the pulse BEFORE anything is published. A successor refuses up to it.
    refused: Position | None = None
    # 2. Published now: effects that need no disk (presence, metrics, refusals), or that repeat what is on disk.
    now: Effects = field(default_factory=Effects)
    # 3. Committed in one transaction, tried again until the disk takes it; there is none while another is under way.
    batch: CommitBatch | None = None
    # 4. Published only AFTER that commit.
    then: Effects = field(default_factory=Effects)
    # 5. Acknowledged AFTER all of that: `events` removes the events up to here. None while a commit is under way.
    acknowledge: Position | None = None


class Turn:
    """The state of the hub's loop from one turn to the next.

    Invariant: nothing is parked when a batch begins. So each event up to the batch's position was stepped, refused or
    dropped: it is in this batch or in one before it, or its sender sends it again.
    """

    def __init__(
        self, memory: Memory, barrier: Barrier, position: Position, refused_before: Position,
        *, taken_at: Position = NOWHERE, tick_s: float = TICK_S,
    ) -> None:  # fmt: skip
        self.stepped = 0
        self._tick_s = tick_s
        self._memory, self._barrier = memory, barrier
        self._inbox: deque[Taken] = deque()
        self._parked: deque[Taken] = deque()
        self._again: deque[Taken] = deque()  # dead letters to be tried again
        self._retries = [each for each in memory.dead_letters.values() if each.retrying]
        self._taken_position = position  # up to here events were taken out of the inbox
        self._refused_before = self._noted = refused_before  # by the hub before this one; by this one, in the pulse
        self._taken_at = taken_at  # up to here a hub of another machine, whose pulse is not here, may have refused some
        self._refused: dict[str, float] = {}  # request id → its deadline on CLOCK_BOOTTIME: until then copies may come
        self._unwritten: dict[str, Put] = {}  # refusals that are written before the position goes past them
        self._held = Effects()  # gathered for the next batch
        self._unsaid: deque[tuple[str, str, str]] = deque(maxlen=UNSAID_MAX)  # what, of which host, why
        self._outcome = Outcome()
        self._ticked_s = self._flushed_s = -WRITE_BEHIND_S
        self._calm_s = memory.started_boot_s  # when no event waited last
        self._flushes = 0
        self._now = Now(0.0, 0.0)
        self._storage = Storage.IDLE

    @property
    def has_room(self) -> bool:
        """Return whether more events may be read."""
        return len(self._inbox) < INBOX_MAX

    @property
    def backlog(self) -> int:
        """Return how many events wait to be stepped."""
        return len(self._inbox) + len(self._parked)

    @property
    def has_work(self) -> bool:
        """Return whether a turn would find an event to step without waiting."""
        return bool(self._inbox or self._retries)

    @property
    def oldest_ns(self) -> int:
        """Return when the event arrived that waits longest; 0: none waits."""
        oldest = self._parked or self._inbox
        return oldest[0].since_ns if oldest else 0

    def receive(self, items: list[bytes], position: Position, at_ns: int, now: Now) -> None:
        """Take items read from `events`. `position`: of the last item; if there is none, where the reader stands."""
        first = position.sequence - len(items) + 1
        self._now = now
        for number, item in enumerate(items):
            place, event = Position(position.epoch, first + number), None
            try:
                event = messages.decode_event(item)
                singles = poison.singly(event) if isinstance(event, CensusTaken) else (event,)
                taken = [Taken(single, poison.name_of(single, item), place, at_ns) for single in singles]
            except Exception as error:  # an item of a newer version, or a broken one: it must not stop the others
                self._apply(self._barrier.undecodable(item, error, now, dead_letter.host_of(event)))
                continue
            self._inbox += taken
        if not items and not self._inbox:  # an empty queue of a new epoch, or numbers that a lossy append used up
            before = self._taken_position
            self._taken_position = max(before, position) if position.epoch == before.epoch else position

    def try_again(self, dead_letters: list[DeadLetter]) -> None:
        """Take dead letters that are to be stepped once more, and are marked so on disk."""
        self._retries += dead_letters

    def unsaid(self, what: str, host: str, error: str) -> None:
        """Called when something that this host said could not be written or shown, after its event was stepped."""
        self._unsaid.append((what, host, error))

    def flush(self) -> None:
        """Make the next turn write the hosts' records that are written behind."""
        self._flushed_s = -WRITE_BEHIND_S

    def turn(self, now: Now, storage: Storage, at_ns: int) -> Outcome:
        """Step the events that can be stepped now, and return what the loop must carry out."""
        self._now, self._storage = now, storage
        outcome = self._outcome
        if storage is Storage.IDLE:
            self._step_all(self._parked)
        elif storage is Storage.BLOCKED:
            for _ in range(len(self._parked)):
                taken = self._parked.popleft()
                (self._let_go if taken.tried else self._step)(taken)
        self._revive(at_ns)
        self._step_all(self._again)
        cost = 0
        while self._inbox and cost < COST_MAX:
            taken = self._inbox.popleft()
            self._taken_position = taken.position
            if isinstance(taken.event, HeartbeatsReceived):
                cost += 1 + len(taken.event.beats) // BEATS_PER_COST
                self._step_beats(taken, taken.event)
            else:
                cost += 1
                self._step(taken)
        if not self._inbox:
            self._calm_s = now.boot_s
        self._time_passes()
        if storage is Storage.IDLE:
            self._gather(outcome)
        self._outcome = Outcome()
        return outcome

    # steps

    def _step_all(self, waiting: deque[Taken]) -> None:
        for _ in range(len(waiting)):
            self._step(waiting.popleft())

    def _step(self, taken: Taken) -> None:
        """Step the event, or park it if it needs the disk, or most likely does, and the disk is busy."""
        if self._was_asked_elsewhere(taken):
            return
        if self._was_refused(taken):
            self._refuse(taken)
            return
        if self._storage is Storage.BUSY and isinstance(taken.event, WRITTEN) and len(self._parked) < PARKED_MAX:
            self._parked.append(taken)
            return
        draft = self._barrier.step(taken.event, taken.name, self._now, taken.retried)
        # plant: asked-again
        if self._storage is not Storage.IDLE and (draft.effects.durable or draft.effects.promises):
            self._park(taken._replace(tried=True))
            return
        self.stepped += 1
        self._apply(draft)

    def _step_beats(self, taken: Taken, batch: HeartbeatsReceived) -> None:
        """Step a batch of heartbeats: all that are common at once, the others one by one. They need no disk, so what
        they show waits for none.
        """
        heard = self._barrier.beats(batch, taken.name, self._now)
        if heard.shown:
            self._outcome.now.changes.append(HostsHeard(self._memory.epoch, heard.shown))
        self.stepped += len(batch.beats) - len(heard.alone)
        for beat in heard.alone:
            try:
                event = beats.single(batch.gateway, beat)
            except Exception as error:  # what this version does not call metrics
                item = messages.encode(HeartbeatsReceived(batch.gateway, [beat]))
                self._apply(self._barrier.undecodable(item, error, self._now, beat.host))
                continue
            name = poison.name_of(event, messages.encode(event))
            self._step(Taken(event, name, taken.position, taken.since_ns))

    def _apply(self, draft: Draft) -> None:
        effects = draft.apply()
        self._barrier.applied(effects)
        told = self._outcome.now
        if effects.at_once:  # volatile: if they waited for the disk, later changes would be shown before them
            told.changes += effects.at_once
            effects.at_once = []
        if effects.durable or (effects.promises and self._held.durable):  # asked twice in one batch: answered after it
            self._held.extend(effects)
        else:
            told.extend(effects)

    def _time_passes(self) -> None:
        memory, now = self._memory, self._now
        if now.boot_s - self._ticked_s >= self._tick_s:
            self._ticked_s = now.boot_s
            self._forget_refused()
            self._apply(self._barrier.step(Tick(now.boot_s - self._calm_s), "Tick", now))
        if self._storage is not Storage.IDLE:
            return  # the hub's own events are durable, and come again
        while self._unsaid:
            self._apply(self._barrier.unsaid(*self._unsaid.popleft(), now))
        for event in step.due(memory):
            self._apply(self._barrier.step(event, poison.name_of_own(type(event).__name__, repr(event)), now))
        for _ in range(step.DUE_MAX):
            timer = step.elapsed(memory, now)
            if timer is None:
                break
            self._apply(self._barrier.step(timer, poison.name_of_own(timer.kind, timer.id), now))

    def _revive(self, at_ns: int) -> None:
        retries, self._retries = self._retries, []
        for kept in retries:
            try:
                event = dead_letter.revived(kept)
            except LocalError as error:  # it was kept by a version that could decode it
                self._barrier.not_retried(kept, error)
                continue
            self._again.append(Taken(event, dead_letter.name_again(kept), self._taken_position, at_ns, kept))

    # events that wait for the disk

    def _park(self, taken: Taken) -> None:
        if self._storage is Storage.BLOCKED or len(self._parked) >= PARKED_MAX:
            self._let_go(taken)
        else:
            self._parked.append(taken)

    def _let_go(self, taken: Taken) -> None:
        """Refuse a request; drop an event that its sender sends again; keep any other parked."""
        event, room = taken.event, len(self._parked) < PARKED_MAX
        if taken.retried is not None:
            self._again.append(taken)
        elif isinstance(event, RequestReceived) and event.request_id not in self._memory.replies:
            self._refuse(taken)
        elif room and (isinstance(event, RequestReceived) or step.said_once(self._memory, event)):
            self._parked.append(taken)  # a request asked twice has its answer in the commit under way

    # refusals

    def _refuse(self, taken: Taken) -> None:
        assert isinstance(taken.event, RequestReceived)
        request, place, noted = taken.event, taken.position, self._noted
        # plant: refused-copies
        self._refused[request.request_id] = request.deadline_boot_s
        if place.epoch != noted.epoch or place.sequence > noted.sequence:
            # plant: refused-for-the-next-hub
            self._outcome.refused = self._noted = place
        effects = step.refuse_for_storage(self._memory, request, self._now).apply()
        for _, said in effects.replies:
            reply = KeptReply(said.request_id, said.status, said.body, self._now.wall_s)
            self._unwritten[said.request_id] = Put("replies", said.request_id, reply)
        self._outcome.now.extend(effects)

    def _was_refused(self, taken: Taken) -> bool:
        """Return whether the event is a copy of a refused request, or a request that the hub before this one may have
        refused: the requests that it carried out have their answers on disk.
        """
        if not isinstance(taken.event, RequestReceived) or taken.retried is not None:
            return False
        request_id, place, before = taken.event.request_id, taken.position, self._refused_before
        passed = place.epoch != before.epoch or place.sequence > before.sequence
        return request_id in self._refused or (not passed and request_id not in self._memory.replies)

    def _was_asked_elsewhere(self, taken: Taken) -> bool:
        """Return whether it is a request to the hub of another machine, which may have refused it. Nothing is lost by
        leaving it: whoever still waits asks again, of each new hub.
        """
        if not isinstance(taken.event, RequestReceived) or taken.retried is not None:
            return False
        place, before = taken.position, self._taken_at
        passed = place.epoch != before.epoch or place.sequence > before.sequence
        return not passed and taken.event.request_id not in self._memory.replies

    def _forget_refused(self) -> None:
        """Forget refused requests past their deadlines: a copy is refused for its deadline. The oldest go first."""
        overdue = itertools.takewhile(lambda each: each[1] < self._now.boot_s, self._refused.items())
        for request_id in [request_id for request_id, _ in overdue]:
            del self._refused[request_id]
            self._unwritten.pop(request_id, None)

    # the batch

    def _gather(self, outcome: Outcome) -> None:
        """Begin a batch if there is anything to write, and set the position that may be acknowledged."""
        memory, now = self._memory, self._now
        if now.boot_s - self._flushed_s >= WRITE_BEHIND_S:
            everything = self._flushed_s < 0
            self._flushed_s = now.boot_s
            self._flushes += 1
            behind = (n for n in memory.dirty if everything or self._flushes % _every(memory.hosts[n]) == 0)
            for name in list(behind if everything else itertools.islice(behind, WRITE_BEHIND_MAX)):
                self._held.writes.append(Put("hosts", name, memory.hosts[name]))
                memory.dirty.drop_row(name)
        # plant: refused-on-disk
        self._held.writes += self._unwritten.values()
        self._unwritten.clear()
        assert not self._parked, "parked events are stepped before a batch begins"
        outcome.acknowledge = self._taken_position
        if self._held.durable:
            held, self._held = self._held, Effects()
            outcome.batch = CommitBatch(held.writes, memory.ledger, memory.next_number, outcome.acknowledge, now)
            outcome.then = held


def _every(host: HostRecord) -> int:
    """Return whether this host's record is written behind each time (1), every second time (2), every fourth …

    An agent that registers with half a megabyte would else have that written for each of its heartbeats. It is a power
    of two, so that a record whose size changes misses not every time.
    """
    ops = len(host.register.commands or []) if host.register else 0
    size = len(host.facts) + len(host.heartbeat_facts) + ops * OP_CHARS
    return 1 << (size // WRITE_BEHIND_BYTES_MAX).bit_length()
