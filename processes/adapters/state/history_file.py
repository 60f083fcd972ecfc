"""The hosts' history of a fanout, kept in a file for its successor. Blocks: never to be called on a loop."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from processes.adapters.state import durable

# both tiers at their limits are 16 MB; 100 presences of each of 10,000 hosts, with their addresses, 55
BYTES_MAX: Final = 128 << 20


def read(path: Path) -> bytes | None:
    """Return the content that was kept last; None if there is none that can be read."""
    try:
        with path.open("rb") as file:
            content = file.read(BYTES_MAX + 1)
    except OSError:
        return None
    return content if len(content) <= BYTES_MAX else None


def write(path: Path, content: bytes) -> None:
    """Replace the content in one step. Raises: OSError."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    durable.replace(path, content, durable=False)
