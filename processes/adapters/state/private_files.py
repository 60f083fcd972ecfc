"""The state folder, and the files in it or named by it that others must not read or change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from processes.adapters import ownership, queue_socket
from processes.adapters.ownership import Fault
from processes.adapters.settings import Settings
from processes.adapters.state import revocations, session_files


def secrets(settings: Settings) -> tuple[Path, ...]:
    """Return the files that only this user may read: tokens and keys."""
    return (
        settings.operator_token, settings.agent_token, queue_socket.key_path(settings.queues_socket),
        session_files.key_place(settings.run),
    )  # fmt: skip


def records(settings: Settings) -> tuple[Path, ...]:
    """Return the files that say who may do what, or what was done."""
    database = settings.database
    log = database.with_name(f"{database.name}-wal")
    beside = (revocations.beside(database), settings.epoch_file, settings.canary)
    return (database, log, settings.incidents_database, *beside)


def faults(settings: Settings) -> Iterator[Fault]:
    """What is wrong with the owner or mode of any of them; nothing, if nothing is. What is not there is well.

    Cost: a dozen stats. Raises: OSError.
    """
    trusted = ownership.owners()
    found = [ownership.file_fault(settings.state, ownership.CHANGEABLE, trusted)]
    found += [ownership.file_fault(path, ownership.PRIVATE, trusted) for path in secrets(settings)]
    found += [ownership.file_fault(path, ownership.CHANGEABLE, trusted) for path in records(settings)]
    for path in (settings.config, settings.agent_file):
        found.append(ownership.file_fault(path, ownership.CHANGEABLE, trusted, behind_folder=True))
    if settings.file.alarms.urls:  # there are passwords in them
        found.append(ownership.file_fault(settings.config, ownership.READABLE, trusted, behind_folder=True))
    if settings.file.tls.key:
        found.append(ownership.file_fault(Path(settings.file.tls.key), ownership.TLS_KEY, trusted, behind_folder=True))
    yield from (each for each in found if each is not None)
