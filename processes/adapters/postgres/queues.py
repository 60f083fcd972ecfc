"""The queues in PostgreSQL: an engine of adapters/queues.py. The functions in the database (queue_schema.py) do the
work.

There is one connection for appends, acknowledgements and stats, so they happen in the order of the calls; one for all
reads; and a fresh one for each ping.
"""

from __future__ import annotations

import hashlib
import itertools
import secrets
import time
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from psycopg import errors

from processes.adapters.postgres import queue_schema
from processes.adapters.postgres.dsn import VERSION_MIN
from processes.adapters.postgres.queue_line import Connection, Line
from processes.adapters.queues import QueuesAway
from processes.core.errors import Fenced, LocalError
from processes.core.queues import packs
from processes.core.queues.bounded_queue import HUB
from processes.core.queues.packs import Pack, QueueHead
from processes.core.travels import queue_calls
from processes.core.travels.queue_calls import (
    EPOCH_MAX,
    Appended,
    Batch,
    QueueRefused,
    QueueStats,
    check_append,
    limits_of,
)
from processes.core.values import Position

READING_MAX: Final = 64  # queues read over one link; every process reads one
PINGS_MAX: Final = 8
SWEEP_S: Final = queue_schema.TURN_S / 2  # between two looks of a hub for tables to truncate

_APPEND: Final = (
    "SELECT * FROM fleethub_queues.fh_append(%s::text, %s::int8, %s::int8, %b::bytea[], %b::bytea[], %s::bool,"
    " %s::bool, %s::float8, %s::text, %s::int8)"
)
_READ: Final = (
    "SELECT * FROM fleethub_queues.fh_read(%s::text, %s::int8, %s::int8, %s::int4, %s::int4, %s::text, %s::int8)"
)
_ACKNOWLEDGE: Final = "SELECT * FROM fleethub_queues.fh_ack(%s::text, %s::int8, %s::int8, %s::text, %s::int8)"
_CLAIM: Final = "SELECT pg_try_advisory_lock(%s::int4, hashtext(%s))"  # of the one gateway, or fanout, of this name
_STATS: Final = "SELECT * FROM fleethub_queues.fh_stats(%s::text, %s::int8)"
_REFUSALS: Final = {
    "unknown_queue": "there is no such queue",
    "too_many_queues": "there are too many queues",
    "too_big": "more in one append than there may be",
    "given_up": "a later append of the same client has come before",
    "not_yours": "an edge appends to `events`, and reads and acknowledges deliveries and broadcasts",
    "bad_position": "the queue has not reached that position",
}


