"""What others say, asked for in the background: supervisord, the database, the queues. Each hangs by itself and for itself."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Final

import msgspec

from processes.adapters import database
from processes.adapters.logs import Log
from processes.adapters.queue_link import QueueLink, QueuesAway
from processes.adapters.settings import Settings
from processes.adapters.supervisor import ProcessInfo, Supervisor, SupervisorAway, SupervisorFault
from processes.core.bounded_queue import QueueRefused
from processes.core.errors import Fenced
from processes.core.ledger import Ledger
from processes.core.messages import EVENTS
from processes.core.report import QueueReport
from processes.watchdog.evidence import on_thread, within

ASK_S: Final = 1.0  # between two questions to the same one
ASK_SUPERVISOR_S: Final = 2.0  # a question costs 5 ms of CPU; every death asks at once
ANSWER_S_MAX: Final = 2.5
FULL_SHARE: Final = 0.85  # a queue filled beyond it refuses heartbeats at nine tenths before the next question


class Views:
    """The newest answers. `run_*` run beside each other, for ever; none of their failures leaves this file."""

    def __init__(self, settings: Settings, supervisor: Supervisor, link: QueueLink, log: Log) -> None:
        self.processes: dict[str, ProcessInfo] | None = None  # None: supervisord does not answer
        self.ledger: Ledger | None = None  # None: the database was never readable
        self.queues: list[QueueReport] = []
        self.events_full = False
        self._settings, self._supervisor, self._link, self._log = settings, supervisor, link, log
        self._ask_now = asyncio.Event()

    def ask_supervisor(self) -> None:
        """Something happened: the next question to supervisord is asked now."""
        self._ask_now.set()

    async def run_supervisor(self) -> None:
        """Keeps `processes` current."""
        while True:
            self._ask_now.clear()
            began_s = time.monotonic()
            await self.look_at_processes()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.1, ASK_SUPERVISOR_S - (time.monotonic() - began_s))):
                    await self._ask_now.wait()

    async def look_at_processes(self) -> None:
        """One question to supervisord."""
        before = self.processes
        try:
            self.processes = await within(ANSWER_S_MAX, on_thread(self._supervisor.processes))
        except (SupervisorAway, SupervisorFault, TimeoutError) as error:
            self.processes = None
            if before is not None:
                self._log.error("supervisord does not answer", error=str(error))
        else:
            if before is None:
                self._log.info("supervisord answers")

    async def run_ledger(self) -> None:
        """Keeps `ledger` current."""
        while True:
            await self.look_at_ledger()
            await asyncio.sleep(ASK_S)

    async def look_at_ledger(self) -> None:
        """One look into the database; what cannot be read leaves the last answer."""
        path = self._settings.database
        with contextlib.suppress(TimeoutError, database.DatabaseUnreadable, msgspec.DecodeError):
            self.ledger = await within(ANSWER_S_MAX, on_thread(lambda: database.reading(path, database.ledger)))

    async def run_queues(self) -> None:
        """Keeps `queues` current; empty while `queues` is away."""
        while True:
            try:
                stats = await self._link.stats()
            except (QueuesAway, QueueRefused, Fenced):
                self.queues, self.events_full = [], False
            else:
                self.queues = [
                    QueueReport(q.name, q.items, q.bytes, q.items_max, round(q.oldest_age_s, 3), q.refused, q.dropped) for q in stats
                ]
                self.events_full = any(
                    q.name == EVENTS and (q.items > FULL_SHARE * q.items_max or q.bytes > FULL_SHARE * q.bytes_max) for q in stats
                )
            await asyncio.sleep(ASK_S)
