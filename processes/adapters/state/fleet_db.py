"""The fleet's database: how it is opened, and how it is read. The hub alone writes it (hub/store.py).

Records are JSON of the core's types, so that `sqlite3 fleet.db` is enough to read them at a bad moment. Every function
here is one short call on a connection's own thread: no long reader keeps the write-ahead log from being folded in.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from processes.adapters.state import audit_trail, durable, epoch_file, fleet_schema, sqlite_file
from processes.adapters.state.reading import Reading
from processes.core.records import beginning
from processes.core.records.beginning import Found
from processes.core.records.command import Command, State, Transition
from processes.core.records.condition import ConditionRecord, SilenceRecord
from processes.core.records.dead_letter import DeadLetter
from processes.core.records.host import HostRecord, read_record
from processes.core.records.ledger import Ledger
from processes.core.records.request import OperatorToken
from processes.core.records.run import HostPart, Run, RunState, RunView, run_view
from processes.core.records.saved_query import SavedQuery
from processes.core.shown.pages import TokenView
from processes.core.travels.audit import AuditView
from processes.core.travels.pulse import Pulse
from processes.core.values import OutputRecord, Position, Role, Stream, rfc3339, token_id

BUSY_TIMEOUT_MS: Final = 1000  # the writer retries by itself; a reader says so
READ_MAX: Final = 3  # tries of one who reads while a hub begins or ends
DIFFERENCES_MAX: Final = 3  # that one message tells

T = TypeVar("T")


class DatabaseUnreadable(Exception):
    """The file is not there yet, of another version, locked or damaged; the text says which."""


def open_for_writing(path: Path) -> sqlite3.Connection:
    """Return the hub's connection: WAL, every commit synced to disk, transactions begun by hand.

    A file that is not there is made; one of an older version becomes one of ours. `refusal` says beforehand whether it
    may. Raises: OSError; sqlite3.Error; DatabaseUnreadable, if the file is of a newer version.
    """
    sqlite_file.show(path)
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        connection.execute("PRAGMA foreign_keys = ON")
        refuse_newer(connection, path)
        fleet_schema.migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def refuse_newer(connection: sqlite3.Connection, path: Path) -> None:
    """Raises: DatabaseUnreadable, if the file is of a newer version than this program knows."""
    version = fleet_schema.version_of(connection)
    if version > fleet_schema.VERSION:
        raise DatabaseUnreadable(
            f"{path} is of version {version}, and this fleethub knows {fleet_schema.VERSION}: a newer fleethub wrote "
            "it, so run that one, or restore a backup that this one made"
        )


def refusal(path: Path, epoch_beside: Path, last: Pulse | None, *, timeout_s: float = BUSY_TIMEOUT_MS / 1000) -> str:
    """Return why no hub may begin with what is on the disk; empty if one may, or if nobody can say now.

    `last`: the pulse of the last hub, read before this; None: there is none. A restore that waits to be completed is
    judged by what it brings. Raises: OSError.
    """
    fresh = restored_name(path)
    place = fresh if fresh.exists() else path
    try:
        found = Found(epoch_file.read(epoch_beside))
    except ValueError:
        return f"{epoch_beside} does not hold a number: remove it, for the database knows its epoch too"
    try:
        with contextlib.closing(sqlite_file.open_for_reading(place, timeout_s)) as connection:
            refuse_newer(connection, path)
            if foreign := foreign_schema(connection, path):
                return foreign
            version = fleet_schema.version_of(connection)
            known = epoch(connection) if version >= fleet_schema.ORDERED_EPOCHS else None
            size = place.stat().st_size
            found = Found(
                found.epoch_beside, size, version > 0, known, written(connection) if version else 0,
                last.epoch if last else 0, last.committed if last else 0,
            )  # fmt: skip
    except FileNotFoundError:
        pass
    except (sqlite_file.NoFile, DatabaseUnreadable) as error:
        return str(error)
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return ""
        return f"{path} is damaged: {error}"
    return beginning.refusal(str(path), found)


def foreign_schema(connection: sqlite3.Connection, path: Path) -> str:
    """Return how the file's schema is not ours, in one line; empty if it is ours. Raises: sqlite3.Error."""
    found = fleet_schema.differences(connection)
    more = f"; and {len(found) - DIFFERENCES_MAX} more" if len(found) > DIFFERENCES_MAX else ""
    return f"{path} is no database of a fleet: {'; '.join(found[:DIFFERENCES_MAX])}{more}" if found else ""


def restoring_name(path: Path) -> Path:
    """Return the path where `restore` prepares a backup to take the database's place."""
    return path.with_name(path.name + ".restoring")


