"""What the hub delivers, on its way to the agents."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from processes.core.travels import messages
from processes.core.travels.messages import (
    AgentDisconnected,
    DeliverAck,
    DeliverCommand,
    DeliverKill,
    HeartbeatReceived,
    HubStarted,
    Undelivered,
)

Houses = Callable[..., AbstractAsyncContextManager[Any]]


def boot_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def test_a_command_is_written_with_the_seconds_it_has_left(house: Houses) -> None:
    async def scenario() -> None:
        async with house() as h:
            await h.hub.start("web1")
            wire = await h.agent("web1")
            await h.hub.deliver(
                DeliverCommand(1, "boot.1", "web1", "c1", "pull", 1, boot_s() + 60),
                DeliverCommand(1, "boot.1", "web1", "c2", "pull", 2, boot_s() - 60),
                DeliverCommand(1, "boot.1", "web1", "c3", "pull", 1),
            )
            first = await wire.hear("command")
            assert (first["command"], first["command_id"], first["attempt"]) == ("pull", "c1", 1)
            assert 55 < first["ttl_s"] <= 60
            second = await wire.hear("command")
            assert (second["command_id"], second["attempt"], second["ttl_s"]) == ("c2", 2, 0)
            assert (await wire.hear("command"))["ttl_s"] is None

    asyncio.run(scenario())


def test_a_command_for_a_connection_that_is_not_here_is_answered_undelivered(house: Houses) -> None:
    async def scenario() -> None:
        async with house() as h:
            await h.hub.start("web1")
            wire = await h.agent("web1")
            await h.hub.deliver(
                DeliverCommand(1, "gone.7", "web1", "c0", "pull", 3)
            )  # an earlier gateway may have written it
            await h.hub.deliver(DeliverCommand(1, "boot.7", "web1", "c1", "pull", 3))
            answer = await h.hub.event(Undelivered)
            assert (answer.connection, answer.host, answer.command_id, answer.attempt) == ("boot.7", "web1", "c1", 3)
            await wire.hang_up()
            await h.hub.event(AgentDisconnected)
            await h.hub.deliver(DeliverCommand(1, "boot.1", "web1", "c2", "pull", 1))
            assert (await h.hub.event(Undelivered)).command_id == "c2"
            assert wire.heard() == []

    asyncio.run(scenario())


def test_acks_and_kills_reach_a_fleethub_agent(house: Houses) -> None:
    async def scenario() -> None:
        async with house() as h:
            await h.hub.start("web1")
            wire = await h.agent("web1")
            await h.hub.deliver(
                DeliverAck(1, "boot.1", "c1", 7),
                DeliverAck(1, "boot.1", "c1"),
                DeliverKill(1, "boot.1", "c2", "SIGKILL"),
            )
            assert await wire.hear("ack") == {"command_id": "c1", "offset": 7}
            assert await wire.hear("ack") == {"command_id": "c1"}
            assert await wire.hear("kill_command") == {"signal": "SIGKILL", "pid": 0, "command_id": "c2"}

    asyncio.run(scenario())


def test_a_foreign_agent_gets_no_ack_no_command_twice_and_its_census_names_what_was_written(house: Houses) -> None:
    async def scenario() -> None:
        async with house() as h:
            await h.hub.start("nix")
            wire = await h.agent("nix", protocol=0)
            await h.hub.deliver(
                DeliverAck(1, "boot.1", "c0"),
                DeliverCommand(1, "boot.1", "nix", "c1", "pull", 1),
                DeliverCommand(1, "boot.1", "nix", "c1", "pull", 2),
                DeliverKill(1, "boot.1", "c1"),
            )
            assert (await wire.hear("command"))["command_id"] == "c1"
            await wire.hear("kill_command")
            wire.say("status", status="ok", command="pull", exit_code=0)
            await h.hub.event(messages.StatusReceived, command_id="c1", op="pull")
            h.hub.succeed(2)
            await h.hub.deliver(HubStarted(2))
            (connection,) = await h.hub.census(3)
            assert connection.written == ["c1"]
            assert connection.register.protocol == 0

    asyncio.run(scenario())


def test_a_fleethub_agent_gets_a_redelivered_command_again(house: Houses) -> None:
    """Its journal answers duplicates; its ack may have been lost."""

    async def scenario() -> None:
        async with house() as h:
            await h.hub.start("web1")
            wire = await h.agent("web1")
            for attempt in (1, 2):
                await h.hub.deliver(DeliverCommand(1, "boot.1", "web1", "c1", "pull", attempt))
                assert (await wire.hear("command"))["attempt"] == attempt

    asyncio.run(scenario())


def test_a_delivery_that_cannot_be_read_costs_nothing_but_itself(house: Houses) -> None:
    async def scenario() -> None:
        async with house() as h:
            await h.hub.start("web1")
            wire = await h.agent("web1")
            garbage = [b"\x63what", messages.encode(HubStarted(1))[:1] + b"\xc1", b""]
            await h.hub.link.append(messages.deliveries_of("gateway"), garbage)
            await h.hub.deliver(DeliverKill(1, "boot.1", "c1"))
            await wire.hear("kill_command")
            await h.until(lambda: h.pulse.pulse.dropped == 3)
            wire.say("heartbeat")
            await h.hub.event(HeartbeatReceived)

    asyncio.run(scenario())


def test_deliveries_are_acknowledged_once_they_were_handled(house: Houses) -> None:
    async def scenario() -> None:
        async with house() as h:
            await h.hub.start("web1")
            wire = await h.agent("web1")
            await h.hub.deliver(DeliverKill(1, "boot.1", "c1"))
            await wire.hear("kill_command")
            queue = h.memory.queues.named(messages.deliveries_of("gateway"))
            await h.until(lambda: len(queue) == 0)

    asyncio.run(scenario())
