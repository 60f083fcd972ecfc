"""The hub's lease and its fence: one row of the database, judged by the database's clock alone.

Whoever leads has an epoch that nobody had before. The fence is the last statement of each of its transactions: it
succeeds only while the row still has that epoch, and it renews the lease by the same statement. So a hub that froze
and thaws after another took over can commit nothing, whatever it believes, and no clock of a hub is asked.

The fence also counts the transactions: whoever does not know whether a COMMIT happened looks at the count.
"""

from __future__ import annotations

from typing import NamedTuple

from processes.adapters.postgres.connection import Psycopg, transaction
from processes.core.errors import Fenced, LocalError

YOUNG_S = (
    10.0  # a hub that led for less waits for its own lease like all others: one that ends again and again gives way
)


class WentBack(LocalError):
    """The database has less than was seen committed: a backup took its place, or a standby that lacked something."""


class Leader(NamedTuple):
    """Who leads, as it stands in the database. `left_s`: until the lease ends, by the database's clock."""

    epoch: int
    holder: str
    left_s: float


class Taken(NamedTuple):
    """A lease that was taken. `commits`: how many transactions the database has. `before`: who had it."""

    epoch: int
    commits: int
    is_of_another: bool


def leader(connection: Psycopg) -> Leader:
    """Return who leads. Raises: psycopg.Error."""
    found = connection.execute(
        "SELECT epoch, holder, extract(epoch FROM expires - clock_timestamp())::float8 FROM hub WHERE id = 1"
    ).fetchone()
    assert found is not None
    return Leader(*found)


def acquire(
    connection: Psycopg, holder: str, home: str, lease_s: float, *, epoch_beside: int = 0, young_s: float = YOUNG_S
) -> Taken | None:
    """Take the lease if it is over, or at once if it is this installation's own (`home`) and its last hub did not end
    young. Return None if another leads.

    The session of who had it is ended before, so that a transaction in which it froze holds nothing any more.
    `epoch_beside`: what the file beside knows. Raises: WentBack; psycopg.Error.
    """
    seen = connection.execute(
        "SELECT epoch, home, backend, expires <= clock_timestamp() OR "
        "(home = %s AND acquired <= clock_timestamp() - make_interval(secs => %s)) FROM hub WHERE id = 1",
        (home, young_s),
    ).fetchone()
    assert seen is not None
    epoch, old_home, backend, may = seen
    if epoch < epoch_beside:
        raise WentBack(
            f"the database knows hub {epoch}, and the file epoch says that hub {epoch_beside} has run here: it lost "
            "what was acknowledged since. Bring the newer one back; or, to go on with what it holds, write the greater "
            "number into the column epoch of its table hub"
        )
    if not may:
        return None
    if backend is not None:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE pid = %s AND pid != pg_backend_pid() "
            "AND usename = current_user AND application_name = current_setting('application_name')",
            (backend,),
        )
    with transaction(connection):
        taken = connection.execute(
            "UPDATE hub SET epoch = epoch + 1, holder = %s, home = %s, backend = pg_backend_pid(), "
            "acquired = clock_timestamp(), expires = clock_timestamp() + make_interval(secs => %s) "
            "WHERE id = 1 AND epoch = %s AND (home = %s OR expires <= clock_timestamp()) RETURNING epoch, commits",
            (holder, home, lease_s, epoch, home),
        ).fetchone()
        if taken is None:
            return None
        connection.execute(
            "INSERT INTO meta VALUES ('epoch', %s), ('written', '0') "
            "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (str(taken[0]),),
        )
    return Taken(taken[0], taken[1], old_home not in ("", home))


def fence(connection: Psycopg, epoch: int, number: int, lease_s: float) -> None:
    """Renew the lease as the last statement of transaction `number`.

    Raises: Fenced, if another leads; WentBack; psycopg.Error.
    """
    passed = connection.execute(
        "UPDATE hub SET commits = %s, backend = pg_backend_pid(), "
        "expires = clock_timestamp() + make_interval(secs => %s) WHERE id = 1 AND epoch = %s AND commits = %s",
        (number, lease_s, epoch, number - 1),
    ).rowcount
    if not passed:
        there = _stands(connection, epoch, number)
        raise LocalError(f"transaction {number} of hub {epoch} is there already, of {there}")  # it was not settled


def settle(connection: Psycopg, epoch: int, known: int, lease_s: float) -> int:
    """Return how many transactions are in the database: `known`, or one more, whose COMMIT was not answered.

    It waits for the old session's locks: a COMMIT is sent only by who holds the row's lock. And it commits itself: past
    a synchronous standby, what it has read is there too. Raises: Fenced; WentBack; psycopg.Error.
    """
    with transaction(connection):
        connection.execute("SELECT 1 FROM hub WHERE id = 1 FOR UPDATE")
        commits = _stands(connection, epoch, known)
        connection.execute(
            "UPDATE hub SET backend = pg_backend_pid(), expires = clock_timestamp() + make_interval(secs => %s) "
            "WHERE id = 1",
            (lease_s,),
        )
    return commits


def _stands(connection: Psycopg, epoch: int, least: int) -> int:
    """Return how many transactions are there. Raises: Fenced; WentBack, if there are fewer than `least`."""
    row = connection.execute("SELECT epoch, commits FROM hub WHERE id = 1").fetchone()
    found, commits = row or (0, 0)
    if found > epoch:
        raise Fenced(epoch, found)
    if found < epoch or commits < least:
        raise WentBack(
            f"the database lost acknowledged commits: it has {commits} of hub {found}, and had {least} of hub {epoch}"
        )
    return int(commits)


def release(connection: Psycopg, epoch: int) -> None:
    """Let the lease be over now: a standby need not wait. Raises: psycopg.Error."""
    connection.execute("UPDATE hub SET expires = clock_timestamp() WHERE id = 1 AND epoch = %s", (epoch,))
