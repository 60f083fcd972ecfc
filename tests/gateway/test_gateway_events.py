"""What agents say on its way to the hub: conflated, in order, bounded, and repaired by a census."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from doubles.hub_side import HubSide
from doubles.queue_link import MemoryQueueLink
from websockets.frames import Frame, Opcode

from processes.adapters.websocket import Limits
from processes.core.gateway.outbox import Bounds
from processes.core.queues.bounded_queue import BoundedQueue
from processes.core.travels import agent_frames, messages
from processes.core.travels.messages import (
    AckReceived,
    AgentDisconnected,
    AgentRegistered,
    HeartbeatReceived,
    HubStarted,
    OutputReceived,
    StatusReceived,
)
from processes.core.travels.queue_calls import QueueLimits
from processes.core.values import Position

Houses = Callable[..., AbstractAsyncContextManager[Any]]
EVENTS = messages.EVENTS


def shrink_events(house: Any, items_max: int) -> BoundedQueue:
    """The events queue holds only so many from now on; what it held is let go."""
    queue: BoundedQueue = house.memory.queues.named(EVENTS)
    queue.acknowledge(queue.newest)
    queue.limits = QueueLimits(items_max, 1 << 20)
    return queue


def reports(count: int) -> bytes:
    """So many reports, "0" and up, as the bytes of one write."""
    texts = [agent_frames.encode(agent_frames.StatusFrame("ok", str(number))) for number in range(count)]
    return b"".join(Frame(Opcode.TEXT, text).serialize(mask=True) for text in texts)


async def fill(house: Any, count: int) -> None:
    """Puts so many strangers' items into events."""
    item = messages.encode(AgentDisconnected("other.1", "other", "other", 1000))
    assert (await MemoryQueueLink(house.memory, "other").append(EVENTS, [item] * count)).accepted


def test_every_frame_of_the_vocabulary_becomes_its_event_in_order(house: Houses) -> None:
    async def scenario() -> None:
        async with house() as h:
            await h.hub.start("web1")
            wire = await h.agent("web1")
            wire.say("command_ack", command_id="c1", state="accepted")
            wire.say("output", command_id="c1", line="one", stream="stdout", offset=0)
            wire.say("output", command_id="c1", line="two", stream="stderr", offset=1)
            wire.say("something_newer", a=1)
            wire.say("command_complete")
            wire.say("status", command_id="c1", command="pull", status="ok", exit_code=0)
            ack = await h.hub.event(AckReceived)
            assert (ack.host, ack.command_id, ack.state, ack.connection) == ("web1", "c1", "accepted", "boot.1")
            await h.hub.event(StatusReceived, command_id="c1", status="ok", exit_code=0, op="pull")
            outputs = [event for event in h.hub.seen if isinstance(event, OutputReceived)]
            assert [(r.offset, r.stream, r.data) for o in outputs for r in o.records] == [
                (0, "stdout", "one"),
                (1, "stderr", "two"),
            ]
            assert h.gate.malformed == 0

    asyncio.run(scenario())


def test_with_a_full_queue_the_newest_heartbeat_of_each_host_is_kept_and_nothing_is_paused(house: Houses) -> None:
    async def scenario() -> None:
        async with house() as h:
            await h.hub.start("web1", "web2")
            wires = [await h.agent("web1"), await h.agent("web2")]
            await h.until(lambda: not len(h.gate.outbox))
            queue = shrink_events(h, 10)
            await fill(h, 9)
            before = h.gate.received
            for number in range(100):
                for wire in wires:
                    wire.say("heartbeat", metrics={"load": number})
            await h.until(lambda: h.gate.received == before + 200)
            assert len(h.gate.outbox) == 2
            assert not any(member.socket.is_paused for member in h.gate.roster.registered())
            assert len(queue) == 9, "the last tenth is not for heartbeats"
            queue.acknowledge(queue.newest)
            for host in ("web1", "web2"):
                beat = await h.hub.event(HeartbeatReceived, host=host)
                assert beat.heartbeat.metrics is not None
                assert beat.heartbeat.metrics.load == 99
            assert not [event for event in h.hub.seen if isinstance(event, HeartbeatReceived)]

    asyncio.run(scenario())


