"""The accept loop: strangers by the thousand, with TLS, and whoever asks for something gets in; without descriptors it
makes room and goes on, or fails aloud, and is never deaf for good.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import socket
import ssl
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import structlog
import uvloop
from doubles.authority import Authority
from doubles.deadline import WAIT_S

from processes.adapters import listener
from processes.adapters.listener import Arrival, Listener
from processes.core.connections import PortLimits, agents_limits, operators_limits

LOOPS = (asyncio.new_event_loop, uvloop.new_event_loop)


class Echo(asyncio.Protocol):
    """Answers each read with itself; a first byte that is a capital claims the connection for that client."""

    def __init__(self, arrival: Arrival) -> None:
        self.arrival = arrival
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.arrival.opened(self.transport)

    def data_received(self, data: bytes) -> None:
        assert self.transport is not None
        if data[:1].isupper() and not self.arrival.claim(data[:1].decode()):
            data = b"full"
        self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.arrival.gone()


class Scarce(socket.socket):
    """A listening socket of which `accept` fails so often, in this way, before it accepts."""

    def __init__(self, failure: BaseException, times: int) -> None:
        super().__init__(socket.AF_INET)
        self.failure, self.times = failure, times

    def accept(self) -> tuple[socket.socket, Any]:
        if self.times:
            self.times -= 1
            raise self.failure
        return super().accept()


class Port:
    """A port that echoes, and the clients of it."""

    def __init__(
        self, sock: socket.socket, limits: PortLimits, ca: Path | None = None, tls: ssl.SSLContext | None = None,
        make: Callable[[Arrival], asyncio.Protocol] = Echo, **options: Any,
    ) -> None:  # fmt: skip
        self.turned_away = self.accepted = 0
        self.log = structlog.testing.CapturingLogger()
        sock.bind(("127.0.0.1", 0))
        self.port: int = sock.getsockname()[1]
        self._sock = sock
        self._trust = ssl.create_default_context(cafile=ca) if ca else None
        self.clients: list[socket.socket] = []
        log: Any = self.log
        self.listener = Listener(
            sock, tls, limits, make, log, on_accepted=self._accept, on_turned_away=self._turn_away, **options
        )
        self.listener.start()

    def _accept(self) -> None:
        self.accepted += 1

    def _turn_away(self) -> None:
        self.turned_away += 1

    def silent(self, number: int) -> list[socket.socket]:
        """So many connect and say nothing."""
        new = [socket.create_connection(("127.0.0.1", self.port), WAIT_S) for _ in range(number)]
        self.clients += new
        return new

    async def say(self, text: bytes) -> bytes:
        """A client connects, with TLS if the port has it, says this, and gets so many bytes back, or fewer."""
        async with asyncio.timeout(WAIT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self._trust)
            writer.write(text)
            try:
                return await reader.read(len(text))
            finally:
                writer.close()

    async def until(self, holds: Callable[[], object]) -> None:
        """Waits for a condition inside this process."""
        async with asyncio.timeout(WAIT_S):
            while not holds():
                await asyncio.sleep(0.005)

    async def close(self) -> None:
        for client in self.clients:
            client.close()
        with contextlib.suppress(Exception):
            self.listener.close()
        self._sock.close()
        await self.until(lambda: not len(self.listener.connections))


def run(scene: Callable[[], Coroutine[Any, Any, None]], loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scene())


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Enough for thousands of clients in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("with_tls", [False, True])
@pytest.mark.parametrize("limits", [agents_limits(64, 8), operators_limits(64, 8)])
def test_silent_strangers_by_the_thousand_keep_nobody_out(
    loop: Any, with_tls: bool, limits: PortLimits, tmp_path: Path, descriptors: None
) -> None:
    """Before the handshake is over too, and while they stay: the oldest silent one goes."""
    authority = Authority(tmp_path) if with_tls else None

    async def scene() -> None:
        tls = authority.serves() if authority else None
        port = Port(socket.socket(), limits, authority.ca if authority else None, tls)
        open_most = 0
        for _ in range(5):
            strangers = port.silent(200)
            assert await port.say(b"hello") == b"hello"
            open_most = max(open_most, len(port.listener.connections))
        assert open_most <= 64
        await port.until(lambda: port.accepted == 1005)
        assert port.turned_away >= 1000 - 32
        strangers[0].settimeout(WAIT_S)
        assert strangers[0].recv(1) == b"", "it was ended, and its descriptor is free"
        await port.close()

    run(scene, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_handshake_that_does_not_come_to_its_end_is_ended(loop: Any, tmp_path: Path) -> None:
    authority = Authority(tmp_path)

    async def scene() -> None:
        port = Port(socket.socket(), agents_limits(64, 8), authority.ca, authority.serves(), handshake_s_max=0.2)
        silent, rubbish, half = port.silent(3)
        rubbish.sendall(b"GET / HTTP/1.1\r\n\r\n")
        half.sendall(b"\x16\x03\x01\x02\x00")
        await port.until(lambda: port.accepted == 3)
        for client in (silent, rubbish, half):
            client.setblocking(False)
            with contextlib.suppress(ConnectionError):
                while await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 100), WAIT_S):
                    pass
        await port.until(lambda: not len(port.listener.connections))
        assert await port.say(b"hello") == b"hello"
        await port.close()

    run(scene, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_client_has_so_many_connections_and_others_have_theirs(loop: Any) -> None:
    async def scene() -> None:
        port = Port(socket.socket(), agents_limits(64, 3))
        mine = port.silent(4)
        for client in mine:
            client.sendall(b"A")
        await port.until(lambda: port.listener.connections.of_client("A") == 3 and port.turned_away == 1)
        assert await port.say(b"Able") == b"full"
        assert await port.say(b"Baker") == b"Baker"
        for client in mine:
            client.close()
        await port.until(lambda: not port.listener.connections.of_client("A"))
        assert await port.say(b"Able") == b"Able"
        await port.close()

    run(scene, loop)


SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("number", [*SCARCE, errno.ECONNABORTED, errno.EPROTO])
def test_a_failure_to_accept_that_passes_delays_those_who_wait_and_no_more(loop: Any, number: int) -> None:
    async def scene() -> None:
        sock = Scarce(OSError(number, "none"), 0)
        port = Port(sock, agents_limits(64, 8))
        (silent,) = port.silent(1)
        await port.until(lambda: port.accepted == 1)
        sock.times = 3
        assert await port.say(b"hello") == b"hello"
        assert not sock.times
        assert not port.listener.failed.done()
        silent.setblocking(False)
        if number in SCARCE:  # the oldest silent one was ended, to have its descriptor
            assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(silent, 1), WAIT_S) == b""
        else:
            assert port.turned_away == 0
        await port.close()

    run(scene, loop)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    "failure", [OSError(errno.EMFILE, "none"), OSError(errno.EBADF, "gone"), MemoryError(), RuntimeError("what?")]
)
def test_a_failure_to_accept_that_lasts_fails_the_listener_which_says_so(loop: Any, failure: BaseException) -> None:
    """Its process ends, and another takes over: a port that is deaf for good would be worse."""

    async def scene() -> None:
        port = Port(Scarce(failure, 1 << 30), agents_limits(64, 8), failing_s_max=0.2)
        port.silent(1)
        with pytest.raises(type(failure)):
            await asyncio.wait_for(asyncio.shield(port.listener.failed), WAIT_S)
        with pytest.raises(type(failure)):
            port.listener.close()
        assert any(call.method_name == "error" for call in port.log.calls)
        await port.close()

    run(scene, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_no_memory_for_a_connection_fails_the_listener_and_another_failure_ends_that_connection_alone(
    loop: Any,
) -> None:
    failure: list[BaseException] = [ValueError("of one"), MemoryError()]

    def make(arrival: Arrival) -> asyncio.Protocol:
        if failure and ports[0].accepted != 2:
            raise failure.pop(0)
        return Echo(arrival)

    async def scene() -> None:
        port = Port(socket.socket(), agents_limits(64, 8), make=make)
        ports.append(port)
        (first,) = port.silent(1)
        first.setblocking(False)
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(first, 1), WAIT_S) == b""
        assert await port.say(b"hello") == b"hello"
        port.silent(1)
        with pytest.raises(MemoryError):
            await asyncio.wait_for(asyncio.shield(port.listener.failed), WAIT_S)
        await port.close()

    ports: list[Port] = []
    run(scene, loop)


@pytest.mark.parametrize(
    ("soft", "hard", "memory", "tls", "wanted"),
    [
        (1024, 4096, -1, False, 4096 - 512),
        (4096, 524_288, -1, False, 65_536 - 512),
        (600, 600, -1, False, 300),
        (64, 64, -1, False, 32),
        (4096, 65_536, 5_000_000_000, False, 65_536 - 512),
        (4096, 65_536, 5_000_000_000, True, 11_444),  # a connection with TLS takes memory before it is anybody's
        (4096, 65_536, -1, True, 65_536 - 512),
        (600, 600, 5_000_000_000, True, 300),
    ],
)
def test_how_many_are_let_in_follows_from_descriptors_and_with_tls_from_memory(
    monkeypatch: pytest.MonkeyPatch, *, soft: int, hard: int, memory: int, tls: bool, wanted: int
) -> None:
    limits = {resource.RLIMIT_NOFILE: (soft, hard), resource.RLIMIT_DATA: (memory, memory)}
    monkeypatch.setattr(resource, "getrlimit", limits.__getitem__)
    monkeypatch.setattr(resource, "setrlimit", limits.__setitem__)
    assert listener.room(ssl.create_default_context() if tls else None) == wanted
    assert limits[resource.RLIMIT_NOFILE] == (max(soft, min(hard, 65_536)), hard)
