"""The fleet: one event in, effects out. The heart of the hub. Pure.

    step(memory, event, now)  →  a Draft, not yet applied: draft.effects.durable says whether it must wait for the disk
    draft.apply()             →  its effects; the memory is changed

Events from outside are those of core/travels/messages.py. Four come from the hub's own loop: Tick (volatile timers:
presence), and, only while no commit is under way, RunDue (a run that goes on), Due (a host whose commands should be
looked at) and Elapsed (a timer of a command or a token).
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, assert_never

import msgspec

from processes.core.hub import (
    beats,
    delivery,
    enrolment_codes,
    flood,
    host_tokens,
    kept_conditions,
    noted,
    operator_tokens,
    pace,
    presence,
    requests,
    runs,
)
from processes.core.hub.effects import AddAudit
from processes.core.hub.memory import OFFLINE, Draft, Memory, derived_id, load
from processes.core.hub.refused import Refused
from processes.core.hub.rules import Rules
from processes.core.records.command import Command, State
from processes.core.records.condition import condition_view, silence_view
from processes.core.records.dead_letter import ERROR_CHARS_MAX, DeadLetter, Why
from processes.core.records.host import HostRecord, Link
from processes.core.records.ledger import Ledger
from processes.core.shown import replica
from processes.core.shown.views import command_view, encode, host_view
from processes.core.travels.messages import (
    AckReceived,
    AgentDisconnected,
    AgentEvent,
    AgentRegistered,
    AuditNoted,
    CensusTaken,
    Change,
    CodeOffered,
    ConditionsJudged,
    Event,
    HeartbeatReceived,
    HeartbeatsReceived,
    HostFlooded,
    HostImpersonated,
    OutputReceived,
    ProgressReceived,
    PutAside,
    RejectReceived,
    RequestReceived,
    SnapshotWanted,
    StatusReceived,
    TokenOffered,
    TokenUsed,
    Undelivered,
)
from processes.core.values import CANARY_HOST, Now, Presence

DUE_MAX: Final = 500  # hosts, and timers, looked at in one turn, so that it stays short; the others wait for the next


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed. `busy_s`: for how long events have waited without a pause."""

    busy_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Due:
    """A host registered, or one of its commands moved: commands that it can get now should be sent."""

    host: str


@dataclass(frozen=True, slots=True)
class Elapsed:
    """A durable timer, the first of the heap, is due. kind, id: expire, redeliver and silence of a command; token."""

    kind: str
    id: str


@dataclass(frozen=True, slots=True)
class RunDue:
    """A run began, or one of its commands has ended: it goes on."""

    run_id: str


OwnEvent = Tick | Due | Elapsed | RunDue


@dataclass(frozen=True, slots=True)
class StoredState:
    """The rows of the memory's durable tables in the database when the hub started, by their keys, oldest first.

    Of commands and runs it has all open ones, and those that ended lately; of runs' hosts only those of open ones.
    """

    rows: Mapping[str, Iterable[tuple[str, Any]]]  # a table's name → its rows
    ledger: Ledger
    next_number: int


def restore(rules: Rules, epoch: int, boot: str, now: Now, kept: StoredState) -> Memory:
    """Return the memory of a hub that starts: hosts are stale until a census names them, timers run on.

    Deadlines of another boot of the machine are taken from wall time, with the time left clamped to 0 … ttl.
    """
    memory = Memory(rules, epoch, boot, now.boot_s)
    memory.ledger, memory.next_number = kept.ledger, kept.next_number
    load(memory, kept.rows)
    memory.hosts.put_row(CANARY_HOST, HostRecord(CANARY_HOST, CANARY_HOST, None, now.wall_s))
    offline, stale = Link(Presence.OFFLINE), Link(Presence.STALE)
    for name in memory.hosts:
        memory.links.put_row(name, offline if name == CANARY_HOST else stale)
    for command in sorted(memory.commands.values(), key=lambda each: each.number):
        if command.open:
            _take_up(memory, _rebooted(command, boot, now, rules.lost_after_s), now)
    operator_tokens.restored(memory, now)
    heapq.heapify(memory.timers)
    under_way: dict[str, list[str]] = {}
    for key in memory.run_parts:
        run_id, _, host = key.partition("/")
        under_way.setdefault(run_id, []).append(host)
    for run in memory.runs.values():
        # plant: restored-runs
        if run.open:
            memory.due_runs.put_row(run.id, tuple(under_way.get(run.id, ())))
    for kept_before in memory.dead_letters.values():
        if kept_before.host and kept_before.why in (Why.POISON, Why.RAISED):
            flood.restored(memory, kept_before)
    return memory


