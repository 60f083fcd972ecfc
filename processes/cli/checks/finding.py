"""What a check of `doctor` found. Pure."""

from __future__ import annotations

import enum

import msgspec


class Level(enum.StrEnum):
    """How bad a finding is, from good to bad."""

    OK = "ok"
    WARNING = "warning"
    BAD = "bad"

    @property
    def exit_code(self) -> int:
        """The exit code of `doctor` when this is its worst finding."""
        return list(Level).index(self)


class Finding(msgspec.Struct, frozen=True):
    """The result of one check. `advice`: what to do; empty if there is nothing to do."""

    check: str
    level: Level
    found: str
    advice: str = ""
