"""The hub's one writer of the database: a batch of rows, the ledger and the events position in one transaction, on one
thread.

Every transaction is one function call on aiosqlite's thread, so a loop that is cancelled or dies can never leave one
open. After BUSY and FULL the same batch is tried again. After an I/O error, or when the file is damaged, the hub must
end and rebuild its memory from the disk: a failed fsync may have thrown away pages that the cache still holds as
written.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar, assert_never

import aiosqlite
import msgspec

from processes.adapters import clock, failpoint
from processes.adapters.state import audit_trail, epoch_file, fleet_db, revocations, sqlite_file
from processes.adapters.state.fleet_db import DatabaseUnreadable
from processes.adapters.state.sqlite_file import Files
from processes.core.errors import LocalError
from processes.core.hub.effects import AddAudit, AddOutput, AddTransition, Drop, Put, Revoke, Write
from processes.core.hub.memory import FINAL_KEPT_MAX, LOST_KEPT_MAX, REPLIES_KEPT_MAX, RUNS_KEPT_MAX
from processes.core.hub.step import StoredState
from processes.core.hub.turn import CommitBatch
from processes.core.records import beginning, lasting_time
from processes.core.records.command import Command, State
from processes.core.records.condition import OVER_KEPT_MAX, OVER_PER_HOST_MAX, ConditionRecord, SilenceRecord
from processes.core.records.dead_letter import DEAD_LETTERS_MAX, DeadLetter
from processes.core.records.host import HostRecord, read_record
from processes.core.records.lasting_time import LastingTime
from processes.core.records.request import KeptReply, KeyEntry, OperatorToken
from processes.core.records.run import HostPart, Part, Run, part_key
from processes.core.records.saved_query import SavedQuery
from processes.core.travels.audit import Kind
from processes.core.travels.messages import Json
from processes.core.travels.pulse import Pulse
from processes.core.values import Now, Position

KEYS_KEPT_S: Final = 30 * 86400.0  # contract: at least 30 days
PRUNED_MAX: Final = 500  # rows deleted in one transaction, so that commands never wait long for it
AUDIT_PRUNED_MAX: Final = 4 * PRUNED_MAX  # lines: a command has four
RETRY_S: Final = (0.05, 0.1, 0.2, 0.5)  # between tries of a batch; the last one repeats

UNWRITABLE: Final = (OverflowError, UnicodeError, msgspec.MsgspecError, TypeError, RecursionError)

T = TypeVar("T")


class StorageBroken(LocalError):
    """The database failed in a way that no retry mends: end, and start anew from the disk."""


class StorageBlocked(Exception):
    """The database is locked or the disk is full: try the same again."""


class Rows(NamedTuple):
    """How the rows of one kind of the hub's state stand in the database's table of that name.

    `columns`: all of them, in the table's order. `changing`: those that a later Put of the same row changes.
    `restored`: SELECTs that give a starting hub its rows, oldest first; each row goes through `load`.
    """

    key: str  # the column that a row is dropped by
    columns: tuple[str, ...]
    values: Callable[[str, Any], tuple[object, ...]]  # of a row, by columns
    changing: tuple[str, ...]
    restored: tuple[str, ...] = ()
    load: Callable[[tuple[Any, ...]], tuple[str, Any]] = lambda row: (row[0], row)
    unique: str = ""  # the column by which a row is known to be there already, if it is not the key


def _json(record: object) -> str:
    return msgspec.json.encode(record).decode()


def _newest(table: str, columns: str = "record", *, by: str = "number", where: str = "true", limit: int = -1) -> str:
    """Return the SELECT of the newest rows that meet the condition, oldest first. limit -1: all of them."""
    order = [f"{name} AS place{place}" for place, name in enumerate(by.split(", "))]
    newest = ", ".join(f"place{place} DESC" for place in range(len(order)))
    # only constants of this module are joined here
    rows = f"SELECT {columns}, {', '.join(order)} FROM {table} WHERE {where}"  # noqa: S608
    newest_rows = f"{rows} ORDER BY {newest} LIMIT {limit}"
    return f"SELECT {columns} FROM ({newest_rows}) ORDER BY {newest.replace(' DESC', '')}"  # noqa: S608


def _record_of(kind: type[Any], key: str) -> Callable[[tuple[Any, ...]], tuple[str, Any]]:
    decoder = msgspec.json.Decoder(kind)

    def load(row: tuple[Any, ...]) -> tuple[str, Any]:
        record = decoder.decode(row[0])
        return getattr(record, key), record

    return load


def _command_values(id: str, it: Command) -> tuple[object, ...]:
    return it.number, id, it.host, it.state, it.open, it.created_wall_s, it.finished_wall_s, _json(it)


def _dead_letter(row: tuple[Any, ...]) -> tuple[str, DeadLetter]:
    found = msgspec.structs.replace(msgspec.json.decode(row[0], type=DeadLetter), event=row[1])
    return found.id, found


_part = msgspec.json.Decoder(HostPart)


def _run_part(row: tuple[Any, ...]) -> tuple[str, HostPart]:
    part = _part.decode(row[1])
    return part_key(row[0], part.host), part


def _key_entry(row: tuple[Any, ...]) -> tuple[str, KeyEntry]:
    key, digest, ids, at_wall_s = row
    return key, KeyEntry(key, digest, tuple(msgspec.json.decode(ids)), at_wall_s)


TOKEN_COLUMNS: Final = OperatorToken.__struct_fields__

ROWS: Final[dict[str, Rows]] = {
    "hosts": Rows(
        key="name",
        columns=("name", "record"),
        values=lambda name, host: (name, _json(host)),
        changing=("record",),
        restored=("SELECT record FROM hosts",),
        load=lambda row: ((record := read_record(row[0])).name, record),
    ),
    "commands": Rows(
        key="id",
        unique="number",
        columns=("number", "id", "host", "state", "open", "created_wall_s", "finished_wall_s", "record"),
        values=_command_values,
        changing=("state", "open", "finished_wall_s", "record"),
        restored=(
            _newest("commands", where=f"NOT open AND state != '{State.LOST}'", limit=FINAL_KEPT_MAX),
            _newest("commands", where=f"state = '{State.LOST}'", limit=LOST_KEPT_MAX),
            _newest("commands", where="open"),
        ),
        load=_record_of(Command, "id"),
    ),
    "runs": Rows(
        key="id",
        unique="number",
        columns=("number", "id", "open", "finished_wall_s", "record"),
        values=lambda id, run: (run.number, id, run.open, run.finished_wall_s, _json(run)),
        changing=("open", "finished_wall_s", "record"),
        restored=(_newest("runs", where="NOT open", limit=RUNS_KEPT_MAX), _newest("runs", where="open")),
        load=_record_of(Run, "id"),
    ),
    "run_hosts": Rows(
        key="run",
        columns=("run", "names"),
        values=lambda run_id, names: (run_id, _json(names)),
        changing=("names",),
        restored=("SELECT run, names FROM run_hosts WHERE run IN (SELECT id FROM runs WHERE open)",),
        load=lambda row: (row[0], tuple(msgspec.json.decode(row[1], type=list[str]))),
    ),
    "run_parts": Rows(
        key="run || '/' || host",
        unique="run, host",
        columns=("run", "host", "open", "record"),
        values=lambda key, it: (key.partition("/")[0], it.host, it.part is Part.ACTIVE, _json(it)),
        changing=("open", "record"),
        restored=("SELECT run, record FROM run_parts WHERE open",),
        load=_run_part,
    ),
    "replies": Rows(
        key="request_id",
        columns=("request_id", "at_wall_s", "status", "body"),
        values=lambda id, reply: (id, reply.at_wall_s, reply.status, reply.body.decode()),
        changing=("at_wall_s", "status", "body"),
        restored=(_newest("replies", "request_id, status, body, at_wall_s", by="rowid", limit=REPLIES_KEPT_MAX),),
        load=lambda row: (row[0], KeptReply(row[0], row[1], Json(row[2].encode()), row[3])),
    ),
    "keys": Rows(
        key="key",
        columns=("key", "digest", "command_ids", "at_wall_s"),
        values=lambda key, entry: (key, entry.digest, _json(entry.command_ids), entry.at_wall_s),
        changing=("digest", "command_ids", "at_wall_s"),
        restored=("SELECT key, digest, command_ids, at_wall_s FROM keys",),
        load=_key_entry,
    ),
    "deadletters": Rows(
        key="id",
        columns=("id", "at_wall_s", "record", "event"),
        values=lambda id, it: (id, it.at_wall_s, _json(msgspec.structs.replace(it, event=b"")), it.event),
        changing=("at_wall_s", "record", "event"),
        restored=(_newest("deadletters", "record, event", by="at_wall_s, id", limit=DEAD_LETTERS_MAX),),
        load=_dead_letter,
    ),
    "queries": Rows(
        key="name",
        columns=("name", "record"),
        values=lambda name, saved: (name, _json(saved)),
        changing=("record",),
        restored=("SELECT record FROM queries",),
        load=_record_of(SavedQuery, "name"),
    ),
    "conditions": Rows(
        key="id",
        columns=("id", "host", "open", "begun_wall_s", "ended_wall_s", "record"),
        values=lambda id, it: (id, it.host, it.open, it.begun_wall_s, it.ended_wall_s, _json(it)),
        changing=("open", "begun_wall_s", "ended_wall_s", "record"),
        restored=(
            _newest("conditions", by="ended_wall_s, id", where="NOT open", limit=OVER_KEPT_MAX),
            _newest("conditions", by="begun_wall_s, id", where="open"),
        ),
        load=_record_of(ConditionRecord, "id"),
    ),
    "silences": Rows(
        key="id",
        columns=("id", "until_wall_s", "record"),
        values=lambda id, it: (id, it.until_wall_s, _json(it)),
        changing=("until_wall_s", "record"),
        restored=(_newest("silences", by="until_wall_s, id"),),
        load=_record_of(SilenceRecord, "id"),
    ),
    "tokens": Rows(  # the fanouts read them from the disk
        key="token_hash",
        columns=TOKEN_COLUMNS,
        values=lambda _, token: msgspec.structs.astuple(token),
        changing=TOKEN_COLUMNS[1:],
        restored=(f"SELECT {', '.join(TOKEN_COLUMNS)} FROM tokens ORDER BY created_wall_s, token_hash",),  # noqa: S608
        load=lambda row: (row[0], OperatorToken(*row)),
    ),
}


@functools.cache
def _upsert(table: str) -> str:
    """Return the statement that makes a row the table's row of its key. Its parameters are the row's values."""
    rows = ROWS[table]
    places = ", ".join("?" * len(rows.columns))
    changes = ", ".join(f"{name} = excluded.{name}" for name in rows.changing)
    return (
        f"INSERT INTO {table} ({', '.join(rows.columns)}) VALUES ({places}) "  # noqa: S608  # our own names
        f"ON CONFLICT ({rows.unique or rows.key}) DO UPDATE SET {changes}"
    )


class Store:
    """The open database. One caller at a time (the hub's loop has at most one batch in commit)."""

    def __init__(self, path: Path, connection: aiosqlite.Connection, epoch: int) -> None:
        self._path, self._connection, self.epoch = path, connection, epoch
        self._files = sqlite_file.files_at(path)
        self._boot_id = clock.boot_id()
        self._is_lost = False
        self.call_since_ns = 0  # since when a writing call has not returned; 0: none is under way
        self.written = 0  # rows, as the database knows it too
        self.has_log = True  # something was committed since the log was folded in

    @classmethod
    async def open(cls, path: Path, beside: Path, last: Pulse | None = None) -> Store:
        """Return the database, checked, with an epoch newer than any before: max(database, the file beside it) + 1,
        durable in both. `last`: the predecessor's last pulse.

        Raises: StorageBlocked, if it is locked or the disk is full (try again); StorageBroken, with what to do.
        """
        fleet_db.finish_restore(path)
        fleet_db.forget_stale_memory(path)
        if refusal := await asyncio.to_thread(fleet_db.refusal, path, beside, last):
            raise StorageBroken(f"{refusal}. {beginning.ADVICE}")
        try:
            connection = await aiosqlite.Connection(lambda: fleet_db.open_for_writing(path), iter_chunk_size=64)
        except sqlite3.Error as error:
            raise _of_sqlite(error) from error
        except OSError as error:
            raise _of_disk(error, path) from error
        except DatabaseUnreadable as error:
            raise StorageBroken(str(error)) from None
        try:
            epoch = await _on_thread(connection, lambda sqlite: _begin_epoch(sqlite, beside))
        except BaseException:
            await connection.close()
            raise
        return cls(path, connection, epoch)

    async def restored(self) -> StoredState:
        """Return the state from which a hub starts, in which what was ever made void is void, on disk too.

        Raises: StorageBlocked, StorageBroken.
        """
        path = revocations.beside(self._path)
        return await _on_thread(self._connection, lambda sqlite: _restored(sqlite, path))

    async def position(self) -> Position:
        """Return up to where the events are dealt with. Raises: StorageBlocked, StorageBroken."""
        return await _on_thread(self._connection, fleet_db.position)

    async def commit(self, batch: CommitBatch, blocked: Callable[[str], None]) -> list[tuple[str, str]]:
        """Put the batch on disk. Tried again for ever while the database is locked or full; `blocked` is told of each
        failure. Return the hosts whose record could not be written as it is, and why: it was written without the words
        of its agent.

        Raises: StorageBroken.
        """
        tries, written, beside = 0, self.written + len(batch.writes), revocations.beside(self._path)
        while True:
            try:
                unsaid = await self._call(lambda sqlite: _commit(sqlite, batch, self.epoch, written, beside))
                self.written, self.has_log = written, True
                return unsaid
            except StorageBlocked as error:
                blocked(str(error))
                await asyncio.sleep(RETRY_S[min(tries, len(RETRY_S) - 1)])
                tries += 1

    async def prune(self, now: Now, kept_s: float, output_bytes_max: int) -> int:
        """Lets go some of what is past its time; returns how many rows, 0 when nothing is left to do.

        Raises: StorageBlocked, StorageBroken.
        """
        boot_id = self._boot_id
        return await self._call(lambda sqlite: _prune(sqlite, now, boot_id, kept_s, output_bytes_max))

    async def fold_log(self) -> None:
        """Brings what was committed out of the log into the database file, as far as readers let it.

        Raises: StorageBlocked, StorageBroken.
        """
        self.has_log = False
        await self._call(_fold_log)

    async def close(self) -> None:
        """Closes the database, its log folded in. One that was taken away is left to the process's end: SQLite would
        remove what stands in its place.
        """
        if not self._is_lost:
            await self._connection.close()

    async def _call(self, call: Callable[[sqlite3.Connection], T]) -> T:
        """Returns the result of a writing call, once it is certain that it did not go into a file that has no name any
        more.

        Raises: StorageBlocked, StorageBroken.
        """
        self.call_since_ns = time.monotonic_ns()
        try:
            await self._still_there()
            result = await _on_thread(self._connection, call)
            await self._still_there()
            return result
        finally:
            self.call_since_ns = 0

    async def _still_there(self) -> None:
        """Raises: StorageBroken, if the database or its log was removed or replaced; what they hold is kept first."""
        now = sqlite_file.files_at(self._path)
        if now == self._files:
            return
        self._is_lost = True
        lost = self._path.name + next(suffix for suffix, ours in self._files.items() if now[suffix] != ours)
        kept = await _on_thread(self._connection, lambda sqlite: _saved(sqlite, self._path, self._files, now))
        raise StorageBroken(f"{lost} was removed or replaced under the hub: {kept}")


def _saved(sqlite: sqlite3.Connection, path: Path, ours: Files, now: Files) -> str:
    """Bring to safety what our open descriptors hold of files that have lost their names; return how that went."""
    try:
        if now[""] == ours[""]:
            _, log, folded = sqlite.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if log == folded:
                return "all that was committed is in the database file, and a new hub goes on with it"
            return f"{folded} of {log} pages of its log could be brought into the database file"
        aside = fleet_db.aside_name(path)
        aside.parent.mkdir(mode=0o700, exist_ok=True)
        fleet_db.copy(sqlite, aside)
        return f"all that was committed is in {aside}: fleethub down, then fleethub restore {aside}"
    except (OSError, sqlite3.Error) as error:
        return f"and what was committed could not be kept: {error}"


async def _on_thread(connection: aiosqlite.Connection, call: Callable[[sqlite3.Connection], T]) -> T:
    """Make one call on the database's thread, and return its result. Raises: StorageBlocked, StorageBroken."""
    try:
        # one function, one transaction: aiosqlite has no public way to do this
        result: T = await connection._execute(call, connection._conn)  # type: ignore[no-untyped-call]
        return result
    except sqlite3.Error as error:
        raise _of_sqlite(error) from error


def _of_sqlite(error: sqlite3.Error) -> StorageBlocked | StorageBroken:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    told = f"{getattr(error, 'sqlite_errorname', 'error')}: {error}"
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL):
        return StorageBlocked(told)
    return StorageBroken(f"the database failed: {told}")


