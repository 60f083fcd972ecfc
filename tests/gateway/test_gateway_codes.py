"""One-time codes at a real agents' port: the command line's own exchange, and a hub in the test's hands."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from processes.adapters.machine import code_exchange
from processes.cli.terminal.failure import Failure
from processes.core.gateway.code_offers import OFFERS_MAX
from processes.core.travels.messages import CodeAnswered, CodeOffered, DeliverRotate, Token, TokenChanged, TokenOffered
from processes.core.values import TOKEN_VOID, CloseCode

OpenHouse = Callable[..., AbstractAsyncContextManager[Any]]
CODE = code_exchange.parsed("web1:secret\n")


def exchange(port: int, token_file: Path) -> asyncio.Future[None]:
    """The exchange, in a thread of its own."""
    hub = f"ws://127.0.0.1:{port}/ws"
    return asyncio.ensure_future(asyncio.to_thread(code_exchange.exchange, hub, CODE, token_file))


def test_a_code_is_exchanged_for_a_token_that_lets_the_agent_in_and_that_nobody_saw(
    house: OpenHouse, tmp_path: Path
) -> None:
    async def run() -> None:
        async with house() as h:
            await h.hub.start()
            token_file = tmp_path / "agent.token"
            under_way = exchange(h.port, token_file)
            event = await h.hub.event(CodeOffered, host="web1")
            assert event.code_hash == hashlib.sha256(b"web1:secret").hexdigest()
            assert event.address.startswith("127.0.0.1:")
            assert not token_file.exists(), "what is there stays until the hub has the new one"
            changed = TokenChanged(1, "web1", Token(event.token_hash, "web1", "id"))
            await h.hub.deliver(changed, CodeAnswered(1, event.offer, 201, "web1"))
            await under_way
            secret = token_file.read_text().strip()
            assert hashlib.sha256(secret.encode()).hexdigest() == event.token_hash
            assert token_file.stat().st_mode & 0o777 == 0o600
            left = sorted(path.name for path in tmp_path.iterdir() if "token" in path.name)
            assert left == ["agent.token", "agent.token.code"]
            wire = await h.dial(secret)
            assert wire is not None
            await exchange(h.port, token_file)  # typed again: the hub is not even asked, or there would be no answer
            assert token_file.read_text().strip() == secret

    asyncio.run(run())


def test_a_refused_code_leaves_the_old_token_and_the_same_secret_is_offered_again(
    house: OpenHouse, tmp_path: Path
) -> None:
    """The bug it would catch: after a lost answer the machine offers another token, and the code is used."""

    async def run() -> None:
        async with house() as h:
            await h.hub.start()
            token_file = tmp_path / "agent.token"
            token_file.write_text("old\n")
            hashes = []
            for status in (401, 409, 201):
                under_way = exchange(h.port, token_file)
                event = await h.hub.event(CodeOffered)
                hashes.append(event.token_hash)
                await h.hub.deliver(CodeAnswered(1, event.offer, status, "web1"))
                if status == 201:
                    await under_way
                else:
                    with pytest.raises(Failure, match="web1"):
                        await under_way
                    assert token_file.read_text() == "old\n"
            assert len(set(hashes)) == 1
            assert token_file.read_text() != "old\n"

    asyncio.run(run())


def test_a_secret_that_was_made_void_is_forgotten_and_another_is_offered_with_the_same_code(
    house: OpenHouse, tmp_path: Path
) -> None:
    """The bug it would catch: a secret that an exchange of the past left behind is let in again, or strands the host."""

    async def run() -> None:
        async with house() as h:
            await h.hub.start()
            token_file = tmp_path / "agent.token"
            under_way = exchange(h.port, token_file)
            void = await h.hub.event(CodeOffered)
            await h.hub.deliver(CodeAnswered(1, void.offer, TOKEN_VOID, "void"))
            other = await h.hub.event(CodeOffered)
            assert (other.code_hash, other.token_hash) != (void.code_hash, void.token_hash)
            assert other.code_hash == void.code_hash
            await h.hub.deliver(CodeAnswered(1, other.offer, 201, "web1"))
            await under_way
            assert hashlib.sha256(token_file.read_text().strip().encode()).hexdigest() == other.token_hash

    asyncio.run(run())


def test_guesses_from_one_address_cost_the_hub_a_few_events_a_minute(house: OpenHouse, tmp_path: Path) -> None:
    async def run() -> None:
        async with house() as h:
            await h.hub.start("good")
            for number in range(OFFERS_MAX):
                under_way = exchange(h.port, tmp_path / f"token{number}")
                event = await h.hub.event(CodeOffered)
                await h.hub.deliver(CodeAnswered(1, event.offer, 401, "no"))
                with pytest.raises(Failure):
                    await under_way
            with pytest.raises(Failure, match="Too many wrong codes"):
                await exchange(h.port, tmp_path / "late")
            await h.agent("good")  # who has a token comes in
            assert not [event for event in h.hub.seen if isinstance(event, CodeOffered)]

    asyncio.run(run())


def test_an_agent_that_is_asked_says_its_new_tokens_hash_and_is_sent_to_come_back_with_it(house: OpenHouse) -> None:
    async def run() -> None:
        async with house() as h:
            await h.hub.start("web1")
            wire = await h.agent("web1")
            await h.hub.deliver(DeliverRotate(1, h.connection("web1")))
            await wire.hear("rotate_token")
            wire.say("new_token", token_hash="ab" * 32)
            offered = await h.hub.event(TokenOffered, host="web1")
            assert offered.token_hash == "ab" * 32
            token = Token("ab" * 32, "web1", "id-of-web1")
            await h.hub.deliver(TokenChanged(1, "web1", token, CloseCode.RESTART, "come with the new token"))
            code = await wire.ended()
            assert code == CloseCode.RESTART, "4501 would keep it away"

    asyncio.run(run())
