"""The epoch beside the database: `epoch`. With it no restored or emptied database makes a hub use an old epoch again.

Each hub writes it when it begins, so if it is there, a hub has run in this folder.
"""

from __future__ import annotations

from pathlib import Path

from processes.adapters.state import durable


def read(path: Path) -> int:
    """Return the epoch of the last hub; 0 if none ever ran here. Raises: OSError, ValueError."""
    try:
        return int(path.read_text())
    except FileNotFoundError:
        return 0


def write(path: Path, epoch: int) -> None:
    """Write the epoch, durably. Raises: OSError."""
    durable.replace(path, f"{epoch}\n".encode())
