"""The watchdog's own file: incidents.db, and the folders with their evidence.

A full or broken disk never stops a rescue: an incident that cannot be written stays in memory, is tried again, and the
log says so. All functions of Store block: the incident log calls them on a thread, one at a time.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
import time
from pathlib import Path
from typing import Final

import msgspec

from processes.adapters.state import incidents_db, sqlite_file
from processes.core.shown.status import IncidentsReport, IncidentView
from processes.core.watchdog.incident import Incident, view

BUSY_TIMEOUT_S: Final = 1.0
FOLDERS_PRUNED_MAX: Final = 1000  # at one go


class Record(IncidentView, frozen=True):
    """A row: the incident as it is shown, and while it is open the state by which the next watchdog goes on."""

    resume: Incident | None = None


_record = msgspec.json.Decoder(Record)


class Store:
    """incidents.db. Raises: sqlite3.Error or OSError from every function; nothing is half done then."""

    def __init__(self, path: Path, folder: Path, kept: int, bytes_max: int) -> None:
        """`kept`: how many incidents are kept; `bytes_max`: of all evidence together. The newest stay."""
        self._path, self._folder, self._kept, self._bytes_max = path, folder, kept, bytes_max
        self._connection: sqlite3.Connection | None = None

    def open_incidents(self) -> list[Incident]:
        """Return the incidents that were not over when the last watchdog ended."""
        rows = self._open().execute("SELECT record FROM incidents ORDER BY number DESC LIMIT ?", (self._kept,))
        found: list[Incident] = []
        for (text,) in rows:
            with contextlib.suppress(msgspec.DecodeError):
                record = _record.decode(text)
                if record.resume is not None and record.over_at is None:
                    found.append(record.resume)
        return found

    def save(self, incident: Incident) -> IncidentsReport:
        """Write the incident, prune incidents and evidence beyond the retention, and return the totals."""
        connection = self._open()
        shown = msgspec.structs.asdict(view(incident))
        record = Record(**shown, resume=incident if incident.over_wall_s is None else None)
        text = msgspec.json.encode(record).decode()
        connection.execute(
            "INSERT INTO incidents VALUES (?, (SELECT coalesce(max(number), 0) + 1 FROM incidents), ?) "
            "ON CONFLICT (id) DO UPDATE SET record = excluded.record",
            (incident.id, text),
        )
        self._prune(connection)
        return incidents_db.totals(self._path)

    def totals(self) -> IncidentsReport:
        """Return how many incidents there ever were, and the id of the newest."""
        self._open()
        return incidents_db.totals(self._path)

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            sqlite_file.show(self._path)
            connection = sqlite3.connect(
                self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute(incidents_db.SCHEMA)
            except sqlite3.Error:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _prune(self, connection: sqlite3.Connection) -> None:
        old = connection.execute(
            "SELECT id FROM incidents ORDER BY number DESC LIMIT ? OFFSET ?", (FOLDERS_PRUNED_MAX, self._kept)
        ).fetchall()
        for (incident_id,) in old:
            if os.sep not in incident_id:
                shutil.rmtree(self._folder / incident_id, ignore_errors=True)
            connection.execute("DELETE FROM incidents WHERE id = ?", (incident_id,))
        left = self._bytes_max
        for number, folder in enumerate(sorted(_folders(self._folder), reverse=True)):  # their names sort by time
            left -= _size(folder)
            if left < 0 and number > 0:
                shutil.rmtree(folder, ignore_errors=True)


def _folders(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []  # nothing was collected yet


def _size(folder: Path) -> int:
    size = 0
    with contextlib.suppress(OSError):  # the folder is being written, or was removed by hand
        for entry in os.scandir(folder):
            size += entry.stat(follow_symlinks=False).st_size
    return size


def new_id(wall_s: float) -> str:
    """Return an id that sorts by time and is a fit name for a folder: 20261123T183555.123-1f3a."""
    at = time.strftime("%Y%m%dT%H%M%S", time.gmtime(wall_s))
    return f"{at}.{int(wall_s * 1000) % 1000:03d}-{random.SystemRandom().randrange(16**4):04x}"
