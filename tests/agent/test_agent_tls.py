"""wss:// with an authority of one's own: trusted by its file alone, and every way of not being trusted is said and
tried again slowly.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from doubles.agent_process import AgentProcess, until
from doubles.authority import Authority
from doubles.hub_wire import TOKEN, HubWire


def test_hub_with_a_certificate_of_the_named_authority_is_reached_and_commands_go_through(tmp_path: Path) -> None:
    authority = Authority(tmp_path)

    async def scene() -> None:
        async with HubWire(tls=authority.serves()) as hub:
            agent = AgentProcess(tmp_path / "home", hub.url, TOKEN)
            agent.write(hub.url, {"greet": ["echo", "hello"]}, ca_file=str(authority.ca))
            agent.start()
            try:
                await hub.registered()
                await hub.command("greet", "c1")
                assert (await hub.report("c1"))["status"] == "ok"
                assert hub.lines("c1") == ["hello"]
                assert "without TLS" not in agent.logged()
            finally:
                agent.end_all()

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("trusted", "san", "days", "words"),
    [
        ("own", "IP:127.0.0.1", -1, "certificate has expired"),
        ("another", "IP:127.0.0.1", 2, "unable to get local issuer certificate"),
        ("", "IP:127.0.0.1", 2, "unable to get local issuer certificate"),
        ("own", "DNS:hub.example", 2, "IP address mismatch"),
    ],
)
def test_certificate_that_is_not_trusted_is_said_so_and_tried_again_in_60_s(
    tmp_path: Path, trusted: str, san: str, days: int, words: str
) -> None:
    authorities = {"own": Authority(tmp_path), "another": Authority(tmp_path, "another")}

    async def scene() -> None:
        async with HubWire(tls=authorities["own"].serves(san, days)) as hub:
            agent = AgentProcess(tmp_path / "home", hub.url, TOKEN)
            agent.write(hub.url, {}, **({"ca_file": str(authorities[trusted].ca)} if trusted else {}))
            agent.start()
            try:
                await until(lambda: "hub not reached" in agent.logged(), "the refusal")
                line = next(line for line in agent.logged().splitlines() if "hub not reached" in line)
                assert words in line
                assert "ca_file" in line
                assert "retry_s=60.0" in line
                assert hub.headers == [], "the token was not sent to whoever that is"
            finally:
                agent.end_all()

    asyncio.run(scene())


@pytest.mark.parametrize(("scheme", "words"), [("ws", "begins with wss://"), ("wss", "begins with ws://")])
def test_wrong_scheme_is_told_with_the_right_one(tmp_path: Path, scheme: str, words: str) -> None:
    tls = Authority(tmp_path).serves() if scheme == "ws" else None

    async def scene() -> None:
        async with HubWire(tls=tls) as hub:
            agent = AgentProcess(tmp_path / "home", f"{scheme}://127.0.0.1:{hub.port}/ws", TOKEN)
            agent.start()
            try:
                await until(lambda: "hub not reached" in agent.logged(), "the failure")
                assert words in agent.logged()
            finally:
                agent.end_all()

    asyncio.run(scene())
