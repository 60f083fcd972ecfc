"""backup and restore: whole or not at all, killed wherever; nothing of a backup is delivered, and what is revoked stays
revoked.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from doubles import old_installation
from doubles.deadline import WAIT_S
from doubles.fleet_play import Play

from processes.adapters.settings import load
from processes.adapters.state import audit_trail, fleet_db, fleet_schema, lock, revocations
from processes.cli.__main__ import execute
from processes.cli.machine import replacement
from processes.core.hub.effects import Effects
from processes.core.hub.turn import CommitBatch
from processes.core.records.command import State
from processes.core.values import Now, Position
from processes.hub import sqlite_store, store

# For each number N that it is told: a child that restores, and kills itself at the N-th call that makes, renames, links or
# removes a file, or that opens a database. Says how it ended. Children, because to begin anew costs more than to restore.
KILLED = """
import os, signal, sys
def strike(event, arguments):
    global left
    if event in ("os.rename", "os.link", "os.remove",
    "sqlite3.connect") or (event == "open" and "fleet.db" in str(arguments[0])):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
from processes.cli.__main__ import execute
from processes.cli.verbs import restore
for line in sys.stdin:
    left, child = int(line), os.fork()
    if not child:
        os.dup2(2, 1)
        sys.addaudithook(strike)
        os._exit(execute(["restore", sys.argv[1]]))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
KILLS_MAX = 200


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = tmp_path / "st"
    found.mkdir(mode=0o700)
    monkeypatch.setenv("FLEETHUB_STATE", str(found))
    return found


def write(path: Path, play: Play, effects: Effects) -> None:
    """The database holds what the hub would have written."""
    with contextlib.closing(fleet_db.open_for_writing(path)) as sqlite:
        sqlite_store.begin_epoch(sqlite, path.with_name("epoch"))
        batch = CommitBatch(effects.writes, play.memory.ledger, play.memory.next_number, Position(1, 1), Now(1.0, 1.0))
        store.write(sqlite, batch, fleet_db.epoch(sqlite))


def fill(path: Path, *hosts: str) -> Play:
    """A hub's database with these hosts and one command for each, that waits."""
    play = Play()
    effects = Effects()
    for name in hosts:
        play.enroll(name)
        play.give("pull", name)
    effects.extend(play.effects)
    write(path, play, effects)
    return play


