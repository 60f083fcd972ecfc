"""The hub's memory, and a draft of its next state: a step computes on a draft, and only a finished draft is applied.
Pure.

So a step that raises has changed nothing, and one whose effects must wait for the disk can be put off and stepped
later.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

import msgspec

from processes.core.errors import LocalError
from processes.core.hub.effects import (
    AddTransition,
    DropCommand,
    DropDeadLetter,
    DropHost,
    Effects,
    PutCommand,
    PutDeadLetter,
    PutHost,
    PutKey,
    PutReply,
    PutRun,
)
from processes.core.hub.rules import Census, KeyEntry, Rules
from processes.core.records import dead_letter
from processes.core.records.command import Command, State, Transition, moved
from processes.core.records.dead_letter import DeadLetter
from processes.core.records.host import HostRecord, Link
from processes.core.records.ledger import Ledger
from processes.core.records.run import Run
from processes.core.shown.views import command_view, encode, host_view
from processes.core.travels.messages import Change, Connection, Delivery, Json, Replied
from processes.core.values import CANARY_HOST, Now, Presence

FINAL_KEPT_MAX: Final = 2_000  # final commands in memory, for late duplicates; all others are on disk. Guess
LOST_KEPT_MAX: Final = 10_000  # lost commands in memory: a late report may still end them. Guess
# ended runs in memory, so that a key asked again finds its run; all others are on disk. Guess
RUNS_KEPT_MAX: Final = 200
REPLIES_KEPT_MAX: Final = 5_000  # answers in memory, for requests that are asked again within their deadline. Guess

OFFLINE: Final = Link(Presence.OFFLINE)
KEPT_FIELDS: Final = (
    frozenset(  # of a host's row: on disk before they are shown; the others are as volatile as the connection
        {"name", "host_id", "enrolled_at", "revoked", "suspended", "suspended_at", "ledger"}
    )
)


@dataclass(slots=True)
class Memory:
    """All that a hub knows. Rebuilt from the database at its start; changed by `apply` alone.

    Invariant: `queues[host]` are exactly the open commands of that host's enrolment, in the order of their numbers.
    Invariant: ledger.accepted is the sum of the ledger's states, and counts no canary command.
    """

    rules: Rules = field(default_factory=Rules)
    epoch: int = 0
    boot: str = ""
    started_boot_s: float = 0.0
    next_number: int = 1
    settled: bool = False
    hosts: dict[str, HostRecord] = field(default_factory=dict)
    links: dict[str, Link] = field(default_factory=dict)
    connections: dict[str, Connection] = field(
        default_factory=dict
    )  # by connection id; those that are somebody's current one
    commands: dict[str, Command] = field(default_factory=dict)
    queues: dict[str, tuple[str, ...]] = field(default_factory=dict)
    finals: OrderedDict[str, None] = field(default_factory=OrderedDict)
    losts: OrderedDict[str, None] = field(default_factory=OrderedDict)
    ledger: Ledger = field(default_factory=Ledger)
    runs: dict[str, Run] = field(default_factory=dict)
    due_runs: dict[str, None] = field(default_factory=dict)  # runs one of whose commands has ended; in order
    keys: dict[str, KeyEntry] = field(default_factory=dict)
    replies: OrderedDict[str, Replied] = field(default_factory=OrderedDict)
    letters: dict[str, DeadLetter] = field(default_factory=dict)  # what was put aside; oldest first
    suspended: set[str] = field(default_factory=set)  # hosts
    asides: dict[str, tuple[tuple[float, int], ...]] = field(
        default_factory=dict
    )  # host → when events of it were put aside, and how bad
    censuses: dict[str, Census] = field(default_factory=dict)
    timers: list[tuple[float, str, str]] = field(default_factory=list)  # a heap: at_boot_s, kind, id. Durable matters
    presence_timers: list[tuple[float, str]] = field(default_factory=list)  # a heap: at_boot_s, host. Volatile matters
    due: dict[str, None] = field(default_factory=dict)  # hosts whose commands should be looked at; in order
    arrived: dict[str, None] = field(
        default_factory=dict
    )  # hosts that registered, and whose commands must be reconciled
    counted: set[str] = field(default_factory=set)  # gateways whose census is in
    dirty: set[str] = field(default_factory=set)  # hosts whose record on disk is behind

    def counts(self) -> dict[Presence, int]:
        """How many hosts are how, the canary left out."""
        found = dict.fromkeys(Presence, 0)
        for name in self.hosts:
            if name != CANARY_HOST:
                found[self.links.get(name, OFFLINE).presence] += 1
        return found


class Draft:
    """One step's view of the memory: reads fall through, changes stay here until `apply`."""

    def __init__(self, memory: Memory, now: Now) -> None:
        self.memory, self.now, self.rules = memory, now, memory.rules
        self.effects = Effects()
        self.ledger = memory.ledger
        self.next_number = memory.next_number
        self.timers: list[tuple[float, str, str]] = []
        self.presence_timers: list[tuple[float, str]] = []
        self.due: dict[str, None] = {}
        self.due_runs: dict[str, None] = {}
        self.judged_run = ""  # a run that is not due any more
        self.arrived: dict[str, None] = {}
        self.settled = memory.settled
        self.looked_at: list[str] = []  # hosts that are not due any more
        self.censuses: dict[str, Census] = {}
        self.asides: dict[str, tuple[tuple[float, int], ...]] = {}
        self.counted: set[str] = set()
        self._taken = self._presence_taken = 0
        self._hosts: dict[str, HostRecord | None] = {}
        self._links: dict[str, Link] = {}
        self._connections: dict[str, Connection | None] = {}
        self._commands: dict[str, Command | None] = {}
        self._queues: dict[str, tuple[str, ...]] = {}
        self._runs: dict[str, Run] = {}
        self._keys: dict[str, KeyEntry] = {}
        self._letters: dict[str, DeadLetter | None] = {}
        self._replies: dict[str, Replied] = {}
        self._dirty: set[str] = set()
        self._beats: dict[str, int] = {}

    # reading

    def host(self, name: str) -> HostRecord | None:
        """The host of this name, as of this draft."""
        return self._hosts[name] if name in self._hosts else self.memory.hosts.get(name)

    def link(self, name: str) -> Link:
        """How the host is connected."""
        return self._links.get(name) or self.memory.links.get(name, OFFLINE)

    def connection(self, connection: str) -> Connection | None:
        """What is known of a current connection."""
        return (
            self._connections[connection]
            if connection in self._connections
            else self.memory.connections.get(connection)
        )

    def command(self, command_id: str) -> Command | None:
        """The command of this id, if it is open or ended not long ago."""
        return self._commands[command_id] if command_id in self._commands else self.memory.commands.get(command_id)

    def queue(self, host: str) -> list[Command]:
        """The host's open commands, in order."""
        return [command for command_id in self.queue_ids(host) if (command := self.command(command_id))]

    def queue_ids(self, host: str) -> tuple[str, ...]:
        """Their ids."""
        return self._queues[host] if host in self._queues else self.memory.queues.get(host, ())

    def run(self, run_id: str) -> Run | None:
        """The run of this id, if it is open or ended not long ago."""
        return self._runs.get(run_id) or self.memory.runs.get(run_id)

    def key(self, key: str) -> KeyEntry | None:
        """What this idempotency key stands for already."""
        return self._keys.get(key) or self.memory.keys.get(key)

    def letter(self, letter_id: str) -> DeadLetter | None:
        """The dead letter of this id."""
        return self._letters[letter_id] if letter_id in self._letters else self.memory.letters.get(letter_id)

    # timers: taken from a heap only when the draft is applied

    def take_timer(self) -> None:
        """The first of the durable timers is dealt with."""
        self._taken = 1

    def take_presence_timers(self, limit: int) -> list[tuple[float, str]]:
        """The volatile timers that are due, soonest first, at most `limit`."""
        found = heapq.nsmallest(limit, _due(self.memory.presence_timers, self.now.boot_s))
        self._presence_taken = len(found)
        return found

    # changing

    def put_host(self, host: HostRecord, *, durable: bool) -> None:
        """The host's record. Not durable: written behind, at most a second later."""
        self._hosts[host.name] = host
        if host.name == CANARY_HOST:
            return
        if durable:
            self.effects.writes.append(PutHost(host))
        else:
            self._dirty.add(host.name)

    def drop_host(self, name: str) -> None:
        """The host is no more; its open commands must have been ended before."""
        assert not self.queue_ids(name)
        connection = self.link(name).connection
        if connection:
            self._connections[connection] = None
        self._hosts[name], self._links[name] = None, OFFLINE
        self.effects.writes.append(DropHost(name))

    def put_link(self, name: str, link: Link, connection: Connection | None = None) -> None:
        """How the host is connected, and what its connection said at its beginning."""
        before = self.link(name).connection
        if before and before != link.connection:
            self._connections[before] = None
        if connection is not None:
            self._connections[connection.connection] = connection
        self._links[name] = link

    def beat(self, number: int) -> None:
        """The canary's heartbeat of this number came."""
        self._beats[CANARY_HOST] = number

    def accept(self, command: Command) -> None:
        """One more command, queued."""
        self._commands[command.id] = command
        self._queues[command.host] = (*self.queue_ids(command.host), command.id)
        self.next_number = max(self.next_number, command.number + 1)
        self.effects.writes.append(PutCommand(command))
        if command.host != CANARY_HOST:
            self._add_transition(command.id, None, command.state, "", command.actor)
            self._count(command.host, None, command.state)
        self.timers.append((command.expires_boot_s, "expire", command.id))
        self.due[command.host] = None

    def put_command(self, command: Command) -> None:
        """The command, changed without a change of state."""
        before = self.command(command.id)
        assert before is not None
        assert before.state is command.state
        self._commands[command.id] = command
        self.effects.writes.append(PutCommand(command))

    def move(self, command: Command, after: State, actor: str, reason: str = "", **fields: object) -> Command:
        """The command in its next state. Raises: UnknownTransition."""
        next_command = moved(command, after, self.now.wall_s, reason, **fields)
        self._commands[command.id] = next_command
        canary = command.host == CANARY_HOST
        if after.final:
            self._queues[command.host] = tuple(i for i in self.queue_ids(command.host) if i != command.id)
            self.due[command.host] = None
            if command.run is not None:
                self.due_runs[command.run] = None
        if canary:
            self.effects.writes.append(DropCommand(command.id) if after.final else PutCommand(next_command))
            return next_command
        self.effects.writes.append(PutCommand(next_command))
        self._add_transition(command.id, command.state, after, reason, actor)
        self._count(command.host, command.state, after)
        return next_command

    def put_run(self, run: Run) -> None:
        """The run's record."""
        self._runs[run.id] = run
        self.next_number = max(self.next_number, run.number + 1)
        self.effects.writes.append(PutRun(run))

    def put_letter(self, letter: DeadLetter) -> None:
        """The dead letter; the oldest of too many go."""
        self._letters[letter.id] = letter
        self.effects.writes.append(PutDeadLetter(letter))
        all_letters = {**self.memory.letters, **self._letters}
        for old in dead_letter.too_many({id: kept for id, kept in all_letters.items() if kept is not None}):
            self.drop_letter(old)

    def drop_letter(self, letter_id: str) -> None:
        """The dead letter is no more."""
        self._letters[letter_id] = None
        self.effects.writes.append(DropDeadLetter(letter_id))

    def put_key(self, key: str, digest: str, command_ids: tuple[str, ...]) -> None:
        """From now on this key stands for this request."""
        self._keys[key] = KeyEntry(digest, command_ids)
        self.effects.writes.append(PutKey(key, digest, command_ids, self.now.wall_s))

    def reply(self, fanout: str, request_id: str, status: int, body: Json, *, durable: bool) -> None:
        """The answer to a request; a durable one is the same for ever."""
        replied = Replied(self.memory.epoch, request_id, status, body)
        self.effects.replies.append((fanout, replied))
        if durable:
            self._replies[request_id] = replied
            self.effects.writes.append(PutReply(request_id, self.now.wall_s, status, body))

    def deliver(self, gateway: str, message: Delivery) -> None:
        """A message to one gateway."""
        self.effects.deliveries.append((gateway, message))

    def deliver_all(self, message: Delivery) -> None:
        """A message to every gateway."""
        for gateway in self.rules.gateways:
            self.deliver(gateway, message)

    def _add_transition(self, command_id: str, before: State | None, after: State, reason: str, actor: str) -> None:
        self.effects.writes.append(AddTransition(Transition(command_id, self.now.wall_s, before, after, reason, actor)))

    def _count(self, name: str, before: State | None, after: State) -> None:
        """Both ledgers: of all, and of the host (a command may outlive its host's record)."""
        # plant: ledger-lost
        self.ledger = self.ledger.moved(before, after)
        host = self.host(name)
        if host is not None:
            self.put_host(msgspec.structs.replace(host, ledger=host.ledger.moved(before, after)), durable=True)

    # the end

    def apply(self) -> Effects:
        """Makes this draft the memory, and returns the effects, with the changes that operators see."""
        memory = self.memory
        if not self.ledger.balanced:
            raise LocalError(f"the ledger does not add up: {self.ledger}")
        self._publish()
        for name, host in self._hosts.items():
            if host is None:
                del memory.hosts[name]
                memory.links.pop(name, None)
                memory.dirty.discard(name)
                memory.asides.pop(name, None)
            else:
                memory.hosts[name] = host
            if host is not None and host.suspended:
                memory.suspended.add(name)
            else:
                memory.suspended.discard(name)
        for name, link in self._links.items():
            if name in memory.hosts:
                memory.links[name] = link
        for connection, info in self._connections.items():
            if info is None:
                memory.connections.pop(connection, None)
            else:
                memory.connections[connection] = info
        for command_id, command in self._commands.items():
            _keep(memory, command_id, command)
        for name, queue in self._queues.items():
            if queue:
                memory.queues[name] = queue
            else:
                memory.queues.pop(name, None)
        memory.runs.update(self._runs)
        ended = [run_id for run_id, run in memory.runs.items() if not run.open] if self._runs else []
        for run_id in ended[: max(0, len(ended) - RUNS_KEPT_MAX)]:
            del memory.runs[run_id]
        memory.due_runs.pop(self.judged_run, None)
        memory.due_runs.update(self.due_runs)
        memory.keys.update(self._keys)
        for letter_id, letter in self._letters.items():
            if letter is None:
                memory.letters.pop(letter_id, None)
            else:
                memory.letters[letter_id] = letter
        memory.asides.update(self.asides)
        for request_id, reply in self._replies.items():
            memory.replies[request_id] = reply
            if len(memory.replies) > REPLIES_KEPT_MAX:
                memory.replies.popitem(last=False)
        for _ in range(self._taken):
            heapq.heappop(memory.timers)
        for _ in range(self._presence_taken):
            heapq.heappop(memory.presence_timers)
        for timer in self.timers:
            heapq.heappush(memory.timers, timer)
        for presence_timer in self.presence_timers:
            heapq.heappush(memory.presence_timers, presence_timer)
        memory.ledger, memory.next_number, memory.settled = self.ledger, self.next_number, self.settled
        memory.dirty |= self._dirty & memory.hosts.keys()
        for name in self.looked_at:
            memory.due.pop(name, None)
            memory.arrived.pop(name, None)
        memory.due.update(self.due)
        memory.arrived.update(self.arrived)
        memory.censuses.update(self.censuses)
        memory.counted |= self.counted
        return self.effects

    def _publish(self) -> None:
        changes = self.effects.changes
        for name in {**self._hosts, **self._links}:
            host = self.host(name)
            if host is None:
                changes.append(Change("host_removed", name))
                continue
            before = self.memory.hosts.get(name)
            view = host_view(host, self.link(name))
            known = host_view(before, self.memory.links.get(name, OFFLINE)) if before else None
            changed = _difference(known, view)
            if name in self._beats:
                changed["beat"] = self._beats[name]
            # plant: volatile-at-once
            if before is not None and self.effects.durable:
                volatile = {field: value for field, value in changed.items() if field not in KEPT_FIELDS}
                changed = {field: value for field, value in changed.items() if field in KEPT_FIELDS}
                if volatile:
                    self.effects.at_once.append(Change("host", name, encode(volatile)))
            if changed:
                changes.append(Change("host", name, encode(changed)))
        for command_id, command in self._commands.items():
            if command is not None:
                known_command = self.memory.commands.get(command_id)
                fields = _difference(command_view(known_command) if known_command else None, command_view(command))
                if fields:
                    changes.append(Change("command", command_id, encode(fields)))
                if command.host == CANARY_HOST and not command.open:
                    changes.append(Change("command_removed", command_id))
        if self.ledger is not self.memory.ledger:
            changes.append(Change("ledger", "ledger", encode(self.ledger)))


