"""The hub's one writer of the database: a batch of rows, the ledger and the events position in one transaction, on one
thread. What every store promises, and the statements that are the same on all of them.
"""

from __future__ import annotations

import errno
import functools
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, TypeVar, assert_never

import msgspec

from processes.adapters import failpoint
from processes.adapters.state import audit_trail, fleet_db, revocations
from processes.adapters.state.reading import Reading
from processes.core.errors import Fenced, LocalError
from processes.core.hub.effects import AddAudit, AddOutput, AddTransition, Drop, Put, Revoke, Write
from processes.core.hub.memory import FINAL_KEPT_MAX, LOST_KEPT_MAX, REPLIES_KEPT_MAX, RUNS_KEPT_MAX
from processes.core.hub.step import StoredState
from processes.core.hub.turn import CommitBatch
from processes.core.records import lasting_time
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
    # what SQLite finds in the record by json_extract, and PostgreSQL (adapters/postgres/schema.py) has as columns
    extracted: tuple[str, ...] = ()
    unique: str = ""  # the column by which a row is known to be there already, if it is not the key


def _json(record: object) -> str:
    return msgspec.json.encode(record).decode()


def _newest(table: str, columns: str = "record", *, by: str = "number", where: str = "true", limit: int = -1) -> str:
    """Return the SELECT of the newest rows that meet the condition, oldest first. limit -1: all of them."""
    order = [f"{name} AS place{place}" for place, name in enumerate(by.split(", "))]
    newest = ", ".join(f"place{place} DESC" for place in range(len(order)))
    # only constants of this module are joined here
    rows = f"SELECT {columns}, {', '.join(order)} FROM {table} WHERE {where}"  # noqa: S608
    newest_rows = f"{rows} ORDER BY {newest} LIMIT {limit}" if limit >= 0 else rows
    return f"SELECT {columns} FROM ({newest_rows}) AS newest ORDER BY {newest.replace(' DESC', '')}"  # noqa: S608


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
        extracted=("run", "output_bytes"),
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
        extracted=("state",),
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
def _upsert(table: str, with_extracted: bool) -> str:
    """Return the statement that makes a row the table's row of its key. Its parameters are the row's values."""
    rows = ROWS[table]
    extracted = rows.extracted if with_extracted else ()
    columns = rows.columns + extracted
    changes = ", ".join(f"{name} = excluded.{name}" for name in rows.changing + extracted)
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))}) "  # noqa: S608
        f"ON CONFLICT ({rows.unique or rows.key}) DO UPDATE SET {changes}"
    )


Blocked = Callable[[str], None]  # called with each failure of a call that is tried again


class Store(Protocol):
    """The truth, and the right to change it: sqlite_store.py on one machine, postgres_store.py for more than one.
    tests/hub/test_hub_store_contract.py is what each of them promises. Made by opening it, which is the beginning of an
    epoch that no hub had before. One caller at a time (the hub's loop has at most one call under way).
    """

    epoch: int
    call_since_ns: int  # since when a writing call has not returned; 0: none is under way
    written: int  # rows, as the database knows it too
    has_log: bool  # something was committed since the log was folded in
    is_of_another: bool  # a hub of another machine led before, whose pulse is not here
    is_shared: bool  # with hubs of other machines: what is acknowledged must be committed, and the lease be renewed

    async def restored(self) -> StoredState:
        """Return the state from which a hub starts, in which what was ever made void is void, there too.

        Raises: StorageBlocked, StorageBroken.
        """
        ...

    async def position(self) -> Position:
        """Return up to where the events are dealt with. Raises: StorageBlocked, StorageBroken."""
        ...

    async def commit(self, batch: CommitBatch, blocked: Blocked) -> list[tuple[str, str]]:
        """Put the batch there, once and durably, if this hub still leads. Tried again for ever while it is locked, full
        or away. Return the hosts whose record could not be written as it is, and why: it was written without the words
        of its agent.

        Raises: Fenced, if another hub leads; StorageBroken.
        """
        ...

    async def renew(self, position: Position, blocked: Blocked) -> None:
        """Go on leading, and commit the position. Tried again and raises as `commit`."""
        ...

    async def prune(self, now: Now, kept_s: float, output_bytes_max: int) -> int:
        """Let go some of what is past its time; return how many rows, 0 when nothing is left to do.

        Raises: Fenced, StorageBlocked, StorageBroken.
        """
        ...

    async def fold_log(self) -> None:
        """Bring what was committed out of a log into the database. Raises: StorageBlocked, StorageBroken."""
        ...

    async def close(self) -> None:
        """Close it; another hub may begin at once."""
        ...


