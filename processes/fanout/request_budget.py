"""How much one operator may ask over HTTP: each credential and each address has an allowance (core/budgets.py)."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from processes.core import budgets
from processes.core.budgets import Allowances
from processes.core.connections import THIS_MACHINE, is_within, site_of
from processes.fanout.web import Problem, told

FREE: Final = ("/healthz", "/livez")  # to refuse these costs as much as to answer them


class RequestBudget:
    """The allowances of one fanout.

    A request that comes while its client is in debt is refused after a pause, so that whoever asks again at once asks
    four times a second on each connection, and no more.
    """

    def __init__(
        self,
        now_s: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        credential: budgets.Budget = budgets.REQUESTS,
        address: budgets.Budget = budgets.ADDRESS_REQUESTS,
    ) -> None:
        self._now_s, self._pause = now_s, pause
        self._credentials: Allowances[str] = Allowances(credential)
        self._addresses: Allowances[str] = Allowances(address)

    async def take(self, credential: str, cost: int) -> None:
        """Charge a request to its credential. Raises: Problem 429, while the credential is in debt."""
        await self._take(self._credentials, credential, cost)

    def answered(self, credential: str, size: int) -> None:
        """Charge the bytes of an answer to the credential that asked."""
        now_s = self._now_s()
        self._credentials.of(credential, now_s).spend(0, size, 0, now_s)

    def of_addresses(self, app: ASGIApp, is_known: Callable[[Scope], bool]) -> ASGIApp:
        """Return the application behind the allowances of addresses. `is_known`: whether a request has a good
        credential, whose own allowance it is charged to; so nobody is kept out by others behind the same address.

        Connections of this machine are not charged: a proxy that runs here brings everybody's requests.
        """

        async def enter(scope: Scope, receive: Receive, send: Send) -> None:
            address = scope["client"][0] if scope.get("client") else ""
            if not address or is_within(address, THIS_MACHINE) or scope["path"] in FREE or is_known(scope):
                await app(scope, receive, send)
                return

            client = site_of(address)

            async def count(message: Message) -> None:
                now_s = self._now_s()
                self._addresses.of(client, now_s).spend(0, len(message.get("body", b"")), 0, now_s)
                await send(message)

            try:
                await self._take(self._addresses, client, 1)
            except Problem as problem:
                await told(problem)(scope, receive, send)
            else:
                await app(scope, receive, count)

        return enter

    async def _take(self, allowances: Allowances[str], client: str, cost: int) -> None:
        now_s = self._now_s()
        allowance = allowances.of(client, now_s)
        debt_s = allowance.debt_s(now_s)
        if not debt_s:
            allowance.spend(cost, 0, 0, now_s)
            return
        await self._pause(budgets.REFUSED_PAUSE_S)
        raise Problem(
            429, "too_many_requests", "more was asked than one operator may ask: ask again later",
            {"retry-after": str(max(1, math.ceil(debt_s)))},
        )  # fmt: skip
