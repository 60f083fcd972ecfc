"""A scripted agent: a real WebSocket client of which a test decides every frame, also the wrong ones."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from typing import Any, Self

from doubles.deadline import WAIT_S
from websockets.client import ClientProtocol
from websockets.frames import Close, Frame, Opcode
from websockets.http11 import Response
from websockets.uri import parse_uri


class NotLetIn(Exception):
    """The answer to the upgrade was another than 101."""

    def __init__(self, response: Response) -> None:
        super().__init__(f"{response.status_code} {response.body!r}")
        self.status = response.status_code
        self.headers = response.headers


class AgentWire:
    """One connection. Answers pings with an empty pong, as NixFleet's agents do; `mute`: answers nothing at all."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, protocol: ClientProtocol) -> None:
        self.mute = False
        self.pings = self.pongs = 0  # heard
        self.close_code: int | None = None
        self._reader, self._writer, self._protocol = reader, writer, protocol
        self._frames: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._ended = asyncio.Event()
        self._reading = asyncio.Event()
        self._reading.set()
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def dial(
        cls, port: int, token: str | None, *, path: str = "/ws", tls: ssl.SSLContext | None = None, mute: bool = False
    ) -> Self:  # fmt: skip
        """A connection that was let in. Raises: NotLetIn."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, limit=1 << 16)
        protocol = ClientProtocol(parse_uri(f"ws://127.0.0.1:{port}{path}"), max_size=1 << 20)
        request = protocol.connect()
        if token is not None:
            request.headers["Authorization"] = f"Bearer {token}"
        protocol.send_request(request)
        wire = cls(reader, writer, protocol)
        wire.mute = mute
        wire._flush()
        async with asyncio.timeout(WAIT_S):
            while True:
                data = await reader.read(65536)
                if not data:
                    protocol.receive_eof()
                    writer.close()
                    raise ConnectionError("no answer to the upgrade")
                protocol.receive_data(data)
                events = protocol.events_received()
                if events:
                    break
        response = events[0]
        assert isinstance(response, Response)
        if response.status_code != 101:
            writer.close()
            raise NotLetIn(response)
        wire._events(events[1:])
        wire._task = asyncio.create_task(wire._run())
        return wire

    def say(self, kind: str, **payload: Any) -> None:
        """One frame of the vocabulary."""
        self.say_text(json.dumps({"type": kind, "payload": payload}).encode())

    def say_text(self, text: bytes) -> None:
        """One text frame, whatever it holds."""
        self.write(Frame(Opcode.TEXT, text).serialize(mask=True))

    def register(self, name: str, **payload: Any) -> None:
        """`register` as a fleethub agent says it; protocol=0 for a foreign one."""
        self.say("register", **{"hostname": name, "protocol": 1, "heartbeat_interval": 5, **payload})

    def write(self, data: bytes) -> None:
        """Any bytes."""
        if not self._writer.is_closing():
            self._writer.write(data)

    async def drained(self) -> None:
        """What was written has left, but for a little; or the connection is over."""
        with contextlib.suppress(OSError):
            await self._writer.drain()
        await asyncio.sleep(0)

    async def hear(self, kind: str, wait_s: float = WAIT_S) -> dict[str, Any]:
        """The payload of the next frame, which must be of this kind."""
        frame = await asyncio.wait_for(self._frames.get(), wait_s)
        assert frame["type"] == kind, frame
        payload: dict[str, Any] = frame["payload"]
        return payload

    def heard(self) -> list[dict[str, Any]]:
        """All frames that came and were not asked for yet."""
        frames = []
        while not self._frames.empty():
            frames.append(self._frames.get_nowait())
        return frames

    async def ended(self, wait_s: float = WAIT_S) -> int:
        """The code of the close frame, once the connection is over; 1006 if there was none."""
        await asyncio.wait_for(self._ended.wait(), wait_s)
        return self.close_code or 1006

    def stop_reading(self) -> None:
        """The peer's bytes pile up from now on."""
        self._reading.clear()
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]

    async def close(self, code: int = 1000) -> None:
        """Closes it properly, and waits for the end."""
        self.write(Frame(Opcode.CLOSE, Close(code, "").serialize()).serialize(mask=True))
        await self.hang_up(abort=False)

    async def hang_up(self, abort: bool = True) -> None:
        """The connection is gone, without a word (abort: with a reset)."""
        if abort:
            self._writer.transport.abort()
        self._reading.set()
        if self._task is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._task, WAIT_S)
        self._writer.close()

    async def _run(self) -> None:
        try:
            while True:
                await self._reading.wait()
                data = await self._reader.read(65536)
                if not data:
                    return
                self._protocol.receive_data(data)
                self._events(self._protocol.events_received())
        except OSError:
            return
        finally:
            self._ended.set()
            self._writer.close()

    def _events(self, events: list[Any]) -> None:
        automatic = self._protocol.data_to_send()
        for event in events:
            if event.opcode is Opcode.TEXT:
                self._frames.put_nowait(json.loads(bytes(event.data)))
            elif event.opcode is Opcode.PING:
                self.pings += 1
                if not self.mute:
                    self.write(Frame(Opcode.PONG, b"").serialize(mask=True))
            elif event.opcode is Opcode.PONG:
                self.pongs += 1
            elif event.opcode is Opcode.CLOSE:
                self.close_code = Close.parse(event.data).code
                if not self.mute:
                    self.write(automatic[-2] if automatic and not automatic[-1] else automatic[-1])

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            self._writer.write(data)
