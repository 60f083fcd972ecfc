"""A gateway, a hub and a fanout in one small thing, as far as the canary meets them: two ports, one epoch.

The same frames as the real ones. `deafen` lets nothing more in at one port, and what stands goes on. `mute`: what is
swallowed without a word (command, registered, delta, answer); `epoch` is the hub's.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h11
import msgspec
from doubles.deadline import WAIT_S
from websockets.http11 import Request, Response

from processes.adapters.websocket import Limits, Message, Pacer, WebSocket
from processes.core.shown.status import CanaryFile
from processes.core.travels import agent_frames

LIMITS = Limits(1 << 20)


class CanaryHouse:
    """Listens on two ports of loopback from `start` to `stop`."""

    def __init__(self, canary_file: Path, context: ssl.SSLContext | None = None) -> None:
        self.canary_file, self._context = canary_file, context
        self.epoch = 1
        self.mute: set[str] = set()
        self.say_state = "succeeded"  # of every command that is asked for by its id
        self.commands = 0
        self.beats: list[int] = []
        self.reports: list[str] = []  # the ids of the commands whose end was said
        self.agents: set[_Agent] = set()
        self.subscribers: set[_Subscriber] = set()
        self._servers: dict[str, asyncio.Server] = {}
        self._held: dict[str, socket.socket] = {}  # as supervisord holds the listening sockets
        self._writers: list[asyncio.StreamWriter] = []
        self.agents_port = self.operators_port = 0

    async def start(self, agents_port: int = 0, operators_port: int = 0) -> None:
        """Listens."""
        for name, port in (("agents", agents_port), ("operators", operators_port)):
            self._held[name] = socket.create_server(("127.0.0.1", port))
            await self.hear(name)
        self.agents_port, self.operators_port = (held.getsockname()[1] for held in self._held.values())

    async def hear(self, name: str) -> None:
        """Accepts at the agents' or the operators' port."""
        sock, loop = self._held[name].dup(), asyncio.get_running_loop()
        if name == "agents":
            self._servers[name] = await loop.create_server(lambda: _Agent(self), sock=sock, ssl=self._context)
        else:
            self._servers[name] = await asyncio.start_server(self._operator, sock=sock, ssl=self._context)

    def deafen(self, name: str) -> None:
        """Accepts nothing more there: whoever connects waits."""
        self._servers[name].close()

    async def stop(self) -> None:
        """Ends everything at once."""
        for name, held in self._held.items():
            self.deafen(name)
            held.close()
        for one in (*self.agents, *self.subscribers):
            one.abort()
        while self.agents or self.subscribers:  # a transport calls back one turn later
            await asyncio.sleep(0)

    def known(self, request: Request, field: str) -> bool:
        """True if the request's token is the canary's."""
        token = (request.headers.get("Authorization") or "").removeprefix("Bearer ")
        return self.may_in(token, field)

    def may_in(self, token: str, field: str) -> bool:
        """True if this is the canary's token for that side."""
        hashes = msgspec.json.decode(self.canary_file.read_bytes(), type=CanaryFile)
        return bool(hashlib.sha256(token.encode()).hexdigest() == getattr(hashes, field))

    def say(self, frame: dict[str, Any]) -> None:
        """To all subscribers."""
        if "delta" not in self.mute:
            for subscriber in self.subscribers:
                subscriber.send(msgspec.json.encode({"epoch": self.epoch, **frame}))

    def give(self, command_id: str) -> None:
        """The command goes to the agent."""
        if "command" not in self.mute:
            for agent in self.agents:
                agent.send(agent_frames.encode(agent_frames.CommandFrame("noop", command_id, 1, 30.0)))

    async def _operator(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"upgrade: websocket" in head.lower():
            subscriber = _Subscriber(self)
            self._writers.append(writer)  # a forgotten one would close the transport
            transport = writer.transport
            transport.set_protocol(subscriber)
            subscriber.connection_made(transport)
            subscriber.data_received(head)
            return
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(head)
        body, request = b"", None
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(65536))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
        assert request is not None
        status, answer = self._answer(request, body)
        writer.write(
            connection.send(h11.Response(status_code=status, headers=[("Content-Length", str(len(answer)))])) or b""
        )
        writer.write(connection.send(h11.Data(data=answer)) or b"")
        writer.close()

    def _answer(self, request: h11.Request, body: bytes) -> tuple[int, bytes]:
        if request.target == b"/livez":
            return 200, b"alive"
        token = dict(request.headers)[b"authorization"].decode().removeprefix("Bearer ")
        if not self.may_in(token, "operator_token_hash"):
            return 401, b"{}"
        if "answer" in self.mute:
            return 503, b'{"error":"hub_unavailable"}'
        if request.method == b"GET":
            return 200, msgspec.json.encode({"id": request.target.decode().rpartition("/")[2], "state": self.say_state})
        asked = msgspec.json.decode(body)
        assert asked["op"] == "noop"
        assert asked["hosts"] == ["_canary"]
        self.commands += 1
        command_id = f"c{self.commands}"
        asyncio.get_running_loop().call_soon(self.give, command_id)
        return 202, msgspec.json.encode(
            {"commands": [{"id": command_id, "host": "_canary", "op": "noop", "state": "queued"}]}
        )