def _of_disk(error: OSError, path: Path) -> StorageBlocked | StorageBroken:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageBlocked(f"{path}: {error.strerror}")
    return StorageBroken(f"{path} cannot be read or written: {error.strerror}")


def _in_transaction(sqlite: sqlite3.Connection, work: Callable[[], T]) -> T:
    sqlite.execute("BEGIN IMMEDIATE")
    try:
        result = work()
        sqlite.execute("COMMIT")
        return result
    except BaseException:
        if sqlite.in_transaction:
            sqlite.execute("ROLLBACK")
        raise


def _put_meta(sqlite: sqlite3.Connection, **values: str) -> None:
    """Put all values in by one statement: each that is carried out may have to wait for a busy loop's GIL."""
    places = ", ".join(["(?, ?)"] * len(values))
    sqlite.execute(
        f"INSERT INTO meta VALUES {places} ON CONFLICT (key) DO UPDATE SET value = excluded.value",  # noqa: S608
        [part for pair in values.items() for part in pair],
    )


def _begin_epoch(sqlite: sqlite3.Connection, beside: Path) -> int:
    damage = [row[0] for row in sqlite.execute("PRAGMA quick_check(5)")]
    if damage != ["ok"]:
        raise StorageBroken(
            f"the database is damaged and is not touched; restore a backup. It says: {'; '.join(map(str, damage))}"
        )
    epoch = max(fleet_db.epoch(sqlite), epoch_file.read(beside)) + 1

    def work() -> None:
        _put_meta(sqlite, epoch=str(epoch), written="0")

    # In this order: a kill between the two must not make the database look older than what ran here.
    _in_transaction(sqlite, work)
    try:
        epoch_file.write(beside, epoch)
    except OSError as error:
        raise _of_disk(error, beside) from error
    _fold_log(sqlite)
    return epoch


