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
from processes.cli.machine import environment
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
    settings = load()
    environment.refuse_elsewhere(settings, "backup")
    source = settings.database
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
    """Make `target` a whole copy of the database (fleet_db.copy). Raises: DatabaseUnreadable, OSError."""
    with contextlib.closing(fleet_db.open_for_reading(source)) as connection:
        try:
            fleet_db.copy(connection, target)
        except sqlite3.Error as error:
            raise DatabaseUnreadable(f"{source} cannot be copied: {error}") from None


def checked(file: Path, *, whole: bool = True) -> Contents:
    """Check a database file, and return what it holds.

    Checked are the pages by SQLite itself (if `whole`), the version of the schema, and the ledger against the rows.
    Raises: DatabaseUnreadable, which says what is wrong.
    """
    with _opened(file) as connection:
        damage = [str(row[0]) for row in connection.execute("PRAGMA quick_check(5)")] if whole else ["ok"]
        if damage != ["ok"]:
            raise DatabaseUnreadable(f"{file} is damaged: {'; '.join(damage)}")
        fleet_db.refuse_newer(connection, file)
        if foreign := fleet_db.foreign_schema(connection, file):
            raise DatabaseUnreadable(foreign)
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
