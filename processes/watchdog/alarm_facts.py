"""The facts that alarms need beside the watchdog's report: the disk, the certificate, some rows of the database."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Final

from processes.adapters.settings import Settings
from processes.adapters.state import contested, fleet_db
from processes.core.alarms.conditions import AlarmFacts
from processes.core.shown import certificate

ROWS_MAX: Final = 50  # dead letters, and suspended hosts, that have an alarm each
CERTIFICATE_BYTES_MAX: Final = 1 << 20


def now(settings: Settings, before: AlarmFacts) -> AlarmFacts:
    """Return the facts of this moment; `before` stands in for rows that cannot be read. Blocks. Raises: OSError."""
    disk = os.statvfs(settings.state)
    expires_wall_s, problem = None, ""
    if settings.file.tls.certificate:
        try:
            expires_wall_s = certificate.expires_wall_s(_text(Path(settings.file.tls.certificate)))
        except (OSError, certificate.NoCertificate) as error:
            problem = str(error)
    put_aside, suspended = before.put_aside, before.suspended
    with contextlib.suppress(fleet_db.DatabaseUnreadable):
        put_aside, suspended = fleet_db.reading(settings.database, _rows)
    return AlarmFacts(
        disk_free_bytes=disk.f_bavail * disk.f_frsize, certificate_wall_s=expires_wall_s, certificate_problem=problem,
        put_aside=put_aside, suspended=suspended, contested=contested.lately(settings.run),
    )  # fmt: skip


def _rows(connection: sqlite3.Connection) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    dead_letters = connection.execute(
        "SELECT id, json_extract(record, '$.kind'), json_extract(record, '$.host'), json_extract(record, '$.why') "
        "FROM deadletters "
        "ORDER BY at_wall_s DESC, id DESC LIMIT ?",
        (ROWS_MAX,),
    )
    put_aside = [
        (str(key), f"{kind} {f'of {host} ' if host else ''}({why}): fleethub deadletter {key}")
        for key, kind, host, why in dead_letters
    ]
    hosts = connection.execute(
        "SELECT name, json_extract(record, '$.suspended') AS why FROM hosts WHERE why != '' ORDER BY name LIMIT ?",
        (ROWS_MAX,),
    )
    return put_aside, [(str(name), str(why)) for name, why in hosts]


def _text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(CERTIFICATE_BYTES_MAX).decode("ascii", errors="replace")
