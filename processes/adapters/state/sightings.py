"""What a process has seen of somebody who means ill, for the watchdog to tell: run/impersonated/HOST (gateways) and
run/guessed/NAME (fanouts). The file holds a text for a person; its time of change is when it was seen last.

Everything here blocks.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

from processes.adapters.state import contested, durable

IMPERSONATED: Final = "impersonated"  # hosts whose agents registered under other hosts' names
GUESSED: Final = "guessed"  # fanouts at which credentials are guessed
LATELY_S: Final = 300.0  # for so long after it was seen last it is told; so a series is one alarm
LISTED_MAX: Final = 50
TEXT_BYTES_MAX: Final = 1000


def say(run: Path, kind: str, name: str, text: str) -> None:
    """Note that it is seen now. Never raises: on a full disk only an alarm is missing."""
    with contextlib.suppress(OSError):
        folder = run / kind
        folder.mkdir(mode=0o700, exist_ok=True)
        durable.replace(folder / name, text.encode()[:TEXT_BYTES_MAX], durable=False)


def lately(run: Path, kind: str) -> list[tuple[str, str]]:
    """Return what was seen within LATELY_S, at most LISTED_MAX: name and text. Removes what is older.

    Raises: OSError.
    """
    found: list[tuple[str, str]] = []
    for path in contested.lately_changed(run / kind, LATELY_S)[:LISTED_MAX]:
        with contextlib.suppress(FileNotFoundError):
            found.append((path.name, durable.read_theirs(path, TEXT_BYTES_MAX).decode(errors="replace")))
    return found
