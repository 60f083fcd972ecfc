"""A fleet in a test: one memory, a clock that is set by hand, and short words for what agents and operators do."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import msgspec

from processes.core.hub import step
from processes.core.hub.effects import Effects
from processes.core.hub.memory import Memory
from processes.core.hub.rules import Rules
from processes.core.hub.step import StoredState, Tick
from processes.core.hub.tables import Table
from processes.core.records.command import Command, State
from processes.core.records.ledger import Ledger
from processes.core.travels import messages
from processes.core.travels.agent_frames import Heartbeat, Known, Metrics, Register
from processes.core.travels.messages import Delivery, Event, GiveCommand, Replied, Request
from processes.core.values import CANARY_HOST, Now

NOTHING = StoredState({}, Ledger(), 1)


@dataclass
class Play:
    """One hub's memory with everything it asked for. `at_s` is the time on both clocks, `jumped_s` by how much wall
    time was set.
    """

    rules: Rules = field(default_factory=Rules)
    at_s: float = 1000.0
    jumped_s: float = 0.0
    boot: str = "boot"
    effects: Effects = field(default_factory=Effects)
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    memory: Memory = field(init=False)

    def __post_init__(self) -> None:
        self.memory = step.restore(self.rules, 1, self.boot, self.now, NOTHING)

    @property
    def now(self) -> Now:
        return Now(self.at_s, self.at_s + 1e9 + self.jumped_s)

    def do(self, event: Event | step.OwnEvent) -> Effects:
        """Steps the event and what follows from it, and returns what that asked for."""
        before = self.effects
        self.effects = Effects()
        self.effects.extend(step.step(self.memory, event, self.now).apply())
        self.settle()
        done, self.effects = self.effects, before
        self.effects.extend(done)
        return done

    def settle(self) -> None:
        """Looks at all that is due now, as the hub's loop does at the end of a turn."""
        while found := step.due(self.memory):
            for due in found:
                self.effects.extend(step.step(self.memory, due, self.now).apply())
        while (timer := step.elapsed(self.memory, self.now)) is not None:
            self.effects.extend(step.step(self.memory, timer, self.now).apply())

    def wait(self, seconds: float) -> Effects:
        """Time goes on, and a tick comes."""
        self.at_s += seconds
        return self.do(Tick())

    def restart(self) -> None:
        """The hub dies and its successor starts from what was durable: here, everything."""
        self.memory = step.restore(self.rules, self.memory.epoch + 1, self.boot, self.now, self.stored())

    def stored(self) -> StoredState:
        """What a database would hold that has taken everything."""
        memory = self.memory
        tables = [table for table in vars(memory).values() if isinstance(table, Table) and table.durable]
        rows = {table.name: [(key, row) for key, row in table.items() if key != CANARY_HOST] for table in tables}
        rows["commands"] = [
            (id, msgspec.convert(msgspec.to_builtins(command), Command)) for id, command in memory.commands.items()
        ]
        return StoredState(rows, memory.ledger, memory.next_number)

    # operators

    def ask(self, request: Request, *, request_id: str = "", deadline_s: float = 5.0) -> Replied:
        """An operator's request and its answer."""
        request_id = request_id or f"request-{next(self.numbers)}"
        event = messages.RequestReceived(request_id, "fanout", "ann", self.at_s + deadline_s, request)
        done = self.do(event)
        assert len(done.replies) == 1, "every request is answered exactly once"
        return done.replies[0][1]

    def enroll(self, *names: str) -> None:
        for name in names:
            assert self.ask(messages.EnrollHost(name, f"hash-{name}")).status == 201

    def give(self, op: str, *hosts: str, key: str | None = None, ttl_s: float | None = None) -> list[str]:
        """Gives a command; the ids."""
        reply = self.ask(GiveCommand(op, list(hosts), key, ttl_s))
        assert reply.status == 202, reply.body
        return [view["id"] for view in msgspec.json.decode(reply.body)["commands"]]

    # agents

    def connection(self, host: str, connection: str, *, register: Register | None = None) -> messages.Connection:
        record = self.memory.hosts[host]
        register = register or Register(host, protocol=1, journal_id="journal", commands=["pull", "switch"])
        return messages.Connection(connection, "gateway", host, record.enrolment, register, since_boot_s=self.at_s)

    def connect(self, host: str, connection: str, **fields: object) -> Effects:
        """An agent with a journal registers. Fields: of its Register."""
        ids = fields.pop("known", [])
        assert isinstance(ids, list)
        known = [Known(i, "accepted") for i in ids]
        values: dict[str, object] = {
            "protocol": 1,
            "journal_id": "journal",
            "commands": ["pull", "switch"],
            "known": known,
            **fields,
        }
        info = self.connection(host, connection, register=Register(host, **values))  # type: ignore[arg-type]
        return self.do(messages.AgentRegistered(connection, "gateway", host, info))

    def disconnect(self, host: str, connection: str) -> Effects:
        return self.do(messages.AgentDisconnected(connection, "gateway", host, 1006))

    def beat(self, host: str, connection: str, pending: str | None = None) -> Effects:
        heartbeat = Heartbeat(Metrics(cpu=1.0), pending)
        return self.do(messages.HeartbeatReceived(connection, "gateway", host, heartbeat))

    def ack(self, host: str, connection: str, command_id: str) -> Effects:
        return self.do(messages.AckReceived(connection, "gateway", host, command_id, "accepted"))

    def report(
        self, host: str, connection: str, command_id: str | None, status: str = "ok", exit_code: int = 0
    ) -> Effects:
        return self.do(messages.StatusReceived(connection, "gateway", host, status, exit_code, "", command_id))

    # looking

    def state(self, command_id: str) -> State:
        return self.memory.commands[command_id].state

    def command(self, command_id: str) -> Command:
        return self.memory.commands[command_id]


def sent(effects: Effects) -> list[str]:
    """The ids of the commands that were delivered."""
    return [message.command_id for _, message in effects.deliveries if isinstance(message, messages.DeliverCommand)]


def delivered(effects: Effects, kind: type[Delivery]) -> list[Delivery]:
    """The deliveries of one kind."""
    return [message for _, message in effects.deliveries if isinstance(message, kind)]
