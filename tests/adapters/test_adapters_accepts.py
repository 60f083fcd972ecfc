"""What waits at a real listening socket, by the kernel's word, and what is counted as accepted."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import uvloop
from doubles.deadline import WAIT_S

from processes.adapters.accepts import Accepts, waiting
from processes.adapters.listener import Listener
from processes.core.connections import PortLimits
from processes.core.travels.pulse import Pulse


@pytest.fixture(params=["127.0.0.1", "::1"])
def sock(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.socket(family) as sock:
        sock.bind((request.param, 0))
        sock.listen(5)
        yield sock


def test_the_kernel_says_how_many_connections_wait_and_how_many_may(sock: socket.socket) -> None:
    with contextlib.ExitStack() as stack:
        assert waiting(sock) == (0, 5)
        for count in (1, 2, 3):
            stack.enter_context(socket.create_connection(sock.getsockname()[:2]))
            assert waiting(sock) == (count, 5)
        stack.enter_context(sock.accept()[0])
        assert waiting(sock) == (2, 5)


def test_what_waits_is_known_after_the_process_has_lost_its_socket(sock: socket.socket) -> None:
    """As when an event loop has closed it: supervisord holds it open, so clients still connect and wait."""
    with socket.fromfd(sock.fileno(), sock.family, sock.type) as lost:
        accepts, pulse = Accepts(lost), Pulse()
    with socket.create_connection(sock.getsockname()[:2]):
        accepts.enter(pulse, 5)
        assert (pulse.accepted, pulse.waiting, pulse.waiting_max) == (0, 1, 5)
        assert (pulse.waiting_ns, pulse.unaccepted_ns, pulse.unaccepted_turns) == (5, 5, 1)
        accepts.enter(pulse, 7)
        assert (pulse.waiting_ns, pulse.unaccepted_ns, pulse.unaccepted_turns) == (5, 5, 2)
        accepts.count()  # another one, at once closed for want of room
        accepts.enter(pulse, 8)
        assert (pulse.accepted, pulse.waiting_ns, pulse.unaccepted_ns, pulse.unaccepted_turns) == (1, 5, 0, 0)
        accepts.end()
        accepts.enter(pulse, 9)
        assert (pulse.waiting, pulse.waiting_ns, pulse.unaccepted_ns) == (0, 0, 0)
        accepts.close()


def test_of_what_is_no_listening_tcp_socket_nothing_is_said(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock, socket.socket() as silent:
        sock.bind(str(tmp_path / "sock"))
        sock.listen()
        assert waiting(sock) == waiting(silent) == (0, 0)


def test_what_a_connection_has_under_way_is_not_taken_for_what_waits(sock: socket.socket) -> None:
    """The same field of TCP_INFO is the number of unacknowledged segments of a connection: here of its SYN."""
    sock.listen(0)  # one may wait; the next one's SYN is not answered
    with socket.create_connection(sock.getsockname()[:2]), socket.socket(sock.family) as client:
        client.setblocking(False)
        client.connect_ex(sock.getsockname()[:2])
        assert waiting(sock) == (1, 0)
        assert waiting(client) == (0, 0)


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_stranger_who_never_begins_his_tls_is_counted_as_accepted(
    make_loop: Callable[[], asyncio.BaseEventLoop],
) -> None:
    """The bug it would catch: counting begins after the handshake, so who is flooded by silent strangers seems deaf."""

    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            accepts = Accepts(sock)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            limits = PortLimits(10, 10, 10, 10, 0, 10)
            log: Any = structlog.testing.CapturingLogger()
            server = Listener(sock, context, limits, lambda _: asyncio.Protocol(), log, on_accepted=accepts.count)
            server.start()
            with socket.create_connection(sock.getsockname()):
                async with asyncio.timeout(WAIT_S):
                    while not accepts.accepted:
                        await asyncio.sleep(0.001)
                pulse = Pulse()
                accepts.enter(pulse, 5)
                assert (pulse.accepted, pulse.waiting) == (1, 0)
            server.close()
            accepts.close()

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(run())