def _revoked(revoked: Path) -> frozenset[str]:
    try:
        return revocations.read(revoked)
    except OSError as error:
        raise _of_disk(error, revoked) from error


def _void_revoked(sqlite: sqlite3.Connection, found: dict[str, list[tuple[str, Any]]], hashes: frozenset[str]) -> None:
    """Make void in the database, and in the rows found there, what was ever made void: the list beside it is written
    first, and outlives it.
    """
    hosts = [(name, void) for name, host in found["hosts"] if (void := host.without(hashes)) is not host]
    tokens = [(token_hash,) for token_hash, _ in found["tokens"] if token_hash in hashes]
    if not hosts and not tokens:
        return

    def work() -> None:
        sqlite.executemany("UPDATE hosts SET record = ? WHERE name = ?", [(_json(host), name) for name, host in hosts])
        sqlite.executemany("DELETE FROM tokens WHERE token_hash = ?", tokens)

    _in_transaction(sqlite, work)
    found["hosts"] = list({**dict(found["hosts"]), **dict(hosts)}.items())
    found["tokens"] = [(token_hash, token) for token_hash, token in found["tokens"] if token_hash not in hashes]


def _fold_log(sqlite: sqlite3.Connection) -> None:
    """Bring into the database file what stands in its log, as far as readers let it; never waits for them."""
    sqlite.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def _restored(sqlite: sqlite3.Connection, revoked: Path | None = None) -> StoredState:
    (newest,) = sqlite.execute(
        "SELECT max(coalesce((SELECT max(number) FROM commands), 0), coalesce((SELECT max(number) FROM runs), 0))"
    ).fetchone()
    found = {
        name: [rows.load(row) for select in rows.restored for row in sqlite.execute(select)]
        for name, rows in ROWS.items()
    }
    void = _revoked(revoked) if revoked is not None else frozenset()
    if void:
        _void_revoked(sqlite, found, void)
    found["void"] = [(token_hash, True) for token_hash in void]
    return StoredState(found, fleet_db.ledger(sqlite), max(int(newest), int(fleet_db.meta(sqlite, "number") or 0)) + 1)