def of_disk(error: OSError, path: Path) -> StorageBlocked | StorageBroken:
    """Return what an error of the disk is for the hub."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageBlocked(f"{path}: {error.strerror}")
    return StorageBroken(f"{path} cannot be read or written: {error.strerror}")


def in_transaction(sqlite: sqlite3.Connection, work: Callable[[], T]) -> T:
    """Return the result of `work`, done in one transaction. Raises: sqlite3.Error."""
    sqlite.execute("BEGIN IMMEDIATE")
    try:
        result = work()
        sqlite.execute("COMMIT")
        return result
    except BaseException:
        if sqlite.in_transaction:
            sqlite.execute("ROLLBACK")
        raise


def put_meta(db: Reading, **values: str) -> None:
    """Put all values in by one statement: each that is carried out may have to wait for a busy loop's GIL."""
    places = ", ".join(["(?, ?)"] * len(values))
    db.execute(
        f"INSERT INTO meta VALUES {places} ON CONFLICT (key) DO UPDATE SET value = excluded.value",  # noqa: S608
        [part for pair in values.items() for part in pair],
    )


def _revoked(revoked: Path) -> frozenset[str]:
    try:
        return revocations.read(revoked)
    except OSError as error:
        raise of_disk(error, revoked) from error


def _void_revoked(db: Reading, found: dict[str, list[tuple[str, Any]]], hashes: frozenset[str]) -> None:
    """Make void in the database, and in the rows found there, what was ever made void: the list beside it is written
    first, and outlives it.
    """
    hosts = [(name, void) for name, host in found["hosts"] if (void := host.without(hashes)) is not host]
    tokens = [(token_hash,) for token_hash, _ in found["tokens"] if token_hash in hashes]
    if not hosts and not tokens:
        return
    db.executemany("UPDATE hosts SET record = ? WHERE name = ?", [(_json(host), name) for name, host in hosts])
    db.executemany("DELETE FROM tokens WHERE token_hash = ?", tokens)
    found["hosts"] = list({**dict(found["hosts"]), **dict(hosts)}.items())
    found["tokens"] = [(token_hash, token) for token_hash, token in found["tokens"] if token_hash not in hashes]


def restored(sqlite: sqlite3.Connection, revoked: Path | None = None) -> StoredState:
    """Return the state from which a hub starts, as `restored_rows`, by a transaction of its own."""
    return in_transaction(sqlite, lambda: restored_rows(sqlite, revoked))


def restored_rows(db: Reading, revoked: Path | None = None) -> StoredState:
    """Return the state from which a hub starts. What the list `revoked` names is void in it, and in the database."""
    newest = [db.execute(f"SELECT max(number) FROM {name}").fetchone() for name in ("commands", "runs")]  # noqa: S608
    found = {
        name: [rows.load(row) for select in rows.restored for row in db.execute(select)] for name, rows in ROWS.items()
    }
    void = _revoked(revoked) if revoked is not None else frozenset()
    if void:
        _void_revoked(db, found, void)
    found["void"] = [(token_hash, True) for token_hash in void]
    number = max(int(fleet_db.meta(db, "number") or 0), *(int(row[0] or 0) for row in newest))
    return StoredState(found, fleet_db.ledger(db), number + 1)


def commit(
    sqlite: sqlite3.Connection, batch: CommitBatch, epoch: int, written: int, revoked: Path
) -> list[tuple[str, str]]:
    """Write the batch in a transaction, and before it what it makes void into the list `revoked`."""
    make_void(batch, revoked)
    return write(sqlite, batch, epoch, written)


def make_void(batch: CommitBatch, revoked: Path) -> None:
    """Write into the list beside the database what the batch makes void. It is first: a token that is void there and
    not in the database is the lesser evil. Raises: StorageBlocked, StorageBroken.
    """
    try:
        revocations.add(revoked, [write.token_hash for write in batch.writes if isinstance(write, Revoke)])
    except OSError as error:
        raise of_disk(error, revoked) from error


