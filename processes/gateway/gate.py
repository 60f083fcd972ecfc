"""The gate: takes the agents' frames from the sockets to the intake, and the hub's deliveries to the sockets.

core/gateway decides who is let in (admission), who is connected (roster), who is paused, and in which order events go
to the hub (intake). Nothing here waits: the loop's turn or a socket calls, and the call only enqueues.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, assert_never

from websockets.http11 import Request, Response

from processes.adapters.clock import Clock
from processes.adapters.listener import Arrival
from processes.adapters.logs import Log
from processes.adapters.wake import Wake
from processes.adapters.websocket import Limits, Message, Pacer
from processes.core import budgets
from processes.core.budgets import Budget
from processes.core.gateway import admission, census
from processes.core.gateway.admission import DOUBT_S, Admission, Complaints, Refusal, RefusalCounts
from processes.core.gateway.agent_connection import AgentConnection
from processes.core.gateway.delivery_log import DeliveryLog
from processes.core.gateway.impersonation import Impersonation, Impersonations
from processes.core.gateway.intake import Act, Close, Contested, Flooded, Intake, Pause, Resume, Slowed, TooMuch
from processes.core.gateway.outbox import Bounds, Outbox, PutResult
from processes.core.gateway.roster import Member, Roster
from processes.core.travels import agent_frames, enrolment_exchange, messages
from processes.core.travels.messages import (
    CloseConnection,
    CodeAnswered,
    DeliverAck,
    DeliverCommand,
    DeliverKill,
    DeliverRegistered,
    DeliverRotate,
    Delivery,
    HostImpersonated,
    HubStarted,
    TokenChanged,
    TokensPiece,
    Undelivered,
)
from processes.core.values import CloseCode
from processes.gateway.agent_socket import AgentSocket
from processes.gateway.enrolment import Enrolment
from processes.gateway.tokens import Tokens

TABLE_S_MAX: Final = 5.0  # without a current token table for so long: another census, which the hub answers with it
AGENT_LIMITS: Final = Limits(agent_frames.FRAME_BYTES_MAX)
CANARY_S: Final = 0.1  # between two looks for the canary's file
REGISTER_S_MAX: Final = 10.0  # from the upgrade to `register`


class Gate:
    """One gateway's sockets, tokens and outbox. Units: `now_s` in seconds of the loop's clock."""

    def __init__(
        self, name: str, boot: str, tokens: Tokens, log: Log, *,
        bounds: Bounds = Bounds(), budget: Budget = budgets.AGENT,  # noqa: B008
        limits: Limits = AGENT_LIMITS, register_s_max: float = REGISTER_S_MAX,
        table_s_max: float = TABLE_S_MAX, clock: Clock = Clock(),  # noqa: B008  it has no state
        on_contested: Callable[[str], object] = lambda _: None,
        on_impersonated: Callable[[str, str], object] = lambda *_: None,
    ) -> None:  # fmt: skip
        self.name, self.boot, self.tokens, self.log = name, boot, tokens, log
        self.roster: Roster[AgentSocket] = Roster()
        self.outbox = Outbox(bounds, lambda rows: messages.pack_beats(name, rows, batches=self._hub_takes_batches))
        self._hub_takes_batches = False  # as the newest hub has said
        self._intake = Intake(self.outbox, self.roster, budget)
        self._delivery_log = DeliveryLog(boot)
        self.epoch = 0  # the newest of a hub that was seen
        self.stopping = False
        self.wake = Wake()  # something may be done in the next turn
        self.delivered = self.malformed = self.censuses = 0
        self._dropped = 0  # deliveries
        self._limits, self._register_s_max, self._table_s_max = limits, register_s_max, table_s_max
        self._on_contested, self._on_impersonated, self._clock = on_contested, on_impersonated, clock
        self._impersonations = Impersonations()
        self._loop = asyncio.get_running_loop()
        self._pacer = Pacer()
        self._numbers = 0
        self._census_s = self._loop.time()
        self._canary_s = 0.0
        self._refusals, self._complaints = RefusalCounts(self._census_s), Complaints()
        self._enrolment = Enrolment(name, boot, self.outbox, self.wake.set)

    @property
    def received(self) -> int:
        """Return how many events agents have sent."""
        return self._intake.received

    @property
    def impersonations(self) -> int:
        """Return how often an agent claimed to be another host than its token's."""
        return self._impersonations.count

    @property
    def dropped(self) -> int:
        """Return how many events and deliveries had no room, or came from an older hub."""
        return self._intake.dropped + self._enrolment.dropped + self._dropped

    # Called by sockets

    def socket(self, arrival: Arrival) -> AgentSocket:
        """Return a protocol for a connection that was accepted."""
        return AgentSocket(self, self._limits, self._register_s_max, self._pacer, arrival)

    def made(self, socket: AgentSocket) -> None:
        """Called when a socket has its transport."""
        socket.made_boot_s = self._clock.now().boot_s
        self.roster.sockets.add(socket)

    def admit(self, socket: AgentSocket, request: Request) -> Response | float | None:
        """Called with a request for an upgrade. Return None to let it in, a Response that refuses it, or the seconds
        after which to ask again.
        """
        if request.path == enrolment_exchange.PATH:
            offered = self._enrolment.offer(socket, request, self._loop.time())
            return self._refused(offered) if isinstance(offered, Refusal) else offered
        token = self.tokens.find(request.headers.get_all("Authorization"))
        said = admission.admit(
            request.path,
            known=token is not None,
            table_is_current=self.tokens.is_current,
            asked_before=socket.doubted,
            stopping=self.stopping,
            full=token is not None and not socket.claim(token.host),
            banned_s=0.0 if token is None else self._intake.allowances.banned_s(token.host, self._loop.time()),
        )
        if isinstance(said, Refusal):
            return self._refused(said)
        if said is Admission.ASK_AGAIN:
            socket.doubted = True
            return DOUBT_S
        assert token is not None
        self._numbers += 1
        socket.connection = AgentConnection(
            f"{self.boot}.{self._numbers}", self.name, token, socket.peer, socket.made_boot_s
        )
        return None

    def _refused(self, said: Refusal) -> Response:
        self._refusals.refused(said)
        again = None if said.retry_after_s is None else {"Retry-After": str(said.retry_after_s)}
        return AgentSocket.refusal(said.status, said.text, again)

    def said(self, socket: AgentSocket, frames: list[Message]) -> int:
        """Called with the messages of one turn of reading. Return how many of them were valid heartbeats."""
        connection = socket.connection
        if connection is None:
            return 0
        gathers, member = self.outbox.gathers, Member(socket, connection)
        beats = self._intake.take_heartbeats(member, frames, self._loop.time())
        if beats == len(frames):
            if not gathers:
                self.wake.set()  # else it knows when heartbeats go
            return beats
        read = connection.read(frames[beats:], self._clock.now().boot_s)
        if read.malformed:
            self.malformed += len(read.malformed)
            if times := self._complaints.times(connection.host, len(read.malformed), self._loop.time()):
                told = {"host": connection.host, "peer": connection.address, "why": read.malformed[0]}
                self.log.warning("malformed frame", **told, times=times)
        self._carry_out(self._intake.take(member, read.events, self._loop.time()))
        if read.close is not None:
            if read.claimed:
                self._impersonations.saw(connection.host, connection.id, read.claimed, connection.address)
            self.end(socket, *read.close)
        if not gathers or read.close is not None or len(read.events) != read.heartbeats:
            self.wake.set()
        return beats + read.heartbeats

    def spent(self, socket: AgentSocket, frames: int, size: int, heartbeats: int) -> float:
        """Called at the end of a turn of reading. Return for how many seconds nothing more is to be read."""
        if socket.connection is None:
            return 0.0
        member = Member(socket, socket.connection)
        rest_s, acts = self._intake.spend(member, frames, size, heartbeats, self._loop.time())
        self._carry_out(acts)
        return rest_s

    def gone(self, socket: AgentSocket, code: int, reason: str) -> None:
        """Called when a socket is gone, for whatever reason."""
        self.roster.gone(socket)
        self._leave(socket, code, reason)

    def end(self, socket: AgentSocket, code: int, reason: str) -> None:
        """Close a connection; for the hub it is gone from now on."""
        self._leave(socket, code, reason)
        socket.close(code, reason)

    def end_all(self) -> None:
        """Let no agent in any more, and close every connection with the request to come back soon."""
        self.stopping = True
        for socket in list(self.roster.sockets):
            self.end(socket, CloseCode.RESTART, "restart")

    def _leave(self, socket: AgentSocket, code: int, reason: str) -> None:
        connection = socket.connection
        if connection is not None and self._intake.leave(Member(socket, connection), code, reason, self._loop.time()):
            self.wake.set()

    def _carry_out(self, acts: Iterable[Act[AgentSocket]]) -> None:
        for act in acts:
            match act:
                case Pause(socket):
                    socket.pause()
                case Resume(socket):
                    socket.resume()
                case Close(socket, code, reason):
                    self.wake.set()
                    socket.close(code, reason)
                case Contested(host, address):
                    self._on_contested(host)
                    self.log.warning("identity contested", host=host, peer=address)
                case TooMuch(host):
                    self.log.warning("too much waits of one host", host=host)
                case Slowed(host):
                    self.log.warning("a host sends more than it may: it is read slowly", host=host)
                case Flooded(host, address):
                    self.log.warning("a host went on sending more than it may: closed", host=host, peer=address)
                case _:
                    assert_never(act)

    # Deliveries of the hub

    def deliver(self, message: Delivery) -> None:
        """Carry out a delivery. A delivery of an older hub than the newest seen is dropped: that hub may have been
        replaced without knowing it.
        """
        # plant: gateway-epoch
        if message.epoch < self.epoch:
            self._dropped += 1
            return
        if message.epoch > self.epoch:
            self.epoch = message.epoch
            self.take_census()
        match message:
            case HubStarted():
                pass
            case TokensPiece():
                self._hub_takes_batches = message.batches
                if self.tokens.table.piece(message):
                    self._end_revoked()
            case TokenChanged():
                self.tokens.table.change(message)
                self._end_others(message)
            case CodeAnswered():
                self._enrolment.answered(message, self._loop.time())
            case DeliverCommand():
                self._deliver_command(message)
            case DeliverRegistered() | DeliverAck() | DeliverKill() | DeliverRotate() | CloseConnection():
                self._deliver_frame(message)
            case _:
                assert_never(message)
        self.delivered += 1

    def take_census(self) -> None:
        """Name every registered connection to the hub anew, before anything else."""
        self.censuses += 1
        self._census_s = self._loop.time()
        self.outbox.start_census(census.pieces(self.name, self.boot, self.censuses, self.roster.connections()))
        self.wake.set()

    def miss_deliveries(self) -> None:
        """Called when deliveries were lost: tokens may have changed meanwhile, and the hub may wait for a census to
        learn which commands were never written.
        """
        self.tokens.table.lose()
        self.take_census()

    # Once a turn

    def look(self, now_s: float) -> None:
        """Called once a turn: read the canary's file, take a wanted census, resume paused sockets, log refusals."""
        if now_s >= self._canary_s:
            self._canary_s = now_s + CANARY_S
            if self.tokens.look_for_canary():
                self._end_revoked()
        if self.outbox.census_wanted or (not self.tokens.is_current and now_s - self._census_s >= self._table_s_max):
            self.take_census()
        self._carry_out(self._intake.resume(now_s))
        if counts := self._refusals.take(now_s):
            self.log.info("refused connections", **counts)
        for seen in self._impersonations.due(now_s):
            self._tell_impersonation(seen, now_s)

    # Inside

    def _tell_impersonation(self, seen: Impersonation, now_s: float) -> None:
        """Tell log, hub and watchdog that an agent with this host's token claimed to be another."""
        self.log.warning(
            "an agent claimed to be another host",
            host=seen.host, claimed=seen.claimed, peer=seen.address, times=seen.times,
        )  # fmt: skip
        event = HostImpersonated(seen.connection, self.name, seen.host, seen.claimed, seen.address, seen.times)
        self.outbox.put_presence(seen.host, messages.encode(event), now_s)
        self._on_impersonated(seen.host, f"it registered as {seen.claimed[:80]}, last from {seen.address}")
        self.wake.set()

    def _end_revoked(self) -> None:
        for socket in list(self.roster.sockets):
            if socket.connection is not None and not self.tokens.holds(socket.connection.token):
                self.end(socket, CloseCode.REVOKED, "the token is no longer valid")

    def _end_others(self, change: TokenChanged) -> None:
        """End the host's connections under other tokens, at once, even while the table is not current."""
        for socket in list(self.roster.sockets):
            connection = socket.connection
            if connection is not None and connection.host == change.host and connection.token != change.token:
                self.end(socket, change.code, change.reason)

    def _deliver_command(self, message: DeliverCommand) -> None:
        member = self.roster.find(message.connection)
        if member is not None and not member.connection.may_write(message.command_id):
            return
        ttl_s = None
        if message.expires_boot_s is not None:  # 0 once it has expired: the agent refuses the command and reports that
            ttl_s = max(message.expires_boot_s - self._clock.now().boot_s, 0.0)
        frame = agent_frames.CommandFrame(message.op, message.command_id, message.attempt, ttl_s)
        if member is not None and member.socket.send(agent_frames.encode(frame)):
            member.connection.wrote(message.command_id, message.op)
            if member.connection.is_foreign:
                self._delivery_log.add(member.connection.id, message.command_id)
            return
        if not self._delivery_log.never(message.connection, message.command_id):
            return  # written before, or by an earlier life of this gateway: the hub learns it by the connection's end
        event = Undelivered(message.connection, self.name, message.host, message.command_id, message.attempt)
        if self.outbox.put(message.host, messages.encode(event), self._loop.time()) is PutResult.REFUSED:
            self._dropped += 1  # the hub learns of it by the disconnect, or by the command's silence
        self.wake.set()

    def _deliver_frame(
        self, message: DeliverRegistered | DeliverAck | DeliverKill | DeliverRotate | CloseConnection
    ) -> None:
        member = self.roster.find(message.connection)
        if member is None:
            return  # its disconnect is on its way to the hub
        frame: agent_frames.HubFrame | None = None
        match message:
            case DeliverRegistered():
                frame = member.connection.tell(message.heartbeat_interval)
            case DeliverAck():
                if not member.connection.is_foreign:
                    frame = agent_frames.Ack(message.command_id, message.offset, message.quarantined)
            case DeliverKill():
                frame = agent_frames.KillCommand(message.signal, message.command_id)
            case DeliverRotate():
                frame = None if member.connection.is_foreign else agent_frames.RotateOwnToken()
            case CloseConnection():
                self.end(member.socket, message.code, message.reason)
        if frame is not None:
            member.socket.send(agent_frames.encode(frame))