def _commit(
    sqlite: sqlite3.Connection, batch: CommitBatch, epoch: int, written: int, revoked: Path
) -> list[tuple[str, str]]:
    """First the list beside the database: a token that is void there and not here is the lesser evil."""
    try:
        revocations.add(revoked, [write.token_hash for write in batch.writes if isinstance(write, Revoke)])
    except OSError as error:
        raise _of_disk(error, revoked) from error
    return _write(sqlite, batch, epoch, written)


def _write(sqlite: sqlite3.Connection, batch: CommitBatch, epoch: int, written: int = 0) -> list[tuple[str, str]]:
    def work() -> list[tuple[str, str]]:
        unsaid = []
        failpoint.reach("hub.after_begin")
        if fleet_db.epoch(sqlite) != epoch:
            raise StorageBroken("another hub has taken over this database")
        for write in batch.writes:
            try:
                _write_one(sqlite, write)
            except UNWRITABLE as error:
                if not (isinstance(write, Put) and isinstance(write.row, HostRecord)):
                    raise
                _write_one(sqlite, Put(write.table, write.key, write.row.without_words()))
                unsaid.append((write.key, repr(error)))
        failpoint.reach("hub.after_insert")
        _put_meta(
            sqlite,
            written=str(written),
            ledger=_json(batch.ledger),
            number=str(batch.next_number - 1),
            position=_json(batch.position),
        )
        failpoint.reach("hub.before_commit")
        return unsaid

    return _in_transaction(sqlite, work)


