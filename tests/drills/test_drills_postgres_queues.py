"""A whole installation whose queues are in PostgreSQL: it runs without the process `queues`, and outlives the server's crash."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import psycopg
import pytest
from doubles.deadline import until
from doubles.house import House
from doubles.postgres_server import PostgresServer, binary

pytestmark = pytest.mark.house


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A PostgreSQL."""
    if binary("postgres") is None:
        pytest.skip("there is no PostgreSQL on this machine: bin/test installs it")
    with PostgresServer() as server:
        yield server


def test_commands_go_through_postgresql_and_again_after_its_crash(server: PostgresServer) -> None:
    with House(FLEETHUB_QUEUES_URL=server.url()) as house:
        names = {row["name"] for row in house.json("status")["processes"]}
        assert "queues" not in names
        assert not (house.state / "run" / "queues.sock").exists()
        assert house.cli("status").returncode == 0, house.logs()
        assert {"events"} <= {each["name"] for each in house.json("status")["queues"]}
        host = house.json("hosts")["hosts"][0]["name"]
        assert house.cli("run", "uptime", host).returncode == 0, house.logs()
        pids = house.pids()
        with psycopg.connect(server.url()) as connection:
            os.kill(connection.info.backend_pid, signal.SIGKILL)
        until(lambda: house.cli("status").returncode == 0, house.logs)
        done = house.cli("run", "uptime", host)
        assert done.returncode == 0, done.stderr + house.logs()
        assert house.pids() == pids, "nobody was replaced for it"
        assert house.ledger()["lost"] == 0
