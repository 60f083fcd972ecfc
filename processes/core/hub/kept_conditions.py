"""Conditions that a fanout has judged, and what operators do about them: acknowledged, silenced, told again. Pure.

The hub judges nothing: it keeps what it is told, whole, and what is over stays over. The judge says a change again and
again until it sees it come back, so a change that the hub has already changes nothing.
"""

from __future__ import annotations

import msgspec

from processes.core.hub import noted
from processes.core.hub.memory import Draft, derived_id
from processes.core.hub.refused import Refused
from processes.core.records.condition import (
    SILENCES_MAX,
    SilenceRecord,
    condition_view,
    record_of,
    silence_view,
)
from processes.core.shown.views import encode
from processes.core.travels.audit import Kind
from processes.core.travels.judged import JUDGED_MAX, STANDING_MAX
from processes.core.travels.messages import AcknowledgeCondition, ConditionsJudged, EndSilence, Json, MakeSilence


def judged(draft: Draft, event: ConditionsJudged) -> None:
    """Keep what was judged."""
    table, added = draft.memory.conditions, 0
    for each in event.conditions[:JUDGED_MAX]:
        before = draft.get(table, each.id)
        if before is not None and not before.open:
            continue
        record = record_of(each, before)
        if before is None and record.open:
            added += 1
            if table.counts["open"] + added > STANDING_MAX:
                continue
        if record != before:
            draft.put(table, each.id, record)


def acknowledge(draft: Draft, request: AcknowledgeCondition, actor: str) -> tuple[int, Json]:
    """Note that somebody has seen the condition. Raises: Refused."""
    found = draft.get(draft.memory.conditions, request.condition_id)
    if found is None:
        raise Refused(404, "unknown_condition", f"there is no condition {request.condition_id!r}: fleethub conditions")
    if not found.open:
        raise Refused(409, "over", f"condition {found.id} is over: {found.over}", condition=condition_view(found))
    if not found.acknowledged_by:
        found = msgspec.structs.replace(
            found, acknowledged_by=actor, acknowledged_wall_s=draft.now.wall_s, acknowledged_why=request.why
        )
        draft.put(draft.memory.conditions, found.id, found)
        noted.note(
            draft, (Kind.CONDITION, found.id), "acknowledged", actor, f"{found.title}: {request.why}".rstrip(": ")
        )
    return 200, encode(condition_view(found))


def silence(draft: Draft, request: MakeSilence, request_id: str, actor: str) -> tuple[int, Json]:
    """Make a silence. Raises: Refused."""
    table, now_wall_s = draft.memory.silences, draft.now.wall_s
    over = sorted((each for each in table.values() if each.is_over(now_wall_s)), key=lambda each: each.until_wall_s)
    if len(table) - len(over) >= SILENCES_MAX:
        raise Refused(429, "too_many", f"{SILENCES_MAX} silences count already: end some (fleethub silences)")
    for old in over[: max(0, len(over) - SILENCES_MAX + 1)]:
        draft.drop(table, old.id)
    begins_wall_s = now_wall_s + request.in_s
    made = SilenceRecord(
        derived_id(request_id, "silence")[:12], request.query, request.why, actor, now_wall_s, begins_wall_s,
        begins_wall_s + request.for_s,
    )  # fmt: skip
    draft.put(table, made.id, made)
    noted.note(draft, (Kind.SILENCE, made.id), "made", actor, f"{request.query}: {request.why}")
    return 201, encode(silence_view(made))


def unsilence(draft: Draft, request: EndSilence, actor: str) -> tuple[int, Json]:
    """End a silence before its time. Raises: Refused."""
    found = draft.get(draft.memory.silences, request.silence_id)
    if found is None:
        raise Refused(404, "unknown_silence", f"there is no silence {request.silence_id!r}: fleethub silences")
    if found.is_over(draft.now.wall_s):
        raise Refused(409, "over", f"silence {found.id} has ended already", silence=silence_view(found))
    ended = msgspec.structs.replace(found, ended_wall_s=draft.now.wall_s, ended_by=actor)
    draft.put(draft.memory.silences, ended.id, ended)
    noted.note(draft, (Kind.SILENCE, ended.id), "ended", actor, ended.query)
    return 200, encode(silence_view(ended))
