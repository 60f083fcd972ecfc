"""The epoch beside the database: `epoch`, so that no restored or emptied database makes a hub speak with an old one.

Each hub writes it when it begins. Whoever finds it knows that a hub has run in this folder.
"""

from __future__ import annotations

from pathlib import Path

from processes.adapters.state import durable


def read(path: Path) -> int:
    """The epoch of the last hub; 0 if none ever ran here. Raises: OSError, ValueError."""
    try:
        return int(path.read_text())
    except FileNotFoundError:
        return 0


def write(path: Path, epoch: int) -> None:
    """Puts the epoch there, durably. Raises: OSError."""
    durable.replace(path, f"{epoch}\n".encode())
