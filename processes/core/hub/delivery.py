"""The delivery of commands: which is sent when, the agents' answers, and the meaning of silence. Pure.

Delivery is at least once; the agent's journal makes the execution at most once. A foreign agent has no journal: to it a
command is marked `sent` before it is delivered, and never redelivered unless it is certain that the frame was not
written.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from processes.core.hub.effects import AddOutput
from processes.core.hub.foreign import evidence
from processes.core.hub.memory import Draft, derived_id
from processes.core.records import dead_letter
from processes.core.records.command import Command, State
from processes.core.records.dead_letter import Why
from processes.core.records.host import HostRecord, progress_of
from processes.core.travels.messages import (
    AckReceived,
    AgentEvent,
    Connection,
    DeliverAck,
    DeliverCommand,
    DeliverKill,
    OutputGrew,
    OutputReceived,
    ProgressReceived,
    RejectReceived,
    StatusReceived,
    Undelivered,
)  # fmt: skip
from processes.core.values import CANARY_HOST, STOP, OutputRecord, Presence, Stream, Unknown

ENDS: Final[dict[str, tuple[State, str]]] = {  # the status of an agent's report → state and reason
    "ok": (State.SUCCEEDED, ""),
    "warning": (State.SUCCEEDED, "warning"),
    "error": (State.FAILED, ""),
    "timed_out": (State.FAILED, "timed_out"),
    "cancelled": (State.CANCELLED, "cancelled"),
    "stopped": (State.CANCELLED, "stopped"),
}
WAY_S_MAX: Final = 10.0  # from the hub's decision to the agent's start; guess: a hub that is replaced takes 5 s
_UNKNOWN: Final = frozenset(Unknown)  # reported by an agent that cannot know either
_OTHER_JOURNAL: Final = ("journal_replaced", "forgotten")  # reasons of lost
TRUNCATED: Final = "… output cut here: the limit of a command's output was reached"

# sending


def send_due(draft: Draft, name: str) -> None:
    """Send the commands that this host can get now: queued ones in order, one at a time unless an op is concurrent. A
    reboot is alone: it waits for all that was sent, and nothing is sent before it is over.
    """
    host, link = draft.host(name), draft.link(name)
    if host is None or not link.connection or host.register is None:
        return
    exclusive = waiting = rebooting = False
    concurrent = 0
    # plant: foreign-idle
    ready = not host.foreign or link.idle
    for command in draft.queue(name):
        beside = host.concurrent(command.op) or (host.foreign and command.op == STOP)
        if command.state is not State.QUEUED:
            # plant: never-written
            if ready and host.foreign and not command.connection:
                send(draft, host, command)  # Undelivered said that it was never written
            ready |= command.adopted  # then it is known what runs there, and it may be stopped
            exclusive |= not beside
            concurrent += beside
            rebooting |= bool(command.boot_before)
        elif not ready or rebooting:
            return
        elif host.back_s(command.op) is not None:
            if not exclusive and not concurrent and not waiting:
                send(draft, host, command)
            return
        elif beside:
            if concurrent < draft.rules.running_concurrent_max:
                send(draft, host, command)
                concurrent += 1
        # plant: one-at-a-time
        elif not exclusive and not waiting:
            send(draft, host, command)
            exclusive = True
        else:
            waiting = True


def send(draft: Draft, host: HostRecord, command: Command) -> None:
    """Send the command to the host's current connection, once more if it was sent before."""
    link = draft.link(host.name)
    assert link.connection
    fields: dict[str, Any] = {
        "attempt": command.attempt + 1,
        "connection": link.connection,
        "journal": host.register.journal_id if host.register else "",
        "sent_boot_s": draft.now.boot_s,
        "adopted": False,
        "unheard_wall_s": None,
        "evidence": evidence(host) if host.foreign else {},
        "boot_before": host.register.boot_id if host.register and host.back_s(command.op) is not None else "",
    }
    if command.state is State.QUEUED:
        command = draft.move(command, State.SENT, "hub", **fields)
    else:
        command = msgspec.structs.replace(command, **fields)
        draft.put_command(command)
    expires_boot_s = command.expires_boot_s
    if command.attempt == 1:  # it was in time when it was sent, and must not expire on its way to the agent
        expires_boot_s = max(expires_boot_s, draft.now.boot_s + WAY_S_MAX)
    draft.deliver(
        link.gateway,
        DeliverCommand(
            draft.memory.epoch, link.connection, host.name, command.id, command.op, command.attempt, expires_boot_s
        ),
    )
    if command.cancel_wall_s is not None:
        draft.deliver(link.gateway, DeliverKill(draft.memory.epoch, link.connection, command.id))
    draft.timers.append((draft.now.boot_s + draft.rules.redeliver_s, "redeliver", command.id))
    draft.timers.append((draft.now.boot_s + _patience_s(draft, command), "silence", command.id))


