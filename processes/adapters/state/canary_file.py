"""The hashes of the canary's tokens: run/canary.json, new at each start of the watchdog, which alone writes it.

A fanout reads it here; a gateway reads it only when it has been replaced (gateway/tokens.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from processes.adapters import ownership
from processes.adapters.ownership import NotPrivate
from processes.adapters.state import durable
from processes.core.shown.status import CanaryFile

FILE_BYTES_MAX: Final = 4096

_file = msgspec.json.Decoder(CanaryFile)


def write(path: Path, hashes: CanaryFile) -> None:
    """Write the hashes, so that gateways and fanouts know the tokens. Raises: OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    durable.replace(
        path, msgspec.json.encode(hashes), durable=False, group=ownership.group_let_into(path.parent)
    )  # fmt: skip


def read(path: Path) -> CanaryFile | None:
    """Return the hashes; None if no watchdog has run yet, or the file cannot be read."""
    try:
        return _file.decode(ownership.read_private(path, FILE_BYTES_MAX, forbidden=ownership.CHANGEABLE))
    except (OSError, NotPrivate, msgspec.DecodeError):
        return None
