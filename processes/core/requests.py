"""Operators' requests: what is accepted, what is refused and with which words. Pure.

Each function gets a draft and the request, and answers exactly once: 2xx durably, with the rows in the same transaction, or a
refusal that has changed nothing.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from processes.core.command import Command, State
from processes.core.draft import Draft, derived_id
from processes.core.effects import PutToken
from processes.core.errors import RemoteError
from processes.core.host import HostRecord
from processes.core.messages import (
    CancelCommand,
    CreateToken,
    DeliverKill,
    Drill,
    EnrollHost,
    GiveCommand,
    Json,
    RemoveHost,
    RequestReceived,
    RevokeHost,
    Token,
    TokenChanged,
)  # fmt: skip
from processes.core.values import CANARY_HOST, CANARY_OP, HOST_NAME, OP_NAME, Presence, Role
from processes.core.views import command_view, encode, host_view

TTL_S_MAX: Final = 7 * 86400.0  # contract: at most 7 days
HOSTS_MAX: Final = 10_000  # in one request; the largest fleet that one hub is measured with


class Refused(RemoteError):
    """A request that is not accepted: an HTTP status, a fixed word and a text for a person."""

    def __init__(self, status: int, code: str, message: str, **more: object) -> None:
        super().__init__(code, message)
        self.status, self.more = status, more

    def body(self) -> Json:
        """The answer's JSON."""
        return encode({"error": self.code, "message": self.message, **self.more})


def step(draft: Draft, event: RequestReceived) -> None:
    """The request is answered, whatever it is."""
    answered = draft.memory.replies.get(event.request_id)
    if answered is not None:  # asked again after a gap: the same answer
        draft.reply(event.fanout, event.request_id, answered.status, answered.body, durable=False)
        return
    if draft.now.boot_s > event.deadline_boot_s:
        refuse(draft, event, Refused(503, "hub_unavailable", "the request waited past its deadline and was not carried out: ask again"))
        return
    try:
        status, body = _answer(draft, event)
    except Refused as refused:
        assert not draft.effects.durable
        refuse(draft, event, refused)
        return
    draft.reply(event.fanout, event.request_id, status, body, durable=draft.effects.durable)


def refuse(draft: Draft, event: RequestReceived, refused: Refused) -> None:
    """The request is answered with a refusal, which is not kept: nothing was done."""
    draft.reply(event.fanout, event.request_id, refused.status, refused.body(), durable=False)


def _answer(draft: Draft, event: RequestReceived) -> tuple[int, Json]:
    match event.request:
        case GiveCommand():
            return _give(draft, event, event.request)
        case CancelCommand():
            return _cancel(draft, event, event.request)
        case EnrollHost():
            return _enroll(draft, event, event.request)
        case RevokeHost():
            return _revoke(draft, event.request)
        case RemoveHost():
            return _remove(draft, event, event.request)
        case CreateToken():
            return _create_token(draft, event.request)
        case Drill():
            raise Refused(409, "drills_disabled", "drills are not enabled on this installation: set drills.enabled = true")


# giving commands


def _give(draft: Draft, event: RequestReceived, request: GiveCommand) -> tuple[int, Json]:
    hosts = _wanted_hosts(draft, request)
    digest = _digest(request)
    if request.key is not None:
        entry = draft.key(request.key)
        if entry is not None:
            return _again(draft, request.key, entry.digest == digest, entry.command_ids)
    _check_room(draft, hosts)
    ttl_s = draft.rules.ttl_s if request.ttl_s is None else request.ttl_s
    given: list[str] = []
    for host in hosts:
        command = Command(
            id=derived_id(event.request_id, host.name),
            number=draft.next_number,
            host=host.name,
            enrolment=host.enrolment,
            op=request.op,
            actor=event.actor,
            created_wall_s=draft.now.wall_s,
            ttl_s=ttl_s,
            expires_wall_s=draft.now.wall_s + ttl_s,
            expires_boot_s=draft.now.boot_s + ttl_s,
            boot=draft.memory.boot,
            key=request.key,
        )
        draft.accept(command)
        given.append(command.id)
        if ttl_s == 0 and draft.link(host.name).presence is not Presence.ONLINE:
            draft.move(command, State.EXPIRED, "hub", "host_offline")
    if request.key is not None:
        draft.put_key(request.key, digest, tuple(given))
    return 202, _commands_body(draft, given)


def _wanted_hosts(draft: Draft, request: GiveCommand) -> list[HostRecord]:
    if not OP_NAME.fullmatch(request.op):
        raise Refused(400, "malformed", f"op {request.op!r} is not a name: letters, digits, dot, dash, underscore, at most 64")
    if not request.hosts:
        raise Refused(400, "malformed", "hosts is empty: name at least one")
    if len(request.hosts) > HOSTS_MAX:
        raise Refused(413, "too_large", f"{len(request.hosts)} hosts in one request; at most {HOSTS_MAX}")
    if len(set(request.hosts)) < len(request.hosts):
        twice = next(name for name in request.hosts if request.hosts.count(name) > 1)
        raise Refused(400, "malformed", f"host {twice!r} is named twice", host=twice)
    if request.key is not None and not 1 <= len(request.key) <= draft.rules.key_chars_max:
        raise Refused(400, "malformed", f"key must have 1 to {draft.rules.key_chars_max} characters")
    if request.ttl_s is not None and not 0 <= request.ttl_s <= TTL_S_MAX:
        raise Refused(400, "malformed", f"ttl_s must be 0 to {TTL_S_MAX:.0f} (7 days)")
    hosts: list[HostRecord] = []
    for name in request.hosts:
        host = draft.host(name)
        if host is None or (name == CANARY_HOST) != (request.op == CANARY_OP and name == CANARY_HOST):
            raise Refused(404, "unknown_host", f"there is no host {name!r}: see `fleethub hosts`", host=name)
        if not host.offers(request.op):
            offered = ", ".join(host.offered() or []) or "nothing"
            raise Refused(422, "unknown_op", f"host {name} does not offer {request.op!r}; it offers: {offered}", host=name)
        hosts.append(host)
    return hosts