class PostgresQueues:
    """A process's access to all queues. `epoch`: the hub epoch sent with every call; its owner sets it."""

    def __init__(self, url: str, role: str, *, timeout_s: float = 2.0) -> None:
        self.epoch = 0
        self._url, self._role, self._timeout_s = url, role, timeout_s
        self._calls, self._reads = self._line("calls"), self._line("reads")
        self._pings: set[Line] = set()
        self._listened: tuple[Connection | None, set[str]] = (None, set())  # the reading thread's own
        self._reading: set[str] = set()
        self._client, self._numbers = secrets.randbelow(EPOCH_MAX), itertools.count(1)
        self._swept_s = 0.0
        self._closed = False

    async def append(self, queue: str, items: Sequence[bytes], *, bulk: bool = False, lossy: bool = False) -> Appended:
        """Append all items, or none if the queue is full. bulk: nine tenths count as full.

        lossy: items that do not fit use up their sequence numbers, so that the reader sees a gap.
        Raises: QueuesAway; Fenced; QueueRefused, for more items than an append may have, or for a queue that cannot be.
        """
        limits_of(queue)
        check_append(items)
        epoch, number = self.epoch, next(self._numbers)
        several = list(packs.packed(items))
        ends, datas = [pack.ends for pack in several], [pack.data for pack in several]
        sent_boot_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        values = (queue, self._client, number, ends, datas, bulk, lossy, sent_boot_s, self._role, epoch)
        code, *position = await self._calls.call(lambda connection: _row(connection, _APPEND, values))
        if code not in ("", "full"):
            self._refuse(code, queue, epoch, position[1])
        return Appended(code == "", Position(*position))

    async def read(
        self, queue: str, after: Position, *, items_max: int = 1000, bytes_max: int = 1 << 20, wait_s: float = 1.0
    ) -> Batch:  # fmt: skip
        """Return the next items after a position, or none after `wait_s` (at most 10 s). Reading removes nothing.

        Raises: QueuesAway; Fenced; QueueRefused.
        """
        if queue not in self._reading:
            limits_of(queue)
            if len(self._reading) >= READING_MAX:
                raise LocalError(f"a link that reads {READING_MAX} queues cannot read {queue} too")
            self._reading.add(queue)
        call = queue_calls.read_call(
            self._role, self.epoch, queue, after, items_max=items_max, bytes_max=bytes_max, wait_s=wait_s
        )
        until_s = time.monotonic() + call.wait_s
        # epoch 0 stands before the oldest item as it is now, not as it will be at a later look
        at = after

        def look(connection: Connection) -> Batch | None:
            nonlocal at
            is_last = time.monotonic() >= until_s
            self._listen(connection, queue)
            values = (queue, *at, call.items_max, call.bytes_max, call.role, call.hub_epoch)
            rows = connection.execute(_READ, values, prepare=True, binary=True).fetchall()
            code, epoch, newest, acknowledged = rows[0][:4]
            if code:
                self._refuse(code, queue, call.hub_epoch, newest)
            found = packs.batch(
                QueueHead(queue, epoch, newest, acknowledged), [Pack(*row[4:]) for row in rows if row[4] is not None],
                at, call.items_max, call.bytes_max,
            )  # fmt: skip
            if found.items or found.gap or is_last:
                return found
            at = found.position
            return None

        return await self._reads.call(look, call.wait_s, _channel(queue))

    async def acknowledge(self, queue: str, position: Position) -> None:
        """Let every item up to the position be removed. Raises: QueuesAway; Fenced; QueueRefused."""
        limits_of(queue)
        epoch = self.epoch
        values = (queue, *position, self._role, epoch)
        code, _, newest = await self._calls.call(lambda connection: _row(connection, _ACKNOWLEDGE, values))
        if code:
            self._refuse(code, queue, epoch, newest)
        if self._role == HUB and time.monotonic() - self._swept_s > SWEEP_S:
            self._swept_s = time.monotonic()
            await self._calls.call(lambda connection: _row(connection, "SELECT fleethub_queues.fh_sweep()::text", ()))

    async def stats(self) -> list[QueueStats]:
        """Return every queue's figures as they are now. Raises: QueuesAway."""
        values = (self._role, self.epoch)
        rows = await self._calls.call(
            lambda connection: connection.execute(_STATS, values, prepare=True, binary=True).fetchall()
        )
        return [QueueStats(*row) for row in rows]

    async def ping(self) -> float:
        """Return the time of a round trip over a fresh connection. Units: seconds. Raises: QueuesAway."""
        if self._closed:
            raise QueuesAway("the link is closed")
        if len(self._pings) >= PINGS_MAX:
            raise QueuesAway(f"{PINGS_MAX} pings wait already")
        started_s = time.monotonic()
        line = self._line("ping")
        self._pings.add(line)
        try:
            await line.call(lambda connection: _row(connection, "SELECT 1", ()))
        finally:
            self._pings.discard(line)
            line.close()
        return time.monotonic() - started_s

    async def close(self) -> None:
        """End the connections; calls that still wait fail."""
        self._closed = True
        for line in (self._calls, self._reads, *self._pings):
            line.close()

    def _line(self, name: str) -> Line:
        return Line(self._url, f"{self._role} {name}", self._timeout_s, _open)

    def _listen(self, connection: Connection, queue: str) -> None:
        """Have the queue's appends notified, and count this connection as one of its readers. On the reading thread."""
        if self._listened[0] is not connection:
            self._listened = (connection, set())
        if queue not in self._listened[1]:
            connection.execute(f'LISTEN "{_channel(queue)}"')
            if self._role != HUB and not _row(connection, _CLAIM, (queue_schema.LOCK + 1, self._role))[0]:
                raise QueuesAway(
                    f"another {self._role} reads there: queues.url is for one installation on one machine, and the "
                    "next one needs a database of its own"
                )
            connection.execute("SELECT pg_advisory_lock_shared(%s::int4, hashtext(%s))", (queue_schema.LOCK, queue))
            self._listened[1].add(queue)

    def _refuse(self, code: str, queue: str, own_epoch: int, newest: int) -> NoReturn:
        if code == "fenced":
            raise Fenced(own_epoch, newest)
        raise QueueRefused(code, f"{queue}: {_REFUSALS.get(code, code)}")