def restored_name(path: Path) -> Path:
    """Return the path where a restored database stands, whole, until it takes the other's place."""
    return path.with_name(path.name + ".restored")


def aside_name(path: Path) -> Path:
    """Return a name that nothing has yet, in the folder `replaced`, for a database that another one's place took."""
    aside = path.with_name("replaced") / time.strftime("fleet-%Y%m%dT%H%M%SZ.db", time.gmtime())
    number = 1
    while aside.exists() or aside.with_name(aside.name + "-wal").exists():
        number += 1
        aside = aside.with_name(f"{aside.name.partition('Z')[0]}Z-{number}.db")
    return aside


def copy(source: sqlite3.Connection, target: Path) -> None:
    """Make `target` a whole copy of the database at one moment: one file, on disk, this user's alone.

    Cost: one read transaction; writers go on. Raises: FileExistsError, OSError, sqlite3.Error.
    """
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with contextlib.closing(sqlite3.connect(target, isolation_level=None)) as to:
        source.backup(to)
        to.execute("PRAGMA journal_mode = DELETE")  # else a second file would belong to it
    durable.sync_file(target)


def finish_restore(path: Path) -> bool:
    """Finish a restore that was interrupted after the restored database was whole. Return False if there was none.

    The old write-ahead log must go first, or SQLite would play it into the new file. The new file stands beside until
    then, so the next process that opens the database finishes the restore. The caller holds the hub's lock.
    Raises: OSError.
    """
    fresh = restored_name(path)
    if not fresh.exists():
        return False
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    durable.sync_folder(path.parent)
    fresh.replace(path)
    durable.sync_folder(path.parent)
    return True


def forget_stale_memory(path: Path) -> None:
    """Remove the shared memory of a log that is not there: who has it open would tell of pages that nobody can read.

    Only for who holds the hub's lock: then nobody writes, and readers find other files and open anew. Raises: OSError.
    """
    if not path.with_name(path.name + "-wal").exists():
        path.with_name(path.name + "-shm").unlink(missing_ok=True)


def open_for_reading(path: Path) -> sqlite3.Connection:
    """Return a connection that can only read, whether the hub runs or not.

    Raises: DatabaseUnreadable.
    """
    try:
        connection = sqlite_file.open_for_reading(path, BUSY_TIMEOUT_MS / 1000)
    except FileNotFoundError:
        raise DatabaseUnreadable(f"there is no database at {path} yet") from None
    except sqlite3.Error as error:
        raise _unreadable(path, error) from None
    except OSError as error:
        raise DatabaseUnreadable(f"{path} cannot be read: {error}") from None
    except sqlite_file.NoFile as error:
        raise DatabaseUnreadable(str(error)) from None
    try:
        connection.execute("SELECT 1 FROM meta LIMIT 1")
    except sqlite3.Error as error:
        connection.close()
        raise _unreadable(path, error) from None
    return connection


class _LogCameOrWent(DatabaseUnreadable):
    """A hub began or ended just then, and with it the log beside the database: another try finds one or the other."""


def _unreadable(path: Path, error: sqlite3.Error) -> DatabaseUnreadable:
    is_gone = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_CANTOPEN
    return (_LogCameOrWent if is_gone else DatabaseUnreadable)(f"{path} cannot be read: {error}")


def reading(path: Path, read: Callable[[sqlite3.Connection], T]) -> T:
    """Return the result of one reading function, called with a connection of its own. It is called again, READ_MAX
    times in all, if the log came or went meanwhile. Raises: DatabaseUnreadable.
    """
    for _ in range(READ_MAX - 1):
        with contextlib.suppress(_LogCameOrWent):
            return _reading(path, read)
    return _reading(path, read)


def _reading(path: Path, read: Callable[[sqlite3.Connection], T]) -> T:
    connection = open_for_reading(path)
    try:
        found = read(connection)
        if not sqlite_file.is_settled(path, connection):
            raise _LogCameOrWent(f"a hub has just begun to write {path}")
        return found
    except sqlite3.Error as error:
        raise _unreadable(path, error) from None
    finally:
        connection.close()


_command = msgspec.json.Decoder(Command)
_run = msgspec.json.Decoder(Run)
_condition = msgspec.json.Decoder(ConditionRecord)
_silence = msgspec.json.Decoder(SilenceRecord)
_names = msgspec.json.Decoder(list[str])
_part = msgspec.json.Decoder(HostPart)
_parts = msgspec.json.Decoder(list[HostPart])
_dead_letter = msgspec.json.Decoder(DeadLetter)


def _where(conditions: dict[str, Any]) -> tuple[str, list[Any]]:
    """Return the SQL of the conditions whose values are not None, and these values."""
    given = {condition: value for condition, value in conditions.items() if value is not None}
    return " AND ".join(["true", *given]), list(given.values())


