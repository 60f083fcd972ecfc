"""Operators' requests: on to the hub and back, and what is said when the hub, or the way to it, is not there."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import time
from typing import Any

import structlog
from doubles.deadline import WAIT_S
from doubles.operator_wire import FanoutHouse, HubPlay

from processes.adapters.queue_link import QueueLink
from processes.adapters.queues import QueuesAway
from processes.core.travels import messages
from processes.core.travels.messages import (
    CancelCommand,
    CreateToken,
    EnrollHost,
    GiveCommand,
    RemoveHost,
    RevokeHost,
)
from processes.core.travels.queue_calls import LIMITS, Appended
from processes.core.values import Position
from processes.fanout.requests import Requests

PULL = {"op": "pull", "hosts": ["a", "b"], "key": "k", "ttl_s": 600}


def test_a_request_reaches_the_hub_as_it_was_asked_and_the_answer_comes_back_as_it_is() -> None:
    async def run(house: FanoutHouse) -> None:
        async with HubPlay(house) as hub, house.client() as client:
            cases: list[tuple[str, str, Any, Any]] = [
                ("POST", "/api/v1/commands", PULL, GiveCommand("pull", ["a", "b"], "k", 600.0)),
                ("POST", "/api/v1/commands/c1/cancel", None, CancelCommand("c1")),
                ("POST", "/api/v1/hosts/a/revoke", None, RevokeHost("a")),
                ("DELETE", "/api/v1/hosts/a", None, RemoveHost("a")),
            ]
            for status in (202, 404, 409, 422, 429, 500, 503):
                hub.answer = lambda _, status=status: (status, {"error": "word", "n": status})  # type: ignore[misc]
                for method, path, body, request in cases:
                    answer = await client.request(method, path, json=body)
                    assert (answer.status_code, answer.json()) == (status, {"error": "word", "n": status})
                    assert ("retry-after" in answer.headers) == (status in (429, 503))
                    assert hub.asked[-1].request == request
                    assert hub.asked[-1].actor == "admin"
                    assert hub.asked[-1].fanout == "fanout"

    with FanoutHouse() as house:
        asyncio.run(run(house))


def test_a_token_is_told_once_and_only_its_hash_leaves_the_fanout() -> None:
    async def run(house: FanoutHouse) -> None:
        async with HubPlay(house) as hub, house.client() as client:
            hub.answer = lambda _: (201, {"name": "web1", "host_id": "id"})
            enrolled = (await client.post("/api/v1/hosts", json={"name": "web1", "again": True})).json()
            made = (await client.post("/api/v1/tokens", json={"role": "viewer", "label": "screen"})).json()
            digests = [hashlib.sha256(answer["token"].encode()).hexdigest() for answer in (enrolled, made)]
            assert hub.requests == [EnrollHost("web1", digests[0], True), CreateToken(digests[1], "viewer", "screen")]
            assert (enrolled["name"], enrolled["host_id"], enrolled["agents_url"]) == (
                "web1",
                "id",
                "ws://127.0.0.1:7701/ws",
            )
            assert len(enrolled["token"]) >= 43
            hub.answer = lambda _: (409, {"error": "exists"})
            assert "token" not in (await client.post("/api/v1/hosts", json={"name": "web1"})).json()
            with house.database() as connection:  # the hub commits it; the fanout knows it with the next question
                connection.execute(
                    "INSERT INTO tokens (token_hash, role, label, created_wall_s) VALUES (?, 'viewer', 'screen', 0)",
                    (digests[1],),
                )
            async with house.client(made["token"]) as viewer:
                assert (await viewer.get("/api/v1/me")).json()["actor"] == "screen"
                assert (await viewer.post("/api/v1/commands", json=PULL)).status_code == 403

    with FanoutHouse() as house:
        asyncio.run(run(house))


def test_what_is_malformed_is_named_and_never_reaches_the_hub() -> None:
    async def run(house: FanoutHouse) -> None:
        async with HubPlay(house) as hub, house.client() as client:
            for body, field in [
                ({**PULL, "op": 1}, "op"), ({**PULL, "hosts": "a"}, "hosts"),
                ({**PULL, "hosts": []}, "hosts"), ({**PULL, "hosts": [1]}, "hosts[0]"),
                ({**PULL, "ttl_s": -1}, "ttl_s"), ({**PULL, "ttl_s": 1e9}, "ttl_s"),
                ({**PULL, "key": "x" * 129}, "key"), ({"hosts": ["a"]}, None),
                ({**PULL, "sudo": True}, None), ([], None), ("x", None),
            ]:  # fmt: skip
                answer = await client.post("/api/v1/commands", json=body)
                assert (answer.status_code, answer.json()["error"]) == (400, "malformed"), body
                assert answer.json().get("field") == field, answer.json()
            for content in (b"", b"{", b'{"op": "\xff"}', b'{"op":"a","hosts":["a"],"ttl_s":NaN}', b"[" * 100_000):
                assert (await client.post("/api/v1/commands", content=content)).status_code == 400
            for path in (
                "/api/v1/commands?limit=0",
                "/api/v1/commands?limit=x",
                "/api/v1/commands?state=done",
                "/api/v1/hosts?presence=x",
            ):
                assert (await client.get(path)).status_code == 400, path
            assert (await client.post("/api/v1/drill", json={"fault": "deadlock"})).status_code == 403
            assert hub.asked == []

    with FanoutHouse() as house:
        asyncio.run(run(house))


def test_a_drill_is_meant_for_the_hub_that_is_there_now() -> None:
    async def run(house: FanoutHouse) -> None:
        async with HubPlay(house, epoch=7) as hub, house.client() as client:
            async with asyncio.timeout(WAIT_S):
                while not hub.asked or hub.asked[-1].request == messages.RehearseFault(
                    "deadlock", 0
                ):  # until it has heard of a hub
                    await client.post("/api/v1/drill", json={"fault": "deadlock"})
            assert hub.asked[-1].request == messages.RehearseFault("deadlock", 7)

    with FanoutHouse(FLEETHUB_DRILLS_ENABLED="true") as house:
        asyncio.run(run(house))


def test_without_a_hub_the_outcome_is_unknown_and_a_hub_that_comes_within_the_deadline_still_answers() -> None:
    async def run(house: FanoutHouse) -> None:
        async with house.client() as client:
            begun_s = time.monotonic()
            asked = asyncio.create_task(client.post("/api/v1/commands", json=PULL))
            answer = await asked
            assert (answer.status_code, answer.json()["error"]) == (504, "outcome_unknown")
            assert time.monotonic() - begun_s > 4.5, "it was waited for"
            asked = asyncio.create_task(client.post("/api/v1/commands", json=PULL))
            link = QueueLink(house.state / "run" / "queues.sock", "hub")
            async with asyncio.timeout(WAIT_S):
                while len((await link.read("events", Position(0, 0), wait_s=0.1)).items) < 3:
                    pass
            await link.close()
            async with HubPlay(house) as hub:
                assert (await asked).status_code == 202
                deadlines = {event.deadline_boot_s for event in hub.asked}
                assert all(d - time.clock_gettime(time.CLOCK_BOOTTIME) < 5 for d in deadlines)

    with FanoutHouse() as house:
        asyncio.run(run(house))


def test_without_queues_it_is_refused_and_said_that_it_will_not_happen() -> None:
    async def run(house: FanoutHouse) -> None:
        async with house.client() as client:
            assert (await client.get("/livez")).status_code == 200
            house.kill("queues")
            answer = await client.post("/api/v1/commands", json=PULL)
            assert (answer.status_code, answer.json()["error"]) == (503, "hub_unavailable")
            assert int(answer.headers["retry-after"]) > 0
            house.start("queues")
            async with HubPlay(house) as hub:
                assert (await client.post("/api/v1/commands", json={**PULL, "key": "later"})).status_code == 202
                assert [request.key for request in hub.requests if isinstance(request, GiveCommand)] == ["later"]

    with FanoutHouse() as house:
        asyncio.run(run(house))


def test_stopped_queues_leave_the_outcome_unknown_and_never_a_false_refusal() -> None:
    """The append may have happened: 503 would be a lie if the queue is thawed and the hub carries it out."""

    async def run(house: FanoutHouse) -> None:
        async with house.client() as client, HubPlay(house) as hub:
            assert (await client.post("/api/v1/commands", json=PULL)).status_code == 202
            queues = house.processes["queues"]
            queues.send_signal(signal.SIGSTOP)
            asked = asyncio.create_task(client.post("/api/v1/commands", json={**PULL, "key": "frozen"}))
            answer = await asked
            queues.send_signal(signal.SIGCONT)
            assert (answer.status_code, answer.json()["error"]) == (504, "outcome_unknown")
            answer = await client.post("/api/v1/commands", json={**PULL, "key": "thawed"})
            assert answer.status_code == 202
            ids: dict[str, set[str]] = {}
            for event in hub.asked:
                assert isinstance(event.request, GiveCommand)
                ids.setdefault(event.request.key or "", set()).add(event.request_id)
            assert all(len(found) == 1 for found in ids.values()), "one request was given two ids"

    with FanoutHouse() as house:
        asyncio.run(run(house))


def test_a_full_events_queue_is_503() -> None:
    async def run(house: FanoutHouse) -> None:
        link = QueueLink(house.state / "run" / "queues.sock", "gateway")
        async with asyncio.timeout(WAIT_S):
            while not (house.state / "run" / "queues.sock").exists():
                await asyncio.sleep(0.01)
        filler = messages.encode(messages.SnapshotWanted("x", "y"))
        items_max = dict(LIMITS)["events"].items_max
        appended = 0
        while appended < items_max:
            count = min(10_000, items_max - appended)
            if not (await link.append("events", [filler] * count)).accepted:
                break
            appended += count
        while (await link.append("events", [filler])).accepted:
            pass
        async with house.client() as client:
            answer = await client.post("/api/v1/commands", json=PULL)
            assert (answer.status_code, answer.json()["error"]) == (503, "hub_unavailable")
        await link.close()

    with FanoutHouse() as house:
        asyncio.run(run(house))


def test_an_answer_that_was_lost_is_asked_for_again_under_the_same_id() -> None:
    """The queues die with the reply in them: the fanout meets the new epoch, asks again, and gets the kept answer."""

    async def run(house: FanoutHouse) -> None:
        async with house.client() as client, HubPlay(house) as hub:
            assert (await client.post("/api/v1/commands", json=PULL)).status_code == 202
            hub.answer = lambda _: None  # stepped and committed, but what it says is lost
            asked = asyncio.create_task(client.post("/api/v1/commands", json={**PULL, "key": "again"}))
            async with asyncio.timeout(WAIT_S):
                while not (
                    first := [e for e in hub.asked if isinstance(e.request, GiveCommand) and e.request.key == "again"]
                ):
                    await asyncio.sleep(0.01)
            house.kill("queues")
            house.start("queues")
            hub.answer = lambda _: (202, {"commands": ["kept"]})
            await hub.say(messages.HubStarted(hub.epoch))
            answer = await asked
            assert (answer.status_code, answer.json()) == (202, {"commands": ["kept"]})
            again = [e for e in hub.asked if isinstance(e.request, GiveCommand) and e.request.key == "again"]
            assert len(again) > len(first)
            assert {(e.request_id, e.deadline_boot_s) for e in again} == {
                (first[0].request_id, first[0].deadline_boot_s)
            }

    with FanoutHouse() as house:
        asyncio.run(run(house))


class Link:
    """Queues that can be away."""

    def __init__(self) -> None:
        self.away, self.tries, self.items = False, 0, 0

    async def append(self, _queue: str, items: list[bytes]) -> Appended:
        """As the link's."""
        self.tries += 1
        if self.away:
            raise QueuesAway("away")
        self.items += len(items)
        return Appended(True, Position(1, self.items))


