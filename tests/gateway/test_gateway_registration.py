"""Who is let in, who is who, and what the hub hears of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from doubles.agent_wire import NotLetIn
from doubles.hub_side import hash_of, token_of

from processes.core.budgets import HOST_CONNECTIONS_MAX
from processes.core.travels.messages import (
    AgentDisconnected,
    AgentRegistered,
    CloseConnection,
    DeliverKill,
    DeliverRegistered,
    HeartbeatReceived,
    HostImpersonated,
    Token,
    TokenChanged,
    TokensPiece,
)
from processes.core.values import CloseCode

Houses = Callable[..., AbstractAsyncContextManager[Any]]


async def refused(house: Any, token: str | None, **options: Any) -> NotLetIn:
    with pytest.raises(NotLetIn) as caught:
        await house.dial(token, **options)
    return caught.value


def test_before_the_token_table_is_known_everybody_gets_503_with_retry_after(house: Houses) -> None:
    async def scenario() -> None:
        async with house() as h:
            for token in ("web1", None):
                answer = await refused(h, token)
                assert answer.status == 503
                assert answer.headers["Retry-After"]
            await h.hub.deliver(TokensPiece(1, 0, False, [token_of("web1")]))
            await h.until(lambda: h.gate.epoch == 1)
            assert (await refused(h, "web1")).status == 503, "half a table is not a table"

    asyncio.run(scenario())


def test_a_wrong_or_missing_token_gets_401_and_another_path_404(house: Houses) -> None:
    async def scenario() -> None:
        async with house() as h:
            await h.hub.start("web1")
            await h.until(lambda: h.gate.tokens.is_current)
            assert (await refused(h, "web2")).status == 401
            assert (await refused(h, None)).status == 401
            assert (await refused(h, "web1", path="/other")).status == 404

    asyncio.run(scenario())


def test_a_token_of_which_the_gateway_hears_only_after_its_agent_came_lets_it_in(house: Houses) -> None:
    """The hub tells whoever enrols and the gateway by two queues: an agent that was started at once got 401, and waited
    a minute.
    """

    async def scenario() -> None:
        async with house() as h:
            await h.hub.start("web1")
            await h.until(lambda: h.gate.tokens.is_current)
            early = asyncio.create_task(h.dial("web2"))
            await h.until(lambda: any(socket.doubted for socket in h.gate.roster.sockets))
            assert not early.done()
            await h.hub.deliver(TokenChanged(1, "web2", token_of("web2")))
            (await early).register("web2")
            assert (await h.hub.event(AgentRegistered)).host == "web2"

    asyncio.run(scenario())


def test_register_becomes_an_event_and_registered_is_said_once_the_hub_holds_it(house: Houses) -> None:
    async def scenario() -> None:
        async with house() as h:
            await h.hub.start("web1")
            await h.until(lambda: h.gate.tokens.is_current)
            wire = await h.dial("web1")
            wire.register("WEB1", agent_version="1", colour="blue")
            event = await h.hub.event(AgentRegistered)
            assert (event.host, event.info.enrolment, event.gateway) == ("web1", "id-of-web1", "gateway")
            assert event.connection == event.info.connection == "boot.1"
            assert event.info.register.hostname == "WEB1"
            assert json.loads(event.info.facts) == {"colour": "blue"}
            assert wire.heard() == [], "said before the hub held it"
            delivery = DeliverRegistered(1, event.connection, "web1", "id-of-web1")
            await h.hub.deliver(delivery, delivery, DeliverKill(1, event.connection, "c1"))
            assert await wire.hear("registered") == {"host_id": "id-of-web1", "protocol": 1, "heartbeat_interval": 5.0}
            await wire.hear("kill_command")  # and not registered again
            await wire.close()
            gone = await h.hub.event(AgentDisconnected)
            assert (gone.connection, gone.code) == (event.connection, 1000)

    asyncio.run(scenario())


def test_a_register_for_another_host_is_closed_4503_and_the_hub_and_the_watchdog_are_told_of_it_alone(
    house: Houses,
) -> None:
    """Agents of protocol 0 too. The bug it would catch: a stolen token is tried on every name, and nobody knows."""

    async def scenario() -> None:
        told: list[tuple[str, str]] = []
        async with house(on_impersonated=lambda *how: told.append(how)) as h:
            await h.hub.start("web1", "web2")
            await h.until(lambda: h.gate.tokens.is_current)
            wire = await h.dial("web1")
            wire.register("web2")
            wire.say("heartbeat")
            assert await wire.ended() == 4503
            seen = await h.hub.event(HostImpersonated, host="web1")
            assert (seen.claimed, seen.count) == ("web2", 1)
            assert "127.0.0.1" in seen.address
            for _ in range(3):
                foreign = await h.dial("web1")
                foreign.say("register", hostname="web2")
                assert await foreign.ended() == 4503
            assert [(host, how.partition(",")[0]) for host, how in told] == [("web1", "it registered as web2")]
            assert h.gate.impersonations == 4
            warned = [call for call in h.log.calls if call.args == ("an agent claimed to be another host",)]
            assert [call.kwargs["claimed"] for call in warned] == ["web2"]
            other = await h.agent("web2")
            other.say("heartbeat")
            await h.hub.event(HeartbeatReceived, host="web2")
            assert not [event for event in h.hub.seen if getattr(event, "host", "") == "web1"]

    asyncio.run(scenario())


def test_a_second_connection_replaces_the_first_with_4409(house: Houses) -> None:
    async def scenario() -> None:
        async with house() as h:
            await h.hub.start("web1")
            first = await h.agent("web1")
            second = await h.agent("web1")
            assert await first.ended() == 4409
            gone = await h.hub.event(AgentDisconnected)
            assert (gone.connection, gone.code) == ("boot.1", 4409)
            second.say("heartbeat")
            assert (await h.hub.event(HeartbeatReceived)).connection == "boot.2"

    asyncio.run(scenario())


def test_three_replacements_in_a_minute_are_an_identity_contested(house: Houses) -> None:
    async def scenario() -> None:
        told: list[str] = []
        async with house(on_contested=told.append) as h:
            await h.hub.start("web1")
            for _ in range(4):
                await h.agent("web1")
            assert told == ["web1"]
            assert [call.args for call in h.log.calls if call.method_name == "warning"] == [("identity contested",)]

    asyncio.run(scenario())


def test_a_revoked_token_ends_its_connection_with_4501_and_is_401_from_then_on(house: Houses) -> None:
    async def scenario() -> None:
        async with house() as h:
            await h.hub.start("web1", "web2")
            wire, other = await h.agent("web1"), await h.agent("web2")
            await h.hub.deliver(TokenChanged(1, "web1", None))
            assert await wire.ended() == 4501
            assert (await refused(h, "web1")).status == 401
            await h.hub.deliver(TokenChanged(1, "web1", token_of("web1", "new")))
            await h.until(lambda: h.gate.tokens.find(["Bearer new"]) is not None)
            wire = await h.dial("new")
            wire.register("web1")
            assert (await h.hub.event(AgentRegistered, connection="boot.3")).host == "web1"
            await h.hub.deliver(TokensPiece(1, 0, True, [token_of("web2")]))
            assert await wire.ended() == 4501, "left out of a new table"
            other.say("heartbeat")
            await h.hub.event(HeartbeatReceived, host="web2")

    asyncio.run(scenario())


def test_a_suspended_host_is_closed_with_4502_is_401_meanwhile_and_comes_in_with_the_same_token_once_lifted(
    house: Houses,
) -> None:
    async def scenario() -> None:
        async with house() as h:
            await h.hub.start("web1")
            wire = await h.agent("web1")
            await h.hub.deliver(TokenChanged(1, "web1", None, CloseCode.SUSPENDED, "suspended: flood"))
            assert int(await wire.ended()) == 4502
            assert (await refused(h, "web1")).status == 401
            await h.hub.deliver(TokenChanged(1, "web1", token_of("web1")))
            await h.until(lambda: h.gate.tokens.find(["Bearer web1"]) is not None)
            (await h.dial("web1")).register("web1")
            assert (await h.hub.event(AgentRegistered, connection="boot.2")).host == "web1"

    asyncio.run(scenario())


def test_a_connection_that_never_registers_is_closed_1008(house: Houses) -> None:
    async def scenario() -> None:
        async with house(register_s_max=0.2) as h:
            await h.hub.start("web1")
            await h.until(lambda: h.gate.tokens.is_current)
            wire = await h.dial("web1")
            assert await wire.ended() == 1008

    asyncio.run(scenario())


def test_more_connections_than_descriptors_allow_get_503(house: Houses) -> None:
    async def scenario() -> None:
        async with house(room=4) as h:
            await h.hub.start("web1", "web2", "web3")
            await h.agent("web1")
            second = await h.agent("web2")
            assert (await refused(h, "web3")).status == 503
            await second.close()
            await h.until(lambda: len(h.gate.roster.sockets) == 1)
            await h.agent("web3")

    asyncio.run(scenario())


def test_one_hosts_token_does_not_take_the_room_of_others(house: Houses) -> None:
    """Upgraded, not registered, and ending: all its connections count, and the canary's room is kept."""

    async def scenario() -> None:
        async with house(room=40) as h:  # 33 may be known, and five of these are the canary's
            await h.hub.start(*(f"web{number}" for number in range(1, 6)))
            await h.until(lambda: h.gate.tokens.is_current)
            for _ in range(HOST_CONNECTIONS_MAX):
                await h.dial("web1")
            assert (await refused(h, "web1")).status == 503
            await h.agent("web2")
            for host in ("web3", "web4", "web5"):
                with contextlib.suppress(NotLetIn):
                    for _ in range(HOST_CONNECTIONS_MAX):
                        await h.dial(host)
            assert h.listener.connections.known == 33 - 5
            assert (await refused(h, "web2")).status == 503, "there is room for the canary alone"
            h.canary.write_text(json.dumps({"agent_token_hash": hash_of("song"), "operator_token_hash": hash_of("x")}))
            await h.until(lambda: h.gate.tokens.find(["Bearer song"]) is not None)
            await h.dial("song")
            for wire in h.wires[:HOST_CONNECTIONS_MAX]:
                await wire.hang_up()
            await h.until(lambda: not h.listener.connections.of_client("web1"))
            await h.agent("web1")

    asyncio.run(scenario())


