"""Clients that send as fast as their sockets take it, and what honest ones beside them notice.

The flood comes from a process of its own, so that what is measured is the house and not the flood's own loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Final, NamedTuple

import httpx
import websockets
from doubles.deadline import WAIT_S
from doubles.house import House, Operator
from websockets.asyncio.client import ClientConnection
from websockets.frames import Frame, Opcode
from websockets.protocol import State

MEDIAN_S_MAX: Final = 1.0  # promised: another host's command is done in so long …
WORST_S_MAX: Final = 3.0  # … and at worst in so long
PROCESSES: Final = ("queues", "hub", "gateway", "fanout", "watchdog")
HONEST: Final = ("good1", "good2", "good3")
BATCH_BYTES: Final = 65536
HOSTS: Final = "/api/v1/hosts"
MADE_AT_ONCE: Final = 16  # of the flood's tokens
CONNECT_S_MAX: Final = 30.0  # for all of the flood's clients
CLOSE_S_MAX: Final = 5.0  # until a connection that is closed is over
FLOODED: Final = 1008  # the stated rule: who goes on is closed with it, and kept away for a while


def frame(opcode: Opcode, data: bytes, fin: bool = True) -> bytes:
    """One frame as a client sends it."""
    return Frame(opcode, data, fin=fin).serialize(mask=True)


AGENTS: Final = {
    "status": frame(Opcode.TEXT, b'{"type":"status","payload":{"status":"ok","command_id":"none"}}'),
    "progress": frame(Opcode.TEXT, b'{"type":"operation_progress","payload":{"progress":{}}}'),
    "unknown": frame(Opcode.TEXT, b'{"type":"weather","payload":{}}'),
    "pings": frame(Opcode.PING, b"x" * 100),
    "pongs": frame(Opcode.PONG, b""),
    "fragments": frame(Opcode.TEXT, b'{"type":"weather",', fin=False) + frame(Opcode.CONT, b"", fin=False) * 100
    + frame(Opcode.CONT, b'"payload":{}}'),
    "large": frame(Opcode.TEXT, b'{"type":"weather","payload":{"a":"' + b"x" * 200_000 + b'"}}'),
}  # fmt: skip
HEARTBEATS: Final = {"heartbeats": frame(Opcode.TEXT, b'{"type":"heartbeat","payload":{"metrics":{"cpu":1}}}')}
VIEWERS: Final = {
    "get_state": frame(Opcode.TEXT, b'{"type":"get_state"}'),
    "subscribe": frame(Opcode.TEXT, b'{"type":"subscribe","command_id":"none"}'),
    "unknown": AGENTS["unknown"],
    "pings": AGENTS["pings"],
    "fragments": AGENTS["fragments"],
}


@dataclass
class Seen:
    """What honest clients and the watchdog saw meanwhile, and how the flood's connections ended."""

    took_s: list[float] = field(default_factory=list)  # of each command on an honest host
    unhealthy: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)  # honest hosts that were not online at some look
    ends: Counter[str] = field(default_factory=Counter)  # of the flood's connections, by close code or refusal
    sent_bytes: int = 0

    def problems(self) -> list[str]:
        """Every promise that was not kept."""
        found = [f"{name} was replaced" for name in self.replaced]
        found += self.unhealthy[:3]
        found += [f"honest {name} was disconnected" for name in sorted(set(self.left))]
        if not self.took_s:
            return [*found, "no command of an honest host was done"]
        if statistics.median(self.took_s) > MEDIAN_S_MAX:
            found.append(f"commands took {statistics.median(self.took_s):.2f} s at the median")
        if max(self.took_s) > WORST_S_MAX:
            found.append(f"a command took {max(self.took_s):.2f} s")
        wrong = {end for end in self.ends if end not in {str(FLOODED), "429", "open"}}
        return found + [f"a connection of the flood ended with {end}, which is not the stated rule" for end in wrong]

    def lines(self) -> str:
        """All of it for a person."""
        took = sorted(self.took_s) or [float("nan")]
        ends = ", ".join(f"{end}: {count}" for end, count in self.ends.most_common())
        return (
            f"{len(self.took_s)} commands of honest hosts: median {statistics.median(took):.2f} s, "
            f"worst {took[-1]:.2f} s; the flood sent {self.sent_bytes >> 20} MiB; its connections: {ends}"
        )


