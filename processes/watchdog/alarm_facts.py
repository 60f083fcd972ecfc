"""The facts that alarms need beside the watchdog's report: the disk, the certificate, some rows of the database."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Final, TypedDict

import msgspec

from processes.adapters import truth_reader
from processes.adapters.settings import Settings
from processes.adapters.state import audit_trail, contested, fleet_db, lock, sightings
from processes.core.alarms import conditions, hosts
from processes.core.alarms.conditions import AlarmFacts
from processes.core.records.condition import ConditionRecord
from processes.core.records.request import OperatorToken
from processes.core.shown import certificate
from processes.core.travels.audit import Kind

ROWS_MAX: Final = 50  # dead letters, and suspended hosts, that have an alarm each
ENDED_MAX: Final = 200  # dead letters of which it is known how they ended; an alarm is over within seconds
CERTIFICATE_BYTES_MAX: Final = 1 << 20
CONDITIONS_MAX: Final = 200  # of hosts, that have an alarm each; alarm.STANDING_MAX is more

_condition = msgspec.json.Decoder(ConditionRecord)


def now(settings: Settings, before: AlarmFacts) -> AlarmFacts:
    """Return the facts of this moment; `before` stands in for rows that cannot be read. Blocks. Raises: OSError."""
    disk = os.statvfs(settings.state)
    expires_wall_s, problem = None, ""
    if settings.file.tls.certificate:
        try:
            expires_wall_s = certificate.expires_wall_s(_text(Path(settings.file.tls.certificate)))
        except (OSError, certificate.NoCertificate) as error:
            problem = str(error)
    rows = before
    with contextlib.suppress(fleet_db.DatabaseUnreadable):
        rows = truth_reader.reading(settings, lambda connection: _rows(connection, before))
    return msgspec.structs.replace(
        rows, disk_free_bytes=disk.f_bavail * disk.f_frsize, certificate_wall_s=expires_wall_s,
        certificate_problem=problem, contested=contested.lately(settings.run),
        impersonated=sightings.lately(settings.run, sightings.IMPERSONATED),
        judging=lock.is_held(settings.judging),
        guessed=sightings.lately(settings.run, sightings.GUESSED),
    )  # fmt: skip


# The newest of each host and kind come first: one host's flood takes no alarm from others' dead letters.
_DEAD_LETTERS: Final = """
    SELECT id, kind, host, why FROM (
        SELECT id, at_wall_s, kind, host, why,
               row_number() OVER (PARTITION BY host, why ORDER BY at_wall_s DESC, id DESC) AS place
        FROM (SELECT id, at_wall_s, json_extract(record, '$.kind') AS kind, json_extract(record, '$.host') AS host,
                     json_extract(record, '$.why') AS why FROM deadletters) AS kept) AS placed
    ORDER BY place, at_wall_s DESC, id DESC LIMIT ?"""


def _rows(connection: sqlite3.Connection, before: AlarmFacts) -> AlarmFacts:
    """Return the facts that are in the database, and no others."""
    dead_letters = connection.execute(_DEAD_LETTERS, (ROWS_MAX,))
    put_aside = [
        (str(key), f"{kind} {f'of {host} ' if host else ''}({why}): fleethub deadletter {key}")
        for key, kind, host, why in dead_letters
    ]
    suspended = connection.execute(
        "SELECT name, why FROM (SELECT name, json_extract(record, '$.suspended') AS why FROM hosts) AS found "
        "WHERE why != '' ORDER BY name LIMIT ?",
        (ROWS_MAX,),
    )
    return AlarmFacts(
        put_aside=put_aside,
        ended=_ended(connection, before, dict(put_aside)),
        suspended=[(str(name), str(why)) for name, why in suspended],
        audit_head=audit_trail.told_head(connection) or before.audit_head,
        ending=_ending(connection),
        **_hosts(connection, before),
    )


class _OfHosts(TypedDict):
    hosts: list[ConditionRecord]
    hosts_over: dict[str, str]


# The loss of many hosts makes the installation degraded. Behind it come those that nobody has silenced or acknowledged:
# neither a rack's maintenance nor what people know of already takes an alarm from others. The gravest of them come
# first, and the oldest of each host and kind: nor does what fails again and again.
_CONDITIONS: Final = """
    SELECT record FROM (
        SELECT record, begun_wall_s, mass, kind != 'many' AS of_few, silence IS NOT NULL OR by IS NOT NULL AS muted,
               CASE severity WHEN 'critical' THEN 0 WHEN 'warning' THEN 1 ELSE 2 END AS rank,
               row_number() OVER (PARTITION BY host, kind ORDER BY begun_wall_s, id) AS place
        FROM (SELECT id, host, begun_wall_s, record, json_extract(record, '$.mass') AS mass,
                     json_extract(record, '$.kind') AS kind, json_extract(record, '$.severity') AS severity,
                     json_extract(record, '$.silence') AS silence, json_extract(record, '$.acknowledged_by') AS by
              FROM conditions WHERE open AND json_extract(record, '$.group') IS NULL) AS kept) AS placed
    ORDER BY mass IS NULL, muted, rank, of_few, place, begun_wall_s LIMIT ?"""


def _hosts(connection: sqlite3.Connection, before: AlarmFacts) -> _OfHosts:
    """Return the conditions of hosts that are told, and how those that were told came to their ends."""
    found = [_condition.decode(row[0]) for row in connection.execute(_CONDITIONS, (CONDITIONS_MAX,))]
    stands = {hosts.key_of(each.id) for each in found}
    over = {key: text for key, text in before.hosts_over.items() if key not in stands}
    for each in before.hosts or []:
        if hosts.key_of(each.id) not in stands:
            row = _record(connection, each.id)
            over[hosts.key_of(each.id)] = hosts.end_of(row, _record(connection, row.group) if row is not None else None)
    return {"hosts": found, "hosts_over": dict(list(over.items())[-ENDED_MAX:])}


def _record(connection: sqlite3.Connection, condition_id: str) -> ConditionRecord | None:
    row = connection.execute("SELECT record FROM conditions WHERE id = ?", (condition_id,)).fetchone()
    return None if row is None else _condition.decode(row[0])


def _ending(connection: sqlite3.Connection) -> list[OperatorToken]:
    """Return the tokens that end first, of those with an end that no other one has replaced."""
    found = [each for each in fleet_db.tokens(connection) if each.expires_wall_s is not None and not each.replaced_by]
    return sorted(found, key=lambda token: token.expires_wall_s or 0.0)[:ROWS_MAX]


def _ended(connection: sqlite3.Connection, before: AlarmFacts, stands: dict[str, str]) -> dict[str, str]:
    """Return how the dead letters that have no alarm any more lost it, the newest ENDED_MAX."""
    ended = {key: text for key, text in before.ended.items() if key not in stands}
    for key, _ in before.put_aside or []:
        if key not in stands:
            kept = connection.execute("SELECT 1 FROM deadletters WHERE id = ?", (key,)).fetchone() is not None
            audited = connection.execute(
                "SELECT after FROM audit WHERE subject = ? AND kind = ? ORDER BY number DESC LIMIT 1",
                (key, Kind.DEAD_LETTER),
            ).fetchone()
            ended[key] = conditions.end_of_dead_letter(kept, audited[0] if audited else None)
    return dict(list(ended.items())[-ENDED_MAX:])


def _text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(CERTIFICATE_BYTES_MAX).decode("ascii", errors="replace")
