"""What must hold: the witness sees every commit, every publication, every frame to an agent and every execution, and
compares.

The names are those of the invariants: I1 no lost ack, I2 at most one execution, I3 legal lifecycle, I4 epochs never go
back, I5 durable before visible, I6 single writer, I7 identity, I10 conservation; L1–L4 liveness once all faults are
healed.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec
from simulation.agent_side import BACK_S, OPS, Execution
from simulation.hub_side import LOST_AFTER_S
from simulation.run_witness import RunWitness
from simulation.timeline import Life

from processes.core.gateway.agent_connection import AgentConnection
from processes.core.hub import step
from processes.core.hub.effects import AddOutput, Put
from processes.core.hub.turn import CommitBatch
from processes.core.records.command import Command
from processes.core.travels import agent_frames, messages
from processes.core.travels.messages import Changed, DeliverAck, DeliverCommand, Replied, SnapshotPiece
from processes.core.values import CANARY_HOST

if TYPE_CHECKING:
    from simulation.world import World

# Written out once more, on purpose: the table in core is what is on trial.
LEGAL = {
    "queued": {"sent", "expired", "cancelled", "lost"},
    "sent": {"running", "succeeded", "failed", "rejected", "cancelled", "lost"},
    "running": {"succeeded", "failed", "cancelled", "lost"},
    "lost": {"succeeded", "failed"},
}
PATIENCE_S = {"silence": LOST_AFTER_S, "not_back": BACK_S}
UNHEARD_S_MAX = 15.0  # a gateway has heard it, and what it told the hub of that was lost with the queues
FINAL = {"succeeded", "failed", "rejected", "expired", "cancelled", "lost"}


class Witness:
    """Everything that was seen, and what was wrong with it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.wrong: list[str] = []
        self.disk: dict[str, Command] = {}
        self._was: dict[str, set[str]] = {}
        self._states: Counter[str] = Counter()
        self._keys: dict[str, list[str]] = {}
        self._promised: dict[str, list[str]] = {}
        self._epoch = 0
        self._runs: dict[str, list[tuple[Any, Execution]]] = {}
        self._begun: dict[tuple[str, str], tuple[int, str]] = {}
        self._newest: dict[Life, int] = {}
        self._speaks: dict[Life, int] = {}
        self._output: dict[str, int] = {}
        self._accepted_s: dict[str, float] = {}
        self._misled: set[str] = set()  # lost by silence while the hub's clock told a wrong time
        self._heard_s: dict[str, float] = {}
        self._unheard_s: dict[str, float] = {}  # by command: when the hub wrote down that it is not heard of
        self._refused: set[str] = set()  # keys of requests that were answered 503, and not asked again
        self.runs = RunWitness(self)

    def blame(self, name: str, text: str) -> None:
        """An invariant is broken."""
        if len(self.wrong) < 20:
            self.wrong.append(f"{name} at {self._world.loop.now_s:.3f}: {text}")
            self._world.trace("!", self.wrong[-1])

    def expect(self, name: str, holds: bool, text: str) -> None:
        """Blames, unless it holds."""
        if not holds:
            self.blame(name, text)

    # the disk

    def hub_began(self, epoch: int) -> None:
        """A hub has begun an epoch."""
        self.expect("I4", epoch > self._epoch, f"epoch {epoch} after {self._epoch}")
        self._epoch = epoch

    def committed(self, batch: CommitBatch, epoch: int) -> None:
        """A transaction is on disk."""
        self.expect("I6", epoch == self._epoch, f"a hub of epoch {epoch} wrote after epoch {self._epoch} had begun")
        for write in batch.writes:
            if isinstance(write, Put) and isinstance(write.row, Command) and write.row.host != CANARY_HOST:
                self._put(write.row)
            elif isinstance(write, AddOutput):
                for record in write.records:
                    due = self._output.get(write.command_id, 0)
                    self.expect(
                        "I2",
                        record.offset == due,
                        f"output {record.offset} of {write.command_id[:6]} where {due} was due",
                    )
                    self._output[write.command_id] = due + 1
                    self.expect(
                        "I7",
                        record.data.startswith(write.command_id),
                        f"{write.command_id[:6]} has another's output {record.data}",
                    )
            elif isinstance(write, Put):
                self.runs.put(write)
        self.runs.committed()
        counts = {state: getattr(batch.ledger, state) for state in LEGAL.keys() | FINAL}
        right = all(self._states[state] == count for state, count in counts.items()) and batch.ledger.accepted == len(
            self.disk
        )
        self.expect("I10", right, f"the ledger says {batch.ledger}, the disk holds {dict(self._states)}")

    def _put(self, command: Command) -> None:
        before, state = self.disk.get(command.id), str(command.state)
        if before is None:
            self.expect("I3", state == "queued", f"{command.id[:6]} begins as {state}")
            if command.key is not None:
                given = self._keys.setdefault(f"{command.key} {command.host}", [])
                given.append(command.id)
                self.expect("I1", len(given) == 1, f"key {command.key} was carried out {len(given)} times")
                self.expect(
                    "I1",
                    command.key not in self._refused,
                    f"key {command.key} was answered 503, and is carried out after all",
                )
        elif before.state != command.state:
            self.expect("I3", state in LEGAL.get(str(before.state), ()), f"{command.id[:6]}: {before.state} → {state}")
            self._states[str(before.state)] -= 1
        if before is None or before.state != command.state:
            self._states[state] += 1
            self._world.trace("disk", f"{command.id[:6]} {command.host} {command.op} {state} {command.reason}")
        if command.unheard_wall_s is None:
            self._unheard_s.pop(command.id, None)
        else:
            self._unheard_s.setdefault(command.id, self._world.loop.now_s)
        self._expect_in_time(command, state, before is None or str(before.state) != state)
        if state == "sent" and not OPS.get(command.op, (0.0, False))[1]:
            self._expect_alone(command)
        self.disk[command.id] = command
        self._was.setdefault(command.id, set()).add(state)

    def _expect_in_time(self, command: Command, state: str, changed: bool) -> None:
        """Nothing expires or is given up before its time, whatever the clocks are set to."""
        now_s, clock = self._world.loop.now_s, self._world.house_clock
        stepped_s = command.expires_boot_s - command.ttl_s + clock.booted_s  # of a new one: before its commit
        accepted_s = self._accepted_s.setdefault(command.id, min(now_s, stepped_s))
        if state == "expired" and changed:
            early = now_s - accepted_s < command.ttl_s - 0.001 and not clock.misled_since(accepted_s)
            self.expect(
                "I1", not early, f"{command.id[:6]} expires after {now_s - accepted_s:.1f} s of {command.ttl_s:.0f}"
            )
        elif state == "lost" and command.reason in PATIENCE_S and changed:
            heard_s = self._heard_s.get(command.host, accepted_s)
            misled = clock.misled_since(min(heard_s, self._unheard_s.get(command.id, heard_s)))  # what it counts from
            if misled:
                self._misled.add(command.id)
            early = now_s - heard_s < PATIENCE_S[command.reason] - UNHEARD_S_MAX and not misled
            self.expect(
                "I1",
                not early,
                f"{command.id[:6]} is lost by silence, {now_s - heard_s:.1f} s after its host was heard of",
            )

    def _expect_alone(self, command: Command) -> None:
        """Of those that may not run beside another, one at a time is with its host."""
        for other in self.disk.values():
            beside = other.host == command.host and other.id != command.id and str(other.state) in ("sent", "running")
            if beside and not OPS.get(other.op, (0.0, False))[1]:
                self.blame("I3", f"{command.id[:6]} is sent to {command.host} beside {other.id[:6]}")

    # what the hub says

    def published(self, queue: str, items: list[bytes]) -> None:
        """The hub appends these."""
        for item in items:
            if queue.startswith("deliveries/"):
                self._delivered(messages.decode_delivery(item))
            else:
                self._broadcast(messages.decode_broadcast(item))

    def _delivered(self, message: messages.Delivery) -> None:
        match message:
            case DeliverCommand():
                kept = self.disk.get(message.command_id)
                self.expect(
                    "I5", kept is not None and "sent" in self._was[message.command_id] and kept.attempt >= message.attempt,
                    f"{message.command_id[:6]} attempt {message.attempt} is sent, and that is not on disk",
                )  # fmt: skip
            case DeliverAck(offset=None, quarantined=False):
                kept = self.disk.get(message.command_id)
                self.expect(
                    "I5",
                    kept is None or str(kept.state) in FINAL,
                    f"a report of {message.command_id[:6]} is acknowledged, not on disk",
                )
            case DeliverAck() if message.offset is not None:
                kept = self.disk.get(message.command_id)
                self.expect(
                    "I5",
                    kept is None or kept.reason == "host_removed" or kept.output_next >= message.offset,
                    f"output of {message.command_id[:6]} acknowledged, not on disk",
                )  # fmt: skip
            case _:
                pass

    def _broadcast(self, message: messages.Broadcast) -> None:
        match message:
            case Changed(changes=changes) | SnapshotPiece(changes=changes):
                for change in changes:
                    if change.kind == "command":
                        state = msgspec.json.decode(change.fields).get("state")
                        known = state is None or state in self._was.get(change.id, ())
                        self.expect("I5", known, f"{change.id[:6]} is shown as {state}, and that is not on disk")
            case Replied(status=status, body=body) if status in (200, 202):
                for view in msgspec.json.decode(body).get("commands", ()):
                    self.expect("I5", view["id"] in self.disk, f"{view['id'][:6]} is accepted, and that is not on disk")
            case _:
                pass

    # what gateways do

    def speaks(self, life: Life, epoch: int) -> None:
        """A gateway looks at a delivery of this epoch."""
        self._newest[life] = max(self._newest.get(life, 0), epoch)
        self._speaks[life] = epoch

    def heard(self, socket: Any) -> None:
        """A frame of an agent has come to a gateway."""
        if socket.connection is not None:
            self._heard_s[socket.connection.host] = self._world.loop.now_s

    def written(self, life: Life, session: AgentConnection | None, text: bytes) -> None:
        """A gateway writes a frame to an agent."""
        frame = agent_frames.decode_hub(text)
        if not isinstance(frame, agent_frames.CommandFrame) or session is None:
            return
        self.expect(
            "I6",
            self._speaks[life] == self._newest[life],
            f"{frame.command_id[:6]} is sent for the hub of epoch {self._speaks[life]}",
        )
        kept = self.disk.get(frame.command_id)
        self.expect(
            "I7", kept is not None and (kept.host, kept.enrolment) == (session.host, session.token.enrolment),
            f"{frame.command_id[:6]} is sent to {session.host} of another enrolment",
        )  # fmt: skip
        self._world.trace(life.name, f"command {frame.command_id[:6]} to {session.host}, attempt {frame.attempt}")

    def shown(self, life: Life, before: tuple[int, int], after: tuple[int, int]) -> None:
        """A fanout's mirror took a message."""
        self.expect(
            "I4", after[0] >= before[0] and after[1] >= before[1], f"{life.name} went back from {before} to {after}"
        )

    # what agents do

    def said(self, machine: Any, text: bytes) -> None:
        """An agent writes a frame: what it says of a command must be in its journal."""
        frame, _ = agent_frames.decode(text)
        if isinstance(frame, agent_frames.CommandAck):
            row = machine.rows.get(frame.command_id)
            self.expect(
                "I2",
                row is not None or machine.journal_gone,
                f"{machine.name} acknowledges {frame.command_id[:6]}, and its journal does not know it",
            )

    def executed(self, machine: Any, execution: Execution) -> None:
        """A program begins."""
        command_id = execution.command_id
        self._world.trace(machine.name, f"runs {command_id[:6]} {execution.op}")
        runs = self._runs.setdefault(command_id, [])
        runs.append((machine, execution))
        self.expect("I2", len(runs) == 1, f"{command_id[:6]} runs for the {len(runs)}. time")
        kept = self.disk.get(command_id)
        if kept is None:
            self.blame("I5", f"{command_id[:6]} runs and is not on disk")
            return
        self.expect("I7", kept.host == machine.name, f"{command_id[:6]} of {kept.host} runs on {machine.name}")
        if OPS.get(kept.op, (0.0, False))[1]:
            return
        place = (kept.host, kept.enrolment)
        number, earlier = self._begun.get(place, (0, ""))
        self.expect("I3", number < kept.number, f"{command_id[:6]} runs after the later {earlier[:6]}")
        self._begun[place] = (kept.number, command_id)

    # what operators were told

    def accepted(self, key: str, ids: list[str]) -> None:
        """An operator holds a 202, or the 200 of asking again."""
        before = self._promised.setdefault(key, ids)
        self.expect("I1", before == ids, f"key {key} stands for two sets of commands")
        for command_id in ids:
            self.expect("I1", command_id in self.disk, f"{command_id[:6]} was accepted and is not on disk")

    def refused(self, key: str) -> None:
        """An operator holds a 503: it will not happen."""
        self._refused.add(key)
        known = [command.id for command in self.disk.values() if command.key == key]
        self.expect("I1", not known, f"key {key} was answered 503, and is on disk")

    # the end

    def unsettled(self) -> list[str]:
        """What is not yet as it should be, now that everything is healed; empty: all is well."""
        world = self._world
        hub = world.hub_of_now()
        if hub is None:
            return ["L4: no hub"]
        _, _, memory = hub
        found = [f"L3: {c.id[:6]} on {c.host} is {c.state}" for c in self.disk.values() if str(c.state) not in FINAL]
        found += self.runs.unsettled()
        if world.operator.open:
            found.append(f"I1: {world.operator.open} requests have no answer")
        for machine in world.machines:
            presence = str(memory.links[machine.name].presence) if machine.name in memory.links else "offline"
            want = "offline" if machine.off else "online"
            if machine.name in memory.hosts and presence != want:
                found.append(f"L2: {machine.name} is {presence}, not {want}")
            session = getattr(getattr(machine, "agent", None), "_session", None)
            if not machine.off and session is not None and session.unacknowledged:
                found.append(f"L3: {machine.name} has {session.unacknowledged} unacknowledged")
        fanouts = [fanout for life, fanout in world.fanouts if life.alive]
        if len(fanouts) < len(world.fanout_names):
            found.append("L4: a fanout is missing")
        for fanout in fanouts:
            if not fanout.mirror.live or fanout.mirror.shown_epoch != memory.epoch:
                found.append(f"L1: the mirror shows epoch {fanout.mirror.shown_epoch}, not {memory.epoch}")
            else:
                found += self._differences(fanout.mirror.shown, memory)
        return found

    def _differences(self, shown: Any, memory: Any) -> list[str]:
        found = []
        for change in step.all_changes(memory, lambda *_: None):
            row = shown.row(change.kind, change.id)
            theirs = msgspec.json.decode(row) if row is not None else None
            ours = msgspec.json.decode(change.fields)
            if theirs is not None:
                theirs.pop("beat", None)
            if theirs != ours and change.id != CANARY_HOST:
                found.append(f"L1: {change.kind} {change.id[:6]} is shown as {theirs}, not {ours}")
        return found

    def judge(self) -> None:
        """Every final state is true."""
        for key, ids in self._promised.items():
            for command_id in ids:
                self.expect("I1", command_id in self.disk, f"{command_id[:6]} of key {key} is gone")
        self.runs.judge()
        machines = {machine.name: machine for machine in self._world.machines}
        for command in self.disk.values():
            self._judge(command, machines[command.host])

    def _judge(self, command: Command, machine: Any) -> None:
        runs = self._runs.get(command.id, [])
        execution = runs[0][1] if runs else None
        said = f"{command.state} {command.reason} {command.exit_code}"
        what = f"{command.id[:6]} ({command.op} on {command.host}) is {said}, and in truth {execution}"
        match str(command.state):
            case "succeeded" if command.op == "reboot" and hasattr(machine, "rows"):
                booted = any(at_s >= self._accepted_s[command.id] for at_s in machine.rebooted_s)
                refused = execution is not None and execution.ended is not None and execution.exit_code in (1, 7)
                self.expect("I2", booted and not refused, f"{what}, reboots at {machine.rebooted_s}")
            case "failed" if command.op == "reboot" and command.reason == "timed_out":
                self.expect("I2", execution is not None and execution.exit_code == 0, what)
            case "succeeded":
                self.expect("I2", execution is not None and execution.exit_code == 0, what)
            case "failed" if command.exit_code is not None:
                self.expect(
                    "I2",
                    execution is not None and execution.exit_code == command.exit_code and command.exit_code != 0,
                    what,
                )
            case "failed" | "rejected" | "expired":
                self.expect("I2", execution is None, what)
            case "cancelled":
                self.expect("I2", execution is None or execution.exit_code not in (None, 0), what)
            case "lost":
                self._judge_lost(command, machine, execution, what)
            case _:
                self.blame("I1", what)

    def _judge_lost(self, command: Command, machine: Any, execution: Execution | None, what: str) -> None:
        """Only if the hub cannot know: nobody is there to ask, or whoever is there cannot know either."""
        foreign = not hasattr(machine, "rows")
        emptied_s = () if foreign else machine.emptied_s
        cannot = machine.off or bool(machine.replaced_s) or command.reason == "host_removed" or foreign
        # a clock that was set across a reboot: no other measure is left there
        cannot = cannot or command.id in self._misled
        # what told of it was removed since it was accepted
        cannot = cannot or any(at_s >= self._accepted_s[command.id] for at_s in emptied_s)
        unknown = execution is not None and execution.ended is None
        self.expect("I1", cannot or unknown, what)
