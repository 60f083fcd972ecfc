"""Fleet runs in the hub's memory: each goes on host by host, step by step. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from processes.core.hub.commands import make_command
from processes.core.hub.memory import Draft, derived_id
from processes.core.records import run as run_rules
from processes.core.records.host import HostRecord
from processes.core.records.run import Part
from processes.core.shown.views import host_view
from processes.core.travels.messages import Json
from processes.core.values import CANARY_HOST

_object = msgspec.json.Decoder(dict[str, Any])


def advance(draft: Draft, run_id: str) -> None:
    """Advance the run: hosts whose command ended go to their next step or are done, further
    hosts begin, or the run ends.
    """
    draft.drop(draft.memory.due_runs, run_id)
    run = draft.run(run_id)
    if run is None or not run.open:
        return
    parts = [run_rules.judged(part, draft.command(part.command_id), len(run.steps)) for part in run.parts]
    if run.cancel_wall_s is not None:  # a host between two steps is not sent the next one
        parts = [_left(part) if part.part is Part.ACTIVE and not part.command_id else part for part in parts]
    after = msgspec.structs.replace(run, parts=parts)
    for place in run_rules.begun(after):
        parts[place] = msgspec.structs.replace(parts[place], part=Part.ACTIVE)
    for place, part in enumerate(parts):
        if part.part is Part.ACTIVE and not part.command_id:
            parts[place] = _begin_step(draft, after, part)
    after = run_rules.settled(after, draft.now.wall_s)
    if after != run:
        draft.put_run(after)
    if any(now.part is Part.FAILED and was.part is not Part.FAILED for was, now in zip(run.parts, parts, strict=True)):
        # a host could not begin: another may begin instead, or the run must stop
        draft.mark(draft.memory.due_runs, run_id)


def _left(part: run_rules.HostPart) -> run_rules.HostPart:
    return msgspec.structs.replace(part, part=Part.FAILED, reason="cancelled")


def _begin_step(draft: Draft, run: run_rules.Run, part: run_rules.HostPart) -> run_rules.HostPart:
    host = draft.host(part.host)
    if host is None:
        return msgspec.structs.replace(part, part=Part.FAILED, reason="host_removed")
    if draft.ledger.open >= draft.rules.open_max:
        return msgspec.structs.replace(part, part=Part.FAILED, reason="too_many_in_all")
    if len(draft.queue_ids(host.name)) >= draft.rules.queued_per_host_max:
        return msgspec.structs.replace(part, part=Part.FAILED, reason="too_many_of_host")
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