def check(write: Write) -> None:
    """Check that SQLite can take the write's values. Raises: one of UNWRITABLE, if it cannot."""
    for row in [_line(write)] if isinstance(write, AddTransition | AddAudit) else _statement(write)[1]:
        for value in row:
            if isinstance(value, str):
                value.encode()
            elif isinstance(value, int) and not -(2**63) <= value < 2**63:
                raise OverflowError(f"{value} is no number of SQLite's")


def _write_one(sqlite: sqlite3.Connection, write: Write) -> None:
    if isinstance(write, AddTransition | AddAudit):
        at_wall_s, kind, subject, after, actor, before, reason = _line(write)
        audit_trail.add(sqlite, at_wall_s, kind, subject, after, actor=actor, before=before, reason=reason)
        return
    statement, rows = _statement(write)
    if rows:
        sqlite.executemany(statement, rows)


def _line(write: AddTransition | AddAudit) -> tuple[float, Kind, str, str, str, str | None, str]:
    """Return a line of the audit trail: when, kind, subject, after, actor, before, reason."""
    if isinstance(write, AddTransition):
        step = write.transition
        return step.at_wall_s, Kind.COMMAND, step.command_id, step.after, step.actor, step.before, step.reason
    line = write.line
    return line.at_wall_s, line.kind, line.subject, line.after, line.actor, None, line.reason