def _check_room(draft: Draft, hosts: list[HostRecord]) -> None:
    ledger = draft.ledger
    if ledger.queued + ledger.sent + ledger.running + len(hosts) > draft.rules.open_max:
        raise Refused(429, "too_many", f"{draft.rules.open_max} commands are open in all: wait until some have ended, or cancel some")
    for host in hosts:
        if len(draft.queue_ids(host.name)) >= draft.rules.queued_per_host_max:
            raise Refused(
                429,
                "too_many",
                f"host {host.name} has {draft.rules.queued_per_host_max} open commands: wait until some have ended, or cancel some",
                host=host.name,
            )


def _digest(request: GiveCommand) -> str:
    named = msgspec.structs.replace(request, key=None)
    return hashlib.sha256(msgspec.json.encode(named)).hexdigest()


def _again(draft: Draft, key: str, same: bool, command_ids: tuple[str, ...]) -> tuple[int, Json]:
    if not same:
        raise Refused(409, "key_used", f"key {key!r} was used for a different request: take a new one")
    return 200, _commands_body(draft, list(command_ids))


def _commands_body(draft: Draft, command_ids: list[str]) -> Json:
    views: list[object] = []
    for command_id in command_ids:
        command = draft.command(command_id)
        # one that ended long ago is on disk only: its id is what a script needs to ask for the rest
        views.append(command_view(command) if command else {"id": command_id})
    return encode({"commands": views})


# cancelling


def _cancel(draft: Draft, event: RequestReceived, request: CancelCommand) -> tuple[int, Json]:
    command = draft.command(request.command_id)
    if command is None or command.host == CANARY_HOST:
        raise Refused(404, "unknown_command", f"no command {request.command_id!r} that is open or ended lately")
    if not command.open:
        raise Refused(409, "final", f"command {command.id} has ended already: {command.state}", command=command_view(command))
    command = msgspec.structs.replace(command, cancel_wall_s=command.cancel_wall_s or draft.now.wall_s, cancel_actor=event.actor)
    draft.put_command(command)
    if command.state is State.QUEUED:
        command = draft.move(command, State.CANCELLED, event.actor, "cancelled")
    else:
        kill(draft, command)
    return 202, encode(command_view(command))


def kill(draft: Draft, command: Command) -> None:
    """The agent is asked to end the command, if it is connected; otherwise it is asked when it comes back."""
    link = draft.link(command.host)
    if link.connection:
        draft.deliver(link.gateway, DeliverKill(draft.memory.epoch, link.connection, command.id))


# the fleet


def _known_host(draft: Draft, name: str) -> HostRecord:
    host = draft.host(name)
    if host is None or name == CANARY_HOST:
        raise Refused(404, "unknown_host", f"there is no host {name!r}: see `fleethub hosts`", host=name)
    return host


def _enroll(draft: Draft, event: RequestReceived, request: EnrollHost) -> tuple[int, Json]:
    if not HOST_NAME.fullmatch(request.name):
        raise Refused(400, "malformed", f"{request.name!r} is not a host name (RFC 1123): letters, digits, dashes, dots", host=request.name)
    host = draft.host(request.name)
    if host is not None and not request.again:
        raise Refused(409, "exists", f"host {request.name} is enrolled already: --again gives it a new token and voids the old one")
    if host is None:
        host = HostRecord(request.name, derived_id(event.request_id, request.name), request.token_hash, draft.now.wall_s)
    else:
        host = msgspec.structs.replace(host, token_hash=request.token_hash)
    draft.put_host(host, durable=True)
    draft.deliver_all(TokenChanged(draft.memory.epoch, host.name, Token(request.token_hash, host.name, host.enrolment)))
    return 201, encode({"name": host.name, "host_id": host.enrolment})


def _revoke(draft: Draft, request: RevokeHost) -> tuple[int, Json]:
    host = msgspec.structs.replace(_known_host(draft, request.name), token_hash=None)
    draft.put_host(host, durable=True)
    draft.deliver_all(TokenChanged(draft.memory.epoch, host.name, None))
    return 200, encode(host_view(host, draft.link(host.name)))


def _remove(draft: Draft, event: RequestReceived, request: RemoveHost) -> tuple[int, Json]:
    host = _known_host(draft, request.name)
    ended = 0
    for command in draft.queue(host.name):
        after = State.CANCELLED if command.state is State.QUEUED else State.LOST
        draft.move(command, after, event.actor, "host_removed")
        ended += 1
    draft.drop_host(host.name)
    draft.deliver_all(TokenChanged(draft.memory.epoch, host.name, None))
    return 200, encode({"name": host.name, "commands_ended": ended})


def _create_token(draft: Draft, request: CreateToken) -> tuple[int, Json]:
    if request.role not in list(Role):
        raise Refused(400, "malformed", f"role {request.role!r} is none of {', '.join(Role)}")
    draft.effects.writes.append(PutToken(request.token_hash, request.role, request.label, draft.now.wall_s))
    return 201, encode({"role": request.role, "label": request.label})
