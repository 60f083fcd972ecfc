"""Alarms of dead letters: one host's flood takes none from others, and each end is told as it was."""

from __future__ import annotations

import contextlib
import functools
import os
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest

from processes.adapters import settings
from processes.adapters.state import audit_trail, fleet_db, sightings
from processes.core.alarms.conditions import AlarmFacts
from processes.core.records.condition import ConditionRecord
from processes.core.records.dead_letter import DeadLetter, Why
from processes.core.travels.audit import Kind
from processes.core.travels.judged import ConditionKind
from processes.core.values import Severity
from processes.watchdog import alarm_facts
from processes.watchdog.alarm_facts import CONDITIONS_MAX, ROWS_MAX


def test_a_flood_of_one_host_takes_no_alarm_from_others_and_each_end_is_told_as_it_was(tmp_path: Path) -> None:
    found = settings.load({"FLEETHUB_STATE": str(tmp_path)})
    found.run.mkdir(exist_ok=True)

    with contextlib.closing(fleet_db.open_for_writing(found.database)) as connection:

        def put(id: str, host: str, why: Why, at_wall_s: float) -> None:
            record = msgspec.json.encode(DeadLetter(id, at_wall_s, "X", why, host=host)).decode()
            row = (id, at_wall_s, record, b"")
            with connection:
                connection.execute("INSERT INTO deadletters (id, at_wall_s, record, event) VALUES (?,?,?,?)", row)

        for number, id in enumerate(("poison", "retried", "discarded", "displaced")):
            put(id, "a", Why.POISON, 1.0 + number)
        first = alarm_facts.now(found, AlarmFacts())
        assert first.audit_head == "", "nothing is chained yet"
        audit_trail.add(connection, 1.0, Kind.HOST, "a", "enrolled", actor="ann")
        first = alarm_facts.now(found, first)
        assert first.audit_head == str(audit_trail.head(connection))
        assert {key for key, _ in first.put_aside or []} == {"poison", "retried", "discarded", "displaced"}
        for number in range(3 * ROWS_MAX):
            put(f"s{number}", "b", Why.STRAY, 100.0 + number)
        put("own", "b", Why.POISON, 50.0)
        for id, after in (("retried", "tried_again"), ("discarded", "discarded"), ("displaced", "")):
            with connection:
                connection.execute("DELETE FROM deadletters WHERE id = ?", (id,))
                if after:
                    connection.execute(
                        "INSERT INTO audit (at_wall_s, kind, subject, after, reason, actor) "
                        "VALUES (1.0, 'letter', ?, ?, '', 'ann')",
                        (id, after),
                    )
        for kind, name in ((sightings.IMPERSONATED, "web1"), (sightings.GUESSED, "fanout-1")):
            sightings.say(found.run, kind, name, "so it was")
            sightings.say(found.run, kind, "old", "long ago")
            os.utime(found.run / kind / "old", (1.0, 1.0))
        second = alarm_facts.now(found, first)
        assert second.impersonated == [("web1", "so it was")]
        assert second.guessed == [("fanout-1", "so it was")]
        assert not (found.run / sightings.GUESSED / "old").exists()
        stands = [key for key, _ in second.put_aside or []]
        assert len(stands) == ROWS_MAX
        assert {"poison", "own", f"s{3 * ROWS_MAX - 1}"} <= set(stands)
        assert second.ended == {
            "retried": "it was retried",
            "discarded": "it was discarded",
            "displaced": "it made room for newer ones, or was too old to be kept",
        }
        put("newest", "b", Why.STRAY, 1000.0)
        third = alarm_facts.now(found, second)
        (pushed_out,) = set(third.ended) - set(second.ended)
        assert pushed_out.startswith("s")
        assert "still kept" in third.ended[pushed_out]


def keep(connection: sqlite3.Connection, *records: ConditionRecord) -> None:
    """Keep these conditions, as the hub does."""
    with connection:
        for each in records:
            record = msgspec.json.encode(each).decode()
            row = (each.id, each.host, each.open, each.begun_wall_s, each.ended_wall_s, record)
            connection.execute("INSERT OR REPLACE INTO conditions VALUES (?,?,?,?,?,?)", row)


@pytest.mark.parametrize(
    "crowd",
    [
        {"host": "w{}", "silence": "s1"},  # a rack in maintenance
        {"host": "w{}", "acknowledged_by": "ann"},
        {"host": "w{}", "severity": Severity.WARNING},
        {"host": None, "kind": ConditionKind.RUN_STOPPED, "severity": Severity.CRITICAL},  # a script that goes on
        {"host": "evil", "kind": ConditionKind.COMMAND_FAILED, "severity": Severity.CRITICAL},
    ],
)
def test_no_crowd_of_conditions_takes_an_alarm_from_a_graver_one_or_another_hosts(
    tmp_path: Path, crowd: dict[str, Any]
) -> None:
    found = settings.load({"FLEETHUB_STATE": str(tmp_path)})
    found.run.mkdir(exist_ok=True)
    late = ConditionRecord("late", "db1", ConditionKind.DISK, Severity.CRITICAL, "the disk is almost full", 8.0, 9.0)
    mass = msgspec.structs.replace(
        late, id="mass", host=None, kind=ConditionKind.MANY, mass=True, acknowledged_by="ann"
    )
    with contextlib.closing(fleet_db.open_for_writing(found.database)) as connection:
        for number in range(CONDITIONS_MAX + 1):
            host = crowd["host"] and crowd["host"].format(number)
            more = {"kind": ConditionKind.OFFLINE, **crowd, "host": host, "id": f"c{number:03d}"}
            keep(connection, msgspec.structs.replace(late, **more, begun_wall_s=1.0 + number / 1000))
        first = alarm_facts.now(found, AlarmFacts())
        keep(connection, late, mass)
        second = alarm_facts.now(found, first)
    told = [each.id for each in second.hosts or []]
    assert len(told) == CONDITIONS_MAX
    assert told[0] == "mass", "it makes the installation degraded, whoever knows of it"
    assert "late" in told
    assert {text.partition(",")[0] for text in second.hosts_over.values()} == {"it stands still"}


def test_conditions_of_hosts_are_read_without_parts_and_their_ends_are_told_as_they_were(tmp_path: Path) -> None:
    found = settings.load({"FLEETHUB_STATE": str(tmp_path)})
    found.run.mkdir(exist_ok=True)
    one = ConditionRecord("c1", "web1", ConditionKind.OFFLINE, Severity.WARNING, "web1 is offline", 1.0, 2.0)
    many = ConditionRecord("g1", None, ConditionKind.MANY, Severity.CRITICAL, "6 hosts went", 1.0, 2.0, mass=True)
    part = msgspec.structs.replace(one, id="c2", host="web2", group="g1")
    with contextlib.closing(fleet_db.open_for_writing(found.database)) as connection:
        put = functools.partial(keep, connection)
        put(one, many, part)
        first = alarm_facts.now(found, AlarmFacts())
        assert [each.id for each in first.hosts or []] == ["g1", "c1"]
        put(msgspec.structs.replace(one, group="g1"), msgspec.structs.replace(many, ended_wall_s=9.0, over="all back"))
        second = alarm_facts.now(found, first)
        assert (second.hosts, second.hosts_over) == (
            [], {"host:g1": "all back", "host:c1": "it is part of: 6 hosts went"},
        )  # fmt: skip
        put(one)
        assert alarm_facts.now(found, second).hosts_over == {"host:g1": "all back"}
