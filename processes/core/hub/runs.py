"""Fleet runs in the hub's memory: each goes on host by host, step by step. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from processes.core.hub.commands import cancel_command, make_command
from processes.core.hub.memory import Draft, derived_id
from processes.core.records import run as run_rules
from processes.core.records.host import HostRecord
from processes.core.records.run import HostPart, Part, Run, part_key
from processes.core.shown.views import host_view
from processes.core.travels.messages import Json
from processes.core.values import CANARY_HOST

_object = msgspec.json.Decoder(dict[str, Any])


def advance(draft: Draft, run_id: str) -> None:
    """Advance the run: hosts whose command ended go to their next step or are done, further hosts begin, or the run
    ends. So many hosts are looked at, begun and asked to end as the rules have for a step (`run_parts_max`); if there
    are more, the run stays due.
    """
    memory, run, parts_max = draft.memory, draft.run(run_id), draft.rules.run_parts_max
    if run is None or not run.open:
        draft.drop(memory.due_runs, run_id)
        return
    before, names = run, draft.get(memory.run_hosts, run_id) or ()
    if run.cancel_wall_s is not None:
        run = _ask_to_end(draft, run, names)
    ended = draft.get(memory.due_runs, run_id) or ()
    for name in ended[:parts_max]:
        part = draft.part(run_id, name)
        if part is not None:
            run = _go_on(draft, run, part)
    for _ in range(min(parts_max, run_rules.room(run))):
        if run_rules.room(run):  # whoever could not begin has failed, and that may stop the run
            part = HostPart(names[run.begun])
            run = _put(draft, run, part, _begin_step(draft, run, msgspec.structs.replace(part, part=Part.ACTIVE)))
    after = run_rules.settled(run, draft.now.wall_s)
    if after != before:
        draft.put_run(after)
    rest = ended[parts_max:]
    is_due = rest or run_rules.room(run) or (run.cancel_wall_s is not None and run.asked < run.begun)
    draft.set(memory.due_runs, run_id, rest if after.open and is_due else None)


def _ask_to_end(draft: Draft, run: Run, names: Sequence[str]) -> Run:
    """Ask the commands under way of the next hosts to end, for the operator who cancelled the run."""
    asked = min(run.begun, run.asked + draft.rules.run_parts_max)
    for name in names[run.asked : asked]:
        part = draft.part(run.id, name)
        command = draft.command(part.command_id) if part is not None else None
        if command is not None and command.open:
            cancel_command(draft, command, run.cancel_actor)
    return msgspec.structs.replace(run, asked=asked)


def _go_on(draft: Draft, run: Run, part: HostPart) -> Run:
    now = run_rules.judged(part, draft.command(part.command_id), len(run.steps))
    if now == part:
        return run
    if now.part is Part.ACTIVE:  # it is between two steps
        now = _failed(now, "cancelled") if run.cancel_wall_s is not None else _begin_step(draft, run, now)
    return _put(draft, run, part, now)


def _put(draft: Draft, run: Run, was: HostPart, now: HostPart) -> Run:
    draft.put(draft.memory.run_parts, part_key(run.id, now.host), now)
    return run_rules.counted(run, was.part, now)


def _failed(part: HostPart, reason: str) -> HostPart:
    return msgspec.structs.replace(part, part=Part.FAILED, reason=reason, cancelled=reason == "cancelled")


def _begin_step(draft: Draft, run: Run, part: HostPart) -> HostPart:
    host = draft.host(part.host)
    if host is None:
        return _failed(part, "host_removed")
    if draft.ledger.open >= draft.rules.open_max:
        return _failed(part, "too_many_in_all")
    if len(draft.queue_ids(host.name)) >= draft.rules.queued_per_host_max:
        return _failed(part, "too_many_of_host")
    command_id = derived_id(run.id, part.host, str(part.step))
    make_command(draft, host, run.steps[part.step], command_id, ttl_s=run.ttl_s, actor=run.actor, run=run.id)
    return msgspec.structs.replace(part, command_id=command_id)


def chosen(draft: Draft, where: dict[str, str]) -> list[HostRecord]:
    """Return the hosts whose fields have these values, in the order of their names: fields of the API's host, or of its
    facts. {} chooses every host.
    """
    names = sorted(name for name in draft.memory.hosts if name != CANARY_HOST)
    hosts = [host for name in names if (host := draft.host(name)) is not None]
    return [host for host in hosts if _has(draft, host, where)]


def why_none(draft: Draft, where: dict[str, str]) -> str:
    """Return why `chosen` finds no host, and what to do."""
    hosts = [host for name, host in draft.memory.hosts.items() if name != CANARY_HOST]
    if not hosts:
        return "no host is enrolled yet: `fleethub enroll NAME` is the first step"
    known = set[str]()
    for host in hosts:
        known |= _object.decode(msgspec.json.encode(host_view(host, draft.link(host.name)))).keys()
        known |= facts_of(host.facts).keys() | facts_of(host.heartbeat_facts).keys()
    unknown = [key for key in where if key not in known]
    if unknown:
        return f"no host has a field {', '.join(map(repr, unknown))}: see `fleethub hosts --json`"
    return "no host is chosen by where: see `fleethub hosts --json`"


def _has(draft: Draft, host: HostRecord, where: dict[str, str]) -> bool:
    if not where:
        return True
    fields = _object.decode(msgspec.json.encode(host_view(host, draft.link(host.name))))
    facts = {**facts_of(host.facts), **facts_of(host.heartbeat_facts)}
    return all(_text(fields.get(name, facts.get(name))) == value for name, value in where.items())


def facts_of(text: Json) -> dict[str, Any]:
    """Return the facts in this text; none, if they cannot be read: a version before may have kept what gateways refuse
    now (travels/shape.py), and one host's facts must not break the runs of all.
    """
    try:
        return _object.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
