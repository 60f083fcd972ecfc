"""What a measurement costs each process, how steadily they turned meanwhile, and what else used the machine."""

from __future__ import annotations

import asyncio
import contextlib
import time
from types import TracebackType
from typing import Any, Final, NamedTuple, Protocol

import psutil

from bench.load import Load

LOOK_S: Final = 0.05  # between two looks at the pulses
IDLE: Final = ("idle", "iowait")  # of /proc/stat: what no process used; guests are part of `user` there


class Cost(NamedTuple):
    """What a process has used since it began.

    Units: seconds of CPU; MB of memory that it holds now; seconds in which its loop could run and waited for a CPU.
    """

    cpu_s: float
    memory_mb: float
    waited_s: float = 0.0


class Measurable(Protocol):
    """Something that runs in processes of its own."""

    def costs(self) -> dict[str, Cost]:
        """Return what each process has cost so far."""
        ...

    def turned_s(self) -> dict[str, float]:
        """Return when each process last finished a turn, of those that say so. Units: s of CLOCK_MONOTONIC."""
        ...

    def incidents(self) -> int:
        """Return how many incidents it has noted so far."""
        ...


def busy_s() -> float:
    """Return how many seconds of CPU the whole machine has used since it began."""
    times = psutil.cpu_times()
    used = sum(getattr(times, name) for name in times._fields if name not in (*IDLE, "guest", "guest_nice"))
    return float(used)


class Meter:
    """An asynchronous context around what is measured."""

    def __init__(self, hub: Measurable, *loads: Load) -> None:
        """`loads`: the clients, whose CPU is none of the hub's and not elsewhere."""
        self._hub, self._loads = hub, loads
        self._gaps_s: dict[str, float] = {}
        self._looking: asyncio.Task[None] | None = None
        self._before: dict[str, Cost] = {}
        self._after: dict[str, Cost] = {}
        self._began_s = self.lasted_s = self._others_s = 0.0
        self._incidents = 0

    async def __aenter__(self) -> Meter:
        self._before, self._began_s, self._others_s = self._hub.costs(), time.monotonic(), self._not_load_s()
        self._incidents = self._hub.incidents()
        self._looking = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._after, self._others_s = self._hub.costs(), self._not_load_s() - self._others_s
        self.lasted_s = time.monotonic() - self._began_s
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking

    def _not_load_s(self) -> float:
        return busy_s() - sum(load.cpu_s() for load in self._loads)

    async def _look(self) -> None:
        while True:
            turned_s = self._hub.turned_s()
            now_s = time.monotonic()
            for name, at_s in turned_s.items():
                self._gaps_s[name] = max(self._gaps_s.get(name, 0.0), now_s - at_s)
            await asyncio.sleep(LOOK_S)

    def told(self) -> dict[str, Any]:
        """Return what was measured.

        Shape: cores: of CPU by process, and `all`; waiting: the share of the time in which a process's loop could run
        and had no CPU; pulse_gap_ms: the longest time between two turns that was seen; elsewhere_cores: what neither
        the hub nor its clients used; replaced: processes that were started anew.
        """
        names = self._before.keys() & self._after.keys()
        replaced = sorted(name for name in names if self._after[name].cpu_s < self._before[name].cpu_s)
        cores = {name: (self._after[name].cpu_s - self._before[name].cpu_s) / self.lasted_s for name in sorted(names)}
        waited = {name: (self._after[name].waited_s - self._before[name].waited_s) / self.lasted_s for name in cores}
        return {
            "cores": {"all": sum(cores.values()), **cores},
            "waiting": waited,
            "elsewhere_cores": self._others_s / self.lasted_s - sum(cores.values()),
            "pulse_gap_ms": {name: gap_s * 1e3 for name, gap_s in sorted(self._gaps_s.items())},
            "incidents": self._hub.incidents() - self._incidents,
            "replaced": replaced,
        }
