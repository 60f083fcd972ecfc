"""Conditions of hosts as alarms: told once, not while silenced, to the targets that want them, and signed."""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools

import msgspec
import pytest

from processes.core.alarms import alarm, hosts, outbox, webhook
from processes.core.alarms.alarm import AlarmState, AlarmWatch, ConditionsSeen, Phase
from processes.core.alarms.outbox import Wish
from processes.core.records.condition import ConditionRecord
from processes.core.shown.query import parse
from processes.core.travels.judged import ConditionKind
from processes.core.values import Severity

ONE = ConditionRecord(
    "c1", "web1", ConditionKind.OFFLINE, Severity.WARNING, "web1 is offline", 100.0, 160.0, labels={"env": "prod"}
)
MANY = ConditionRecord(
    "g1", None, ConditionKind.MANY, Severity.CRITICAL, "40 hosts of rack=b4 went offline at once", 100.0, 120.0,
    labels={"rack": "b4"}, of="offline", cause="rack=b4", hosts=40, left=40, mass=True,
)  # fmt: skip


class Told:
    """What a target hears over several looks."""

    def __init__(self) -> None:
        self.state, self._watch = AlarmState(), AlarmWatch()
        self._at = itertools.count(0.0, 10.0)

    def look(self, *rows: ConditionRecord, over: dict[str, str] | None = None) -> list[tuple[Phase, str]]:
        """Look twice, and return what is new."""
        before = self.state.number
        for _ in range(2):
            found = hosts.conditions(rows, self.state.standing)
            seen = ConditionsSeen(found, over=over or {})
            at_s = next(self._at)
            self.state, self._watch = alarm.turn(self.state, self._watch, seen, at_s, 1000.0 + at_s)
        return [(each.phase, each.text or each.title) for each in self.state.events if each.number > before]


def silenced(row: ConditionRecord) -> ConditionRecord:
    return msgspec.structs.replace(row, silence="s1")


def test_a_condition_is_told_once_with_how_it_ended() -> None:
    told = Told()
    assert told.look(ONE) == [(Phase.BEGUN, "web1 is offline")]
    assert told.look(ONE) == []
    assert told.look(over={"host:c1": "online again after 4 min"}) == [(Phase.OVER, "online again after 4 min")]


def test_what_is_silenced_or_acknowledged_is_not_told_and_what_was_told_is_still_told_to_be_over() -> None:
    told = Told()
    assert told.look(silenced(ONE), msgspec.structs.replace(MANY, acknowledged_by="ann")) == []
    assert told.look(ONE) == [(Phase.BEGUN, "web1 is offline")]
    assert told.look(silenced(ONE)) == []
    assert told.look() == [(Phase.OVER, "over")]


def test_what_is_part_of_a_condition_of_many_hosts_is_told_by_that_alone() -> None:
    told = Told()
    assert told.look(MANY, msgspec.structs.replace(ONE, group="g1")) == [
        (Phase.BEGUN, "40 hosts of rack=b4 went offline at once")
    ]
    assert hosts.end_of(msgspec.structs.replace(ONE, group="g1"), MANY) == f"it is part of: {MANY.title}"
    assert hosts.end_of(None, None) == "it is not known any more"


def test_a_mass_loss_degrades_until_it_is_over_or_silenced_and_a_single_host_never_does() -> None:
    assert hosts.mass_losses([ONE, MANY]) == [MANY.title]
    assert hosts.mass_losses([msgspec.structs.replace(MANY, left=3)]) == [f"{MANY.title}, 3 of them still"]
    assert hosts.mass_losses([silenced(MANY), msgspec.structs.replace(MANY, ended_wall_s=1.0)]) == []


