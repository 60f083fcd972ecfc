"""The schema: of whatever version a file is, it becomes one of ours, killed wherever; what is not ours is found."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from doubles import old_installation

from processes.adapters.state import audit_trail, fleet_db, fleet_schema
from processes.adapters.state.fleet_db import DatabaseUnreadable
from processes.core.hub import step
from processes.core.hub.rules import Rules
from processes.core.records.request import OperatorToken
from processes.core.records.run import Part
from processes.core.travels.audit import Head, Kind
from processes.core.travels.audit_chain import Verifier
from processes.core.values import Now
from processes.hub import store

# Migrates, and kills itself before the N-th statement that SQLite carries out.
KILLED = """
import os, signal, sqlite3, sys
from pathlib import Path
from typing import Any
from processes.adapters.state import fleet_schema
left = int(sys.argv[2])
def strike(statement):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode = WAL")
connection.set_trace_callback(strike)
more = (
    "CREATE TABLE more (id TEXT PRIMARY KEY)", "ALTER TABLE hosts ADD COLUMN more TEXT", "UPDATE hosts SET more = name"
)
fleet_schema.migrate(connection, (*fleet_schema.MIGRATIONS, more))
"""


OLD_PARTS: dict[
    str, list[dict[str, Any]]
] = {  # of runs as a version before kept them, with all their hosts in the run's own record
    "going": [
        {"host": "a", "part": "succeeded", "step": 1, "command_id": "c1"},
        {"host": "b", "part": "failed", "command_id": "c2", "reason": "timeout"},
        {"host": "c", "part": "active", "step": 1, "command_id": "c3"},
        {"host": "e"},
        {"host": "d"},
    ],
    "over": [
        {"host": "b", "part": "failed", "reason": "host_removed"},
        {"host": "a", "part": "not_attempted"},
    ],
    "begun": [{"host": "a"}],
}


def put_old_runs(connection: sqlite3.Connection) -> None:
    """Put runs as a version before wrote them into a file of that version."""
    for number, (run_id, parts) in enumerate(OLD_PARTS.items(), 1000):
        is_open = run_id != "over"
        record = {
            "id": run_id, "number": number, "steps": ["pull", "switch"], "parts": parts, "parallel": 1,
            "max_failures": None, "ttl_s": 60.0, "actor": "ann", "created_wall_s": 1.7e9,
            **({} if is_open else {"state": "failed", "finished_wall_s": 1.8e9}),
        }  # fmt: skip
        row = (number, run_id, is_open, None if is_open else 1.8e9, json.dumps(record, separators=(",", ":")))
        connection.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?)", row)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The database of an installation of the first version."""
    old_installation.unpack(tmp_path)
    return tmp_path / "fleet.db"


def opened(path: Path) -> contextlib.closing[sqlite3.Connection]:
    return contextlib.closing(sqlite3.connect(path, isolation_level=None))


def test_a_file_of_the_first_version_becomes_what_a_new_file_is_and_keeps_its_rows(old: Path, tmp_path: Path) -> None:
    with opened(old) as before:
        assert fleet_schema.version_of(before) == 1
        kept = before.execute("SELECT * FROM commands").fetchall()
        before.execute("INSERT INTO tokens VALUES ('hash', 'viewer', 'screen', 5)")
    old_token = OperatorToken("hash", "viewer", "screen", 5.0)
    assert old_token in fleet_db.reading(old, fleet_db.tokens), "a fanout of this version reads before a hub of it"
    with contextlib.closing(fleet_db.open_for_writing(old)) as now:
        assert fleet_schema.version_of(now) == fleet_schema.VERSION > 1
        assert fleet_schema.differences(now) == []
        assert now.execute("SELECT * FROM commands").fetchall() == kept != []
        assert old_token in fleet_db.tokens(now), "a token without an end goes on without one"
        assert now.execute("PRAGMA quick_check").fetchall() == [("ok",)]
    assert fleet_db.refusal(old, tmp_path / "epoch", None) == ""


def test_the_hosts_of_runs_of_a_version_before_become_rows_and_none_is_lost(old: Path) -> None:
    with opened(old) as before:
        put_old_runs(before)
    with contextlib.closing(fleet_db.open_for_writing(old)) as now:
        views = {run_id: fleet_db.whole_run(now, run_id) for run_id in OLD_PARTS}
        for run_id, view in views.items():
            assert view is not None
            unbegun = Part.NOT_ATTEMPTED if run_id == "over" else Part.PENDING
            shown = [(each.host, each.state, each.step, each.command_id, each.reason) for each in view.hosts]
            assert shown == [
                (
                    old["host"],
                    old.get("part", unbegun),
                    old.get("step", 0),
                    old.get("command_id"),
                    old.get("reason", ""),
                )
                for old in OLD_PARTS[run_id]
            ], "each host as it was, in the order in which they begin"
            counts = Counter(each.state for each in view.hosts)
            assert [getattr(view, state) for state in Part] == [counts[state] for state in Part]
            assert view.total == len(view.hosts)
        stored = store.restored(now)
        assert dict(stored.rows["run_hosts"]) == {"going": ("a", "b", "c", "e", "d"), "begun": ("a",)}
        assert [(key, part.command_id) for key, part in stored.rows["run_parts"]] == [("going/c", "c3")]
        memory = step.restore(Rules(), 1, "boot", Now(0.0, 2e9), stored)
        assert dict(memory.due_runs) == {"going": ("c",), "begun": ()}
        records = [text for (text,) in now.execute("SELECT record FROM runs")]
        assert all("parts" not in json.loads(text) for text in records)
        assert len(records) == 4, "the run of the old installation too"
        (worked,) = [run for run in fleet_db.runs(now) if run.id not in OLD_PARTS]
        whole = fleet_db.whole_run(now, worked.id)
        assert whole is not None
        assert [(each.host, each.state) for each in whole.hosts] == [("worker", Part.SUCCEEDED)]


