"""Who may have which dead letter tried again: a request only by who may make it."""

from __future__ import annotations

import asyncio
import re
from typing import Any, get_args

import msgspec
from doubles.operator_wire import FanoutHouse, HubPlay

from processes.core.records import dead_letter
from processes.core.records.dead_letter import UNDECODABLE, DeadLetter, Why
from processes.core.travels import messages
from processes.core.travels.messages import (
    CreateToken,
    DiscardDeadLetter,
    GiveCommand,
    Request,
    RequestReceived,
    RetryDeadLetter,
    StatusReceived,
)
from processes.core.values import Role
from processes.fanout.operations import operations

VALUES: dict[Any, Any] = {str: "x", int: 1, float: 60.0, bool: False, list[str]: ["x"]}


def letter(id: str, event: messages.Event) -> DeadLetter:
    return dead_letter.of_event(id, 1.0, event, Why.RAISED, error="it raised")


def asked(request: Any) -> RequestReceived:
    return RequestReceived("r", "fanout", "ann", 1.0, request)


def test_a_request_is_retried_by_the_role_that_the_request_itself_needs() -> None:
    """The API's table says which role that is; the request's docstring says which endpoint makes it."""
    unused: Any = type("Api", (), {"__getattr__": lambda self, _: self})()
    roles = {(each.method, each.path): each.role for each in operations(unused, unused, unused, unused, unused)}
    seen = set()
    for kind in get_args(Request):
        fields = {field.name: VALUES[field.type] for field in msgspec.structs.fields(kind) if field.required}
        found = dead_letter.role_to_retry(letter("l", asked(kind(**fields))))
        endpoint = re.match(r"(POST|DELETE) (/api/v1/[\w/]+)", kind.__doc__ or "")
        if kind is RetryDeadLetter:  # of which one, nobody can tell
            assert found is Role.ADMIN
        elif endpoint is None:
            assert kind is messages.RehearseFault
            assert found is roles["POST", "/api/v1/drill"] is Role.ADMIN
        else:
            path = re.sub("NAME", "{name}", re.sub("ID", "{id}", endpoint[2]))
            assert found is roles[endpoint[1], path], kind
            seen.add(found)
    assert seen == {Role.OPERATOR, Role.ADMIN}


def test_a_report_is_retried_by_any_operator_and_an_admins_request_that_could_not_be_decoded_is_not() -> None:
    report = StatusReceived("c1", "gateway", "a", "ok", 0, "", "id")
    assert dead_letter.role_to_retry(letter("l", report)) is Role.OPERATOR
    item = messages.encode(asked(CreateToken("hash", "admin")))
    undecodable = DeadLetter("l", 1.0, UNDECODABLE, Why.UNDECODABLE, event=item)
    assert dead_letter.role_to_retry(undecodable) is Role.ADMIN
    assert dead_letter.role_to_retry(msgspec.structs.replace(undecodable, event=b"\x63")) is Role.OPERATOR


def test_an_operator_cannot_have_an_admins_request_tried_again_and_an_admin_can() -> None:
    letters = [letter("token", asked(CreateToken("hash", "admin"))), letter("pull", asked(GiveCommand("pull", ["a"])))]

    async def run(house: FanoutHouse) -> None:
        async with (
            HubPlay(house) as hub,
            house.client(token=None) as operator,
            house.client(token=None) as admin,
        ):
            hub.answer = lambda _: (202, {"id": "x"})
            for client, role in ((operator, "operator"), (admin, "admin")):
                assert (await client.post("/login", json={"code": house.code(role, role=role)})).status_code == 200
            with house.database() as connection:
                for each in letters:
                    record = msgspec.json.encode(msgspec.structs.replace(each, event=b"")).decode()
                    row = (each.id, each.at_wall_s, record, each.event)
                    connection.execute("INSERT INTO deadletters (id, at_wall_s, record, event) VALUES (?,?,?,?)", row)
            refused = await operator.post("/api/v1/deadletters/token/retry")
            assert (refused.status_code, refused.json()["error"]) == (403, "forbidden")
            assert hub.requests == []
            assert (await operator.post("/api/v1/deadletters/none/retry")).status_code == 404
            assert (await operator.post("/api/v1/deadletters/pull/retry")).status_code == 202
            assert (await admin.post("/api/v1/deadletters/token/retry")).status_code == 202
            assert (await operator.post("/api/v1/deadletters/token/discard")).status_code == 202
            assert hub.requests == [RetryDeadLetter("pull"), RetryDeadLetter("token"), DiscardDeadLetter("token")]

    with FanoutHouse() as house:
        asyncio.run(run(house))
