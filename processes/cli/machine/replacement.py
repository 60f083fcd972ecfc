"""Another database in the place of the fleet's: it is the old one or the new one, whatever kills us, and the old one is
kept.

The new one is made fit beside the database (fleet.db.restoring). Renamed to fleet.db.restored it is certain: should we
be killed after that, the next hub, or the next verb that comes here, completes it (fleet_db.finish_restore).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from processes.adapters.settings import Settings
from processes.adapters.state import audit_trail, durable, epoch_file, fleet_db, fleet_schema, lock, sqlite_file
from processes.cli.machine import own_processes, supervision
from processes.cli.terminal.failure import Failure
from processes.core.cli import rollback
from processes.core.errors import ResourceError
from processes.core.travels import audit_chain
from processes.core.travels.audit import Head, Kind

LOCK_S_MAX = 1.0  # nobody has a lock on it while the installation stands still
PUT_META = "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"


@contextlib.contextmanager
def standing_still(settings: Settings, *, up_is_ours: bool = False) -> Iterator[None]:
    """Nothing of this installation runs, and nothing starts meanwhile. `up_is_ours`: we hold the lock of `up`.

    Raises: Failure.
    """
    supervision.check_ours(settings)
    advice = "End it first: fleethub down"
    held: list[int] = []
    try:
        if not up_is_ours:
            held.append(lock.hold(lock.place(settings.run, "up")))
    except ResourceError:
        raise Failure("running", "somebody is starting this installation just now", advice) from None
    try:
        if own_processes.supervisord_of(settings) is not None or own_processes.members_of(settings):
            raise Failure(
                "running",
                f"the installation of {settings.state} runs, and would write into what is being replaced",
                advice,
            )
        held.append(lock.hold(lock.place(settings.run, "hub")))
        yield
    except ResourceError as error:
        raise Failure("running", f"a hub runs: {error}", advice) from None
    finally:
        for descriptor in held:
            os.close(descriptor)


def empty_place(settings: Settings) -> Path:
    """Return where the new database is to be made; what an interrupted one left there is gone. Raises: OSError."""
    fresh = fleet_db.restoring_name(settings.database)
    for suffix in ("", "-journal"):
        fresh.with_name(fresh.name + suffix).unlink(missing_ok=True)
    return fresh


def take_place(settings: Settings, fresh: Path) -> list[Path]:
    """Put the database at `fresh` in the place of the other; return where that is kept: its file, its log, or nothing.

    Raises: OSError.
    """
    durable.sync_file(fresh)
    kept = _kept_aside(settings)
    fresh.replace(fleet_db.restored_name(settings.database))
    durable.sync_folder(settings.state)
    fleet_db.finish_restore(settings.database)
    return kept


def put_epoch(sqlite: sqlite3.Connection, settings: Settings) -> None:
    """Let the database know a newer epoch than any that ran here, so that a hub may begin with it. Raises: OSError."""
    newest = max(fleet_db.epoch(sqlite), epoch_file.read(settings.epoch_file))
    sqlite.execute(PUT_META, ("epoch", str(newest + 1)))


def replaced_head(settings: Settings) -> Head:
    """Return the head of the audit trail in the database that is replaced; an empty one, if that cannot be read."""
    try:
        with contextlib.closing(sqlite_file.open_for_reading(settings.database, LOCK_S_MAX, still=True)) as sqlite:
            return audit_trail.head(sqlite)
    except (OSError, sqlite_file.NoFile, sqlite3.Error, ValueError):
        return Head(0, "")


def begin_anew(settings: Settings) -> list[Path]:
    """Put an empty database in the place of the fleet's; return where what was there is kept.

    Raises: OSError, sqlite3.Error.
    """
    fleet_db.finish_restore(settings.database)
    fresh = empty_place(settings)
    os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with contextlib.closing(sqlite3.connect(fresh, isolation_level=None)) as sqlite:
        fleet_schema.migrate(sqlite)
        put_epoch(sqlite, settings)
        reason = audit_chain.replaced(replaced_head(settings))
        audit_trail.add(
            sqlite, time.time(), Kind.DATABASE, "", audit_chain.BEGUN_ANEW, actor=rollback.ACTOR, reason=reason
        )
    return take_place(settings, fresh)


def _kept_aside(settings: Settings) -> list[Path]:
    """The database as it is, log included, under other names: the same files, so it costs nothing and holds what they
    hold.
    """
    aside = fleet_db.aside_name(settings.database)
    kept = []
    for suffix in ("-wal", ""):
        source = settings.database.with_name(settings.database.name + suffix)
        if source.exists():
            aside.parent.mkdir(mode=0o700, exist_ok=True)
            kept.append(aside.with_name(aside.name + suffix))
            os.link(source, kept[-1])
    if kept:
        durable.sync_folder(aside.parent)
    return kept[::-1]