# timers


def expire(draft: Draft, command_id: str) -> None:
    """End a queued command whose time is over. `sent` and `running` never expire: the agent may have begun."""
    command = draft.command(command_id)
    # plant: only-queued-expires
    if command is None or command.state is not State.QUEUED:
        return
    if command.expires_boot_s > draft.now.boot_s:
        draft.timers.append((command.expires_boot_s, "expire", command_id))
        return
    online = draft.link(command.host).presence is Presence.ONLINE
    draft.move(command, State.EXPIRED, "hub", "waited_too_long" if online else "host_offline")


def redeliver(draft: Draft, command_id: str) -> None:
    """Send a `sent` command once more if its connection lives and the agent has not answered. The agent's journal
    recognizes a duplicate.
    """
    command = draft.command(command_id)
    if command is None or command.state is not State.SENT:
        return
    host, link = draft.host(command.host), draft.link(command.host)
    # plant: foreign-redelivery
    if host is None or host.foreign or not link.connection or link.connection != command.connection:
        return
    if command.sent_boot_s + draft.rules.redeliver_s > draft.now.boot_s:
        return  # sent again meanwhile, with a timer of its own
    send(draft, host, command)


def silence(draft: Draft, command_id: str) -> None:
    """End a command as lost when its host was not heard of for `lost_after_s`, or is not back from a reboot in time."""
    command = draft.command(command_id)
    if command is None or command.state not in (State.SENT, State.RUNNING):
        return
    unheard = command.unheard_wall_s is not None and not draft.link(command.host).connection
    # plant: silence-clock
    unheard_s = draft.now.boot_s - command.unheard_boot_s if unheard else 0.0
    patience_s = _patience_s(draft, command)
    if unheard_s < patience_s:
        draft.timers.append((draft.now.boot_s + max(1.0, patience_s - unheard_s), "silence", command_id))
    elif command.boot_before:
        told = f"the host was told to reboot, and has not come back for {unheard_s:.0f} s"
        draft.move(command, State.LOST, "hub", "not_back", message=told)
    else:
        draft.move(command, State.LOST, "hub", "silence", message=f"the host was not heard of for {unheard_s:.0f} s")


def _patience_s(draft: Draft, command: Command) -> float:
    """Return for how long the host of this command may not be heard of before the command is lost."""
    host = draft.host(command.host)
    back_s = host.back_s(command.op) if host is not None and command.boot_before else None
    return min(draft.rules.lost_after_s, back_s or draft.rules.lost_after_s)


# a host comes back


def reconcile(draft: Draft, name: str) -> None:
    """Judge the host's commands by its registration, which names the commands that the agent knows.

    A registration is evidence about a command only if the command was last sent on another connection: commands sent on
    this one came after the registration. (A census repeats an old registration; it must not make a running command look
    forgotten.)
    """
    host, link = draft.host(name), draft.link(name)
    info = draft.connection(link.connection)
    if host is None or info is None:
        return
    known = {entry.command_id for entry in info.register.known or []}
    for command in draft.queue(name):
        if command.state is State.QUEUED:
            continue
        # plant: registration-evidence
        if command.connection != info.connection:
            _reconcile_one(draft, host, info, command, command.id in known)
        elif (
            command.state is State.SENT
            and command.sent_boot_s < draft.memory.started_boot_s
            and _unwritten(host, info, command)
        ):
            send(draft, host, command)  # the hub before this one may have died between the commit and the delivery
        elif command.unheard_wall_s is not None:  # this hub started before the census that names the connection
            draft.put_command(msgspec.structs.replace(command, unheard_wall_s=None))
        current = draft.command(command.id)
        if current is not None and current.open and current.cancel_wall_s is not None:
            draft.deliver(link.gateway, DeliverKill(draft.memory.epoch, link.connection, command.id))


