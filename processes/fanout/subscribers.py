"""The operators' WebSockets: each is a Subscriber, all of them are the Audience. A delta is encoded and framed once.

The canary's rows go only to the canary's own connection, at once and unconflated, because each of its steps is a proof.
"""

from __future__ import annotations

import asyncio
import http
import uuid
from collections.abc import Callable, Coroutine, Mapping
from typing import Final, assert_never

import msgspec
from msgspec import UNSET, Raw, UnsetType
from websockets.http11 import Request, Response

from processes.adapters.listener import Arrival
from processes.adapters.logs import Log
from processes.adapters.websocket import Limits, Message, Pacer, WebSocket, frame_text
from processes.core import budgets
from processes.core.budgets import Allowances, Budget
from processes.core.fanout import feed
from processes.core.fanout.feed import Feed, Gathering, Step
from processes.core.fanout.mirror import Mirror
from processes.core.fanout.signin import Principal
from processes.core.travels import operator_frames
from processes.core.travels.messages import Change, Json
from processes.core.travels.operator_frames import (
    Delta,
    ErrorFrame,
    FleetState,
    FromOperator,
    FullState,
    GetState,
    Subscribe,
    Sync,
    Unsubscribe,
)
from processes.core.values import CANARY_HOST, CloseCode

SUBSCRIBERS_MAX: Final = 1000  # connections; beyond it 503
MALFORMED_MAX: Final = 10  # frames, then 1008
FRAME_BYTES_MAX: Final = 64 * 1024  # of an operator's frame; the longest request names one command
FULL_S_MIN: Final = 0.25  # between two full states that one connection asks for
VERSIONS: Final = 1 << 20  # first versions are random below it, so that no client relies on 1

LIMITS: Final = Limits(
    message_bytes_max=FRAME_BYTES_MAX,
    buffer_bytes_high=feed.BUFFER_BYTES_HIGH,
    buffer_bytes_max=feed.BUFFER_BYTES_MAX,
    slow_s_max=feed.SLOW_S_MAX,
    ping_s=20.0,
    dead_s=45.0,
)