class Flooder(NamedTuple):
    """One client of the flood: where it connects, what it says first, and what it says then without end."""

    url: str
    token: str
    hello: str
    flood: bytes


class Course:
    """When a flood begins, and until when it lasts."""

    def __init__(self) -> None:
        self.until_s = float("inf")
        self.connected = asyncio.Semaphore(0)  # one for each connection that was made
        self.begun = asyncio.Event()

    async def begin(self, clients: int, seconds: float) -> None:
        """Begin when so many are connected, or after CONNECT_S_MAX without the others."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_S_MAX):
                for _ in range(clients):
                    await self.connected.acquire()
        _give_way()
        self.until_s = time.monotonic() + seconds
        self.begun.set()


async def _pour(who: Flooder, course: Course, ends: Counter[str]) -> int:
    """Send as fast as it is taken, and come back after each end as a client without manners would. Return the bytes
    that were sent.
    """
    sent = 0
    batch = who.flood * max(1, BATCH_BYTES // len(who.flood))
    headers = {"Authorization": f"Bearer {who.token}"}
    while time.monotonic() < course.until_s:
        try:
            async with websockets.connect(
                who.url,
                additional_headers=headers,
                max_size=None,
                proxy=None,
                ping_interval=None,
                open_timeout=60,
            ) as socket:
                if who.hello:
                    await socket.send(who.hello)
                reading = asyncio.create_task(_read(socket))
                course.connected.release()
                await course.begun.wait()
                try:
                    while time.monotonic() < course.until_s and socket.state is State.OPEN:
                        socket.transport.write(batch)
                        sent += len(batch)
                        taken = asyncio.create_task(_drain(socket))
                        await asyncio.wait(
                            {reading, taken},
                            timeout=max(course.until_s - time.monotonic(), 0),
                            return_when=asyncio.FIRST_COMPLETED,
                        )
                        taken.cancel()
                    if socket.state is not State.OPEN:
                        await asyncio.wait({reading}, timeout=CLOSE_S_MAX)
                    ends[str(socket.close_code) if reading.done() else "open"] += 1
                finally:
                    reading.cancel()
                    socket.transport.abort()
        except websockets.InvalidStatus as refused:
            ends[str(refused.response.status_code)] += 1
            await asyncio.sleep(1.0)
        except (OSError, websockets.WebSocketException) as error:
            ends[type(error).__name__] += 1
            await asyncio.sleep(1.0)
    return sent


async def _drain(socket: ClientConnection) -> None:
    with contextlib.suppress(websockets.WebSocketException, OSError):
        await socket.drain()


async def _read(socket: ClientConnection) -> None:
    with contextlib.suppress(websockets.WebSocketException):
        async for _ in socket:
            pass


def _give_way() -> None:
    """Have the house go first, and the kernel, which writes to its disk: a flood comes from other machines, and takes no
    time of these processors.
    """
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    os.nice(5)


def _flood(work: list[Flooder], seconds: float, told: Connection) -> None:
    """Run in a process of its own: one task a client."""

    async def all_of_them() -> tuple[int, Counter[str]]:
        ends: Counter[str] = Counter()
        course = Course()
        beginning = asyncio.ensure_future(course.begin(len(work), seconds))
        sent = await asyncio.gather(*(_pour(each, course, ends) for each in work))
        await beginning
        return sum(sent), ends

    told.send(asyncio.run(all_of_them()))


async def flood(
    house: House, kinds: list[str], *, agents: int, viewers: int, seconds: float, say: Callable[[str], None] = print
) -> Seen:
    """Floods a house for so long with so many agents and viewers, which take the kinds by turns."""
    seen = Seen()
    async with Operator(house) as operator:
        await operator.healthy()
        for name in HONEST:
            if name not in operator.hosts:
                house.agent(name, {"show": ["echo", "done"]})
        await operator.until(lambda: all(operator.hosts.get(name, {}).get("presence") == "online" for name in HONEST))
        gate = asyncio.Semaphore(MADE_AT_ONCE)
        work = await asyncio.gather(
            *(_agent(operator, number, kinds, gate) for number in range(agents)),
            *(_viewer(operator, number, kinds, gate) for number in range(viewers)),
        )
        pids = {name: house.pulse(name).pid for name in PROCESSES}
        say(f"{agents} agents and {viewers} viewers begin")
        here, there = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("spawn").Process(target=_flood, args=(work, seconds, there), daemon=True)
        process.start()
        there.close()
        watching = asyncio.create_task(_watch(operator, seen))
        try:
            while not await asyncio.to_thread(here.poll, 0.5):
                assert process.is_alive() or here.poll(), "the flood itself died"
            seen.sent_bytes, seen.ends = here.recv()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            process.kill()
            process.join()
        seen.replaced = [name for name in PROCESSES if house.pulse(name).pid != pids[name]]
    return seen


async def _made(operator: Operator, path: str, body: dict[str, Any], gate: asyncio.Semaphore) -> str:
    """Return the token that was made; asked for again while the house has too much to do."""
    deadline_s = time.monotonic() + WAIT_S
    async with gate:
        while True:
            answer = await operator.http.post(path, json=body)
            if answer.status_code in (200, 201):
                return str(answer.json()["token"])
            assert answer.status_code in (503, 504), answer.text
            assert time.monotonic() < deadline_s, answer.text
            body |= {"again": True} if path == HOSTS else {}  # a 504 may have made it
            await asyncio.sleep(0.1)


async def _agent(operator: Operator, number: int, kinds: list[str], gate: asyncio.Semaphore) -> Flooder:
    name = f"flood{number}"
    token = await _made(operator, HOSTS, {"name": name, "again": name in operator.hosts}, gate)
    hello = json.dumps({"type": "register", "payload": {"hostname": name, "protocol": 1}})
    known = {**AGENTS, **HEARTBEATS}
    mine = [kind for kind in kinds if kind in known]
    url = f"ws://{operator.house.agents}/ws"
    return Flooder(url, token, hello, known[mine[number % len(mine)]])


async def _viewer(operator: Operator, number: int, kinds: list[str], gate: asyncio.Semaphore) -> Flooder:
    token = await _made(operator, "/api/v1/tokens", {"role": "viewer", "label": f"flood{number}"}, gate)
    mine = [kind for kind in kinds if kind in VIEWERS] or list(VIEWERS)
    url = f"ws://{operator.house.operators}/ws"
    return Flooder(url, token, "", VIEWERS[mine[number % len(mine)]])


async def _watch(operator: Operator, seen: Seen) -> None:
    """Command honest hosts one after the other, and ask for health, until cancelled."""
    number = 0
    while True:
        number += 1
        begun_s = time.monotonic()
        (command_id,) = await operator.give("show", HONEST[number % len(HONEST)])
        while (await operator.command(command_id))["state"] != "succeeded":
            await asyncio.sleep(0.02)
        seen.took_s.append(time.monotonic() - begun_s)
        try:
            answer: Any = await operator.http.get("/healthz")
            if answer.status_code != 200:
                seen.unhealthy.append(f"/healthz said {answer.status_code}: {answer.text[:200]}")
        except httpx.HTTPError as error:
            seen.unhealthy.append(f"/healthz: {error!r}")
        seen.left += [name for name in HONEST if operator.hosts[name].get("presence") != "online"]
        await asyncio.sleep(0.1)