def _statement(write: Put | Drop | Revoke | AddOutput) -> tuple[str, list[tuple[object, ...]]]:
    """Return the statement of a write, and the rows of its parameters."""
    match write:
        case Put(table, key, row):
            return _upsert(table), [ROWS[table].values(key, row)]
        case Drop(table, key):
            return f"DELETE FROM {table} WHERE {ROWS[table].key} = ?", [(key,)]  # noqa: S608  # our own names
        case Revoke():
            return "", []  # outside of the database: _commit
        case AddOutput(command_id, records):
            return "INSERT OR IGNORE INTO output VALUES (?, ?, ?, ?)", [
                (command_id, record.offset, record.stream, record.data) for record in records
            ]
        case _:
            assert_never(write)


def _prune(sqlite: sqlite3.Connection, now: Now, boot_id: str, kept_s: float, output_bytes_max: int) -> int:
    def work() -> int:
        text = fleet_db.meta(sqlite, "lasting_time")
        before = msgspec.json.decode(text, type=LastingTime) if text else None
        lasting = lasting_time.after(before, boot_id, now)
        _put_meta(sqlite, lasting_time=_json(lasting))
        commands_before_wall_s = lasting.believed_wall_s - kept_s
        gone = sqlite.execute(
            "DELETE FROM replies WHERE rowid IN (SELECT rowid FROM replies ORDER BY rowid DESC LIMIT ? OFFSET ?)",
            (PRUNED_MAX, REPLIES_KEPT_MAX),
        ).rowcount
        old = "SELECT id FROM commands WHERE NOT open AND finished_wall_s < ? ORDER BY finished_wall_s LIMIT ?"
        ids = [(row[0],) for row in sqlite.execute(old, (commands_before_wall_s, PRUNED_MAX))]
        gone += _prune_runs(sqlite, commands_before_wall_s)
        gone += sqlite.execute("DELETE FROM deadletters WHERE at_wall_s < ?", (commands_before_wall_s,)).rowcount
        gone += _prune_conditions(sqlite, commands_before_wall_s)
        for statement in ("output WHERE command_id", "commands WHERE id"):
            sqlite.executemany(f"DELETE FROM {statement} = ?", ids)  # noqa: S608  # constants
        gone += len(ids) + audit_trail.prune(sqlite, lasting.believed_wall_s, kept_s, AUDIT_PRUNED_MAX)
        if not ids:
            gone += _prune_output(sqlite, output_bytes_max) + _prune_keys(sqlite, lasting.believed_wall_s)
        return gone

    return _in_transaction(sqlite, work)


