"""Hosts that cannot be judged, for they bring out a mistake of ours: each is put aside alone, and tried again."""

from __future__ import annotations

from typing import Final

from processes.core.values import Now

ASIDE_S: Final = 60.0  # between two tries of a host that was put aside; guess
ASIDE_TOLD_MAX: Final = 20  # hosts aside at a time of which more is said than that they are: then it is not one host


class Aside:
    """The hosts that were put aside, and what went wrong with them that nobody was told yet."""

    def __init__(self) -> None:
        self._until_boot_s: dict[str, float] = {}
        self._mistakes: dict[str, Exception] = {}

    def put(self, name: str, mistake: Exception, now: Now) -> float:
        """Put this host aside; return when it is to be tried again."""
        if name in self._until_boot_s or len(self._until_boot_s) < ASIDE_TOLD_MAX:
            self._mistakes[name] = mistake
        self._until_boot_s[name] = now.boot_s + ASIDE_S
        return self._until_boot_s[name]

    def has(self, name: str, now: Now) -> bool:
        """Return True while this host is not to be tried."""
        return self._until_boot_s.get(name, now.boot_s) > now.boot_s

    def drop(self, name: str) -> None:
        """Called when this host could be judged, or is gone."""
        self._until_boot_s.pop(name, None)

    def take(self) -> dict[str, Exception]:
        """Return what nobody was told yet."""
        found, self._mistakes = self._mistakes, {}
        return found
