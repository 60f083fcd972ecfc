"""The hub's one writer of the database: a batch of rows, the ledger and the events position in one transaction, on one
thread.

Every transaction is one function call on aiosqlite's thread, so a loop that is cancelled or dies can never leave one
open. BUSY and FULL are the world's fault: the same batch is tried again. An I/O error or a damaged file is not: the hub
must end, and rebuild its memory from what is on disk (a failed fsync may have thrown away what the cache pretends to
hold).
"""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeVar, assert_never

import aiosqlite
import msgspec

from processes.adapters import failpoint
from processes.adapters.state import epoch_file, fleet_db, revocations
from processes.core.errors import LocalError
from processes.core.hub.effects import (
    AddAudit,
    AddOutput,
    AddTransition,
    DropCommand,
    DropDeadLetter,
    DropHost,
    DropToken,
    PutCommand,
    PutDeadLetter,
    PutHost,
    PutKey,
    PutReply,
    PutRun,
    PutToken,
    Revoke,
    Write,
)
from processes.core.hub.memory import FINAL_KEPT_MAX, LOST_KEPT_MAX, REPLIES_KEPT_MAX, RUNS_KEPT_MAX
from processes.core.hub.rules import KeyEntry
from processes.core.hub.step import StoredState
from processes.core.records.command import Command, State
from processes.core.records.dead_letter import LETTERS_MAX
from processes.core.records.ledger import Ledger
from processes.core.records.run import Run
from processes.core.travels.audit import Kind
from processes.core.travels.messages import Json, Replied
from processes.core.values import Now, Position

KEYS_KEPT_S: Final = 30 * 86400.0  # contract: at least 30 days
PRUNED_MAX: Final = 500  # rows let go in one transaction, so that commands never wait for housekeeping
RETRY_S: Final = (0.05, 0.1, 0.2, 0.5)  # between tries of a batch; the last one repeats

T = TypeVar("T")


class StorageBroken(LocalError):
    """The database failed in a way that no retry mends: end, and start anew from the disk."""


class StorageBlocked(Exception):
    """The database is locked or the disk is full: try the same again."""


class Commit(msgspec.Struct, frozen=True):
    """What one transaction writes."""

    writes: list[Write]
    ledger: Ledger
    next_number: int
    position: Position
    now: Now


class Store:
    """The open database. One caller at a time (the hub's loop has at most one batch in commit)."""

    def __init__(self, path: Path, connection: aiosqlite.Connection, epoch: int) -> None:
        self._path, self._connection, self.epoch = path, connection, epoch
        self._inode = os.stat(path).st_ino
        self.call_since_ns = 0  # since when a writing call has not returned; 0: none is under way

    @classmethod
    async def open(cls, path: Path, beside: Path) -> Store:
        """The database, checked, with an epoch newer than any before: max(database, the file beside it) + 1, durable in
        both.

        Raises: StorageBlocked, if it is locked or the disk is full (try again); StorageBroken, with what to do.
        """
        fleet_db.finish_restore(path)
        connection = await aiosqlite.Connection(lambda: fleet_db.open_for_writing(path), iter_chunk_size=64)
        try:
            epoch = await _on_thread(connection, lambda sqlite: _begin_epoch(sqlite, beside))
        except BaseException:
            await connection.close()
            raise
        return cls(path, connection, epoch)

    async def restored(self) -> StoredState:
        """All that a starting hub needs to know. Raises: StorageBlocked, StorageBroken."""
        return await _on_thread(self._connection, _restored)

    async def position(self) -> Position:
        """Up to where the events are dealt with. Raises: StorageBlocked, StorageBroken."""
        return await _on_thread(self._connection, fleet_db.position)

    async def commit(self, batch: Commit, blocked: Callable[[str], None]) -> None:
        """The batch is on disk. Tried again for ever while the database is locked or full; `blocked` is told of each
        failure.

        Raises: StorageBroken.
        """
        tries = 0
        while True:
            if not self._path.exists() or os.stat(self._path).st_ino != self._inode:
                raise StorageBroken(
                    f"{self._path} was removed or replaced under the hub: writing on would lose everything silently"
                )
            try:
                await self._call(lambda sqlite: _commit(sqlite, batch, self.epoch, revocations.beside(self._path)))
                return
            except StorageBlocked as error:
                blocked(str(error))
                await asyncio.sleep(RETRY_S[min(tries, len(RETRY_S) - 1)])
                tries += 1

    async def prune(self, now: Now, commands_before_wall_s: float, output_bytes_max: int) -> int:
        """Some of what is past its time is gone; how many rows, 0 when nothing is left to do. Raises: StorageBlocked,
        StorageBroken.
        """
        return await self._call(lambda sqlite: _prune(sqlite, now, commands_before_wall_s, output_bytes_max))

    async def close(self) -> None:
        """Closes the database, its log folded in."""
        await self._connection.close()

    async def _call(self, call: Callable[[sqlite3.Connection], T]) -> T:
        self.call_since_ns = time.monotonic_ns()
        try:
            return await _on_thread(self._connection, call)
        finally:
            self.call_since_ns = 0


