"""Who may reach the operators' port, with which headers, and what a foreign page gets."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import re
import signal
import socket
import ssl
import stat
import time
from pathlib import Path

import httpx
import pytest
from doubles.authority import Authority
from doubles.deadline import WAIT_S
from doubles.hub_side import hash_of
from doubles.operator_wire import TOKEN, FanoutHouse, HubPlay, operator
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from processes.adapters.state import fleet_db
from processes.core.travels.messages import GiveCommand, Json, Replied
from processes.fanout import agent_download

GUARDED = [
    "/metrics", "/api/v1/me", "/api/v1/status", "/api/v1/hosts", "/api/v1/hosts/a", "/api/v1/commands",
    "/api/v1/commands/a",
    "/api/v1/commands/a/output", "/api/v1/incidents", "/api/v1/incidents/a",
]  # fmt: skip


def raw(house: FanoutHouse, request: bytes) -> bytes:
    """What comes back for these bytes, until the server closes."""
    with socket.create_connection(("127.0.0.1", house.port), timeout=WAIT_S) as sock:
        sock.sendall(request)
        found = b""
        while piece := sock.recv(65536):
            found += piece
        return found


def test_nothing_but_health_page_and_sign_in_is_to_be_had_without_signing_in() -> None:
    async def run(house: FanoutHouse) -> None:
        async with house.client(None) as anyone, house.client("wrong") as guesser:
            for client in (anyone, guesser):
                for path in GUARDED:
                    answer = await client.get(path)
                    assert answer.status_code == 401, path
                    assert answer.headers["www-authenticate"] == "Bearer"
                    assert answer.json()["error"] == "not_signed_in"
                for method, path in [
                    ("POST", "/api/v1/commands"), ("POST", "/api/v1/commands/a/cancel"), ("POST", "/api/v1/hosts"),
                    ("DELETE", "/api/v1/hosts/a"),                    ("POST", "/api/v1/hosts/a/revoke"),
                    ("POST", "/api/v1/tokens"), ("POST", "/api/v1/drill"), ("POST", "/logout"),
                ]:  # fmt: skip
                    assert (await client.request(method, path, json={})).status_code == 401, path
            for path in ("/", "/app.js", "/fleet.js", "/style.css", "/favicon.svg", "/livez", "/openapi.json"):
                assert (await anyone.get(path)).status_code == 200, path
            assert (await anyone.get("/healthz")).status_code == 503
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"ws://127.0.0.1:{house.port}/ws", additional_headers=headers, proxy=None)
            assert refused.value.response.status_code == 401

    with FanoutHouse() as house:
        asyncio.run(run(house))


def test_the_agents_file_is_to_be_had_without_sign_in_with_a_digest_that_a_code_names() -> None:
    async def run(house: FanoutHouse) -> None:
        async with house.client(None) as anyone:
            first, second = await asyncio.gather(anyone.get("/agent"), anyone.get("/agent"))
            assert (first.status_code, first.content) == (200, second.content)
            assert first.content.startswith(b"#!/bin/sh\n")
            digest = hashlib.sha256(first.content).hexdigest()
            assert first.headers["etag"] == f'"{digest}"'
            named = base64.b64decode(first.headers["repr-digest"].removeprefix("sha-256=:").removesuffix(":"))
            assert (named.hex(), first.headers["cache-control"]) == (digest, "no-store")
            head = await anyone.head("/agent")
            assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", first.headers["etag"])
            again = await anyone.get("/agent", headers={"If-None-Match": f'W/"{digest}"'})
            assert (again.status_code, again.content) == (304, b"")
            assert (await anyone.post("/agent")).status_code == 405

    with FanoutHouse() as house:
        asyncio.run(run(house))


def test_an_agents_file_that_cannot_be_made_is_said_beside_the_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(agent_download, "ROOM", tmp_path)
    told = asyncio.run(agent_download.AgentDownload("ws://127.0.0.1:7701/ws").named())
    assert list(told) == ["agent_file_missing"]
    assert f"No such file or directory: '{tmp_path}/requirements.txt'" in told["agent_file_missing"]


def test_a_code_is_good_once_and_makes_a_session_that_signing_out_ends_everywhere() -> None:
    async def run(house: FanoutHouse) -> None:
        house.code("good", role="viewer")
        house.code("late", valid_s=-1)  # the last one: making a code forgets those that have expired
        async with house.client(None) as browser, house.client(None) as thief:
            assert (await browser.post("/login", json={"code": "late"})).status_code == 401
            answer = await browser.post("/login", json={"code": "good"})
            assert (answer.status_code, answer.json()) == (200, {"role": "viewer", "actor": "viewer"})
            flags = answer.headers["set-cookie"].lower()
            assert "httponly" in flags
            assert "samesite=strict" in flags
            assert "path=/" in flags
            assert "secure" not in flags  # plain on loopback
            assert (await thief.post("/login", json={"code": "good"})).status_code == 401
            assert (await browser.get("/api/v1/me")).json()["role"] == "viewer"
            assert (await browser.post("/api/v1/commands", json={"op": "pull", "hosts": ["a"]})).status_code == 403
            cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
            async with operator(house, None, Cookie=cookies, Origin=house.url) as op:
                await op.until(lambda o: o.full_states)
                assert (await browser.post("/logout")).status_code == 200
                assert (await op.ended())[0] == 4501
            assert (await thief.get("/api/v1/me", headers={"cookie": cookies})).status_code == 401

    with FanoutHouse() as house:
        asyncio.run(run(house))
        key = house.state / "run" / "cookie.key"
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_below_a_path_and_under_an_international_name_all_works_whatever_the_proxy_does_with_the_path() -> None:
    """The bugs it would catch: the page asks for its parts at the root; a foreign cookie ends the WebSocket only."""

    async def run(house: FanoutHouse) -> None:
        headers = {"host": "xn--flte-6qa.example.org", "origin": "https://xn--flte-6qa.example.org"}
        async with house.client(None, cookies=httpx.Cookies()) as browser:
            assert (await browser.get("/fleet", headers=headers)).headers["location"] == "/fleet/"
            for prefix in ("", "/fleet"):
                page = await browser.get(f"{prefix}/", headers=headers)
                assert page.status_code == 200
                parts = re.findall(r'(?:src|href)="(/[^"]*)"', page.text)
                assert len(parts) == 5
                assert all(part.startswith("/fleet/") for part in parts)
                for part in parts:
                    named = await browser.get(prefix + part.removeprefix("/fleet"), headers=headers)
                    assert named.status_code == 200
                    assert not re.search(rb'from "/', named.content), "modules find each other beside themselves"
                assert (await browser.get(f"{prefix}/livez", headers=headers)).status_code == 200
                document = (await browser.get(f"{prefix}/openapi.json", headers=headers)).json()
                assert document["servers"] == [{"url": "/fleet"}], "clients made of it ask below the path"
                assert (await browser.get(f"{prefix}/api/v1/nothing", headers=headers)).status_code == 404
                answer = await browser.post(f"{prefix}/login", json={"token": TOKEN}, headers=headers)
                assert answer.status_code == 200
                own = answer.headers["set-cookie"].partition(";")[0]
                for sent in (own, f'theme={{"dark":true}}; {own}; a[b]=c', f"{own.partition('=')[0]}=stale; {own}"):
                    me = await browser.get(f"{prefix}/api/v1/me", headers={**headers, "cookie": sent})
                    assert me.status_code == 200
                    async with connect(
                        f"ws://{headers['host']}{prefix}/ws", host="127.0.0.1", port=house.port, proxy=None,
                        additional_headers={"Origin": headers["origin"], "Cookie": sent},
                    ) as socket:  # fmt: skip
                        assert "full_state" in str(await socket.recv())
                await browser.post(f"{prefix}/logout", headers={**headers, "cookie": own})
            assert (await browser.get("/fleetx/livez", headers=headers)).status_code == 404

    with FanoutHouse(FLEETHUB_OPERATORS_URL="https://flöte.example.org/fleet/") as house:
        asyncio.run(run(house))
        for head in (b"GET /livez HTTP/1.0\r\n\r\n", b"GET /livez HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n"):
            assert raw(house, head).startswith(b"HTTP/1.1 200"), "a probe without a Host, as HAProxy's"
        assert raw(house, b"GET /livez HTTP/1.0\r\nHost: evil.example\r\n\r\n").startswith(b"HTTP/1.1 421")


def test_a_session_for_a_token_outlives_the_fanout_and_bears_the_proxys_flags() -> None:
    async def run(house: FanoutHouse) -> None:
        async with house.client(None, cookies=httpx.Cookies()) as browser:
            headers = {"host": "fleet.example", "origin": "https://fleet.example"}
            answer = await browser.post("/login", json={"token": TOKEN}, headers=headers)
            assert answer.status_code == 200
            cookie = answer.headers["set-cookie"]
            assert cookie.startswith("__Host-")
            assert "; secure" in cookie.lower()
            house.kill("fanout")
            house.start("fanout")
            assert (await browser.get("/api/v1/me", headers={**headers, "cookie": cookie.partition(";")[0]})).json()[
                "role"
            ] == "admin"

    with FanoutHouse(FLEETHUB_OPERATORS_URL="https://fleet.example") as house:
        asyncio.run(run(house))


def test_guessing_is_stopped_after_ten_tries_and_a_token_still_works() -> None:
    async def run(house: FanoutHouse) -> None:
        async with house.client(None) as client, house.client() as operator_client:
            codes = [(await client.post("/login", json={"token": f"guess{n}"})).status_code for n in range(13)]
            assert codes == [401] * 10 + [429] * 3
            assert (await operator_client.get("/api/v1/me")).status_code == 200

    with FanoutHouse() as house:
        asyncio.run(run(house))


def test_a_foreign_page_can_do_nothing_with_an_operators_cookie() -> None:
    async def run(house: FanoutHouse) -> None:
        foreign = [
            "http://evil.example",
            "null",
            f"{house.url}.evil.example",
            f"http://localhost:{house.port}",
            "http://127.0.0.1",
            f"{house.url}/",
        ]
        async with house.client(None) as browser:
            assert (
                await browser.post("/login", json={"token": TOKEN}, headers={"origin": "http://evil.example"})
            ).status_code == 403
            assert (
                await browser.post("/login", json={"token": TOKEN}, headers={"origin": house.url})
            ).status_code == 200
            cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
            for origin in foreign:
                answer = await browser.post(
                    "/api/v1/commands", json={"op": "pull", "hosts": ["a"]}, headers={"origin": origin}
                )
                assert (answer.status_code, answer.json()["error"]) == (403, "foreign_origin"), origin
                with pytest.raises(InvalidStatus) as refused:
                    await connect(
                        f"ws://127.0.0.1:{house.port}/ws",
                        additional_headers={"Cookie": cookies, "Origin": origin},
                        proxy=None,
                    )
                assert refused.value.response.status_code == 403, origin
            with pytest.raises(InvalidStatus) as refused:  # no browser leaves it out
                await connect(f"ws://127.0.0.1:{house.port}/ws", additional_headers={"Cookie": cookies}, proxy=None)
            assert refused.value.response.status_code == 403
        async with operator(house, TOKEN) as op:  # a script with a token has no origin
            await op.until(lambda o: o.full_states)
        with pytest.raises(InvalidStatus):
            async with operator(house, TOKEN, Origin="http://evil.example"):
                pass

    with FanoutHouse() as house:
        asyncio.run(run(house))


def test_every_answer_has_the_policy_and_nothing_says_what_serves_it() -> None:
    with FanoutHouse() as house:
        with httpx.Client(base_url=house.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=WAIT_S) as client:
            answers = [
                client.get(path)
                for path in ("/", "/healthz", "/nope", "/ws", "/api/v1/hosts/none", "/../etc/passwd", "/%2e%2e/app.js")
            ]
            answers.append(client.post("/livez"))
            answers.append(client.get("/", headers={"host": "evil.example"}))
            answers.append(client.post("/api/v1/commands", content=b"{"))
            answers.append(client.post("/api/v1/commands", content=b" " * (1 << 20) + b"{}"))
        assert [answer.status_code for answer in answers] == [200, 503, 404, 426, 404, 404, 404, 405, 421, 400, 413]
        upgrade = "GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
        raws = [
            raw(house, b"nonsense\r\n\r\n"),
            raw(house, f"{upgrade}\r\n".encode()),
            raw(house, f"{upgrade}Authorization: Bearer {TOKEN}\r\n\r\n".encode()),
        ]
        for path in ("//app.js", "/../../etc/passwd", "/app.js/../app.js", "/%00", "/page/app.js"):
            raws.append(raw(house, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()))
        assert [found.split(b" ")[1] for found in raws] == [b"400", b"401", b"400", *[b"404"] * 5]
        for answer in answers:
            assert "script-src 'self'" in answer.headers["content-security-policy"], answer.url
            assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
            assert "unsafe" not in answer.headers["content-security-policy"]
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert "server" not in answer.headers
            if answer.status_code >= 400:
                assert set(answer.json()) >= (
                    {"verdict", "reason"} if answer.url.path == "/healthz" else {"error", "message"}
                )
        for found in raws:
            assert b"content-security-policy: default-src 'none'" in found.lower().replace(b"Content", b"content")


def test_only_under_tls_of_its_own_a_browser_is_told_to_come_by_tls_for_a_year(tmp_path: Path) -> None:
    """Behind a proxy that is the proxy's to say; without TLS it would lock the operators out."""
    authority = Authority(tmp_path)
    certificate, key = map(str, authority.issue())
    with FanoutHouse() as plain:
        assert "strict-transport-security" not in httpx.get(f"{plain.url}/livez", timeout=WAIT_S).headers
    with FanoutHouse(FLEETHUB_TLS_CERTIFICATE=certificate, FLEETHUB_TLS_KEY=key) as house:
        trusted = ssl.create_default_context(cafile=authority.ca)
        with httpx.Client(base_url=house.url.replace("http:", "https:"), verify=trusted, timeout=WAIT_S) as client:
            for path in ("/", "/nope", "/livez", "/api/v1/hosts"):
                assert client.get(path).headers["strict-transport-security"] == "max-age=31536000", path


