"""The generator of bin/bench: what it counts is what was sent and what was shown, held against a hub that is played."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from doubles.deadline import WAIT_S
from websockets.asyncio.server import ServerConnection, serve

from bench.load import Load

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="the generator needs a C compiler")


class PlayedHub:
    """Both ports of a hub: keeps what agents send, and shows subscribers what a test says."""

    def __init__(self, shown: Callable[[str, dict[str, Any]], list[dict[str, Any]]]) -> None:
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.tokens: set[str] = set()
        self._shown = shown
        self._watching: set[ServerConnection] = set()

    async def agents(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        self.tokens.add(socket.request.headers["Authorization"])
        name = ""
        async for text in socket:
            frame = json.loads(text)
            if frame["type"] == "register":
                name = frame["payload"]["hostname"]
                await socket.send('{"type":"registered","payload":{}}')
            elif frame["type"] == "heartbeat":
                metrics = frame["payload"]["metrics"]
                self.heard.append((name, metrics))
                for changed in self._shown(name, metrics):
                    for watching in self._watching:
                        delta = {"type": "delta", "changes": [changed]}
                        await watching.send(json.dumps(delta, separators=(",", ":")))

    async def operators(self, socket: ServerConnection) -> None:
        await socket.send('{"type":"full_state","state":{"hosts":[]}}')
        self._watching.add(socket)
        await socket.wait_closed()
        self._watching.discard(socket)


@contextlib.asynccontextmanager
async def playing(hub: PlayedHub, tmp_path: Path, agents: int) -> AsyncIterator[tuple[Load, Load]]:
    """The agents and one subscriber, connected to the played hub."""
    tokens = tmp_path / "tokens"
    tokens.write_text("".join(f"token{number}\n" for number in range(agents)))
    async with serve(hub.agents, "127.0.0.1", 0) as inner, serve(hub.operators, "127.0.0.1", 0) as outer:
        ports = [next(iter(server.sockets)).getsockname()[1] for server in (inner, outer)]
        async with (
            Load("watch", ports[1], tokens, 1) as watching,
            Load("agents", ports[0], tokens, agents) as sending,
            asyncio.timeout(WAIT_S),
        ):
            yield sending, watching


def changed(name: str, metrics: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "host", "id": name, "fields": {"presence": "online", "metrics": metrics}}


async def counted(hub: PlayedHub, tmp_path: Path, agents: int = 3) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was sent in a moment and what was seen of it, once the hub has heard all of it."""
    async with playing(hub, tmp_path, agents) as (sending, watching):
        await watching.ask("begin")
        sent = await sending.ask("send 100 0.3", 0.3)
        while len(hub.heard) < sent["sent"]:
            await asyncio.sleep(0.01)
        while (seen := await watching.ask("end"))["frames"] < watching_frames(hub):
            await asyncio.sleep(0.01)
    return sent, seen


def watching_frames(hub: PlayedHub) -> int:
    return sum(len(hub._shown(*each)) for each in hub.heard)


def test_each_heartbeat_that_is_shown_is_counted_once(tmp_path: Path) -> None:
    hub = PlayedHub(lambda name, metrics: [changed(name, metrics), changed(name, metrics)])
    sent, seen = asyncio.run(counted(hub, tmp_path))
    assert sent["due"] == 30
    assert (seen["shown"], seen["conflated"], seen["backwards"]) == (sent["sent"], 0, 0)
    assert hub.tokens == {f"Bearer token{number}" for number in range(3)}
    assert {name for name, _ in hub.heard} == {"bench0", "bench1", "bench2"}


def test_a_heartbeat_that_was_passed_over_is_conflated_and_not_shown(tmp_path: Path) -> None:
    hub = PlayedHub(lambda name, metrics: [changed(name, metrics)] if metrics["load"] % 2 else [])
    sent, seen = asyncio.run(counted(hub, tmp_path, agents=1))
    odd = (sent["sent"] + 1) // 2
    assert (seen["shown"], seen["conflated"]) == (odd, odd - 1)


def test_an_older_value_after_a_newer_one_goes_backwards(tmp_path: Path) -> None:
    first: dict[str, dict[str, Any]] = {}

    def shown(name: str, metrics: dict[str, Any]) -> list[dict[str, Any]]:
        old = first.setdefault(name, metrics)
        return [changed(name, metrics), changed(name, old)]

    sent, seen = asyncio.run(counted(PlayedHub(shown), tmp_path))
    assert (seen["shown"], seen["backwards"]) == (sent["sent"], sent["sent"] - 3)


def test_a_generator_that_had_no_cpu_counts_all_that_was_due(tmp_path: Path) -> None:
    hub = PlayedHub(lambda *_: [])

    async def stopped() -> dict[str, Any]:
        async with playing(hub, tmp_path, 3) as (sending, _):
            told = asyncio.create_task(sending.ask("send 100 0.3", 0.3))
            while not hub.heard:
                await asyncio.sleep(0.001)
            os.kill(sending.pid, signal.SIGSTOP)
            await asyncio.sleep(0.4)  # until the time is over for which it was to send
            os.kill(sending.pid, signal.SIGCONT)
            return await told

    assert asyncio.run(stopped())["due"] == 30


def test_numbers_count_from_what_was_shown_before_the_count_began(tmp_path: Path) -> None:
    """Agents of an earlier measurement had higher numbers, and the full state still shows those."""
    old = {"load": 500, "uptime_s": 0.0}
    hub = PlayedHub(lambda name, metrics: [changed(name, old if metrics["load"] == 1 else metrics)])

    async def counted_anew() -> dict[str, Any]:
        async with playing(hub, tmp_path, 1) as (sending, watching):
            for frames in (2, 3):  # behind the empty full state
                await sending.ask("once")
                while (await watching.ask("end"))["frames"] < frames:
                    await asyncio.sleep(0.01)
            await watching.ask("begin")
            sent = await sending.ask("send 100 0.1", 0.1)
            while (await watching.ask("end"))["frames"] < sent["sent"]:
                await asyncio.sleep(0.01)
            return {**(await watching.ask("end")), "sent": sent["sent"]}

    seen = asyncio.run(counted_anew())
    assert (seen["shown"], seen["backwards"], seen["conflated"]) == (seen["sent"], 0, 0)


def test_rows_of_other_hosts_are_none_of_ours(tmp_path: Path) -> None:
    hub = PlayedHub(lambda name, metrics: [{**changed("web1", metrics), "note": name}])
    _, seen = asyncio.run(counted(hub, tmp_path))
    assert seen["shown"] == 0