def meta(connection: Reading, key: str) -> str | None:
    """A value of the meta table: epoch, written, position, ledger, number, lasting_time, audit_checkpoint."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else str(row[0])


def epoch(connection: Reading) -> int:
    """Return the newest hub epoch that committed anything."""
    return int(meta(connection, "epoch") or 0)


def written(connection: Reading) -> int:
    """How much the hub of the newest epoch has written."""
    return int(meta(connection, "written") or 0)


def ledger(connection: Reading) -> Ledger:
    """Return the counts of commands by state, including pruned ones."""
    text = meta(connection, "ledger")
    return msgspec.json.decode(text, type=Ledger) if text else Ledger()


def position(connection: Reading) -> Position:
    """Return the position up to which the events queue is dealt with."""
    text = meta(connection, "position")
    return msgspec.json.decode(text, type=Position) if text else Position(0, 0)


def hosts(connection: Reading) -> list[HostRecord]:
    """Return all enrolled hosts, ordered by name."""
    return [read_record(text) for (text,) in connection.execute("SELECT record FROM hosts ORDER BY name")]


def host(connection: Reading, name: str) -> HostRecord | None:
    """Return one host; None if there is none."""
    row = connection.execute("SELECT record FROM hosts WHERE name = ?", (name,)).fetchone()
    return None if row is None else read_record(row[0])


def command(connection: Reading, command_id: str) -> Command | None:
    """Return one command; None if there is none."""
    row = connection.execute("SELECT record FROM commands WHERE id = ?", (command_id,)).fetchone()
    return None if row is None else _command.decode(row[0])


def commands(
    connection: Reading,
    *,
    limit: int = 100,
    before: int | None = None,
    host: str | None = None,
    state: State | None = None,
    open_only: bool = False,
    run: str | None = None,
    hosts: Sequence[str] | None = None,
) -> list[Command]:
    """Return commands, newest first; `before` is the `number` of the last one of the page before. `hosts`: only of
    these.
    """
    where, values = _where({
        "number < ?": before, "host = ?": host, "state = ?": state, "json_extract(record, '$.run') = ?": run,
        "host IN (SELECT value FROM json_each(?))": None if hosts is None else msgspec.json.encode(hosts).decode(),
    })  # fmt: skip
    if open_only:
        where += " AND open"
    statement = f"SELECT record FROM commands WHERE {where} ORDER BY number DESC LIMIT ?"  # noqa: S608  # constants
    rows = connection.execute(statement, (*values, limit))
    return [_command.decode(text) for (text,) in rows]


def run(connection: Reading, run_id: str) -> Run | None:
    """Return one fleet run, without its hosts; None if there is none."""
    row = connection.execute("SELECT record FROM runs WHERE id = ?", (run_id,)).fetchone()
    return None if row is None else _run.decode(row[0])


def whole_run(connection: Reading, run_id: str) -> RunView | None:
    """Return one fleet run, host by host; None if there is none. It is read by one statement, so at one moment."""
    row = connection.execute(
        "SELECT runs.record, coalesce(names, '[]'), "
        "(SELECT '[' || coalesce(group_concat(run_parts.record), '') || ']' FROM run_parts WHERE run = runs.id) "
        "FROM runs LEFT JOIN run_hosts ON run_hosts.run = runs.id WHERE id = ?",
        (run_id,),
    ).fetchone()
    if row is None:
        return None
    return run_view(_run.decode(row[0]), _names.decode(row[1]), {part.host: part for part in _parts.decode(row[2])})


def open_parts(connection: Reading) -> list[tuple[str, HostPart]]:
    """Return the hosts that are under way in runs. Shape: (id of the run, part) each."""
    rows = connection.execute("SELECT run, record FROM run_parts WHERE open")
    return [(run_id, _part.decode(text)) for run_id, text in rows]


def runs(
    connection: Reading, *, limit: int = 100, before: int | None = None, state: RunState | None = None
) -> list[Run]:
    """Return fleet runs without their hosts, newest first; `before`: the `number` of the last of the page before."""
    # `running` is the default state, and defaults are not written
    where, values = _where({"number < ?": before, "coalesce(json_extract(record, '$.state'), 'running') = ?": state})
    statement = f"SELECT record FROM runs WHERE {where} ORDER BY number DESC LIMIT ?"  # noqa: S608  # constants
    rows = connection.execute(statement, (*values, limit))
    return [_run.decode(text) for (text,) in rows]


def transitions(connection: Reading, command_id: str) -> list[Transition]:
    """Return a command's history, oldest first."""
    rows = connection.execute(
        "SELECT at_wall_s, before, after, reason, actor FROM audit "
        "WHERE kind = 'command' AND subject = ? ORDER BY number",
        (command_id,),
    )
    return [
        Transition(command_id, at, State(before) if before else None, State(after), reason, actor)
        for at, before, after, reason, actor in rows
    ]


