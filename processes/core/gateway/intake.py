"""What agents say, on its way into the outbox: who is paused, what waits of whom, what goes before an end. Pure: the
gate carries out the acts that are returned, in their order. Acts of two kinds are never equal, whatever they hold.

    read ──▶ entered in the outbox ──▶ (its host has too much waiting) ──▶ Pause: the rest of the read is held back
                    │                                                       │ the outbox has room for the host again
                    │                                                       ▼
                    │                                       the rest is entered, in its order ──▶ Resume
                    └──▶ refused, for not even that much has room ──▶ Close

Heartbeats never pause a socket: only the newest of each host is kept. How much of a host may wait is limited by the
outbox (Bounds in outbox.py). How much a host may send, on however many connections, is its allowance (core/budgets.py):
beyond it its connection rests, and is closed in the end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final, Generic

import msgspec

from processes.core import budgets
from processes.core.budgets import Allowances, Budget
from processes.core.gateway.agent_connection import AgentConnection, ConnectionStage, Emitted
from processes.core.gateway.outbox import Outbox, PutResult
from processes.core.gateway.roster import Member, Roster, Socket
from processes.core.travels import messages
from processes.core.travels.messages import AgentRegistered, HeartbeatReceived, HostFlooded
from processes.core.values import CloseCode

TOLD_S: Final = 60.0  # between two lines that say of one host that it is slowed
TOLD_MAX: Final = 100  # hosts of which that is said within TOLD_S
ENDED_REST_S: Final = 1.0  # between two turns of a connection that was closed, and whose peer goes on talking
FLOODED: Final = "more was sent than a host may send: come back later"


class Pause(msgspec.Struct, Generic[Socket], frozen=True):
    """Stop reading from this socket."""

    socket: Socket


class Resume(msgspec.Struct, Generic[Socket], frozen=True):
    """Read from this socket again."""

    socket: Socket


class Close(msgspec.Struct, Generic[Socket], frozen=True):
    """Close this socket, which has left already."""

    socket: Socket
    code: int
    reason: str


class Contested(msgspec.Struct, frozen=True):
    """Say that two agents claim to be this host."""

    host: str
    address: str


class TooMuch(msgspec.Struct, frozen=True):
    """Say that an event of this host was dropped, for too much of it waits."""

    host: str


class Slowed(msgspec.Struct, frozen=True):
    """Say that this host has begun to send more than it may."""

    host: str


class Flooded(msgspec.Struct, frozen=True):
    """Say that a connection of this host was closed, for it did not stop sending more than it may."""

    host: str
    address: str


Act = Pause[Socket] | Resume[Socket] | Close[Socket] | Contested | TooMuch | Slowed | Flooded


class Intake(Generic[Socket]):
    """Invariant: events are held back of paused sockets alone, and were read after all events that are entered.

    Units: `now_s` are seconds of the loop's clock.
    """

    def __init__(self, outbox: Outbox, roster: Roster[Socket], budget: Budget = budgets.AGENT) -> None:
        self.outbox, self.roster = outbox, roster
        self.received = self.dropped = 0  # events
        self.allowances: Allowances[str] = Allowances(budget)  # by host
        self._slowed_s: dict[str, float] = {}  # when it was told last
        self._paused: dict[Socket, AgentConnection] = {}
        self._held_back: dict[Socket, deque[Emitted]] = {}  # of paused sockets: the events of one read that had no room

    def take(self, member: Member[Socket], events: Iterable[Emitted], now_s: float) -> list[Act[Socket]]:
        """Enter the events until their host has too much waiting; the others are held back."""
        acts: list[Act[Socket]] = []
        waiting = self._held_back.pop(member.socket, deque())
        waiting.extend(events)
        while waiting and member.connection.stage is not ConnectionStage.ENDED and member.socket not in self._paused:
            self._enter(member, waiting.popleft(), now_s, acts)
        if waiting and member.connection.stage is not ConnectionStage.ENDED:
            self._held_back[member.socket] = waiting
        return acts

    def take_heartbeats(self, member: Member[Socket], said: Iterable[tuple[bytes, bool]], now_s: float) -> int:
        """Enter the usual heartbeats that stand before anything else of what was read: messages, and whether each is a
        text. Return how many: none, if something of their connection is held back, which they must not overtake.
        """
        taken, connection = 0, member.connection
        if self._paused and member.socket in self._paused:
            return taken
        for data, is_text in said:
            row = connection.usual_heartbeat(data) if is_text else None
            if row is None:
                break
            taken += 1
            self.outbox.put_heartbeat(connection.host, connection.id, row, now_s)
        self.received += taken
        return taken

    def spend(
        self, member: Member[Socket], frames: int, size: int, heartbeats: int, now_s: float
    ) -> tuple[float, list[Act[Socket]]]:
        """Count what was read of a connection. Return for how many seconds nothing more is to be read of it, and what
        else comes of it.
        """
        connection = member.connection
        if connection.stage is ConnectionStage.ENDED:
            return ENDED_REST_S, []
        allowance = self.allowances.of(connection.host, now_s)
        spent = allowance.spend(frames, size, heartbeats, now_s)
        if not spent.rest_s:
            return 0.0, []
        acts: list[Act[Socket]] = []
        if spent.is_over:
            if allowance.close(now_s):
                flooded = HostFlooded(connection.id, connection.gateway, connection.host)
                self.outbox.put_presence(connection.host, messages.encode(flooded), now_s)
            acts.append(Flooded(connection.host, connection.address))
            self._close(member, CloseCode.POLICY, FLOODED, now_s, acts)
        elif now_s - self._slowed_s.get(connection.host, -TOLD_S) >= TOLD_S:
            self._tell_slowed(connection.host, now_s, acts)
        return spent.rest_s, acts

    def _tell_slowed(self, host: str, now_s: float, acts: list[Act[Socket]]) -> None:
        if len(self._slowed_s) >= TOLD_MAX:
            self._slowed_s = {name: at_s for name, at_s in self._slowed_s.items() if now_s - at_s < TOLD_S}
        if len(self._slowed_s) < TOLD_MAX:
            self._slowed_s[host] = now_s
            acts.append(Slowed(host))

    def resume(self, now_s: float) -> list[Act[Socket]]:
        """Enter what is held back of hosts that have room again, and resume the sockets of which all is entered."""
        acts: list[Act[Socket]] = []
        for socket, connection in list(self._paused.items()):
            if not self.outbox.may_resume(connection.host):
                continue
            del self._paused[socket]
            taken = self.take(Member(socket, connection), (), now_s)
            acts += [
                act for act in taken if not (isinstance(act, Pause) and act.socket == socket)
            ]  # it is still paused
            if socket not in self._paused and connection.stage is not ConnectionStage.ENDED:
                acts.append(Resume(socket))
        return acts

    def leave(self, member: Member[Socket], code: int, reason: str, now_s: float) -> bool:
        """Called when the connection ends, from whichever side, once or more often. Its events that were read go before
        its disconnect, as far as there is room. Return whether the hub is told.
        """
        socket, connection = member
        self._paused.pop(socket, None)
        for emitted in self._held_back.pop(socket, ()):
            if isinstance(emitted.event, HeartbeatReceived):
                continue
            if self.outbox.put(connection.host, emitted.item, now_s) is PutResult.REFUSED:
                self.dropped += 1
                break
        event = connection.end(code, reason)
        if event is None:
            return False
        self.roster.unregister(connection)
        self.outbox.forget_heartbeat(connection.host, connection.id)
        self.outbox.put_presence(connection.host, messages.encode(event), now_s)
        return True

    def _enter(self, member: Member[Socket], emitted: Emitted, now_s: float, acts: list[Act[Socket]]) -> None:
        host, outbox = member.connection.host, self.outbox
        self.received += 1
        match emitted.event:
            case AgentRegistered():
                outbox.put_presence(host, emitted.item, now_s)
                self._register(member, now_s, acts)
            case HeartbeatReceived():
                outbox.put_heartbeat(host, member.connection.id, emitted.item, now_s)
            case _:
                result = outbox.put(host, emitted.item, now_s)
                if result is PutResult.REFUSED:
                    self.dropped += 1
                    acts.append(TooMuch(host))
                    self._close(member, CloseCode.GOING_AWAY, "too much is waiting", now_s, acts)
                elif result is PutResult.PAUSE:
                    self._paused[member.socket] = member.connection
                    acts.append(Pause(member.socket))

    def _register(self, member: Member[Socket], now_s: float, acts: list[Act[Socket]]) -> None:
        host, old = member.connection.host, self.roster.register(member)
        if old is member:  # what it says was said before the other was made, and came later
            self._close(member, CloseCode.REPLACED, "replaced by a newer connection", now_s, acts)
            return
        is_contested = self.roster.returns(host, member.connection.life)
        if old is not None:
            self._close(old, CloseCode.REPLACED, "replaced by a newer connection", now_s, acts)
            is_contested |= self.roster.contested(host, now_s)
        if is_contested:
            acts.append(Contested(host, member.connection.address))

    def _close(self, member: Member[Socket], code: int, reason: str, now_s: float, acts: list[Act[Socket]]) -> None:
        self.leave(member, code, reason, now_s)
        acts.append(Close(member.socket, code, reason))
