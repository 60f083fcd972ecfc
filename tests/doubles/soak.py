"""A campaign of false alarms: all that looks like a fault and is none, under load. Whoever is killed meanwhile was
killed wrongly.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import httpx
from doubles.house import House, Operator
from doubles.swarm import Swarm

from processes.adapters import proc
from processes.adapters.state import pulse_file, status_file
from processes.core.travels.pulse import Pulse, Unreadable

NAMES: Final = ("queues", "hub", "gateway", "fanout", "agent")
CLOCK: Final = Path(__file__).parent / "wall_clock"
HOGS: Final = 16
DAY_S: Final = 86400.0
SAMPLE_S: Final = 0.02
GIVEN_PER_S: Final = 10.0  # commands


@dataclass
class Phase:
    """What was seen during one of them."""

    name: str
    seconds: float = 0.0
    gaps_s: dict[str, float] = field(default_factory=dict)  # the oldest pulse seen, by process
    cpu_share: float = 0.0  # of a core, the watchdog's
    rss_bytes: int = 0  # the watchdog's, at its end
    incidents: list[dict[str, Any]] = field(default_factory=list)

    def line(self) -> str:
        """A row of the table."""
        gap = max(self.gaps_s, key=lambda name: self.gaps_s[name], default="")
        worst = f"{self.gaps_s[gap]:.2f} s ({gap})" if gap else "-"
        found = ", ".join(f"{i['process']} {i['verdict']}: {i['reason']}" for i in self.incidents) or "none"
        return f"| {self.name} | {self.seconds:.0f} s | {worst} | {100 * self.cpu_share:.2f} % | {self.rss_bytes / 2**20:.0f} MiB | {found} |"


class Soak:
    """One campaign over one house, which must have been started with `environment`."""

    def __init__(self, house: House, minutes: float, agents: int, say: Callable[[str], None]) -> None:
        self._house, self._seconds, self._agents, self._say = house, 60 * minutes, agents, say
        self._known: set[str] = set()
        self._given = self._refused = 0
        self.phases: list[Phase] = []
        self.problems: list[str] = []

    @staticmethod
    def environment(clock_file: Path) -> dict[str, str]:
        """What the house must be started with, so that its wall clock can be moved."""
        return {"PYTHONPATH": f"{CLOCK}:{Path(__file__).parents[2]}", "WALL_CLOCK_FILE": str(clock_file)}

    async def run(self, clock_file: Path) -> bool:
        """All phases. True if nobody was killed, nothing was lost, and every process is the one that it was."""
        async with Operator(self._house) as operator:
            await operator.healthy(60)
            self._known = {i["id"] for i in self._house.json("incidents")["incidents"]}
            pids = {name: self._house.pulse(name).pid for name in (*NAMES, "watchdog")}
            self._say(
                "| phase | took | oldest pulse | watchdog's CPU | its memory | incidents |\n|---|---|---|---|---|---|"
            )
            await self._phase("idle", lambda: asyncio.sleep(max(10.0, self._seconds / 30)))
            async with Swarm(self._house, operator, self._agents) as swarm:
                await self._phase(f"{self._agents} agents come", lambda: swarm.all_online(120 + self._agents / 20))
                giving = asyncio.create_task(self._give(operator, swarm.names))
                share_s = max(5.0, self._seconds / 8)
                await self._phase("load", lambda: asyncio.sleep(2 * share_s))
                await self._phase(f"{HOGS} hogs", lambda: self._hogs(share_s))
                await self._phase("backup", lambda: self._back_up(share_s))
                await self._phase("clock +1 day", lambda: self._clock(clock_file, DAY_S, share_s / 2))
                await self._phase("clock -1 day", lambda: self._clock(clock_file, -DAY_S, share_s / 2))
                await self._phase("agents reconnect", lambda: self._reconnect(swarm, share_s))
                await self._phase("suspended", lambda: self._suspend(min(60.0, share_s)))
                await self._phase("after it", lambda: asyncio.sleep(max(10.0, share_s / 2)))
                giving.cancel()
                await asyncio.gather(giving, return_exceptions=True)
                await operator.healthy(60)
            await self._verify(operator, pids)
        return not self.problems

    async def _phase(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        phase, begun_s = Phase(name), time.monotonic()
        watchdog = self._house.pulse("watchdog").pid
        used_s = _cpu_s(watchdog)
        watching = asyncio.create_task(self._watch(phase))
        await work()
        watching.cancel()
        phase.seconds = time.monotonic() - begun_s
        phase.cpu_share = (_cpu_s(watchdog) - used_s) / phase.seconds
        stat = proc.stat(watchdog)
        phase.rss_bytes = stat.rss_bytes if stat else 0
        found = (await asyncio.to_thread(self._house.json, "incidents"))["incidents"]
        phase.incidents = [i for i in found if i["id"] not in self._known]
        self._known |= {i["id"] for i in phase.incidents}
        self.problems += [f"{name}: {i['process']} {i['verdict']} {i['reason']}" for i in phase.incidents]
        self.phases.append(phase)
        self._say(phase.line())

    async def _watch(self, phase: Phase) -> None:
        """The longest time from one turn to the next of each process, as far as this process (it is starved too) gets
        to look.
        """
        last: dict[str, Pulse] = {}
        while True:
            for name in NAMES:
                now_s = time.monotonic()
                with contextlib.suppress(OSError, Unreadable):
                    pulse = pulse_file.read(self._house.settings.pulses, name)
                    if pulse is None or not pulse.written_ns:
                        continue
                    gap_s, before = now_s - pulse.written_ns / 1e9, last.get(name)
                    if before is not None and pulse.turn == before.turn + 1:
                        gap_s = max(gap_s, (pulse.written_ns - before.written_ns) / 1e9)
                    last[name] = pulse
                    phase.gaps_s[name] = max(phase.gaps_s.get(name, 0.0), gap_s)
            await asyncio.sleep(SAMPLE_S)

    async def _give(self, operator: Operator, names: list[str]) -> None:
        """A stream of commands. An answer that it was not accepted is fair while all is suspended."""
        chance = random.Random(1)
        while True:
            host = chance.choice(names)
            try:
                answer = await operator.http.post("/api/v1/commands", json={"op": "noop", "hosts": [host]})
                self._given += answer.status_code == 202
                self._refused += answer.status_code != 202
            except httpx.HTTPError:
                self._refused += 1
            await asyncio.sleep(chance.uniform(0, 2 / GIVEN_PER_S))

    async def _hogs(self, seconds: float) -> None:
        with _burning(HOGS):
            await asyncio.sleep(seconds)

    async def _back_up(self, seconds: float) -> None:
        """One backup after the other, in small pieces, so that one is always under way."""
        stop = time.monotonic() + seconds

        def copy() -> None:
            target = self._house.state / "soak-backup.db"
            while time.monotonic() < stop:
                target.unlink(missing_ok=True)
                source = sqlite3.connect(f"file:{self._house.settings.database}?mode=ro", uri=True)
                copied = sqlite3.connect(target)
                source.backup(copied, pages=50, sleep=0.01)
                source.close()
                copied.close()

        await asyncio.to_thread(copy)

    async def _clock(self, file: Path, offset_s: float, seconds: float) -> None:
        file.write_text(str(offset_s))
        await asyncio.sleep(seconds)
        told = status_file.last_report(self._house.settings.report)
        at_s = datetime.fromisoformat(told.at).timestamp() if told and told.at else 0.0
        if abs(at_s - time.time() - offset_s) > DAY_S / 2:
            self.problems.append(
                f"the clock was not moved by {offset_s:.0f} s: the watchdog says {told.at if told else None}"
            )
        file.unlink()
        await asyncio.sleep(min(5.0, seconds))

    async def _reconnect(self, swarm: Swarm, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while True:
            swarm.reconnect()
            await asyncio.sleep(1.0)
            await swarm.all_online(120 + self._agents / 20)
            if time.monotonic() > until_s:
                return

    async def _suspend(self, seconds: float) -> None:
        pids = self._house.pids()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    async def _verify(self, operator: Operator, pids: dict[str, int]) -> None:
        for name, pid in pids.items():
            if self._house.pulse(name).pid != pid:
                self.problems.append(f"{name} is another process than before")
        deadline_s = time.monotonic() + 60
        while True:
            ledger = (await operator.http.get("/api/v1/status")).json()["commands"]
            left = ledger["accepted"] < self._given or sum(ledger[state] for state in ("queued", "sent", "running"))
            if not left or time.monotonic() > deadline_s:
                break
            await asyncio.sleep(0.2)
        if left or ledger["lost"]:
            self.problems.append(f"the ledger after {self._given} accepted commands: {ledger}")
        self._say(f"{self._given} commands accepted, {self._refused} refused, ledger {ledger}")


@contextlib.contextmanager
def _burning(count: int) -> Iterator[None]:
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
        for hog in hogs:
            hog.wait()


def _cpu_s(pid: int) -> float:
    stat = proc.stat(pid)
    return stat.cpu_ticks / proc.TICKS_PER_S if stat else 0.0
