"""The operators' port beneath its application: after a request's head, too, everything has a deadline, and a connection
that says nothing more is over. In the test's own loop, with short deadlines.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any, cast

import h11
import pytest
import structlog
import uvloop
from doubles.deadline import WAIT_S
from starlette.types import Receive, Scope, Send

from processes.adapters.settings import Tls
from processes.adapters.websocket import Pacer
from processes.fanout import server
from processes.fanout.server import Connection, Deadlines
from processes.fanout.subscribers import Subscriber

SHORT = Deadlines(head_s=0.4, body_s=0.4, unsent_s=0.4)
HEAD = b"Host: a\r\n"
LARGE = 30 << 20  # past what kernel and transport take by themselves


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads no body; a path of digits is the length of the answer."""
    size = int(scope["path"].strip("/") or 2)
    headers = [(b"content-length", b"%d" % size)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"x" * size})


class Port:
    """A server of that application, and one client of it."""

    def __init__(self, deadlines: Deadlines = SHORT) -> None:
        sock = socket.create_server(("127.0.0.1", 0))
        self.address = sock.getsockname()
        log: Any = structlog.testing.CapturingLogger()
        self.web = server.make_server(
            application,
            Tls(),
            cast(type[Subscriber], object),
            log,
            on_accepted=lambda: None,
            on_turned_away=lambda: None,
            deadlines=deadlines,
        )
        self._serving = asyncio.create_task(self.web.serve(sockets=[sock]))

    @property
    def open(self) -> int:
        """How many connections the server has."""
        return len(self.web.server_state.connections)

    async def dial(self, *said: bytes, small: bool = False) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection that says this. `small`: it takes little that it does not read."""
        while not self.web.started:
            await asyncio.sleep(0.005)
        sock = socket.socket()
        if small:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, self.address)
        reader, writer = await asyncio.open_connection(sock=sock, limit=1 << 10)
        if small:
            cast(Any, writer.transport).pause_reading()
        for each in said:
            writer.write(each)
        return reader, writer

    async def until_open(self) -> None:
        """Waits until the server has a connection."""
        async with asyncio.timeout(WAIT_S):
            while not self.open:
                await asyncio.sleep(0.005)

    async def until_none(self) -> None:
        """Waits until every connection has been seen and is over."""
        async with asyncio.timeout(WAIT_S):
            while self.open:
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        self.web.end()
        await asyncio.wait_for(self._serving, WAIT_S)


def run(scene: Callable[[Port], Coroutine[Any, Any, None]], deadlines: Deadlines = SHORT) -> None:
    async def whole() -> None:
        port = Port(deadlines)
        try:
            await scene(port)
        finally:
            await port.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(whole())


async def drip(writer: asyncio.StreamWriter, byte: bytes) -> None:
    """Says one byte again and again, until the connection is over."""
    with contextlib.suppress(ConnectionError):
        while not writer.is_closing():
            writer.write(byte)
            await writer.drain()
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("body", [b"", b"whole"])
def test_the_head_of_an_answer_and_its_body_are_one_write(body: bytes) -> None:
    """A client that waits is woken once, and not by a head that it can do nothing with."""
    connection = Connection(h11.SERVER)
    connection.receive_data(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    connection.next_event()
    connection.next_event()
    length = [(b"content-length", b"%d" % len(body))]
    said = [
        connection.send(event)
        for event in (h11.Response(status_code=200, headers=length), h11.Data(data=body), h11.EndOfMessage())
    ]
    assert said == [b"", b"HTTP/1.1 200 \r\ncontent-length: %d\r\n\r\n%b" % (len(body), body), b""]


BODY = b"GET / HTTP/1.1\r\n" + HEAD + b"Content-Length: 100000\r\n\r\n"


@pytest.mark.parametrize(
    ("said", "dripped"),
    [
        ((), b""),  # nothing at all
        ((b"GET / HT",), b""),
        ((b"GET / HTTP/1.1\r\n",), b"x"),  # a head without an end
        ((b"GET / HTTP/1.1\r\n" + HEAD + b"\r\n", b"GET"), b"x"),  # of a second request
        ((BODY,), b""),
        ((BODY,), b"x"),  # each byte would cancel uvicorn's own timer
        ((BODY, b"x"), b""),  # as does one, for ever
        ((b"POST / HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n",), b"1\r\nx\r\n"),  # 411
        ((b"GET / HTTP/1.1\r\n" + HEAD + b"\r\n" + BODY,), b"x"),  # behind another in one segment
        ((BODY[:-4] + b"\r\nExpect: 100-continue\r\n\r\n",), b""),
    ],
)  # fmt: skip
def test_a_client_that_does_not_come_to_an_end_is_closed_whatever_it_drips(
    said: tuple[bytes, ...], dripped: bytes
) -> None:
    async def scene(port: Port) -> None:
        reader, writer = await port.dial(*said)
        dripping = asyncio.create_task(drip(writer, dripped)) if dripped else None
        with contextlib.suppress(ConnectionError):
            while await asyncio.wait_for(reader.read(1000), WAIT_S):
                pass
        await port.until_none()
        if dripping is not None:
            dripping.cancel()
        writer.close()

    run(scene)


@pytest.mark.parametrize(
    "said",
    [
        b"GET /%d HTTP/1.1\r\n" % LARGE + HEAD + b"\r\n",
        b"GET /%d HTTP/1.1\r\n" % LARGE + HEAD + b"Connection: close\r\n\r\n",
        b"GET /%d HTTP/1.1\r\n" % LARGE + HEAD + b"Content-Length: 9\r\n\r\n",
        (b"GET /1000000 HTTP/1.1\r\n" + HEAD + b"\r\n") * 100,  # pipelined
        b"rubbish\r\n\r\n",
    ],
)
def test_an_answer_that_nobody_reads_is_thrown_away_with_its_connection(
    said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "UNSENT_BYTES_S", 1 << 30)

    async def scene(port: Port) -> None:
        _, writer = await port.dial(said, small=True)
        await port.until_open()
        await port.until_none()
        writer.close()

    run(scene)


def test_who_reads_slowly_gets_all_of_it_and_a_large_answer_has_more_time() -> None:
    """The bug it would catch: a deadline that does not ask how much there is, or whether anything was left over."""

    async def scene(port: Port) -> None:
        port.web.config.timeout_keep_alive = int(WAIT_S)  # it begins before the client has read all
        reader, writer = await port.dial(small=True)
        for _ in range(2):
            writer.write(b"GET /%d HTTP/1.1\r\n" % LARGE + HEAD + b"\r\n")
            await asyncio.sleep(0)
            cast(Any, writer.transport).resume_reading()
            begun_s = time.monotonic()
            await reader.readuntil(b"\r\n\r\n")
            left = LARGE
            while left:
                found = await asyncio.wait_for(reader.read(1 << 20), WAIT_S)
                assert found, "it was cut off"
                left -= len(found)
                if time.monotonic() - begun_s < SHORT.unsent_s * 2:
                    await asyncio.sleep(0.05)
        writer.close()

    run(scene)


def test_however_many_ask_at_once_the_loop_passes_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads are parsed by turns: those of a thousand connections in one pass of the loop froze a fanout."""
    clients, asked = 40, 5
    now_s = 0.0
    parsed_in_a_pass: list[int] = [0]

    class Connection(server.Connection):
        def next_event(self) -> Any:
            nonlocal now_s
            event = super().next_event()
            if isinstance(event, h11.Request):
                parsed_in_a_pass[-1] += 1
                now_s += 1.0  # each is a whole second's work
            return event

    def tick() -> None:
        parsed_in_a_pass.append(0)
        asyncio.get_running_loop().call_soon(tick)

    async def scene(port: Port) -> None:
        request = b"GET /2 HTTP/1.1\r\n" + HEAD + b"\r\n"
        connections = [await port.dial() for _ in range(clients)]
        tick()
        for _, writer in connections:
            writer.write(request * asked)
        for reader, _ in connections:
            for _ in range(asked):
                assert (await asyncio.wait_for(reader.readuntil(b"xx"), WAIT_S)).startswith(b"HTTP/1.1 200")
        for _, writer in connections:
            writer.close()

    monkeypatch.setattr(server, "Connection", Connection)
    monkeypatch.setattr(server, "Pacer", lambda: Pacer(0.5, lambda: now_s))
    run(scene, Deadlines())
    assert sum(parsed_in_a_pass) == clients * asked
    assert max(parsed_in_a_pass) == 1


def test_a_body_that_is_whole_in_time_leaves_the_connection_for_the_next_request() -> None:
    async def scene(port: Port) -> None:
        reader, writer = await port.dial()
        await port.until_open()
        writer.write(b"POST / HTTP/1.1\r\n" + HEAD + b"Content-Length: 10\r\n\r\nabc")
        (protocol,) = port.web.server_state.connections
        for rest in (b"defghij", b""):
            assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), WAIT_S)).startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(2) == b"xx"
            assert (cast(server.HttpProtocol, protocol)._unread is None) is not bool(rest), "its deadline is over"
            if rest:
                writer.write(rest)
                writer.write(b"GET / HTTP/1.1\r\n" + HEAD + b"\r\n")
        writer.close()

    run(scene, Deadlines(head_s=WAIT_S, body_s=WAIT_S, unsent_s=WAIT_S))
