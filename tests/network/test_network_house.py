"""A whole installation behind a bad network: agents, operators and the command line meet every fault of it.

Nothing that was acknowledged is lost, nothing is run twice, everybody comes back, and nobody waits past the deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import websockets
from doubles.agent_keeper import Keeper
from doubles.bad_network import BadNetwork, Side, Way
from doubles.deadline import WAIT_S
from doubles.house import House, Operator
from doubles.nixfleet import NixFleet, Script

pytestmark = [pytest.mark.house, pytest.mark.timeout(300)]

HOST = "far"
HOSTS = (HOST, "far2", "far3", "far4")  # each meets a share of the faults, so that their waits are waited for at once
FOREIGN = ("nix1", "nix2", "nix3", "nix4")
BACK_S = 60.0  # far more than is promised, for a busy machine
LASTS_S = 1.5  # a fault
ANSWER_S = 12.0 + 2.0  # the command line's deadline of one request
READ_AGAIN_S = 5.0
ASK_AGAIN_S = 15.0

Spoil = Callable[[BadNetwork], None]
FAULTS: dict[str, Spoil] = {
    "delay": lambda network: network.delay(0.3, 0.3),
    "slow down": lambda network: network.slow(400.0, Way.DOWN),
    "slow up": lambda network: network.slow(400.0, Way.UP),
    "stall": lambda network: network.stall(),
    "stall one way": lambda network: network.stall(Way.DOWN),
    "lose up": lambda network: network.lose(Way.UP),
    "lose down": lambda network: network.lose(Way.DOWN),
    "blackhole": lambda network: network.blackhole(),
    "cut": lambda network: network.cut(),
    "cut in a frame, up": lambda network: network.cut_after(70, Way.UP),
    "cut in a frame, down": lambda network: network.cut_after(70, Way.DOWN),
    "half-open, client gone": lambda network: network.half_open(Side.CLIENT),
    "half-open, server gone": lambda network: network.half_open(Side.SERVER),
    "duplicate": lambda network: network.duplicate(0.3),
    "reorder": lambda network: network.reorder(0.3),
    "refuse": lambda network: network.refuse(),
}


class Stage(NamedTuple):
    """The house, and who looks on from beside it."""

    house: House
    operator: Operator

    def agents(self, seed: int = 3) -> BadNetwork:
        """A network to the agents' port."""
        return BadNetwork("127.0.0.1", int(self.house.agents.rpartition(":")[2]), seed=seed)

    def operators(self, seed: int = 4) -> BadNetwork:
        """A network to the operators' port."""
        return BadNetwork("127.0.0.1", int(self.house.operators.rpartition(":")[2]), seed=seed)

    def cli(self, network: BadNetwork, *words: str) -> tuple[Any, float]:
        """A verb through a bad network, and how long it took."""
        there = ("--hub", url(network), "--token-file", str(self.house.state / "operator.token"))
        begun_s = time.monotonic()
        done = self.house.cli(*words, *there)
        assert "should not happen" not in done.stderr, done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done, time.monotonic() - begun_s


def url(network: BadNetwork) -> str:
    """Of the operators' port, through the bad network."""
    return f"http://127.0.0.1:{network.port}"


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """One installation for all, with hosts whose commands leave a mark."""
    with House() as house:
        (house.state / "marks").touch()
        for name in HOSTS:
            house.host(name, {"mark": ["sh", "-c", f"echo $FLEETHUB_COMMAND_ID >> {house.state}/marks; echo done"]})
        yield house


def on_stage(house: House, tell: Callable[[Stage], Coroutine[Any, Any, None]]) -> None:
    async def told() -> None:
        async with Operator(house) as operator:
            await tell(Stage(house, operator))

    asyncio.run(told())


async def at_once(*scenes: Coroutine[Any, Any, None]) -> None:
    """Plays all scenes at once; the first that fails ends the others."""
    async with asyncio.TaskGroup() as group:
        for scene in scenes:
            group.create_task(scene)


@contextlib.asynccontextmanager
async def far_agent(stage: Stage, name: str = HOST, seed: int = 3) -> AsyncIterator[BadNetwork]:
    """The real agent of a host, online behind the bad network that this gives. It may not end."""
    folder: Path = stage.house.state / f"host-{name}"
    async with stage.agents(seed) as network:
        lines = (folder / "agent.toml").read_text().splitlines()
        lines[0] = f'hub = "ws://127.0.0.1:{network.port}/ws"'
        (folder / "agent.toml").write_text("\n".join(lines))
        async with Keeper(stage.house, folder) as keeper:
            await stage.operator.until(lambda: online(stage, name), BACK_S)
            yield network
            assert keeper.ends == []


