"""The verb `restore`: a backup takes the place of the database, or nothing has changed; never anything between.

The backup is copied beside the database (fleet.db.restoring), checked, and changed as core/cli/rollback.py says. Its
rename to fleet.db.restored is the point of no return: if we are killed after that, the next hub or the next `restore`
completes the restore (fleet_db.finish_restore).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from processes.adapters.settings import Settings, load
from processes.adapters.state import durable, fleet_db, lock, revocations
from processes.adapters.state.fleet_db import DatabaseUnreadable
from processes.cli.machine import environment, own_processes
from processes.cli.terminal import output
from processes.cli.terminal.failure import Failure
from processes.cli.terminal.options import as_json
from processes.cli.terminal.text import count
from processes.cli.verbs import backup
from processes.core.cli import rollback
from processes.core.cli.rollback import Rollback
from processes.core.errors import ResourceError
from processes.core.travels.audit import Kind
from processes.core.values import CANARY_HOST, rfc3339


class Done(msgspec.Struct, frozen=True):
    """What was restored. `lost`: commands that were not final. `revoked`: hosts whose tokens were revoked since."""

    restored: str
    hosts: int
    lost: int
    revoked: int
    replaced: str | None


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@as_json
def restore(file: Path, as_json: bool) -> None:
    """Put a backup in the place of the database, and keep the database aside.

    Only while nothing runs: type fleethub down first. Commands that were not final in the backup become lost (restored)
    and are never delivered. Hosts and tokens that were revoked since the backup stay revoked. This machine only.
    """
    settings = load()
    environment.make_folders(settings)
    try:
        with _standing_still(settings):
            fleet_db.finish_restore(settings.database)
            done = _restored(settings, file)
    except DatabaseUnreadable as error:
        raise Failure("bad_backup", f"nothing was restored: {error}", "Take another backup.") from None
    except OSError as error:
        why = f"{error.filename or ''}: {error.strerror or error}".lstrip(": ")
        raise Failure(
            "not_restored", f"the restore was not completed: {why}", "Mend that or make room, then restore again."
        ) from None
    if as_json:
        output.document(done)
        return
    were, are = ("was", "is") if done.lost == 1 else ("were", "are")
    stay = "stays" if done.revoked == 1 else "stay"
    output.say(f"restored {count(done.hosts, 'host')} from {file}")
    output.say(f"{count(done.lost, 'command')} that {were} not final in it {are} lost (restored)")
    output.say(f"{count(done.revoked, 'host')} that had been revoked since {stay} revoked")
    if done.replaced:
        output.say(f"the replaced database is kept: {done.replaced}")
    output.say(f"start it: {environment.program()} up")


@contextlib.contextmanager
def _standing_still(settings: Settings) -> Iterator[None]:
    """Make sure that nothing of this installation runs or starts while this context is open. Raises: Failure."""
    advice = "End it first: fleethub down"
    try:
        held = [lock.hold(lock.place(settings.run, "up"))]
    except ResourceError:
        raise Failure("running", "somebody is just starting this installation", advice) from None
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


def _restored(settings: Settings, file: Path) -> Done:
    if settings.database.exists() and file.samefile(settings.database):
        raise Failure("same_file", f"{file} is the database itself", "Name a backup.")
    contents = backup.checked(file)
    fresh = fleet_db.restoring_name(settings.database)
    for suffix in ("", "-journal"):
        fresh.with_name(fresh.name + suffix).unlink(missing_ok=True)  # left by a restore that was interrupted
    backup.copy(file, fresh)
    changed = _made_fit(fresh, revocations.read(revocations.beside(settings.database)), file)
    backup.checked(fresh)
    durable.sync_file(fresh)
    aside = _kept_aside(settings)
    fresh.replace(fleet_db.restored_name(settings.database))
    durable.sync_folder(settings.state)
    fleet_db.finish_restore(settings.database)
    return Done(
        str(file.absolute()), contents.hosts, len(changed.commands), changed.revoked, str(aside) if aside else None
    )


def _kept_aside(settings: Settings) -> Path | None:
    """Link the database and its write-ahead log under another name, which takes no time and no room.

    Returns that name; None if there is no database.
    """
    if not settings.database.exists():
        return None
    folder = settings.replaced
    folder.mkdir(mode=0o700, exist_ok=True)
    aside = folder / time.strftime("fleet-%Y%m%dT%H%M%SZ.db", time.gmtime())
    number = 1
    while aside.exists():
        number += 1
        aside = aside.with_name(f"{aside.name.partition('Z')[0]}Z-{number}.db")
    for suffix in ("-wal", ""):
        source = settings.database.with_name(settings.database.name + suffix)
        if source.exists():
            os.link(source, aside.with_name(aside.name + suffix))
    durable.sync_folder(folder)
    return aside


def _made_fit(fresh: Path, revoked: frozenset[str], file: Path) -> Rollback:
    """Change the copy as core/cli/rollback.py says, in one transaction. Raises: DatabaseUnreadable."""
    now_wall_s = time.time()
    try:
        with contextlib.closing(sqlite3.connect(fresh, isolation_level=None)) as sqlite:
            opened = [
                command
                for command in fleet_db.commands(sqlite, limit=-1, open_only=True)
                if command.host != CANARY_HOST
            ]
            runs = [run for run in fleet_db.runs(sqlite, limit=-1) if run.open]
            hosts, ledger = fleet_db.hosts(sqlite), fleet_db.ledger(sqlite)
            changed = rollback.restored(hosts, opened, runs, ledger, revoked=revoked, now_wall_s=now_wall_s)
            sqlite.execute("BEGIN IMMEDIATE")
            _put(sqlite, changed)
            sqlite.execute("DELETE FROM commands WHERE host = ?", (CANARY_HOST,))  # a canary round was under way
            sqlite.executemany("DELETE FROM tokens WHERE token_hash = ?", [(token_hash,) for token_hash in revoked])
            made_at = rfc3339(file.stat().st_mtime)
            sqlite.execute(_AUDIT, (now_wall_s, Kind.DATABASE, made_at, None, "restored", "", rollback.ACTOR))
            sqlite.execute("COMMIT")
    except (sqlite3.Error, ValueError, msgspec.DecodeError) as error:
        raise DatabaseUnreadable(f"{file} cannot be used: {error}") from None
    return changed


_AUDIT = "INSERT INTO audit (at_wall_s, kind, subject, before, after, reason, actor) VALUES (?, ?, ?, ?, ?, ?, ?)"


def _put(sqlite: sqlite3.Connection, changed: Rollback) -> None:
    for host in changed.hosts:
        sqlite.execute("UPDATE hosts SET record = ? WHERE name = ?", (_text(host), host.name))
    for command in changed.commands:
        ended = (command.state, command.finished_wall_s, _text(command), command.number)
        sqlite.execute(
            "UPDATE commands SET state = ?, open = 0, finished_wall_s = ?, record = ? WHERE number = ?", ended
        )
    for step in changed.transitions:
        sqlite.execute(
            _AUDIT, (step.at_wall_s, Kind.COMMAND, step.command_id, step.before, step.after, step.reason, step.actor)
        )
    for run in changed.runs:
        over = (run.finished_wall_s, _text(run), run.number)
        sqlite.execute("UPDATE runs SET open = 0, finished_wall_s = ?, record = ? WHERE number = ?", over)
    sqlite.execute("UPDATE meta SET value = ? WHERE key = 'ledger'", (_text(changed.ledger),))


def _text(record: msgspec.Struct) -> str:
    return msgspec.json.encode(record).decode()
