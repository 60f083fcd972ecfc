"""The NixFleet double behaves as the real agent was recorded, against a plain server that says what it likes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

from doubles.hub_wire import TOKEN, HubWire
from doubles.nixfleet import NixFleet, Script
from websockets.asyncio.server import serve

Claim = Callable[[HubWire, NixFleet], Coroutine[Any, Any, None]]


def play(claim: Claim, **more: Any) -> None:
    async def scene() -> None:
        async with HubWire() as hub:
            hub.acknowledges_output = hub.acknowledges_reports = False
            async with NixFleet(hub.url, TOKEN, interval_s=0.1, first_retry_s=0.05, **more) as agent:
                await agent.registered()
                await claim(hub, agent)

    asyncio.run(scene())


def kinds(agent: NixFleet) -> list[str]:
    return [frame["type"] for frame in agent.sent]


def test_nixfleet_command_ends_with_a_heartbeat_that_still_names_it() -> None:
    async def claim(hub: HubWire, agent: NixFleet) -> None:
        agent.interval_s = 60
        await hub.first("heartbeat")
        await asyncio.wait_for(agent.until(lambda: "heartbeat" in kinds(agent)), 5)
        agent.sent.clear()
        await hub.send("command", command="pull", command_id="c1")
        await agent.until(lambda: "heartbeat" in kinds(agent)[1:], "the heartbeat after its status")
        told = [frame for frame in agent.sent if frame["type"] != "heartbeat" or frame["payload"]["pending_command"]]
        assert [frame["type"] for frame in told] == ["operation_progress", "output", "operation_progress", "status", "heartbeat"]
        assert told[-1]["payload"]["pending_command"] == "pull"
        assert all("command_id" not in frame["payload"] for frame in told)
        assert told[1]["payload"] == {"line": "one line", "stream": "stdout", "command": "", "is_error": False}

    play(claim)


def test_nixfleet_rejects_a_second_command_without_an_id() -> None:
    async def claim(hub: HubWire, agent: NixFleet) -> None:
        agent.scripts["pull"] = Script(waits=True)
        await hub.send("command", command="pull", command_id="c1")
        await hub.send("command", command="test", command_id="c2")
        rejected = await hub.first("command_rejected")
        assert rejected == {"reason": "command already running", "current_command": "pull", "current_pid": 14907}
        assert agent.executed == ["pull"]

    play(claim)


def test_nixfleet_stop_sends_two_statuses_for_what_ran() -> None:
    async def claim(hub: HubWire, agent: NixFleet) -> None:
        agent.scripts["pull"] = Script(waits=True)
        await hub.send("command", command="pull", command_id="c1")
        await agent.until(lambda: agent.executed, "its start")
        await hub.send("command", command="stop", command_id="c2")
        await hub.until(lambda: len(hub.of("status")) == 2, "both statuses")
        assert sorted((status["status"], status["exit_code"]) for status in hub.of("status")) == [("error", -1), ("stopped", 130)]

    play(claim)


def test_nixfleet_loses_the_status_of_a_command_that_ends_while_it_is_cut_off() -> None:
    async def claim(hub: HubWire, agent: NixFleet) -> None:
        agent.scripts["pull"] = script = Script(waits=True)
        await hub.send("command", command="pull", command_id="c1")
        await agent.until(lambda: agent.executed, "its start")
        agent.break_connection()
        script.go.set()
        await agent.until(lambda: agent.connections == 2, "its return")
        await agent.registered()
        await hub.until(lambda: len(hub.of("heartbeat")) > 3 and hub.of("heartbeat")[-1]["pending_command"] is None, "it is idle")
        assert hub.of("status") == []

    play(claim)


def test_nixfleet_switch_reports_then_closes_1000_and_exits_101() -> None:
    async def claim(hub: HubWire, agent: NixFleet) -> None:
        await hub.send("command", command="switch", command_id="c1")
        await agent.until(lambda: agent.exit_code is not None, "its exit")
        await hub.until(lambda: hub.close_codes, "the close")
        assert (agent.exit_code, hub.close_codes) == (101, [1000])
        assert hub.of("status")[0]["status"] == "ok"

    play(claim)


def test_nixfleet_is_silent_until_registered_and_drops_a_server_that_is_mute() -> None:
    async def scene() -> None:
        async with HubWire() as hub:
            hub.registers = False
            async with NixFleet(hub.url, TOKEN, interval_s=0.02, ping_s=60, mute_s=0.3, first_retry_s=0.05) as agent:
                await agent.until(lambda: agent.connections == 2, "its second try")
                assert set(kinds(agent)) == {"register"}

    asyncio.run(scene())


def test_nixfleet_answers_pings_with_empty_pongs() -> None:
    async def scene() -> None:
        seen: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        async def matching(connection: Any) -> None:
            await connection.recv()
            pong = await connection.ping(b"payload")
            await connection.send('{"type": "registered", "payload": {}}')
            await connection.recv()  # a heartbeat: the pong came before it
            seen.set_result(pong.done())
            with contextlib.suppress(Exception):
                await connection.wait_closed()

        async with serve(matching, "127.0.0.1", 0, ping_interval=None) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            async with NixFleet(f"ws://127.0.0.1:{port}/ws", TOKEN) as agent:
                assert await asyncio.wait_for(seen, 10) is False
                assert agent.pings == 1

    asyncio.run(scene())


def test_nixfleet_retries_401_for_ever() -> None:
    async def scene() -> None:
        async with HubWire(token="another") as hub, NixFleet(hub.url, TOKEN, first_retry_s=0.01) as agent:
            await agent.until(lambda: agent.refusals.count(401) >= 3, "three refusals")

    asyncio.run(scene())
