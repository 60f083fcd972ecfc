"""A NixFleet agent, unchanged, on a whole installation: what it says without ids is understood, and nothing it does is
guessed.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from doubles.house import House, Operator
from doubles.nixfleet import NixFleet, Script

pytestmark = pytest.mark.house


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """One installation for all."""
    with House() as house:
        yield house


@asynccontextmanager
async def nixos(house: House, name: str) -> AsyncIterator[tuple[NixFleet, Operator]]:
    """An enrolled NixFleet agent that beats every half second, and an operator."""
    token = house.enroll(name)
    async with (
        Operator(house) as operator,
        NixFleet(f"ws://{house.agents}/ws", token, hostname=name, interval_s=0.5, ping_s=1, first_retry_s=0.2) as agent,
    ):
        await agent.registered()
        await operator.until(lambda: operator.hosts.get(name, {}).get("presence") == "online")
        yield agent, operator


async def ended(operator: Operator, command_id: str) -> tuple[Any, Any]:
    command = await operator.ended(command_id)
    return command["state"], command["reason"]


async def output(operator: Operator, command_id: str) -> list[str]:
    page = (await operator.http.get(f"/api/v1/commands/{command_id}/output")).json()
    return [record["data"] for record in page["records"]]


def test_its_commands_run_with_output_and_its_facts_are_shown(house: House) -> None:
    async def work() -> None:
        async with nixos(house, "nix1") as (agent, operator):
            agent.scripts["pull"] = Script(("first", "second"))
            agent.scripts["test"] = Script(("broken",), exit_code=7)
            (pull,) = await operator.give("pull", "nix1")
            assert await ended(operator, pull) == ("succeeded", "")
            assert await output(operator, pull) == ["first", "second"]
            (test,) = await operator.give("test", "nix1")
            assert (await ended(operator, test))[0] == "failed"
            assert (await operator.command(test))["exit_code"] == 7
            assert operator.hosts["nix1"]["heartbeat_facts"]["lock_hash"] == "4754"
            answer = await operator.http.post("/api/v1/commands", json={"op": "uptime", "hosts": ["nix1"]})
            assert answer.status_code == 422, "it offers NixFleet's own list"
            assert agent.executed == ["pull", "test"]

    asyncio.run(work())


def test_the_hub_killed_in_mid_command_costs_it_nothing(house: House) -> None:
    """It stays connected, its pings are answered meanwhile, and its one report arrives."""

    async def work() -> None:
        async with nixos(house, "nix2") as (agent, operator):
            agent.scripts["pull"] = script = Script(("begun",), waits=True)
            (pull,) = await operator.give("pull", "nix2")
            await agent.until(lambda: agent.executed == ["pull"])
            os.kill(house.pulse("hub").pid, signal.SIGKILL)
            script.go.set()
            assert await ended(operator, pull) == ("succeeded", "")
            await operator.healthy()
            assert (agent.connections, agent.executed) == (1, ["pull"])

    asyncio.run(work())


def test_a_switch_that_replaces_the_agent_succeeds_by_its_status(house: House) -> None:
    async def work() -> None:
        async with nixos(house, "nix3") as (agent, operator):
            (switch,) = await operator.give("switch", "nix3")
            assert await ended(operator, switch) == ("succeeded", "")
            await agent.until(lambda: agent.exit_code == 101)

    asyncio.run(work())


@pytest.mark.parametrize(
    ("generation", "end"), [("new", ("succeeded", "changed_evidence")), ("917d168", ("lost", "connection_lost"))]
)
def test_a_switch_whose_status_was_lost_is_judged_by_evidence_only(
    house: House, generation: str, end: tuple[str, str]
) -> None:
    async def work() -> None:
        name = f"nix4{generation}"
        async with nixos(house, name) as (agent, operator):
            agent.scripts["switch"] = Script((), waits=True)
            (switch,) = await operator.give("switch", name)
            await agent.until(lambda: agent.executed == ["switch"])
            await agent.die()  # in the middle of it: no status will ever come
            await operator.until(lambda: operator.hosts[name]["presence"] == "offline")
            await operator.until(lambda: operator.commands[switch]["unheard_since"])  # not known is not guessed
            assert (await operator.command(switch))["state"] == "running"
            agent.generation = generation
            agent.start()
            assert await ended(operator, switch) == end
            assert "generation 917d168" in (await operator.command(switch))["message"]

    asyncio.run(work())


def test_a_command_whose_connection_broke_is_lost_unless_the_agent_still_names_it(house: House) -> None:
    async def work() -> None:
        async with nixos(house, "nix5") as (agent, operator):
            agent.scripts["pull"] = script = Script((), waits=True)
            (pull,) = await operator.give("pull", "nix5")
            await agent.until(lambda: agent.executed == ["pull"])
            agent.break_connection()
            await agent.until(lambda: agent.connections == 2)
            await operator.until(
                lambda: operator.commands[pull]["state"] == "running" and not operator.commands[pull]["unheard_since"]
            )
            script.go.set()
            assert await ended(operator, pull) == ("succeeded", "")
            (reboot,) = await operator.give("reboot", "nix5")
            await agent.until(lambda: agent.exit_code is not None)
            agent.start()
            assert await ended(operator, reboot) == ("lost", "connection_lost")
            assert agent.executed == ["pull", "reboot"], "never twice"

    asyncio.run(work())


def test_a_stop_ends_the_running_command_and_both_are_told_truly(house: House) -> None:
    async def work() -> None:
        async with nixos(house, "nix6") as (agent, operator):
            agent.scripts["update"] = Script((), waits=True)
            (update,) = await operator.give("update", "nix6")
            await agent.until(lambda: agent.executed == ["update"])
            (stop,) = await operator.give("stop", "nix6")
            assert await ended(operator, update) == ("cancelled", "stopped")
            assert await ended(operator, stop) == ("succeeded", "")
            (idle,) = await operator.give("stop", "nix6")
            assert (await ended(operator, idle))[0] == "failed", "there was nothing to stop"

    asyncio.run(work())
