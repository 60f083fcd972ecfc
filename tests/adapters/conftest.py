"""For tests of the links to `queues`."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from doubles.postgres_server import PostgresServer, binary


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: a socket's may have 107 bytes."""
    made = Path(tempfile.mkdtemp(prefix="fhq"))
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="session")
def volatile_postgres() -> Iterator[PostgresServer]:
    """One for the tests of what need not last: it waits for no disk."""
    if binary("postgres") is None:
        pytest.skip("there is no PostgreSQL on this machine: bin/test installs it")
    with PostgresServer(fsync="off") as server:
        yield server
