"""store migrate: the same truth in SQLite and in PostgreSQL, killed wherever, and never two of them that a hub may begin with."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from doubles.deadline import WAIT_S
from doubles.postgres_server import PostgresServer, binary

from processes.adapters.postgres import connection as postgres
from processes.adapters.postgres import copying, lease, schema
from processes.adapters.postgres.sql import Sql
from processes.adapters.state import fleet_db, lock
from processes.adapters.state.reading import Reading
from processes.cli.__main__ import execute
from processes.core.records.command import Command, State
from processes.core.records.run import Run
from processes.hub import sqlite_store

pytestmark = pytest.mark.skipif(binary("initdb") is None, reason="no PostgreSQL on this machine")

WALL_S = 1.7e9
ODD = "a\0b\x1ac\n'; DROP TABLE hosts; -- % %s ? \U0001f600"
ROWS = 7
# For each line "N WORDS": a child that runs the verb, and kills itself before its N-th statement or change of a file.
KILLED = """
import json, os, signal, sys
import psycopg
from processes.adapters.postgres import copying
from processes.cli.__main__ import execute
from processes.cli.machine import store_move
from processes.cli.verbs import store
copying.BATCH = 3
BEFORE = {"execute", "executemany", "rename", "replace", "link", "unlink"}
calls = 0
def strike(frame, event, it):
    global calls
    name = getattr(it, "__name__", "") if event == "c_call" else frame.f_code.co_name if event == "call" else ""
    if name in BEFORE and "store_move" in sys.modules["processes.cli.machine.store_move"].__name__:
        calls += 1
        if calls == at:
            os.kill(os.getpid(), signal.SIGKILL)
for line in sys.stdin:
    at, environment, words = json.loads(line)
    done, told = os.pipe()
    child = os.fork()
    if not child:
        os.environ.update(environment)
        os.dup2(2, 1)
        sys.setprofile(strike)
        code = execute(words)
        sys.setprofile(None)
        os.write(told, str(calls).encode())
        os._exit(code)
    os.close(told)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(json.dumps([code, int(os.read(done, 100) or 0)]), flush=True)
    os.close(done)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as running:
        yield running


@pytest.fixture
def fresh(server: PostgresServer, made: list[int] = []) -> Callable[[], str]:  # noqa: B006  # counts
    """Makes an empty database, and returns its URL."""

    def make() -> str:
        made.append(0)
        with psycopg.connect(server.url(), autocommit=True) as psql:
            psql.execute(f"CREATE DATABASE moved{len(made)} TEMPLATE template0")
        return server.url(f"moved{len(made)}")

    return make


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = tmp_path / "st"
    found.mkdir(mode=0o700)
    monkeypatch.setenv("FLEETHUB_STATE", str(found))
    monkeypatch.setattr(copying, "BATCH", 3)
    return found


def fill(state: Path) -> None:
    """A hub's database with some rows in each table, and with text that is hard to keep."""
    with contextlib.closing(fleet_db.open_for_writing(state / "fleet.db")) as sqlite:
        sqlite_store.begin_epoch(sqlite, state / "epoch")
        for table in copying.tables():
            types = {row[1]: row[2] for row in sqlite.execute(f"PRAGMA table_info({table.name})")}
            for number in range(1, ROWS + 1):
                values = {name: value(name, kind, number) for name, kind in types.items()}
                if table.name == "commands":
                    values["record"] = text(command(number))
                if table.name == "runs":
                    values["record"] = text(Run(f"r{number}", number, ["pull"], 1, 1, None, 60.0, ODD, WALL_S))
                places = ", ".join("?" * len(values))
                sqlite.execute(f"INSERT INTO {table.name} VALUES ({places})", list(values.values()))
        copying.put_meta(sqlite, "ledger", '{"accepted":7}')


def value(name: str, kind: str, number: int) -> object:
    if name == "open":
        return number % 2
    if kind in ("INTEGER", "REAL"):
        return number if kind == "INTEGER" else number / 3
    return bytes([number, 0, 255]) if kind == "BLOB" else f"{ODD}{8 - number}"


def text(record: msgspec.Struct) -> str:
    return msgspec.json.encode(record).decode()


def command(number: int) -> Command:
    return Command(
        f"c{number}", number, "a", "a-1", "pull", "ann", WALL_S, 60.0, WALL_S + 60, 60.0, "boot", State.QUEUED,
        run=ODD, output_bytes=number,
    )  # fmt: skip


def rows(db: Reading) -> dict[str, list[tuple[Any, ...]]]:
    """Everything that is in the truth; without the lines of the trail that tell of moves."""
    found = {
        table.name: sorted(
            (
                tuple(int(cell) if isinstance(cell, bool) else cell for cell in row)
                for row in db.execute(f"SELECT {copying._quoted(table.columns)} FROM {table.name}")
            ),
            key=repr,
        )
        for table in copying.tables()
    }
    found["audit"] = [row for row in found["audit"] if row[5] != "moved"]
    return {**found, "meta": sorted(copying._meta(db).items())}


