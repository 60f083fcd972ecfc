"""The hub keeps conditions as they are judged, and what operators do about them, over restarts."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from doubles.fleet_play import Play

from processes.core.hub import kept_conditions
from processes.core.hub.effects import AddAudit
from processes.core.records.condition import OVER_KEPT_MAX, SILENCES_MAX, ConditionView, is_shown_as, judged_of
from processes.core.shown.replica import Replica
from processes.core.travels import messages
from processes.core.travels.judged import JUDGED_MAX, ConditionKind, JudgedCondition
from processes.core.travels.messages import (
    AcknowledgeCondition,
    Change,
    ConditionsJudged,
    EndSilence,
    MakeSilence,
)
from processes.core.values import Severity

ONE = JudgedCondition(
    "c1", "web1", ConditionKind.OFFLINE, Severity.WARNING, "web1 is offline", 100.0, 160.0, labels={"rack": "b4"}
)


@pytest.fixture
def play() -> Play:
    return Play()


def judged(play: Play, *conditions: JudgedCondition) -> list[Change]:
    event = messages.decode_event(messages.encode(ConditionsJudged("fanout", list(conditions))))
    return play.do(event).rows


def ask(play: Play, request: Any) -> tuple[int, Any]:
    reply = play.ask(request)
    return reply.status, msgspec.json.decode(reply.body)


def audited(play: Play) -> list[tuple[str, str, str]]:
    lines = [write.line for write in play.effects.writes if isinstance(write, AddAudit)]
    return [(line.kind, line.after, line.reason) for line in lines]


def test_what_is_judged_is_durable_and_shown_and_the_same_again_changes_nothing(play: Play) -> None:
    (change,) = judged(play, ONE)
    view = msgspec.json.decode(change.fields, type=ConditionView)
    assert (view.id, view.host, view.state, view.labels) == ("c1", "web1", "open", {"rack": "b4"})
    assert judged_of(view) == ONE
    assert judged(play, ONE) == []
    play.restart()
    assert judged(play, ONE) == []
    assert play.memory.conditions["c1"].title == "web1 is offline"


def test_what_is_over_stays_over_whatever_is_said_later(play: Play) -> None:
    judged(play, ONE)
    judged(play, msgspec.structs.replace(ONE, ended_wall_s=200.0, over="online again"))
    assert judged(play, ONE) == []
    assert play.memory.conditions["c1"].over == "online again"


def test_an_acknowledgement_is_kept_by_what_is_judged_later_and_asked_twice_is_the_first(play: Play) -> None:
    judged(play, ONE)
    status, body = ask(play, AcknowledgeCondition("c1", "the switch is being replaced"))
    assert (status, body["state"], body["acknowledged_why"]) == (200, "acknowledged", "the switch is being replaced")
    judged(play, msgspec.structs.replace(ONE, text="still"))
    assert play.memory.conditions["c1"].acknowledged_why == "the switch is being replaced"
    assert ask(play, AcknowledgeCondition("c1", "again"))[1]["acknowledged_why"] == "the switch is being replaced"
    assert audited(play) == [("condition", "acknowledged", "web1 is offline: the switch is being replaced")]
    judged(play, msgspec.structs.replace(ONE, ended_wall_s=200.0))
    assert ask(play, AcknowledgeCondition("c1"))[0] == 409
    assert ask(play, AcknowledgeCondition("nothing"))[0] == 404


def test_a_silence_has_a_beginning_and_an_end_and_may_be_ended_before_it_once(play: Play) -> None:
    status, made = ask(play, MakeSilence("rack=b4", "maintenance", 7200.0, 600.0))
    assert (status, made["query"], made["why"]) == (201, "rack=b4", "maintenance")
    play.restart()
    kept = play.memory.silences[made["id"]]
    assert (kept.from_wall_s - play.now.wall_s, kept.until_wall_s - play.now.wall_s) == (600.0, 7800.0)
    assert ask(play, EndSilence(made["id"]))[0] == 200
    assert ask(play, EndSilence(made["id"]))[0] == 409
    assert ask(play, EndSilence("nothing"))[0] == 404
    assert audited(play) == [("silence", "made", "rack=b4: maintenance"), ("silence", "ended", "rack=b4")]


def test_silences_are_bounded_and_those_that_have_ended_make_room(play: Play) -> None:
    for number in range(SILENCES_MAX):
        assert ask(play, MakeSilence(f"name=h{number}", "x", 60.0 + number))[0] == 201
    assert ask(play, MakeSilence("name=more", "x", 60.0))[0] == 429
    play.wait(1000.0)
    for _ in range(3):
        assert ask(play, MakeSilence("name=more", "x", 60.0))[0] == 201
    assert len(play.memory.silences) == SILENCES_MAX + 2
    assert "name=h0" not in [each.query for each in play.memory.silences.values()]


def test_one_event_brings_a_bounded_number_and_a_replica_keeps_a_bounded_number_that_are_over(play: Play) -> None:
    many = [msgspec.structs.replace(ONE, id=f"c{n}", host=f"h{n}") for n in range(JUDGED_MAX + 5)]
    assert len(judged(play, *many)) == JUDGED_MAX
    rows = Replica()
    view = {"id": "x", "host": "web1", "kind": "offline", "state": "open"}
    rows.apply(Change("condition", "stands", messages.Json(msgspec.json.encode(view))))
    for number in range(OVER_KEPT_MAX + 3):
        fields = messages.Json(msgspec.json.encode(view | {"state": "over"}))
        rows.apply(Change("condition", f"x{number}", fields))
    assert len(rows.rows("condition")) == OVER_KEPT_MAX + 1
    assert rows.standing_kinds() == {"web1": ["offline"]}
    rows.apply(Change("condition", "stands", messages.Json(b'{"state": "over"}')))
    assert (rows.standing_kinds(), len(rows.rows("condition"))) == ({}, OVER_KEPT_MAX)
    assert rows.host_of(Change("condition", "stands", messages.Json(b"{}"))) == "web1"


def test_so_many_stand_at_most_and_another_begins_when_one_is_over(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_conditions, "STANDING_MAX", 3)
    some = [msgspec.structs.replace(ONE, id=f"c{n}", host=f"h{n}") for n in range(5)]
    assert [change.id for change in judged(play, *some)] == ["c0", "c1", "c2"]
    assert judged(play, some[4]) == []
    judged(play, msgspec.structs.replace(some[0], ended_wall_s=900.0, over="over"))
    assert [change.id for change in judged(play, some[4])] == ["c4"]


def test_the_judge_knows_when_the_hub_has_what_it_said(play: Play) -> None:
    (change,) = judged(play, ONE)
    view = msgspec.json.decode(change.fields, type=ConditionView)
    assert is_shown_as(ONE, view)
    assert not is_shown_as(ONE, None)
    assert not is_shown_as(msgspec.structs.replace(ONE, left=3), view)
    assert not is_shown_as(msgspec.structs.replace(ONE, ended_wall_s=200.0), view)
    (change,) = judged(play, msgspec.structs.replace(ONE, ended_wall_s=200.0))
    assert is_shown_as(
        ONE, msgspec.convert(msgspec.to_builtins(view) | msgspec.json.decode(change.fields), ConditionView)
    )