def _unwritten(host: HostRecord, info: Connection, command: Command) -> bool:
    return not host.foreign or command.id not in info.written


def _reconcile_one(draft: Draft, host: HostRecord, info: Connection, command: Command, named: bool) -> None:
    if host.foreign:
        return  # the agent's first heartbeat tells whether the command still runs
    if named:
        command = msgspec.structs.replace(command, connection=info.connection, unheard_wall_s=None)
        draft.put_command(command)
        if command.state is State.SENT:
            draft.move(command, State.RUNNING, "agent")
    elif command.state is State.RUNNING and _is_booted_anew(info, command):
        told = (
            "another boot with a new journal came back under this name: the host has rebooted, or it is another machine"
        )
        draft.move(command, State.LOST, "hub", "booted_anew", message=told)
    elif command.state is State.RUNNING:
        draft.move(
            command, State.LOST, "hub", "forgotten", message="the agent came back and does not know this command"
        )
    # plant: new-journal
    elif info.register.journal_id == command.journal:
        send(draft, host, command)
    else:
        draft.move(
            command,
            State.LOST,
            "hub",
            "journal_replaced",
            message="the agent came back with a new journal: it may have run",
        )


def _is_booted_anew(info: Connection, command: Command) -> bool:
    """Return True for a reboot that the agent had journalled, if another boot with another journal came back: a machine
    whose disk is a memory loses its journal with each boot. A copy of the machine, with its token, looks the same, so
    this is no proof that the host has rebooted.
    """
    is_new_journal = info.register.journal_id != command.journal
    return is_new_journal and bool(command.boot_before) and info.register.boot_id not in ("", command.boot_before)


def unheard(draft: Draft, name: str) -> None:
    """Called when the host's connection is gone: notes in its commands since when they are unheard of."""
    for command in draft.queue(name):
        if command.state is not State.QUEUED and command.unheard_wall_s is None:
            now = draft.now
            draft.put_command(msgspec.structs.replace(command, unheard_wall_s=now.wall_s, unheard_boot_s=now.boot_s))


# agents' answers


def undelivered(draft: Draft, event: Undelivered) -> None:
    """Called when the command's frame was never written. An agent with a journal tells when it comes back whether it
    has the command; a foreign agent may get the command again.
    """
    command = draft.command(event.command_id)
    if (
        command is None
        or command.host != event.host
        or command.attempt != event.attempt
        or command.connection != event.connection
    ):
        return
    host = draft.host(event.host)
    # a heartbeat named an earlier command of the same op, and this one was taken to be running
    late_beat = command.state is State.RUNNING and host is not None and host.foreign
    if command.state is State.SENT or late_beat:
        draft.put_command(msgspec.structs.replace(command, connection=""))


def acknowledged(draft: Draft, event: AckReceived) -> None:
    """Called when the agent has the command in its journal: the command runs, or will at once."""
    command = _spoken_of(draft, event, event.command_id)
    if command is not None and command.state is State.SENT:
        draft.move(command, State.RUNNING, "agent")


def progressed(draft: Draft, event: ProgressReceived) -> None:
    """Called when a foreign agent sends progress: its one command runs, and operators see how far it is."""
    link = draft.link(event.host)
    if draft.host(event.host) is not None and link.connection == event.connection:
        draft.put_link(event.host, msgspec.structs.replace(link, progress=progress_of(event.progress)))
    command = _spoken_of(draft, event, event.command_id)
    if command is not None and command.state is State.SENT:
        draft.move(command, State.RUNNING, "agent")


