"""Fleet runs: what the end of one of its commands costs the hub, in a run over few hosts and in one over many."""

from __future__ import annotations

import contextlib
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from doubles.fleet_play import Play

from processes.adapters.state import fleet_db
from processes.core.hub.rules import Rules
from processes.core.hub.turn import CommitBatch
from processes.core.travels.messages import StartRun
from processes.core.values import Position
from processes.hub import store

ENDED: Final = 200  # commands whose end is measured, each with a commit of its own


def measured(hosts: int) -> dict[str, Any]:
    """Give all hosts one command by a run, and end some of them, one by one: the hub's steps and its commits, without
    the queues. Units: ms of CPU, kB written to the database's log, each for one command; s for the start of the run.
    """
    play = Play(Rules(open_max=10 * hosts))
    with tempfile.TemporaryDirectory(prefix="fhbench") as folder:
        path = Path(folder) / "fleet.db"
        with contextlib.closing(fleet_db.open_for_writing(path)) as sqlite:
            sqlite.execute("PRAGMA wal_autocheckpoint = 0")  # its log is what was written
            sqlite.execute("PRAGMA synchronous = OFF")  # how fast the disk is, is not measured here

            def commit() -> None:
                writes, play.effects.writes = play.effects.writes, []
                memory = play.memory
                batch = CommitBatch(writes, memory.ledger, memory.next_number, Position(1, 0), play.now)
                store.write(sqlite, batch, 0)

            def log_bytes() -> int:
                return path.with_name("fleet.db-wal").stat().st_size

            names = [f"host-{number}" for number in range(hosts)]
            play.enroll(*names)
            for name in names:
                play.connect(name, f"c-{name}")
            commit()
            began_s, size = time.process_time(), log_bytes()
            told = play.ask(StartRun(["pull"], names))
            commit()
            start = {
                "cpu_s": time.process_time() - began_s,
                "kb": (log_bytes() - size) / 1e3,
                "answer_kb": len(told.body) / 1e3,
            }
            began_s, size = time.process_time(), log_bytes()
            ended = names[:ENDED]
            for name in ended:
                (command_id,) = play.memory.queues[name]
                play.report(name, f"c-{name}", command_id)
                commit()
            one = {
                "cpu_ms": (time.process_time() - began_s) * 1e3 / len(ended),
                "kb": (log_bytes() - size) / 1e3 / len(ended),
            }
            (run,) = play.memory.runs.values()
            return {"hosts": hosts, "start": start, "ended": one, "state": str(run.state)}
