"""Strangers by the thousand, and tokens that take all they get, at the real operators' port: the others get in."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from doubles.authority import Authority
from doubles.deadline import WAIT_S, until
from doubles.hub_side import hash_of
from doubles.operator_wire import TOKEN, FanoutHouse, descriptors

from processes.core.budgets import TOKEN_WEBSOCKETS_MAX

UPGRADE = (
    "GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nAuthorization: Bearer {}\r\n\r\n"
)
ASK = "GET /api/v1/me HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {}\r\n\r\n"
VIEWERS = ("ann", "bob", "eve", "joe")


class Crowd:
    """Connections that are kept, with TLS if there is a context."""

    def __init__(self, house: FanoutHouse, trust: ssl.SSLContext | None = None) -> None:
        self._house, self._trust = house, trust
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def silent(self, number: int) -> None:
        """So many connect and say nothing."""
        for _ in range(number):
            self._stack.enter_context(socket.create_connection(("127.0.0.1", self._house.port), WAIT_S))

    def say(self, text: str) -> int:
        """One connects, says this, and stays. Returns the status of the answer; 0 if there is none."""
        sock = socket.create_connection(("127.0.0.1", self._house.port), WAIT_S)
        if self._trust is not None:
            sock = self._trust.wrap_socket(sock, server_hostname="127.0.0.1")
        self._stack.enter_context(sock)
        sock.sendall(text.encode())
        found = b""
        while b"\r\n" not in found:
            piece = sock.recv(4096)
            if not piece:
                return 0
            found += piece
        return int(found.split(b" ")[1])


@pytest.fixture(autouse=True)
def many_descriptors() -> Iterator[None]:
    """Enough for thousands of clients in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def with_tokens(house: FanoutHouse) -> None:
    """The canary's token is known to the fanout, and each viewer's."""
    house.canary("song")
    with house.database() as connection:
        for name in VIEWERS:
            connection.execute(
                "INSERT INTO tokens (token_hash, role, label, created_wall_s) VALUES (?, 'viewer', ?, 0)",
                (hash_of(name), name),
            )


def test_silent_connections_and_greedy_tokens_keep_no_operator_out_of_a_port_with_tls_and_few_descriptors() -> None:
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority(Path(folder))
        certificate, key = authority.issue()
        trust = ssl.create_default_context(cafile=authority.ca)
        tls = {"FLEETHUB_TLS_CERTIFICATE": str(certificate), "FLEETHUB_TLS_KEY": str(key)}
        house = FanoutHouse(descriptors_max=1000, **tls)
        with_tokens(house)
        with house, Crowd(house, trust) as crowd:
            assert crowd.say(ASK.format(TOKEN)) == 200
            for _ in range(3):
                crowd.silent(500)
                assert crowd.say(ASK.format(TOKEN)) == 200
            pid = house.processes["fanout"].pid
            assert descriptors(pid) < 1000
            until(lambda: house.pulse("fanout").turned_away >= 1000)
            # half of the room of 500 is for those who are signed in, and 62 of that for whom it is kept
            answers = [crowd.say(UPGRADE.format(VIEWERS[number % 4])) for number in range(250)]
            assert set(answers) == {101, 429}
            assert 150 <= answers.count(101) <= 250 - 62
            assert crowd.say(ASK.format("ann")) == 429
            assert crowd.say(UPGRADE.format("song")) == crowd.say(UPGRADE.format(TOKEN)) == 101
            assert crowd.say(ASK.format(TOKEN)) == 200
            assert crowd.say(ASK.format("song")) == 403, "it is asked who it is, and then it may not"
            assert house.processes["fanout"].poll() is None


def test_a_token_has_its_share_of_connections_and_another_has_its_own() -> None:
    house = FanoutHouse()
    with_tokens(house)
    with house, Crowd(house) as crowd:
        answers = [crowd.say(UPGRADE.format("ann")) for _ in range(TOKEN_WEBSOCKETS_MAX + 5)]
        assert answers == [101] * TOKEN_WEBSOCKETS_MAX + [429] * 5
        assert crowd.say(UPGRADE.format("bob")) == crowd.say(UPGRADE.format("song")) == 101
        assert crowd.say(ASK.format("ann")) == 200, "for requests it has others"


@pytest.fixture(scope="module")
def house() -> Iterator[FanoutHouse]:
    with FanoutHouse() as found:
        until(lambda: found.pulse("fanout").turn)
        yield found


def test_behind_a_trusted_proxy_the_client_is_whom_it_names_and_of_anybody_else_the_header_is_ignored(
    house: FanoutHouse,
) -> None:
    async def signed_in_from(house: FanoutHouse, forwarded: str) -> str:
        async with house.client(None) as browser, house.client() as boss:
            body = {"code": house.code(f"code-{forwarded}")}
            answer = await browser.post("/login", json=body, headers={"X-Forwarded-For": forwarded})
            assert answer.status_code == 200
            sessions = (await boss.get("/api/v1/sessions")).json()["sessions"]
            return str(sessions[0]["address"])

    with FanoutHouse(FLEETHUB_OPERATORS_TRUSTED_PROXIES="127.0.0.1 10.0.0.0/8") as behind:
        until(lambda: behind.pulse("fanout").turn)
        assert asyncio.run(signed_in_from(behind, "1.2.3.4, 198.51.100.7, 10.0.0.9")) == "198.51.100.7"
    assert asyncio.run(signed_in_from(house, "198.51.100.7")) == "127.0.0.1"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nX: {}\r\n\r\n".format("x" * 100_000), b"431"),
        ("GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n{}\r\n".format("X: y\r\n" * 101), b"431"),
        # before it is parsed, so it does not matter that no line of it is a header
        ("GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n{}\r\n".format("no header\r\n" * 200), b"431"),
        ("GET /livez?{} HTTP/1.1\r\nHost: 127.0.0.1\r\nX: {}\r\n\r\n".format("y" * 1000, "x" * 32_000), b"431"),
        ("POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
        ("GET /livez HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", b"400"),
        ("POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", b"411"),
    ],
)  # fmt: skip
def test_a_head_that_is_too_large_or_frames_its_body_twice_is_refused_and_ends_the_connection(
    head: str, status: bytes, house: FanoutHouse
) -> None:
    """Also if all of it comes in one read, and with another request behind it, which is not answered."""
    with socket.create_connection(("127.0.0.1", house.port), timeout=WAIT_S) as sock:
        sock.sendall(head.encode() + b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        found = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := sock.recv(65536):
                found += piece
    assert [line.split(b" ")[1] for line in found.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")] == [status]
    assert httpx.get(f"{house.url}/livez", timeout=WAIT_S).status_code == 200
    assert "Invalid HTTP" not in house.log("fanout"), "strangers do not fill the log"
