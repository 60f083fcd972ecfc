"""The log of incidents: each is written to disk as soon as the disk takes it. core/watchdog/incident_lifecycle.py
decides what becomes of an incident.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from processes.adapters.logs import Log
from processes.core.shown.status import IncidentsReport
from processes.core.watchdog.incident import Incident
from processes.core.watchdog.incident_lifecycle import OPEN_MAX, Incidents, Moment
from processes.watchdog import incident_store
from processes.watchdog.evidence import on_thread, within
from processes.watchdog.incident_store import Store

WRITE_S_MAX: Final = 5.0  # then the disk is held to hang, and it is tried again
RETRY_S: Final = 1.0  # from a write that failed to the next one

T = TypeVar("T")


class IncidentLog:
    """Logs incidents at once when they change; `run` writes them. `incidents` decides what becomes of each."""

    def __init__(self, store: Store, boot_id: str, log: Log, *, retry_s: float = RETRY_S) -> None:
        self.incidents = Incidents(boot_id, self._take)
        self.totals = IncidentsReport()
        self.loaded = False  # what the last watchdog left open is among them
        self._store, self._log, self._retry_s = store, log, retry_s
        self._dirty: dict[str, Incident] = {}
        self._known: set[str] = set()  # ids of open ones, logged as begun
        self._changed = asyncio.Event()

    def now(self) -> Moment:
        """Return this moment, with the id of an incident that would begin in it."""
        wall_s = time.time()
        return Moment(time.monotonic(), wall_s, incident_store.new_id(wall_s))

    def _take(self, incident: Incident, line: str) -> None:
        """Called when an incident has changed."""
        if line:
            self._log.warning(line, incident=incident.id, of=incident.process)
        if incident.over_wall_s is not None:
            self._known.discard(incident.id)
            over_s = incident.over_mono_s
            took_s = None if over_s is None else round(over_s - incident.good_mono_s, 3)
            told = {"id": incident.id, "of": incident.process, "lost": incident.lost}
            self._log.info("incident over", recovered_after_s=took_s, **told)
        elif incident.id not in self._known:
            self._known.add(incident.id)
            told = {"id": incident.id, "of": incident.process, "verdict": incident.verdict}
            self._log.error("incident", reason=incident.reason, pid=incident.pid, **told)
        self._dirty[incident.id] = incident
        self._changed.set()

    async def run(self) -> None:
        """Go on with the incidents that the last watchdog left open, then write each one that changes, for ever. A disk
        that refuses is tried again.
        """
        told = False
        while True:
            try:
                if not self.loaded:
                    left = await _written(self._store.open_incidents)
                    known = [incident for incident in left if incident.id not in self._dirty]
                    self._known |= {incident.id for incident in known}
                    self.incidents.resume(known, self.now())
                    self.totals = await _written(self._store.totals)
                    self.loaded = True
                while self._dirty:
                    await self._write(next(iter(self._dirty.values())))
            except (sqlite3.Error, OSError, TimeoutError) as error:
                if not told:
                    self._log.error("incidents cannot be written now", error=str(error) or type(error).__name__)
                told = True
                await asyncio.sleep(self._retry_s)
            else:
                told = False
                self._changed.clear()
                await self._changed.wait()

    async def _write(self, incident: Incident) -> None:
        del self._dirty[incident.id]
        # a copy: the loop may change the incident while the thread writes, and then it is dirty again
        as_now = msgspec.structs.replace(incident)
        try:
            self.totals = await _written(lambda: self._store.save(as_now))
        except (sqlite3.Error, OSError, TimeoutError):
            if len(self._dirty) < OPEN_MAX:
                self._dirty.setdefault(incident.id, incident)
            raise


async def _written(call: Callable[[], T]) -> T:
    return await within(WRITE_S_MAX, on_thread(call))