def rejected(draft: Draft, event: RejectReceived) -> None:
    """End the command that the agent refuses to run. If the agent said before that it runs, it contradicts itself:
    nobody can know whether the command ran, and it is lost.
    """
    command = _spoken_of(draft, event, event.command_id)
    if command is None:
        _ack(draft, event, event.command_id)
        return
    reason = event.reason[:200] or "rejected"
    message = f"it runs {event.current_command}" if event.current_command else ""
    if command.state is State.SENT:
        draft.move(command, State.REJECTED, "agent", reason, message=message)
    elif command.state is State.RUNNING:
        told = f"the agent said that it runs, and then rejected it: {reason}"
        draft.move(command, State.LOST, "hub", "contradicted", message=told)
    _ack(draft, event, command.id)


def reported(draft: Draft, event: StatusReceived) -> None:
    """End the command as the agent's report says. The report is acknowledged, however late or often it comes."""
    command = _spoken_of(draft, event, event.command_id, op=event.op)
    if command is None:
        if event.command_id is not None:
            _stray(draft, event, "a report for a command that is not this host's, or not known any more")
            _ack(draft, event, event.command_id, quarantined=True)
        return
    after, reason = ENDS.get(event.status, (State.FAILED, f"status {event.status[:100]}"))
    if after is State.SUCCEEDED and event.exit_code:
        after, reason = State.FAILED, reason or "exit_code"
    if after is State.FAILED:
        after, reason = (State.LOST if event.reason in _UNKNOWN else after), reason or event.reason[:200]
    if (
        command.state is State.LOST
        and after is State.CANCELLED
        and event.exit_code is None
        and command.reason in _OTHER_JOURNAL
    ):
        # another journal says that the command was cancelled before its start: it may have run all the same
        _ack(draft, event, command.id)
        return
    if command.state is State.LOST and after is State.CANCELLED:
        after = State.FAILED  # out of `lost` the table leads only to succeeded and failed: the command did not succeed
    if command.open or (command.state is State.LOST and after in (State.SUCCEEDED, State.FAILED)):
        draft.move(
            command,
            after,
            "agent",
            reason,
            exit_code=event.exit_code,
            message=event.message[:1000],
            unheard_wall_s=None,
        )
        draft.effects.grew.append(OutputGrew(draft.memory.epoch, command.id, command.output_next, True))
    _ack(draft, event, command.id)


def output(draft: Draft, event: OutputReceived) -> None:
    """Keep output, each record once, up to the limit, and acknowledge the records by the next offset."""
    command = _spoken_of(draft, event, event.command_id)
    if command is None:
        _ack_stray_output(draft, event)
        return
    if not command.open and event.records[0].offset is None:
        return  # a repeated message: without offsets it cannot be told from new output
    if command.state is State.SENT:
        command = draft.move(command, State.RUNNING, "agent")
    fresh: list[OutputRecord] = []
    next_offset, size = command.output_next, command.output_bytes
    truncated = command.output_truncated
    for record in event.records:
        offset = next_offset if record.offset is None else record.offset
        # plant: output-duplicate
        if offset < next_offset:
            continue  # a duplicate
        if offset > next_offset:
            break  # a record before it is missing: the agent goes on from the acknowledged offset
        next_offset += 1
        if truncated:
            continue  # counted and acknowledged, but not kept
        size += len(record.data.encode())
        truncated = size > draft.rules.output_bytes_max
        kept = (
            OutputRecord(offset, Stream.STDERR, TRUNCATED)
            if truncated
            else OutputRecord(offset, record.stream, record.data)
        )
        fresh.append(kept)
    if next_offset > command.output_next:
        draft.put_command(
            msgspec.structs.replace(command, output_next=next_offset, output_bytes=size, output_truncated=truncated)
        )
        if fresh:
            draft.effects.writes.append(AddOutput(command.id, tuple(fresh)))
        draft.effects.grew.append(OutputGrew(draft.memory.epoch, command.id, next_offset))
    host = draft.host(event.host)
    if host is not None and not host.foreign:
        draft.deliver(event.gateway, DeliverAck(draft.memory.epoch, event.connection, command.id, next_offset))


