"""Alarms of dead letters: one host's flood takes none from others, and each end is told as it was."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from processes.adapters import settings
from processes.adapters.state import audit_trail, fleet_db, sightings
from processes.core.alarms.conditions import AlarmFacts
from processes.core.records.dead_letter import DeadLetter, Why
from processes.core.travels.audit import Kind
from processes.watchdog import alarm_facts
from processes.watchdog.alarm_facts import ROWS_MAX


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
