"""The audit trail in the fleet's database: how its lines are added, listed, chained and let go.

core/travels/audit.py has what a line is and how the chain is made. Every function here is a part of its caller's
transaction, or one short read.
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import Any, Final

import msgspec

from processes.adapters.state.reading import Reading
from processes.core.travels import audit
from processes.core.travels.audit import Ageing, AuditView, Head, Kind

CHECKPOINT: Final = "audit_checkpoint"  # in the table meta: the last line that is not covered by the chain, or has gone
CHAINED_SINCE: Final = 3  # the first version of the schema whose lines are a chain

_COLUMNS: Final = "number, at_wall_s, kind, subject, before, after, reason, actor"
_HASH: Final = "lower(hex(hash))"  # whatever somebody has put there; empty: nothing
_head = msgspec.json.Decoder(Head)


def checkpoint(connection: Reading) -> Head:
    """Return the line behind which the chain begins. What cannot be read is the beginning: nothing follows from it, and
    who verifies the trail finds that. Raises: sqlite3.Error.
    """
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (CHECKPOINT,)).fetchone()
    with contextlib.suppress(msgspec.DecodeError, ValueError):
        found = Head(0, "") if row is None else _head.decode(str(row[0]))
        return Head(found.number, bytes.fromhex(found.hash).hex())
    return Head(0, "")


def head(connection: Reading) -> Head:
    """Return the newest line; one without a hash breaks the chain, and must not stop it. Raises: sqlite3.Error."""
    row = connection.execute(f"SELECT number, {_HASH} FROM audit ORDER BY number DESC LIMIT 1").fetchone()  # noqa: S608
    return checkpoint(connection) if row is None else Head(*row)


def told_head(connection: Reading) -> str:
    """Return number and hash of the newest line, as alarms tell them; empty if there is none with a hash."""
    try:
        found = head(connection)
    except sqlite3.Error:
        return ""  # of a version that does not chain it: the hub brings it up to date when it begins
    return str(found) if found.hash else ""


def add(
    connection: Reading, at_wall_s: float, kind: Kind, subject: str, after: str, *, actor: str,
    before: str | None = None, reason: str = "",
) -> None:  # fmt: skip
    """Add a line behind the newest one. Cost: one hash and one look at the newest line. Raises: sqlite3.Error."""
    newest = head(connection)
    row = (newest.number + 1, float(at_wall_s), kind, subject, before, after, reason, actor)
    digest = audit.chained(bytes.fromhex(newest.hash), audit.view((*row, "")))
    places = "?, ?, ?, ?, ?, ?, ?, ?, ?"
    connection.execute(f"INSERT INTO audit ({_COLUMNS}, hash) VALUES ({places})", (*row, digest))  # noqa: S608


def page(connection: Reading, where: str, values: list[Any], limit: int) -> list[AuditView]:
    """Return the newest lines that meet the condition, newest first. Raises: sqlite3.Error, ValueError."""
    rows = connection.execute(
        f"SELECT {_COLUMNS}, {_HASH} FROM audit WHERE {where} ORDER BY number DESC LIMIT ?",  # noqa: S608  # constants
        (*values, limit),
    )
    return [audit.view(row) for row in rows]


def prune(connection: Reading, now_wall_s: float, kept_s: float, most: int) -> int:
    """Let the oldest lines go that are past their time, at most `most`; return how many. Raises: sqlite3.Error."""
    rows = connection.execute(
        "SELECT number, at_wall_s, kind = 'command' AND EXISTS (SELECT 1 FROM commands WHERE id = subject) FROM audit "
        "WHERE at_wall_s <= ? ORDER BY number LIMIT ?",
        (now_wall_s + audit.AHEAD_S_MAX, most),
    )
    last = audit.last_to_go((Ageing(number, at, bool(kept)) for number, at, kept in rows), now_wall_s, kept_s)
    going = f"SELECT number, {_HASH} FROM audit WHERE number <= ? ORDER BY number LIMIT ?"  # noqa: S608
    gone = connection.execute(going, (last, most)).fetchall()
    if not gone:
        return 0
    number, digest = gone[-1]
    connection.execute("DELETE FROM audit WHERE number <= ?", (number,))
    if digest:
        text = msgspec.json.encode(Head(number, digest)).decode()
        connection.execute("UPDATE meta SET value = ? WHERE key = ?", (text, CHECKPOINT))
    return len(gone)
