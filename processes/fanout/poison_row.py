"""A row that freezes each fanout that enters it, for drills only: run/poison_row holds its id, read at the start."""

from __future__ import annotations

import threading

from processes.adapters.settings import Settings

ID_BYTES_MAX = 512


def poison_row(settings: Settings) -> str:
    """Return the id of the row; empty if there is none, or if drills are not enabled."""
    if not settings.file.drills.enabled:
        return ""
    try:
        with settings.poison_row.open("rb") as file:
            return file.read(ID_BYTES_MAX).decode(errors="replace").strip()
    except OSError:
        return ""


def take_a_lock_twice() -> None:
    """Take a lock that is already held, so that the fanout's loop waits for itself."""
    lock = threading.Lock()
    with lock, lock:
        pass
