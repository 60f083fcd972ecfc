"""The agent's dialling: whatever answers in the hub's place is refused and logged, and the agent dials again."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, MutableMapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from doubles.agent_process import AgentProcess
from doubles.hub_wire import HubWire
from structlog.testing import capture_logs

from processes.adapters.state import agent_token
from processes.agent import advice
from processes.agent.config import Config
from processes.agent.link import Link
from processes.core.agent.effects import Connected, Input
from processes.core.gateway.admission import PATH, Refusal, admit
from processes.core.values import CloseCode

WAIT_S = 20.0
ELSEWHERE = "wss://127.0.0.1:17999/ws"
LOCATIONS = (
    "https://127.0.0.1:17999/ws",
    "http://127.0.0.1:17999/ws",
    "http://127.0.0.1:17999/login",
    "wss://127.0.0.1:17999/ws",
    "ws://h:99999/",
    "ws://h/ws#x",
    "ws://[::1/ws",
    f"ws://{'h' * 64}.example.org/ws",
    "/ws",
    "/oauth2/sign_in",
    "ftp://h/ws",
    "//elsewhere.example.org/ws",
    "https://user:secret@h/ws",
    "",
)


class Answering:
    """Answers every request with the same bytes, and keeps the requests."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.heads: list[bytes] = []
        self.port = 0

    async def answered(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self.answer)
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[Answering]:
    found = Answering(answer)
    server = await asyncio.start_server(found.answered, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    async with server:
        yield found


def config(tmp_path: Path, hub: str) -> Config:
    token_file = tmp_path / "agent.token"
    token_file.write_text("t0k\n")
    token_file.chmod(0o600)
    return Config(tmp_path / "agent.toml", hub, "web1", token_file, 1.0, tmp_path / "state", 1 << 20, None, {})


async def dialled(tmp_path: Path, hub: str, tries: int = 1) -> list[MutableMapping[str, Any]]:
    """What a link logs that dials this URL, until so many tries have failed."""

    async def tell(_: Input) -> None:
        raise AssertionError("connected")

    with capture_logs() as lines:
        link = asyncio.create_task(Link(config(tmp_path, hub), "1", structlog.get_logger()).run(tell))
        try:
            async with asyncio.timeout(WAIT_S):
                while len(lines) < tries and not link.done():
                    await asyncio.sleep(0.01)
            assert not link.done(), f"the link ended: {link.exception()!r}"
        finally:
            link.cancel()
            await asyncio.wait({link})
    return lines


def redirect(status: int, location: str) -> bytes:
    named = f"Location: {location}\r\n" if location else ""
    return f"HTTP/1.1 {status} Moved\r\n{named}Content-Length: 0\r\n\r\n".encode()


async def retry_s(tmp_path: Path, answer: bytes) -> float:
    """In how many seconds the agent tries again after this answer, which is logged as a failure."""
    async with answering(answer) as hub:
        (line, *_) = await dialled(tmp_path, f"ws://127.0.0.1:{hub.port}/ws")
    assert line["event"] in ("refused", "hub not reached")
    return float(line["retry_s"])


@pytest.mark.parametrize("location", LOCATIONS)
def test_a_redirect_is_a_refusal_that_is_logged_and_not_followed(tmp_path: Path, location: str) -> None:
    """The bug it would catch: the link ends, and the agent with it (exit code 70), or asks ten times at each try."""

    async def story() -> None:
        async with answering(redirect(301, location)) as hub:
            lines = await dialled(tmp_path, f"ws://127.0.0.1:{hub.port}/ws", tries=1)
            assert {(line["event"], line["status"], line["log_level"]) for line in lines} == {
                ("refused", 301, "warning")
            }
            assert all("not followed" in line["hint"] for line in lines)
            assert len(hub.heads) in (len(lines), len(lines) + 1), "the next try may be under way"

    asyncio.run(story())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 301 Moved\r\nLocation: /a\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 503 Away\r\nRetry-After: 1\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 503 Away\r\nRetry-After: nan\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 503 Away\r\nRetry-After: -inf\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 503 Away\r\nRetry-After: Wed, 21 Oct 2037 07:28:00 GMT\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /\xff\xfe\x07\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 502 Bad Gateway\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 999999999999999999999\r\n\r\n",
    ],
)
def test_odd_headers_of_a_refusal_cost_nothing_but_a_wait(tmp_path: Path, answer: bytes) -> None:
    """The bug it would catch: two proxies that add one header each end the agent, with exit code 70."""

    assert 0 <= asyncio.run(retry_s(tmp_path, answer)) <= 120


