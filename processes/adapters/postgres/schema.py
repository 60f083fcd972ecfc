"""The schema of the truth in PostgreSQL, version by version. A version has the number of SQLite's (fleet_schema.py),
and the same tables; the first that PostgreSQL knows holds all that was there then.

A new version is a new entry of MIGRATIONS; entries that were released never change. Each is one transaction together
with its number, and PostgreSQL makes tables in transactions too: a kill leaves a whole version.

Texts are ordered by their bytes (COLLATE "C"), as SQLite orders them.
"""

from __future__ import annotations

from typing import Any, Final

from processes.adapters.postgres.connection import PostgresUnfit, Psycopg, transaction

BEGINNING: Final = """
CREATE TABLE hosts (name TEXT COLLATE "C" PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE commands (
  number BIGINT PRIMARY KEY, id TEXT COLLATE "C" NOT NULL UNIQUE, host TEXT COLLATE "C" NOT NULL, state TEXT NOT NULL,
  open BOOLEAN NOT NULL, created_wall_s FLOAT8 NOT NULL, finished_wall_s FLOAT8, record TEXT NOT NULL,
  run TEXT COLLATE "C", output_bytes BIGINT NOT NULL);
CREATE INDEX commands_open ON commands (number) WHERE open;
CREATE INDEX commands_lost ON commands (number) WHERE state = 'lost';
CREATE INDEX commands_host ON commands (host, number);
CREATE INDEX commands_run ON commands (run, number) WHERE run IS NOT NULL;
CREATE INDEX commands_finished ON commands (finished_wall_s) WHERE NOT open;
CREATE INDEX commands_output ON commands (finished_wall_s) WHERE output_bytes > 0;
CREATE TABLE runs (
  number BIGINT PRIMARY KEY, id TEXT COLLATE "C" NOT NULL UNIQUE, open BOOLEAN NOT NULL, finished_wall_s FLOAT8,
  record TEXT NOT NULL, state TEXT NOT NULL);
CREATE INDEX runs_open ON runs (number) WHERE open;
CREATE TABLE run_hosts (run TEXT COLLATE "C" PRIMARY KEY, names TEXT NOT NULL);
CREATE TABLE run_parts (
  run TEXT COLLATE "C" NOT NULL, host TEXT COLLATE "C" NOT NULL, open BOOLEAN NOT NULL, record TEXT NOT NULL,
  PRIMARY KEY (run, host));
CREATE INDEX run_parts_open ON run_parts (run) WHERE open;
CREATE TABLE audit (
  number BIGINT PRIMARY KEY, at_wall_s FLOAT8 NOT NULL, kind TEXT NOT NULL, subject TEXT COLLATE "C" NOT NULL,
  before TEXT, after TEXT NOT NULL, reason TEXT NOT NULL, actor TEXT NOT NULL, hash BYTEA);
CREATE INDEX audit_subject ON audit (subject, number);
CREATE INDEX audit_rest ON audit (number) WHERE kind != 'command';
CREATE TABLE output (
  command_id TEXT COLLATE "C" NOT NULL, "offset" BIGINT NOT NULL, stream TEXT NOT NULL, data TEXT NOT NULL,
  PRIMARY KEY (command_id, "offset"));
CREATE TABLE replies (
  request_id TEXT COLLATE "C" PRIMARY KEY, at_wall_s FLOAT8 NOT NULL, status INT NOT NULL, body TEXT NOT NULL,
  rowid BIGINT GENERATED ALWAYS AS IDENTITY);
CREATE INDEX replies_rowid ON replies (rowid);
CREATE TABLE keys (
  key TEXT COLLATE "C" PRIMARY KEY, digest TEXT NOT NULL, command_ids TEXT NOT NULL, at_wall_s FLOAT8 NOT NULL);
CREATE TABLE tokens (
  token_hash TEXT COLLATE "C" PRIMARY KEY, role TEXT NOT NULL, label TEXT NOT NULL, created_wall_s FLOAT8 NOT NULL,
  expires_wall_s FLOAT8, used_wall_s FLOAT8, replaced_by TEXT NOT NULL DEFAULT '');
CREATE TABLE deadletters (
  id TEXT COLLATE "C" PRIMARY KEY, at_wall_s FLOAT8 NOT NULL, record TEXT NOT NULL, event BYTEA NOT NULL);
CREATE INDEX deadletters_at ON deadletters (at_wall_s);
CREATE TABLE queries (name TEXT COLLATE "C" PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE conditions (
  id TEXT COLLATE "C" PRIMARY KEY, host TEXT COLLATE "C", open BOOLEAN NOT NULL, begun_wall_s FLOAT8 NOT NULL,
  ended_wall_s FLOAT8, record TEXT NOT NULL);
CREATE INDEX conditions_open ON conditions (begun_wall_s) WHERE open;
CREATE INDEX conditions_host ON conditions (host, ended_wall_s);
CREATE INDEX conditions_ended ON conditions (ended_wall_s) WHERE NOT open;
CREATE TABLE silences (id TEXT COLLATE "C" PRIMARY KEY, until_wall_s FLOAT8 NOT NULL, record TEXT NOT NULL);
INSERT INTO meta VALUES ('audit_checkpoint', '{"number":0,"hash":""}');

-- who leads, until when by this server's clock, and how many of its batches are here
CREATE TABLE hub (
  id INT PRIMARY KEY CHECK (id = 1), epoch BIGINT NOT NULL, holder TEXT NOT NULL, home TEXT NOT NULL, backend INT,
  acquired TIMESTAMPTZ NOT NULL, expires TIMESTAMPTZ NOT NULL, commits BIGINT NOT NULL);
INSERT INTO hub VALUES (1, 0, '', '', NULL, clock_timestamp(), clock_timestamp(), 0);

-- what SQLite has by itself
CREATE FUNCTION hex(BYTEA) RETURNS TEXT LANGUAGE SQL IMMUTABLE AS $$ SELECT upper(coalesce(encode($1, 'hex'), '')) $$;
CREATE FUNCTION json_extract(record TEXT, path TEXT) RETURNS TEXT LANGUAGE plpgsql IMMUTABLE AS $$
  BEGIN
    RETURN replace(record, '\\u0000', '')::json ->> substr(path, 3);  -- $.name; no text of PostgreSQL has NUL
  EXCEPTION WHEN OTHERS THEN  -- a text in the record that is none to PostgreSQL
    RETURN NULL;
  END $$;
CREATE FUNCTION json_each(TEXT) RETURNS TABLE (value TEXT) LANGUAGE SQL IMMUTABLE
  AS $$ SELECT json_array_elements_text($1::json) $$;
"""
MIGRATIONS: Final[dict[int, str]] = {7: BEGINNING}
VERSION: Final = max(MIGRATIONS)
_LOCK: Final = 0x666C656574  # of several hubs that begin at once, one migrates; the number is ours