def audit(
    connection: Reading,
    *,
    limit: int = 100,
    before: int | None = None,
    kind: str | None = None,
    subject: str | None = None,
    actor: str | None = None,
) -> list[AuditView]:
    """Return the audit trail, newest first; `before` is the `number` of the last line of the page before."""
    where, values = _where({"number < ?": before, "kind = ?": kind, "subject = ?": subject, "actor = ?": actor})
    return audit_trail.page(connection, where, values, limit)


def output(
    connection: Reading, command_id: str, first: int, limit: int = 1000, bytes_max: int = 1 << 20
) -> list[OutputRecord]:
    """Return consecutive output records from offset `first`: at least one, if there is one; at most `limit` records
    and about `bytes_max` bytes.
    """
    found: list[OutputRecord] = []
    size = 0
    for offset, stream, text in connection.execute(
        'SELECT "offset", stream, data FROM output WHERE command_id = ? AND "offset" >= ? ORDER BY "offset" LIMIT ?',
        (command_id, first, limit),
    ):
        size += len(text)
        if found and size > bytes_max:
            break
        found.append(OutputRecord(offset, Stream(stream), text))
    return found


def conditions(
    connection: Reading, *, limit: int, host: str | None = None, open_only: bool = False
) -> list[ConditionRecord]:
    """Return conditions: those that stand and then those that are over, the newest first."""
    where, values = ("true", ()) if host is None else ("host = ?", (host,))
    rows: list[tuple[str]] = []
    for state, order in (("open", "begun_wall_s"), ("NOT open", "ended_wall_s")):
        if not (open_only and state != "open"):
            # only constants of this module are joined here
            found = f"conditions WHERE {where} AND {state} ORDER BY {order} DESC LIMIT ?"
            select = f"SELECT record FROM {found}"  # noqa: S608  # as said
            rows += connection.execute(select, (*values, limit - len(rows))).fetchall()
    return [_condition.decode(row[0]) for row in rows]


def silences(connection: Reading) -> list[SilenceRecord]:
    """Return all silences, the one that ends last first."""
    rows = connection.execute("SELECT record FROM silences ORDER BY until_wall_s DESC")
    return [_silence.decode(row[0]) for row in rows]


def dead_letters(connection: Reading, *, limit: int) -> list[DeadLetter]:
    """Return the newest dead letters, newest first, with their events."""
    rows = connection.execute(
        "SELECT record, event FROM deadletters ORDER BY at_wall_s DESC, id DESC LIMIT ?", (limit,)
    )
    return [msgspec.structs.replace(_dead_letter.decode(record), event=event) for record, event in rows]


def dead_letter(connection: Reading, dead_letter_id: str) -> DeadLetter | None:
    """Return one dead letter; None if there is none."""
    row = connection.execute("SELECT record, event FROM deadletters WHERE id = ?", (dead_letter_id,)).fetchone()
    return None if row is None else msgspec.structs.replace(_dead_letter.decode(row[0]), event=row[1])


def token_views(connection: Reading, now_wall_s: float) -> list[tuple[str, TokenView]]:
    """Return the operator tokens as they are shown, oldest first. Shape: (SHA-256 in hex, view) each."""
    return [
        (
            token.token_hash,
            TokenView(
                token_id(token.token_hash), Role(token.role), token.label, rfc3339(token.created_wall_s),
                rfc3339(token.expires_wall_s), token.is_over(now_wall_s), rfc3339(token.used_wall_s), token.replaced_by,
            ),
        )
        for token in tokens(connection)
    ]  # fmt: skip


def saved_queries(connection: Reading) -> list[SavedQuery]:
    """Return the saved queries, by name."""
    if fleet_schema.version_of(connection) < fleet_schema.SAVED_QUERIES:  # no hub of this version has begun yet
        return []
    rows = connection.execute("SELECT record FROM queries ORDER BY name")
    return [msgspec.json.decode(row[0], type=SavedQuery) for row in rows]


def tokens(connection: Reading) -> list[OperatorToken]:
    """Return the operator tokens besides the installation's own, oldest first, with those whose time is over."""
    columns = "token_hash, role, label, created_wall_s"
    if fleet_schema.version_of(connection) >= fleet_schema.EXPIRING_TOKENS:  # no hub of this version has begun yet
        columns += ", expires_wall_s, used_wall_s, replaced_by"
    rows = connection.execute(f"SELECT {columns} FROM tokens ORDER BY created_wall_s, token_hash")  # noqa: S608
    return [OperatorToken(*row) for row in rows]
