"""What agents say, on its way into the outbox: who is paused, what waits of whom, what goes before an end. Pure: the
gate carries out the acts that are returned, in their order. Acts of two kinds are never equal, whatever they hold.

    read ──▶ entered in the outbox ──▶ (its host has too much waiting) ──▶ Pause: the rest of the read is held back
                    │                                                       │ the outbox has room for the host again
                    │                                                       ▼
                    │                                       the rest is entered, in its order ──▶ Resume
                    └──▶ refused, for not even that much has room ──▶ Close

Heartbeats never pause a socket: only the newest of each host is kept. How much memory a client can make this gateway
hold is limited here and nowhere else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Generic

import msgspec

from processes.core.gateway.agent_connection import AgentConnection, ConnectionStage, Emitted
from processes.core.gateway.outbox import Outbox, PutResult
from processes.core.gateway.roster import Member, Roster, Socket
from processes.core.travels import messages
from processes.core.travels.messages import AgentRegistered, HeartbeatReceived
from processes.core.values import CloseCode


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


Act = Pause[Socket] | Resume[Socket] | Close[Socket] | Contested | TooMuch


class Intake(Generic[Socket]):
    """Invariant: only paused sockets have a rest: the events that were read after all entered ones.

    Units: `now_s` are seconds of the loop's clock.
    """

    def __init__(self, outbox: Outbox, roster: Roster[Socket]) -> None:
        self.outbox, self.roster = outbox, roster
        self.received = self.dropped = 0  # events
        self._paused: dict[Socket, AgentConnection] = {}
        self._rests: dict[Socket, deque[Emitted]] = {}  # of paused sockets: the events of one read that had no room

    def take(self, member: Member[Socket], events: Iterable[Emitted], now_s: float) -> list[Act[Socket]]:
        """Enter the events until their host has too much waiting; the others become its rest."""
        acts: list[Act[Socket]] = []
        waiting = self._rests.pop(member.socket, deque())
        waiting.extend(events)
        while waiting and member.connection.stage is not ConnectionStage.ENDED and member.socket not in self._paused:
            self._enter(member, waiting.popleft(), now_s, acts)
        if waiting and member.connection.stage is not ConnectionStage.ENDED:
            self._rests[member.socket] = waiting
        return acts

    def resume(self, now_s: float) -> list[Act[Socket]]:
        """Enter the rests of hosts that have room again, and resume the sockets that have no rest left."""
        acts: list[Act[Socket]] = []
        for socket, connection in list(self._paused.items()):
            if not self.outbox.may_resume(connection.host):
                continue
            del self._paused[socket]
            rest = self.take(Member(socket, connection), (), now_s)
            acts += [act for act in rest if not (isinstance(act, Pause) and act.socket == socket)]  # it is still paused
            if socket not in self._paused and connection.stage is not ConnectionStage.ENDED:
                acts.append(Resume(socket))
        return acts

    def leave(self, member: Member[Socket], code: int, reason: str, now_s: float) -> bool:
        """Called when the connection ends, from whichever side, once or more often. Its events that were read go before
        its disconnect, as far as there is room. Return whether the hub is told.
        """
        socket, connection = member
        self._paused.pop(socket, None)
        for emitted in self._rests.pop(socket, ()):
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
        old = self.roster.register(member)
        if old is None:
            return
        self._close(old, CloseCode.REPLACED, "replaced by a newer connection", now_s, acts)
        if self.roster.contested(member.connection.host, now_s):
            acts.append(Contested(member.connection.host, member.connection.address))

    def _close(self, member: Member[Socket], code: int, reason: str, now_s: float, acts: list[Act[Socket]]) -> None:
        self.leave(member, code, reason, now_s)
        acts.append(Close(member.socket, code, reason))
