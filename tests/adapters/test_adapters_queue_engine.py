"""Which engine has the queues, and what is said where it cannot be had."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from doubles.house import free_port
from doubles.postgres_server import PostgresServer

from processes.adapters import queue_engine
from processes.adapters.postgres.queues import PostgresQueues
from processes.adapters.queue_link import QueueLink
from processes.adapters.settings import Settings, load
from processes.core.errors import Failure, LocalError


def settings(folder: Path, url: str) -> Settings:
    return load({"FLEETHUB_STATE": str(folder), "FLEETHUB_QUEUES_URL": url})


def test_the_process_has_them_unless_a_url_names_another(tmp_path: Path) -> None:
    assert isinstance(queue_engine.open_queues(settings(tmp_path, ""), "hub"), QueueLink)
    assert isinstance(queue_engine.open_queues(settings(tmp_path, "postgresql://db1/x"), "hub"), PostgresQueues)


def test_without_the_url_nothing_of_postgresql_is_imported(tmp_path: Path) -> None:
    """An installation without the driver runs as ever."""
    code = (
        "import sys; from processes.adapters import queue_engine; from processes.adapters.settings import load;"
        "import processes.hub.__main__, processes.gateway.__main__, processes.fanout.__main__,"
        " processes.watchdog.__main__; queue_engine.open_queues(load(), 'hub'); queue_engine.check(load());"
        "print([name for name in sys.modules if 'psycopg' in name or 'postgres' in name])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"FLEETHUB_STATE": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.stdout == "[]\n", done.stderr


def test_a_driver_that_is_not_installed_is_named_with_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "processes.adapters.postgres.queues", None)
    found = settings(tmp_path, "postgresql://db1/x")
    with pytest.raises(LocalError, match=r"pip install 'fleethub\[postgres\]'"):
        queue_engine.open_queues(found, "hub")
    with pytest.raises(Failure, match=r"pip install 'fleethub\[postgres\]'"):
        queue_engine.check(found)


def test_a_server_that_does_not_answer_is_told_before_anything_starts(
    tmp_path: Path, volatile_postgres: PostgresServer
) -> None:
    queue_engine.check(settings(tmp_path, volatile_postgres.url()))
    with pytest.raises(Failure, match=r"queues\.url: PostgreSQL does not answer") as refused:
        queue_engine.check(settings(tmp_path, f"postgresql://postgres@127.0.0.1:{free_port()}/x"))
    assert refused.value.advice
