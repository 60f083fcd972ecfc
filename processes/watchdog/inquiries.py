"""Asks supervisord, the database and the queues in the background. One that hangs delays nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from pathlib import Path
from typing import Final

import msgspec

from processes.adapters import truth_reader
from processes.adapters.logs import Log
from processes.adapters.queues import Queues, QueuesAway
from processes.adapters.settings import Settings
from processes.adapters.state import fleet_db, hindrance
from processes.adapters.state.reading import Reading
from processes.adapters.state.sqlite_file import KeptReading
from processes.adapters.supervisor import Supervised, Supervisor, SupervisorAway, SupervisorFault
from processes.core.errors import Fenced
from processes.core.records.ledger import Ledger
from processes.core.shown.status import QueueReport
from processes.core.travels.messages import EVENTS
from processes.core.travels.queue_calls import QueueRefused
from processes.core.watchdog import second_witness
from processes.core.watchdog.second_witness import QueueReading
from processes.watchdog.evidence import on_thread, within

LOOK_S: Final = 0.5  # between two looks at what blocks the hub
ASK_S: Final = 1.0  # between two questions to the database, or to `queues`
ASK_SUPERVISOR_S: Final = 1.0  # between two questions to supervisord while anything is not well
# while all is well: a question costs 2 ms of CPU here and 3 ms there; every death and every remedy asks at once
ASK_SUPERVISOR_CALM_S: Final = 5.0
ANSWER_S_MAX: Final = 2.5
FULL_SHARE: Final = 0.85  # a queue filled beyond it refuses heartbeats at nine tenths before the next question


class Inquiries:
    """The newest answers. The `run_*` functions run for ever, side by side, and deal with all failures themselves."""

    def __init__(self, settings: Settings, supervisor: Supervisor, link: Queues, log: Log) -> None:
        self.processes: dict[str, Supervised] | None = None  # None: supervisord does not answer
        self.supervisord_heard_s: float | None = None  # when it last answered, or was first asked
        self.calm = False  # set by the loop: all is well
        self.ledger: Ledger | None = None  # None: the database was never readable
        self.missing = 0  # open commands of that ledger that have no row
        self.readings: dict[str, QueueReading] = {}
        self.queues_unanswered_s: float | None = None  # since when `queues` does not answer; None: it does
        self.queues: list[QueueReport] = []
        self.events_full = False
        self.blocked = 0  # set by the loop: the hub's pid while the hub can write nothing to disk
        self.hindrance = ""  # what keeps the database from being written then, if that is known
        self._settings, self._supervisor, self._link, self._log = settings, supervisor, link, log
        self._ask_now = asyncio.Event()
        self._tally: KeptReading[tuple[Ledger, int]] | None = None  # None: made anew at the next look

    def ask_supervisor(self) -> None:
        """Ask supervisord the next question at once, because something happened."""
        self._ask_now.set()

    async def run_supervisor(self) -> None:
        """Keep `processes` current, for ever."""
        while True:
            self._ask_now.clear()
            began_s = time.monotonic()
            await self.look_at_processes()
            with contextlib.suppress(TimeoutError):
                pause_s = ASK_SUPERVISOR_CALM_S if self.calm and self.processes is not None else ASK_SUPERVISOR_S
                await within(max(0.1, pause_s - (time.monotonic() - began_s)), self._ask_now.wait())

    async def look_at_processes(self) -> None:
        """Ask supervisord once which processes there are."""
        before = self.processes
        if self.supervisord_heard_s is None:
            self.supervisord_heard_s = time.monotonic()
        try:
            self.processes = await within(ANSWER_S_MAX, on_thread(self._supervisor.processes))
        except (SupervisorAway, SupervisorFault, TimeoutError) as error:
            self.processes = None
            if before is not None:
                self._log.error("supervisord does not answer", error=str(error))
        else:
            self.supervisord_heard_s = time.monotonic()
            if before is None:
                self._log.info("supervisord answers")

    async def run_ledger(self) -> None:
        """Keep `ledger` current, for ever."""
        while True:
            await self.look_at_ledger()
            await asyncio.sleep(ASK_S)

    async def look_at_ledger(self) -> None:
        """Read the ledger once; the last answer stays if it cannot be read."""
        # the file belongs to one call at a time
        if self._settings.file.store.url:
            with contextlib.suppress(TimeoutError, fleet_db.DatabaseUnreadable, msgspec.DecodeError):
                self.ledger, self.missing = await within(
                    ANSWER_S_MAX, on_thread(lambda: truth_reader.reading(self._settings, tally_at_once))
                )
            return
        known, self._tally = self._tally or kept_tally(self._settings.database), None
        with contextlib.suppress(TimeoutError, fleet_db.DatabaseUnreadable, sqlite3.Error, msgspec.DecodeError):
            self.ledger, self.missing = await within(ANSWER_S_MAX, on_thread(known.newest))
            self._tally = known  # a connection that failed or hangs is left behind

    async def run_storage(self) -> None:
        """Keep `hindrance` current, for ever."""
        while True:
            with contextlib.suppress(TimeoutError):
                self.hindrance = await within(ANSWER_S_MAX, self._hindrance(self.blocked))
            await asyncio.sleep(LOOK_S)

    async def _hindrance(self, hub: int) -> str:
        return await on_thread(lambda: hindrance.now(self._settings.database, hub)) if hub else ""

    async def run_queues(self) -> None:
        """Keep `queues` current, for ever; it is empty while `queues` is away."""
        while True:
            try:
                stats = await self._link.stats()
            except (QueuesAway, QueueRefused, Fenced):
                self.queues, self.events_full, self.readings = [], False, {}
                self.queues_unanswered_s = self.queues_unanswered_s or time.monotonic()
            else:
                self.queues_unanswered_s = None
                self.readings = second_witness.follow(self.readings, stats, time.monotonic())
                self.queues = [
                    QueueReport(q.name, q.items, q.bytes, q.items_max, round(q.oldest_age_s, 3), q.refused, q.dropped)
                    for q in stats
                ]
                self.events_full = any(
                    q.name == EVENTS and (q.items > FULL_SHARE * q.items_max or q.bytes > FULL_SHARE * q.bytes_max)
                    for q in stats
                )
            await asyncio.sleep(ASK_S)


def kept_tally(path: Path) -> KeptReading[tuple[Ledger, int]]:
    """Return what reads the tally of this database again and again."""
    return KeptReading(path, fleet_db.open_for_reading, tally)


def tally(connection: sqlite3.Connection) -> tuple[Ledger, int]:
    """Return the committed ledger, and how many commands it calls open that have no row at the same moment.

    Raises: sqlite3.Error, msgspec.DecodeError.
    """
    connection.execute("BEGIN")
    try:
        return tally_at_once(connection)
    finally:
        connection.execute("COMMIT")  # a reader that stays would keep the log from being folded in


def tally_at_once(connection: Reading) -> tuple[Ledger, int]:
    """Return the same, in the caller's transaction."""
    found = fleet_db.ledger(connection)
    (rows,) = connection.execute("SELECT count(*) FROM commands WHERE open").fetchone()
    return found, max(0, found.queued + found.sent + found.running - int(rows))
