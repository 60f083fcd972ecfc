"""The truth moves from the state folder's SQLite into PostgreSQL, or back, while no hub runs.

Until the last transaction the one is the truth and the other an unfinished copy that no hub begins with; after it the
other way round. From SQLite: the copy in PostgreSQL holds a lease without end, and in the end gets an epoch above all
that ran here, which the file `epoch` is then raised to, so that no hub begins with the old file. From PostgreSQL: we
hold the lease while we read, so no hub of another machine can write, and in the end keep it for good; the copy is made
beside the database and takes its place as a restored one does (replacement.py).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from processes.adapters.postgres import connection as postgres
from processes.adapters.postgres import copying, lease, schema
from processes.adapters.postgres.connection import Psycopg, transaction
from processes.adapters.postgres.copying import MOVED, MOVING, Copying, Mark
from processes.adapters.postgres.sql import Sql
from processes.adapters.settings import Settings
from processes.adapters.state import audit_trail, epoch_file, fleet_db, fleet_schema
from processes.adapters.state.reading import Reading
from processes.cli.machine import replacement
from processes.cli.terminal.failure import Failure
from processes.core.travels import audit_chain
from processes.core.travels.audit import Kind

Told = Callable[[str], None]
LEASE_S: Final = 30.0  # of the database that is read: it is renewed with each batch, which takes milliseconds
WAIT_S_MAX: Final = 31.0  # for the lease of a hub that was killed; no `hub.lease_s` is longer than 30 s
PREFIX: Final = "moving "  # in the column `home` of a database that no hub may begin with
ACTOR: Final = "store migrate"
EMPTY: Final = "Make an empty database for it, with CREATE DATABASE, and name that one."


class Moved(msgspec.Struct, frozen=True):
    """What was moved: the rows of each table, and the epoch both know now. `was_there`: it had been done before."""

    to: str
    tables: dict[str, int]
    epoch: int
    was_there: bool = False
    kept: str | None = None


class _Row(NamedTuple):
    """The row of the table hub. `left_s`: until the lease ends."""

    epoch: int
    holder: str
    home: str
    commits: int
    left_s: float


def home(settings: Settings) -> str:
    """Return which installation this is."""
    return f"{PREFIX}{settings.machine} {settings.state}"


def planned(settings: Settings, url: str) -> dict[str, int]:
    """Return how many rows of each table there are to move, if they could be moved now; nothing is changed.

    Raises: Failure; psycopg.Error; sqlite3.Error; DatabaseUnreadable.
    """
    if settings.file.store.url:
        with postgres.opened_for_reading(settings.file.store.url, "reader") as psql:
            return copying.counts(Sql(psql))
    with postgres.opened_for_reading(url, "reader") as psql, _source(settings) as source:
        if schema.version_of(psql):
            _whose(Sql(psql), psql, home(settings), fleet_db.epoch(source), url)
        return copying.counts(source)


def into_postgres(settings: Settings, url: str, told: Told) -> Moved:
    """Move the truth into PostgreSQL. Raises: Failure, and nothing has changed here; psycopg.Error; sqlite3.Error;
    PostgresUnfit; DatabaseUnreadable; OSError.
    """
    own = home(settings)
    with replacement.standing_still(settings), postgres.opened_for_writing(url, "move") as psql:
        fleet_db.finish_restore(settings.database)
        schema.migrate(psql)
        target = Sql(psql)
        with _source(settings) as source:
            epoch = fleet_db.epoch(source)
            stands = _whose(target, psql, own, epoch, url)
            if stands == MOVED:
                done = Moved("postgresql", copying.counts(target), _row(psql).epoch, was_there=True)
            else:
                if refusal := fleet_db.refusal(settings.database, settings.epoch_file, None):
                    raise Failure("old_database", f"nothing was moved: {refusal}", "Bring the newer one back.")
                begun = copying.mark(target, MOVING) if stands == MOVING else None
                work = Copying(source, target, begun or Mark(own, epoch), told=told)
                if begun is None:
                    if _row(psql).home != own:
                        _close(psql, own)
                    work.begin_anew()
                work.copy()
                done = Moved("postgresql", work.verify(), _open(settings, psql, work, epoch, own))
        epoch_file.write(settings.epoch_file, max(done.epoch, epoch_file.read(settings.epoch_file)))
    return done


def into_sqlite(settings: Settings, told: Told) -> Moved:
    """Move the truth from PostgreSQL into the state folder. Raises: as `into_postgres`."""
    own = home(settings)
    with (
        replacement.standing_still(settings),
        postgres.opened_for_writing(settings.file.store.url, "hub") as psql,
    ):
        fleet_db.finish_restore(settings.database)
        schema.migrate(psql)
        before, fresh = _row(psql), fleet_db.restoring_name(settings.database)
        if before.home == own and before.holder == MOVED:
            _close(psql, own, holder=MOVED)
            return _ended(settings, before.epoch)
        epoch = _lease(settings, psql, before, own)
        beat = _Beat(psql, epoch)
        try:
            with _fresh(settings, own, before) as (target, is_begun):
                begun = Mark(own, epoch)
                if is_begun and (found := copying.mark(target, MOVING)):
                    begun = msgspec.structs.replace(found, epoch=epoch)
                work = Copying(Sql(psql), target, begun, beat=beat, told=told)
                if is_begun:
                    with copying.one_transaction(target):
                        copying.put_mark(target, MOVING, begun)
                else:
                    work.begin_anew()
                work.copy()
                tables = work.verify()
                with copying.one_transaction(target):
                    work.copy_meta()
                    work.verify_meta()
                    copying.put_meta(target, "epoch", str(epoch))
                    replacement.put_epoch(target, settings)
                    _settle(target, own, epoch, "from PostgreSQL into the state folder")
            beat()
            _close(psql, own, holder=MOVED)
        except BaseException:
            with contextlib.suppress(Exception):
                lease.release(psql, epoch)
            raise
        kept = replacement.take_place(settings, fresh)
    return Moved("sqlite", tables, epoch, kept=str(kept[0]) if kept else None)


@contextlib.contextmanager
def _source(settings: Settings) -> Iterator[sqlite3.Connection]:
    """Open the state folder's database, of our version. Raises: Failure, DatabaseUnreadable, sqlite3.Error."""
    with contextlib.closing(fleet_db.open_for_reading(settings.database)) as source:
        fleet_db.refuse_newer(source, settings.database)
        if foreign := fleet_db.foreign_schema(source, settings.database):
            raise Failure("bad_database", f"nothing was moved: {foreign}", "fleethub doctor says more.")
        if (version := fleet_schema.version_of(source)) < fleet_schema.VERSION:
            raise Failure(
                "old_version",
                f"nothing was moved: {settings.database} is of version {version}, and this fleethub writes "
                f"{fleet_schema.VERSION}",
                "fleethub up, then fleethub down, brings it up to date.",
            )
        damage = [str(row[0]) for row in source.execute("PRAGMA quick_check(5)")]
        if damage != ["ok"]:
            raise Failure("bad_database", f"it is damaged: {'; '.join(damage)}", "Restore a backup first.")
        yield source