@pytest.mark.parametrize(
    ("severity", "query", "numbers"),
    [
        (Severity.INFO, "", [1, 2, 3]),
        (Severity.CRITICAL, "", [2, 3]),
        (Severity.INFO, "env=prod", [1]),
        (Severity.INFO, "rack=b4", [2]),
        (Severity.INFO, "name=web1", [1]),
        (Severity.INFO, "condition=offline", [1, 2]),
        (Severity.INFO, "!env=prod", [2]),
    ],
)
def test_a_target_is_told_by_severity_and_by_the_labels_of_hosts(
    severity: Severity, query: str, numbers: list[int]
) -> None:
    told = Told()
    told.look(ONE, MANY)
    house = msgspec.structs.replace(
        told.state.events[0], number=3, key="storage", subject=None, severity=Severity.CRITICAL
    )
    state = msgspec.structs.replace(told.state, events=[*told.state.events, house])
    wish = Wish(severity, parse(query) if query else None)
    assert [each.number for each in outbox.due(state, alarm.Told(), wish)] == numbers


def test_a_target_with_a_query_does_not_hold_back_what_it_never_wanted() -> None:
    told = Told()
    told.look(ONE)
    state = msgspec.structs.replace(told.state, targets={"a": alarm.Told(), "b": alarm.Told()})
    wishes = {"a": Wish(Severity.INFO, parse("rack=b4")), "b": Wish(Severity.INFO)}
    settled = outbox.settled(state, ["a", "b"], Severity.INFO, wishes)
    assert (settled.targets["a"].number, settled.targets["b"].number) == (1, 0)


def test_it_is_known_which_targets_heard_of_what_stands() -> None:
    told = Told()
    told.look(ONE)
    told.look(ONE, MANY)
    state = msgspec.structs.replace(told.state, targets={"a": alarm.Told(number=2), "b": alarm.Told(number=1)})
    assert hosts.told(state, {}) == {"host:c1": ["a", "b"], "host:g1": ["a"]}
    assert hosts.of_the_house(state, {}) == []


@pytest.mark.parametrize(
    ("wish", "heard"),
    [
        (Wish(Severity.INFO, parse("env=prod")), {"host:c1"}),
        (Wish(Severity.INFO, parse("rack=b4")), {"host:g1"}),
        (Wish(Severity.CRITICAL), {"host:g1"}),
        (Wish(Severity.INFO), {"host:c1", "host:g1"}),
        (Wish(Severity.INFO, parse("env=test")), set()),
    ],
)
def test_a_target_that_is_past_what_it_did_not_want_has_not_heard_of_it(wish: Wish, heard: set[str]) -> None:
    told = Told()
    told.look(ONE)
    told.look(ONE, MANY)
    state = msgspec.structs.replace(told.state, targets={"a": alarm.Told(number=2)})
    assert {key for key, names in hosts.told(state, {"a": wish}).items() if names} == heard


def test_the_subject_of_an_alarm_is_in_the_message_for_programs() -> None:
    told = Told()
    told.look(MANY)
    message = msgspec.to_builtins(outbox.message("box", told.state.events))
    assert message["id"] == "box-1-1"
    assert message["events"][0]["subject"] == {
        "id": "g1", "host": None, "kind": "offline", "labels": {"rack": "b4"}, "cause": "rack=b4", "hosts": 40,
        "since": "1970-01-01T00:01:40.000Z",
    }  # fmt: skip


def test_a_webhook_is_signed_over_id_time_and_body() -> None:
    secret = "a secret of a webhook"
    found = webhook.headers(secret, "box-1-1", 1_800_000_000.7, b'{"a": 1}')
    wanted = hmac.new(secret.encode(), b'box-1-1.1800000000.{"a": 1}', hashlib.sha256).digest()
    assert found["webhook-signature"] == f"v1,{base64.b64encode(wanted).decode()}"
    assert (found["webhook-id"], found["webhook-timestamp"]) == ("box-1-1", "1800000000")
    coded = "whsec_" + base64.b64encode(secret.encode()).decode()
    assert webhook.headers(coded, "box-1-1", 1_800_000_000.7, b'{"a": 1}') == found
    assert "webhook-signature" not in webhook.headers("", "x", 0.0, b"")


@pytest.mark.parametrize("secret", ["short", "whsec_short", "whsec_!!!!!!!!!!!!!!!!!!!!"])
def test_a_secret_that_is_none_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="secret"):
        webhook.key_of(secret)
