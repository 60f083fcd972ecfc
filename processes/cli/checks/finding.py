"""What a check of `doctor` found. Pure."""

from __future__ import annotations

import enum

import msgspec


class Level(enum.StrEnum):
    """How bad it is, in that order."""

    OK = "ok"
    WARNING = "warning"
    BAD = "bad"

    @property
    def exit_code(self) -> int:
        """Of `doctor`."""
        return list(Level).index(self)


class Finding(msgspec.Struct, frozen=True):
    """One check. `advice`: what to do, empty if nothing."""

    check: str
    level: Level
    found: str
    advice: str = ""