def output_put_aside(draft: Draft, event: OutputReceived, dead_letter_id: str) -> None:
    """Acknowledge output that could not be stepped (else the agent holds back its report); leave a line instead."""
    command = _own(draft, event, event.command_id)
    offsets = [record.offset for record in event.records if record.offset is not None]
    if command is not None and offsets and max(offsets) >= command.output_next:
        line = f"… output put aside here, and no more is kept: dead letter {dead_letter_id}"
        told = OutputRecord(command.output_next, Stream.STDERR, line)
        draft.put_command(msgspec.structs.replace(command, output_next=max(offsets) + 1, output_truncated=True))
        draft.effects.writes.append(AddOutput(command.id, (told,)))
        draft.effects.grew.append(OutputGrew(draft.memory.epoch, command.id, max(offsets) + 1))
    _ack_stray_output(draft, event)


def _ack_stray_output(draft: Draft, event: OutputReceived) -> None:
    """Acknowledge output of an unknown command without keeping it: else its agent holds back the report."""
    offsets = [record.offset for record in event.records if record.offset is not None]
    if event.command_id is not None and offsets:
        draft.deliver(
            event.gateway, DeliverAck(draft.memory.epoch, event.connection, event.command_id, max(offsets) + 1)
        )


def quarantined(draft: Draft, event: AgentEvent, command_id: str | None) -> None:
    """Acknowledge as quarantined a report that could not be stepped, so that its agent forgets it, and
    end its command as lost.
    """
    command = _own(draft, event, command_id)
    if command is not None and command.state in (State.SENT, State.RUNNING):
        draft.move(command, State.LOST, "hub", "quarantined", message="its report was put aside: see the dead letters")
    _ack(draft, event, command.id if command else command_id, quarantined=True)


def _spoken_of(draft: Draft, event: AgentEvent, command_id: str | None, *, op: str = "") -> Command | None:
    """Return the command that an agent's message is about, as `_own` does; a queued one is moved to `sent`.

    The message proves that the command was sent. A hub that has it queued has an older database, and must not send it
    as if for the first time.
    """
    command = _own(draft, event, command_id, op)
    # plant: reported-while-queued
    if command is None or command.state is not State.QUEUED:
        return command
    host = draft.host(event.host)
    journal = host.register.journal_id if host is not None and host.register is not None else ""
    return draft.move(
        command, State.SENT, "agent", "known_to_agent", connection=event.connection, journal=journal, attempt=1
    )


def _own(draft: Draft, event: AgentEvent, command_id: str | None, op: str = "") -> Command | None:
    """Return the command that an agent's message is about; None unless it belongs to this very host and enrolment.

    A message without an id is a foreign agent's, about no command written on this connection. It is about a command of
    an earlier connection that was not judged yet, or that was found running on this one.
    """
    host = draft.host(event.host)
    if host is None:
        return None
    if command_id is not None:
        command = draft.command(command_id)
        # plant: own-command
        mine = command is not None and command.host == host.name and command.enrolment == host.enrolment
        return command if mine else None
    if not host.foreign:
        return None
    current = draft.link(host.name).connection == event.connection
    for earlier in draft.queue(host.name):
        if earlier.state is State.QUEUED or not earlier.connection or (op and earlier.op != op):
            continue
        # plant: word-without-id
        if earlier.adopted if earlier.connection == event.connection else current:
            return earlier
    return None


def _ack(draft: Draft, event: AgentEvent, command_id: str | None, *, quarantined: bool = False) -> None:
    host = draft.host(event.host)
    if command_id is not None and host is not None and not host.foreign:
        draft.deliver(event.gateway, DeliverAck(draft.memory.epoch, event.connection, command_id, None, quarantined))


def _stray(draft: Draft, event: StatusReceived, error: str) -> None:
    if event.host == CANARY_HOST:
        # its commands are forgotten as they end, and it repeats a report whose acknowledgement died with a hub
        return
    # a repeated report makes the same dead letter
    dead_letter_id = derived_id("stray", event.host, event.command_id or "")
    draft.put_dead_letter(dead_letter.of_event(dead_letter_id, draft.now.wall_s, event, Why.STRAY, error=error))
