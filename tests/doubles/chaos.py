"""Random kills of everything but supervisord, under a stream of commands to real agents; afterwards nothing is lost or
doubled.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
from doubles.agent_keeper import Keeper
from doubles.house import House, Operator

from processes.adapters.state import agent_state, pulse_file
from processes.core.travels.pulse import Pulse, Unreadable

HOSTS: Final = ("h1", "h2", "h3")
OWN: Final = ("queues", "hub", "gateway", "fanout", "watchdog", "agent")
STOPPED: Final = ("queues", "hub", "gateway", "fanout")  # what the watchdog itself must find and kill
STOP_CHANCE: Final = 0.07
STOP_PAUSE_S: Final = 20.0  # its budget is 5 kills of one process in 60 s
PAUSE_S: Final = (0.3, 3.0)
OPEN_MAX: Final = 60  # commands not final; past it no more are given for the moment
GIVE_S_MAX: Final = 120.0
QUIET_S_MAX: Final = 180.0
OUTPUT: Final = ["begun", "done"]


@dataclass
class Summary:
    """What was done, and what is wrong afterwards."""

    seed: int
    kills: Counter[str] = field(default_factory=Counter)
    stops: Counter[str] = field(default_factory=Counter)
    recovered_s: dict[str, float] = field(default_factory=dict)  # the worst, by process
    seconds: float = 0.0
    quiet_s: float = 0.0  # from the last kill until every command was final
    commands: int = 0
    states: Counter[str] = field(default_factory=Counter)
    ledger: dict[str, int] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)  # any other state or output than it should have

    @property
    def ok(self) -> bool:
        """Nothing lost, nothing doubled, all final, the ledger balanced."""
        return not (self.lost or self.doubled or self.odd) and self.balanced

    @property
    def balanced(self) -> bool:
        """The ledger adds up, and holds exactly what was accepted."""
        return (
            self.ledger["accepted"]
            == self.commands
            == sum(n for state, n in self.ledger.items() if state != "accepted")
        )

    def line(self) -> str:
        """All of it for a person."""
        kills = ", ".join(f"{name} {count}" for name, count in sorted(self.kills.items()))
        stops = ", ".join(f"{name} {count}" for name, count in sorted(self.stops.items())) or "none"
        worst = ", ".join(f"{name} {s:.1f} s" for name, s in sorted(self.recovered_s.items()))
        states = ", ".join(f"{state} {count}" for state, count in self.states.items())
        told = [
            f"{sum(self.kills.values())} kills in {self.seconds:.0f} s (seed {self.seed}): {kills}; stopped and found: {stops}",
            f"worst recovery: {worst}; quiet {self.quiet_s:.1f} s after the last",
            f"{self.commands} commands accepted: {states}; {len(self.lost)} lost, {len(self.doubled)} doubled, "
            f"{len(self.odd)} odd, ledger {'balanced' if self.balanced else f'NOT BALANCED {self.ledger}'}",
        ]
        return "\n".join(
            [*told, *(f"LOST {what}" for what in self.lost), *(f"DOUBLED {what}" for what in self.doubled), *self.odd]
        )


class Witness(Operator):
    """Looks on all the while, and notes every full state in which a host is missing."""

    def __init__(self, house: House, names: set[str]) -> None:
        super().__init__(house)
        self._names = names
        self.gaps: list[str] = []

    def _take(self, frame: dict[str, Any]) -> None:
        super()._take(frame)
        if frame["type"] == "full_state" and (missing := self._names - set(self.hosts)):
            at = f"epoch {frame['epoch']}, version {frame['version']}, {time.strftime('%H:%M:%S', time.gmtime())}"
            self.gaps.append(f"ODD full state without {', '.join(sorted(missing))} ({at})")


class Chaos:
    """One run over a fresh house."""

    def __init__(self, house: House, seed: int, say: Callable[[str], None] = lambda _: None) -> None:
        self._house, self._say = house, say
        self._random = random.Random(seed)
        self._marks = house.state / "marks"
        self._ids: list[str] = []
        self._open = 0
        self._stopping = asyncio.Event()
        self._stopped_s: dict[str, float] = {}
        self._watching: list[asyncio.Task[None]] = []
        self._keepers: dict[str, Keeper] = {}
        self._operator: Witness
        self._machine = house.json("hosts")["hosts"][0]["name"]  # this very machine's own host
        self.summary = Summary(seed)

    async def run(self, kills: int) -> Summary:
        """Kills so often, waits for quiet, and looks at every command."""
        self._marks.touch()
        mark = f"echo begun; {{}}echo $FLEETHUB_COMMAND_ID >> {self._marks}; echo done"
        ops = {"mark": ["sh", "-c", mark.format("")], "slow": ["sh", "-c", mark.format("sleep 0.6; ")]}
        async with AsyncExitStack() as stack:
            for name in HOSTS:
                keeper = Keeper(self._house, self._house.host(name, ops))
                self._keepers[name] = await stack.enter_async_context(keeper)
            self._operator = Witness(self._house, {*HOSTS, self._machine})
            await stack.enter_async_context(self._operator)
            await self._operator.healthy(60)
            await self._operator.until(
                lambda: all(self._operator.hosts.get(n, {}).get("presence") == "online" for n in HOSTS), 60
            )
            begun_s = time.monotonic()
            around = [
                asyncio.create_task(work) for work in (self._count(), *(self._give(number) for number in range(4)))
            ]
            killing = asyncio.create_task(self._kill(kills))
            await asyncio.wait({killing, *around}, return_when=asyncio.FIRST_COMPLETED)
            for task in (*around, killing):
                if task.done():
                    task.result()  # a stream that broke ends the run at once
            last_s = time.monotonic()
            self.summary.seconds = last_s - begun_s
            self._stopping.set()
            await asyncio.gather(*around)
            await asyncio.gather(*self._watching)
            await self._quiet()
            self.summary.odd += self._operator.gaps
            self.summary.quiet_s = time.monotonic() - last_s
            await self._verify()
        return self.summary

    # commands

    async def _give(self, number: int) -> None:
        """Three streams to a host each, one to all of them and to this machine's own."""
        chance = random.Random(self.summary.seed * 10 + number)
        while not self._stopping.is_set():
            if self._open < OPEN_MAX:
                if number < len(HOSTS):
                    await self._accepted(chance.choice(("mark", "mark", "slow")), HOSTS[number])
                else:
                    await self._accepted("mark", *HOSTS)
                    await self._accepted("uptime", self._machine)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(
                    self._stopping.wait(), chance.uniform(0.2, 0.8) * (1 if number < len(HOSTS) else 6)
                )

    async def _accepted(self, op: str, *hosts: str) -> None:
        key = f"{self.summary.seed}-{len(self._ids)}-{time.monotonic_ns()}"
        deadline = time.monotonic() + GIVE_S_MAX
        while True:
            with contextlib.suppress(httpx.HTTPError):
                answer = await self._operator.http.post(
                    "/api/v1/commands", json={"op": op, "hosts": list(hosts), "key": key}
                )
                if answer.status_code in (200, 202):
                    self._ids += [command["id"] for command in answer.json()["commands"]]
                    return
                assert answer.status_code in (503, 504), answer.text
            assert time.monotonic() < deadline, f"not accepted within {GIVE_S_MAX} s{self._house.logs()}"
            await asyncio.sleep(0.1)

    async def _count(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(httpx.HTTPError):
                ledger = await self._ledger()
                self._open = sum(ledger[state] for state in ("queued", "sent", "running"))
            await asyncio.sleep(0.3)

    async def _ledger(self) -> dict[str, int]:
        answer = await self._operator.http.get("/api/v1/status")
        answer.raise_for_status()
        found: dict[str, int] = answer.json()["commands"]
        return found

    # kills

    async def _kill(self, kills: int) -> None:
        done = 0
        while done < kills:
            await asyncio.sleep(self._random.uniform(*PAUSE_S))
            name = self._random.choice((*OWN, *HOSTS))
            stop = self._random.random() < STOP_CHANCE and name in STOPPED
            if stop and time.monotonic() - self._stopped_s.get(name, -STOP_PAUSE_S) < STOP_PAUSE_S:
                stop = False
            pulse = self._pulse(name)
            if not self._house.signal(pulse.pid, signal.SIGSTOP if stop else signal.SIGKILL):
                continue  # it is not there: dead, or about to start
            done += 1
            self.summary.kills[name] += 1
            if stop:
                self._stopped_s[name] = time.monotonic()
                self.summary.stops[name] += 1
            self._watching.append(asyncio.create_task(self._recovers(name, pulse.pid)))
            if done % 20 == 0:
                self._say(f"{done} of {kills} kills, {len(self._ids)} commands accepted, {self._open} open")

    def _pulse(self, name: str) -> Pulse:
        """The process's last pulse; an empty one before the first, and after a death in the middle of writing it."""
        try:
            if name in HOSTS:
                return pulse_file.read(agent_state.pulses(self._keepers[name].folder / "state"), "agent") or Pulse()
            return self._house.pulse(name)
        except Unreadable:
            return Pulse()

    async def _recovers(self, name: str, pid: int) -> None:
        """Until its successor's loop turns; a successor may itself be killed meanwhile, which counts as its turn."""
        since_s = time.monotonic()
        while (pulse := self._pulse(name)).pid in (0, pid) or pulse.turn == 0:
            await asyncio.sleep(0.05)
            assert time.monotonic() - since_s < QUIET_S_MAX, f"{name} did not come back{self._house.logs()}"
        self.summary.recovered_s[name] = max(self.summary.recovered_s.get(name, 0.0), time.monotonic() - since_s)

    # afterwards

    async def _quiet(self) -> None:
        await self._operator.healthy(QUIET_S_MAX)
        deadline = time.monotonic() + QUIET_S_MAX
        while True:
            with contextlib.suppress(httpx.HTTPError):
                ledger = await self._ledger()
                if not any(ledger[state] for state in ("queued", "sent", "running")) and ledger["accepted"] == len(
                    self._ids
                ):
                    self.summary.ledger = ledger
                    return
            if time.monotonic() > deadline:
                self.summary.ledger = ledger
                return  # what is not final is told with its command
            await asyncio.sleep(0.1)

    async def _verify(self) -> None:
        summary = self.summary
        summary.commands = len(self._ids)
        ran = Counter(self._marks.read_text().split())
        for command_id in self._ids:
            answer = await self._operator.http.get(f"/api/v1/commands/{command_id}")
            if answer.status_code != 200:
                summary.lost.append(f"{command_id}: {answer.status_code} {answer.text}")
                continue
            self._judge(answer.json(), ran[command_id])
            if answer.json()["op"] != "uptime":
                shown = (await self._operator.http.get(f"/api/v1/commands/{command_id}/output")).json()
                if ([record["data"] for record in shown["records"]], shown["complete"]) != (OUTPUT, True):
                    summary.odd.append(f"ODD output {shown}")
        stray = set(ran) - set(self._ids)
        summary.odd += [f"ODD {command_id} ran, and was accepted by nobody" for command_id in stray]

    def _judge(self, command: dict[str, Any], times: int) -> None:
        self.summary.states[command["state"]] += 1
        if times > 1:
            self.summary.doubled.append(f"{times} times: {command}")
        if command["state"] == "lost" or (command["state"] == "succeeded" and times == 0 and command["op"] != "uptime"):
            self.summary.lost.append(str(command))
        elif command["state"] != "succeeded":
            self.summary.odd.append(f"ODD {command}")
