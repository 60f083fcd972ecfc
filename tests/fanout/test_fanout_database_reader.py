"""What a fanout reads of a database without a log, by a user who cannot make one."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest
from doubles.deadline import until

from processes.adapters.state import fleet_db, sqlite_file
from processes.fanout.database_reader import DatabaseReader


def test_what_was_read_without_a_lock_is_read_anew_once_a_hub_has_come_and_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "fleet.db"
    fleet_db.open_for_writing(path).close()
    monkeypatch.setattr(fleet_db, "open_for_reading", lambda path: sqlite_file.open_for_reading(path, 1.0, still=True))

    def names(connection: sqlite3.Connection) -> list[str]:
        return [row[0] for row in connection.execute("SELECT label FROM tokens")]

    async def work() -> None:
        reader = DatabaseReader(path)
        try:
            assert await reader.read(names) == []
            hub = fleet_db.open_for_writing(path)
            hub.execute("INSERT INTO tokens (token_hash, role, label, created_wall_s) VALUES ('1', 'viewer', 'ann', 0)")
            hub.close()
            assert not path.with_name("fleet.db-wal").exists()
            assert await reader.read(names) == ["ann"]
            assert await asyncio.gather(*(reader.read(names) for _ in range(5))) == [["ann"]] * 5
        finally:
            reader.close()
            workers = [thread for thread in threading.enumerate() if "_connection_worker" in thread.name]
            await asyncio.to_thread(until, lambda: not any(thread.is_alive() for thread in workers))

    asyncio.run(work())
