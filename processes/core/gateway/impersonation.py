"""Agents that register under another host's name than their token's: who is told of it, and how often. Pure.

Each is closed (4503) and counted. The hub hears of a host at once, and then once in TOLD_S with how often it was since;
of all hosts of a gateway it hears TOLD_MAX times within TOLD_S at most, and those that had to wait come then.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

TOLD_S: Final = 60.0
TOLD_MAX: Final = 20  # lines of the audit trail within TOLD_S


class Impersonation(NamedTuple):
    """How often the agents of a host claimed to be another since it was told last; the rest is of the last time."""

    host: str
    connection: str
    claimed: str
    address: str
    times: int


class Impersonations:
    """What was seen and is not told yet. Bounded by the hosts that have tokens.

    Units: `now_s` are seconds of the loop's clock.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, Impersonation] = {}
        self._told_s: dict[str, float] = {}
        self._all_s: deque[float] = deque(maxlen=TOLD_MAX)
        self.count = 0  # ever

    def saw(self, host: str, connection: str, claimed: str, address: str) -> None:
        """Called when an agent with this host's token claimed to be another."""
        self.count += 1
        before = self._waiting.get(host)
        times = before.times + 1 if before is not None else 1
        self._waiting[host] = Impersonation(host, connection, claimed, address, times)

    def due(self, now_s: float) -> list[Impersonation]:
        """Return those that are to be told now."""
        if not self._waiting and not self._told_s:
            return []
        found = []
        for host, at_s in list(self._told_s.items()):
            if now_s - at_s >= TOLD_S:
                del self._told_s[host]
        for host in list(self._waiting):
            if len(self._all_s) == TOLD_MAX and now_s - self._all_s[0] < TOLD_S:
                break
            if host not in self._told_s:
                found.append(self._waiting.pop(host))
                self._told_s[host] = now_s
                self._all_s.append(now_s)
        return found