def test_an_agent_outlives_a_redirect_and_says_which_url_is_meant(tmp_path: Path) -> None:
    async def story() -> None:
        async with answering(redirect(301, "https://127.0.0.1:17999/ws")) as hub:
            agent = AgentProcess(tmp_path, f"ws://127.0.0.1:{hub.port}/ws", "t0k")
            agent.start()
            try:
                async with asyncio.timeout(WAIT_S):
                    while len(hub.heads) < 2:
                        await asyncio.sleep(0.02)
                assert agent.process is not None
                assert agent.process.poll() is None, agent.logged()
                assert f'hub = "{ELSEWHERE}" is meant' in agent.logged().replace("\\", "")
            finally:
                agent.end_all()

    asyncio.run(story())


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("https://h.example.org/ws", 'hub = "wss://h.example.org/ws" is meant'),
        ("//h.example.org/ws", 'hub = "ws://h.example.org/ws" is meant'),
        ("wss://h.example.org/ws", 'hub = "wss://h.example.org/ws" is meant'),
        ("https://h.example.org/login", "redirected to https://h.example.org/login"),
        ("https://h.example.org/ws?next=1", "redirected to https://h.example.org/ws?next=1"),
        ("https://me:secret@h.example.org/ws", "redirected to https://me"),
        ("ftp://h.example.org/ws", "redirected to ftp"),
        ("/ws", "redirected to /ws"),  # to itself
        ("ws://h:99999/ws", "redirected to ws://h:99999"),
        ("", "redirected to nowhere"),
    ],
)
def test_a_redirect_names_the_url_that_is_meant_or_a_proxy(location: str, said: str) -> None:
    assert said in advice.refused(302, location, "ws://127.0.0.1:7701/ws")


def test_every_status_with_which_a_gateway_refuses_has_its_advice() -> None:
    """The bug it would catch: an agent that was closed for a flood comes back, and its log does not say what 429 is."""
    nothing = {"known": False, "table_is_current": False, "asked_before": False, "stopping": False, "full": False}
    cases = [
        ("/", nothing, 0.0),
        (PATH, nothing | {"full": True}, 0.0),
        (PATH, nothing | {"known": True}, 9.0),
        (PATH, nothing, 0.0),
        (PATH, nothing | {"table_is_current": True, "asked_before": True}, 0.0),
    ]
    answers = [admit(target, **facts, banned_s=banned_s) for target, facts, banned_s in cases]
    refusals = {answer.status for answer in answers if isinstance(answer, Refusal)}
    assert refusals == {401, 404, 429, 503}
    assert all(advice.refused(status, "", "ws://127.0.0.1:7701/ws") for status in refusals)


@pytest.mark.parametrize(
    ("statuses", "words"),
    [
        ((200, 204, 206, 402, 405, 410, 418, 421, 499), "an ordinary web server or proxy answers there"),
        ((500, 501, 502, 504, 505, 508, 511, 520, 524, 525, 599), "a proxy before the hub answers"),
        ((400,), "pass on Upgrade and Connection"),
        ((407,), "a proxy on the way wants a sign-in"),
    ],
)
def test_of_every_other_status_the_log_says_who_answers(statuses: tuple[int, ...], words: str) -> None:
    assert all(words in advice.refused(status, "", "ws://127.0.0.1:7701/ws") for status in statuses)


def test_every_close_that_does_not_mean_come_back_at_once_has_its_advice() -> None:
    passing = {CloseCode.NORMAL, CloseCode.GOING_AWAY, CloseCode.RESTART, CloseCode.KEEPALIVE, CloseCode.SLOW}
    ours = {CloseCode.TOO_BIG}  # no frame of this agent is as big
    assert set(CloseCode) - advice.CLOSED.keys() == passing | ours


