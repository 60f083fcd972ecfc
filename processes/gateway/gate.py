"""The gate: what happens on the agents' sockets goes to the outbox, what the hub delivers goes to the sockets.

Nothing here waits: everything is called by the loop's turn or by a socket, and only enqueues.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from typing import Final, assert_never

from websockets.http11 import Request, Response

from processes.adapters import clock
from processes.adapters.logs import Log
from processes.adapters.websocket import Limits, Message, Pacer
from processes.core.gateway import census
from processes.core.gateway.agent_connection import AgentConnection, ConnectionStage, Emitted
from processes.core.gateway.delivery_log import DeliveryLog
from processes.core.gateway.outbox import Bounds, Outbox, PutResult
from processes.core.travels import agent_frames, messages
from processes.core.travels.messages import (
    AgentDisconnected,
    AgentRegistered,
    CloseConnection,
    DeliverAck,
    DeliverCommand,
    DeliverKill,
    DeliverRegistered,
    Delivery,
    HeartbeatReceived,
    HubStarted,
    TokenChanged,
    TokensPiece,
    Undelivered,
)
from processes.core.values import CloseCode
from processes.gateway.agent_socket import AgentSocket
from processes.gateway.roster import Roster
from processes.gateway.tokens import Tokens

PATH: Final = "/ws"
RETRY_AFTER_S: Final = "2"  # said with 503; the token table is asked for again every TABLE_S_MAX
TABLE_S_MAX: Final = 5.0  # without a current token table for so long: another census, which the hub answers with it
COUNTS_S: Final = 10.0  # refusals are logged as sums: whoever knocks a thousand times a second writes no thousand lines
AGENT_LIMITS: Final = Limits(agent_frames.FRAME_BYTES_MAX)
UPGRADES_MAX: Final = 100  # in one pass of the loop: about 20 ms
# until an unknown token is looked up once more, and is wrong then; a delivery is here within some 10 ms
DOUBT_S: Final = 1.0
REGISTER_S_MAX: Final = 10.0  # from the upgrade to `register`


class Gate:
    """One gateway's sockets, tokens and outbox.

    Units: `now_s` are seconds of the loop's clock.
    """

    def __init__(
        self, name: str, boot: str, tokens: Tokens, log: Log, *, sockets_max: int,
        bounds: Bounds = Bounds(), limits: Limits = AGENT_LIMITS, register_s_max: float = REGISTER_S_MAX,  # noqa: B008  both are immutable
        on_contested: Callable[[str], object] = lambda _: None,
    ) -> None:  # fmt: skip
        self.name, self.boot, self.tokens, self.log = name, boot, tokens, log
        self.roster = Roster(sockets_max)
        self.outbox = Outbox(bounds)
        self._written = DeliveryLog(boot)
        self.epoch = 0  # the newest of a hub that was seen
        self.stopping = False
        self.wake = asyncio.Event()  # something may be done in the next turn
        self.received = self.delivered = self.dropped = self.malformed = self.contested = 0
        self._limits, self._register_s_max, self._on_contested = limits, register_s_max, on_contested
        self._loop = asyncio.get_running_loop()
        self._pacer = Pacer(UPGRADES_MAX)
        self._numbers = self._censuses = 0
        self._paused: dict[AgentSocket, str] = {}
        self._rests: dict[AgentSocket, deque[Emitted]] = {}  # of paused ones: what one read brought too much
        self._refused: Counter[int] = Counter()
        self._census_s = self._counts_s = self._loop.time()

    # What sockets say

    def connection(self) -> AgentSocket:
        """A protocol for a new transport."""
        return AgentSocket(self, self._limits, self._register_s_max, self._pacer)

    def made(self, connection: AgentSocket) -> None:
        """Part of Owner."""
        dawdler = self.roster.made(connection)
        if dawdler is not None:
            self._refused[0] += 1
            dawdler.abort()

    def admit(self, connection: AgentSocket, request: Request) -> Response | float | None:
        """Part of Owner: lets the request in, with a session, or says why not, or when to ask again.

        Whoever enrolled a host has its token as soon as the hub has written it, and we hear of it by another queue, a
        moment later: nobody is turned away for being fast. (Ours waits a minute after a 401.)
        """
        token = self.tokens.find(request.headers.get_all("Authorization"))
        if request.path.partition("?")[0] != PATH:
            return self._refuse(404, f"Agents connect to {PATH}.\n")
        if self.stopping or self.roster.is_full:
            return self._refuse(503, "No room. Try again later.\n")
        if token is None and not self.tokens.is_current:
            return self._refuse(503, "The tokens are not known yet. Try again soon.\n")
        if token is None and not connection.doubted:
            connection.doubted = True
            return DOUBT_S
        if token is None:
            return self._refuse(401, "The token is missing or wrong.\n")
        self._numbers += 1
        connection.session = AgentConnection(f"{self.boot}.{self._numbers}", self.name, token, connection.peer)
        self.roster.let_in(connection)
        return None

    def said(self, connection: AgentSocket, frames: list[Message]) -> None:
        """Part of Owner."""
        session = connection.session
        if session is None:
            return
        reading = session.read(frames, clock.now().boot_s)
        for complaint in reading.malformed:
            self.malformed += 1
            self.log.warning("malformed frame", host=session.host, peer=session.address, why=complaint)
        self._take(connection, session, deque(reading.events))
        if reading.close is not None:
            self.end(connection, *reading.close)
        self.wake.set()

    def gone(self, connection: AgentSocket, code: int, reason: str) -> None:
        """Part of Owner."""
        self.roster.gone(connection)
        self._leave(connection, code, reason)

    def end(self, connection: AgentSocket, code: int, reason: str) -> None:
        """Closes a connection; for the hub it is gone from now on."""
        self._leave(connection, code, reason)
        connection.close(code, reason)

    def end_all(self) -> None:
        """Nobody is let in any more, and everybody is asked to come back soon."""
        self.stopping = True
        for connection in list(self.roster.sockets):
            self.end(connection, CloseCode.RESTART, "restart")

    # What the hub says

    def deliver(self, message: Delivery) -> None:
        """Does what a delivery asks. One of an older hub than was seen is dropped: it may have been replaced, and not
        know it.
        """
        # plant: gateway-epoch
        if message.epoch < self.epoch:
            self.dropped += 1
            return
        if message.epoch > self.epoch:
            self.epoch = message.epoch
            self.take_census()
        match message:
            case HubStarted():
                pass
            case TokensPiece():
                if self.tokens.table.piece(message):
                    self._end_revoked()
            case TokenChanged():
                self.tokens.table.change(message)
                self._end_others(message)
            case DeliverCommand():
                self._deliver_command(message)
            case DeliverRegistered() | DeliverAck() | DeliverKill() | CloseConnection():
                self._deliver_frame(message)
            case _:
                assert_never(message)
        self.delivered += 1

    def take_census(self) -> None:
        """Everybody who is registered is named to the hub anew, before anything else."""
        self._censuses += 1
        self._census_s = self._loop.time()
        self.outbox.start_census(census.pieces(self.name, self.boot, self._censuses, self.roster.sessions()))
        self.wake.set()

    def miss_deliveries(self) -> None:
        """Deliveries were lost: tokens may have changed unheard, commands may wait for a census to say they never
        came.
        """
        self.tokens.table.lose()
        self.take_census()

    # What time says

    def look(self, now_s: float) -> None:
        """Once a turn: the canary's file, the wish for a token table, what can be read again, the sums of refusals."""
        if self.tokens.look_for_canary():
            self._end_revoked()
        if self.outbox.census_wanted or (not self.tokens.is_current and now_s - self._census_s >= TABLE_S_MAX):
            self.take_census()
        for connection, host in list(self._paused.items()):
            if self.outbox.may_resume(host):
                del self._paused[connection]
                self._resume(connection)
        if self._refused and now_s - self._counts_s >= COUNTS_S:
            sums = {
                f"status_{status}" if status else "dawdled": count for status, count in sorted(self._refused.items())
            }
            self.log.info("refused connections", **sums)
            self._refused.clear()
            self._counts_s = now_s

    # Inside

    def _take(self, connection: AgentSocket, session: AgentConnection, events: deque[Emitted]) -> None:
        """Enqueues them, until its host has too much waiting: the rest of what was read already waits with the
        connection.
        """
        while events and session.stage is not ConnectionStage.ENDED and connection not in self._paused:
            self._enqueue(connection, session, events.popleft())
        if events and session.stage is not ConnectionStage.ENDED:
            self._rests.setdefault(connection, deque()).extend(events)

    def _resume(self, connection: AgentSocket) -> None:
        if connection.session is not None and connection in self._rests:
            self._take(connection, connection.session, self._rests.pop(connection))
        if connection not in self._paused:
            connection.resume()

    def _enqueue(self, connection: AgentSocket, session: AgentConnection, emitted: Emitted) -> None:
        self.received += 1
        now_s = self._loop.time()
        match emitted.event:
            case AgentRegistered():
                self.outbox.put_presence(session.host, emitted.item, now_s)
                self._register(connection, session, now_s)
            case HeartbeatReceived():
                self.outbox.put_heartbeat(session.host, session.connection, emitted.item, now_s)
            case _:
                answer = self.outbox.put(session.host, emitted.item, now_s)
                if answer is PutResult.REFUSED:
                    self.dropped += 1
                    self.log.warning("too much waits of one host", host=session.host)
                    self.end(connection, CloseCode.GOING_AWAY, "too much is waiting")
                elif answer is PutResult.PAUSE:
                    self._paused[connection] = session.host
                    connection.pause()

    def _register(self, connection: AgentSocket, session: AgentConnection, now_s: float) -> None:
        old = self.roster.register(session, connection)
        if old is None:
            return
        self.end(old, CloseCode.REPLACED, "replaced by a newer connection")
        if self.roster.contested(session.host, now_s):
            self.contested += 1
            self._on_contested(session.host)
            self.log.warning("identity contested", host=session.host, peer=session.address)

    def _leave(self, connection: AgentSocket, code: int, reason: str) -> None:
        session = connection.session
        self._paused.pop(connection, None)
        rest = self._rests.pop(connection, ())
        if session is None:
            return
        for emitted in rest:  # said before the end, and read: it goes before the disconnect, as far as there is room
            if isinstance(emitted.event, HeartbeatReceived):
                continue
            if self.outbox.put(session.host, emitted.item, self._loop.time()) is PutResult.REFUSED:
                self.dropped += 1
                break
        event: AgentDisconnected | None = session.end(code, reason)
        if event is None:
            return
        self.roster.unregister(session)
        self.outbox.forget_heartbeat(session.host, session.connection)
        self.outbox.put_presence(session.host, messages.encode(event), self._loop.time())
        self.wake.set()

    def _end_revoked(self) -> None:
        for connection in list(self.roster.sockets):
            if connection.session is not None and not self.tokens.holds(connection.session.token):
                self.end(connection, CloseCode.REVOKED, "the token is no longer valid")

    def _end_others(self, change: TokenChanged) -> None:
        """At once, also while the table is not current: this much is known."""
        for connection in list(self.roster.sockets):
            session = connection.session
            if session is not None and session.host == change.host and session.token != change.token:
                self.end(connection, change.code, change.reason)

    def _deliver_command(self, message: DeliverCommand) -> None:
        connection = self.roster.find(message.connection)
        session = connection.session if connection is not None else None
        if connection is not None and session is not None and not session.may_write(message.command_id):
            return
        ttl_s = None
        if message.expires_boot_s is not None:  # over already: the agent refuses it, and the hub hears so from it
            ttl_s = max(message.expires_boot_s - clock.now().boot_s, 0.0)
        frame = agent_frames.CommandFrame(message.op, message.command_id, message.attempt, ttl_s)
        if connection is not None and session is not None and connection.send(agent_frames.encode(frame)):
            session.wrote(message.command_id, message.op)
            if session.is_foreign:
                self._written.add(session.connection, message.command_id)
            return
        if not self._written.never(message.connection, message.command_id):
            return  # written before, or by a gateway before this one: the hub learns by the connection's end
        event = Undelivered(message.connection, self.name, message.host, message.command_id, message.attempt)
        if self.outbox.put(message.host, messages.encode(event), self._loop.time()) is PutResult.REFUSED:
            self.dropped += 1  # the hub finds out by the disconnect, or by the silence
        self.wake.set()

    def _deliver_frame(self, message: DeliverRegistered | DeliverAck | DeliverKill | CloseConnection) -> None:
        connection = self.roster.find(message.connection)
        if connection is None or connection.session is None:
            return  # its disconnect is on its way to the hub
        frame: agent_frames.HubFrame | None = None
        match message:
            case DeliverRegistered():
                frame = connection.session.tell()
            case DeliverAck():
                if not connection.session.is_foreign:
                    frame = agent_frames.Ack(message.command_id, message.offset, message.quarantined)
            case DeliverKill():
                frame = agent_frames.KillCommand(message.signal, message.command_id)
            case CloseConnection():
                self.end(connection, message.code, message.reason)
        if frame is not None:
            connection.send(agent_frames.encode(frame))

    def _refuse(self, status: int, text: str) -> Response:
        self._refused[status] += 1
        return AgentSocket.refusal(status, text, {"Retry-After": RETRY_AFTER_S} if status == 503 else None)