def test_with_heartbeats_and_reports_refused_who_comes_and_goes_is_still_told(house: Houses) -> None:
    async def scenario() -> None:
        async with house() as h:
            await h.hub.start("web1", "web2")
            wire = await h.agent("web1")
            await h.until(lambda: not len(h.gate.outbox))
            queue = shrink_events(h, 10)
            await fill(h, 9)
            wire.say("heartbeat")
            await h.until(lambda: len(h.gate.outbox) == 1)
            wire.say("status", command_id="c1", status="ok")
            await h.until(lambda: len(h.gate.outbox) == 2)
            other = await h.dial("web2")
            other.register("web2")
            await h.until(lambda: len(queue) == 10)
            newest = messages.decode_event(queue.read(Position(0, 0), 100, 1 << 20).items[-1])
            assert isinstance(newest, AgentRegistered)
            assert len(h.gate.outbox) == 2, "heartbeat and report wait"
            queue.acknowledge(queue.read(Position(0, 0), 5, 1 << 20).position)
            await h.until(lambda: not len(h.gate.outbox))
            kinds = {type(messages.decode_event(each)) for each in queue.read(Position(0, 0), 100, 1 << 20).items[-2:]}
            assert kinds == {StatusReceived, HeartbeatReceived}

    asyncio.run(scenario())


def test_one_agent_that_floods_is_paused_while_others_flow_and_nothing_of_it_is_lost(house: Houses) -> None:
    """Backpressure stays on its own connection; pongs tell the paused agent that we live; nothing is lost or reordered,
    also not of what a single read brought too much.
    """
    limits = Limits(
        512 * 1024, ping_s=0.1, dead_s=2.0
    )  # more than LATE_S: a stall of this very machine is not held against anybody

    async def scenario() -> None:
        async with house(bounds=Bounds(host_items=8), limits=limits) as h:
            await h.hub.start("loud", "calm")
            loud, calm = await h.agent("loud"), await h.agent("calm")
            await h.until(lambda: not len(h.gate.outbox))
            h.memory.away = True
            loud.write(reports(40))
            await h.until(lambda: h.gate.roster.of_host("loud").socket.is_paused)
            received, pongs = h.gate.received, loud.pongs
            await h.until(
                lambda: loud.pongs >= pongs + 25
            )  # longer than dead_s: silence is not held against a paused agent
            calm.say("status", command_id="calm", status="ok")
            await h.until(lambda: h.gate.received > received)
            assert not h.gate.roster.of_host("calm").socket.is_paused
            assert h.gate.roster.of_host("loud").socket.is_paused
            assert h.pulse.pulse.blocked_on == "queues"
            h.memory.away = False
            await h.hub.event(StatusReceived, host="calm")
            await h.hub.event(StatusReceived, command_id="39")
            ids = [e.command_id for e in h.hub.seen if isinstance(e, StatusReceived)]
            assert ids == [str(number) for number in range(39)]
            await h.until(lambda: not h.gate.roster.of_host("loud").socket.is_paused)
            await h.until(lambda: h.pulse.pulse.blocked_on == "")

    asyncio.run(scenario())


def test_an_agent_that_floods_by_connecting_anew_is_refused_in_the_end(house: Houses) -> None:
    async def scenario() -> None:
        async with house(bounds=Bounds(host_items=4)) as h:
            await h.hub.start("loud")
            await h.until(lambda: h.gate.tokens.is_current)
            h.memory.away = True
            codes = []
            for _ in range(3):
                wire = await h.dial("loud")
                wire.register("loud")
                for number in range(8):
                    wire.say("status", command_id=str(number), status="ok")
                codes.append(await wire.ended() if h.gate.dropped else 0)
                await h.until(lambda: h.gate.dropped or h.gate.roster.of_host("loud") is not None)
                await wire.hang_up()
            assert h.gate.dropped >= 1
            assert len(h.gate.outbox) < 3 * 8

    asyncio.run(scenario())


def test_a_census_is_taken_at_the_start_and_at_every_new_epoch_of_hub_or_events(house: Houses) -> None:
    async def scenario() -> None:
        async with house() as h:
            assert await h.hub.census(1) == []
            await h.hub.start("web1", "web2")
            await h.agent("web1")
            await h.hub.census(2)
            h.hub.succeed(2)
            await h.hub.deliver(HubStarted(2))
            assert [c.host for c in await h.hub.census(3)] == ["web1"]
            await h.hub.deliver(HubStarted(2))
            wire = await h.agent("web2")
            assert h.gate.censuses == 3, "the same epoch again is no reason"
            h.memory.restart()
            wire.say("heartbeat")
            successor = HubSide(MemoryQueueLink(h.memory, "hub"), epoch=2)
            assert sorted(c.host for c in await successor.census()) == ["web1", "web2"]

    asyncio.run(scenario())


