"""A connection to PostgreSQL on a thread of its own, opened when it is first needed and anew after a failure.

The deadline of a call is ours: past it the socket is shut, which ends the call at once wherever it waits. A query is
never cancelled: a COMMIT that waits for a synchronous standby would answer that it succeeded. TCP's own timers do not
help with a server that is frozen, for its kernel goes on to acknowledge.

Text: PostgreSQL takes no NUL. So each text stands there with NUL as SUB 0 and SUB as SUB 1; who reads by this
connection gets it back as it was. JSON has neither, and looks there as everywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import psycopg
from psycopg.abc import Buffer
from psycopg.types.string import StrDumperUnknown, TextLoader

from processes.adapters.postgres.dsn import VERSION_MIN, conninfo, one_line
from processes.core.errors import LocalError, ResourceError

SESSION: Final[Mapping[str, str]] = {  # never a statement_timeout: it would cancel a COMMIT
    "synchronous_commit": "on",
    "lock_timeout": "1s",
    "idle_in_transaction_session_timeout": "2s",
    "standard_conforming_strings": "on",
}

T = TypeVar("T")
Psycopg = psycopg.Connection[tuple[Any, ...]]


class PostgresAway(ResourceError):
    """PostgreSQL cannot be reached, or did not answer in time. What was asked may have been done or not."""


class PostgresUnfit(LocalError):
    """This server cannot hold the truth; the text says why, and what to do."""


class _Call:
    """One call, and whether its caller has given it up."""

    def __init__(self) -> None:
        self.is_given_up = self.has_begun = False


class Connection:
    """One connection and its thread. Calls are made one after another, in the order in which they were asked for.

    `opened`: called on the thread with each new connection, before anything else is: it may refuse it by raising.
    `prepare`: let psycopg prepare statements that come again.
    """

    def __init__(
        self, url: str, name: str, *, session: Mapping[str, str] = SESSION, prepare: bool = True,
        opened: Callable[[Psycopg], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self._conninfo = conninfo(url, name)
        self._session, self._prepare, self._opened = session, prepare, opened
        self._connection: Psycopg | None = None  # the thread's own
        self._socket: socket.socket | None = None  # of the same connection: to shut it from another thread
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"postgres {name}")
        self._is_closed = False

    async def call(self, work: Callable[[Psycopg], T], timeout_s: float) -> T:
        """Return the result of `work`, called on the thread. After PostgresAway it will not be called any more, and
        what it was about to do may have been done or not.

        Raises: PostgresAway; psycopg.Error, for what the server refused; what `work` and `opened` raise.
        """
        if self._is_closed:
            raise PostgresAway("the connection is closed")
        call = _Call()
        future = asyncio.get_running_loop().run_in_executor(self._thread, self._carry_out, call, work)
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(future)
        except TimeoutError:
            self._give_up(call)
            raise PostgresAway(f"PostgreSQL did not answer within {timeout_s:g} s") from None
        except asyncio.CancelledError:
            self._give_up(call)
            raise
        finally:
            future.add_done_callback(lambda done: done.cancelled() or done.exception())  # it was told, or given up

    def close(self) -> None:
        """End the connection, without waiting for the call that it may be making."""
        self._is_closed = True
        with self._lock:
            self._shut()
        self._thread.submit(self._drop)
        self._thread.shutdown(wait=False)

    def _give_up(self, call: _Call) -> None:
        with self._lock:
            call.is_given_up = True
            if call.has_begun:
                self._shut()

    def _shut(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    # on the thread

    def _carry_out(self, call: _Call, work: Callable[[Psycopg], T]) -> T:
        try:
            connection = self._open(call)
            with self._lock:
                if call.is_given_up or self._is_closed:
                    raise PostgresAway("the call was given up")
                call.has_begun = True
            return work(connection)
        except psycopg.OperationalError as error:
            if self._connection is None or self._connection.closed:
                raise PostgresAway(f"PostgreSQL cannot be reached: {one_line(error)}") from error
            raise
        finally:
            with self._lock:
                call.has_begun = False
            if self._connection is not None and self._connection.closed:
                self._drop()

    def _open(self, call: _Call) -> Psycopg:
        if self._connection is not None:
            return self._connection
        if call.is_given_up or self._is_closed:
            raise PostgresAway("the call was given up")
        connection = psycopg.connect(self._conninfo, autocommit=True, prepare_threshold=5 if self._prepare else None)
        try:
            with self._lock:
                self._socket = socket.socket(fileno=os.dup(connection.fileno()))
                call.has_begun = True  # a server that hangs now is shut as well
                if call.is_given_up:
                    self._shut()
            _adapt(connection)
            connection.execute(
                f"SELECT {', '.join(['set_config(%s, %s, false)'] * len(self._session))}",
                [part for pair in self._session.items() for part in pair],
            )
            self._opened(connection)
        except BaseException as error:
            self._connection = connection
            self._drop()
            if isinstance(error, psycopg.OperationalError):
                raise PostgresAway(f"PostgreSQL cannot be reached: {one_line(error)}") from error
            raise
        self._connection = connection
        return connection

    def _drop(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
            duplicate, self._socket = self._socket, None
        if duplicate is not None:
            duplicate.close()
        if connection is not None:
            connection.close()


def _adapt(connection: Psycopg) -> None:
    connection.adapters.register_dumper(str, _TextDumper)
    connection.adapters.register_loader("text", _TextLoader)


@contextlib.contextmanager
def opened_for_reading(url: str, name: str) -> Iterator[Psycopg]:
    """Open a connection that only reads, as of one moment. Raises: psycopg.Error."""
    with psycopg.connect(conninfo(url, name), autocommit=True, prepare_threshold=None) as connection:
        _adapt(connection)
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield connection


@contextlib.contextmanager
def opened_for_writing(url: str, name: str) -> Iterator[Psycopg]:
    """Open a connection for who changes the truth while no hub does, checked as a hub's is.

    Raises: PostgresUnfit; psycopg.Error.
    """
    with psycopg.connect(conninfo(url, name), autocommit=True, prepare_threshold=None) as connection:
        _adapt(connection)
        for key, value in SESSION.items():
            connection.execute("SELECT set_config(%s, %s, false)", (key, value))
        fit(connection)
        yield connection


@contextlib.contextmanager
def transaction(connection: Psycopg) -> Iterator[None]:
    """Do what is inside in one transaction; an exception rolls it back. Raises: psycopg.Error."""
    connection.execute("BEGIN")
    try:
        yield
        if (said := connection.execute("COMMIT").statusmessage) != "COMMIT":
            raise psycopg.InternalError(f"COMMIT was answered with {said}")
    except BaseException:
        with contextlib.suppress(psycopg.Error):
            connection.execute("ROLLBACK")
        raise


def fit(connection: Psycopg) -> None:
    """Check that the server keeps what it acknowledges, and that this session is one of its own. For `opened`.

    Raises: PostgresUnfit, with what to do.
    """
    row = connection.execute(
        "SELECT current_setting('server_version_num')::int, current_setting('fsync'), "
        "current_setting('full_page_writes'), pg_backend_pid()"
    ).fetchone()
    assert row is not None
    version, fsync, full_page_writes, backend = row
    if version < VERSION_MIN:
        raise PostgresUnfit(f"PostgreSQL {VERSION_MIN // 10000} or newer is needed, and this is {version // 10000}")
    for name, value in (("fsync", fsync), ("full_page_writes", full_page_writes)):
        if value != "on":
            raise PostgresUnfit(
                f"PostgreSQL runs with {name} = {value} and may lose what it acknowledges: ALTER SYSTEM SET {name} = on"
            )
    if backend != connection.info.backend_pid:
        raise PostgresUnfit(
            "there is a pooler (PgBouncer?) between fleethub and PostgreSQL: name the server itself in store.url"
        )


def escaped(text: str) -> str:
    """Return the text as PostgreSQL takes it."""
    return text.replace("\x1a", "\x1a1").replace("\0", "\x1a0") if "\0" in text or "\x1a" in text else text


def unescaped(text: str) -> str:
    """Return the text as it was before `escaped`."""
    return text.replace("\x1a0", "\0").replace("\x1a1", "\x1a") if "\x1a" in text else text


class _TextDumper(StrDumperUnknown):
    def dump(self, obj: str) -> Buffer | None:
        return super().dump(escaped(obj))


class _TextLoader(TextLoader):
    def load(self, data: Buffer) -> bytes | str:
        text = super().load(data)
        return unescaped(text) if isinstance(text, str) else text
