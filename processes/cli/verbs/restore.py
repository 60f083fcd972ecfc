"""The verb `restore`: a backup takes the place of the database, or nothing has changed; never anything between.

The backup is copied, checked and made fit beside the database, then takes its place (machine/replacement.py).
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path

import click
import msgspec

from processes.adapters.settings import Settings, load
from processes.adapters.state import audit_trail, fleet_db, fleet_schema, revocations
from processes.adapters.state.fleet_db import DatabaseUnreadable
from processes.cli.machine import environment, replacement
from processes.cli.terminal import output
from processes.cli.terminal.failure import Failure
from processes.cli.terminal.options import as_json
from processes.cli.terminal.text import count
from processes.cli.verbs import backup
from processes.core.cli import rollback
from processes.core.cli.rollback import Rollback
from processes.core.travels import audit_chain
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
    environment.refuse_elsewhere(settings, "restore")
    environment.make_folders(settings)
    try:
        with replacement.standing_still(settings):
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


def _restored(settings: Settings, file: Path) -> Done:
    if settings.database.exists() and file.samefile(settings.database):
        raise Failure("same_file", f"{file} is the database itself", "Name a backup.")
    if not file.is_file():  # a pipe would be waited for, a device be read for ever
        raise Failure("bad_backup", f"nothing was restored: {file} is no regular file", "Name a backup.")
    contents = backup.checked(file)
    fresh = replacement.empty_place(settings)
    backup.copy(file, fresh)
    changed = _made_fit(fresh, settings, file)
    backup.checked(fresh)
    kept = replacement.take_place(settings, fresh)
    return Done(
        str(file.absolute()), contents.hosts, len(changed.commands), changed.revoked, str(kept[0]) if kept else None
    )


def _made_fit(fresh: Path, settings: Settings, file: Path) -> Rollback:
    """Make the copy one of our version, and change it as core/cli/rollback.py says, in one transaction.

    Raises: DatabaseUnreadable, OSError.
    """
    now_wall_s = time.time()
    void = revocations.beside(settings.database)
    revocations.add(void, _superseded(settings))
    revoked = revocations.read(void)
    try:
        with contextlib.closing(sqlite3.connect(fresh, isolation_level=None)) as sqlite:
            if foreign := fleet_db.foreign_schema(sqlite, file):  # of what was copied, before anything is written
                raise DatabaseUnreadable(foreign)
            fleet_schema.migrate(sqlite)
            opened = [
                command
                for command in fleet_db.commands(sqlite, limit=-1, open_only=True)
                if command.host != CANARY_HOST
            ]
            runs = [run for run in fleet_db.runs(sqlite, limit=-1) if run.open]
            hosts, parts, ledger = fleet_db.hosts(sqlite), fleet_db.open_parts(sqlite), fleet_db.ledger(sqlite)
            changed = rollback.restored(
                hosts, opened, runs, ledger, parts=parts, revoked=revoked, now_wall_s=now_wall_s
            )
            sqlite.execute("BEGIN IMMEDIATE")
            _put(sqlite, changed)
            sqlite.execute("DELETE FROM commands WHERE host = ?", (CANARY_HOST,))  # a canary round was under way
            sqlite.executemany("DELETE FROM tokens WHERE token_hash = ?", [(token_hash,) for token_hash in revoked])
            made_at = rfc3339(file.stat().st_mtime)
            replacement.put_epoch(sqlite, settings)
            reason = audit_chain.replaced(replacement.replaced_head(settings))
            audit_trail.add(
                sqlite, now_wall_s, Kind.DATABASE, made_at or "", audit_chain.RESTORED,
                actor=rollback.ACTOR, reason=reason,
            )  # fmt: skip
            sqlite.execute("COMMIT")
    except (sqlite3.Error, ValueError, msgspec.DecodeError) as error:
        raise DatabaseUnreadable(f"{file} cannot be used: {error}") from None
    return changed


def _superseded(settings: Settings) -> list[str]:
    """Return the hashes of tokens that a rotation has replaced and that are good for a while yet. A restore ends that:
    the backup knows nothing of it, and would let them in for good.
    """
    try:
        tokens = fleet_db.reading(settings.database, fleet_db.tokens)
    except DatabaseUnreadable:
        return []
    return [token.token_hash for token in tokens if token.replaced_by]


def _put(sqlite: sqlite3.Connection, changed: Rollback) -> None:
    for host in changed.hosts:
        sqlite.execute("UPDATE hosts SET record = ? WHERE name = ?", (_text(host), host.name))
    for command in changed.commands:
        ended = (command.state, command.finished_wall_s, _text(command), command.number)
        sqlite.execute(
            "UPDATE commands SET state = ?, open = 0, finished_wall_s = ?, record = ? WHERE number = ?", ended
        )
    for step in changed.transitions:
        audit_trail.add(
            sqlite, step.at_wall_s, Kind.COMMAND, step.command_id, step.after,
            actor=step.actor, before=step.before, reason=step.reason,
        )  # fmt: skip
    for run in changed.runs:
        over = (run.finished_wall_s, _text(run), run.number)
        sqlite.execute("UPDATE runs SET open = 0, finished_wall_s = ?, record = ? WHERE number = ?", over)
    for run_id, part in changed.parts:
        left = (_text(part), run_id, part.host)
        sqlite.execute("UPDATE run_parts SET open = 0, record = ? WHERE run = ? AND host = ?", left)
    sqlite.execute("UPDATE meta SET value = ? WHERE key = 'ledger'", (_text(changed.ledger),))


def _text(record: msgspec.Struct) -> str:
    return msgspec.json.encode(record).decode()