class Subscriber(WebSocket):
    """One operator's connection. `admit` returns who sends the upgrade request, or a refusal."""

    headers: Mapping[str, str] = {}  # on every answer to an upgrade request

    def __init__(
        self,
        audience: Audience,
        admit: Callable[[Request, Subscriber], Principal | Response | float],
        arrival: Arrival,
    ) -> None:
        super().__init__(LIMITS, audience.pacer)
        self.arrival = arrival
        self._audience, self._admit = audience, admit
        self._look: asyncio.Task[Principal | None] | None = None  # for a token that was not known at first
        self.principal: Principal | None = None
        self.feed = Feed(0)
        self.full_s = 0.0  # when it was last sent a full state
        self.malformed = 0
        self.watching: dict[str, int] = {}  # command id → offset of its next output record

    @property
    def is_canary(self) -> bool:
        """Return whether this is the canary's connection."""
        return self.principal is not None and self.principal.canary

    def has_looked_again(self, look: Callable[[], Coroutine[None, None, Principal | None]]) -> bool:
        """Return whether the one look for its token has ended. The first call begins it."""
        if self._look is None:
            self._look = asyncio.get_running_loop().create_task(look())
        return self._look.done()

    def on_request(self, request: Request) -> Response | float | None:
        """Called with the upgrade request. Return the answer, or after how many seconds to ask again."""
        admitted = self._admit(request, self)
        if isinstance(admitted, Response | float):
            return admitted
        self.principal = admitted
        response = self.acceptance(request)
        if response.status_code != http.HTTPStatus.SWITCHING_PROTOCOLS:
            told = bytes(response.body or b"").decode(errors="replace").strip()
            response.body = msgspec.json.encode(
                {"error": "malformed", "message": told or "this is no upgrade to a WebSocket"}
            )
            for name, value in (("Content-Type", "application/json"), ("Content-Length", str(len(response.body)))):
                del response.headers[name]
                response.headers[name] = value
        for name, value in self.headers.items():
            response.headers[name] = value
        return response

    def on_open(self) -> None:
        """Called when the upgrade is done."""
        self._audience.join(self)

    def on_messages(self, messages: list[Message]) -> None:
        """Called with the messages of one read."""
        for message in messages:
            try:
                if not message.is_text:
                    raise msgspec.DecodeError("not a text frame")
                self._audience.asked(self, operator_frames.decode_request(message.data))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                self.malformed += 1
                self._audience.malformed += 1
                self.tell_error("malformed", str(error)[:200])
                if self.malformed >= MALFORMED_MAX:
                    self.close(CloseCode.POLICY, "malformed frames")
                    return

    def on_read(self, frames: int, size: int) -> float:
        """Part of WebSocket."""
        return self._audience.spent(self, frames, size)

    def on_drained(self) -> None:
        """Called when the connection has caught up after being slow."""
        self._audience.drained(self)

    def on_closed(self, code: int, reason: str) -> None:
        """Called when the connection is gone."""
        self._audience.leave(self, code)

    def tell_error(self, code: str, message: str, command_id: str | UnsetType = UNSET) -> None:
        """Send an error frame about a frame of the operator's."""
        if not self.is_slow:
            self.send(operator_frames.encode(ErrorFrame(code, message, command_id)))

    def shutdown(self) -> None:
        """Called by uvicorn when the server stops."""
        self.close(CloseCode.RESTART, "fanout restarts")

    def widen(self, full_state_bytes: int) -> None:
        """Widen the bounds of unsent bytes for a full state that is sent now."""
        room = feed.room(full_state_bytes)
        self.limits = self.limits._replace(
            buffer_bytes_high=room.buffer_bytes_high, buffer_bytes_max=room.buffer_bytes_max, slow_s_max=room.slow_s_max
        )
        if self.transport is not None:
            self.transport.set_write_buffer_limits(high=room.buffer_bytes_high, low=feed.BUFFER_BYTES_HIGH // 4)


class Audience:
    """All subscribers and the state that they are shown. All calls belong to the loop's thread."""

    def __init__(self, mirror: Mirror, log: Log, budget: Budget = budgets.OPERATOR) -> None:
        self.subscribers: set[Subscriber] = set()
        self.on_subscribe: Callable[[Subscriber, str, int], None] = lambda *_: None
        self.on_unsubscribe: Callable[[Subscriber, str | None], None] = lambda *_: None
        self.on_room: Callable[[Subscriber], None] = lambda _: None
        self.malformed = self.skipped = self.sent = self.full_states = 0
        self.pacer = Pacer()
        self.allowances: Allowances[str] = Allowances(budget)  # by credential
        self._mirror, self._log = mirror, log
        self._loop = asyncio.get_running_loop()
        self._gathering = Gathering()
        self._canary_changes: list[Change] = []
        self._rows: dict[str, dict[str, Json]] = {"process": {}, "incident": {}, "overall": {}, "source": {}}
        self._revision = 0
        self._states: dict[bool, tuple[tuple[int, ...], Raw]] = {}
        self._sync_s = 0.0
        self._version = uuid.uuid4().int % VERSIONS

    # the shown state

    def show(self, changes: list[tuple[Change, str]]) -> None:
        """Show changes of the mirror, each with its host."""
        for change, host in changes:
            if host == CANARY_HOST:
                self._canary_changes.append(change)
            else:
                self._gathering.add(change)

    def hear(self, heard: list[tuple[str, Json]]) -> None:
        """Show what heartbeats change: hosts, and fields of their rows."""
        for host, fields in heard:
            if host == CANARY_HOST:
                self._canary_changes.append(Change("host", host, fields))
            else:
                self._gathering.hear(host, fields)

    def show_rows(self, kind: str, rows: Mapping[str, Json]) -> None:
        """Show these as all rows of a kind that is not the hub's: process, incident, overall, source."""
        changes = feed.differences(kind, self._rows[kind], rows)
        if changes:
            self._rows[kind] = dict(rows)
            self._revision += 1
        for change in changes:
            self._gathering.add(change)

    def row(self, kind: str, id: str) -> Json | None:
        """Return one row of a kind that is not the hub's."""
        return self._rows[kind].get(id)

    def renew(self) -> None:
        """Send a full state to all subscribers, because all rows may have changed."""
        self._canary_changes.clear()
        for subscriber in list(self.subscribers):
            self._full(subscriber)

    def due_s(self) -> float | None:
        """Return when changes are to be sent; None if there are none."""
        return self._loop.time() if self._canary_changes else self._gathering.due_s()

    def flush(self) -> None:
        """Send everything that is due. Never waits."""
        now_s = self._loop.time()
        if self._canary_changes:
            changes, self._canary_changes = self._canary_changes, []
            self._publish(changes, [s for s in self.subscribers if s.is_canary])
        due_s = self._gathering.due_s()
        if due_s is not None and now_s >= due_s:
            self._version += 1
            receivers = [s for s in self.subscribers if not s.is_canary]
            self._publish(self._gathering.take(now_s, len(receivers)), receivers)
        if now_s - self._sync_s >= feed.SYNC_S:
            self._sync_s = now_s
            self._sync(now_s)

    def _publish(self, changes: list[Change], subscribers: list[Subscriber]) -> None:
        epoch = self._mirror.shown_epoch
        body = operator_frames.encode_changes(changes) if subscribers else Raw(b"[]")
        frames: dict[int, bytes] = {}  # by version: most connections have the same version, and get the same bytes
        for subscriber in subscribers:
            match subscriber.feed.delta(epoch, subscriber.is_slow):
                case Step.SEND:
                    version = subscriber.feed.version
                    ready = frames.get(version)
                    if ready is None:
                        ready = frames[version] = frame_text(operator_frames.encode(Delta(epoch, version, body)))
                    subscriber.write(ready)
                    self.sent += 1
                case Step.FULL:
                    self._send_full(subscriber)
                case Step.SKIP:
                    self.skipped += 1

    def _sync(self, now_s: float) -> None:
        for subscriber in list(self.subscribers):
            if subscriber.feed.behind:
                self._full(subscriber)
            elif not subscriber.is_slow:
                subscriber.send(operator_frames.encode(Sync(subscriber.feed.epoch, subscriber.feed.version)))

    def _full(self, subscriber: Subscriber) -> None:
        if subscriber.feed.whole(self._mirror.shown_epoch, subscriber.is_slow) is Step.FULL:
            self._send_full(subscriber)

    def _send_full(self, subscriber: Subscriber) -> None:
        state = self._encoded_state(subscriber.is_canary)
        text = operator_frames.encode(FullState(self._mirror.shown_epoch, subscriber.feed.version, state))
        subscriber.widen(len(text))
        subscriber.full_s = self._loop.time()
        self.full_states += 1
        subscriber.send(text)

    def _encoded_state(self, canary: bool) -> Raw:
        """Return the state, encoded once for all connections until it changes."""
        at = (id(self._mirror.shown), self._mirror.shown.mutations, self._revision)
        cached = self._states.get(canary)
        if cached is None or cached[0] != at:
            shown = self._mirror.shown
            hosts = [c.fields for c in shown.changes("host") if (c.id == CANARY_HOST) is canary]
            commands = [c.fields for c in shown.changes("command") if (shown.host_of(c) == CANARY_HOST) is canary]
            rows = {} if canary else self._rows
            single = {kind: Raw(row) for kind in ("overall", "source") for row in rows.get(kind, {}).values()}
            if not canary and (ledger := shown.rows("ledger")):
                single["ledger"] = Raw(ledger[0])
            state = FleetState(
                operator_frames.raw_rows(hosts),
                operator_frames.raw_rows(commands),
                operator_frames.raw_rows(list(rows.get("process", {}).values())),
                operator_frames.raw_rows(list(rows.get("incident", {}).values())),
                operator_frames.raw_rows([] if canary else shown.rows("condition")),
                operator_frames.raw_rows([] if canary else shown.rows("silence")),
                **single,
            )
            cached = self._states[canary] = (at, operator_frames.encode_state(state))
        return cached[1]

    # called by subscribers

    def join(self, subscriber: Subscriber) -> None:
        """Called when a connection was opened."""
        self.subscribers.add(subscriber)
        # one version for all that miss nothing, so that they get the same bytes
        subscriber.feed.version = self._version
        self._full(subscriber)

    def leave(self, subscriber: Subscriber, code: int) -> None:
        """Called when a connection is gone."""
        if subscriber in self.subscribers:
            self.subscribers.discard(subscriber)
            self.on_unsubscribe(subscriber, None)
            if code == CloseCode.SLOW:
                self._log.warning("a slow operator was disconnected", peer=subscriber.peer)

    def asked(self, subscriber: Subscriber, frame: FromOperator) -> None:
        """Carry out a frame of an operator's."""
        match frame:
            case GetState():
                if self._loop.time() - subscriber.full_s < FULL_S_MIN:
                    subscriber.feed.behind = True  # it is sent with the next delta or sync
                else:
                    self.spent(subscriber, budgets.FULL_STATE_FRAMES - 1, 0)
                    self._full(subscriber)
            case Subscribe():
                self.on_subscribe(subscriber, frame.command_id, frame.offset)
            case Unsubscribe():
                self.on_unsubscribe(subscriber, frame.command_id)
            case _:
                assert_never(frame)

    def spent(self, subscriber: Subscriber, frames: int, size: int) -> float:
        """Called at the end of a turn of reading. Return for how many seconds nothing more is to be read."""
        if subscriber.principal is None:
            return 0.0
        now_s = self._loop.time()
        allowance = self.allowances.of(subscriber.principal.owner, now_s)
        spent = allowance.spend(frames, size, 0, now_s)
        if spent.is_over and subscriber.is_open:
            allowance.close(now_s)
            self._log.warning("an operator went on sending more than one may: closed", peer=subscriber.peer)
            subscriber.close(CloseCode.POLICY, "more was sent than an operator may send: come back later")
        return spent.rest_s

    def drained(self, subscriber: Subscriber) -> None:
        """Called when a slow connection has room again."""
        if subscriber.feed.behind:
            self._full(subscriber)
        self.on_room(subscriber)

    def close_those(self, gone: Callable[[Principal], bool], reason: str) -> None:
        """End the connections of principals that are not allowed any more."""
        for subscriber in list(self.subscribers):
            if subscriber.principal is not None and gone(subscriber.principal):
                subscriber.close(CloseCode.REVOKED, reason)