def test_silent_strangers_do_not_keep_an_agent_out(house: Houses) -> None:
    """Half handshakes take half of the room at most: the one that dawdled longest is dropped."""

    async def scenario() -> None:
        async with house(room=20) as h:
            await h.hub.start("web1")
            await h.until(lambda: h.gate.tokens.is_current)
            strangers = [await asyncio.open_connection("127.0.0.1", h.port) for _ in range(30)]
            await h.agent("web1")
            assert await strangers[0][0].read() == b"", "the oldest was to be dropped"
            for _, writer in strangers:
                writer.close()

    asyncio.run(scenario())


def test_a_crowd_of_strangers_at_once_does_not_keep_an_agent_out(house: Houses) -> None:
    """The bug it would catch: of all that are accepted in one pass of the loop one is dropped, and the others stay."""

    async def scenario() -> None:
        async with house(room=20) as h, contextlib.AsyncExitStack() as crowd:
            await h.hub.start("web1")
            await h.until(lambda: h.gate.tokens.is_current)
            for _ in range(60):  # and the loop sees none yet
                crowd.enter_context(socket.create_connection(("127.0.0.1", h.port)))
            await h.until(lambda: len(h.gate.roster.sockets) > 0)
            await h.until(lambda: len(h.gate.roster.sockets) <= 10)
            await h.agent("web1")

    asyncio.run(scenario())


