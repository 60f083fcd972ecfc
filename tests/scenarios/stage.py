"""A quiet simulated house for one scenario, and the tape that tells what passed its borders.

On the tape stand, in the order of virtual time: what operators ask and are answered, what goes onto the queues and what
the hub acknowledges, what the hub commits, every frame between gateway and agent, what really runs, and the starts and
ends of processes. Names inside the processes do not stand there.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from simulation import gateway_side, operator_side
from simulation.agent_side import Execution
from simulation.invariants import Witness
from simulation.queues_side import VirtualLink
from simulation.schedule import Schedule
from simulation.timeline import Life
from simulation.world import World

from processes.core.hub.effects import AddOutput, Put
from processes.core.hub.turn import CommitBatch
from processes.core.records.command import Command
from processes.core.travels.messages import Request
from processes.core.travels.queue_calls import Appended
from processes.core.values import Position
from processes.fanout.requests import Answer

TOLD = (  # fields of messages and frames, in this order
    "host", "hostname", "command_id", "command", "op", "hosts", "key", "attempt", "status", "exit_code", "reason",
    "code", "offset", "line",
    "pending_command", "journal_id",
)  # fmt: skip
QUIET = {"SnapshotWanted", "SnapshotPiece", "CensusTaken", "TokensPiece", "HeartbeatReceived", "heartbeat"}


class Stage(World):
    """One house with the hosts named; nothing happens by chance but the little that each I/O and frame takes."""

    def __init__(self, script: Callable[[Stage], Awaitable[None]], hosts: int = 1) -> None:
        made_of = {
            "act": "world 0", "heartbeat_s": 10.0, "one_gateway": True, "one_fanout": True, "hosts": hosts,
            "foreign_host": False,
            "chaos_s": 0.0, "begins_s": 0.0, "stories": 0, "faults": 0,
            **{f"clock_off_s_h{number}": 0.0 for number in range(hosts)},
        }  # fmt: skip
        super().__init__(Schedule(1, acts=[made_of]))
        self.tape: list[str] = []
        self.heartbeats = False  # told, too
        self.greeted: set[str] = set()  # agents that were told that the hub holds their registration
        self._play = script
        self._began_s: float | None = None  # None: the tape does not run yet
        self._names: dict[str, str] = {}
        self.witness = TapingWitness(self)

    # the script's words

    def begin(self) -> None:
        """Lets the tape run: what went before is how the house came up."""
        self._began_s = self.loop.now_s

    def note(self, text: str) -> None:
        """A sentence of the script's own."""
        self.tell("", f"# {text}")

    async def until(self, true: Callable[[], bool]) -> None:
        """Returns once it is so."""
        until_s = self.loop.now_s + 200.0
        while not true():
            assert self.loop.now_s < until_s, "this never came true"
            await asyncio.sleep(0.01)

    def states(self) -> list[str]:
        """Of all commands, as they stand on the hub's disk."""
        return [str(command.state) for command in self.witness.disk.values()]

    async def ask(self, request: Request) -> Answer | None:
        """An operator asks once."""
        self.tell("operator", f"asks {self._said(msgspec.to_builtins(request))}")
        answer = await self.operator.ask(request)
        if answer is None:
            self.tell("operator", "hears nothing")
        else:
            self.tell("operator", f"hears {answer.status} {_code(answer.body)}".rstrip())
        return answer

    # the tape

    def tell(self, who: str, text: str) -> None:
        """One line."""
        if self._began_s is not None:
            self.tape.append(f"{self.loop.now_s - self._began_s:6.1f}  {who:<9} {text}".rstrip())

    def name(self, command_id: str) -> str:
        """`command 1` for the first command that was seen."""
        return self._names.setdefault(command_id, f"command {len(self._names) + 1}")

    def frame(self, sender: Life, receiver: Life, text: bytes) -> None:
        """Called when a frame goes onto a wire."""
        frame = json.loads(text)
        if frame["type"] == "registered":
            self.greeted.add(receiver.name)
        if self.heartbeats or frame["type"] not in QUIET:
            payload = frame.get("payload") or {key: value for key, value in frame.items() if key != "type"}
            self.tell(sender.name, f"→ {receiver.name}: {frame['type']} {self._said(payload)}".rstrip())

    def closes(self, sender: Life, receiver: Life, code: int) -> None:
        """Called when one end closes a wire."""
        self.tell(sender.name, f"→ {receiver.name}: closes the connection, code {int(code)}")

    def appended(self, role: str, queue: str, items: Sequence[bytes]) -> None:
        """Called when a process puts items onto a queue."""
        for item in items:
            message = msgspec.msgpack.decode(bytes(item)[1:])
            if queue.startswith("broadcasts") or (message["t"] in QUIET and not self.heartbeats):
                continue
            said = {**message.pop("request", {}), **message.pop("info", {}), **message}
            said.pop("t")
            self.tell(role, f"puts onto {queue}: {message['t']} {self._said(said)}".rstrip())

    def _said(self, fields: dict[str, Any]) -> str:
        told = []
        for key in TOLD:
            value = fields.get(key)
            if value in (None, "", []):
                continue
            told.append(
                self.name(value)
                if key == "command_id"
                else f"{key}={value if isinstance(value, str) else json.dumps(value)}"
            )
        text = " ".join(told)
        for command_id, name in self._names.items():
            text = text.replace(command_id, name)  # programs print it
        return text

    def link(self, life: Life, role: str) -> VirtualLink:
        """A way to the queues, beside which the tape runs."""
        return TapedLink(self, life, role)

    def ended(self, life: Life, error: BaseException | None) -> None:
        """Called when a process has ended."""
        self.tell(life.name, f"ends: {life.ended_by}")
        super().ended(life, error)

    def _start(self, name: str, main: Callable[[World, Life], Any]) -> None:
        self.tell(name, "starts")
        super()._start(name, main)

    async def _run(self) -> None:
        self.queues.start()
        self.start_hub()
        self._start("gateway", gateway_side.main)
        self._start("fanout", operator_side.main)
        for machine in self.machines:
            await self.operator.enroll(machine)
        await self._play(self)
        self._began_s = None  # what follows is how the house is taken down