async def _on_thread(connection: aiosqlite.Connection, call: Callable[[sqlite3.Connection], T]) -> T:
    """The result of one call on the database's thread. Raises: StorageBlocked, StorageBroken."""
    try:
        result: T = await connection._execute(call, connection._conn)  # type: ignore[no-untyped-call]  # one function, one transaction: aiosqlite has no public way
        return result
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL):
            raise StorageBlocked(f"{getattr(error, 'sqlite_errorname', 'error')}: {error}") from None
        raise StorageBroken(f"the database failed: {getattr(error, 'sqlite_errorname', 'error')}: {error}") from error


def _of_disk(error: OSError, path: Path) -> StorageBlocked | StorageBroken:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageBlocked(f"{path}: {error.strerror}")
    return StorageBroken(f"{path} cannot be written: {error.strerror}")


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


def _put_meta(sqlite: sqlite3.Connection, key: str, value: str) -> None:
    sqlite.execute(
        "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value)
    )


def _begin_epoch(sqlite: sqlite3.Connection, beside: Path) -> int:
    damage = [row[0] for row in sqlite.execute("PRAGMA quick_check(5)")]
    if damage != ["ok"]:
        raise StorageBroken(
            f"the database is damaged and is not touched; restore a backup. It says: {'; '.join(map(str, damage))}"
        )
    epoch = max(fleet_db.epoch(sqlite), epoch_file.read(beside)) + 1
    try:
        epoch_file.write(beside, epoch)
    except OSError as error:
        raise _of_disk(error, beside) from error
    _in_transaction(sqlite, lambda: _put_meta(sqlite, "epoch", str(epoch)))
    return epoch


def _restored(sqlite: sqlite3.Connection) -> StoredState:
    decoder = msgspec.json.Decoder(Command)

    def some(condition: str, limit: int) -> Iterable[Command]:
        rows = sqlite.execute(f"SELECT record FROM commands WHERE {condition} ORDER BY number DESC LIMIT ?", (limit,))  # noqa: S608  # constants
        return reversed([decoder.decode(text) for (text,) in rows])

    keys = {
        key: KeyEntry(digest, tuple(msgspec.json.decode(ids)))
        for key, digest, ids in sqlite.execute("SELECT key, digest, command_ids FROM keys")
    }
    replies = sqlite.execute(
        "SELECT request_id, status, body FROM replies ORDER BY rowid DESC LIMIT ?",
        (REPLIES_KEPT_MAX,),
    )
    (newest,) = sqlite.execute(
        "SELECT max(coalesce((SELECT max(number) FROM commands), 0), coalesce((SELECT max(number) FROM runs), 0))"
    ).fetchone()
    return StoredState(
        hosts=fleet_db.hosts(sqlite),
        commands=[
            *some(f"NOT open AND state != '{State.LOST}'", FINAL_KEPT_MAX),
            *some(f"state = '{State.LOST}'", LOST_KEPT_MAX),
            *some("open", -1),
        ],
        ledger=fleet_db.ledger(sqlite),
        next_number=max(int(newest), int(fleet_db.meta(sqlite, "number") or 0)) + 1,
        keys=keys,
        runs=_runs(sqlite),
        letters=fleet_db.dead_letters(sqlite, limit=LETTERS_MAX, newest_first=False),
        replies=[
            Replied(0, request_id, status, Json(body.encode()))
            for request_id, status, body in reversed(replies.fetchall())
        ],
    )


