"""How hosts, commands and output look from outside: in the API, the CLI's --json and the page. Pure.

Fields may be added; a field that is there keeps its name and its meaning.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from processes.core.records.command import Command, State, Transition
from processes.core.records.host import HostRecord, Link, Progress
from processes.core.records.ledger import Ledger
from processes.core.travels.agent_frames import CommandOptions, Metrics
from processes.core.travels.messages import Json
from processes.core.values import OutputRecord, Presence, Stream, Time, rfc3339

Facts = Annotated[msgspec.Raw, Meta(extra_json_schema={"type": "object"})]  # as the agent sent it


class CommandView(msgspec.Struct, frozen=True):
    """A command in the API, the CLI and on the page."""

    id: str
    host: str
    op: str
    state: State
    reason: str
    message: str
    exit_code: int | None
    created_at: Time | None
    sent_at: Time | None
    started_at: Time | None
    finished_at: Time | None
    expires_at: Time | None
    cancel_requested_at: Time | None
    lost_at: Time | None
    unheard_since: Time | None
    ttl_s: float
    attempt: int
    actor: str
    key: str | None
    run: str | None
    output_next: int
    output_truncated: bool
    cancel_requested_by: str = ""


class TransitionView(msgspec.Struct, frozen=True):
    """One line of a command's history."""

    at: Time | None
    before: State | None
    after: State
    reason: str
    actor: str


class HostView(msgspec.Struct, frozen=True):
    """A host in the API, the CLI and on the page. `facts`: the fields of its `register` that fleethub does not know."""

    name: str
    presence: Presence
    last_seen: Time | None
    host_id: str
    enrolled_at: Time | None
    revoked: bool
    connected_since: Time | None
    address: str
    host_type: str
    agent_version: str
    os_version: str
    protocol: int
    heartbeat_interval_s: float | None
    commands: list[str] | None
    command_options: dict[str, CommandOptions]
    metrics: Metrics | None
    pending_command: str | None
    facts: Facts
    heartbeat_facts: Facts
    kernel: str = ""
    machine: str = ""
    ledger: Ledger = Ledger()
    suspended: str = ""  # why its token is not accepted until an operator lifts the suspension; empty: not suspended
    suspended_at: Time | None = None
    progress: dict[str, Progress] = {}  # op → how far it is, as its agent says
    rotation_asked_at: Time | None = None  # since when its agent is asked to make a new token
    code_until: Time | None = None  # until when a one-time code for it is good that nobody has used yet
    labels: dict[str, str] = {}  # the hub's, which operators set
    agent_labels: dict[str, str] = {}  # what its agent claims
    gateway: str = ""  # of its connection; empty: it has none
    put_aside: str = ""  # why a fanout does not show the last change of this host: it ended the fanout each time


class OutputView(msgspec.Struct, frozen=True):
    """One record of output in the API.

    If `data` ends with a carriage return, the next record of the same stream is drawn over it.
    """

    offset: int
    stream: Stream
    data: str


class OutputPage(msgspec.Struct, frozen=True):
    """GET /api/v1/commands/ID/output. `complete`: there will be no record from `next_offset` on."""

    command_id: str
    records: list[OutputView]
    next_offset: int
    complete: bool
    truncated: bool


_encoder = msgspec.json.Encoder()


def encode(view: msgspec.Struct | dict[str, object] | list[object]) -> Json:
    """Return the view as JSON."""
    return Json(_encoder.encode(view))


def command_view(command: Command) -> CommandView:
    """Return the command as the API shows it."""
    return CommandView(
        id=command.id,
        host=command.host,
        op=command.op,
        state=command.state,
        reason=command.reason,
        message=command.message,
        exit_code=command.exit_code,
        created_at=rfc3339(command.created_wall_s),
        sent_at=rfc3339(command.sent_wall_s),
        started_at=rfc3339(command.started_wall_s),
        finished_at=rfc3339(command.finished_wall_s),
        expires_at=rfc3339(command.expires_wall_s),
        cancel_requested_at=rfc3339(command.cancel_wall_s),
        lost_at=rfc3339(command.lost_wall_s),
        unheard_since=rfc3339(command.unheard_wall_s),
        ttl_s=command.ttl_s,
        attempt=command.attempt,
        actor=command.actor,
        key=command.key,
        run=command.run,
        output_next=command.output_next,
        output_truncated=command.output_truncated,
        cancel_requested_by=command.cancel_actor,
    )


def transition_view(transition: Transition) -> TransitionView:
    """Return the transition as the API shows it."""
    return TransitionView(
        rfc3339(transition.at_wall_s), transition.before, transition.after, transition.reason, transition.actor
    )


def host_view(host: HostRecord, link: Link) -> HostView:
    """Return the host as the API shows it."""
    register, heartbeat = host.register, host.heartbeat
    return HostView(
        name=host.name,
        presence=link.presence,
        last_seen=rfc3339(host.seen_wall_s),
        host_id=host.enrolment,
        enrolled_at=rfc3339(host.enrolled_wall_s),
        revoked=host.token_hash is None and (host.code is None or bool(host.code.used_hash)),
        connected_since=rfc3339(link.since_wall_s),
        address=host.address,
        host_type=register.host_type if register else "",
        agent_version=register.agent_version if register else "",
        os_version=register.os_version if register else "",
        kernel=register.kernel if register else "",
        machine=register.machine if register else "",
        protocol=register.protocol if register else 0,
        heartbeat_interval_s=max(register.heartbeat_interval, link.told_s) if register else None,
        commands=host.offered(),
        command_options=(register.command_options or {}) if register else {},
        metrics=heartbeat.metrics if heartbeat else None,
        pending_command=heartbeat.pending_command if heartbeat else None,
        facts=msgspec.Raw(host.facts),
        heartbeat_facts=msgspec.Raw(host.heartbeat_facts),
        ledger=host.ledger,
        progress=link.progress,
        labels=host.labels,
        agent_labels=(register.labels or {}) if register else {},
        gateway=link.gateway,
        suspended=host.suspended,
        suspended_at=rfc3339(host.suspended_wall_s),
        rotation_asked_at=rfc3339(host.rotation_wall_s),
        code_until=rfc3339(host.code.expires_wall_s) if host.code is not None and not host.code.used_hash else None,
    )


def output_page(command: Command, records: list[OutputRecord], first: int = 0) -> OutputPage:
    """Return a page of output from offset `first`. `records` are consecutive."""
    views = [OutputView(record.offset or 0, record.stream, record.data) for record in records]
    # at least `first`: a reader that follows the output never goes back
    next_offset = views[-1].offset + 1 if views else max(first, command.output_next)
    complete = not command.open and next_offset >= command.output_next
    return OutputPage(command.id, views, next_offset, complete, command.output_truncated)