class TapingWitness(Witness):
    """The witness of the invariants, which also tells what is committed and what runs."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._stage = stage

    def committed(self, batch: CommitBatch, epoch: int) -> None:
        """Called when a transaction is on disk."""
        told = []
        for write in batch.writes:
            if isinstance(write, Put) and isinstance(write.row, Command) and write.row.host.startswith("h"):
                command = write.row
                told.append(
                    f"{self._stage.name(command.id)} {command.state}" + f" ({command.reason})" * bool(command.reason)
                )
            elif isinstance(write, AddOutput):
                told.append(f"{len(write.records)} records of output of {self._stage.name(write.command_id)}")
        if told:
            self._stage.tell("hub", f"commits {', '.join(told)}")
        super().committed(batch, epoch)

    def executed(self, machine: Any, execution: Execution) -> None:
        """Called when a command's program begins."""
        self._stage.tell(machine.name, f"runs {self._stage.name(execution.command_id)}")
        super().executed(machine, execution)


class TapedLink(VirtualLink):
    """A link that tells what goes onto the queues, and what the hub acknowledges."""

    def __init__(self, stage: Stage, life: Life, role: str) -> None:
        super().__init__(stage, life, role)
        self._stage = stage

    async def append(self, queue: str, items: Sequence[bytes], *, bulk: bool = False, lossy: bool = False) -> Appended:
        """As QueueLink."""
        self._stage.appended(self.role, queue, items)
        return await super().append(queue, items, bulk=bulk, lossy=lossy)

    async def acknowledge(self, queue: str, position: Position) -> None:
        """As QueueLink."""
        if self.role == "hub":
            self._stage.tell("hub", f"acknowledges {queue}")
        await super().acknowledge(queue, position)


def _code(body: bytes) -> str:
    error = json.loads(body).get("error", {}) if body else {}
    return str(error.get("code", "")) if isinstance(error, dict) else str(error)
