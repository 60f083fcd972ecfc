"""Rehearsed deafness of a gateway or fanout, for drills only: run/deaf names the process that is to accept no more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from processes.adapters.settings import Settings
from processes.adapters.state import durable

LOOK_S: Final = 0.1
NAME_BYTES_MAX: Final = 64


def ask(settings: Settings, name: str) -> None:
    """Let the process of this name accept no more connections. Raises: OSError."""
    durable.replace(settings.deaf, f"{name}\n".encode(), durable=False)


async def follow(settings: Settings, name: str, deafen: Callable[[], object]) -> None:
    """Call `deafen` when the file names this process, and remove the file, so that the successor hears. Without drills
    return at once.
    """
    while settings.file.drills.enabled:
        if _named(settings) == name:
            settings.deaf.unlink(missing_ok=True)
            deafen()
        await asyncio.sleep(LOOK_S)


def _named(settings: Settings) -> str:
    try:
        with settings.deaf.open("rb") as file:
            return file.read(NAME_BYTES_MAX).decode(errors="replace").strip()
    except OSError:
        return ""
