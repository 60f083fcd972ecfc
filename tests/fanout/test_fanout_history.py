"""The histories of hosts that a fanout keeps go on in the next fanout; a file that cannot be read begins anew, and says so."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Any

import httpx
from doubles.deadline import WAIT_S
from doubles.operator_wire import FanoutHouse, HubPlay


async def history(client: httpx.AsyncClient, *presences: str, span: str = "hour") -> dict[str, Any]:
    """web1's history, once it has these comings and goings."""
    deadline = time.monotonic() + WAIT_S
    while True:
        answer = await client.get("/api/v1/hosts/web1/metrics", params={"span": span})
        found: dict[str, Any] = answer.json() if answer.status_code == 200 else {"presences": []}
        if tuple(one["presence"] for one in found["presences"]) == presences:
            return found
        assert time.monotonic() < deadline, answer.text
        await asyncio.sleep(0.05)


async def live(house: FanoutHouse, client: httpx.AsyncClient) -> None:
    """The fanout shows what the hub says."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            if (await client.get("/api/v1/hosts")).json()["source"] == "hub":
                return
        except (httpx.TransportError, KeyError):
            pass
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


def test_the_charts_and_comings_and_goings_outlive_the_fanout() -> None:
    async def scene() -> None:
        with FanoutHouse() as house:
            async with HubPlay(house) as hub, house.client() as client:
                await live(house, client)
                await hub.host(
                    "web1",
                    metrics={"cpu": 12.5},
                    last_seen="then",
                    address="10.0.0.1:5",
                    connected_since="2026-11-29T10:00:00.000Z",
                )
                await history(client, "online")
                await hub.host("web1", presence="offline")
                before = await history(client, "online", "offline")
                house.processes["fanout"].send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(house.processes["fanout"].wait, 20) == 0
                assert (house.state / "history" / "fanout").stat().st_mode & 0o077 == 0
                house.start("fanout")
                await live(house, client)
                after = await history(client, "online", "offline")
                assert (after["since"], after["presences"]) == (before["since"], before["presences"])
                assert after["cpu"] == [12.5]
                await hub.host(
                    "web1",
                    presence="online",
                    metrics={"cpu": 50.0},
                    last_seen="now",
                    connected_since="2026-11-29T11:00:00.000Z",
                )
                assert (await history(client, "online", "offline", "online"))["cpu"][0] == 12.5
                assert len((await history(client, "online", "offline", "online", span="day"))["at"]) >= 1
                assert (await client.get("/api/v1/hosts/web1/metrics", params={"span": "year"})).status_code == 400

    asyncio.run(scene())


def test_a_file_that_cannot_be_read_begins_anew_and_one_that_cannot_be_written_ends_nothing() -> None:
    async def scene() -> None:
        with FanoutHouse() as house:
            house.processes["fanout"].kill()
            house.processes["fanout"].wait()
            (house.state / "history").mkdir(exist_ok=True)
            (house.state / "history" / "fanout").write_bytes(b"no history")
            house.start("fanout")
            async with HubPlay(house) as hub, house.client() as client:
                await live(house, client)
                await hub.host("web1")
                await history(client, "online")
                assert "they begin anew" in (house.state / "log" / "fanout.log").read_text()
                (house.state / "history" / "fanout").unlink()
                (house.state / "history" / "fanout").mkdir()  # not even root writes over it
                house.processes["fanout"].send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(house.processes["fanout"].wait, 20) == 0
                assert "cannot be kept" in (house.state / "log" / "fanout.log").read_text()
                assert list((house.state / "history").glob(".*")) == []

    asyncio.run(scene())