def _runs(sqlite: sqlite3.Connection) -> list[Run]:
    ended = "SELECT record FROM runs WHERE NOT open ORDER BY number DESC LIMIT ?"
    rows = [
        *reversed(sqlite.execute(ended, (RUNS_KEPT_MAX,)).fetchall()),
        *sqlite.execute("SELECT record FROM runs WHERE open ORDER BY number"),
    ]
    return [msgspec.json.decode(text, type=Run) for (text,) in rows]


def _commit(sqlite: sqlite3.Connection, batch: Commit, epoch: int, revoked: Path) -> None:
    """First the list beside the database: a token that is void there and not here is the lesser evil."""
    try:
        revocations.add(revoked, [write.token_hash for write in batch.writes if isinstance(write, Revoke)])
    except OSError as error:
        raise _of_disk(error, revoked) from error
    _write(sqlite, batch, epoch)


def _write(sqlite: sqlite3.Connection, batch: Commit, epoch: int) -> None:
    def work() -> None:
        failpoint.reach("hub.after_begin")
        if fleet_db.epoch(sqlite) != epoch:
            raise StorageBroken("another hub has taken over this database")
        for write in batch.writes:
            _write_one(sqlite, write)
        failpoint.reach("hub.after_insert")
        _put_meta(sqlite, "ledger", msgspec.json.encode(batch.ledger).decode())
        _put_meta(sqlite, "number", str(batch.next_number - 1))
        _put_meta(sqlite, "position", msgspec.json.encode(batch.position).decode())
        failpoint.reach("hub.before_commit")

    _in_transaction(sqlite, work)


def _write_one(sqlite: sqlite3.Connection, write: Write) -> None:
    match write:
        case PutCommand(command):
            record = msgspec.json.encode(command).decode()
            sqlite.execute(
                "INSERT INTO commands VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (number) DO UPDATE SET "
                "state = excluded.state, open = excluded.open, finished_wall_s = excluded.finished_wall_s, record = excluded.record",
                (
                    command.number, command.id, command.host, command.state, command.open,
                    command.created_wall_s, command.finished_wall_s, record,
                ),
            )  # fmt: skip
        case PutRun(run):
            sqlite.execute(
                "INSERT INTO runs VALUES (?, ?, ?, ?, ?) ON CONFLICT (number) DO UPDATE SET "
                "open = excluded.open, finished_wall_s = excluded.finished_wall_s, record = excluded.record",
                (run.number, run.id, run.open, run.finished_wall_s, msgspec.json.encode(run).decode()),
            )
        case AddTransition(step):
            _add_audit(
                sqlite,
                (step.at_wall_s, Kind.COMMAND, step.command_id, step.before, step.after, step.reason, step.actor),
            )
        case AddAudit(line):
            _add_audit(sqlite, (line.at_wall_s, line.kind, line.subject, None, line.after, line.reason, line.actor))
        case Revoke():
            pass  # outside of the database: _commit
        case AddOutput(command_id, records):
            sqlite.executemany(
                "INSERT OR IGNORE INTO output VALUES (?, ?, ?, ?)",
                [(command_id, record.offset, record.stream, record.data) for record in records],
            )
        case PutHost(host):
            sqlite.execute(
                "INSERT INTO hosts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET record = excluded.record",
                (host.name, msgspec.json.encode(host).decode()),
            )
        case DropHost(name):
            sqlite.execute("DELETE FROM hosts WHERE name = ?", (name,))
        case DropCommand(command_id):
            sqlite.execute("DELETE FROM commands WHERE id = ?", (command_id,))
        case PutReply(request_id, at_wall_s, status, body):
            sqlite.execute(
                "INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?)", (request_id, at_wall_s, status, body.decode())
            )
        case PutKey(key, digest, command_ids, at_wall_s):
            sqlite.execute(
                "INSERT INTO keys VALUES (?, ?, ?, ?)",
                (key, digest, msgspec.json.encode(command_ids).decode(), at_wall_s),
            )
        case PutToken(token_hash, role, label, at_wall_s):
            sqlite.execute("INSERT OR REPLACE INTO tokens VALUES (?, ?, ?, ?)", (token_hash, role, label, at_wall_s))
        case DropToken(token_hash):
            sqlite.execute("DELETE FROM tokens WHERE token_hash = ?", (token_hash,))
        case PutDeadLetter(letter):
            record = msgspec.json.encode(msgspec.structs.replace(letter, event=b"")).decode()
            sqlite.execute(
                "INSERT OR REPLACE INTO deadletters VALUES (?, ?, ?, ?)",
                (letter.id, letter.at_wall_s, record, letter.event),
            )
        case DropDeadLetter(letter_id):
            sqlite.execute("DELETE FROM deadletters WHERE id = ?", (letter_id,))
        case _:
            assert_never(write)


