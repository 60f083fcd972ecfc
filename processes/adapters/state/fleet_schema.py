"""The schema of the fleet's database, version by version, and how a file of an older version becomes one of ours.

A new file takes the same way: it is one of version 0, in which there is nothing yet. So what a file of the newest
version looks like is always what these statements make of nothing, and `differences` compares with that.

A new version is a new entry of MIGRATIONS; entries that were released never change.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from typing import Final

from processes.adapters.state.reading import Reading

# by version, from 1 on: what makes a file of the version before one of this version
MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
        "CREATE TABLE hosts (name TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID",
        """CREATE TABLE commands (
             number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, host TEXT NOT NULL, state TEXT NOT NULL,
             open INTEGER NOT NULL, created_wall_s REAL NOT NULL, finished_wall_s REAL, record TEXT NOT NULL)""",
        "CREATE INDEX commands_open ON commands (number) WHERE open",
        "CREATE INDEX commands_host ON commands (host, number)",
        """CREATE INDEX commands_run ON commands (json_extract(record, '$.run'), number)
             WHERE json_extract(record, '$.run') IS NOT NULL""",
        "CREATE INDEX commands_finished ON commands (finished_wall_s) WHERE NOT open",
        """CREATE TABLE runs (
             number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, open INTEGER NOT NULL, finished_wall_s REAL,
             record TEXT NOT NULL)""",
        "CREATE INDEX runs_open ON runs (number) WHERE open",
        """CREATE TABLE audit (
             number INTEGER PRIMARY KEY, at_wall_s REAL NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL,
             before TEXT, after TEXT NOT NULL, reason TEXT NOT NULL, actor TEXT NOT NULL)""",
        "CREATE INDEX audit_subject ON audit (subject, number)",
        "CREATE INDEX audit_rest ON audit (number) WHERE kind != 'command'",
        """CREATE TABLE output (
             command_id TEXT NOT NULL, offset INTEGER NOT NULL, stream TEXT NOT NULL, data TEXT NOT NULL,
             PRIMARY KEY (command_id, offset)) WITHOUT ROWID""",
        """CREATE TABLE replies (
             request_id TEXT PRIMARY KEY, at_wall_s REAL NOT NULL, status INTEGER NOT NULL, body TEXT NOT NULL)""",
        """CREATE TABLE keys (
             key TEXT PRIMARY KEY, digest TEXT NOT NULL, command_ids TEXT NOT NULL, at_wall_s REAL NOT NULL
           ) WITHOUT ROWID""",
        """CREATE TABLE tokens (
             token_hash TEXT PRIMARY KEY, role TEXT NOT NULL, label TEXT NOT NULL, created_wall_s REAL NOT NULL
           ) WITHOUT ROWID""",
        """CREATE TABLE deadletters (
             id TEXT PRIMARY KEY, at_wall_s REAL NOT NULL, record TEXT NOT NULL, event BLOB NOT NULL) WITHOUT ROWID""",
        "CREATE INDEX deadletters_at ON deadletters (at_wall_s)",
    ),
    (  # how much output there is, and whose is the oldest, without a look into every command once a minute
        """CREATE INDEX commands_output ON commands (finished_wall_s, json_extract(record, '$.output_bytes'))
             WHERE json_extract(record, '$.output_bytes') > 0""",
    ),
    (  # the lines of the audit trail become a chain, which begins behind those that are there
        "ALTER TABLE audit ADD COLUMN hash BLOB",
        """INSERT INTO meta SELECT 'audit_checkpoint', json_object('number', coalesce(max(number), 0), 'hash', '')
             FROM audit""",
    ),
    (  # operators' tokens: until when they are good, when they were last used, and which one took their place
        "ALTER TABLE tokens ADD COLUMN expires_wall_s REAL",
        "ALTER TABLE tokens ADD COLUMN used_wall_s REAL",
        "ALTER TABLE tokens ADD COLUMN replaced_by TEXT NOT NULL DEFAULT ''",
    ),
    (  # a run's hosts leave its record: their names, in the order in which they begin, and a row for each that did
        "CREATE TABLE run_hosts (run TEXT PRIMARY KEY, names TEXT NOT NULL)",
        """CREATE TABLE run_parts (
             run TEXT NOT NULL, host TEXT NOT NULL, open INTEGER NOT NULL, record TEXT NOT NULL,
             PRIMARY KEY (run, host)) WITHOUT ROWID""",
        "CREATE INDEX run_parts_open ON run_parts (run) WHERE open",
        """INSERT INTO run_parts
             SELECT runs.id, json_extract(value, '$.host'), json_extract(value, '$.part') = 'active', value
             FROM runs, json_each(record, '$.parts')
             WHERE coalesce(json_extract(value, '$.part'), 'pending') NOT IN ('pending', 'not_attempted')""",
        """INSERT INTO run_hosts
             SELECT id, (SELECT json_group_array(json_extract(value, '$.host')) FROM json_each(record, '$.parts'))
             FROM runs""",
        """UPDATE runs SET record = json_set(
             json_remove(record, '$.parts'), '$.total', json_array_length(record, '$.parts'),
             '$.begun', (SELECT count(*) FROM run_parts WHERE run = id),
             '$.succeeded', (SELECT count(*) FROM run_parts
               WHERE run = id AND json_extract(run_parts.record, '$.part') = 'succeeded'),
             '$.failed', (SELECT count(*) FROM run_parts
               WHERE run = id AND json_extract(run_parts.record, '$.part') = 'failed'))""",
        # a hub that starts takes up the lost commands: without a look into all the others
        "CREATE INDEX commands_lost ON commands (number) WHERE state = 'lost'",
    ),
    ("CREATE TABLE queries (name TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID",),  # those that are saved
    (  # conditions of hosts, and silences
        """CREATE TABLE conditions (
             id TEXT PRIMARY KEY, host TEXT, open INTEGER NOT NULL, begun_wall_s REAL NOT NULL, ended_wall_s REAL,
             record TEXT NOT NULL) WITHOUT ROWID""",
        "CREATE INDEX conditions_open ON conditions (begun_wall_s) WHERE open",
        "CREATE INDEX conditions_host ON conditions (host, ended_wall_s)",
        "CREATE INDEX conditions_ended ON conditions (ended_wall_s) WHERE NOT open",
        "CREATE TABLE silences (id TEXT PRIMARY KEY, until_wall_s REAL NOT NULL, record TEXT NOT NULL) WITHOUT ROWID",
    ),
)
VERSION: Final = len(MIGRATIONS)
EXPIRING_TOKENS: Final = 4  # from this version on tokens have an end
SAVED_QUERIES: Final = 6  # from this version on
ORDERED_EPOCHS: Final = 2  # from this version on the database knows every epoch that the file beside it knows
OWN_OF_SQLITE: Final = frozenset({"sqlite_stat1", "sqlite_stat4"})  # tables of ANALYZE, which anybody may run


def version_of(connection: Reading) -> int:
    """Return the version that the file says it is of; 0: it is new, or not of fleethub."""
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    return int(found)


def migrate(connection: sqlite3.Connection, migrations: tuple[tuple[str, ...], ...] = MIGRATIONS) -> None:
    """Make the file one of the newest version, each version in one transaction: a kill leaves a whole version.

    For a file of an older version that has no `differences`. Raises: sqlite3.Error, and then it is of the version that
    was reached.
    """
    for version in range(version_of(connection) + 1, len(migrations) + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in migrations[version - 1]:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {version}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def differences(connection: sqlite3.Connection) -> list[str]:
    """Return how the file's schema is not ours, a line each; empty if it is ours, of whatever version we know.

    Nothing of SQLite is taken on trust: a trigger or a view is found like a table that nobody knows, and also a table
    that has our name and other columns. Raises: sqlite3.Error.
    """
    version = version_of(connection)
    if version > VERSION:
        return [f"it is of version {version}, and this fleethub knows {VERSION}"]
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as made:
        migrate(made, MIGRATIONS[:version])
        ours = _objects(made)
    found = _objects(connection)
    lines = [f"it has the {kind} {name}, which is not ours" for kind, name in sorted(found.keys() - ours.keys())]
    lines += [f"it lacks the {kind} {name}" for kind, name in sorted(ours.keys() - found.keys())]
    both = sorted(found.keys() & ours.keys())
    lines += [f"its {kind} {name} is not as ours" for kind, name in both if found[kind, name] != ours[kind, name]]
    return lines


def _objects(connection: sqlite3.Connection) -> dict[tuple[str, str], str]:
    """Everything in the schema: its kind and name → the statement that made it, without white space."""
    rows = connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
    return {
        (str(kind), str(name)): re.sub(r"\s+", "", str(sql))
        for kind, name, sql in rows
        if not (kind == "table" and name in OWN_OF_SQLITE)
        and not (kind == "index" and sql is None and str(name).startswith("sqlite_autoindex_"))
    }