def _take_up(memory: Memory, command: Command, now: Now) -> None:
    """Put an open command back into its host's queue, with its timer."""
    memory.commands.put_row(command.id, command)
    memory.queues.put_row(command.host, (*memory.queues.get(command.host, ()), command.id))
    if command.state is State.QUEUED:
        memory.timers.append((command.expires_boot_s, "expire", command.id))
    else:
        memory.timers.append((now.boot_s, "silence", command.id))


def _rebooted(command: Command, boot: str, now: Now, lost_after_s: float) -> Command:
    # plant: rebooted
    if command.boot == boot:
        return command
    rest_s = min(max(0.0, command.expires_wall_s - now.wall_s), command.ttl_s)
    unheard_s = (
        min(max(0.0, now.wall_s - command.unheard_wall_s), lost_after_s) if command.unheard_wall_s is not None else 0.0
    )
    expires_boot_s, unheard_boot_s = now.boot_s + rest_s, now.boot_s - unheard_s
    return msgspec.structs.replace(
        command, boot=boot, expires_boot_s=expires_boot_s, sent_boot_s=0.0, unheard_boot_s=unheard_boot_s
    )


def step(memory: Memory, event: Event | OwnEvent, now: Now) -> Draft:
    """Return the draft of this event's step. Raises: anything, and then nothing has changed."""
    draft = Draft(memory, now)
    if flood.suspended(memory, event):
        assert isinstance(event, AgentEvent)
        flood.unheard(draft, event)
        return draft
    match event:
        case HeartbeatReceived():
            presence.heartbeat(draft, event)
        case HeartbeatsReceived():  # one by one; the hub's loop takes what is common in them at once (beats.py)
            _heartbeats(draft, event)
        case Tick():
            presence.tick(draft)
            pace.govern(draft, event.busy_s)
        case Due():
            _due(draft, event.host)
        case Elapsed():
            _elapsed(draft, event)
        case RunDue():
            runs.advance(draft, event.run_id)
        case AgentRegistered():
            presence.registered(draft, event)
        case AgentDisconnected():
            presence.disconnected(draft, event)
        case CensusTaken():
            presence.census(draft, event)
        case AckReceived():
            delivery.acknowledged(draft, event)
        case RejectReceived():
            delivery.rejected(draft, event)
        case OutputReceived():
            delivery.output(draft, event)
        case StatusReceived():
            delivery.reported(draft, event)
        case ProgressReceived():
            delivery.progressed(draft, event)
        case Undelivered():
            delivery.undelivered(draft, event)
        case HostFlooded():
            flood.closed(draft, event)
        case HostImpersonated():
            _impersonated(draft, event)
        case RequestReceived():
            requests.step(draft, event)
        case TokenOffered():
            host_tokens.offered(draft, event)
        case CodeOffered():
            enrolment_codes.offered(draft, event)
        case TokenUsed():
            operator_tokens.used(draft, event)
        case SnapshotWanted():
            draft.effects.snapshots.append(event)
        case PutAside():
            _left_out(draft, event)
        case ConditionsJudged():
            kept_conditions.judged(draft, event)
        case AuditNoted():
            draft.effects.writes += [AddAudit(line) for line in event.lines]
        case _:
            assert_never(event)
    return draft


def _heartbeats(draft: Draft, event: HeartbeatsReceived) -> None:
    for beat in event.beats:
        presence.heartbeat(draft, beats.single(event.gateway, beat))


def put_aside(memory: Memory, event: Event | OwnEvent, kept: DeadLetter, now: Now, *, again: bool = False) -> Draft:
    """Return the draft that stands in for a step that raised, or that may not be tried: it keeps the dead letter and
    answers the client or agent that waits.

    `again`: the event is a copy of one that is this dead letter already.
    """
    draft = Draft(memory, now)
    if flood.suspended(memory, event):
        assert isinstance(event, AgentEvent)
        flood.unheard(draft, event)
        return draft
    if not again:
        draft.put_dead_letter(kept)
    match event:
        case RequestReceived():
            told = f"the hub could not do it: see dead letter {kept.id}"
            requests.refuse(draft, event, Refused(500, "internal", told))
        case StatusReceived() | RejectReceived():
            delivery.quarantined(draft, event, event.command_id)
        case OutputReceived():
            delivery.output_put_aside(draft, event, kept.id)
        case CensusTaken():
            presence.census(draft, msgspec.structs.replace(event, connections=[]))
        case Tick():
            draft.take_presence_timers(presence.TIMERS_MAX)  # else the same timer would raise at every tick
        case Due():
            draft.drop(memory.due, event.host)
            draft.drop(memory.arrived, event.host)
        case Elapsed():
            draft.take_timer()
        case RunDue():
            draft.drop(memory.due_runs, event.run_id)
        case _:
            pass
    if kept.host and not kept.retries:
        flood.put_aside(draft, kept)
    return draft


