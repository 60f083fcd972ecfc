"""How much one operator may ask over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from processes.core import budgets
from processes.core.budgets import Budget, Rate
from processes.core.fanout.signin import Principal
from processes.core.values import Role
from processes.fanout.request_budget import RequestBudget
from processes.fanout.web import guarded, json

SMALL = Budget(Rate(1.0, 1.0), frames=Rate(10.0, 20.0), bytes=Rate(1000.0, 10_000.0))


class Door:
    """An application of one endpoint, asked by whoever has a name, with a clock that is set by hand."""

    def __init__(self, *, address: Budget = budgets.ADDRESS_REQUESTS, cost: int = 1, size: int = 10) -> None:
        self.at_s, self.paused_s, self.served = 1000.0, 0.0, 0
        budget = RequestBudget(lambda: self.at_s, self._pause, SMALL, address)
        auth: Any = self

        async def endpoint(_: Request) -> Response:
            self.served += 1
            return json({"a": "x" * size})

        found = guarded(auth, Role.VIEWER, endpoint, budget=budget, cost=cost)
        routes = [Route(path, found) for path in ("/it", "/healthz")]
        self.app = budget.of_addresses(Starlette(routes=routes), self._is_known)

    @staticmethod
    def _is_known(scope: Scope) -> bool:
        return (b"authorization", b"known") in scope["headers"]

    def still_good(self, _: object) -> bool:
        return True

    async def _pause(self, seconds: float) -> None:
        self.paused_s += seconds

    async def find(self, authorization: str, *_: object) -> Principal | None:
        """As Auth.find."""
        return Principal(Role.VIEWER, "ann", authorization) if authorization else None

    def ask(
        self, count: int, who: str = "ann", *, address: str = "192.0.2.1", path: str = "/it"
    ) -> list[httpx.Response]:
        """Ask so often, and return the answers."""

        async def work() -> list[httpx.Response]:
            transport = httpx.ASGITransport(self.app, client=(address, 1))
            headers = {"authorization": who} if who else {}
            async with httpx.AsyncClient(transport=transport, base_url="http://hub", headers=headers) as http:
                return [await http.get(path) for _ in range(count)]

        return asyncio.run(work())


def codes(answers: list[httpx.Response]) -> list[int]:
    return [answer.status_code for answer in answers]


def test_a_burst_is_free_and_beyond_it_who_asks_is_told_when_to_ask_again() -> None:
    door = Door()
    assert codes(door.ask(20)) == [200] * 20
    assert door.paused_s == 0.0
    answers = door.ask(3)
    assert codes(answers) == [200, 429, 429], "the last of what is left may go into debt"
    assert answers[-1].json()["error"] == "too_many_requests"
    assert answers[-1].headers["retry-after"] == "1"
    assert door.paused_s == 2 * budgets.REFUSED_PAUSE_S
    assert codes(door.ask(1, "bob")) == [200], "somebody else's is another allowance"
    door.at_s += 1.0
    assert codes(door.ask(1)) == [200]


def test_refusals_do_not_prolong_the_time_of_refusal() -> None:
    door = Door()
    door.ask(1000)
    door.at_s += 0.2
    assert codes(door.ask(1)) == [200]


def test_an_expensive_request_counts_as_many_and_an_answer_by_its_bytes() -> None:
    assert codes(Door(cost=10).ask(4)) == [200, 200, 200, 429]
    large = Door(size=6000)
    answers = large.ask(3)
    assert codes(answers) == [200, 200, 429]
    assert answers[-1].headers["retry-after"] == "3"


def test_an_address_has_an_allowance_whatever_tokens_it_brings_and_none_is_needed_to_use_it_up() -> None:
    door = Door(address=SMALL)
    found = codes([door.ask(1, f"token{number}")[0] for number in range(30)])
    assert found.count(429) == 9
    unknown = Door(address=SMALL)
    assert codes(unknown.ask(30, "")).count(401) == 21
    assert codes(unknown.ask(1, address="192.0.2.2")) == [200], "another address"


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "127.9.9.9", "::ffff:127.0.0.1"])
def test_this_machine_is_not_one_client_for_a_proxy_on_it_brings_everybody(address: str) -> None:
    door = Door(address=SMALL)
    assert codes([door.ask(1, f"token{number}", address=address)[0] for number in range(30)]) == [200] * 30


def test_health_is_answered_whoever_has_used_up_what() -> None:
    door = Door(address=SMALL)
    door.ask(50, "")
    assert 429 not in codes(door.ask(5, "bob", path="/healthz"))


def test_whoever_has_a_good_credential_is_not_kept_out_by_others_behind_the_same_address() -> None:
    """The bug it would catch: a stranger in the same office, or behind the same proxy, locks every operator out."""
    door = Door(address=SMALL)
    assert 429 in codes(door.ask(100, ""))
    assert codes(door.ask(10, "known")) == [200] * 10
    assert 429 in codes(door.ask(100, "known")), "it has an allowance of its own"
