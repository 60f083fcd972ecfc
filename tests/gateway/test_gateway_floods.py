"""Agents that send more than they may: slowed, closed, kept away, reported; and everybody else is served."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from doubles.agent_wire import NotLetIn
from doubles.flood import AGENTS as FLOODS
from doubles.flood import frame
from websockets.frames import Opcode

from processes.core.budgets import CLOSED_MAX, Budget, Rate
from processes.core.travels.messages import AgentDisconnected, HeartbeatReceived, HostFlooded, StatusReceived

Houses = Callable[..., AbstractAsyncContextManager[Any]]

SMALL = Budget(heartbeats=Rate(10.0, 50.0), frames=Rate(1000.0, 1000.0), bytes=Rate(1 << 20, 1 << 20), patience_s=0.5)


async def pour(wire: Any, what: bytes) -> None:
    """Send as fast as the gateway takes it, until the connection is over."""
    batch = what * max(1, 65536 // len(what))
    while wire.close_code is None:
        wire.write(batch)
        await wire.drained()


async def keep_reading(hub: Any) -> None:
    """As the hub does; else what waits for it would hold up the reading of the agent before any budget does."""
    while True:
        await hub.read()


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_of_any_kind_is_closed_1008_and_kept_away_and_a_good_host_is_served_meanwhile(
    house: Houses, kind: str
) -> None:
    async def scenario() -> None:
        slow_bytes = SMALL._replace(bytes=Rate(50_000.0, 100_000.0))
        async with house(budget=slow_bytes if kind == "large" else SMALL) as h:
            await h.hub.start("loud", "good")
            good, loud = await h.agent("good"), await h.agent("loud")
            pouring = asyncio.create_task(pour(loud, FLOODS[kind]))
            turn = h.pulse.pulse.turn
            good.say("status", command_id="mine", status="ok")
            await h.hub.event(StatusReceived, host="good")
            assert h.pulse.pulse.turn > turn
            reading = asyncio.create_task(keep_reading(h.hub))
            assert await loud.ended() == 1008
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            pouring.cancel()
            assert (await h.hub.event(AgentDisconnected, host="loud")).code == 1008
            with pytest.raises(NotLetIn) as refused:
                await h.dial("loud")
            assert refused.value.status == 429
            assert 1 <= int(refused.value.headers["Retry-After"]) <= 30
            good.say("heartbeat")
            await h.hub.event(HeartbeatReceived, host="good")

    asyncio.run(scenario())


def test_heartbeats_without_end_are_conflated_and_never_closed_for(house: Houses) -> None:
    async def scenario() -> None:
        async with house(budget=SMALL._replace(heartbeats=Rate(200.0, 50.0))) as h:
            await h.hub.start("loud")
            loud = await h.agent("loud")
            pouring = asyncio.create_task(
                pour(loud, frame(Opcode.TEXT, b'{"type":"heartbeat","payload":{"metrics":{"cpu":1}}}'))
            )
            await h.until(lambda: h.gate.received >= 400)  # eight times the burst: of anything else it would be closed
            await h.hub.event(HeartbeatReceived, host="loud")
            told = 1 + sum(isinstance(event, HeartbeatReceived) for event in h.hub.seen)
            assert 1 <= told < h.gate.received / 5
            assert loud.close_code is None
            pouring.cancel()

    asyncio.run(scenario())


def test_a_host_that_does_not_stop_is_reported_to_the_hub(house: Houses) -> None:
    async def scenario() -> None:
        async with house(budget=SMALL._replace(rest_s=0.0)) as h:
            await h.hub.start("loud")
            for _ in range(CLOSED_MAX):
                loud = await h.agent("loud")
                pouring = asyncio.create_task(pour(loud, FLOODS["pongs"]))
                assert await loud.ended() == 1008
                pouring.cancel()
            await h.hub.event(HostFlooded, host="loud")

    asyncio.run(scenario())
