"""One agent's socket: tells the gate of everything that happens on it, and does nothing by itself."""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

from websockets.http11 import Request, Response

from processes.adapters.listener import Arrival
from processes.adapters.websocket import Limits, Message, Pacer, WebSocket
from processes.core.gateway.agent_connection import AgentConnection, ConnectionStage
from processes.core.values import CANARY_HOST, CloseCode


class Owner(Protocol):
    """The gate, as a socket sees it."""

    def made(self, socket: AgentSocket) -> None: ...

    def admit(self, socket: AgentSocket, request: Request) -> Response | float | None: ...

    def said(self, socket: AgentSocket, frames: list[Message]) -> int: ...

    def spent(self, socket: AgentSocket, frames: int, size: int, heartbeats: int) -> float: ...

    def gone(self, socket: AgentSocket, code: int, reason: str) -> None: ...


class AgentSocket(WebSocket):
    """`connection` is None until the token is accepted. `doubted`: the token was not known at first.

    `offer`: the name of the one-time code that it offers.
    """

    __slots__ = (
        "_arrival", "_heartbeats", "_owner", "_register", "_register_s_max",
        "connection", "doubted", "made_boot_s", "offer",
    )  # fmt: skip

    def __init__(self, owner: Owner, limits: Limits, register_s_max: float, pacer: Pacer, arrival: Arrival) -> None:
        super().__init__(limits, pacer)
        self._arrival = arrival
        self.connection: AgentConnection | None = None
        self.made_boot_s = 0.0  # CLOCK_BOOTTIME when it was accepted
        self.doubted = False
        self.offer = ""
        self._owner = owner
        self._register_s_max = register_s_max
        self._register: asyncio.TimerHandle | None = None
        self._heartbeats = 0  # valid ones of this turn

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio when the transport is there."""
        super().connection_made(transport)
        self._arrival.opened(cast(asyncio.Transport, transport))
        self._owner.made(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio when the connection has ended."""
        self._arrival.gone()
        super().connection_lost(exc)

    def claim(self, host: str) -> bool:
        """Count the connection as this host's. Return False if the port or the host has too many."""
        return self._arrival.claim(host, is_kept_for=host == CANARY_HOST)

    def on_request(self, request: Request) -> Response | float | None:
        """Called with a request for an upgrade. Return None to let it in, a response that refuses it, or after how many
        seconds to ask again.
        """
        return self._owner.admit(self, request)

    def on_open(self) -> None:
        """Called when the upgrade is done."""
        self._register = asyncio.get_running_loop().call_later(self._register_s_max, self._expect_register)

    def on_messages(self, messages: list[Message]) -> None:
        """Called with the messages of one turn."""
        self._heartbeats = self._owner.said(self, messages)
        if self._register is not None and self.connection is not None and self.connection.is_live:
            self._register.cancel()
            self._register = None

    def on_read(self, frames: int, size: int) -> float:
        """Called at the end of a turn with what was read in it."""
        heartbeats, self._heartbeats = self._heartbeats, 0
        return self._owner.spent(self, frames, size, heartbeats)

    def on_closed(self, code: int, reason: str) -> None:
        """Called when the socket is gone, for whatever reason."""
        if self._register is not None:
            self._register.cancel()
        self._owner.gone(self, code, reason)

    def _expect_register(self) -> None:
        self._register = None
        if self.connection is not None and self.connection.stage is ConnectionStage.AWAITING:
            self.close(CloseCode.POLICY, "no register")