def _row(psql: Psycopg) -> _Row:
    found = psql.execute(
        "SELECT epoch, holder, home, commits, extract(epoch FROM expires - clock_timestamp())::float8 FROM hub"
    ).fetchone()
    assert found is not None
    return _Row(*found)


def _whose(target: Reading, psql: Psycopg, own: str, epoch: int, url: str) -> str:
    """Return how the database stands that is to become the truth: MOVING, our own unfinished copy of the same; MOVED,
    it is done; empty: there is nothing in it that counts. Raises: Failure.
    """
    row = _row(psql)
    moving, moved = copying.mark(target, MOVING), copying.mark(target, MOVED)
    if moving is not None and moving.home == own:
        return MOVING if moving.epoch == epoch else ""
    if moved is not None and (moved.home, moved.epoch) == (own, epoch) and row.commits == 0 and row.home == "":
        return MOVED
    if row.home == own and row.holder == MOVED:
        return ""  # from here the truth went into our state folder
    if moving is not None:
        raise Failure("taken", f"{url} holds an unfinished copy of another installation ({moving.home})", EMPTY)
    if row.epoch or any(copying.counts(target).values()):
        who = f", led last by {row.holder}" if row.holder else ""
        raise Failure("taken", f"{url} holds an installation already (hub {row.epoch}{who})", EMPTY)
    return ""


def _close(psql: Psycopg, own: str, holder: str = ACTOR) -> None:
    """Let no hub begin with the database. Raises: psycopg.Error."""
    psql.execute(
        "UPDATE hub SET holder = %s, home = %s, backend = NULL, expires = clock_timestamp() + interval '1000 years'",
        (holder, own),
    )


