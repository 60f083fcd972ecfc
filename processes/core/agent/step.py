"""An agent's decisions: what it answers, runs, reports and forgets. Pure: step(input, now) → effects.

One command's way through an agent:

    command frame ──▶ ADMITTING ──row durable──▶ ACCEPTED ──launch durable──▶ shim ──`started` seen──▶ RUNNING
                          │                          │                         │                          │
                          │                          └──its time was over──▶ FINISHED ◀──its end seen─────┘
                          │                                                    └──ack──▶ gone
                          └──the journal knew it──▶ answered from its row, never run again

The theory: a command's id enters the journal before anything is said of it, by one insert that tells new from known; so
of any number of deliveries one is accepted. That a shim may be started is written into the journal before the shim is
started, and the run folder is prepared just before that, and never again. The shim can begin the program only by
turning the folder's file `unstarted` into `started`: so whatever is removed from the folder, by whomever, can only make
the outcome unknown (`lost` at the hub), and never lead to a second run or to a false "not run". That a command ends
without having run is written into the journal before the hub is told.
Everything that the hub has not acknowledged is sent again: after 5 s, and from the start of what is missing on
each new connection. A report follows the hub's acknowledgement of all output: what is sent in order may still be lost
in part, with the hub's queues, and a report that came through would leave a final command whose output nobody sends
again.

What bothers the author: a rejection is journalled too. Without that a redelivery that crossed it on the wire could be
run after the hub had already told its operator `rejected`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from processes.core.agent import reboot
from processes.core.agent.effects import (
    Connected,
    Disconnected,
    Effect,
    Input,
    Kill,
    Launch,
    Look,
    MakeNextToken,
    NextTokenMade,
    Observed,
    Received,
    Recorded,
    RecordFailed,
    RecordRow,
    Send,
    SettleRow,
    Ticked,
    Updated,
    UpdateFailed,
)
from processes.core.agent.flow import RESEND_S
from processes.core.agent.open_command import CANCELLED, CommandStage, OpenCommand, is_over
from processes.core.agent.remembered import (
    COMMAND_ID,
    Ended,
    FolderVerdict,
    JournalRow,
    JournalState,
)
from processes.core.older_python import assert_never
from processes.core.travels import agent_frames
from processes.core.values import PROTOCOL, Now

OPEN_MAX: Final = 1000  # commands not yet acknowledged; past it new ones are rejected. `known` may hold 2000
CONCURRENT_MAX: Final = 16  # running at once; guess: more is an operator's mistake
INTERVAL_S_MIN: Final = 0.1  # of heartbeats, whatever the hub says; contract: as in an agent's file
INTERVAL_S_MAX: Final = 3600.0
SIGNALS: Final = ("SIGTERM", "SIGKILL", "SIGINT", "SIGHUP")  # any other word is taken for SIGTERM


class Identity(msgspec.Struct, frozen=True):
    """Who this agent is: what `register` says."""

    name: str
    boot_id: str
    journal_id: str
    heartbeat_s: float
    offers: Mapping[str, agent_frames.CommandOptions]
    agent_version: str = ""
    os_version: str = ""
    kernel: str = ""
    machine: str = ""
    labels: Mapping[str, str] = {}

    def is_concurrent(self, op: str) -> bool:
        """Return whether this op may run beside another."""
        options = self.offers.get(op)
        return options is not None and options.concurrent

    def register(self, known: list[agent_frames.Known]) -> agent_frames.Register:
        """The first frame of a connection."""
        return agent_frames.Register(
            hostname=self.name,
            host_type="linux",
            agent_version=self.agent_version,
            os_version=self.os_version,
            kernel=self.kernel,
            machine=self.machine,
            heartbeat_interval=self.heartbeat_s,
            protocol=PROTOCOL,
            boot_id=self.boot_id,
            journal_id=self.journal_id,
            commands=list(self.offers),
            command_options=dict(self.offers),
            known=known,
            labels=dict(self.labels) or None,
        )


class Agent:
    """One agent from its start to its end, over all its connections."""

    def __init__(self, identity: Identity, unsettled: Iterable[JournalRow] = ()) -> None:
        self._me = identity
        self._open: dict[str, OpenCommand] = {}  # in the order of admission
        self._unjournalled: dict[str, str] = {}  # refused because the journal failed: never run later either
        self._number = 0  # of the connection; 0: none
        self._registered = False
        self._beat_boot_s, self._interval_s = 0.0, identity.heartbeat_s
        for row in unsettled:
            command = self._open[row.command_id] = OpenCommand(row, CommandStage.ACCEPTED)
            if row.ended is not None or row.state is JournalState.CANCELLED:
                command.end(row.ended or CANCELLED, 0)

    @property
    def registered(self) -> bool:
        """True while the hub holds our registration."""
        return self._registered

    @property
    def running(self) -> int:
        """How many commands run or are about to."""
        return sum(command.runs for command in self._open.values())

    @property
    def unacknowledged(self) -> int:
        """How many commands the hub has not acknowledged yet."""
        return len(self._open)

    @property
    def may_forget(self) -> bool:
        """True unless a command was launched whose end is not acknowledged: another agent does no harm then."""
        return all(each.row.state is not JournalState.LAUNCHED or each.waits for each in self._open.values())

    def looks(self) -> list[Look]:
        """The run folders to look into now. Output is read only as far as it may be sent."""
        wanted = []
        for command_id, command in self._open.items():
            room = command.flow.room_bytes() if self._registered else 0
            unsent = command.total is not None and command.flow.next < command.total
            begun = command.row.state is JournalState.LAUNCHED and command.unrun is None
            if (begun and command.stage in (CommandStage.ACCEPTED, CommandStage.RUNNING)) or (unsent and room):
                wanted.append(Look(command_id, command.flow.next, room))
        return wanted

    def step(self, happened: Input, now: Now) -> list[Effect]:
        """What to do now, in this order."""
        effects: list[Effect] = []
        if isinstance(happened, Connected):
            self._on_connected(happened.number, effects)
        elif isinstance(happened, Disconnected):
            self._number, self._registered = 0, False
            for command in self._open.values():
                command.flow.begin_anew()
                command.reported = False
        elif isinstance(happened, Received):
            self._on_frame(happened.frame, now, effects)
        elif isinstance(happened, Recorded):
            self._on_recorded(self._open.get(happened.command_id), happened.known, now, effects)
        elif isinstance(happened, RecordFailed):
            self._on_record_failed(happened.command_id, happened.reason, effects)
        elif isinstance(happened, Updated):
            self._on_updated(self._open[happened.row.command_id], happened.row, now, effects)
        elif isinstance(happened, UpdateFailed):
            self._open[happened.command_id].update_failed(now)
        elif isinstance(happened, Observed):
            self._on_observed(happened, now, effects)
        elif isinstance(happened, NextTokenMade):
            self._send(agent_frames.NewToken(happened.token_hash), effects)
        elif isinstance(happened, Ticked):
            self._on_tick(happened.metrics, now, effects)
        else:
            assert_never(happened)
        self._report(now, effects)
        return effects

    def _on_connected(self, number: int, effects: list[Effect]) -> None:
        self._number, self._registered = number, False
        known = [(id_, each.stage) for id_, each in self._open.items() if each.stage is not CommandStage.ADMITTING]
        effects.append(Send(number, self._me.register([agent_frames.Known(id_, stage) for id_, stage in known])))

    # frames

    def _on_frame(self, frame: agent_frames.HubFrame, now: Now, effects: list[Effect]) -> None:
        if isinstance(frame, agent_frames.Registered):
            self._interval_s = min(max(frame.heartbeat_interval, INTERVAL_S_MIN), INTERVAL_S_MAX)
            next_boot_s = min(self._beat_boot_s, now.boot_s + self._interval_s)
            self._beat_boot_s = next_boot_s if self._registered else now.boot_s  # the first is answered at once
            self._registered = True
        elif isinstance(frame, agent_frames.CommandFrame):
            self._on_command(frame, now, effects)
        elif isinstance(frame, agent_frames.KillCommand):
            self._on_kill(frame, now, effects)
        elif isinstance(frame, agent_frames.RotateOwnToken):
            effects.append(MakeNextToken())
        elif isinstance(frame, agent_frames.Ack):
            self._on_ack(self._open.get(frame.command_id), frame.offset, now, effects)
        else:
            assert_never(frame)

    def _on_command(self, frame: agent_frames.CommandFrame, now: Now, effects: list[Effect]) -> None:
        command = self._open.get(frame.command_id)
        if command is not None:
            if command.stage is not CommandStage.ADMITTING:  # else its answer is under way
                self._send(agent_frames.CommandAck(frame.command_id, "duplicate"), effects)
                command.reported = False
            return
        if frame.command_id in self._unjournalled:
            self._reject(frame.command_id, self._unjournalled[frame.command_id], effects)
            return
        if not COMMAND_ID.fullmatch(frame.command_id):
            self._reject(frame.command_id, "malformed_id", effects)
            return
        reason = self._refusal(frame)
        state = JournalState.REJECTED if reason else JournalState.ADMITTED
        row = self._row(frame.command_id, frame.command, state, now, ttl_s=frame.ttl_s, reason=reason)
        if len(self._open) >= OPEN_MAX:
            self._reject(frame.command_id, "too_many_unacknowledged", effects)
            return
        self._open[frame.command_id] = OpenCommand(row, CommandStage.ADMITTING)
        # plant: journal-first
        effects.append(RecordRow(row))

    def _refusal(self, frame: agent_frames.CommandFrame) -> str:
        options = self._me.offers.get(frame.command)
        if options is None:
            return "not_offered"
        if frame.ttl_s is not None and frame.ttl_s <= 0:
            return "expired"
        beside = [command for command in self._open.values() if command.runs]
        alone = not options.concurrent and any(not self._me.is_concurrent(command.row.op) for command in beside)
        return "busy" if alone or len(beside) >= CONCURRENT_MAX else ""

    def _on_kill(self, frame: agent_frames.KillCommand, now: Now, effects: list[Effect]) -> None:
        signal = frame.signal if frame.signal in SIGNALS else "SIGTERM"
        command_id = frame.command_id or self._running_as(frame.pid)
        command = self._open.get(command_id)
        if command is None:
            if COMMAND_ID.fullmatch(command_id) and len(self._open) < OPEN_MAX:
                row = self._row(command_id, "", JournalState.CANCELLED, now)
                self._open[command_id] = OpenCommand(row, CommandStage.ADMITTING, by_kill=True)
                effects.append(RecordRow(row))
        elif command.stage is CommandStage.ADMITTING or command.row.state is JournalState.ADMITTED:
            command.is_cancelled = True
            if command.stage is CommandStage.ACCEPTED:
                self._advance(command, now, effects)
        elif command.stage is not CommandStage.FINISHED:  # a completed exit wins
            effects.append(Kill(command_id, signal))

    def _running_as(self, pid: int) -> str:
        """The running command with this pid; 0: the first that runs; "": none."""
        return next((command_id for command_id, c in self._open.items() if c.runs and pid in (0, c.pid)), "")

    def _on_ack(self, command: OpenCommand | None, offset: int | None, now: Now, effects: list[Effect]) -> None:
        if command is None or command.stage is CommandStage.ADMITTING:
            return
        if offset is not None:
            command.flow.acknowledged(offset, now.boot_s)
        elif command.stage is CommandStage.FINISHED:
            del self._open[command.row.command_id]
            settled = msgspec.structs.replace(command.row, state=JournalState.SETTLED, ended=command.ended)
            effects.append(SettleRow(settled, forget=True))

    # the journal

    def _on_recorded(
        self, command: OpenCommand | None, known: JournalRow | None, now: Now, effects: list[Effect]
    ) -> None:
        assert command is not None, "a row was recorded that nobody asked for"
        assert command.stage is CommandStage.ADMITTING, "a row was recorded twice"
        row = command.row
        # plant: known-to-journal
        if known is not None:
            del self._open[row.command_id]
            self._answer(known, effects, delivered=not command.by_kill)
        elif row.state is JournalState.REJECTED:
            del self._open[row.command_id]
            self._reject(row.command_id, row.reason, effects)
        elif row.state is JournalState.CANCELLED:
            command.end(CANCELLED, 0)
        elif is_over(row, now, self._me.boot_id):
            del self._open[row.command_id]
            effects.append(SettleRow(msgspec.structs.replace(row, state=JournalState.REJECTED, reason="expired")))
            self._reject(row.command_id, "expired", effects)
        else:
            command.stage = CommandStage.ACCEPTED
            self._send(agent_frames.CommandAck(row.command_id), effects)
            self._advance(command, now, effects)

    def _on_record_failed(self, command_id: str, why: str, effects: list[Effect]) -> None:
        command = self._open.pop(command_id)
        if command.by_kill:
            return  # the hub asks again as long as it knows of no end
        if len(self._unjournalled) >= OPEN_MAX:
            del self._unjournalled[next(iter(self._unjournalled))]
        self._unjournalled[command_id] = reason = command.row.reason or why
        self._reject(command_id, reason, effects)

    def _advance(self, command: OpenCommand, now: Now, effects: list[Effect]) -> None:
        effects += command.advance(now, self._me.boot_id, is_offered=command.row.op in self._me.offers)

    def _on_updated(self, command: OpenCommand, row: JournalRow, now: Now, effects: list[Effect]) -> None:
        command.updated(row)
        if command.is_cancelled and row.ended is None:
            self._advance(command, now, effects)
        elif row.ended is None:
            self._launch(command, now, effects)

    def _answer(self, row: JournalRow, effects: list[Effect], *, delivered: bool) -> None:
        """What is said of a command that is over."""
        if row.state is JournalState.REJECTED:
            self._reject(row.command_id, row.reason, effects)
            return
        if delivered:
            self._send(agent_frames.CommandAck(row.command_id, "duplicate"), effects)
        if row.ended is not None:
            self._send(_status(row, row.ended), effects)

    # the run

    def _on_observed(self, seen: Observed, now: Now, effects: list[Effect]) -> None:
        command = self._open.get(seen.command_id)
        if command is None or command.stage is CommandStage.ADMITTING:  # acknowledged since we looked
            return
        if command.row.state is not JournalState.LAUNCHED or command.unrun is not None:
            return
        if command.stage is not CommandStage.FINISHED:
            seen = reboot.judged(command.row, seen, now, self._me.boot_id, command.launched_boot_s)
        if command.stage is CommandStage.FINISHED:
            command.observed_again(seen)
        elif seen.run is FolderVerdict.ENDED:
            assert seen.ended is not None and seen.total is not None  # noqa: PT018 - both, or it did not end
            command.end(seen.ended, seen.total)
        elif seen.run is FolderVerdict.RUNNING:
            command.stage, command.pid = CommandStage.RUNNING, seen.pid
        elif seen.run is FolderVerdict.UNSTARTED and command.stage is CommandStage.ACCEPTED:
            self._unstarted(command, seen.said, now, effects)
        # plant: spool-offset
        if self._registered and seen.first == command.flow.next:
            for record in seen.records:
                offset = command.flow.sent(len(record.text.encode()), now.boot_s)
                output = agent_frames.Output(record.text, seen.command_id, command.row.op, record.stream, offset)
                self._send(output, effects)

    def _unstarted(self, command: OpenCommand, said: str, now: Now, effects: list[Effect]) -> None:
        if command.unstarted(now, self._me.boot_id, is_offered=command.row.op in self._me.offers, said=said):
            self._launch(command, now, effects)
        elif command.unrun is not None:
            self._advance(command, now, effects)

    def _launch(self, command: OpenCommand, now: Now, effects: list[Effect]) -> None:
        command.launches += 1
        command.launched_boot_s = now.boot_s
        effects.append(Launch(command.row.command_id, command.row.op))

    # time

    def _on_tick(self, metrics: agent_frames.Metrics | None, now: Now, effects: list[Effect]) -> None:
        for command in self._open.values():
            if command.flow.overdue(now.boot_s):
                command.flow.rewind()
                command.reported = False
            # plant: report-again
            elif command.reported and now.boot_s >= command.report_boot_s:
                command.reported = False
            if command.waits:
                self._advance(command, now, effects)
        if self._registered and now.boot_s >= self._beat_boot_s:
            self._beat_boot_s = max(self._beat_boot_s + self._interval_s, now.boot_s)
            running = next((command for command in self._open.values() if command.runs), None)
            op, pid = (running.row.op, running.pid) if running else (None, None)
            self._send(agent_frames.Heartbeat(metrics, op, pid), effects)

    def _report(self, now: Now, effects: list[Effect]) -> None:
        """Sends each report that is due: when the hub has all output, on a connection that is registered."""
        if not self._registered:
            return
        for command in self._open.values():
            if command.ended is None or command.total is None or command.reported or command.flow.acked < command.total:
                continue
            self._send(_status(command.row, command.ended), effects)
            command.reported, command.report_boot_s = True, now.boot_s + RESEND_S

    # parts

    def _send(self, frame: agent_frames.AgentFrame, effects: list[Effect]) -> None:
        if self._number:
            effects.append(Send(self._number, frame))

    def _reject(self, command_id: str, reason: str, effects: list[Effect]) -> None:
        running = next((command.row.op for command in self._open.values() if command.runs), None)
        self._send(agent_frames.CommandRejected(reason, command_id, running), effects)

    def _row(
        self, command_id: str, op: str, state: JournalState, now: Now, *, ttl_s: float | None = None, reason: str = ""
    ) -> JournalRow:
        options = self._me.offers.get(op)
        back_s = options.back_s if options is not None else None
        return JournalRow(command_id, op, state, self._me.boot_id, now.boot_s, now.wall_s, ttl_s, reason, back_s=back_s)


def _status(row: JournalRow, ended: Ended) -> agent_frames.StatusFrame:
    return agent_frames.StatusFrame(
        ended.status.value, row.command_id, row.op, ended.exit_code, ended.message[:1000], ended.reason
    )
