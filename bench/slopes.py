"""How cost grows: with the agents, with the heartbeats and commands in a second, with the subscribers.

Each point is measured several times; its figures are medians, with the least and the most.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, NamedTuple

from bench import commands, connections, heartbeats
from bench.installation import Installation, installed
from bench.summary import summary

Measured = dict[str, Any]
FILES_KEPT: Final = 1024  # of a process's open files, for all but agents


class Sizes(NamedTuple):
    """What grows, in its steps, by the name of its part; the rest of the load stays as it is meanwhile.

    Units: in a second; seconds. `beats_per_s` is what ten agents may send together (core/budgets.py), and is sent
    whatever their number, so that nothing grows but it.
    """

    agents: tuple[int, ...] = (10, 100, 1000, 5000, 10_000, 20_000)
    rate: tuple[float, ...] = (100.0, 300.0, 1000.0, 3000.0, 10_000.0)
    subscribers: tuple[int, ...] = (1, 10, 100, 300, 990)
    commands: tuple[float, ...] = (5.0, 20.0, 50.0, 100.0, 200.0)
    beats_per_s: float = 100.0
    commands_per_s: float = 20.0
    beating: int = 1000  # agents, while the heartbeats in a second grow
    few: int = 100  # agents, while something else grows
    seconds: float = 5.0
    settle_s: float = heartbeats.SETTLE_S
    times: int = 3


def most_agents() -> int:
    """Return how many agents may be connected: each is an open file of the gateway, and one of the generator."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1_000_000 if hard == resource.RLIM_INFINITY else max(hard - FILES_KEPT, 1)


class Growing:
    """Measures one thing after the other that grows. `opened`: an installation with so many hosts, for a while."""

    def __init__(self, size: Sizes, opened: Callable[[int], AbstractContextManager[Installation]] = installed) -> None:
        self._size, self._opened = size, opened

    def agents(self) -> list[Measured]:
        """Return what so many hosts cost, all connected, or as many as may be: each heartbeat, each command, and the
        memory of all processes.
        """
        found, size = [], self._size
        for hosts in size.agents:
            agents = min(hosts, most_agents())
            with self._opened(hosts) as hub:
                beating = self._beating(hub, agents, size.beats_per_s)
                commanded = self._commanded(hub, agents, size.commands_per_s)
            with self._opened(hosts) as hub:  # anew: its memory is that of the agents alone
                connected = summary([asyncio.run(connections.measured(hub, agents, size.settle_s))])
            found.append({"size": hosts, "heartbeats": beating, "commands": commanded, "connections": connected})
        return found

    def rate(self) -> list[Measured]:
        """Return what heartbeats cost when so many come in a second."""
        beating = self._size.beating
        with self._opened(beating) as hub:
            return [{"size": rate, "heartbeats": self._beating(hub, beating, rate)} for rate in self._size.rate]

    def subscribers(self) -> list[Measured]:
        """Return what heartbeats cost that are shown to so many."""
        size = self._size
        with self._opened(size.few) as hub:
            return [
                {"size": count, "heartbeats": self._beating(hub, size.few, size.beats_per_s, count)}
                for count in size.subscribers
            ]

    def commands(self) -> list[Measured]:
        """Return what commands cost when so many come in a second."""
        few = self._size.few
        with self._opened(few) as hub:
            return [{"size": rate, "commands": self._commanded(hub, few, rate)} for rate in self._size.commands]

    def _beating(self, hub: Installation, agents: int, rate: float, subscribers: int = 1) -> Measured:
        size, turns = self._size, []
        for _ in range(size.times):
            beats = heartbeats.measured(
                hub, agents, rate, size.seconds, subscribers=subscribers, settle_s=size.settle_s
            )
            turns.append(asyncio.run(beats))
        return summary(turns)

    def _commanded(self, hub: Installation, agents: int, rate: float) -> Measured:
        size, turns = self._size, []
        beat_s = heartbeats.USUAL_S * max(1.0, agents / size.few)  # as many heartbeats in a second, whatever grows
        for _ in range(size.times):
            asked = commands.measured(hub, agents, rate, size.seconds, beat_s=beat_s, settle_s=size.settle_s)
            turns.append(asyncio.run(asked))
        return summary(turns)


PARTS: Final = ("agents", "rate", "subscribers", "commands")


def measured(growing: Growing, only: Sequence[str] = PARTS) -> Measured:
    """Return the points of each of these parts, in order."""
    return {name: getattr(growing, name)() for name in only}