def write(sqlite: sqlite3.Connection, batch: CommitBatch, epoch: int, written: int = 0) -> list[tuple[str, str]]:
    """Write the batch in a transaction, if no other hub has begun. Return what `write_rows` returns."""

    def work() -> list[tuple[str, str]]:
        failpoint.reach("hub.after_begin")
        if (newest := fleet_db.epoch(sqlite)) != epoch:
            raise Fenced(epoch, newest)
        unsaid = write_rows(sqlite, batch, written)
        failpoint.reach("hub.before_commit")
        return unsaid

    return in_transaction(sqlite, work)


def write_rows(db: Reading, batch: CommitBatch, written: int) -> list[tuple[str, str]]:
    """Write the batch's rows, in the caller's transaction. Return the hosts whose record was written without the words
    of its agent, and why.
    """
    unsaid = []
    for write in batch.writes:
        try:
            _write_one(db, write)
        except UNWRITABLE as error:
            if not (isinstance(write, Put) and isinstance(write.row, HostRecord)):
                raise
            _write_one(db, Put(write.table, write.key, write.row.without_words()))
            unsaid.append((write.key, repr(error)))
    failpoint.reach("hub.after_insert")
    put_meta(
        db,
        written=str(written),
        ledger=_json(batch.ledger),
        number=str(batch.next_number - 1),
        position=_json(batch.position),
    )
    return unsaid


def put_position(db: Reading, position: Position) -> None:
    """Write up to where the events are dealt with, in the caller's transaction."""
    put_meta(db, position=_json(position))


def check(write: Write) -> None:
    """Check that SQLite can take the write's values. Raises: one of UNWRITABLE, if it cannot."""
    for row in [_line(write)] if isinstance(write, AddTransition | AddAudit) else _statement(write)[1]:
        for value in row:
            if isinstance(value, str):
                value.encode()
            elif isinstance(value, int) and not -(2**63) <= value < 2**63:
                raise OverflowError(f"{value} is no number of SQLite's")


def _write_one(db: Reading, write: Write) -> None:
    if isinstance(write, AddTransition | AddAudit):
        at_wall_s, kind, subject, after, actor, before, reason = _line(write)
        audit_trail.add(db, at_wall_s, kind, subject, after, actor=actor, before=before, reason=reason)
        return
    statement, rows = _statement(write, not isinstance(db, sqlite3.Connection))
    if rows:
        db.executemany(statement, rows)


def _line(write: AddTransition | AddAudit) -> tuple[float, Kind, str, str, str, str | None, str]:
    """Return a line of the audit trail: when, kind, subject, after, actor, before, reason."""
    if isinstance(write, AddTransition):
        step = write.transition
        return step.at_wall_s, Kind.COMMAND, step.command_id, step.after, step.actor, step.before, step.reason
    line = write.line
    return line.at_wall_s, line.kind, line.subject, line.after, line.actor, None, line.reason


def _statement(
    write: Put | Drop | Revoke | AddOutput, with_extracted: bool = False
) -> tuple[str, list[tuple[object, ...]]]:
    """Return the statement of a write, and the rows of its parameters."""
    match write:
        case Put(table, key, row):
            values = ROWS[table].values(key, row)
            if with_extracted:
                values += tuple(getattr(row, name) for name in ROWS[table].extracted)
            return _upsert(table, with_extracted), [values]
        case Drop(table, key):
            return f"DELETE FROM {table} WHERE {ROWS[table].key} = ?", [(key,)]  # noqa: S608  # our own names
        case Revoke():
            return "", []  # outside of the database: _commit
        case AddOutput(command_id, records):
            return "INSERT INTO output VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", [
                (command_id, record.offset, record.stream, record.data) for record in records
            ]
        case _:
            assert_never(write)


def prune(sqlite: sqlite3.Connection, now: Now, boot_id: str, kept_s: float, output_bytes_max: int) -> int:
    """Let go some of what is past its time, in a transaction; return how many rows."""
    return in_transaction(sqlite, lambda: prune_rows(sqlite, now, boot_id, kept_s, output_bytes_max))


