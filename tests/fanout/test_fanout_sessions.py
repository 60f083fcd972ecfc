"""Sessions: listed for those who may see them, and over everywhere once somebody ends them."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import os
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
from doubles.deadline import WAIT_S
from doubles.hub_side import hash_of
from doubles.operator_wire import TOKEN, FanoutHouse, HubPlay, operator

from processes.adapters.state import revocations, session_files
from processes.core.fanout.signin import IDLE_S_MAX, cookie, session_of
from processes.core.records import dead_letter
from processes.core.records.dead_letter import Why
from processes.core.travels import messages
from processes.core.travels.audit import Kind
from processes.core.values import Role, token_id

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


def cookie_header(client: httpx.AsyncClient) -> str:
    return "; ".join(f"{name}={value}" for name, value in client.cookies.items())


def test_a_session_ends_with_its_token_everywhere_and_others_go_on() -> None:
    """The bug it would catch: the cookie of a revoked admin goes on for twelve hours and makes new admin tokens."""

    async def run(house: FanoutHouse) -> None:
        with house.database() as connection:
            for token in ("anns", "bobs"):
                connection.execute(
                    "INSERT INTO tokens (token_hash, role, label, created_wall_s) VALUES (?, 'admin', ?, 0)",
                    (hash_of(token), token),
                )
        async with house.client(None) as ann, house.client(None) as bob, house.client() as boss:
            for client, token in ((ann, "anns"), (bob, "bobs")):
                assert (await client.post("/login", json={"token": token})).status_code == 200
                assert (await client.get("/api/v1/me")).json()["actor"] == token
            page = {"Cookie": cookie_header(ann), "Origin": house.url}
            async with operator(house, None, **page) as op:
                await op.until(lambda o: o.full_states)
                revocations.add(revocations.beside(house.settings.database), [hash_of("anns")])
                began_s = time.monotonic()
                assert (await op.ended())[0] == 4501
                assert time.monotonic() - began_s < PASSED_S
            assert (await ann.get("/api/v1/me")).status_code == 401
            assert (await ann.post("/api/v1/tokens", json={"role": "admin"})).status_code == 401
            assert [one["actor"] for one in await sessions(boss)] == ["bobs"]
            assert (await bob.get("/api/v1/me")).status_code == 200

    with FanoutHouse() as house:
        asyncio.run(run(house))


def test_a_request_whose_body_ends_after_its_token_was_revoked_is_not_carried_out() -> None:
    """The bug it would catch: heads sent in good time are worth commands for as long as a body may take."""

    async def run(house: FanoutHouse) -> None:
        with house.database() as connection:
            connection.execute(
                "INSERT INTO tokens (token_hash, role, label, created_wall_s) VALUES (?, 'admin', 'ann', 0)",
                (hash_of("anns"),),
            )
        body = b'{"op": "pull", "hosts": ["web1"]}'
        head = f"POST /api/v1/commands HTTP/1.1\r\nHost: 127.0.0.1:{house.port}\r\nAuthorization: Bearer anns\r\n"
        async with operator(house, "anns") as op, asyncio.timeout(WAIT_S):
            await op.until(lambda o: o.full_states)
            reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
            writer.write(f"{head}Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n".encode())
            assert await reader.readline() == b"HTTP/1.1 100 Continue\r\n"  # it was let in, and is waited for
            revocations.add(revocations.beside(house.settings.database), [hash_of("anns")])
            assert (await op.ended())[0] == 4501
            writer.write(body)
            said = await reader.readuntil(b"}")
            writer.close()
        assert b"HTTP/1.1 401 " in said
        assert b"not_signed_in" in said

    with FanoutHouse() as house:
        asyncio.run(run(house))


def test_a_session_that_a_code_made_ends_with_the_installations_token() -> None:
    async def run(house: FanoutHouse) -> None:
        async with browser(house, "ann", "viewer") as ann:
            assert (await ann.get("/api/v1/me")).json() == {
                "role": "viewer",
                "actor": "viewer",
                "drills_enabled": False,
                "version": importlib.metadata.version("fleethub"),
            }
            own = house.state / "operator.token"
            async with HubPlay(house) as hub:
                own.write_text("another\n")
                await refused(ann)
                own_token = (Kind.TOKEN, token_id(hash_of("another")), "rotated")
                deadline_s = time.monotonic() + PASSED_S
                while own_token not in [(line.kind, line.subject, line.after) for line in hub.noted]:
                    assert time.monotonic() < deadline_s, "nobody is told that it is another one"
                    await asyncio.sleep(0.05)
            own.write_text(f"{TOKEN}\n")

    with FanoutHouse() as house:
        asyncio.run(run(house))


def test_while_nobody_can_read_who_signed_out_they_stay_out_and_a_new_fanout_lets_no_session_in() -> None:
    async def run(house: FanoutHouse) -> None:
        folder = house.state / "run" / "signed_out"
        async with browser(house, "ann", "admin") as ann, browser(house, "bob", "admin") as bob, house.client() as boss:
            ids = {one["browser"]: one["id"] for one in await sessions(boss)}
            session_files.end(house.settings.run, ids["Browser of ann"], 1.0)  # as another fanout does
            await refused(ann)
            folder.rename(folder.with_name("aside"))
            folder.write_text("a file where the folder should be")
            until_s = time.monotonic() + 1.5  # three looks
            while time.monotonic() < until_s:
                assert (await ann.get("/api/v1/me")).status_code == 401
                assert (await bob.get("/api/v1/me")).status_code == 200
                await asyncio.sleep(0.1)
            house.kill("fanout")
            house.start("fanout")
            assert (await bob.get("/api/v1/me")).status_code == 401
            assert (await boss.get("/api/v1/me")).status_code == 200
            folder.unlink()
            folder.with_name("aside").rename(folder)
            deadline_s = time.monotonic() + PASSED_S
            while (await bob.get("/api/v1/me")).status_code != 200:
                assert time.monotonic() < deadline_s
                await asyncio.sleep(0.05)
            assert (await ann.get("/api/v1/me")).status_code == 401

    with FanoutHouse() as house:
        asyncio.run(run(house))


def test_a_session_that_nobody_used_for_two_hours_is_over_and_each_request_is_a_use_that_all_fanouts_see() -> None:
    async def run(house: FanoutHouse) -> None:
        async with browser(house, "ann", "admin") as ann, house.client() as boss:
            (name,) = ann.cookies.keys()
            key, now_s = session_files.cookie_key(house.settings.run), time.time()

            async def ask(id: str, used_s_ago: float) -> int:
                session = session_of(id, hash_of(TOKEN), Role.ADMIN, "admin", now_s - 3 * 3600)
                file = session_files.SessionFile("admin", Role.ADMIN, session.since_wall_s, token_hash=hash_of(TOKEN))
                session_files.put(house.settings.run, id, file, 12 * 3600.0)
                path = house.state / "run" / "sessions" / id
                os.utime(path, (now_s - used_s_ago, now_s - used_s_ago))
                await asyncio.sleep(1.2)  # two looks
                seen = {one["id"] for one in await sessions(boss)}
                answer = await ann.get("/api/v1/me", headers={"cookie": f"{name}={cookie(key, session)}"})
                assert (id in seen) == (answer.status_code == 200)
                return answer.status_code

            assert await ask("used-lately", IDLE_S_MAX - 60) == 200
            assert await ask("used-long-ago", IDLE_S_MAX + 60) == 401
            used = house.state / "run" / "sessions" / "used-lately"
            deadline_s = time.monotonic() + PASSED_S
            while used.stat().st_mtime < now_s - 1:
                assert time.monotonic() < deadline_s, "the other fanouts are not told"
                await asyncio.sleep(0.05)

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


def test_what_needs_a_fresh_sign_in_is_done_by_a_new_session_or_a_token_and_by_no_old_one() -> None:
    """Also as a step of a run, among many, and by the retry of a dead letter. A session of a moment ago may all of it."""
    reboot = {"op": "reboot", "hosts": ["a"]}
    doings: list[tuple[str, str, dict[str, Any] | None]] = [
        ("POST", "/api/v1/commands", reboot),
        ("POST", "/api/v1/runs", {"steps": ["pull", "reboot"], "hosts": ["a"]}),
        ("POST", "/api/v1/tokens", {"role": "viewer"}),
        ("POST", "/api/v1/deadletters/given/retry", None),
        ("POST", "/api/v1/deadletters/run/retry", None),
    ]
    letters: list[tuple[str, messages.Request]] = [
        ("given", messages.GiveCommand("reboot", ["a"])),
        ("run", messages.StartRun(["reboot"], ["a"])),
        ("other", messages.GiveCommand("pull", ["a"])),
    ]

    async def run(house: FanoutHouse) -> None:
        with house.database() as connection:
            for id, asked in letters:
                event = messages.RequestReceived("r", "fanout", "ann", 1.0, asked)
                kept = dead_letter.of_event(id, 1.0, event, Why.RAISED, error="it raised")
                record = msgspec.json.encode(msgspec.structs.replace(kept, event=b"")).decode()
                row = (kept.id, kept.at_wall_s, record, kept.event)
                connection.execute("INSERT INTO deadletters (id, at_wall_s, record, event) VALUES (?,?,?,?)", row)
        async with HubPlay(house) as hub, browser(house, "ann", "admin") as ann, house.client() as script:
            hub.answer = lambda _: (202, {"id": "x"})
            (name,) = ann.cookies.keys()
            (fresh,) = await sessions(ann)
            old = session_of("signed-in-before", hash_of(TOKEN), Role.ADMIN, "admin", time.time() - 301)
            old_cookie = {"cookie": f"{name}={cookie(session_files.cookie_key(house.settings.run), old)}"}
            async with house.client(None) as page:
                for method, path, body in doings:
                    answer = await page.request(method, path, json=body, headers=old_cookie)
                    assert (answer.status_code, answer.json()["error"]) == (403, "sign_in_again"), path
                assert hub.requests == []
                for path, body in (
                    ("/api/v1/commands", {**reboot, "op": "pull"}),
                    ("/api/v1/deadletters/other/retry", None),
                    ("/api/v1/hosts/a/lift", None),
                ):
                    assert (await page.post(path, json=body, headers=old_cookie)).status_code == 202, path
            for client in (ann, script):
                for method, path, body in doings:
                    assert (await client.request(method, path, json=body)).status_code == 202, path
            assert (await ann.post("/login", json={"token": TOKEN})).status_code == 200
            (again,) = await sessions(ann)
            assert again["id"] != fresh["id"], "the session of before the sign-in has ended"

    with FanoutHouse(FLEETHUB_OPERATORS_FRESH_FOR="reboot create_token") as house:
        asyncio.run(run(house))