def keep(memory: Memory, kept: DeadLetter, now: Now) -> Draft:
    """Return the draft that only keeps the dead letter and counts it against its host: for an undecodable item, for
    words of an agent that could not be written or shown, or when `put_aside` raised.
    """
    draft = Draft(memory, now)
    draft.put_dead_letter(kept)
    if kept.host and not kept.retries:
        flood.put_aside(draft, kept)
    return draft


def refuse_for_storage(memory: Memory, event: RequestReceived, now: Now) -> Draft:
    """Return the draft that refuses a request which needs a row, while the database cannot be written."""
    draft = Draft(memory, now)
    told = "the hub's database cannot be written now; nothing was done, ask again later"
    requests.refuse(draft, event, Refused(503, "storage_blocked", told))
    return draft


def said_once(memory: Memory, event: Event) -> bool:
    """Return whether nobody will send this event again (a foreign agent's message, a line of the audit trail), so that
    the hub may not drop it.
    """
    if isinstance(event, AuditNoted | HostImpersonated):
        return True
    if not isinstance(event, StatusReceived | RejectReceived | OutputReceived | ProgressReceived):
        return False
    host = memory.hosts.get(event.host)
    return host is not None and host.foreign


def all_changes(memory: Memory, failed: Callable[[str, Exception], None]) -> list[Change]:
    """Return every row that operators see, whole: a replica begins with them.

    A host that cannot be shown for what its agent once said is shown without that; `failed` is told of it.
    """
    changes = []
    for name, host in memory.hosts.items():
        link = memory.links.get(name, OFFLINE)
        try:
            change = Change("host", name, encode(host_view(host, link)))
            replica.check(change)
        except Exception as error:
            failed(name, error)
            change = Change("host", name, encode(host_view(host.without_words(), link)))
        changes.append(change)
    changes += [Change("command", command.id, encode(command_view(command))) for command in memory.commands.values()]
    changes += [Change("condition", each.id, encode(condition_view(each))) for each in memory.conditions.values()]
    changes += [Change("silence", each.id, encode(silence_view(each))) for each in memory.silences.values()]
    return [*changes, Change("ledger", "ledger", encode(memory.ledger))]


def due(memory: Memory) -> list[Due | RunDue]:
    """Return the runs and then the hosts to look at now, at most DUE_MAX of each."""
    due_runs = [RunDue(run_id) for run_id in itertools.islice(memory.due_runs, DUE_MAX)]
    return [*due_runs, *(Due(name) for name in itertools.islice(memory.due, DUE_MAX))]


def elapsed(memory: Memory, now: Now) -> Elapsed | None:
    """Return the durable timer to look at now, if one is due."""
    if memory.timers and memory.timers[0][0] <= now.boot_s:
        return Elapsed(*memory.timers[0][1:])
    return None


def _left_out(draft: Draft, event: PutAside) -> None:
    """Keep a fanout's dead letter. A fanout that leaves the same row out again makes the same dead letter again."""
    dead_letter_id = derived_id(event.fanout, event.name)
    error, why = f"{event.fanout} leaves {event.kind} {event.id!r} out of what it shows: it ended each time", Why.POISON
    if event.error:
        error, why = event.error[-ERROR_CHARS_MAX:], Why.RAISED
    draft.put_dead_letter(
        DeadLetter(
            dead_letter_id, draft.now.wall_s, event.kind, why, event.fanout, event.name,
            host=event.id if event.error else "", error=error, deaths=event.deaths,
            event=msgspec.json.encode({"kind": event.kind, "id": event.id}),
        )
    )  # fmt: skip


def _impersonated(draft: Draft, event: HostImpersonated) -> None:
    """Note in the audit trail that an agent with this host's token claimed to be another host."""
    often = f", {event.count} times" if event.count > 1 else ""
    actor, reason = f"{event.host} at {event.address}", f"registered as {event.claimed[:80]}{often}"
    noted.of_host(draft, event.host, "impersonated", actor, reason)


def _due(draft: Draft, host: str) -> None:
    memory = draft.memory
    if host in memory.arrived:
        delivery.reconcile(draft, host)
    if not draft.link(host).connection:
        delivery.unheard(draft, host)
    delivery.send_due(draft, host)
    draft.drop(memory.due, host)  # its commands that moved just now have marked it again, and have been looked at
    draft.drop(memory.arrived, host)


def _elapsed(draft: Draft, event: Elapsed) -> None:
    draft.take_timer()
    match event.kind:
        case "expire":
            delivery.expire(draft, event.id)
        case "redeliver":
            delivery.redeliver(draft, event.id)
        case "silence":
            delivery.silence(draft, event.id)
        case operator_tokens.TIMER:
            operator_tokens.elapsed(draft, event.id)
        case _:
            raise AssertionError(event.kind)
