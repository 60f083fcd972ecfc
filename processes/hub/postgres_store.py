"""The truth in PostgreSQL, for hubs on more than one machine, of which one leads.

Each transaction ends with the fence (adapters/postgres/lease.py), which renews the lease too. A call that gets no
answer in time is given up by shutting its socket; then nobody knows whether its COMMIT happened, and before the same
batch is tried again the database is asked (`settle`).

The files `epoch` and `revoked` stay on each machine beside it: what one of them names is void, and no epoch comes
again, whatever somebody restores.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import psycopg

from processes.adapters import clock, failpoint
from processes.adapters.postgres import connection as postgres
from processes.adapters.postgres import lease, schema
from processes.adapters.postgres.connection import Connection, PostgresAway, PostgresUnfit, Psycopg, transaction
from processes.adapters.postgres.sql import Sql
from processes.adapters.state import epoch_file, fleet_db, revocations
from processes.core.hub.step import StoredState
from processes.core.hub.turn import CommitBatch
from processes.core.values import Now, Position
from processes.hub import store
from processes.hub.store import RETRY_S, Blocked, StorageBlocked, StorageBroken

CALL_S: Final = 5.0  # for one call; a batch takes milliseconds
ROW_S: Final = 0.01  # more for each row of a batch, which takes a fiftieth
LOAD_S: Final = 120.0  # for making the schema and for loading all; 10,000 hosts take 0.2 s
CLOSE_S: Final = 0.5  # for giving the lease back
# what the server says when the same may go well later: no connection, its end, a lock, no room, only for reading
LATER: Final = ("08", "25", "40", "53", "55", "57", "58")

T = TypeVar("T")


class PostgresStore:
    """The database, with the lease."""

    is_shared = True
    has_log = False

    def __init__(self, connection: Connection, taken: lease.Taken, lease_s: float, epoch_beside: Path) -> None:
        self._connection, self._lease_s = connection, lease_s
        self._revoked = revocations.beside(epoch_beside)
        self._commits = taken.commits
        self._boot_id = clock.boot_id()
        self.epoch, self.is_of_another = taken.epoch, taken.is_of_another  # another installation led before
        self.call_since_ns = self.written = 0
        self._is_settled = True  # whether the last transaction happened is known

    async def restored(self) -> StoredState:
        """Return the state from which a hub starts. Raises: StorageBlocked, StorageBroken, Fenced."""
        found: list[StoredState] = []
        revoked = self._revoked

        def load(db: Sql) -> None:
            found.append(store.restored_rows(db, revoked))

        await self._once(load, LOAD_S)
        return found[-1]

    async def position(self) -> Position:
        """Return up to where the events are dealt with. Raises: StorageBlocked, StorageBroken."""
        return await called(self._connection, lambda psql: fleet_db.position(Sql(psql)), CALL_S)

    async def commit(self, batch: CommitBatch, blocked: Blocked) -> list[tuple[str, str]]:
        """Put the batch there, once and durably, if this hub still leads: as Store has it."""
        unsaid: list[tuple[str, str]] = []
        written = self.written + len(batch.writes)

        def work(db: Sql) -> None:
            unsaid[:] = store.write_rows(db, batch, written)

        await self._certainly(
            work, blocked, lambda: store.make_void(batch, self._revoked), CALL_S + ROW_S * len(batch.writes)
        )
        self.written = written
        return unsaid

    async def renew(self, position: Position, blocked: Blocked) -> None:
        """Go on leading, and commit the position: as Store has it."""
        await self._certainly(lambda db: store.put_position(db, position), blocked)

    async def prune(self, now: Now, kept_s: float, output_bytes_max: int) -> int:
        """Let go some of what is past its time; return how many rows. Raises: Fenced, StorageBlocked, StorageBroken."""
        gone: list[int] = []
        boot_id = self._boot_id

        def work(db: Sql) -> None:
            gone.append(store.prune_rows(db, now, boot_id, kept_s, output_bytes_max))

        await self._once(work, CALL_S)
        return gone[-1]

    async def fold_log(self) -> None:
        """Nothing: its log is the server's."""

    async def close(self) -> None:
        """Give the lease back, so that another need not wait, and end the connection."""
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._connection.call(lambda psql: lease.release(psql, self.epoch), CLOSE_S)
        except (PostgresAway, psycopg.Error, TimeoutError):
            pass  # it runs out by itself
        self._connection.close()

    async def _certainly(
        self, work: Callable[[Sql], None], blocked: Blocked, before: Callable[[], None] = lambda: None,
        timeout_s: float = CALL_S,
    ) -> None:  # fmt: skip
        """Do it in one fenced transaction, tried again until it is there: once."""
        tries, number = 0, -1
        while True:
            try:
                before()
                there = await self._settled()
                if there == number:
                    return  # the last try was carried out, and only its answer was lost
                number = there + 1
                await self._once(work, timeout_s)
                return
            except StorageBlocked as error:
                blocked(str(error))
                await asyncio.sleep(RETRY_S[min(tries, len(RETRY_S) - 1)])
                tries += 1

    async def _once(self, work: Callable[[Sql], None], timeout_s: float) -> None:
        """Do it in one fenced transaction. Raises: StorageBlocked, after which it was done or not; StorageBroken;
        Fenced.
        """
        number = await self._settled() + 1
        self._is_settled = False
        await self._called(lambda psql: self._fenced(psql, work, number), timeout_s)
        self._commits, self._is_settled = number, True

    async def _settled(self) -> int:
        """Return how many transactions are there, for certain. Raises: StorageBlocked, StorageBroken, Fenced."""
        if not self._is_settled:
            known = self._commits
            self._commits = await self._called(
                lambda psql: lease.settle(psql, self.epoch, known, self._lease_s), CALL_S
            )
            self._is_settled = True
        return self._commits

    def _fenced(self, psql: Psycopg, work: Callable[[Sql], None], number: int) -> None:
        with transaction(psql):
            failpoint.reach("hub.after_begin")
            work(Sql(psql))
            lease.fence(psql, self.epoch, number, self._lease_s)
            failpoint.reach("hub.before_commit")

    async def _called(self, work: Callable[[Psycopg], T], timeout_s: float) -> T:
        self.call_since_ns = time.monotonic_ns()
        try:
            return await called(self._connection, work, timeout_s)
        finally:
            self.call_since_ns = 0