def test_whose_token_is_not_accepted_is_sent_to_ask_why_and_not_to_enrol_again() -> None:
    """The bug it would catch: `enroll --again` for a suspended host lifts the suspension, and nobody notices."""
    for hint in (advice.refused(401, "", "ws://127.0.0.1:7701/ws"), advice.CLOSED[CloseCode.SUSPENDED]):
        assert "fleethub host NAME" in hint
        assert "enroll" not in hint


def test_a_long_target_of_a_redirect_is_cut_in_the_log() -> None:
    assert len(advice.refused(302, "https://h/" + "x" * 5000, "ws://127.0.0.1:7701/ws")) < 400


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n<html></html>",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 999 \xff\xfe\r\n\r\n",
        b"HTTP/1.1 30x Moved\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x15\x03\x01\x00\x02\x02\x0a",
        b"",
    ],
)
def test_whatever_else_answers_is_a_failure_that_is_logged(tmp_path: Path, answer: bytes) -> None:
    assert 0 <= asyncio.run(retry_s(tmp_path, answer)) <= 60


@pytest.mark.parametrize("hub", ["ws://127.0.0.1:9/ws#agents", f"ws://{'h' * 64}.invalid/ws", "ws://.hub.invalid:1/ws"])
def test_a_url_that_cannot_be_dialled_is_a_failure_that_is_logged(tmp_path: Path, hub: str) -> None:
    async def story() -> None:
        lines = await dialled(tmp_path, hub)
        assert (lines[0]["event"], "`hub` looks like" in lines[0]["hint"]) == ("hub not reached", True)

    asyncio.run(story())


def test_tls_is_spoken_whatever_the_case_of_the_scheme(tmp_path: Path) -> None:
    """The bug it would catch: `hub = "WSS://…"` passes the check of the file, and is never dialled."""
    found = Link(config(tmp_path, "WSS://127.0.0.1:9/ws"), "1", structlog.get_logger())
    assert found._credentials()[2] is not None
    assert Link(config(tmp_path, "WS://127.0.0.1:9/ws"), "1", structlog.get_logger())._credentials()[2] is None


@pytest.mark.parametrize("stored", [True, False], ids=["the hub has it", "the hub never heard of it"])
def test_an_agent_that_was_killed_amid_a_rotation_comes_back_whichever_token_the_hub_has(
    tmp_path: Path, *, stored: bool
) -> None:
    """With the next token beside the old one on disk; the one that lets it in is in its file from then on."""

    async def run() -> None:
        found = config(tmp_path, "")
        agent_token.make(found.token_file)
        next_token = agent_token.read_pending(found.token_file)
        assert next_token is not None
        async with HubWire(token=next_token if stored else "t0k") as hub:
            connected = asyncio.Event()

            async def tell(happened: Input) -> None:
                if isinstance(happened, Connected):
                    connected.set()

            link = Link(msgspec.structs.replace(found, hub=hub.url), "1", structlog.get_logger())
            async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as group:
                task = group.create_task(link.run(tell))
                await connected.wait()
                if not stored:  # asked again, it says the same hash, and dials with that token next
                    assert await link.make_token() == hashlib.sha256(next_token.encode()).hexdigest()
                    hub.token = next_token
                    connected.clear()
                    await hub.close_live(CloseCode.RESTART)
                    await connected.wait()
                    assert [each["Authorization"] for each in hub.headers] == ["Bearer t0k", f"Bearer {next_token}"]
                task.cancel()
        assert found.token_file.read_text().strip() == next_token
        assert not agent_token.pending(found.token_file).exists()

    asyncio.run(run())


def test_a_next_token_that_nobody_knows_does_not_keep_the_good_one_from_being_tried(tmp_path: Path) -> None:
    """One was left by an exchange that was refused. The hub is away for both at first."""

    async def run() -> None:
        found = config(tmp_path, "")
        agent_token.make(found.token_file)
        async with HubWire(token="other") as hub:
            link = Link(msgspec.structs.replace(found, hub=hub.url), "1", structlog.get_logger())
            waits = [await link._once() for _ in range(3)]
            assert waits[1] >= 30 > waits[0], "the next one at once; then as after any refusal"
            next_token = agent_token.read_pending(found.token_file)
            assert [each["Authorization"] for each in hub.headers] == [
                "Bearer t0k",
                f"Bearer {next_token}",
                "Bearer t0k",
            ]
        assert found.token_file.read_text() == "t0k\n"

    asyncio.run(run())
