"""The verb `backup`: copies the fleet's database into one file while the hub goes on writing, and checks it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from processes.adapters.settings import load
from processes.adapters.state import durable, fleet_db
from processes.adapters.state.fleet_db import DatabaseUnreadable
from processes.cli.terminal import output
from processes.cli.terminal.failure import Failure
from processes.cli.terminal.options import as_json
from processes.cli.terminal.text import count
from processes.core.records.ledger import Ledger
from processes.core.values import CANARY_HOST


class Contents(msgspec.Struct, frozen=True):
    """What a good backup holds."""

    file: str
    size_bytes: int
    epoch: int
    hosts: int
    commands: Ledger


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@as_json
def backup(file: Path, as_json: bool) -> None:
    """Copy the fleet's database (hosts, commands, output, tokens' hashes) into FILE, while everything goes on.

    The copy is whole, checked, and readable by you alone. It does not hold the settings, operator.token and this
    machine's incidents. This machine only.
    """
    source = load().database
    if file.exists():
        raise Failure("exists", f"{file} exists already, and a backup never replaces a file", "Choose another name.")
    fresh = file.absolute().with_name(f".{file.name}.{os.getpid()}")
    try:
        copy(source, fresh)
        contents = msgspec.structs.replace(checked(fresh), file=str(file.absolute()))
        os.link(fresh, file)  # fails if somebody has made it meanwhile
        durable.sync_folder(fresh.parent)
    except DatabaseUnreadable as error:
        raise Failure("no_backup", f"nothing was backed up: {error}", "fleethub doctor says more.") from None
    except OSError as error:
        raise Failure(
            "no_backup", f"nothing was backed up: {file}: {error.strerror or error}", "Choose another place."
        ) from None
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink()
    if as_json:
        output.document(contents)
    else:
        held = f"{count(contents.hosts, 'host')}, {count(contents.commands.accepted, 'command')}"
        output.say(f"{file}: {held}, {contents.size_bytes} bytes, checked")


def copy(source: Path, target: Path) -> None:
    """Copy the database, as it is at one moment, into the file `target`: synced to disk, and this user's alone.

    Cost: one read transaction, beside which writers go on. Raises: DatabaseUnreadable, OSError.
    """
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    connection = fleet_db.open_for_reading(source)
    try:
        with contextlib.closing(sqlite3.connect(target, isolation_level=None)) as to:
            connection.backup(to)
            to.execute("PRAGMA journal_mode = DELETE")  # otherwise the copy would need a -wal file beside it
    except sqlite3.Error as error:
        raise DatabaseUnreadable(f"{source} cannot be copied: {error}") from None
    finally:
        connection.close()
    durable.sync_file(target)


def checked(file: Path, *, whole: bool = True) -> Contents:
    """Check a database file, and return what it holds.

    Checked are the pages by SQLite itself (if `whole`), the version of the schema, and the ledger against the rows.
    Raises: DatabaseUnreadable, which says what is wrong.
    """
    with _opened(file) as connection:
        damage = [str(row[0]) for row in connection.execute("PRAGMA quick_check(5)")] if whole else ["ok"]
        if damage != ["ok"]:
            raise DatabaseUnreadable(f"{file} is damaged: {'; '.join(damage)}")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version != fleet_db.SCHEMA_VERSION:
            raise DatabaseUnreadable(
                f"{file} has schema version {version}, and this fleethub knows {fleet_db.SCHEMA_VERSION}"
            )
        ledger = fleet_db.ledger(connection)
        rows = connection.execute(
            "SELECT state, count(*) FROM commands WHERE open AND host != ? GROUP BY state", (CANARY_HOST,)
        )
        opened = dict(rows.fetchall())
        if not ledger.balanced or any(
            getattr(ledger, state) != opened.get(state, 0) for state in ("queued", "sent", "running")
        ):
            raise DatabaseUnreadable(f"{file} does not add up: its ledger says {ledger}, its rows {opened}")
        return Contents(
            str(file), file.stat().st_size, fleet_db.epoch(connection), len(fleet_db.hosts(connection)), ledger
        )


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[sqlite3.Connection]:
    connection = fleet_db.open_for_reading(file)
    try:
        yield connection
    except (sqlite3.Error, msgspec.DecodeError, ValueError) as error:
        raise DatabaseUnreadable(f"{file} cannot be read: {error}") from None
    finally:
        connection.close()
