"""A row that freezes whatever fanout enters it, for drills only: run/poison_row names its id, read at the fanout's
start.
"""

from __future__ import annotations

import threading

from processes.adapters.settings import Settings

ID_BYTES_MAX = 512


def poison_row(settings: Settings) -> str:
    """The id of the row; empty: none, or no drills here."""
    if not settings.file.drills.enabled:
        return ""
    try:
        with settings.poison_row.open("rb") as file:
            return file.read(ID_BYTES_MAX).decode(errors="replace").strip()
    except OSError:
        return ""


def take_a_lock_twice() -> None:
    """The fanout's loop waits for itself."""
    lock = threading.Lock()
    with lock, lock:
        pass
