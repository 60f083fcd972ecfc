"""Operators' requests: accepted, or refused with a code and a text. Pure.

Each function gets a draft and the request, and answers exactly once: with 2xx, durably, in the same transaction as its
rows; or with a refusal that has changed nothing.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from processes.core.errors import LocalError
from processes.core.hub import (
    enrolment_codes,
    flood,
    host_tokens,
    kept_conditions,
    labels,
    noted,
    operator_tokens,
    runs,
    saved_queries,
)  # fmt: skip
from processes.core.hub.commands import cancel_command, make_command
from processes.core.hub.memory import Draft, derived_id
from processes.core.hub.refused import Refused
from processes.core.records import dead_letter
from processes.core.records.command import State
from processes.core.records.dead_letter import DeadLetter
from processes.core.records.host import HostRecord
from processes.core.records.request import KeyEntry
from processes.core.records.run import Run, run_view
from processes.core.shown.views import command_view, encode, host_view
from processes.core.travels.audit import Kind
from processes.core.travels.messages import (
    AcknowledgeCondition,
    CancelCommand,
    CancelRun,
    CreateToken,
    DiscardDeadLetter,
    EndSilence,
    EnrollHost,
    GiveCommand,
    Json,
    LabelHosts,
    LiftHost,
    MakeCode,
    MakeSilence,
    RehearseFault,
    RemoveHost,
    RemoveQuery,
    RequestReceived,
    RetryDeadLetter,
    RevokeHost,
    RevokeToken,
    RotateHost,
    RotateToken,
    SaveQuery,
    StartRun,
    Token,
    TokenChanged,
)  # fmt: skip
from processes.core.travels.operator_requests import PARALLEL, REQUEST_HOSTS_MAX, STEPS_MAX, TTL_S_MAX
from processes.core.values import CANARY_HOST, CANARY_OP, OP_NAME, Presence

OPS_TOLD_MAX: Final = 20  # in one message
RUNS_MAX: Final = 100  # under way at once; guess


def step(draft: Draft, event: RequestReceived) -> None:
    """Answer the request, of whatever kind."""
    answered = draft.memory.replies.get(event.request_id)
    if answered is not None:  # asked again after a gap: give the same answer
        draft.reply(event.fanout, event.request_id, answered.status, answered.body, durable=False)
        return
    if draft.now.boot_s > event.deadline_boot_s:
        refuse(
            draft,
            event,
            Refused(503, "hub_unavailable", "the request waited past its deadline and was not carried out: ask again"),
        )
        return
    try:
        status, body = _answer(draft, event)
    except Refused as refused:
        assert not draft.effects.durable
        refuse(draft, event, refused)
        return
    draft.reply(event.fanout, event.request_id, status, body, durable=draft.effects.durable)


def refuse(draft: Draft, event: RequestReceived, refused: Refused) -> None:
    """Answer the request with a refusal. Nothing was done, so the refusal is not kept."""
    draft.reply(event.fanout, event.request_id, refused.status, refused.body(), durable=False)


def _answer(draft: Draft, event: RequestReceived) -> tuple[int, Json]:
    match event.request:
        case GiveCommand():
            return _give(draft, event, event.request)
        case CancelCommand():
            return _cancel(draft, event, event.request)
        case StartRun():
            return _start_run(draft, event, event.request)
        case CancelRun():
            return _cancel_run(draft, event, event.request)
        case EnrollHost():
            return _enroll(draft, event, event.request)
        case RevokeHost():
            return _revoke(draft, event, event.request)
        case RemoveHost():
            return _remove(draft, event, event.request)
        case MakeCode():
            return enrolment_codes.make(draft, event.request, event.request_id, event.actor)
        case LabelHosts():
            return _label(draft, event, event.request)
        case SaveQuery():
            return saved_queries.save(draft, event.request, event.actor)
        case RemoveQuery():
            return saved_queries.remove(draft, event.request, event.actor)
        case RotateHost():
            return host_tokens.rotate(draft, _known_host(draft, event.request.name), event.actor)
        case CreateToken():
            return operator_tokens.create(draft, event.request, event.actor)
        case LiftHost():
            return _lift(draft, event, event.request)
        case RetryDeadLetter():
            return _retry(draft, event, event.request)
        case DiscardDeadLetter():
            return _discard(draft, event, event.request)
        case AcknowledgeCondition():
            return kept_conditions.acknowledge(draft, event.request, event.actor)
        case MakeSilence():
            return kept_conditions.silence(draft, event.request, event.request_id, event.actor)
        case EndSilence():
            return kept_conditions.unsilence(draft, event.request, event.actor)
        case RevokeToken():
            return operator_tokens.revoke(draft, event.request, event.actor)
        case RotateToken():
            return operator_tokens.rotate(draft, event.request, event.actor)
        case RehearseFault():
            raise Refused(
                409, "drills_disabled", "drills are not enabled on this installation: set drills.enabled = true"
            )


# giving commands


def _give(draft: Draft, event: RequestReceived, request: GiveCommand) -> tuple[int, Json]:
    _check_op(request.op)
    _check_limits(draft, request.key, request.ttl_s)
    digest = _digest(request)
    # first: an accepted request stays accepted, whatever has become of its hosts since
    known = _known_key(draft, request.key, digest)
    if known is not None:
        return 200, _commands_body(draft, list(known))
    hosts = _named_hosts(draft, request.hosts)
    _check_offers(draft, hosts, [request.op])
    _check_room(draft, hosts)
    ttl_s = draft.rules.ttl_s if request.ttl_s is None else request.ttl_s
    given: list[str] = []
    for host in hosts:
        command_id = derived_id(event.request_id, host.name)
        command = make_command(draft, host, request.op, command_id, ttl_s=ttl_s, actor=event.actor, key=request.key)
        given.append(command.id)
        if ttl_s == 0 and draft.link(host.name).presence is not Presence.ONLINE:
            draft.move(command, State.EXPIRED, "hub", "host_offline")
    if request.key is not None:
        _put_key(draft, request.key, digest, tuple(given))
    return 202, _commands_body(draft, given)


def _check_op(op: str) -> None:
    if not OP_NAME.fullmatch(op):
        raise Refused(400, "malformed", f"op {op!r} is not a name: letters, digits, dot, dash, underscore, at most 64")


def _check_limits(draft: Draft, key: str | None, ttl_s: float | None) -> None:
    if key is not None and not 1 <= len(key) <= draft.rules.key_chars_max:
        raise Refused(400, "malformed", f"key must have 1 to {draft.rules.key_chars_max} characters")
    if ttl_s is not None and not 0 <= ttl_s <= TTL_S_MAX:
        raise Refused(400, "malformed", f"ttl_s must be 0 to {TTL_S_MAX:.0f} (7 days)")


def _named_hosts(draft: Draft, names: list[str]) -> list[HostRecord]:
    if not names:
        raise Refused(400, "malformed", "hosts is empty: name at least one")
    if len(names) > REQUEST_HOSTS_MAX:
        raise Refused(413, "too_large", f"{len(names)} hosts in one request; at most {REQUEST_HOSTS_MAX}")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise Refused(400, "malformed", f"host {twice!r} is named twice", host=twice)
    hosts: list[HostRecord] = []
    for name in names:
        host = draft.host(name)
        if host is None:
            raise _unknown_host(draft, name)
        hosts.append(host)
    return hosts


def _unknown_host(draft: Draft, name: str) -> Refused:
    there = enrolment_codes.in_other_letters(draft, name)
    hint = f"its name is {there}" if there else "see `fleethub hosts`"
    return Refused(404, "unknown_host", f"there is no host {name!r}: {hint}", host=name)


def _check_offers(draft: Draft, hosts: list[HostRecord], ops: list[str]) -> None:
    for host in hosts:
        for op in ops:
            if host.name == CANARY_HOST and op != CANARY_OP:
                raise _unknown_host(draft, host.name)
            if not host.offers(op):
                offered = _told(host.offered() or [])
                raise Refused(
                    422, "unknown_op", f"host {host.name} does not offer {op!r}; it offers: {offered}", host=host.name
                )


def _told(ops: list[str]) -> str:
    """Return the ops for a message to a person: an agent may say that it offers a thousand."""
    more = f" and {len(ops) - OPS_TOLD_MAX} more" if len(ops) > OPS_TOLD_MAX else ""
    return ", ".join(ops[:OPS_TOLD_MAX]) + more or "nothing"


def _check_room(draft: Draft, hosts: list[HostRecord]) -> None:
    is_canary = [host.name for host in hosts] == [CANARY_HOST]  # it has one at a time, and tells whether all is well
    if draft.ledger.open + len(hosts) > draft.rules.open_max and not is_canary:
        raise Refused(
            429,
            "too_many",
            f"{draft.rules.open_max} commands are open in all: wait until some have ended, or cancel some",
        )
    for host in hosts:
        if len(draft.queue_ids(host.name)) >= draft.rules.queued_per_host_max:
            raise Refused(
                429,
                "too_many",
                f"host {host.name} has {draft.rules.queued_per_host_max} open commands: "
                "wait until some have ended, or cancel some",
                host=host.name,
            )


def _digest(request: GiveCommand | StartRun) -> str:
    named = msgspec.structs.replace(request, key=None)
    if isinstance(named, StartRun) and named.query:  # whom it finds may change: who asks again asks the same
        named = msgspec.structs.replace(named, hosts=None)
    return hashlib.sha256(msgspec.json.encode(named)).hexdigest()


def _known_key(draft: Draft, key: str | None, digest: str) -> tuple[str, ...] | None:
    # plant: known-key
    entry = draft.get(draft.memory.keys, key) if key is not None else None
    if entry is None:
        return None
    if entry.digest != digest:
        raise Refused(409, "key_used", f"key {key!r} was used for a different request: take a new one")
    return entry.command_ids


def _put_key(draft: Draft, key: str, digest: str, ids: tuple[str, ...]) -> None:
    draft.put(draft.memory.keys, key, KeyEntry(key, digest, ids, draft.now.wall_s))


def _commands_body(draft: Draft, command_ids: list[str]) -> Json:
    views: list[object] = []
    for command_id in command_ids:
        command = draft.command(command_id)
        # a command that ended long ago is on disk only: with its id a script can ask for the rest
        views.append(command_view(command) if command else {"id": command_id})
    return encode({"commands": views})


# cancelling


def _cancel(draft: Draft, event: RequestReceived, request: CancelCommand) -> tuple[int, Json]:
    command = draft.command(request.command_id)
    if command is None or command.host == CANARY_HOST:
        raise Refused(404, "unknown_command", f"no command {request.command_id!r} that is open or ended lately")
    if not command.open:
        raise Refused(
            409, "final", f"command {command.id} has ended already: {command.state}", command=command_view(command)
        )
    noted.note(draft, (Kind.CANCEL, command.id), "asked", event.actor, f"{command.op} on {command.host}")
    return 202, encode(command_view(cancel_command(draft, command, event.actor)))


# fleet runs


def _start_run(draft: Draft, event: RequestReceived, request: StartRun) -> tuple[int, Json]:
    if not 1 <= len(request.steps) <= STEPS_MAX:
        raise Refused(400, "malformed", f"steps must name 1 to {STEPS_MAX} ops")
    for op in request.steps:
        _check_op(op)
    _check_limits(draft, request.key, request.ttl_s)
    if (request.hosts is None) == (request.where is None):
        raise Refused(400, "malformed", "give either hosts, where or query")
    if request.parallel is not None and request.parallel < 1:
        raise Refused(400, "malformed", "parallel must be at least 1")
    if request.max_failures is not None and request.max_failures < 0:
        raise Refused(400, "malformed", "max_failures must not be negative")
    digest = _digest(request)
    known = _known_key(draft, request.key, digest)
    if known is not None:
        run = draft.run(known[0])
        return 200, encode(run_view(run)) if run else encode({"id": known[0]})
    hosts = _named_hosts(draft, request.hosts) if request.hosts is not None else runs.chosen(draft, request.where or {})
    if not hosts:
        raise Refused(404, "unknown_host", runs.why_none(draft, request.where or {}))
    if CANARY_HOST in (host.name for host in hosts):
        raise _unknown_host(draft, CANARY_HOST)
    _check_offers(draft, hosts, request.steps)
    if sum(1 for run in draft.memory.runs.values() if run.open) >= RUNS_MAX:
        raise Refused(429, "too_many", f"{RUNS_MAX} runs are under way: wait until some have ended, or cancel some")
    run = Run(
        id=derived_id(event.request_id, "run"),
        number=draft.next_number,
        steps=request.steps,
        total=len(hosts),
        parallel=min(request.parallel or PARALLEL, len(hosts)),
        max_failures=request.max_failures,
        ttl_s=draft.rules.ttl_s if request.ttl_s is None else request.ttl_s,
        actor=event.actor,
        created_wall_s=draft.now.wall_s,
        key=request.key,
        query=request.query or "",
    )
    draft.put_run(run)
    draft.put(draft.memory.run_hosts, run.id, tuple(host.name for host in hosts))
    if request.key is not None:
        _put_key(draft, request.key, digest, (run.id,))
    runs.advance(draft, run.id)
    begun = draft.run(run.id)
    assert begun is not None
    return 202, encode(run_view(begun))


def _cancel_run(draft: Draft, event: RequestReceived, request: CancelRun) -> tuple[int, Json]:
    run = draft.run(request.run_id)
    if run is None:
        raise Refused(404, "unknown_run", f"no run {request.run_id!r} that is under way or ended lately")
    if not run.open:
        raise Refused(409, "final", f"run {run.id} has ended already: {run.state}", run=run_view(run))
    noted.note(draft, (Kind.CANCEL, run.id), "asked", event.actor, f"run of {','.join(run.steps)}")
    if run.cancel_wall_s is None:
        run = msgspec.structs.replace(run, cancel_wall_s=draft.now.wall_s, cancel_actor=event.actor)
    draft.put_run(msgspec.structs.replace(run, asked=0))
    runs.advance(draft, run.id)
    after = draft.run(run.id)
    assert after is not None
    return 202, encode(run_view(after))


# the fleet


def _known_host(draft: Draft, name: str) -> HostRecord:
    host = draft.host(name)
    if host is None or name == CANARY_HOST:
        raise _unknown_host(draft, name)
    return host


def _label(draft: Draft, event: RequestReceived, request: LabelHosts) -> tuple[int, Json]:
    hosts = _named_hosts(draft, request.hosts)
    if CANARY_HOST in request.hosts:
        raise _unknown_host(draft, CANARY_HOST)
    return labels.change(draft, request, hosts, event.actor)


def _enroll(draft: Draft, event: RequestReceived, request: EnrollHost) -> tuple[int, Json]:
    labels.check(request.labels)
    host = enrolment_codes.enrollable(draft, request.name, again=request.again)
    lifted = host.suspended if host is not None else ""
    if host is None:
        enrolment = derived_id(event.request_id, request.name)
        host = HostRecord(request.name, enrolment, request.token_hash, draft.now.wall_s, labels=request.labels)
    else:
        host = labels.added(host, request.labels)  # which may refuse: before anything is changed
        _void(draft, host.token_hash)
        host = enrolment_codes.take_back(draft, flood.lifted(draft, host))
        host = msgspec.structs.replace(host, token_hash=request.token_hash, rotation_wall_s=None)
    draft.put(draft.memory.hosts, host.name, host)
    noted.of_host(draft, host.name, "enrolled_again" if request.again else "enrolled", event.actor)
    if lifted:
        noted.of_host(draft, host.name, "lifted", event.actor, lifted)
    draft.deliver_all(TokenChanged(draft.memory.epoch, host.name, Token(request.token_hash, host.name, host.enrolment)))
    return 201, encode({"name": host.name, "host_id": host.enrolment, "lifted": lifted})


def _revoke(draft: Draft, event: RequestReceived, request: RevokeHost) -> tuple[int, Json]:
    host = _known_host(draft, request.name)
    _void(draft, host.token_hash)
    host = msgspec.structs.replace(enrolment_codes.take_back(draft, host), token_hash=None, rotation_wall_s=None)
    draft.put(draft.memory.hosts, host.name, host)
    noted.of_host(draft, host.name, "revoked", event.actor)
    draft.deliver_all(TokenChanged(draft.memory.epoch, host.name, None))
    return 200, encode(host_view(host, draft.link(host.name)))


def _remove(draft: Draft, event: RequestReceived, request: RemoveHost) -> tuple[int, Json]:
    host = _known_host(draft, request.name)
    ended = 0
    for command in draft.queue(host.name):
        after = State.CANCELLED if command.state is State.QUEUED else State.LOST
        draft.move(command, after, event.actor, "host_removed")
        ended += 1
    _void(draft, host.token_hash)
    enrolment_codes.take_back(draft, host)
    draft.drop_host(host.name)
    noted.of_host(draft, host.name, "removed", event.actor)
    draft.deliver_all(TokenChanged(draft.memory.epoch, host.name, None))
    return 200, encode({"name": host.name, "commands_ended": ended})


def _lift(draft: Draft, event: RequestReceived, request: LiftHost) -> tuple[int, Json]:
    host = _known_host(draft, request.name)
    if host.suspended:
        host = flood.lifted(draft, host)
        draft.put(draft.memory.hosts, host.name, host)
        noted.of_host(draft, host.name, "lifted", event.actor)
        if host.token_hash is not None:
            draft.deliver_all(
                TokenChanged(draft.memory.epoch, host.name, Token(host.token_hash, host.name, host.enrolment))
            )
    return 200, encode(host_view(host, draft.link(host.name)))


# dead letters


def _known_dead_letter(draft: Draft, dead_letter_id: str) -> DeadLetter:
    found = draft.get(draft.memory.dead_letters, dead_letter_id)
    if found is None:
        raise Refused(404, "unknown_letter", f"there is no dead letter {dead_letter_id!r}: see `fleethub deadletters`")
    return found


def _retry(draft: Draft, event: RequestReceived, request: RetryDeadLetter) -> tuple[int, Json]:
    """Have the dead letter tried again. It stays one until its event was stepped: a hub that dies before that leaves it
    to its successor, which tries it again first.
    """
    found = _known_dead_letter(draft, request.dead_letter_id)
    if found.process != "hub":
        draft.drop(draft.memory.dead_letters, found.id)
        draft.effects.tried_again.append((found.process, found.name))
    elif not found.retrying:
        try:
            dead_letter.revived(found)
        except LocalError as error:
            raise Refused(409, "not_retriable", f"dead letter {found.id} cannot be tried again: {error}") from None
        found = msgspec.structs.replace(found, retrying=True, retries=found.retries + 1)
        draft.put_dead_letter(found)
        draft.effects.retries.append(found)
    noted.note(draft, (Kind.DEAD_LETTER, found.id), "tried_again", event.actor, found.kind)
    return 202, encode(dead_letter.view(found, whole=False))


def _discard(draft: Draft, event: RequestReceived, request: DiscardDeadLetter) -> tuple[int, Json]:
    found = _known_dead_letter(draft, request.dead_letter_id)
    draft.drop(draft.memory.dead_letters, found.id)
    noted.note(draft, (Kind.DEAD_LETTER, found.id), "discarded", event.actor, found.kind)
    return 200, encode({"id": found.id, "discarded": True})


def _void(draft: Draft, token_hash: str | None) -> None:
    if token_hash is not None:
        draft.revoke(token_hash)
