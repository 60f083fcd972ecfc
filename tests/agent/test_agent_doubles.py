"""The NixFleet double behaves as the real agent was recorded, against a plain server that says what it likes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
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
        assert [frame["type"] for frame in told] == [
            "operation_progress",
            "output",
            "operation_progress",
            "status",
            "heartbeat",
        ]
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


@pytest.mark.parametrize("stopped_last", [False, True])
def test_nixfleet_stop_sends_two_statuses_for_what_ran_in_either_order(stopped_last: bool) -> None:
    async def claim(hub: HubWire, agent: NixFleet) -> None:
        agent.stopped_last = stopped_last
        agent.scripts["pull"] = Script(waits=True)
        await hub.send("command", command="pull", command_id="c1")
        await agent.until(lambda: agent.executed, "its start")
        await hub.send("command", command="stop", command_id="c2")
        await hub.until(lambda: len(hub.of("status")) == 2, "both statuses")
        told = [("stopped", 130), ("error", -1)]
        wanted = told[::-1] if stopped_last else told
        assert [(status["status"], status["exit_code"]) for status in hub.of("status")] == wanted
        assert {status["command"] for status in hub.of("status")} == {"pull"}

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
        await hub.until(
            lambda: len(hub.of("heartbeat")) > 3 and hub.of("heartbeat")[-1]["pending_command"] is None, "it is idle"
        )
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


def test_nixfleet_dials_with_its_token_alone_and_goes_with_1000_at_sigterm() -> None:
    async def claim(hub: HubWire, agent: NixFleet) -> None:
        names = {name.lower() for name in hub.headers[0]}
        assert hub.headers[0]["Authorization"] == f"Bearer {TOKEN}"
        assert not names & {"origin", "sec-websocket-protocol", "sec-websocket-extensions", "user-agent"}
        await agent.terminate()
        await hub.until(lambda: hub.close_codes, "the close")
        assert (agent.exit_code, hub.close_codes) == (0, [1000])

    play(claim)


def test_nixfleet_registers_with_these_fields_and_says_nothing_of_what_runs() -> None:
    async def claim(hub: HubWire, agent: NixFleet) -> None:
        fields = (
            "hostname host_type agent_version os_version nixpkgs_version generation theme_color heartbeat_interval location device_type "
            "repo_url repo_dir source_commit store_path binary_hash"
        )
        assert list(await hub.registered()) == fields.split()
        beat = await hub.first("heartbeat")
        fields = "generation nixpkgs_version pending_command command_pid metrics update_status source_commit store_path binary_hash lock_hash"
        assert list(beat) == fields.split()
        agent.metrics = None
        await hub.until(lambda: hub.of("heartbeat")[-1]["metrics"] is None, "a heartbeat without metrics")

    play(claim)


def test_nixfleet_ignores_what_it_does_not_know_and_keeps_the_connection() -> None:
    async def claim(hub: HubWire, agent: NixFleet) -> None:
        assert hub.live is not None
        for text in (
            "not json",
            "[1]",
            '{"type": "ack", "payload": {"command_id": "c"}}',
            '{"type": "news", "payload": {"a": 1}, "b": 2}',
        ):
            await hub.live.send(text)
        await hub.send("command", command="dance", command_id="c1", more=1)
        status = await hub.first("status")
        assert (status["status"], status["exit_code"], status["message"]) == ("error", 1, "unknown command")
        assert (agent.connections, agent.executed) == (1, [])

    play(claim)


def test_nixfleet_drops_what_comes_beyond_100_waiting_messages() -> None:
    async def claim(hub: HubWire, agent: NixFleet) -> None:
        agent.acts.clear()
        for _ in range(150):
            await hub.send("command", command="dance", command_id="c")
        await agent.until(lambda: agent.dropped, "the first that is dropped")
        await agent.until(lambda: len(agent.received) == 151, "all of them")
        agent.acts.set()
        await hub.until(lambda: len(hub.of("status")) >= 100, "the answers to those that waited")
        assert 150 - agent.dropped == len(hub.of("status")) <= 101  # one was taken before it became busy

    play(claim)


@pytest.mark.parametrize(("dies", "end"), [(False, [("error", -1)]), (True, [])])
def test_nixfleet_kill_signals_the_child_and_may_take_the_agent_with_it(dies: bool, end: list[tuple[str, int]]) -> None:
    async def claim(hub: HubWire, agent: NixFleet) -> None:
        agent.dies_with_child = dies
        agent.scripts["pull"] = Script(waits=True)
        await hub.send("command", command="pull", command_id="c1")
        await agent.until(lambda: agent.executed, "its start")
        await hub.send("kill_command", signal="SIGTERM", pid=0)
        if dies:
            await hub.until(lambda: hub.close_codes, "the connection's end")
            assert agent.exit_code == -15
        else:
            await hub.first("status")
        assert [(status["status"], status["exit_code"]) for status in hub.of("status")] == end

    play(claim)


def test_nixfleet_may_warn() -> None:
    async def claim(hub: HubWire, agent: NixFleet) -> None:
        agent.scripts["test"] = Script(status="warning")
        await hub.send("command", command="test", command_id="c1")
        status = await hub.first("status")
        assert (status["status"], status["exit_code"]) == ("warning", 0)

    play(claim)


@pytest.mark.parametrize(("op", "lines", "codes"), [("restart", 0, [1000]), ("reboot", 1, [1006])])
def test_nixfleet_restart_and_reboot_end_without_a_status(op: str, lines: int, codes: list[int]) -> None:
    async def claim(hub: HubWire, agent: NixFleet) -> None:
        await hub.send("command", command=op, command_id="c1")
        await hub.until(lambda: hub.close_codes, "the end")
        assert (hub.close_codes, agent.exit_code, len(hub.of("output")), hub.of("status")) == (codes, 0, lines, [])

    play(claim)


def test_nixfleet_comes_back_after_waits_that_double_and_begins_anew_once_it_was_let_in() -> None:
    async def scene() -> None:
        async with HubWire() as hub:
            hub.refuses = 503
            async with NixFleet(hub.url, TOKEN, first_retry_s=0.01) as agent:
                await agent.until(lambda: len(agent.refusals) == 5, "five refusals")
                hub.refuses = None
                await agent.registered()
                agent.break_connection()
                await agent.until(lambda: agent.connections == 2, "its return")
                assert agent.waits_s[:5] == [0.01, 0.02, 0.04, 0.08, 0.16]
                assert agent.waits_s[5:] == [0.01]

    asyncio.run(scene())