class _Agent(WebSocket):
    def __init__(self, house: CanaryHouse) -> None:
        super().__init__(LIMITS, Pacer())
        self._house = house

    def on_request(self, request: Request) -> Response | None:
        if request.path == "/livez":
            return self.refusal(200, "alive")
        return None if self._house.known(request, "agent_token_hash") else self.refusal(401, "no")

    def on_messages(self, messages: list[Message]) -> None:
        for message in messages:
            frame, _ = agent_frames.decode(message.data)
            if isinstance(frame, agent_frames.Register) and "registered" not in self._house.mute:
                assert frame.hostname == "_canary"
                assert frame.protocol == 1
                self._house.agents.add(self)
                self.send(agent_frames.encode(agent_frames.Registered("_canary", 1, 1.0)))
            elif isinstance(frame, agent_frames.Heartbeat):
                assert frame.command_pid is not None
                self._house.beats.append(frame.command_pid)
                self._house.say(
                    {
                        "type": "delta",
                        "changes": [{"kind": "host", "id": "_canary", "fields": {"beat": frame.command_pid}}],
                    }
                )
            elif isinstance(frame, agent_frames.StatusFrame) and frame.command_id is not None:
                self._house.reports.append(frame.command_id)
                if "report" in self._house.mute:
                    continue
                self.send(agent_frames.encode(agent_frames.Ack(frame.command_id)))
                fields = {"state": "succeeded" if frame.status == "ok" else "failed"}
                self._house.say(
                    {"type": "delta", "changes": [{"kind": "command", "id": frame.command_id, "fields": fields}]}
                )

    def on_closed(self, code: int, reason: str) -> None:
        self._house.agents.discard(self)


class _Subscriber(WebSocket):
    def __init__(self, house: CanaryHouse) -> None:
        super().__init__(LIMITS, Pacer())
        self._house = house

    def on_request(self, request: Request) -> Response | None:
        return None if self._house.known(request, "operator_token_hash") else self.refusal(401, "no")

    def on_open(self) -> None:
        self._house.subscribers.add(self)
        state: dict[str, list[str]] = {"hosts": [], "commands": [], "processes": [], "incidents": []}
        self.send(msgspec.json.encode({"type": "full_state", "epoch": self._house.epoch, "version": 1, "state": state}))

    def on_closed(self, code: int, reason: str) -> None:
        self._house.subscribers.discard(self)


@contextmanager
def running(house: CanaryHouse) -> Iterator[CanaryHouse]:
    """The house on a thread with a loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(house.start(), loop).result(WAIT_S)
        yield house
    finally:
        asyncio.run_coroutine_threadsafe(house.stop(), loop).result(WAIT_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(WAIT_S)
        loop.close()