def test_the_lines_of_the_first_version_stay_as_they_are_and_the_chain_begins_behind_them(old: Path) -> None:
    with opened(old) as before:
        lines = before.execute("SELECT * FROM audit ORDER BY number").fetchall()
    with contextlib.closing(fleet_db.open_for_writing(old)) as now:
        assert now.execute("SELECT * FROM audit ORDER BY number").fetchall() == [(*line, None) for line in lines] != []
        assert audit_trail.checkpoint(now) == audit_trail.head(now) == Head(lines[-1][0], "")
        audit_trail.add(now, 1.0, Kind.HOST, "a", "enrolled", actor="ann")
        verifier = Verifier()
        verifier.take(fleet_db.audit(now, limit=1000), audit_trail.checkpoint(now))
        verified = verifier.finish()
        assert (verified.lines, verified.breaks, verified.head.number) == (1, [], lines[-1][0] + 1)
        assert "before the chain began" in verified.notes[0]


def test_a_migration_that_is_killed_anywhere_leaves_a_whole_version_and_is_completed(old: Path, tmp_path: Path) -> None:
    """With one version more than there is: of tables that are made, changed, and filled."""
    with opened(old) as before:
        put_old_runs(before)
    kept = old.read_bytes()
    seen = set()
    newest = fleet_schema.VERSION + 1
    for number in range(1, 60):
        for path in tmp_path.glob("fleet.db*"):
            path.unlink()
        old.write_bytes(kept)
        done = subprocess.run([sys.executable, "-c", KILLED, str(old), str(number)], capture_output=True, timeout=60)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        with opened(old) as after:
            version = fleet_schema.version_of(after)
            seen.add(version)
            names = {name for (name,) in after.execute("SELECT name FROM sqlite_master")}
            assert ("commands_output" in names) == (version >= 2), number
            assert ("more" in names) == (version == newest), number
            chained = "hash" in {row[1] for row in after.execute("PRAGMA table_info(audit)")}
            begun = after.execute("SELECT value FROM meta WHERE key = 'audit_checkpoint'").fetchone()
            assert chained == (begun is not None) == (version >= audit_trail.CHAINED_SINCE), number
            token_columns = {name for _, name, *_ in after.execute("PRAGMA table_info(tokens)")}
            assert ("replaced_by" in token_columns) == ("expires_wall_s" in token_columns) == (version >= 4), number
            assert ("run_parts" in names) == ("run_hosts" in names) == (version >= 5), number
            whole = after.execute("SELECT count(*) FROM runs WHERE json_extract(record, '$.parts') IS NOT NULL")
            assert whole.fetchone() == (4 if version < 5 else 0,), number
            if version >= 5:
                assert after.execute("SELECT count(*) FROM run_parts WHERE run IN ('going', 'over')").fetchone() == (4,)
            assert after.execute("PRAGMA quick_check").fetchall() == [("ok",)]
        if done.returncode == 0:
            break
        again = subprocess.run([sys.executable, "-c", KILLED, str(old), "1000"], capture_output=True, timeout=60)
        assert again.returncode == 0, again.stderr
        with opened(old) as after:
            assert after.execute("SELECT count(*) FROM hosts WHERE more != name").fetchone() == (0,)
            assert fleet_schema.version_of(after) == newest
    assert number > 5
    assert seen == set(range(1, newest + 1))


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("CREATE TRIGGER backdoor AFTER INSERT ON audit BEGIN SELECT 1; END", "trigger backdoor"),
        ("CREATE VIEW seen AS SELECT * FROM tokens", "view seen"),
        ("CREATE TABLE mine (x)", "table mine"),
        ("DROP INDEX runs_open", "lacks the index runs_open"),
        ("ALTER TABLE tokens ADD COLUMN more TEXT", "table tokens is not as ours"),
        ("PRAGMA user_version = 99", "version 99"),
        ("PRAGMA user_version = 0", "table tokens, which is not ours"),
    ],
)
def test_a_schema_that_is_not_ours_is_found(tmp_path: Path, statement: str, says: str) -> None:
    with contextlib.closing(fleet_db.open_for_writing(tmp_path / "fleet.db")) as made:
        made.execute("ANALYZE")
        assert fleet_schema.differences(made) == [], "what ANALYZE makes is SQLite's own"
        made.execute(statement)
        assert any(says in line for line in fleet_schema.differences(made))
    assert fleet_db.refusal(tmp_path / "fleet.db", tmp_path / "epoch", None) != ""


def test_a_file_of_a_newer_version_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    fleet_db.open_for_writing(path).close()
    with opened(path) as newer:
        newer.execute(f"PRAGMA user_version = {fleet_schema.VERSION + 1}")
    with pytest.raises(DatabaseUnreadable, match="a newer fleethub wrote it"):
        fleet_db.open_for_writing(path)
    with opened(path) as newer:
        assert fleet_schema.version_of(newer) == fleet_schema.VERSION + 1


def test_nothing_is_read_where_there_is_a_pipe_and_any_path_is_read(tmp_path: Path) -> None:
    """The bugs it would catch: a pipe is waited for without end; ? # and % end the path or change it."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DatabaseUnreadable, match="no regular file"):
        fleet_db.open_for_reading(tmp_path / "pipe")
    folder = tmp_path / "a?b#c%41 d"
    folder.mkdir()
    fleet_db.open_for_writing(folder / "fleet.db").close()
    assert fleet_db.reading(folder / "fleet.db", fleet_db.hosts) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a?b#c%41 d", "pipe"]