def online(stage: Stage, name: str) -> bool:
    return bool(stage.operator.hosts.get(name, {}).get("presence") == "online")


def marks(house: House) -> list[str]:
    return (house.state / "marks").read_text().split()


def test_an_agent_behind_every_fault_loses_no_command_runs_none_twice_and_comes_back(house: House) -> None:
    """One fault after the other on each of the hosts."""

    async def tell(stage: Stage) -> None:
        async def meet(host: str, share: int) -> None:
            async with far_agent(stage, host, share) as network:
                given: list[str] = []
                for name in list(FAULTS)[share :: len(HOSTS)]:
                    given += await stage.operator.give("mark", host)
                    FAULTS[name](network)
                    given += await stage.operator.give("mark", host)
                    await asyncio.sleep(LASTS_S)
                    await network.heal()
                    (last,) = await stage.operator.give("mark", host)
                    given.append(last)
                    command = await stage.operator.ended(last, BACK_S)
                    assert command["state"] == "succeeded", f"after {name}: {command}{house.logs()}"
                    await stage.operator.until(lambda: online(stage, host), BACK_S)
                for command_id in given:
                    command = await stage.operator.ended(command_id, BACK_S)
                    assert (command["state"], marks(house).count(command_id)) == ("succeeded", 1), command
                    page = (await stage.operator.http.get(f"/api/v1/commands/{command_id}/output")).json()
                    assert ([record["data"] for record in page["records"]], page["complete"]) == (["done"], True)

        await at_once(*(meet(host, share) for share, host in enumerate(HOSTS)))

    on_stage(house, tell)


def test_a_foreign_agent_behind_every_fault_runs_nothing_twice_and_every_command_ends(house: House) -> None:
    """It keeps no journal: what it was sent and nobody heard of is lost, and never guessed or sent again."""
    tokens = {name: house.enroll(name) for name in FOREIGN}
    quick = {"interval_s": 0.5, "ping_s": 1.0, "mute_s": 5.0, "first_retry_s": 0.2}

    async def tell(stage: Stage) -> None:
        async def meet(host: str, share: int) -> None:
            async with (
                stage.agents(share) as network,
                NixFleet(f"ws://127.0.0.1:{network.port}/ws", tokens[host], hostname=host, **quick) as agent,
            ):
                agent.scripts["pull"] = Script(("line",))
                await agent.registered()
                await stage.operator.until(lambda: online(stage, host), BACK_S)
                states = []
                for spoil in list(FAULTS.values())[share :: len(FOREIGN)]:
                    (during,) = await stage.operator.give("pull", host)
                    spoil(network)
                    await asyncio.sleep(LASTS_S)
                    await network.heal()
                    states.append((await stage.operator.ended(during, BACK_S))["state"])
                    await stage.operator.until(lambda: online(stage, host), BACK_S)
                (after,) = await stage.operator.give("pull", host)
                assert (await stage.operator.ended(after, BACK_S))["state"] == "succeeded"
                assert set(states) <= {"succeeded", "lost", "rejected"}, states
                assert states.count("succeeded") + 1 <= len(agent.executed) <= len(states) + 1

        await at_once(*(meet(host, share) for share, host in enumerate(FOREIGN)))

    on_stage(house, tell)


def test_a_verb_that_nobody_answers_ends_in_time_and_says_so(house: House) -> None:
    """Of a request that is not answered, and of one that nobody takes; bin/hostile has all faults."""

    async def tell(stage: Stage) -> None:
        async def meet(name: str) -> None:
            async with stage.operators() as network:
                FAULTS[name](network)
                done, took_s = await asyncio.to_thread(stage.cli, network, "hosts")
                assert done.returncode == 1, done.stderr
                # to a request that was lost on its way the hub says so
                words = (f"{url(network)} does not answer", "no request within")
                assert any(each in done.stderr for each in words), (name, done.stderr)
                assert took_s < READ_AGAIN_S + ANSWER_S + WAIT_S

        await at_once(*(meet(name) for name in ("stall", "lose down")))

    on_stage(house, tell)


