"""incidents.db, as it is read: the incidents, with cause and remedy. The watchdog alone writes it
(watchdog/incident_store.py).
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from processes.adapters.state import sqlite_file
from processes.core.shown.pages import IncidentWithEvidence
from processes.core.shown.status import IncidentsReport, IncidentView

SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS incidents (id TEXT PRIMARY KEY, number INTEGER NOT NULL, record TEXT NOT NULL)"
)
BUSY_TIMEOUT_S: Final = 0.3  # readers answer within a second, whatever is locked
LIST_MAX: Final = 1000  # one listing; retention.incidents is 200 by default
EVIDENCE_BYTES_MAX: Final = 64 * 1024  # shown of one file; all tasks and threads are about 20 KiB
EVIDENCE_FILES_MAX: Final = 12

T = TypeVar("T")
_view = msgspec.json.Decoder(IncidentView)


def incidents(
    path: Path, limit: int = 200, before: str | None = None, process: str | None = None
) -> list[IncidentView]:
    """Return incidents, newest first; none if the file is missing or unreadable. `before`: only older ones."""
    return _reading(path, lambda connection: listed(connection, limit, before, process), [])


def listed(
    connection: sqlite3.Connection, limit: int, before: str | None = None, process: str | None = None
) -> list[IncidentView]:
    """Return incidents, newest first. Raises: sqlite3.Error, msgspec.DecodeError."""
    rows = connection.execute(
        "SELECT record FROM incidents WHERE (?1 IS NULL OR number < (SELECT number FROM incidents WHERE id = ?1)) "
        "AND (?2 IS NULL OR json_extract(record, '$.process') = ?2) ORDER BY number DESC LIMIT ?3",
        (before, process, min(limit, LIST_MAX)),
    )
    return [_view.decode(record) for (record,) in rows]


def incident(path: Path, incident_id: str) -> IncidentView | None:
    """Return one incident; None if it is unknown, pruned or unreadable. `incident_id` may be the beginning of one.

    Raises: AmbiguousId.
    """

    def read(connection: sqlite3.Connection) -> IncidentView | None:
        its_id = sqlite_file.meant(connection, "incidents", incident_id, "incidents")
        row = connection.execute("SELECT record FROM incidents WHERE id = ?", (its_id,)).fetchone()
        return None if row is None else _view.decode(row[0])

    return _reading(path, read, None)


def with_evidence(view: IncidentView, folder: Path) -> IncidentWithEvidence:
    """Return the incident with the texts of its evidence; of a file that cannot be read, the text says why.

    `folder`: that of all incidents.
    """
    names = [name for name in view.evidence if name == Path(name).name][:EVIDENCE_FILES_MAX]
    texts = {name: _text(folder / Path(view.id).name / name) for name in names}
    return IncidentWithEvidence(**msgspec.structs.asdict(view), evidence_text=texts)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            text = file.read(EVIDENCE_BYTES_MAX + 1)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    more = "" if len(text) <= EVIDENCE_BYTES_MAX else f"\n… and more, in {path}"
    return text[:EVIDENCE_BYTES_MAX].decode(errors="replace") + more


def totals(path: Path) -> IncidentsReport:
    """Return how many incidents there ever were (including pruned ones), and the id of the newest; neither, if the
    database cannot be read.
    """

    def read(connection: sqlite3.Connection) -> IncidentsReport:
        row = connection.execute("SELECT number, id FROM incidents ORDER BY number DESC LIMIT 1").fetchone()
        return IncidentsReport(0) if row is None else IncidentsReport(row[0], row[1])

    return _reading(path, read, IncidentsReport())


def open_for_reading(path: Path) -> sqlite3.Connection:
    """Return a connection that cannot write. Raises: OSError, NoFile, sqlite3.Error."""
    return sqlite_file.open_for_reading(path, BUSY_TIMEOUT_S)


def _reading(path: Path, read: Callable[[sqlite3.Connection], T], nothing: T) -> T:
    try:
        with contextlib.closing(open_for_reading(path)) as connection:
            found = read(connection)
            return found if sqlite_file.is_settled(path, connection) else nothing
    except (OSError, sqlite_file.NoFile, sqlite3.Error, msgspec.DecodeError):
        return nothing