def _prune_conditions(sqlite: sqlite3.Connection, before_wall_s: float) -> int:
    """Delete conditions that have been over for long, and the oldest of hosts that have too many."""
    old = sqlite.execute(
        "DELETE FROM conditions WHERE id IN (SELECT id FROM conditions WHERE NOT open AND ended_wall_s < ? LIMIT ?)",
        (before_wall_s, PRUNED_MAX),
    ).rowcount
    too_many = sqlite.execute(
        "DELETE FROM conditions WHERE id IN (SELECT id FROM (SELECT id, row_number() OVER "
        "(PARTITION BY host ORDER BY ended_wall_s DESC) AS place FROM conditions WHERE NOT open AND host IS NOT NULL) "
        "WHERE place > ? LIMIT ?)",
        (OVER_PER_HOST_MAX, PRUNED_MAX),
    ).rowcount
    return old + too_many


def _prune_runs(sqlite: sqlite3.Connection, before_wall_s: float) -> int:
    """Delete parts of the runs that ended before this, and the runs of which no part is left."""
    gone = 0
    for (run_id,) in sqlite.execute(
        "SELECT id FROM runs WHERE NOT open AND finished_wall_s < ? LIMIT ?", (before_wall_s, PRUNED_MAX)
    ).fetchall():
        parts = "SELECT host FROM run_parts WHERE run = ? LIMIT ?"
        gone += sqlite.execute(
            f"DELETE FROM run_parts WHERE run = ? AND host IN ({parts})",  # noqa: S608  # a constant
            (run_id, run_id, PRUNED_MAX - gone),
        ).rowcount
        if gone >= PRUNED_MAX:
            break
        for statement in ("run_hosts WHERE run", "runs WHERE id"):
            gone += sqlite.execute(f"DELETE FROM {statement} = ?", (run_id,)).rowcount  # noqa: S608  # constants
    return gone


def _prune_output(sqlite: sqlite3.Connection, bytes_max: int) -> int:
    """Delete the output of the commands that ended longest ago, until the rest is within the limit."""
    (total,) = sqlite.execute(
        "SELECT coalesce(sum(json_extract(record, '$.output_bytes')), 0) FROM commands "
        "WHERE json_extract(record, '$.output_bytes') > 0"
    ).fetchone()
    gone = 0
    rows = sqlite.execute(
        "SELECT id, number, record FROM commands WHERE NOT open AND json_extract(record, '$.output_bytes') > 0 "
        "ORDER BY finished_wall_s LIMIT ?", (PRUNED_MAX,),
    ).fetchall()  # fmt: skip
    for command_id, number, text in rows:
        if total <= bytes_max:
            break
        command = msgspec.json.decode(text, type=Command)
        total -= command.output_bytes
        emptied = msgspec.structs.replace(command, output_bytes=0, output_truncated=True)
        gone += sqlite.execute("DELETE FROM output WHERE command_id = ?", (command_id,)).rowcount
        sqlite.execute(
            "UPDATE commands SET record = ? WHERE number = ?", (msgspec.json.encode(emptied).decode(), number)
        )
    return gone


def _prune_keys(sqlite: sqlite3.Connection, now_wall_s: float) -> int:
    return sqlite.execute(
        "DELETE FROM keys WHERE at_wall_s < ? AND NOT EXISTS (SELECT 1 FROM json_each(keys.command_ids) AS ids "
        "JOIN commands ON commands.id = ids.value)",
        (now_wall_s - KEYS_KEPT_S,),
    ).rowcount