def of_sqlite(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    return fleet_db.reading(path, rows)


def of_postgres(url: str) -> dict[str, list[tuple[Any, ...]]]:
    with postgres.opened_for_reading(url, "test") as psql:
        return rows(Sql(psql))


def verb(*arguments: str, capsys: pytest.CaptureFixture[str], code: int = 0) -> Any:
    assert execute([*arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def may_begin(url: str, beside: int = 0) -> bool:
    """Whether a hub of another machine would lead with the database."""
    with psycopg.connect(url, autocommit=True) as psql:
        try:
            return lease.acquire(psql, "m2", "m2", 0.001, epoch_beside=beside) is not None
        except psycopg.errors.UndefinedTable:
            return False


def test_there_and_back_everything_is_as_it_was_and_only_one_of_them_is_the_truth(
    state: Path, fresh: Callable[[], str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(state)
    before, url = of_sqlite(state / "fleet.db"), fresh()
    there = verb("store", "migrate", "--to", url, capsys=capsys)
    assert set(there["tables"].values()) == {ROWS}
    assert of_postgres(url) == before
    assert there["epoch"] == int((state / "epoch").read_text()) == 2
    assert "is an older one" in fleet_db.refusal(state / "fleet.db", state / "epoch", None)
    with psycopg.connect(url) as psql:
        derived = psql.execute("SELECT output_bytes FROM commands ORDER BY number").fetchall()
        assert derived == [(number,) for number in range(1, ROWS + 1)]
        assert psql.execute("SELECT DISTINCT state FROM runs").fetchall() == [("running",)]
    assert verb("store", "migrate", "--to", url, capsys=capsys)["was_there"]
    assert may_begin(url, beside=2)
    monkeypatch.setenv("FLEETHUB_STORE_URL", url)
    back = verb("store", "migrate", "--to", "sqlite", capsys=capsys)
    assert set(back["tables"].values()) == {ROWS, ROWS + 1}, "one line more in the trail"
    assert of_sqlite(state / "fleet.db") == before
    assert of_sqlite(Path(back["kept"])) == before
    assert fleet_db.refusal(state / "fleet.db", state / "epoch", None) == ""
    assert not may_begin(url)
    assert verb("store", "migrate", "--to", "sqlite", capsys=capsys)["was_there"]
    monkeypatch.delenv("FLEETHUB_STORE_URL")
    again = verb("store", "migrate", "--to", url, capsys=capsys)
    assert again["epoch"] > back["epoch"], "the database that was left behind takes it again"
    assert of_postgres(url) == before


@pytest.mark.parametrize("back", [False, True], ids=["there", "back"])
def test_killed_anywhere_it_goes_on_and_until_its_end_no_hub_may_begin_with_the_copy(
    state: Path, fresh: Callable[[], str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    back: bool,
) -> None:  # fmt: skip
    fill(state)
    before = of_sqlite(state / "fleet.db")
    kept = {name: (state / name).read_bytes() for name in ("fleet.db", "epoch")}
    child = subprocess.Popen([sys.executable, "-c", KILLED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None

    def run(at: int, url: str) -> list[int]:
        environment = {"FLEETHUB_STORE_URL": url} if back else {}
        words = ["store", "migrate", "--to", "sqlite" if back else url]
        child.stdin.write(json.dumps([at, environment, words]) + "\n")  # type: ignore[union-attr]
        child.stdin.flush()  # type: ignore[union-attr]
        return list(json.loads(child.stdout.readline()))  # type: ignore[union-attr]

    def begun() -> str:
        for path in (*state.glob("fleet.db*"), *state.glob("replaced/*")):
            path.unlink()
        for name, content in kept.items():
            (state / name).write_bytes(content)
        url = fresh()
        if back:
            assert execute(["store", "migrate", "--to", url]) == 0
        return url

    code, calls = run(0, begun())
    assert (code, calls > 200) == (0, True), calls
    kills = 0
    for at in range(1, calls, max(1, calls // 24)):
        url = begun()
        code, _ = run(at, url)
        kills += code == -signal.SIGKILL
        if code == -signal.SIGKILL and not back and (state / "epoch").read_bytes() == kept["epoch"]:
            whole = not copying_mark_missing(url)
            assert whole == may_begin_now(url), f"killed before call {at}"
        assert run(0, url)[0] == 0, f"killed before call {at}"
        assert (of_sqlite(state / "fleet.db") if back else of_postgres(url)) == before, f"killed before call {at}"
        assert may_begin_now(url) is not back
    child.communicate(timeout=WAIT_S)
    assert kills > 20


def may_begin_now(url: str) -> bool:
    """Whether a hub may begin with the database, told without taking it."""
    with psycopg.connect(url, autocommit=True) as psql:
        if psql.execute("SELECT to_regclass('hub')").fetchone() == (None,):
            return False
        return psql.execute("SELECT expires <= clock_timestamp() AND epoch > 0 FROM hub").fetchone() == (True,)


def copying_mark_missing(url: str) -> bool:
    """Whether the copy is not whole yet."""
    with psycopg.connect(url, autocommit=True) as psql:
        if psql.execute("SELECT to_regclass('meta')").fetchone() == (None,):
            return True
        return psql.execute("SELECT 1 FROM meta WHERE key = 'moved'").fetchone() is None


def test_what_holds_another_installation_or_is_led_is_refused(
    state: Path, fresh: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    fill(state)
    url = fresh()
    with psycopg.connect(url, autocommit=True) as psql:
        schema.migrate(psql)
        assert lease.acquire(psql, "m9", "m9", 60.0) is not None
    refused = verb("store", "migrate", "--to", url, capsys=capsys, code=1)
    assert (refused["error"], "hub 1, led last by m9" in refused["message"]) == ("taken", True)
    held = lock.hold(lock.place(state / "run", "hub"))
    assert verb("store", "migrate", "--to", fresh(), capsys=capsys, code=1)["error"] == "running"
    os.close(held)
    assert verb("store", "migrate", "--to", "sqlite", capsys=capsys, code=1)["error"] == "there"
    assert verb("store", "migrate", "--to", "mysql://x", capsys=capsys, code=2)["error"] == "usage"
    monkeypatch.setenv("FLEETHUB_STORE_URL", url)
    assert verb("store", "migrate", "--to", fresh(), capsys=capsys, code=1)["error"] == "elsewhere"

    def lead() -> None:
        with psycopg.connect(url, autocommit=True) as psql:
            psql.execute("UPDATE hub SET expires = clock_timestamp() + interval '60 s' WHERE holder = 'm9'")

    with psycopg.connect(url, autocommit=True) as psql:
        psql.execute("UPDATE hub SET expires = clock_timestamp() + interval '20 s'")
    monkeypatch.setattr("processes.cli.machine.store_move.time.sleep", lambda _: lead())  # it renews its lease
    refused = verb("store", "migrate", "--to", "sqlite", capsys=capsys, code=1)
    assert (refused["error"], "another machine (m9)" in refused["message"]) == ("running", True)


def test_a_hub_that_ran_since_makes_an_unfinished_copy_begin_anew(
    state: Path, fresh: Callable[[], str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bug it would catch: rows that were copied before are not as they are now."""
    fill(state)
    url = fresh()
    with monkeypatch.context() as patched:
        patched.setattr(copying.Copying, "verify", lambda _: (_ for _ in ()).throw(copying.Differs("stopped")))
        assert verb("store", "migrate", "--to", url, capsys=capsys, code=1)["error"] == "not_moved"
    assert not may_begin(url)
    with contextlib.closing(fleet_db.open_for_writing(state / "fleet.db")) as sqlite:
        sqlite_store.begin_epoch(sqlite, state / "epoch")
        sqlite.execute("UPDATE queries SET record = 'newer'")
        sqlite.execute("DELETE FROM silences WHERE until_wall_s < 1")
    verb("store", "migrate", "--to", url, capsys=capsys)
    assert of_postgres(url) == of_sqlite(state / "fleet.db")


def test_a_copy_that_differs_is_found_and_made_anew(
    state: Path, fresh: Callable[[], str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(state)
    url, copy = fresh(), copying.Copying.copy

    def wrong(it: copying.Copying) -> None:
        copy(it)
        it._target.execute("UPDATE audit SET reason = 'else' WHERE number = 3")

    with monkeypatch.context() as patched:
        patched.setattr(copying.Copying, "copy", wrong)
        refused = verb("store", "migrate", "--to", url, capsys=capsys, code=1)
    assert "audit has 7 rows with digest" in refused["message"]
    assert not may_begin(url)
    verb("store", "migrate", "--to", url, capsys=capsys)
    assert of_postgres(url) == of_sqlite(state / "fleet.db")


def test_a_dry_run_changes_nothing_and_tells_what_there_is(
    state: Path, fresh: Callable[[], str], capsys: pytest.CaptureFixture[str]
) -> None:
    fill(state)
    url, content = fresh(), (state / "fleet.db").read_bytes()
    told = verb("store", "migrate", "--to", url, "--dry-run", capsys=capsys)
    assert told["tables"] == {table.name: ROWS for table in copying.tables()}
    assert (state / "fleet.db").read_bytes() == content
    with psycopg.connect(url) as psql:
        assert psql.execute("SELECT to_regclass('meta')").fetchone() == (None,)
    assert execute(["store", "migrate", "--to", url]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-2:] == ["[store]", f'url = "{url}"']


def test_both_databases_have_the_columns_that_are_copied(fresh: Callable[[], str]) -> None:
    """Whoever gives PostgreSQL a column that SQLite lacks says here what fills it."""
    with psycopg.connect(fresh(), autocommit=True) as psql, contextlib.closing(sqlite3.connect(":memory:")):
        schema.migrate(psql)
        for table in copying.tables():
            found = psql.execute(
                "SELECT column_name FROM information_schema.columns WHERE table_name = %s AND table_schema = 'public' "
                "AND is_identity = 'NO'", (table.name,),
            ).fetchall()  # fmt: skip
            derived = copying.DERIVED.get(table.name, (None, ()))[1]
            assert {name for (name,) in found} == {*table.columns, *derived}, table.name