def test_the_canary_comes_in_by_its_file_alone_and_its_old_token_ends(house: Houses) -> None:
    async def scenario() -> None:
        async with house() as h:
            assert (await refused(h, "song")).status == 503
            h.canary.write_text(json.dumps({"agent_token_hash": hash_of("song"), "operator_token_hash": hash_of("x")}))
            await h.until(lambda: h.gate.tokens.find(["Bearer song"]) is not None)
            wire = await h.dial("song")
            wire.register("_canary")
            event = await h.hub.event(AgentRegistered)
            assert (event.host, event.info.enrolment) == ("_canary", "_canary")
            fresh = h.canary.with_suffix(".new")
            fresh.write_text(json.dumps({"agent_token_hash": hash_of("other"), "operator_token_hash": hash_of("x")}))
            fresh.replace(h.canary)
            assert await wire.ended() == 4501
            assert isinstance(h.gate.tokens.find(["Bearer other"]), Token)
            h.canary.write_text("not a canary")
            await h.until(lambda: h.gate.tokens.find(["Bearer other"]) is None)

    asyncio.run(scenario())


def test_the_hub_closes_a_connection_with_the_code_it_names(house: Houses) -> None:
    async def scenario() -> None:
        async with house() as h:
            await h.hub.start("web1")
            wire = await h.agent("web1")
            await h.hub.deliver(CloseConnection(1, "boot.1", 4409, "another gateway has it"))
            assert await wire.ended() == 4409
            assert (await h.hub.event(AgentDisconnected)).code == 4409

    asyncio.run(scenario())