def verb(*arguments: str, capsys: pytest.CaptureFixture[str], code: int = 0) -> Any:
    """The JSON document of a verb."""
    assert execute([*arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def names(path: Path) -> set[str]:
    return {host.name for host in fleet_db.reading(path, fleet_db.hosts)}


def test_a_backup_is_whole_private_and_never_replaces_anything(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(state / "fleet.db", "a", "b")
    writer = fleet_db.open_for_writing(state / "fleet.db")  # a hub that goes on, its log not folded in
    writer.execute("UPDATE meta SET value = '7' WHERE key = 'epoch'")
    file = tmp_path / "b.db"
    made = verb("backup", str(file), capsys=capsys)
    assert (made["hosts"], made["epoch"], made["commands"]["queued"]) == (2, 7, 2)
    assert file.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.db", "st"]
    assert names(file) == {"a", "b"}
    before = file.read_bytes()
    assert verb("backup", str(file), capsys=capsys, code=1)["error"] == "exists"
    assert file.read_bytes() == before
    writer.close()


def test_a_backup_that_does_not_add_up_is_none(state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(state / "fleet.db", "a")
    with contextlib.closing(sqlite3.connect(state / "fleet.db")) as sqlite, sqlite:
        sqlite.execute("DELETE FROM commands")
    assert "add up" in verb("backup", str(tmp_path / "b.db"), capsys=capsys, code=1)["message"]
    assert [path.name for path in tmp_path.iterdir()] == ["st"]


def test_restore_brings_the_hosts_back_loses_what_was_open_and_leaves_revoked_ones_revoked(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    play = fill(state / "fleet.db", "a", "b")
    with contextlib.closing(sqlite3.connect(state / "fleet.db")) as sqlite, sqlite:
        sqlite.executemany(
            "INSERT INTO tokens (token_hash, role, label, created_wall_s) VALUES (?, 'viewer', '', 0)",
            [("t1",), ("t2",)],
        )
    file = tmp_path / "b.db"
    verb("backup", str(file), capsys=capsys)
    revoked = play.memory.hosts["b"].token_hash
    assert revoked is not None
    revocations.add(revocations.beside(state / "fleet.db"), [revoked, "t1"])
    (state / "fleet.db").unlink()
    fill(state / "fleet.db", "new")
    done = verb("restore", str(file), capsys=capsys)
    assert (done["hosts"], done["lost"], done["revoked"]) == (2, 2, 1)
    assert names(state / "fleet.db") == {"a", "b"}
    assert names(Path(done["replaced"])) == {"new"}
    hosts = {host.name: host.token_hash for host in fleet_db.reading(state / "fleet.db", fleet_db.hosts)}
    assert hosts["a"] is not None
    assert hosts["b"] is None
    commands = fleet_db.reading(state / "fleet.db", fleet_db.commands)
    assert {(command.state, command.reason) for command in commands} == {(State.LOST, "restored")}
    assert fleet_db.reading(state / "fleet.db", fleet_db.ledger).lost == 2
    assert [token.token_hash for token in fleet_db.reading(state / "fleet.db", fleet_db.tokens)] == ["t2"]
    trail = fleet_db.reading(state / "fleet.db", lambda sqlite: fleet_db.audit(sqlite, limit=10))
    assert (trail[0].kind, trail[0].after) == ("database", "restored")
    epoch = fleet_db.reading(state / "fleet.db", fleet_db.epoch)
    with contextlib.closing(fleet_db.open_for_writing(state / "fleet.db")) as sqlite:
        assert sqlite_store.begin_epoch(sqlite, state / "epoch") == int((state / "epoch").read_text()) > epoch


def test_the_trail_of_a_restored_backup_goes_on_and_tells_which_trail_it_replaced(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    play = fill(state / "fleet.db", "a")
    file = tmp_path / "b.db"
    verb("backup", str(file), capsys=capsys)
    backed = verb("audit", "verify", "--file", str(file), capsys=capsys)
    assert (backed["whole"], backed["lines"]) == (True, 2)
    given = play.give("pull", "a")
    assert given is not None
    write(state / "fleet.db", play, play.effects)
    told = str(fleet_db.reading(state / "fleet.db", audit_trail.head))
    done = verb("restore", str(file), capsys=capsys)
    found = verb("audit", "verify", "--file", str(state / "fleet.db"), "--head", told, capsys=capsys)
    assert found["whole"], found
    assert found["lines"] > backed["lines"]
    assert any("a backup was restored here" in note and told in note for note in found["notes"])
    kept = verb("audit", "verify", "--file", done["replaced"], "--head", told, capsys=capsys)
    assert kept["whole"], kept
    replacement.begin_anew(load())
    anew = verb("audit", "verify", "--file", str(state / "fleet.db"), capsys=capsys)
    assert (anew["whole"], anew["lines"]) == (True, 1)
    assert "an empty database was begun here; the trail of the replaced database ended at" in anew["notes"][0]


def test_restore_refuses_while_a_hub_runs_and_what_is_no_backup(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(state / "fleet.db", "a")
    file = tmp_path / "b.db"
    verb("backup", str(file), capsys=capsys)
    held = lock.hold(state / "run" / "lock" / "hub")
    assert verb("restore", str(file), capsys=capsys, code=1)["error"] == "running"
    os.close(held)
    text = tmp_path / "no.db"
    text.write_text("not a database, but long enough to be looked at " * 20)
    assert verb("restore", str(text), capsys=capsys, code=1)["error"] == "bad_backup"
    damaged = bytearray(file.read_bytes())
    damaged[4096 * 2 : 4096 * 5] = os.urandom(4096 * 3)
    text.write_bytes(damaged)
    assert verb("restore", str(text), capsys=capsys, code=1)["error"] == "bad_backup"
    assert verb("restore", str(state / "fleet.db"), capsys=capsys, code=1)["error"] == "same_file"
    assert names(state / "fleet.db") == {"a"}


def test_restore_killed_anywhere_leaves_the_old_or_the_new_and_the_hubs_next_start_completes_it(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The old one's newest rows are in its write-ahead log, as after a killed hub: they must neither be lost nor played
    into the new.
    """
    fill(state / "fleet.db", "a", "b")
    file = tmp_path / "b.db"
    verb("backup", str(file), capsys=capsys)
    (state / "fleet.db").unlink()
    fill(state / "fleet.db", "old")
    with contextlib.closing(fleet_db.open_for_writing(state / "fleet.db")) as sqlite:
        sqlite.execute("PRAGMA wal_autocheckpoint = 0")
        sqlite.execute("INSERT INTO hosts SELECT 'newest', replace(record, 'old', 'newest') FROM hosts")
        kept = {suffix: (state / f"fleet.db{suffix}").read_bytes() for suffix in ("", "-wal")}
    killed = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert killed.stdin is not None
    assert killed.stdout is not None
    seen = set()
    for number in range(1, KILLS_MAX):
        for path in [*state.glob("fleet.db*"), *state.glob("replaced/*")]:
            path.unlink()
        for suffix, content in kept.items():
            (state / f"fleet.db{suffix}").write_bytes(content)
        killed.stdin.write(f"{number}\n")
        killed.stdin.flush()
        code = int(killed.stdout.readline())
        assert code in (0, -signal.SIGKILL)
        fleet_db.finish_restore(state / "fleet.db")
        with contextlib.closing(fleet_db.open_for_writing(state / "fleet.db")) as sqlite:
            assert sqlite.execute("PRAGMA quick_check").fetchall() == [("ok",)]
            found = frozenset(host.name for host in fleet_db.hosts(sqlite))
        seen.add(found)
        assert found in ({"old", "newest"}, {"a", "b"}), number
        if code == 0:
            assert found == {"a", "b"}
            break
    assert number > 10
    _, complaints = killed.communicate(timeout=WAIT_S)
    assert killed.returncode == 0, complaints
    assert seen == {frozenset({"old", "newest"}), frozenset({"a", "b"})}


def test_a_backup_with_a_schema_that_is_not_ours_is_refused_with_what_differs(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bug it would catch: a trigger in it makes an admin's token with every line of the audit trail."""
    fill(state / "fleet.db", "a")
    for number, (statement, says) in enumerate(
        [
            ("CREATE TRIGGER backdoor AFTER INSERT ON audit BEGIN INSERT OR REPLACE INTO tokens VALUES "
             "('t', 'admin', 'sys', 1.0); END", "trigger backdoor"),
            ("CREATE VIEW seen AS SELECT * FROM tokens", "view seen"), ("CREATE TABLE more (x)", "table more"),
            ("ALTER TABLE tokens ADD COLUMN more", "table tokens is not as ours"),
        ]
    ):  # fmt: skip
        file = tmp_path / f"b{number}.db"
        verb("backup", str(file), capsys=capsys)
        with contextlib.closing(sqlite3.connect(file)) as sqlite, sqlite:
            sqlite.execute(statement)
        before = (state / "fleet.db").read_bytes()
        refused = verb("restore", str(file), capsys=capsys, code=1)
        assert refused["error"] == "bad_backup"
        assert says in refused["message"]
        assert (state / "fleet.db").read_bytes() == before
        assert not (state / "replaced").exists()


def test_what_is_no_regular_file_is_refused_and_not_waited_for(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(state / "fleet.db", "a")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        assert "no regular file" in verb("restore", str(path), capsys=capsys, code=1)["message"]


def test_a_backup_of_the_version_before_is_restored_as_one_of_ours_and_a_hub_may_begin_with_it(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And though hubs have run since: the restore knows of them, a file that was only copied back does not."""
    old_installation.unpack(tmp_path / "old")
    fill(state / "fleet.db", "a")
    (state / "epoch").write_text("40\n")
    done = verb("restore", str(tmp_path / "old" / "fleet.db"), capsys=capsys)
    assert done["hosts"] >= 4
    assert fleet_db.reading(state / "fleet.db", fleet_schema.version_of) == fleet_schema.VERSION
    assert fleet_db.refusal(state / "fleet.db", state / "epoch", None) == ""
    backup = tmp_path / "b.db"
    verb("backup", str(backup), capsys=capsys)
    (state / "epoch").write_text("43\n")
    (state / "fleet.db").write_bytes(backup.read_bytes())
    assert "is an older one" in fleet_db.refusal(state / "fleet.db", state / "epoch", None)
    verb("restore", str(backup), capsys=capsys)
    assert fleet_db.refusal(state / "fleet.db", state / "epoch", None) == ""


def test_an_empty_database_takes_the_place_of_another_which_is_kept_log_and_all(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `up --new` does; also where only the log is left."""
    fill(state / "fleet.db", "a")
    (kept,) = replacement.begin_anew(load())
    assert (names(kept), names(state / "fleet.db")) == ({"a"}, set())
    assert fleet_db.refusal(state / "fleet.db", state / "epoch", None) == ""
    assert fleet_db.reading(state / "fleet.db", fleet_db.epoch) > int((state / "epoch").read_text())
    with contextlib.closing(fleet_db.open_for_writing(state / "fleet.db")) as sqlite:
        sqlite.execute("INSERT INTO meta VALUES ('more', '1')")
        log = (state / "fleet.db-wal").read_bytes()
        (state / "fleet.db").unlink()
        (kept,) = replacement.begin_anew(load())
        assert kept.read_bytes() == log != b""
    assert names(state / "fleet.db") == set()


def test_a_token_that_was_rotated_since_the_backup_is_not_good_again(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bug it would catch: the backup is older than the rotation, and does not know that the token has an end."""
    fill(state / "fleet.db", "a")
    with contextlib.closing(sqlite3.connect(state / "fleet.db")) as sqlite, sqlite:
        columns = "(token_hash, role, label, created_wall_s)"
        sqlite.executemany(f"INSERT INTO tokens {columns} VALUES (?, 'admin', '', 0)", [("old",), ("other",)])
    file = tmp_path / "b.db"
    verb("backup", str(file), capsys=capsys)
    with contextlib.closing(sqlite3.connect(state / "fleet.db")) as sqlite, sqlite:
        sqlite.execute("UPDATE tokens SET replaced_by = 'new', expires_wall_s = 4e9 WHERE token_hash = 'old'")
    verb("restore", str(file), capsys=capsys)
    assert [token.token_hash for token in fleet_db.reading(state / "fleet.db", fleet_db.tokens)] == ["other"]
    assert "old" in revocations.read(revocations.beside(state / "fleet.db"))


@pytest.mark.parametrize("words", [["backup", "there.db"], ["restore", __file__], ["up", "--new"]])
def test_what_looks_into_the_state_folder_says_so_where_postgresql_has_the_truth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    """The bug it would catch: a backup of an empty file that is left from before, and nobody notices."""
    monkeypatch.setenv("FLEETHUB_STATE", str(tmp_path))
    monkeypatch.setenv("FLEETHUB_STORE_URL", "postgresql://fleethub@db1/fleethub")
    monkeypatch.chdir(tmp_path)
    assert execute(words) == 1
    assert "store.url says that PostgreSQL has it" in capsys.readouterr().err
    assert not (tmp_path / "there.db").exists()
