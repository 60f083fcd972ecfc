"""Rehearsed deafness of a gateway or fanout, for drills only: run/deaf names the process that is to accept no more.

The process empties the file: so its successor hears, and the drill sees that the fault is taken.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Final

from processes.adapters import ownership
from processes.adapters.settings import Settings
from processes.adapters.state import durable

LOOK_S: Final = 0.1
NAME_BYTES_MAX: Final = 64


def ask(settings: Settings, name: str) -> None:
    """Let the process of this name accept no more connections. Raises: OSError."""
    group = ownership.group_let_into(settings.run)
    mode = 0o600 if group is None else 0o660
    durable.replace(settings.deaf, f"{name}\n".encode(), mode=mode, durable=False, group=group)


def is_taken(settings: Settings) -> bool:
    """Return whether a process has taken what was asked for last."""
    return not _named(settings)


async def follow(settings: Settings, name: str, deafen: Callable[[], object]) -> None:
    """Call `deafen` when the file names this process, and empty the file. Without drills return at once."""
    while settings.file.drills.enabled:
        if _named(settings) == name:
            os.truncate(settings.deaf, 0)
            deafen()
        await asyncio.sleep(LOOK_S)


def _named(settings: Settings) -> str:
    try:
        with settings.deaf.open("rb") as file:
            return file.read(NAME_BYTES_MAX).decode(errors="replace").strip()
    except OSError:
        return ""