def prune_rows(db: Reading, now: Now, boot_id: str, kept_s: float, output_bytes_max: int) -> int:
    """Let go some of what is past its time, in the caller's transaction; return how many rows."""
    text = fleet_db.meta(db, "lasting_time")
    before = msgspec.json.decode(text, type=LastingTime) if text else None
    lasting = lasting_time.after(before, boot_id, now)
    put_meta(db, lasting_time=_json(lasting))
    commands_before_wall_s = lasting.believed_wall_s - kept_s
    gone = db.execute(
        "DELETE FROM replies WHERE rowid IN (SELECT rowid FROM replies ORDER BY rowid DESC LIMIT ? OFFSET ?)",
        (PRUNED_MAX, REPLIES_KEPT_MAX),
    ).rowcount
    old = "SELECT id FROM commands WHERE NOT open AND finished_wall_s < ? ORDER BY finished_wall_s LIMIT ?"
    ids = [(row[0],) for row in db.execute(old, (commands_before_wall_s, PRUNED_MAX))]
    gone += _prune_runs(db, commands_before_wall_s)
    gone += db.execute("DELETE FROM deadletters WHERE at_wall_s < ?", (commands_before_wall_s,)).rowcount
    gone += _prune_conditions(db, commands_before_wall_s)
    for statement in ("output WHERE command_id", "commands WHERE id"):
        db.executemany(f"DELETE FROM {statement} = ?", ids)  # noqa: S608  # constants
    gone += len(ids) + audit_trail.prune(db, lasting.believed_wall_s, kept_s, AUDIT_PRUNED_MAX)
    if not ids:
        gone += _prune_output(db, output_bytes_max) + _prune_keys(db, lasting.believed_wall_s)
    return gone


def _prune_conditions(db: Reading, before_wall_s: float) -> int:
    """Delete conditions that have been over for long, and the oldest of hosts that have too many."""
    old = db.execute(
        "DELETE FROM conditions WHERE id IN (SELECT id FROM conditions WHERE NOT open AND ended_wall_s < ? LIMIT ?)",
        (before_wall_s, PRUNED_MAX),
    ).rowcount
    too_many = db.execute(
        "DELETE FROM conditions WHERE id IN (SELECT id FROM (SELECT id, row_number() OVER "
        "(PARTITION BY host ORDER BY ended_wall_s DESC) AS place FROM conditions WHERE NOT open AND host IS NOT NULL) "
        "AS placed WHERE place > ? LIMIT ?)",
        (OVER_PER_HOST_MAX, PRUNED_MAX),
    ).rowcount
    return old + too_many


def _prune_runs(db: Reading, before_wall_s: float) -> int:
    """Delete parts of the runs that ended before this, and the runs of which no part is left."""
    gone = 0
    for (run_id,) in db.execute(
        "SELECT id FROM runs WHERE NOT open AND finished_wall_s < ? LIMIT ?", (before_wall_s, PRUNED_MAX)
    ).fetchall():
        parts = "SELECT host FROM run_parts WHERE run = ? LIMIT ?"
        gone += db.execute(
            f"DELETE FROM run_parts WHERE run = ? AND host IN ({parts})",  # noqa: S608  # a constant
            (run_id, run_id, PRUNED_MAX - gone),
        ).rowcount
        if gone >= PRUNED_MAX:
            break
        for statement in ("run_hosts WHERE run", "runs WHERE id"):
            gone += db.execute(f"DELETE FROM {statement} = ?", (run_id,)).rowcount  # noqa: S608  # constants
    return gone


def _prune_output(db: Reading, bytes_max: int) -> int:
    """Delete the output of the commands that ended longest ago, until the rest is within the limit."""
    (total,) = db.execute(
        "SELECT coalesce(sum(json_extract(record, '$.output_bytes')), 0) FROM commands "
        "WHERE json_extract(record, '$.output_bytes') > 0"
    ).fetchone()
    gone = 0
    rows = db.execute(
        "SELECT id, record FROM commands WHERE NOT open AND json_extract(record, '$.output_bytes') > 0 "
        "ORDER BY finished_wall_s LIMIT ?", (PRUNED_MAX,),
    ).fetchall()  # fmt: skip
    for command_id, text in rows:
        if total <= bytes_max:
            break
        command = msgspec.json.decode(text, type=Command)
        total -= command.output_bytes
        emptied = msgspec.structs.replace(command, output_bytes=0, output_truncated=True)
        gone += db.execute("DELETE FROM output WHERE command_id = ?", (command_id,)).rowcount
        _write_one(db, Put("commands", command_id, emptied))
    return gone


def _prune_keys(db: Reading, now_wall_s: float) -> int:
    return db.execute(
        "DELETE FROM keys WHERE at_wall_s < ? AND NOT EXISTS (SELECT 1 FROM json_each(keys.command_ids) AS ids "
        "JOIN commands ON commands.id = ids.value)",
        (now_wall_s - KEYS_KEPT_S,),
    ).rowcount
