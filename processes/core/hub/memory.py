"""The hub's memory, and a draft of its next state. Pure.

A step computes on a draft, and only a finished draft is applied. So a step that raises has changed nothing, and a step
whose effects must wait for the disk can be made again later.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from processes.core.errors import LocalError
from processes.core.hub.effects import AddTransition, Drop, Effects, Put, Revoke
from processes.core.hub.rules import Census, Rules
from processes.core.hub.tables import Overlay, Table
from processes.core.records import dead_letter
from processes.core.records.command import Command, State, Transition, moved
from processes.core.records.dead_letter import DeadLetter
from processes.core.records.host import HostRecord, Link
from processes.core.records.ledger import Ledger
from processes.core.records.request import KeptReply, KeyEntry, OperatorToken
from processes.core.records.run import HostPart, Part, Run, part_key
from processes.core.records.saved_query import SavedQuery
from processes.core.shown import replica
from processes.core.shown.views import command_view, encode, host_view
from processes.core.travels.agent_frames import Heartbeat
from processes.core.travels.messages import Change, Connection, Delivery, Json, Replied
from processes.core.values import CANARY_HOST, Now, Presence

FINAL_KEPT_MAX: Final = 2_000  # final commands in memory, for late duplicates; the others are on disk. Guess
LOST_KEPT_MAX: Final = 10_000  # lost commands in memory: a late report may still end them. Guess
RUNS_KEPT_MAX: Final = 200  # ended runs in memory, for keys that are used again; the others are on disk. Guess
REPLIES_KEPT_MAX: Final = 5_000  # answers in memory, for requests that are asked again within their deadline. Guess

OFFLINE: Final = Link(Presence.OFFLINE)
# of a host's row, these are as volatile as the connection; all others are on disk before they are shown
VOLATILE_FIELDS: Final = frozenset({
    "address", "agent_labels", "agent_version", "beat", "command_options", "commands", "connected_since", "facts",
    "heartbeat_facts",
    "heartbeat_interval_s", "host_type", "kernel", "last_seen", "machine", "metrics", "os_version", "pending_command",
    "presence", "progress", "protocol",
})  # fmt: skip

Row = TypeVar("Row")


def _class_of_host(name: str, host: HostRecord) -> str | None:
    return None if name == CANARY_HOST else "suspended" if host.suspended else "admitted"


def _class_of_link(name: str, link: Link) -> str | None:
    return None if name == CANARY_HOST else link.presence


def _class_of_command(_: str, command: Command) -> str:
    if command.open:
        return "open"
    if command.host == CANARY_HOST:
        return "canary"
    return "lost" if command.state is State.LOST else "final"


def _one_class(*_: object) -> str:
    return "kept"


def _class_of_run(_: str, run: Run) -> str:
    return "open" if run.open else "ended"


def _class_of_part(_: str, part: HostPart) -> str:
    return "open" if part.part is Part.ACTIVE else "ended"


class HeartbeatPace(msgspec.Struct, frozen=True):
    """The shortest interval of heartbeats that agents are told (core/hub/pace.py), when it changed last, and when the
    hub was busy last.
    """

    floor_s: float = 0.0
    changed_boot_s: float = 0.0
    busy_boot_s: float = 0.0


class Memory:
    """The hub's whole state. Rebuilt from the database at its start; changed by `Draft.apply` alone.

    Invariant: `queues[host]` are exactly the open commands of that host's enrolment, in the order of their numbers.
    Invariant: ledger.accepted is the sum of the ledger's states, and counts no canary command.
    """

    def __init__(self, rules: Rules, epoch: int = 0, boot: str = "", started_boot_s: float = 0.0) -> None:
        self.rules, self.epoch, self.boot, self.started_boot_s = rules, epoch, boot, started_boot_s
        self.next_number = 1
        self.ledger = Ledger()
        self.settled = False  # the censuses are in, or it is too late for them
        self.pace = HeartbeatPace()

        # Durable tables: the database has them under the same names (hub/store.py).
        kept = {"final": FINAL_KEPT_MAX, "lost": LOST_KEPT_MAX, "canary": 0}
        self.hosts = Table[HostRecord]("hosts", durable=True, class_of=_class_of_host)
        self.commands = Table[Command]("commands", durable=True, class_of=_class_of_command, kept=kept)
        self.runs = Table[Run]("runs", durable=True, class_of=_class_of_run, kept={"ended": RUNS_KEPT_MAX})
        # of runs under way: the names of all hosts, in the order in which they begin, and the parts of those under way
        self.run_hosts = Table[tuple[str, ...]]("run_hosts", durable=True)
        self.run_parts = Table[HostPart]("run_parts", durable=True, class_of=_class_of_part, kept={"ended": 0})
        self.keys = Table[KeyEntry]("keys", durable=True)
        self.replies = Table[KeptReply]("replies", durable=True, class_of=_one_class, kept={"kept": REPLIES_KEPT_MAX})
        self.dead_letters = Table[DeadLetter]("deadletters", durable=True)
        self.tokens = Table[OperatorToken]("tokens", durable=True)  # by their hashes
        self.queries = Table[SavedQuery]("queries", durable=True)

        # Volatile tables.
        self.links = Table[Link]("links", class_of=_class_of_link)  # host → how it is connected
        self.connections = Table[Connection]("connections")  # connection id → current connections only
        self.queues = Table[tuple[str, ...]]("queues")  # host → ids of its open commands
        # host → its events that were put aside: when, and with which weight
        self.asides = Table[tuple[tuple[float, int], ...]]("asides")
        self.censuses = Table[Census]("censuses")  # gateway → its census under way, or the last one
        self.counted = Table[bool]("counted")  # gateways whose census is in
        self.due = Table[bool]("due")  # hosts whose commands should be looked at
        # runs that go on, or of which commands have ended → the hosts of these commands
        self.due_runs = Table[tuple[str, ...]]("due_runs")
        self.arrived = Table[bool]("arrived")  # hosts that registered, and whose commands must be reconciled
        self.untold = Table[bool]("untold")  # hosts whose agents may have to be told another interval of heartbeats
        self.void = Table[bool]("void")  # SHA-256 of the tokens and codes that were ever made void; as the list on disk
        self.dirty = Table[bool]("dirty")  # hosts whose record on disk is behind

        # host → when its silence is looked at; the one timer of the host that counts
        self.armed = Table[float]("armed")

        # Heaps: at_boot_s first.
        self.timers: list[tuple[float, str, str]] = []  # kind and id, of durable timers
        self.presence_timers: list[tuple[float, str]] = []  # hosts, of volatile timers

    def counts(self) -> dict[Presence, int]:
        """Return how many hosts are in each state of presence, without the canary. Cost: constant."""
        online, stale = self.links.counts[Presence.ONLINE], self.links.counts[Presence.STALE]
        return {Presence.ONLINE: online, Presence.STALE: stale, Presence.OFFLINE: self.hosts_known - online - stale}

    @property
    def hosts_known(self) -> int:
        """Return how many hosts are enrolled, without the canary."""
        return self.hosts.counts["admitted"] + self.hosts.counts["suspended"]

    @property
    def hosts_suspended(self) -> int:
        """Return how many of them are suspended until an operator lifts that."""
        return self.hosts.counts["suspended"]


def load(memory: Memory, rows: Mapping[str, Iterable[tuple[str, Any]]]) -> None:
    """Put rows of a database into the memory's tables. Shape: a table's name → its rows by key, oldest first."""
    tables = {table.name: table for table in vars(memory).values() if isinstance(table, Table)}
    for name, found in rows.items():
        for key, row in found:
            tables[name].put_row(key, row)


class Draft(Overlay):
    """The memory as one step sees it: reads fall through, changes stay here until `apply`."""

    __slots__ = (
        "_is_sealed", "_presence_taken", "_taken", "beat", "effects", "ledger", "memory", "next_number", "now",
        "pace", "presence_timers", "rules", "settled", "timers",
    )  # fmt: skip

    def __init__(self, memory: Memory, now: Now) -> None:
        super().__init__()
        self.memory, self.now, self.rules = memory, now, memory.rules
        self.effects = Effects()
        self.ledger, self.next_number, self.settled = memory.ledger, memory.next_number, memory.settled
        self.pace = memory.pace
        self.timers: list[tuple[float, str, str]] = []
        self.presence_timers: list[tuple[float, str]] = []
        self.beat: int | None = None  # the number of the canary's heartbeat, if one came
        self._taken = self._presence_taken = 0
        self._is_sealed = False

    # reading

    def host(self, name: str) -> HostRecord | None:
        """Return the host of this name, as of this draft."""
        return self.get(self.memory.hosts, name)

    def link(self, name: str) -> Link:
        """Return how the host is connected."""
        return self.get(self.memory.links, name) or OFFLINE

    def connection(self, connection: str) -> Connection | None:
        """Return a current connection, as it registered."""
        return self.get(self.memory.connections, connection)

    def command(self, command_id: str) -> Command | None:
        """Return the command of this id, if it is open or ended not long ago."""
        return self.get(self.memory.commands, command_id)

    def queue(self, host: str) -> list[Command]:
        """Return the host's open commands, in order."""
        return [command for command_id in self.queue_ids(host) if (command := self.command(command_id))]

    def queue_ids(self, host: str) -> tuple[str, ...]:
        """Return the ids of the host's open commands, in order."""
        return self.get(self.memory.queues, host) or ()

    def run(self, run_id: str) -> Run | None:
        """Return the run of this id, if it is open or ended not long ago."""
        return self.get(self.memory.runs, run_id)

    def part(self, run_id: str, host: str) -> HostPart | None:
        """Return the host's part in the run, if it is under way."""
        return self.get(self.memory.run_parts, part_key(run_id, host))

    # timers: taken from a heap only when the draft is applied

    def take_timer(self) -> None:
        """Take the first of the durable timers, which is dealt with."""
        self._taken = 1

    def arm(self, host: str, at_boot_s: float) -> None:
        """Have the host's silence looked at by this time, unless it is looked at sooner: a heartbeat needs no timer of
        its own.
        """
        armed_s = self.get(self.memory.armed, host)
        if armed_s is None or at_boot_s < armed_s:
            self.set(self.memory.armed, host, at_boot_s)
            self.presence_timers.append((at_boot_s, host))

    def take_presence_timers(self, limit: int) -> list[str]:
        """Take the volatile timers that are due, soonest first, at most `limit`. Return the hosts of those that count;
        none of them has a timer now.
        """
        found = heapq.nsmallest(limit, _overdue(self.memory.presence_timers, self.now.boot_s))
        self._presence_taken = len(found)
        names = [name for at_boot_s, name in found if self.get(self.memory.armed, name) == at_boot_s]
        for name in names:
            self.drop(self.memory.armed, name)
        return names

    # changing

    def put(self, table: Table[Row], key: str, row: Row) -> None:
        """Make this the row of the key, on disk too if the table is durable."""
        self.set(table, key, row)
        if table.durable:
            self.effects.writes.append(Put(table.name, key, row))

    def drop(self, table: Table[Any], key: str) -> None:
        """Remove the row, on disk too if the table is durable."""
        self.set(table, key, None)
        if table.durable:
            self.effects.writes.append(Drop(table.name, key))

    def mark(self, table: Table[bool], key: str) -> None:
        """Mark the key in one of the tables of marks: due, arrived, counted, untold, void, dirty."""
        self.set(table, key, True)

    def revoke(self, token_hash: str) -> None:
        """Make a token or a code void for ever, whatever becomes of the database."""
        self.effects.writes.append(Revoke(token_hash))
        self.mark(self.memory.void, token_hash)

    def put_host_behind(self, host: HostRecord) -> None:
        """Make this the host's record, which is written behind: it is on disk at most a second later."""
        self.set(self.memory.hosts, host.name, host)
        if host.name != CANARY_HOST:
            self.mark(self.memory.dirty, host.name)

    def drop_host(self, name: str) -> None:
        """Remove the host; its open commands must have been ended before."""
        assert not self.queue_ids(name)
        memory, connection = self.memory, self.link(name).connection
        if connection:
            self.drop(memory.connections, connection)
        for table in (memory.hosts, memory.links, memory.asides, memory.untold, memory.dirty, memory.armed):
            self.drop(table, name)

    def put_link(self, name: str, link: Link, connection: Connection | None = None) -> None:
        """Set how the host is connected; `connection`: what a new connection said when it registered."""
        before = self.link(name).connection
        if before and before != link.connection:
            self.drop(self.memory.connections, before)
        if connection is not None:
            self.put(self.memory.connections, connection.connection, connection)
        self.put(self.memory.links, name, link)

    def accept(self, command: Command) -> None:
        """Add one more command, queued."""
        memory = self.memory
        self.put(memory.commands, command.id, command)
        self.put(memory.queues, command.host, (*self.queue_ids(command.host), command.id))
        self.next_number = max(self.next_number, command.number + 1)
        if command.host != CANARY_HOST:
            self._add_transition(command.id, None, command.state, "", command.actor)
            self._count(command.host, None, command.state)
        self.timers.append((command.expires_boot_s, "expire", command.id))
        self.mark(memory.due, command.host)

    def put_command(self, command: Command) -> None:
        """Change the command without a change of its state."""
        before = self.command(command.id)
        assert before is not None
        assert before.state is command.state
        self.put(self.memory.commands, command.id, command)

    def move(self, command: Command, after: State, actor: str, reason: str = "", **fields: object) -> Command:
        """Move the command to its next state, and return it. Raises: UnknownTransition."""
        memory = self.memory
        next_command = moved(command, after, self.now.wall_s, reason, **fields)
        if after.final:
            rest = tuple(i for i in self.queue_ids(command.host) if i != command.id)
            self.set(memory.queues, command.host, rest or None)
            self.mark(memory.due, command.host)
            if command.run is not None:
                ended = self.get(memory.due_runs, command.run) or ()
                self.set(memory.due_runs, command.run, (*ended, command.host))
        if command.host == CANARY_HOST and after.final:  # it leaves no row, but is shown once more
            self.drop(memory.commands, command.id)
            self.set(memory.commands, command.id, next_command)
            return next_command
        self.put(memory.commands, command.id, next_command)
        if command.host != CANARY_HOST:
            self._add_transition(command.id, command.state, after, reason, actor)
            self._count(command.host, command.state, after)
        return next_command

    def ledgers_word(self, host: HostRecord, heartbeat: Heartbeat) -> Heartbeat:
        """Return the heartbeat with the op that runs by the state of the host's commands.

        An agent's own word is as old as its last heartbeat, and a command may have begun or ended since. Of a foreign
        agent there is no better word.
        """
        if host.foreign:
            return heartbeat
        running = next((each.op for each in self.queue(host.name) if each.state is State.RUNNING), None)
        if heartbeat.pending_command == running:
            return heartbeat
        return msgspec.structs.replace(heartbeat, pending_command=running)

    def put_run(self, run: Run) -> None:
        """Make this the run's record. Of one that has ended, only the disk keeps the hosts."""
        self.put(self.memory.runs, run.id, run)
        if not run.open:
            self.set(self.memory.run_hosts, run.id, None)
        self.next_number = max(self.next_number, run.number + 1)

    def put_dead_letter(self, kept: DeadLetter) -> None:
        """Keep the dead letter; if there are too many, the oldest go. One that is kept already costs nothing: an agent
        may repeat a report without end.
        """
        table = self.memory.dead_letters
        known = self.get(table, kept.id)
        if known is not None and known.says(kept):
            return
        self.put(table, kept.id, kept)
        all_kept = {id: each for id in (*table, *self.changed(table)) if (each := self.get(table, id)) is not None}
        for old in dead_letter.too_many(all_kept):
            self.drop(table, old)

    def reply(self, fanout: str, request_id: str, status: int, body: Json, *, durable: bool) -> None:
        """Answer a request; a durable answer is given again whenever the request comes again."""
        self.effects.replies.append((fanout, Replied(self.memory.epoch, request_id, status, body)))
        if durable:
            self.put(self.memory.replies, request_id, KeptReply(request_id, status, body, self.now.wall_s))

    def deliver(self, gateway: str, message: Delivery) -> None:
        """Send a message to one gateway."""
        self.effects.deliveries.append((gateway, message))

    def deliver_all(self, message: Delivery) -> None:
        """Send a message to every gateway."""
        for gateway in self.rules.gateways:
            self.deliver(gateway, message)

    def _add_transition(self, command_id: str, before: State | None, after: State, reason: str, actor: str) -> None:
        transition = Transition(command_id, self.now.wall_s, before, after, reason, actor)
        self.effects.writes.append(AddTransition(transition))

    def _count(self, name: str, before: State | None, after: State) -> None:
        """Count a transition in both ledgers, the installation's and the host's, if the host is still there; and show
        what runs there now.
        """
        # plant: ledger-lost
        self.ledger = self.ledger.moved(before, after)
        host = self.host(name)
        if host is not None:
            heartbeat = None if host.heartbeat is None else self.ledgers_word(host, host.heartbeat)
            host = msgspec.structs.replace(host, ledger=host.ledger.moved(before, after), heartbeat=heartbeat)
            self.put(self.memory.hosts, name, host)

    # the end

    def seal(self) -> Draft:
        """End the step: add the changes that operators see to the effects, and return the draft. What is wrong with
        them raises here, while the event is in hand, and not when they are applied or published.

        Raises: anything, and then nothing has changed.
        """
        if not self._is_sealed:
            if self.ledger is not self.memory.ledger and not self.ledger.balanced:
                raise LocalError(f"the ledger does not add up: {self.ledger}")
            self._publish()
            for change in (*self.effects.at_once, *self.effects.rows):
                replica.check(change)
            self._is_sealed = True
        return self

    def apply(self) -> Effects:
        """Make this draft the memory, and return the effects, with the changes that operators see."""
        memory = self.seal().memory
        self.apply_rows()
        for _ in range(self._taken):
            heapq.heappop(memory.timers)
        for _ in range(self._presence_taken):
            heapq.heappop(memory.presence_timers)
        for timer in self.timers:
            heapq.heappush(memory.timers, timer)
        for presence_timer in self.presence_timers:
            heapq.heappush(memory.presence_timers, presence_timer)
        memory.ledger, memory.next_number, memory.settled = self.ledger, self.next_number, self.settled
        memory.pace = self.pace
        return self.effects

    def _publish(self) -> None:
        """Add the changes that operators see to the effects."""
        memory, changes = self.memory, self.effects.changes
        for name in dict.fromkeys((*self.changed(memory.hosts), *self.changed(memory.links))):
            self._publish_host(name)
        for command_id, command in self.changed(memory.commands).items():
            if command is None:
                continue
            before = memory.commands.get(command_id)
            changed = _difference(command_view(before) if before else None, command_view(command))
            if changed:
                changes.append(Change("command", command_id, encode(changed)))
            if command.host == CANARY_HOST and not command.open:
                changes.append(Change("command_removed", command_id))
        if self.ledger is not memory.ledger:
            changes.append(Change("ledger", "ledger", encode(self.ledger)))

    def _publish_host(self, name: str) -> None:
        memory, effects, host = self.memory, self.effects, self.host(name)
        if host is None:
            effects.changes.append(Change("host_removed", name))
            return
        before = memory.hosts.get(name)
        known = host_view(before, memory.links.get(name, OFFLINE)) if before else None
        changed = _difference(known, host_view(host, self.link(name)))
        if name == CANARY_HOST and self.beat is not None:
            changed["beat"] = self.beat
        # plant: volatile-at-once
        if before is not None and effects.durable:
            volatile = {field: value for field, value in changed.items() if field in VOLATILE_FIELDS}
            changed = {field: value for field, value in changed.items() if field not in VOLATILE_FIELDS}
            if volatile:
                effects.at_once.append(Change("host", name, encode(volatile)))
        if changed:
            effects.changes.append(Change("host", name, encode(changed)))


def _overdue(heap: list[tuple[float, str]], boot_s: float) -> list[tuple[float, str]]:
    """Return the entries of a heap that are due, in no order. Cost: linear in what is due, not in the heap."""
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
    """Return a 128-bit id that follows from its parts: a request has the same ids, however often it is stepped."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