def test_half_a_request_is_not_waited_for_and_disturbs_nobody() -> None:
    with FanoutHouse() as house:
        slow = [socket.create_connection(("127.0.0.1", house.port), timeout=WAIT_S) for _ in range(200)]
        for sock in slow:
            sock.sendall(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        assert httpx.get(f"{house.url}/livez", timeout=WAIT_S).status_code == 200
        for sock in slow:
            assert b"408" in sock.recv(65536)
            sock.close()


def test_a_frame_that_comes_with_the_upgrade_request_is_not_lost() -> None:
    async def run(house: FanoutHouse) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        text = json.dumps({"type": "subscribe", "command_id": "nobody's"}).encode()
        frame = bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text
        writer.write(
            f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
            + frame
        )
        async with asyncio.timeout(WAIT_S):
            found = b""
            while b"not_found" not in found:
                piece = await reader.read(65536)
                assert piece
                found += piece
        writer.close()

    with FanoutHouse() as house:
        with house.database():
            pass  # it is made
        asyncio.run(run(house))


def test_the_canary_may_command_itself_and_sees_itself_only_and_nobody_sees_it() -> None:
    async def run(house: FanoutHouse) -> None:
        house.canary("canary-token")
        async with HubPlay(house) as hub, house.client("canary-token") as client, house.client() as boss:
            await hub.host("web1")
            await hub.host("_canary")
            async with operator(house, "canary-token") as canary, operator(house) as op:
                await op.until(lambda o: "web1" in o.hosts)
                await canary.until(lambda o: "_canary" in o.hosts)
                await hub.change("command", "c1", id="c1", host="_canary", op="noop", state="queued")
                await hub.change("command", "c1", state="succeeded")
                await hub.change("command_removed", "c1")
                await hub.host("_canary", beat=7)
                await hub.host("web1", beat=8)
                await canary.until(lambda o: o.hosts["_canary"].get("beat") == 7)
                states = [
                    c["fields"]["state"] for f in canary.frames for c in f.get("changes", ()) if c["kind"] == "command"
                ]
                assert states == ["queued", "succeeded"]  # each step is a proof
                await op.until(lambda o: o.hosts["web1"].get("beat") == 8)
                assert "canary" not in json.dumps(
                    [f for f in op.frames if f["type"] != "full_state"] + [op.hosts, op.commands]
                ).replace('"canary":', "")
                assert set(canary.hosts) == {"_canary"}
            assert (await client.post("/api/v1/commands", json={"op": "noop", "hosts": ["_canary"]})).status_code == 202
            assert (await client.post("/api/v1/commands", json={"op": "noop", "hosts": ["web1"]})).status_code == 403
            assert (await client.post("/api/v1/commands", json={"op": "pull", "hosts": ["_canary"]})).status_code == 403
            assert (await client.get("/api/v1/hosts")).status_code == 403
            assert (await client.post("/login", json={"token": "canary-token"})).status_code == 401
            assert (await boss.post("/api/v1/commands", json={"op": "noop", "hosts": ["_canary"]})).status_code == 404
            assert [host["name"] for host in (await boss.get("/api/v1/hosts")).json()["hosts"]] == ["web1"]
            assert (await boss.get("/api/v1/hosts/_canary")).status_code == 404

    with FanoutHouse() as house:
        asyncio.run(run(house))


def test_who_asks_the_fanout_to_end_takes_no_answer_from_an_operator_and_sees_it_advance_to_its_end() -> None:
    """A hub that is being replaced keeps its requests waiting for a second or two: an end in just that moment must bear
    it.
    """

    async def run(house: FanoutHouse) -> None:
        async with HubPlay(house) as hub, house.client() as client:
            hub.answer = lambda _: None  # not yet
            asking = asyncio.create_task(client.post("/api/v1/commands", json={"op": "pull", "hosts": ["a"]}))
            while not hub.asked:
                await asyncio.sleep(0.01)
            house.processes["fanout"].send_signal(signal.SIGTERM)
            while "stopping" not in house.log("fanout"):
                await asyncio.sleep(0.01)
            before = house.pulse("fanout").turn
            while house.pulse("fanout").turn < before + 4:
                assert house.processes["fanout"].poll() is None
                await asyncio.sleep(0.01)
            await hub.say(Replied(1, hub.asked[0].request_id, 202, Json(b'{"commands": []}')))
            assert (await asking).status_code == 202
            assert await asyncio.to_thread(house.processes["fanout"].wait, 10) == 0

    with FanoutHouse() as house:
        asyncio.run(run(house))


def test_a_request_that_is_never_answered_does_not_keep_the_fanout_from_ending() -> None:
    async def run(house: FanoutHouse) -> None:
        async with HubPlay(house) as hub, house.client() as client:
            hub.answer = lambda _: None
            asking = asyncio.create_task(client.post("/api/v1/commands", json={"op": "pull", "hosts": ["a"]}))
            while not hub.asked:
                await asyncio.sleep(0.01)
            assert await asyncio.to_thread(house.kill, "fanout", signal.SIGTERM) == 0
            with pytest.raises(httpx.HTTPError):
                (await asking).raise_for_status()

    with FanoutHouse() as house:
        asyncio.run(run(house))


def test_a_request_that_was_given_up_while_no_fanout_ran_is_not_carried_out_by_the_next() -> None:
    """It lies in the backlog of the socket that supervisord holds, whole, and whoever asked has been told that nobody
    answered.
    """

    async def run(house: FanoutHouse) -> None:
        async with HubPlay(house) as hub, house.client() as client:
            await answering(client)
            house.processes["fanout"].kill()
            house.processes["fanout"].wait()
            body = b'{"op": "reboot", "hosts": ["web1"]}'
            head = f"POST /api/v1/commands HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {len(body)}\r\n\r\n"
            for _ in range(20):
                with socket.create_connection(("127.0.0.1", house.port), timeout=WAIT_S) as sock:
                    sock.sendall(head.encode() + body)
            house.start("fanout")
            await answering(client)
            assert (await client.post("/api/v1/commands", json={"op": "pull", "hosts": ["web1"]})).status_code == 202
            assert [request.op for request in hub.requests if isinstance(request, GiveCommand)] == ["pull"]

    with FanoutHouse() as house:
        asyncio.run(run(house))


async def answering(client: httpx.AsyncClient) -> None:
    """The fanout answers, and has heard of the hub."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            if (await client.get("/api/v1/hosts")).json().get("source") == "hub":
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


def test_a_token_made_a_moment_ago_opens_a_websocket_and_what_is_no_upgrade_is_told_as_a_problem() -> None:
    async def run(house: FanoutHouse) -> None:
        async with house.client() as client:
            with house.database() as connection:
                connection.execute(
                    "INSERT INTO tokens (token_hash, role, label, created_wall_s) VALUES (?, 'viewer', 'new', 0)",
                    (hash_of("brand-new"),),
                )
            async with operator(house, "brand-new") as found:
                await found.until(lambda each: each.full_states)
            upgrade = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "8"}
            answer = await client.get("/ws", headers=upgrade)
            assert (answer.status_code, answer.json()["error"]) == (400, "malformed")
            assert answer.headers["content-type"] == "application/json"

    # open throughout, as the hub has it: the last one who closes it folds the log in, and on a slow disk keeps others out
    with FanoutHouse() as house, contextlib.closing(fleet_db.open_for_writing(house.settings.database)):
        asyncio.run(run(house))


def test_a_body_that_says_it_is_too_large_is_refused_before_it_comes() -> None:
    with FanoutHouse() as house, socket.create_connection(("127.0.0.1", house.port), timeout=WAIT_S) as sock:
        head = "POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2000000\r\n\r\n"
        sock.sendall(head.encode())
        assert b" 413 " in sock.recv(65536)
