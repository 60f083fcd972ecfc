"""The verb `store migrate`: the truth goes from the state folder's SQLite into PostgreSQL, or back."""

from __future__ import annotations

import sqlite3

import click
import msgspec

from processes.adapters.settings import Settings, load, store_fault
from processes.adapters.state.fleet_db import DatabaseUnreadable
from processes.cli.machine import environment
from processes.cli.terminal import output
from processes.cli.terminal.failure import EXIT_USAGE, Failure
from processes.cli.terminal.options import as_json
from processes.cli.terminal.text import count
from processes.core.errors import LocalError

SQLITE = "sqlite"
AGAIN = "Mend that, then type the same again: it goes on where it stood."


class Planned(msgspec.Struct, frozen=True):
    """What would be moved: the rows of each table."""

    to: str
    tables: dict[str, int]


@click.group("store")
def store() -> None:
    """Move the fleet's database between the state folder and PostgreSQL."""


@store.command("migrate")
@click.option("--to", required=True, metavar="URL|sqlite", help="A PostgreSQL; or sqlite, the state folder's file.")
@click.option("--dry-run", is_flag=True, help="Say what would be moved, and change nothing.")
@as_json
def migrate(*, to: str, dry_run: bool, as_json: bool) -> None:
    """Move everything from SQLite into an empty PostgreSQL (--to URL), or from store.url back (--to sqlite).

    Only while nothing runs: type fleethub down first, on every machine. Everything is copied and compared, and only
    then may a hub begin there, and no more where it was. Killed or cut off in between, it goes on when it is typed
    again. The settings are yours: it prints the lines to change. This machine only.
    """
    settings = load()
    _check(settings, to)
    environment.make_folders(settings)
    import psycopg  # noqa: PLC0415  # only where it is wanted: its import takes 0.2 s

    from processes.cli.machine import store_move  # noqa: PLC0415

    told = output.progress
    try:
        if dry_run:
            _planned(to, store_move.planned(settings, to), as_json)
            return
        done = store_move.into_sqlite(settings, told) if to == SQLITE else store_move.into_postgres(settings, to, told)
    except psycopg.Error as error:
        raise Failure("postgres", f"PostgreSQL says: {' '.join(str(error).split())}", AGAIN) from None
    except (LocalError, DatabaseUnreadable, sqlite3.Error) as error:
        raise Failure("not_moved", f"it was not moved: {error}", AGAIN) from None
    except OSError as error:
        why = f"{error.filename or ''}: {error.strerror or error}".lstrip(": ")
        raise Failure("not_moved", f"it was not moved: {why}", AGAIN) from None
    if as_json:
        output.document(done)
        return
    rows = count(sum(done.tables.values()), "row")
    output.say(f"{rows} are there already, moved before" if done.was_there else f"{rows} moved and compared")
    if done.kept:
        output.say(f"the replaced file is kept: {done.kept}")
    _say_lines(settings, to)


def _check(settings: Settings, to: str) -> None:
    """Raises: Failure, if there is no such way to go."""
    url = settings.file.store.url
    if to != SQLITE and (fault := store_fault(to)):
        raise Failure("usage", f"--to {fault}", "Or: --to sqlite", EXIT_USAGE)
    if to == SQLITE and not url:
        raise Failure("there", "the state folder's SQLite has the truth already: there is no store.url")
    if to != SQLITE and url:
        raise Failure(
            "elsewhere",
            "store.url says that PostgreSQL has the truth already",
            "If it was written before the move, take it out of the settings until the move is done. From one "
            "PostgreSQL to another: pg_dump.",
        )


def _planned(to: str, tables: dict[str, int], as_json: bool) -> None:
    if as_json:
        output.document(Planned(to, tables))
        return
    for name, number in tables.items():
        output.say(f"{name}: {count(number, 'row')}")
    output.say("nothing was moved; only while nothing runs it is: fleethub down")


def _say_lines(settings: Settings, to: str) -> None:
    if to == SQLITE:
        output.say(f"now take these lines out of {settings.config}, then start it: {environment.program()} up")
        output.say("[store]")
        output.say(f'url = "{settings.file.store.url}"')
    else:
        output.say(f"now write these two lines into {settings.config}, then start it: {environment.program()} up")
        output.say("[store]")
        output.say(f'url = "{to}"')