def test_what_was_answered_meanwhile_is_not_asked_again() -> None:
    """The bug it would catch: a request that was refused comes to the hub once more, and is carried out there."""

    async def run() -> None:
        link = Link()
        requests = Requests(link, "fanout", structlog.stdlib.get_logger("fleethub.test"))  # type: ignore[arg-type]
        asking = asyncio.create_task(requests.ask("ann", EnrollHost("ghost", "hash")))
        async with asyncio.timeout(WAIT_S):
            while not requests._open or not next(iter(requests._open.values())).appended:
                await asyncio.sleep(0)
            link.away, (request_id,) = True, requests._open
            requests.again()
            while link.tries < 2:
                await asyncio.sleep(0)
            requests.replied(messages.Replied(1, request_id, 503, messages.Json(b"{}")))
            assert (await asking).status == 503
            link.away = False
            while requests._tasks:
                await asyncio.sleep(0.01)
        assert link.items == 1

    asyncio.run(run())


def test_a_request_that_is_appended_while_a_new_hub_begins_is_asked_again() -> None:
    """The bug it would catch: a hub that took over from another machine leaves it, and nobody asks again."""

    async def run() -> None:
        link = Link()
        requests = Requests(link, "fanout", structlog.stdlib.get_logger("fleethub.test"))  # type: ignore[arg-type]
        append = link.append

        async def slow(queue: str, items: list[bytes]) -> Appended:
            if not link.tries:
                requests.again()
            return await append(queue, items)

        link.append = slow  # type: ignore[method-assign, assignment]
        asking = asyncio.create_task(requests.ask("ann", EnrollHost("ghost", "hash")))
        async with asyncio.timeout(WAIT_S):
            while link.items < 2:
                await asyncio.sleep(0.01)
            requests.replied(messages.Replied(1, next(iter(requests._open)), 503, messages.Json(b"{}")))
            await asking

    asyncio.run(run())


def test_the_document_describes_what_there_is() -> None:
    async def run(house: FanoutHouse) -> None:
        async with house.client() as client:
            document = (await client.get("/openapi.json")).json()
            assert document["openapi"].startswith("3.1")
            assert {"post", "get"} <= set(document["paths"]["/api/v1/commands"])
            text = json.dumps(document)
            references = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
            assert references <= set(document["components"]["schemas"])
            assert "GiveBody" in references
            assert {"LetterView", "LetterGone"} <= references  # names of the API stay, whatever the classes are called
            assert "DeadLetterView" not in text
            assert "letters" in document["components"]["schemas"]["PulseReport"]["properties"]

    with FanoutHouse() as house:
        asyncio.run(run(house))