def _add_audit(sqlite: sqlite3.Connection, row: tuple[float, Kind, str, str | None, str, str, str]) -> None:
    sqlite.execute(
        "INSERT INTO audit (at_wall_s, kind, subject, before, after, reason, actor) VALUES (?, ?, ?, ?, ?, ?, ?)", row
    )


def _prune(sqlite: sqlite3.Connection, now: Now, commands_before_wall_s: float, output_bytes_max: int) -> int:
    def work() -> int:
        gone = sqlite.execute(
            "DELETE FROM replies WHERE rowid IN (SELECT rowid FROM replies ORDER BY rowid DESC LIMIT ? OFFSET ?)",
            (PRUNED_MAX, REPLIES_KEPT_MAX),
        ).rowcount
        old = "SELECT id FROM commands WHERE NOT open AND finished_wall_s < ? ORDER BY finished_wall_s LIMIT ?"
        ids = [(row[0],) for row in sqlite.execute(old, (commands_before_wall_s, PRUNED_MAX))]
        gone += sqlite.execute(
            "DELETE FROM runs WHERE NOT open AND finished_wall_s < ?", (commands_before_wall_s,)
        ).rowcount
        gone += sqlite.execute("DELETE FROM deadletters WHERE at_wall_s < ?", (commands_before_wall_s,)).rowcount
        # oldest first: by their index
        rest = "SELECT number, at_wall_s FROM audit WHERE kind != 'command' ORDER BY number LIMIT ?"
        gone += sqlite.execute(
            f"DELETE FROM audit WHERE number IN (SELECT number FROM ({rest}) WHERE at_wall_s < ?)",  # noqa: S608  # constants
            (PRUNED_MAX, commands_before_wall_s),
        ).rowcount
        if not ids:
            return gone + _prune_output(sqlite, output_bytes_max) + _prune_keys(sqlite, now)
        for statement in ("output WHERE command_id", "audit WHERE kind = 'command' AND subject", "commands WHERE id"):
            sqlite.executemany(f"DELETE FROM {statement} = ?", ids)  # noqa: S608  # constants
        return gone + len(ids)

    return _in_transaction(sqlite, work)


def _prune_output(sqlite: sqlite3.Connection, bytes_max: int) -> int:
    """Output of the commands that ended longest ago goes, until the rest is within the limit."""
    (total,) = sqlite.execute(
        "SELECT coalesce(sum(json_extract(record, '$.output_bytes')), 0) FROM commands"
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


def _prune_keys(sqlite: sqlite3.Connection, now: Now) -> int:
    return sqlite.execute(
        "DELETE FROM keys WHERE at_wall_s < ? AND NOT EXISTS (SELECT 1 FROM json_each(keys.command_ids) AS ids "
        "JOIN commands ON commands.id = ids.value)",
        (now.wall_s - KEYS_KEPT_S,),
    ).rowcount
