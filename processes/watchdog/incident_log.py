"""The book of incidents: the open ones in memory, all of them on disk as soon as the disk takes them."""

from __future__ import annotations

import asyncio
import collections
import sqlite3
import time
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from processes.adapters.logs import Log
from processes.core.records.ledger import Ledger
from processes.core.shown.status import IncidentsReport
from processes.core.watchdog.incident import Incident
from processes.core.watchdog.verdict import Judgement
from processes.watchdog import incident_store
from processes.watchdog.evidence import on_thread, within
from processes.watchdog.incident_store import Store

WRITE_S_MAX: Final = 5.0  # then the disk is held to hang, and it is tried again
RETRY_S: Final = 1.0
OPEN_MAX: Final = 100  # a budget of 5 kills a minute and one incident a process keep it far below

T = TypeVar("T")


class IncidentLog:
    """Incidents, each changed by the loop and written by `run`."""

    def __init__(self, store: Store, boot_id: str, log: Log) -> None:
        self.open: dict[str, Incident] = {}
        self.totals = IncidentsReport()
        self.loaded = False  # what the last watchdog left open is among them
        self._store, self._boot_id, self._log = store, boot_id, log
        self._dirty: dict[str, Incident] = {}
        self._ended: collections.deque[Incident] = collections.deque(maxlen=OPEN_MAX)
        self._changed = asyncio.Event()

    def new(self, process: str, judgement: Judgement, pid: int, epoch: int, ledger: Ledger | None) -> Incident:
        """A new incident, found now."""
        wall_s, now_s = time.time(), time.monotonic()
        incident = Incident(
            id=incident_store.new_id(wall_s),
            process=process,
            verdict=str(judgement.verdict),
            reason=judgement.reason,
            pid=pid,
            epoch=epoch,
            boot_id=self._boot_id,
            good_mono_s=min(judgement.good_s, now_s),
            found_mono_s=now_s,
            found_wall_s=wall_s,
            ledger=ledger,
        )
        if len(self.open) < OPEN_MAX:
            self.open[incident.id] = incident
        self._log.error(
            "incident", id=incident.id, of=process, verdict=incident.verdict, reason=incident.reason, pid=pid
        )
        self.changed(incident)
        return incident

    def of(self, process: str, pid: int | None = None) -> Incident | None:
        """The newest open incident of a process; with `pid`, of exactly that one."""
        found = [i for i in self.open.values() if i.process == process and (pid is None or i.pid == pid)]
        return found[-1] if found else None

    def tell(self, incident: Incident, line: str) -> None:
        """Adds a line to its story."""
        incident.tell(time.monotonic(), line)
        self._log.warning(line, incident=incident.id, of=incident.process)
        self.changed(incident)

    def over(self, incident: Incident, over_mono_s: float | None, lost: int) -> None:
        """It is over. None: nobody can say since when."""
        incident.over_mono_s, incident.over_wall_s, incident.lost = over_mono_s, time.time(), lost
        self.open.pop(incident.id, None)
        self._ended.append(incident)
        took_s = None if over_mono_s is None else round(over_mono_s - incident.good_mono_s, 3)
        self._log.info("incident over", id=incident.id, of=incident.process, recovered_after_s=took_s, lost=lost)
        self.changed(incident)

    def take_ended(self) -> list[Incident]:
        """Those that are over since the last call; the newest OPEN_MAX of them."""
        taken = list(self._ended)
        self._ended.clear()
        return taken

    def changed(self, incident: Incident) -> None:
        """It is to be written."""
        self._dirty[incident.id] = incident
        self._changed.set()

    async def run(self) -> None:
        """Goes on with what the last watchdog left open, then writes what changes. A disk that refuses is tried again
        for ever.
        """
        told = False
        while True:
            try:
                if not self.loaded:
                    self._resume(await _written(self._store.open_incidents))
                    self.totals = await _written(self._store.totals)
                    self.loaded = True
                while self._dirty:
                    await self._write(next(iter(self._dirty.values())))
            except (sqlite3.Error, OSError, TimeoutError) as error:
                if not told:
                    self._log.error("incidents cannot be written now", error=str(error) or type(error).__name__)
                told = True
                await asyncio.sleep(RETRY_S)
            else:
                told = False
                self._changed.clear()
                await self._changed.wait()

    async def _write(self, incident: Incident) -> None:
        del self._dirty[incident.id]
        as_now = msgspec.structs.replace(
            incident
        )  # the loop may change it while the thread writes: then it is dirty again
        try:
            self.totals = await _written(lambda: self._store.save(as_now))
        except (sqlite3.Error, OSError, TimeoutError):
            if len(self._dirty) < OPEN_MAX:
                self._dirty.setdefault(incident.id, incident)
            raise

    def _resume(self, left: list[Incident]) -> None:
        """Incidents of this boot stay open; those of an earlier one ended with it."""
        for incident in reversed(left):
            if incident.id in self._dirty:
                continue
            incident.tell(time.monotonic(), "the watchdog was started anew")
            if incident.boot_id == self._boot_id and len(self.open) < OPEN_MAX:
                self.open = {incident.id: incident, **self.open}
            else:
                self.over(incident, None, incident.lost)


async def _written(call: Callable[[], T]) -> T:
    return await within(WRITE_S_MAX, on_thread(call))
