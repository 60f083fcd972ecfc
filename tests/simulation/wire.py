"""One agent's TCP connection to a gateway: in order within itself, delayed, cut with what is in flight, or silently
half open.

The gateway's side stands in for gateway.connection.AgentConnection, so that the real gate can own it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from simulation.timeline import Life
from websockets.datastructures import Headers
from websockets.http11 import Request

from processes.adapters.websocket import Message
from processes.core.gateway.agent_connection import AgentConnection, ConnectionStage
from processes.core.values import CloseCode

if TYPE_CHECKING:
    from simulation.world import World

GATEWAY_SILENT_S_MAX = 20.0  # the gateway's pings find a dead peer
AGENT_SILENT_S_MAX = 45.0
REGISTER_S_MAX = 10.0


class Refusal(NamedTuple):
    """The upgrade was answered with this HTTP status."""

    status: int
    retry_after_s: float | None


class Wire:
    """Both ends. `hear` gets texts, `lost` the close code, once."""

    def __init__(
        self, world: World, agent: Life, gateway: Life, hear: Callable[[bytes], None], lost: Callable[[int], None]
    ) -> None:
        self._world, self._agent, self._gateway = world, agent, gateway
        self._hear, self._lost = hear, lost
        self.name = f"{agent.name} to {gateway.name}"
        self.socket: Socket
        self.open = True
        self._up_s = self._down_s = 0.0  # when the last frame of each direction arrives
        self._dark_up = self._dark_down = False
        self._agent_told = self._gateway_told = False
        self._doomed = False

    @classmethod
    def dial(
        cls,
        world: World,
        agent: Life,
        token: str,
        address: str,
        *,
        hear: Callable[[bytes], None],
        lost: Callable[[int], None],
    ) -> Wire | Refusal | None:
        """A connection; how it was refused; None: nobody is there."""
        gateways = [gateway for gateway in world.gateways if gateway[0].alive]
        if not gateways:
            return None
        life, gate = world.dice.choice(gateways)
        wire = cls(world, agent, life, hear, lost)
        socket = wire.socket = Socket(wire, life, gate, address, next(world.numbers))
        request = Request("/ws", Headers({"Authorization": f"Bearer {token}"}))
        response = life.context.run(socket.open, request)
        if response is not None:
            after = response.headers.get("Retry-After")
            return Refusal(response.status_code, float(after) if after else None)
        world.wires[wire] = None
        life.later(REGISTER_S_MAX, socket.expect_register)
        return wire

    def belongs(self, life: Life) -> bool:
        """True if this life is one of its ends."""
        return life is self._agent or life is self._gateway

    # frames

    def up(self, text: bytes) -> None:
        """The agent writes."""
        if self.open and not self._dark_up:
            self._world.frame(self._agent, self._gateway, text)
            self._up_s = max(self._up_s, self._world.loop.now_s + self._world.net_s())
            self._gateway.later(self._up_s - self._world.loop.now_s, self._arrive_up, text)

    def down(self, text: bytes) -> None:
        """The gateway writes."""
        if self.open and not self._dark_down:
            self._world.frame(self._gateway, self._agent, text)
            self._down_s = max(self._down_s, self._world.loop.now_s + self._world.net_s())
            self._agent.later(self._down_s - self._world.loop.now_s, self._arrive_down, text)

    def _arrive_up(self, text: bytes) -> None:
        if not self._gateway_told and not (self._doomed or self._dark_up):
            self.socket.take(text)

    def _arrive_down(self, text: bytes) -> None:
        if not self._agent_told and not (self._doomed or self._dark_down):
            self._hear(text)

    # ends

    def cut(self) -> None:
        """A reset: what is in flight is lost, and each side hears of it in its own time."""
        if self.open:
            self._doomed, self.open = True, False
            dice = self._world.dice
            self._tell_gateway(dice.uniform(0.001, 2.0))
            self._tell_agent(dice.uniform(0.001, 2.0), 1006)

    def go_dark(self, up: bool, down: bool) -> None:
        """Half open: frames vanish, and only silence tells."""
        self._dark_up, self._dark_down = self._dark_up or up, self._dark_down or down
        self._world.loop.call_later(GATEWAY_SILENT_S_MAX, self._found_dark)

    def _found_dark(self) -> None:
        if self.open:
            self._doomed, self.open = True, False
            self._tell_gateway(0.001)
            self._tell_agent(AGENT_SILENT_S_MAX - GATEWAY_SILENT_S_MAX if self._dark_down else 0.05, 1006)

    def ended_by(self, life: Life) -> None:
        """One of its ends has died: the other meets a reset, after what was under way already."""
        if not self.open:
            return
        self.open = False
        self._doomed = self._world.dice.random() < 0.5
        if life is self._agent:
            self._tell_gateway(max(self._up_s - self._world.loop.now_s, 0.0) + self._world.net_s())
        else:
            self._tell_agent(max(self._down_s - self._world.loop.now_s, 0.0) + self._world.net_s(), 1006)

    def close(self, life: Life, code: int) -> None:
        """One of its ends says goodbye: what it wrote before arrives before."""
        if not self.open:
            return
        self.open = False
        self._world.closes(life, self._gateway if life is self._agent else self._agent, code)
        if life is self._agent:
            self._tell_gateway(max(self._up_s - self._world.loop.now_s, 0.0) + 0.001, code)
        else:
            self._tell_agent(max(self._down_s - self._world.loop.now_s, 0.0) + 0.001, code)
            self._tell_gateway(0.05, code)

    def _tell_gateway(self, delay_s: float, code: int = 1006) -> None:
        self._gateway.later(delay_s, self._told_gateway, code)
        self._world.wires.pop(self, None)

    def _told_gateway(self, code: int) -> None:
        if not self._gateway_told:
            self._gateway_told = True
            self.socket.gone(code)

    def _tell_agent(self, delay_s: float, code: int) -> None:
        self._agent.later(delay_s, self._told_agent, code)
        self._world.wires.pop(self, None)

    def _told_agent(self, code: int) -> None:
        if not self._agent_told:
            self._agent_told = True
            self._lost(code)


class Socket:
    """The gateway's end: what the gate knows as a connection."""

    def __init__(self, wire: Wire, life: Life, gate: Any, address: str, number: int) -> None:
        self.wire, self._life, self._gate = wire, life, gate
        self.connection: AgentConnection | None = None
        self.made_boot_s = 0.0
        self.doubted = False
        self.peer = address
        self._number = number
        self._paused = False
        self._unread: list[bytes] = []

    def __hash__(self) -> int:
        return self._number  # sets of sockets are walked in the same order in each run

    def __eq__(self, other: object) -> bool:
        return self is other

    def open(self, request: Request) -> Any:
        """The upgrade: None, or the refusal."""
        self._gate.made(self)
        response = self._gate.admit(self, request)
        if isinstance(
            response, float
        ):  # it is to be asked again: here at once, for a token that comes meanwhile makes it easier
            response = self._gate.admit(self, request)
        if response is not None:
            self._gate.gone(self, 1000, "refused")
        return response

    def take(self, text: bytes) -> None:
        """A message has arrived."""
        self.wire._world.witness.heard(self)
        if self._paused:
            self._unread.append(text)
        else:
            self._gate.said(self, [Message(text, True)])

    def claim(self, host: str) -> bool:
        """There is room for every host."""
        return True

    def expect_register(self) -> None:
        """As AgentConnection's timer."""
        if self.connection is not None and self.connection.stage is ConnectionStage.AWAITING:
            self.close(CloseCode.POLICY, "no register")

    def gone(self, code: int) -> None:
        """The connection is no more."""
        self._gate.gone(self, code, "")

    def send(self, text: bytes) -> bool:
        """Part of AgentConnection."""
        if not self._life.alive or not self.wire.open:
            return False
        self.wire._world.witness.written(self._life, self.connection, text)
        self._life.spend("before a frame to an agent")
        self.wire.down(text)
        return True

    def close(self, code: int, reason: str = "") -> None:
        """Part of AgentConnection."""
        self.wire.close(self._life, int(code))

    def abort(self) -> None:
        """Part of AgentConnection."""
        self.wire.cut()

    def pause(self) -> None:
        """Part of AgentConnection."""
        self._paused = True

    def resume(self) -> None:
        """Part of AgentConnection."""
        self._paused = False
        unread, self._unread = self._unread, []
        for text in unread:
            self.take(text)
