"""What the hub's database keeps, and what it lets go."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from processes.adapters.state import audit_trail, fleet_db, revocations
from processes.core.hub.effects import Drop, Put, Write
from processes.core.hub.memory import REPLIES_KEPT_MAX
from processes.core.hub.turn import CommitBatch
from processes.core.records.host import HostRecord
from processes.core.records.ledger import Ledger
from processes.core.records.request import KeptReply, OperatorToken
from processes.core.records.run import HostPart, Part, Run, RunState, part_key
from processes.core.travels.audit import Kind
from processes.core.travels.messages import Json
from processes.core.values import Now, Position, Role
from processes.hub import store
from processes.hub.loop import unless_blocked
from processes.hub.sqlite_store import SqliteStore

DAY_S = 86400.0
WALL_S = 1.7e9
STEP_S = 4 * 3600.0


@contextlib.asynccontextmanager
async def opened_store(path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(path, path.with_name("epoch"))
    try:
        yield opened
    finally:
        await opened.close()


@pytest.mark.parametrize("jump_s", [-DAY_S, DAY_S])
def test_answers_are_kept_by_their_number_whatever_the_clock_says(jump_s: float) -> None:
    """A request that is asked again of the next hub would else be carried out twice, once somebody has set the
    clock.
    """
    sqlite = fleet_db.open_for_writing(Path(":memory:"))
    names = [f"r{number}" for number in range(REPLIES_KEPT_MAX + 3)]
    for part, wall_s in ((names[:10], WALL_S + jump_s), (names[10:], WALL_S)):
        writes = [Put("replies", name, KeptReply(name, 202, Json(b"{}"), wall_s)) for name in part]
        store.write(sqlite, CommitBatch(list(writes), Ledger(), 1, Position(1, 0), Now(0.0, wall_s)), 0)
    assert store.prune(sqlite, Now(0.0, WALL_S + jump_s), "boot", 90 * DAY_S, 1 << 30) == 3
    assert store.prune(sqlite, Now(0.0, WALL_S + jump_s), "boot", 90 * DAY_S, 1 << 30) == 0
    assert [name for name, _ in store.restored(sqlite).rows["replies"]] == names[3:], "oldest first"
    sqlite.close()


def test_a_locked_database_puts_housekeeping_off_and_ends_no_hub(tmp_path: Path) -> None:
    """The bug it would catch: somebody looks at the database by hand when it is pruned, and the hub is replaced."""

    async def work() -> None:
        async with opened_store(tmp_path / "fleet.db") as opened:
            with contextlib.closing(sqlite3.connect(tmp_path / "fleet.db", isolation_level=None)) as lock:
                lock.execute("BEGIN EXCLUSIVE")
                await unless_blocked(lambda: opened.prune(Now(1.0, WALL_S), DAY_S, 1 << 30))
            assert await opened.prune(Now(1.0, WALL_S), DAY_S, 1 << 30) == 0

    asyncio.run(work())


def test_what_is_old_by_a_clock_that_is_wrong_for_a_while_is_kept_and_goes_once_it_is_old(tmp_path: Path) -> None:
    """And though the hub is restarted in between. The bug it would catch: such a minute erases keys, audit and letters."""
    path, year_s = tmp_path / "fleet.db", 400 * DAY_S
    sqlite = fleet_db.open_for_writing(path)
    now_s = 0.0

    def passed(seconds: float, wrong_s: float = 0.0, *, boot: str = "boot") -> int:
        """Prunes once in STEP_S for so long; how many rows went."""
        nonlocal now_s
        gone = 0
        for _ in range(int(seconds / STEP_S)):
            now_s += STEP_S
            gone += store.prune(sqlite, Now(now_s, WALL_S + now_s + wrong_s), boot, 90 * DAY_S, 1 << 30)
        return gone

    assert passed(2 * DAY_S) == 0
    sqlite.execute("INSERT INTO keys VALUES ('release-42', 'digest', '[]', ?)", (WALL_S + now_s,))
    audit_trail.add(sqlite, WALL_S + now_s, Kind.HOST, "a", "enrolled", actor="ann")
    for _ in range(3):
        assert passed(3 * STEP_S, year_s) == 0
        sqlite.close()
        sqlite = fleet_db.open_for_writing(path)
        assert passed(STEP_S, year_s, boot="another") == 0
        assert passed(STEP_S) == 0
    assert passed(27 * DAY_S) == 0, "a key is known for thirty days"
    assert passed(5 * DAY_S) == 1
    assert passed(90 * DAY_S) == 1
    sqlite.close()


def test_a_token_that_the_list_names_is_void_in_a_database_that_still_has_it(tmp_path: Path) -> None:
    """As after a kill between the two, or after another file was put in its place."""
    path = tmp_path / "fleet.db"
    with contextlib.closing(fleet_db.open_for_writing(path)) as sqlite:
        writes: list[Write] = [
            Put("hosts", name, HostRecord(name, f"{name}-1", f"hash-{name}", WALL_S)) for name in "ab"
        ]
        writes += [Put("tokens", name, OperatorToken(name, Role.ADMIN, "", WALL_S)) for name in ("good", "void")]
        store.write(sqlite, CommitBatch(writes, Ledger(), 1, Position(1, 0), Now(0.0, WALL_S)), 0)
    revocations.add(revocations.beside(path), ["hash-a", "void"])

    async def work() -> None:
        async with opened_store(path) as opened:
            hosts = dict((await opened.restored()).rows["hosts"])
            assert {name: host.token_hash for name, host in hosts.items()} == {"a": None, "b": "hash-b"}
            assert [token.token_hash for token in fleet_db.reading(path, fleet_db.tokens)] == ["good"]

    asyncio.run(work())


def test_a_run_goes_with_its_hosts_once_it_is_old_in_bites_and_another_stays_whole(tmp_path: Path) -> None:
    """The bugs it would catch: rows of hosts stay for ever, or go with 10,000 others in a transaction that commands
    wait for.
    """
    hosts = tuple(f"h{number}" for number in range(store.PRUNED_MAX + 7))
    sqlite = fleet_db.open_for_writing(tmp_path / "fleet.db")

    def put(run_id: str, number: int, finished_wall_s: float | None) -> list[Write]:
        state = RunState.RUNNING if finished_wall_s is None else RunState.SUCCEEDED
        run = Run(
            run_id, number, ["pull"], len(hosts), 5, None, 60.0, "ann", WALL_S, state=state,
            finished_wall_s=finished_wall_s, begun=len(hosts), succeeded=len(hosts) - (finished_wall_s is None),
        )  # fmt: skip
        parts = [HostPart(name, Part.SUCCEEDED, command_id=f"{run_id}{name}") for name in hosts]
        if finished_wall_s is None:
            parts[3] = msgspec.structs.replace(parts[3], part=Part.ACTIVE)
        rows: list[Write] = [Put("run_parts", part_key(run_id, part.host), part) for part in parts]
        return [Put("runs", run_id, run), Put("run_hosts", run_id, hosts), *rows]

    writes = put("old", 1, WALL_S - 91 * DAY_S) + put("new", 2, WALL_S - DAY_S) + put("open", 3, None)
    store.write(sqlite, CommitBatch(writes, Ledger(), 4, Position(1, 0), Now(0.0, WALL_S)), 0)
    found = store.restored(sqlite).rows
    assert dict(found["run_hosts"]) == {"open": hosts}, "of runs that have ended, only the disk keeps the hosts"
    assert [key for key, _ in found["run_parts"]] == [part_key("open", "h3")]
    assert store.prune(sqlite, Now(0.0, WALL_S - 2 * DAY_S), "boot", 90 * DAY_S, 1 << 30) == 0
    bites = []
    while gone := store.prune(sqlite, Now(2 * DAY_S, WALL_S), "boot", 90 * DAY_S, 1 << 30):
        bites.append(gone)
    assert bites == [store.PRUNED_MAX, 7 + 2]
    assert fleet_db.whole_run(sqlite, "old") is None
    for table in ("run_hosts", "run_parts"):
        left = sqlite.execute(f"SELECT DISTINCT run FROM {table} ORDER BY run").fetchall()
        assert left == [("new",), ("open",)]
    for run_id in ("new", "open"):
        view = fleet_db.whole_run(sqlite, run_id)
        assert view is not None
        assert [each.host for each in view.hosts] == list(hosts)
        assert sum(each.state is Part.SUCCEEDED for each in view.hosts) == view.succeeded
    sqlite.close()


def test_a_row_of_a_run_is_dropped_by_its_run_and_host(tmp_path: Path) -> None:
    sqlite = fleet_db.open_for_writing(tmp_path / "fleet.db")
    writes: list[Write] = [Put("run_parts", part_key("r", name), HostPart(name, Part.ACTIVE)) for name in "ab"]
    writes.append(Drop("run_parts", part_key("r", "a")))
    store.write(sqlite, CommitBatch(writes, Ledger(), 1, Position(1, 0), Now(0.0, WALL_S)), 0)
    assert [part.host for _, part in fleet_db.open_parts(sqlite)] == ["b"]
    sqlite.close()


@pytest.mark.parametrize("name", ["SQLITE_IOERR", "SQLITE_IOERR_FSYNC", "SQLITE_CORRUPT", "SQLITE_READONLY"])
def test_an_error_of_the_disk_in_a_commit_is_raised_and_never_taken_for_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Nor tried again: after a sync that failed nobody knows what is on the disk. The hub ends by it."""

    async def work() -> None:
        async with opened_store(tmp_path / "fleet.db") as opened:
            tried = []

            def failing(*_: object) -> None:
                tried.append(name)
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode, error.sqlite_errorname = getattr(sqlite3, name), name
                raise error

            monkeypatch.setattr(store, "commit", failing)
            batch = CommitBatch([], Ledger(), 1, Position(1, 0), Now(0.0, WALL_S))
            with pytest.raises(store.StorageBroken, match=name):
                await opened.commit(batch, lambda _: None)
            assert (tried, opened.written) == ([name], 0)

    asyncio.run(work())


HOSTILE = ["' OR 1=1 --", "x'); DROP TABLE hosts; --", '"; DELETE FROM audit; --', "%", "_", "a\x00b", "?", ":kind"]


def test_words_from_outside_are_values_of_statements_and_never_statements(tmp_path: Path) -> None:
    sqlite = fleet_db.open_for_writing(tmp_path / "fleet.db")
    writes = [Put("hosts", word, HostRecord(word, word, word, WALL_S)) for word in ("web1", *HOSTILE)]
    store.write(sqlite, CommitBatch(list(writes), Ledger(), 1, Position(1, 0), Now(0.0, WALL_S)), 0)
    assert {host.name for host in fleet_db.hosts(sqlite)} == {"web1", *HOSTILE}
    for word in HOSTILE:
        assert fleet_db.audit(sqlite, kind=word, subject=word, actor=word) == []
        assert fleet_db.commands(sqlite, host=word) == []
        assert fleet_db.output(sqlite, word, 0) == []
    store.write(
        sqlite, CommitBatch([Drop("hosts", word) for word in HOSTILE], Ledger(), 2, Position(1, 0), Now(0.0, WALL_S)), 0
    )
    assert [host.name for host in fleet_db.hosts(sqlite)] == ["web1"]
    sqlite.close()
