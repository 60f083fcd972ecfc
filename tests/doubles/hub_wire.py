"""The hub's side of the agents' wire, as one small WebSocket server: it registers, records every frame and
acknowledges.

A double for the agent's tests. It keeps what a durable hub would keep (output by offset, reports by id) over all
connections, and can be told to be mute, to refuse, to withhold acknowledgements, and to go away.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
from doubles.deadline import WAIT_S
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from processes.core.travels import agent_frames
from processes.core.values import CloseCode

TOKEN = "token-of-the-agent"


class HubWire:
    """`async with HubWire() as hub:` … `hub.url`. Frames are dicts as they came over the wire: {"type", "payload"}."""

    def __init__(self, *, token: str = TOKEN, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.token = token
        self.port = port
        self._tls = tls
        self.registers = True  # answers `register`
        self.acknowledges_output = True
        self.acknowledges_reports = True
        self.refuses: int | None = None  # answers each upgrade with this HTTP status
        self.frames: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []  # of each upgrade request
        self.output: dict[str, dict[int, tuple[str, str]]] = {}  # by command id and offset: stream, line
        self.reports: dict[str, list[dict[str, Any]]] = {}  # every status, by command id
        self.connections = 0
        self.close_codes: list[int | None] = []
        self.live: ServerConnection | None = None
        self._server: Server | None = None
        self._wholes: dict[str, int] = {}
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> HubWire:
        await self.come()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.go()

    @property
    def url(self) -> str:
        return f"{'wss' if self._tls else 'ws'}://127.0.0.1:{self.port}/ws"

    async def come(self) -> None:
        """Listens, on the same port as before."""
        self._server = await serve(
            self._connection,
            "127.0.0.1",
            self.port,
            process_request=self._let_in,
            compression=None,
            max_size=agent_frames.FRAME_BYTES_MAX,
            ping_interval=None,
            ssl=self._tls,
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]

    async def go(self, code: int = CloseCode.RESTART) -> None:
        """Closes its connections and listens no more."""
        if self._server is not None:
            self._server.close(code=code)
            await self._server.wait_closed()
            self._server = None

    async def send(self, kind: str, **payload: Any) -> None:
        """One frame to the agent that is connected."""
        assert self.live is not None, "no agent is connected"
        await self.live.send(msgspec.json.encode({"type": kind, "payload": payload}), text=True)

    async def command(self, op: str, command_id: str, ttl_s: float | None = 60.0, attempt: int = 1) -> None:
        await self.send("command", command=op, command_id=command_id, attempt=attempt, ttl_s=ttl_s)

    async def close_live(self, code: int, reason: str = "") -> None:
        """Ends the agent's connection with this code."""
        assert self.live is not None, "no agent is connected"
        await self.live.close(code, reason)

    def drop_live(self) -> None:
        """The connection breaks, without a word."""
        assert self.live is not None, "no agent is connected"
        self.live.transport.abort()

    def of(self, kind: str, command_id: str | None = None) -> list[dict[str, Any]]:
        """The payloads of all frames of a type so far, of one command if named."""
        found = [frame["payload"] for frame in self.frames if frame["type"] == kind]
        return (
            found if command_id is None else [payload for payload in found if payload.get("command_id") == command_id]
        )

    def lines(self, command_id: str) -> list[str]:
        """A command's output as a durable hub holds it; every offset from 0 on must be there."""
        records = self.output.get(command_id, {})
        assert sorted(records) == list(range(len(records))), f"offsets with holes: {sorted(records)[:20]}"
        return [records[offset][1] for offset in sorted(records)]

    async def until(self, holds: Callable[[], Any], what: str = "", wait_s: float = WAIT_S) -> Any:
        """Waits until `holds()` is true, and returns it."""
        try:
            async with asyncio.timeout(wait_s), self._changed:
                while not (found := holds()):
                    await self._changed.wait()
                return found
        except TimeoutError:
            raise AssertionError(
                f"never came: {what}; frames: {[frame['type'] for frame in self.frames][-30:]}"
            ) from None

    async def first(self, kind: str, command_id: str | None = None) -> dict[str, Any]:
        """The first frame's payload of a type, waited for."""
        await self.until(lambda: self.of(kind, command_id), f"{kind} {command_id or ''}")
        return self.of(kind, command_id)[0]

    async def report(self, command_id: str) -> dict[str, Any]:
        """The command's first report, waited for."""
        await self.until(lambda: self.reports.get(command_id), f"a report of {command_id}")
        return self.reports[command_id][0]

    async def registered(self, count: int = 1) -> dict[str, Any]:
        """The count-th `register`, waited for, with its answer given."""
        await self.until(lambda: len(self.of("register")) >= count, f"register number {count}")
        return self.of("register")[count - 1]

    # the server

    def _let_in(self, _: ServerConnection, request: Request) -> Response | None:
        self.headers.append(dict(request.headers.raw_items()))
        status = self.refuses
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            status = 401
        if status is None:
            return None
        return Response(status, http.HTTPStatus(status).phrase, type(request.headers)({"Content-Length": "0"}))

    async def _connection(self, connection: ServerConnection) -> None:
        self.live = connection
        self.connections += 1
        with contextlib.suppress(ConnectionClosed):
            async for text in connection:
                await self._take(connection, msgspec.json.decode(text))
        if self.live is connection:
            self.live = None
        self.close_codes.append(connection.close_code)
        await self._tell()

    async def _take(self, connection: ServerConnection, frame: dict[str, Any]) -> None:
        payload = frame["payload"]
        self.frames.append(frame)
        command_id = payload.get("command_id", "")  # a foreign agent gives none, and gets no ack
        answers: list[tuple[str, dict[str, Any]]] = []
        match frame["type"]:
            case "register" if self.registers:
                answers.append(
                    (
                        "registered",
                        {"host_id": "h1", "protocol": 1, "heartbeat_interval": payload["heartbeat_interval"]},
                    )
                )
            case "output":
                records = self.output.setdefault(command_id, {})
                records[payload.get("offset", len(records))] = (payload.get("stream", "stdout"), payload["line"])
                if self.acknowledges_output and command_id:
                    answers.append(("ack", {"command_id": command_id, "offset": self._whole(command_id)}))
            case "status":
                self.reports.setdefault(command_id, []).append(payload)
                if self.acknowledges_reports and command_id:
                    answers.append(("ack", {"command_id": command_id}))
        for kind, answer in answers:
            await connection.send(msgspec.json.encode({"type": kind, "payload": answer}), text=True)
        await self._tell()

    def _whole(self, command_id: str) -> int:
        """The offset below which nothing is missing."""
        offset = self._wholes.get(command_id, 0)
        while offset in self.output[command_id]:
            offset += 1
        self._wholes[command_id] = offset
        return offset

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


@contextlib.asynccontextmanager
async def hub_wire() -> AsyncIterator[HubWire]:
    """A hub's wire on a free port."""
    async with HubWire() as hub:
        yield hub
