"""Sessions: listed for those who may see them, and over everywhere once somebody ends them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
from doubles.operator_wire import FanoutHouse, HubPlay

PASSED_S = 5.0  # contract: an ended session is out within 2 s


@contextlib.asynccontextmanager
async def browser(house: FanoutHouse, code: str, role: str) -> AsyncIterator[httpx.AsyncClient]:
    async with house.client(token=None) as client:
        answer = await client.post(
            "/login", json={"code": house.code(code, role=role)}, headers={"user-agent": f"Browser of {code}"}
        )
        assert answer.status_code == 200, answer.text
        yield client


async def sessions(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    answer = await client.get("/api/v1/sessions")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["sessions"]
    return found


async def end(client: httpx.AsyncClient, id: str) -> int:
    return (await client.delete(f"/api/v1/sessions/{id}")).status_code


async def refused(client: httpx.AsyncClient) -> None:
    deadline_s = time.monotonic() + PASSED_S
    while (await client.get("/api/v1/me")).status_code != 401:
        assert time.monotonic() < deadline_s, "the session goes on"
        await asyncio.sleep(0.05)


def test_an_admin_sees_all_sessions_and_ends_one_and_nobody_else_is_disturbed() -> None:
    async def run(house: FanoutHouse) -> None:
        async with browser(house, "ann", "admin") as ann, browser(house, "bob", "viewer") as bob:
            found = await sessions(ann)
            assert {(one["role"], one["browser"], one["current"]) for one in found} == {
                ("admin", "Browser of ann", True),
                ("viewer", "Browser of bob", False),
            }
            assert [one["role"] for one in await sessions(bob)] == ["viewer"], "others' sessions are not his to see"
            own = next(one["id"] for one in found if one["current"])
            assert await end(bob, own) == 404, "nor to end"
            assert await end(ann, next(one["id"] for one in found if not one["current"])) == 200
            await refused(bob)
            assert [one["id"] for one in await sessions(ann)] == [own]

    with FanoutHouse() as house:
        asyncio.run(run(house))


def test_signing_out_takes_the_session_off_the_list_and_an_id_is_never_a_path() -> None:
    async def run(house: FanoutHouse) -> None:
        (house.state / "precious").write_text("kept")
        async with browser(house, "ann", "admin") as ann, house.client() as boss:
            assert len(await sessions(boss)) == 1, "a token is no session"
            for id in ("..%2F..%2Fprecious", "%2e%2e", "nobody-has-this-id", "x" * 300, "a%00b" * 3):
                assert await end(boss, id) == 404, id
            cookies = dict(ann.cookies)
            assert (await ann.post("/logout")).status_code == 200
            async with house.client(token=None, cookies=cookies) as kept:  # at once, by the fanout that was told
                assert (await kept.get("/api/v1/me")).status_code == 401
            assert await sessions(boss) == []
            await refused(ann)
        assert (house.state / "precious").exists()

    with FanoutHouse() as house:
        asyncio.run(run(house))


def test_a_session_folder_that_cannot_be_written_keeps_nobody_out() -> None:
    async def run(house: FanoutHouse) -> None:
        (house.state / "run" / "sessions").write_text("a file where the folder should be")
        async with browser(house, "ann", "admin") as ann:
            assert (await ann.get("/api/v1/me")).json()["role"] == "admin"
            assert await sessions(ann) == []

    with FanoutHouse() as house:
        asyncio.run(run(house))


def test_a_hosts_history_is_served_from_the_heartbeats_that_were_shown() -> None:
    async def run(house: FanoutHouse) -> None:
        async with HubPlay(house) as hub, house.client() as boss:
            await hub.host("web1", address="10.0.0.1:5", metrics={"cpu": 37.0})
            deadline_s = time.monotonic() + PASSED_S
            while (answer := await boss.get("/api/v1/hosts/web1/metrics")).status_code != 200 or not answer.json()[
                "cpu"
            ]:
                assert time.monotonic() < deadline_s, answer.text
                await asyncio.sleep(0.02)
            body = answer.json()
            assert (body["host"], body["cpu"], body["ram"]) == ("web1", [37.0], [None])
            await hub.change("host", "web1", presence="offline")
            while [one["presence"] for one in body["presences"]] != ["online", "offline"]:
                assert time.monotonic() < deadline_s, body
                body = (await boss.get("/api/v1/hosts/web1/metrics")).json()
            assert (await boss.get("/api/v1/hosts/nobody/metrics")).status_code == 404
            assert (await boss.get("/api/v1/hosts/_canary/metrics")).status_code == 404

    with FanoutHouse() as house:
        asyncio.run(run(house))