def test_a_new_epoch_of_events_alone_is_answered_by_a_census(house: Houses) -> None:
    """With several servers of queues, one may begin anew and the other not."""

    async def scenario() -> None:
        async with house() as h:
            await h.hub.start("web1")
            wire = await h.agent("web1")
            await h.until(lambda: not len(h.gate.outbox))
            censuses = h.gate.censuses
            h.memory.queues._queues[EVENTS] = BoundedQueue(EVENTS, 99, QueueLimits(1000, 1 << 20))
            wire.say("heartbeat")
            await h.until(lambda: h.gate.censuses == censuses + 1)
            assert [c.host for c in await h.hub.census(censuses + 1)] == ["web1"]
            assert h.gate.tokens.is_current, "nothing was lost of the deliveries"

    asyncio.run(scenario())


def test_a_gap_in_the_deliveries_makes_the_table_stale_and_is_answered_by_a_census(house: Houses) -> None:
    async def scenario() -> None:
        async with house() as h:
            await h.hub.start("web1")
            wire = await h.agent("web1")
            h.memory.restart()
            await h.until(lambda: not h.gate.tokens.is_current)
            assert h.gate.tokens.find(["Bearer web1"]) is None
            successor = HubSide(MemoryQueueLink(h.memory, "hub"), epoch=1)
            assert [c.connection for c in await successor.census()] == ["boot.1"]
            await successor.start("web1")
            await h.until(lambda: h.gate.tokens.is_current)
            wire.say("heartbeat")
            assert (await successor.event(HeartbeatReceived)).connection == "boot.1", "it was to stay connected"

    asyncio.run(scenario())


def test_deliveries_of_an_older_hub_are_dropped(house: Houses) -> None:
    async def scenario() -> None:
        async with house() as h:
            h.hub.succeed(5)
            await h.hub.start("web1")
            wire = await h.agent("web1")
            await h.hub.deliver(messages.CloseConnection(4, "boot.1", 4409), messages.DeliverKill(5, "boot.1", "c1"))
            assert (await wire.hear("kill_command"))["command_id"] == "c1"
            assert h.gate.dropped == 1
            assert h.pulse.pulse.epoch == 5

    asyncio.run(scenario())


def test_while_the_token_table_is_missing_the_census_is_sent_again(house: Houses) -> None:
    """The census that asked for it may be lost without a trace, before the gateway ever heard of the queue it was
    in.
    """

    async def scenario() -> None:
        async with house(table_s_max=0.1) as h:
            for number in (1, 2, 3):
                await h.hub.census(number)
            await h.hub.start()
            await h.until(lambda: h.gate.tokens.is_current)

    asyncio.run(scenario())


def test_presence_that_piles_up_while_queues_is_away_becomes_one_census(house: Houses) -> None:
    async def scenario() -> None:
        async with house(bounds=Bounds(presence_items=10)) as h:
            await h.hub.start("web1", "web2")
            await h.agent("web2")
            assert (await h.hub.census(1), len(await h.hub.census(2))) == ([], 0)
            h.memory.away = True
            for _ in range(10):
                wire = await h.dial("web1")
                wire.register("web1")
                await h.until(lambda: h.gate.roster.of_host("web1") is not None)
                await wire.hang_up()
                await h.until(lambda: h.gate.roster.of_host("web1") is None)
            assert len(h.gate.outbox) <= 12
            h.memory.away = False
            connected = {c.connection for c in await h.hub.census(3)}
            await h.until(lambda: not len(h.gate.outbox))
            await h.hub.read()
            gone = {e.connection for e in h.hub.seen if isinstance(e, AgentDisconnected)}
            assert connected - gone == {"boot.1"}
            assert len([e for e in h.hub.seen if isinstance(e, AgentRegistered)]) <= 6, "the census says it all"

    asyncio.run(scenario())


def test_what_a_paused_agent_said_before_its_end_goes_before_the_disconnect(house: Houses) -> None:
    async def scenario() -> None:
        async with house(bounds=Bounds(host_items=8)) as h:
            await h.hub.start("loud")
            loud = await h.agent("loud")
            await h.until(lambda: not len(h.gate.outbox))
            h.memory.away = True
            loud.write(reports(14))
            await h.until(lambda: h.gate.roster.of_host("loud").socket.is_paused)
            h.gate.end(h.gate.roster.of_host("loud").socket, 1001, "the test says so")
            h.memory.away = False
            await h.hub.event(AgentDisconnected, host="loud")
            ids = [e.command_id for e in h.hub.seen if isinstance(e, StatusReceived)]
            assert ids == [str(number) for number in range(14)]

    asyncio.run(scenario())