def version_of(connection: Psycopg) -> int:
    """Return the version of the database's schema; 0: there is none yet. Raises: psycopg.Error."""
    if connection.execute("SELECT to_regclass('meta')").fetchone() == (None,):
        return 0
    row = connection.execute("SELECT value::int FROM meta WHERE key = 'version'").fetchone()
    return int(row[0]) if row else 0


def migrate(connection: Psycopg, migrations: dict[int, str] = MIGRATIONS) -> None:
    """Make the database one of the newest version, each version in one transaction. Raises: psycopg.Error;
    PostgresUnfit, if a newer fleethub has made it.
    """
    if (found := version_of(connection)) > max(migrations):
        raise PostgresUnfit(
            f"the database is of version {found}, and this fleethub knows {max(migrations)}: a newer fleethub made it, "
            "so run that one"
        )
    for version, statements in sorted(migrations.items()):
        with transaction(connection):
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            if version <= version_of(connection):
                continue
            connection.execute(
                'CREATE TABLE IF NOT EXISTS meta (key TEXT COLLATE "C" PRIMARY KEY, value TEXT NOT NULL)'
            )
            connection.execute(_constant(statements))
            connection.execute(
                "INSERT INTO meta VALUES ('version', %s) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (str(version),),
            )


def _constant(statements: str) -> Any:
    """Return what psycopg takes for a constant of the program: these are."""
    return statements