def _row(connection: Connection, statement: str, values: Sequence[Any]) -> tuple[Any, ...]:
    found = connection.execute(statement, values, prepare=True, binary=True).fetchone()
    assert found is not None
    return found


def _channel(queue: str) -> str:
    return "fh_" + hashlib.md5(queue.encode(), usedforsecurity=False).hexdigest()


def _open(connection: Connection) -> None:
    """Called with each new connection. Make the tables if there are none, or older ones.

    Raises: QueuesAway, with what to do, for a server that cannot be this engine.
    """
    if connection.info.server_version < VERSION_MIN:
        raise QueuesAway(
            f"PostgreSQL {connection.info.server_version // 10000} is too old for the queues: 14 or newer is needed"
        )
    (own,) = _row(connection, "SELECT pg_backend_pid()", ())
    if own != connection.info.backend_pid:
        raise QueuesAway(
            "queues.url leads to a connection pooler, such as PgBouncer: name PostgreSQL itself, for the queues are "
            "notified of what is appended, which a pooler does not pass on"
        )
    try:
        row = connection.execute(
            "SELECT version, EXISTS (SELECT FROM pg_roles WHERE rolname = %s) AND NOT coalesce(("
            " SELECT has_schema_privilege(oid, 'fleethub_queues', 'USAGE') FROM pg_roles WHERE rolname = %s), true)"
            " FROM fleethub_queues.version",
            (queue_schema.EDGE, queue_schema.EDGE),
        ).fetchone()
    except (errors.UndefinedTable, errors.InvalidSchemaName):
        row = None
    is_ours = (
        row is None
        or _row(
            connection, "SELECT pg_has_role(nspowner, 'MEMBER') FROM pg_namespace WHERE nspname = 'fleethub_queues'", ()
        )[0]
    )
    if is_ours and (row is None or row[0] < queue_schema.VERSION or row[1]):
        _make(connection)


def _make(connection: Connection) -> None:
    """Make what the queues need in the database, in one transaction, whoever else is about to."""
    try:
        with connection.transaction():
            connection.execute("SET LOCAL lock_timeout = 0")
            connection.execute("SELECT pg_advisory_xact_lock(%s, 2)", (queue_schema.LOCK,))
            connection.execute("SET LOCAL client_min_messages = warning")
            connection.execute(queue_schema.statements().encode())
            if _row(connection, "SELECT count(*) FROM pg_roles WHERE rolname = %s", (queue_schema.EDGE,))[0]:
                connection.execute(queue_schema.GRANTS.encode())
    except errors.InsufficientPrivilege as error:
        raise QueuesAway(
            f"the queues' tables are not there yet, and the user of queues.url may not make them "
            f"({' '.join(str(error).split())}): let it own the database, or begin with the hub's user"
        ) from error
