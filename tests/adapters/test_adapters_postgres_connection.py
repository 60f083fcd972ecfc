"""A connection to PostgreSQL: its thread, its deadline, and text that PostgreSQL does not take."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import psycopg
import pytest
from doubles.postgres_server import PostgresServer, binary
from hypothesis import given
from hypothesis import strategies as st

from processes.adapters.postgres.connection import Connection, PostgresAway, escaped, unescaped

pytestmark = pytest.mark.skipif(binary("initdb") is None, reason="no PostgreSQL on this machine")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as running:
        yield running


@given(st.text(alphabet=st.sampled_from("\0\x1a01a")))
def test_text_is_without_nul_there_and_comes_back_as_it_was(text: str) -> None:
    assert "\0" not in escaped(text)
    assert unescaped(escaped(text)) == text


def test_a_frozen_server_ends_no_thread_and_what_was_given_up_is_not_done_later(server: PostgresServer) -> None:
    """The bugs it would catch: a call waits for ever, or is carried out after its caller has gone on."""

    async def work() -> None:
        connection = Connection(server.url(), "test")
        await connection.call(lambda c: c.execute("CREATE TABLE given_up (n INT)"), 30.0)
        with server.frozen():
            with pytest.raises(PostgresAway):
                await connection.call(lambda c: c.execute("INSERT INTO given_up VALUES (1)"), 0.3)
            with pytest.raises(PostgresAway):  # it waits for a new connection
                await connection.call(lambda c: c.execute("INSERT INTO given_up VALUES (2)"), 0.3)
        await connection.call(lambda c: c.execute("INSERT INTO given_up VALUES (3)"), 30.0)
        rows = await connection.call(lambda c: c.execute("SELECT n FROM given_up WHERE n > 1").fetchall(), 30.0)
        assert rows == [(3,)]
        connection.close()

    asyncio.run(work())


def test_a_session_that_was_ended_is_opened_anew_by_the_next_call(server: PostgresServer) -> None:
    async def work() -> None:
        connection = Connection(server.url(), "test")
        first = await connection.call(lambda c: c.info.backend_pid, 30.0)
        with psycopg.connect(server.url()) as other:
            other.execute("SELECT pg_terminate_backend(%s, 10000)", (first,))
        with pytest.raises(PostgresAway):
            await connection.call(lambda c: c.execute("SELECT 1"), 30.0)
        assert await connection.call(lambda c: c.info.backend_pid, 30.0) != first
        row = await connection.call(lambda c: c.execute("SELECT %s::text", ("a\0b\x1ac",)).fetchone(), 30.0)
        assert row == ("a\0b\x1ac",)
        connection.close()

    asyncio.run(work())