def _open(settings: Settings, psql: Psycopg, work: Copying, epoch: int, own: str) -> int:
    """Make the copy in PostgreSQL the truth, in one transaction; return its epoch. Raises: psycopg.Error, OSError."""
    newest = max(epoch, epoch_file.read(settings.epoch_file), _row(psql).epoch) + 1
    target = Sql(psql)
    with transaction(psql):
        work.copy_meta()
        work.verify_meta()
        copying.put_meta(target, "epoch", str(newest))
        copying.put_meta(target, "written", "0")
        _settle(target, own, epoch, "from the state folder into PostgreSQL")
        psql.execute(
            "UPDATE hub SET epoch = %s, holder = '', home = '', backend = NULL, commits = 0, "
            "expires = clock_timestamp()",
            (newest,),
        )
    return newest


def _settle(target: Reading, own: str, epoch: int, how: str) -> None:
    """Write into the copy that it is whole, and into its trail that it was moved."""
    audit_trail.add(target, time.time(), Kind.DATABASE, "", audit_chain.MOVED, actor=ACTOR, reason=how)
    target.execute("DELETE FROM meta WHERE key = ?", (MOVING,))
    copying.put_mark(target, MOVED, Mark(own, epoch))


class _Beat:
    """Keeps the lease of the database that is read, between two batches."""

    def __init__(self, psql: Psycopg, epoch: int) -> None:
        self._psql, self._epoch, self._commits = psql, epoch, _row(psql).commits

    def __call__(self) -> None:
        """Raises: Fenced, if a hub leads; psycopg.Error."""
        self._commits += 1
        with transaction(self._psql):
            lease.fence(self._psql, self._epoch, self._commits, LEASE_S)


def _lease(settings: Settings, psql: Psycopg, before: _Row, own: str) -> int:
    """Take the lease of the database that is read; return our epoch. Raises: Failure, WentBack, psycopg.Error."""
    beside = epoch_file.read(settings.epoch_file)
    for left_s in (before.left_s if before.home != own else 0.0, None):
        if left_s is not None and left_s > 0:
            time.sleep(min(left_s + 0.1, WAIT_S_MAX))  # of a hub that was killed
        taken = lease.acquire(psql, ACTOR, own, LEASE_S, epoch_beside=beside, young_s=0.0)
        if taken is not None:
            return taken.epoch
    raise Failure("running", f"a hub leads on another machine ({_row(psql).holder})", "There too: fleethub down.")


@contextlib.contextmanager
def _fresh(settings: Settings, own: str, before: _Row) -> Iterator[tuple[sqlite3.Connection, bool]]:
    """Open the file that becomes the database, and say whether it is a copy to go on with: nobody has led since."""
    fresh = fleet_db.restoring_name(settings.database)
    if fresh.exists() and not _goes_on(fresh, own, before):
        replacement.empty_place(settings)
    is_begun = fresh.exists()
    if not is_begun:
        os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with contextlib.closing(sqlite3.connect(fresh, isolation_level=None)) as target:
        fleet_schema.migrate(target)
        yield target, is_begun


def _goes_on(fresh: Path, own: str, before: _Row) -> bool:
    found = _mark_in(fresh, MOVING)
    return found is not None and (found.home, found.epoch) == (own, before.epoch) and before.home == own


def _mark_in(file: Path, key: str) -> Mark | None:
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(file, isolation_level=None)) as sqlite:
        return copying.mark(sqlite, key)
    return None


def _ended(settings: Settings, epoch: int) -> Moved:
    """Complete what was whole already when it was interrupted. Raises: Failure, OSError."""
    fresh = fleet_db.restoring_name(settings.database)
    for place in (fresh, settings.database):
        found = _mark_in(place, MOVED) if place.exists() else None
        if found is None or found.epoch != epoch:
            continue
        kept = replacement.take_place(settings, fresh) if place == fresh else []
        with contextlib.closing(fleet_db.open_for_reading(settings.database)) as sqlite:
            tables = copying.counts(sqlite)
        return Moved("sqlite", tables, epoch, was_there=True, kept=str(kept[0]) if kept else None)
    raise Failure(
        "moved_away",
        f"the truth has left this PostgreSQL for the state folder, as hub {epoch}, and {settings.database} is not it",
        "Restore a backup of it.",
    )