class Door:
    """Where the database is, before this hub leads: it stands by until `leads` returns a store."""

    def __init__(self, url: str, holder: str, home: str, lease_s: float, epoch_beside: Path) -> None:
        self._holder, self._home, self._lease_s, self._beside = holder, home, lease_s, epoch_beside
        self._is_made = False
        try:
            self._connection = Connection(url, "hub", opened=postgres.fit)
        except psycopg.Error as error:
            raise StorageBroken(f"store.url is no URL of a PostgreSQL: {error}") from None

    async def leads(self) -> PostgresStore | None:
        """Take the lease if it can be had, and return the store of a new epoch; else None: another leads.

        Raises: StorageBlocked, if the database cannot be reached now; StorageBroken, with what to do.
        """
        if not self._is_made:
            await called(self._connection, schema.migrate, LOAD_S)
            self._is_made = True
        try:
            beside = epoch_file.read(self._beside)
        except ValueError:
            raise StorageBroken(f"{self._beside} does not hold a number: remove it") from None
        taken = await called(
            self._connection,
            lambda psql: lease.acquire(psql, self._holder, self._home, self._lease_s, epoch_beside=beside),
            CALL_S,
        )
        if taken is None:
            return None
        try:
            epoch_file.write(self._beside, taken.epoch)
        except OSError as error:
            raise store.of_disk(error, self._beside) from error
        return PostgresStore(self._connection, taken, self._lease_s, self._beside)

    def close(self) -> None:
        """End the connection of one who never led."""
        self._connection.close()


async def called(connection: Connection, work: Callable[[Psycopg], T], timeout_s: float) -> T:
    """Return the result of a call on the connection's thread. Raises: StorageBlocked, StorageBroken, and what else
    `work` raises.
    """
    try:
        return await connection.call(work, timeout_s)
    except PostgresAway as error:
        raise StorageBlocked(str(error)) from error
    except PostgresUnfit as error:
        raise StorageBroken(str(error)) from error
    except lease.WentBack as error:
        raise StorageBroken(str(error)) from error
    except psycopg.Error as error:
        told = f"PostgreSQL says {error.sqlstate}: {' '.join(str(error).split())}"
        if (error.sqlstate or "")[:2] in LATER:
            raise StorageBlocked(told) from error
        raise StorageBroken(told) from error