def test_a_run_that_nobody_answers_exits_5_with_its_key_and_with_that_key_it_is_begun_once(house: House) -> None:
    """The answer alone is lost: the hub has accepted the run, and the same key finds it."""

    async def tell(stage: Stage) -> None:
        async with far_agent(stage), stage.operators() as network:
            before = len(marks(house))
            network.lose(Way.DOWN)
            key = f"key-{time.monotonic_ns()}"
            done, took_s = await asyncio.to_thread(stage.cli, network, "run", "mark", HOST, "--key", key)
            assert (done.returncode, f"--key {key}" in done.stderr) == (5, True), done.stderr
            assert took_s < ASK_AGAIN_S + WAIT_S
            await network.heal()
            done, _ = await asyncio.to_thread(stage.cli, network, "run", "mark", HOST, "--key", key, "--wait", "60")
            assert done.returncode == 0, done.stderr
            assert len(marks(house)) == before + 1

    on_stage(house, tell)


def test_a_run_is_followed_through_a_fault_to_its_end(house: House) -> None:
    """One of each kind; bin/hostile has them all, and the streams that are corrupted too."""

    async def tell(stage: Stage) -> None:
        async def meet(name: str) -> None:
            async with stage.operators() as network:
                words = ("run", "mark", HOST, "--wait", "60")
                running = asyncio.create_task(asyncio.to_thread(stage.cli, network, *words))
                while not network.accepted:
                    await asyncio.sleep(0.01)
                FAULTS[name](network)
                await asyncio.sleep(LASTS_S)
                await network.heal()
                done, _ = await running
                assert (done.returncode, f"{HOST} | done" in done.stdout) == (0, True), (name, done.stderr)

        kinds = ("stall", "lose down", "cut in a frame, down", "half-open, server gone", "refuse")
        async with far_agent(stage):
            await at_once(*(meet(name) for name in kinds))

    on_stage(house, tell)


def test_an_operators_page_behind_a_fault_of_each_kind_sees_no_gap_and_comes_back_to_the_truth(house: House) -> None:
    token = (house.state / "operator.token").read_text().strip()

    async def look(network: BadNetwork, corrupted: bool) -> set[str]:
        """The hosts of a full state, heard through the bad network by connecting again and again."""
        async with asyncio.timeout(BACK_S):
            while True:
                with contextlib.suppress(OSError, TimeoutError, websockets.WebSocketException, ValueError, KeyError):
                    async with websockets.connect(
                        f"ws{url(network).removeprefix('http')}/ws", proxy=None, open_timeout=3, close_timeout=1,
                        additional_headers={"Authorization": f"Bearer {token}"}, max_size=None,
                    ) as socket:  # fmt: skip
                        frame = json.loads(await asyncio.wait_for(socket.recv(), 3))
                        version = frame["version"]
                        while (follows := json.loads(await asyncio.wait_for(socket.recv(), 8)))["type"] != "sync":
                            version += 1
                            assert follows["version"] == version or corrupted, "a gap that nobody told of"
                        return {row["name"] for row in frame["state"]["hosts"]}
                await asyncio.sleep(0.1)

    async def tell(stage: Stage) -> None:
        async def meet(name: str) -> None:
            async with stage.operators() as network:
                FAULTS[name](network)
                looking = asyncio.create_task(look(network, name in ("duplicate", "reorder")))
                await asyncio.sleep(LASTS_S)
                await network.heal()
                assert HOST in await looking, name

        kinds = ("slow down", "stall one way", "cut in a frame, down", "half-open, client gone", "reorder", "refuse")
        await at_once(*(meet(name) for name in kinds))
        answer = await stage.operator.http.get("/healthz")
        assert answer.status_code == 200

    on_stage(house, tell)


def test_fifty_slow_readers_cost_nobody_else_anything(house: House) -> None:
    """Operators who read a byte at a time, with a token of their own: whoever asks beside them is answered at once."""
    token = house.json("token", "create", "--role", "viewer", "--label", "slow")["token"]

    async def tell(stage: Stage) -> None:
        async with stage.operators() as network:
            network.slow(50.0, Way.DOWN)
            head = f"GET /api/v1/hosts HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
            writers = []
            for _ in range(50):
                _, writer = await asyncio.open_connection("127.0.0.1", network.port)
                writer.write(head * 20)
                writers.append(writer)
            try:
                for _ in range(5):
                    begun_s = time.monotonic()
                    assert (await stage.operator.http.get("/api/v1/hosts")).status_code == 200
                    assert time.monotonic() - begun_s < BACK_S / 10
            finally:
                for writer in writers:
                    writer.transport.abort()
                await asyncio.sleep(0.05)

    on_stage(house, tell)
