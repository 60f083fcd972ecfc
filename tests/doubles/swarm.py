"""Thousands of simulated agents in one process: each registers, beats, and ends every command at once with success."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random

import websockets
from doubles.deadline import WAIT_S
from doubles.house import House, Operator
from websockets.asyncio.client import ClientConnection

ENROLLING_MAX = 8  # at once
CONNECTING_MAX = 200  # at once: a swarm that comes back all together is limited by its own process, not by the gateway


class Swarm:
    """So many agents of one house, as a context. Each comes back by itself when its connection ends."""

    def __init__(self, house: House, operator: Operator, count: int, *, beat_s: float = 5.0) -> None:
        self._house, self._operator, self._beat_s = house, operator, beat_s
        self.names = [f"sim{number}" for number in range(count)]
        self.online: set[str] = set()
        self.cut = 0  # connections that ended though nobody here closed them
        self._sockets: dict[str, ClientConnection] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._gate = asyncio.Semaphore(CONNECTING_MAX)
        self._closing: set[ClientConnection] = set()

    async def __aenter__(self) -> Swarm:
        queue = asyncio.Semaphore(ENROLLING_MAX)

        async def enrol(name: str) -> str:
            async with queue:
                answer = await self._operator.http.post("/api/v1/hosts", json={"name": name})
                assert answer.status_code in (200, 201), answer.text
                return str(answer.json()["token"])

        tokens = await asyncio.gather(*map(enrol, self.names))
        self._tasks = [
            asyncio.create_task(self._live(name, token)) for name, token in zip(self.names, tokens, strict=True)
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def all_online(self, seconds: float) -> None:
        """Waits until the hub holds every registration."""
        deadline_s = asyncio.get_running_loop().time() + seconds
        while len(self.online) < len(self.names):
            assert asyncio.get_running_loop().time() < deadline_s, (
                f"{len(self.online)} of {len(self.names)} online{self._house.logs()}"
            )
            for task in self._tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.1)

    def reconnect(self) -> None:
        """Every connection ends now, from this side, without a word; all come back."""
        for socket in self._sockets.values():
            self._closing.add(socket)
            socket.transport.abort()

    async def _live(self, name: str, token: str) -> None:
        chance = random.Random(name)
        await asyncio.sleep(chance.uniform(0, 1 + len(self.names) / 1000))
        while True:
            with contextlib.suppress(OSError, TimeoutError, websockets.WebSocketException):
                await self._once(name, token, chance)
            self.online.discard(name)
            socket = self._sockets.pop(name, None)
            if socket is not None and socket not in self._closing:
                self.cut += 1
            self._closing.discard(socket) if socket else None
            await asyncio.sleep(chance.uniform(0.1, 1.0))

    async def _once(self, name: str, token: str, chance: random.Random) -> None:
        async with self._gate:
            socket = await websockets.connect(
                f"ws://{self._house.agents}/ws", additional_headers={"Authorization": f"Bearer {token}"},
                compression=None, proxy=None,
                ping_interval=None, open_timeout=WAIT_S, close_timeout=1,
            )  # fmt: skip
        self._sockets[name] = socket
        known = {"hostname": name, "protocol": 1, "journal_id": name, "boot_id": "b", "commands": ["noop"], "known": []}
        await self._say(socket, "register", {**known, "heartbeat_interval": self._beat_s})
        beats = asyncio.create_task(self._beat(socket, chance))
        try:
            async for text in socket:
                frame = json.loads(text)
                if frame["type"] == "registered":
                    self.online.add(name)
                elif frame["type"] == "command":
                    command_id, op = frame["payload"]["command_id"], frame["payload"]["command"]
                    await self._say(socket, "command_ack", {"command_id": command_id, "state": "accepted"})
                    await self._say(
                        socket, "status", {"command_id": command_id, "command": op, "status": "ok", "exit_code": 0}
                    )
        finally:
            beats.cancel()

    async def _beat(self, socket: ClientConnection, chance: random.Random) -> None:
        await asyncio.sleep(chance.uniform(0, self._beat_s))
        with contextlib.suppress(websockets.WebSocketException):
            while True:
                metrics = {"cpu": chance.uniform(0, 100), "ram": 40.0, "swap": 0.0, "load": chance.uniform(0, 4)}
                await self._say(socket, "heartbeat", {"metrics": metrics, "pending_command": None, "command_pid": None})
                await asyncio.sleep(self._beat_s)

    async def _say(self, socket: ClientConnection, kind: str, payload: dict[str, object]) -> None:
        await socket.send(json.dumps({"type": kind, "payload": payload}))