def _keep(memory: Memory, command_id: str, command: Command | None) -> None:
    memory.finals.pop(command_id, None)
    memory.losts.pop(command_id, None)
    if command is None or (command.host == CANARY_HOST and not command.open):
        memory.commands.pop(command_id, None)
        return
    memory.commands[command_id] = command
    if command.open:
        return
    kept, limit = (memory.losts, LOST_KEPT_MAX) if command.state is State.LOST else (memory.finals, FINAL_KEPT_MAX)
    kept[command_id] = None
    if len(kept) > limit:
        oldest, _ = kept.popitem(last=False)
        del memory.commands[oldest]


def _due(heap: list[tuple[float, str]], boot_s: float) -> list[tuple[float, str]]:
    """The entries of a heap that are due, in no order. Cost: what is due, not the heap."""
    found: list[tuple[float, str]] = []
    places = [0]
    while places:
        place = places.pop()
        if place < len(heap) and heap[place][0] <= boot_s:
            found.append(heap[place])
            places += [2 * place + 1, 2 * place + 2]
    return found


def _difference(before: msgspec.Struct | None, after: msgspec.Struct) -> dict[str, object]:
    fields = after.__struct_fields__
    if before is None:
        return {name: getattr(after, name) for name in fields}
    return {name: getattr(after, name) for name in fields if getattr(before, name) != getattr(after, name)}


def derived_id(*parts: str) -> str:
    """A 128-bit id that follows from its parts: the same request gives the same ids, however often it is stepped."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
