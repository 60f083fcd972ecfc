"""The operators' port: uvicorn's HTTP with deadlines and headers added, and WebSockets by adapters/websocket.py.

uvicorn hands an upgrade request to the class given as `ws=`, built with (config, server_state, app_state) by keyword;
uvicorn's minor version is pinned because of that.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http
import math
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple, cast

import h11
import msgspec
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState
from websockets.http11 import Request, Response

from processes.adapters.listener import Arrival, Listener, room
from processes.adapters.logs import Log
from processes.adapters.settings import Tls
from processes.adapters.websocket import Pacer
from processes.core.budgets import TOKEN_CONNECTIONS_MAX, TOKEN_WEBSOCKETS_MAX
from processes.core.connections import Network, client_address, operators_limits
from processes.core.fanout import http_head
from processes.core.fanout.http_head import HEAD_BYTES_MAX, RefusedHead
from processes.core.fanout.signin import Principal, below
from processes.fanout.audit_notes import AuditNotes
from processes.fanout.auth import Auth
from processes.fanout.subscribers import SUBSCRIBERS_MAX, Audience, Subscriber

UNSENT_BYTES_S: Final = 32 * 1024  # a client that reads is expected to take so many a second: a slow telephone
# at a time, WebSockets included, where descriptors allow. Half of them is for operators who are signed in
CONNECTIONS_MAX: Final = 4096
LOOK_AGAIN_S: Final = 0.02  # between two questions whether the look for an unknown token has ended
DATE_S: Final = 1.0  # between two dates of answers
GRACE_S: Final = 2  # for answers that are being written when the server stops

HEADERS: Final = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
# under TLS of our own: a browser that came once asks for no plain page of this name for a year. Source: OWASP ASVS 5.0,
# 3.4.1. Not for names below it: they are not ours
STRICT_TRANSPORT: Final = {"strict-transport-security": "max-age=31536000"}


class Deadlines(NamedTuple):
    """How long the server waits for a client. Between two requests it waits for uvicorn's 5 s.

    Units: seconds. `head_s`: for the whole head of a request, from its first byte or from the accept. `body_s`: for the
    rest of a body, from the answer of an application that did not read it. `unsent_s`: until an answer has left, or a
    connection that was closed is over; and a second more for each UNSENT_BYTES_S.
    """

    head_s: float = 10.0
    body_s: float = 2.0
    unsent_s: float = 10.0


class Connection(h11.Connection):
    """h11's parser of one connection, behind a look at each head that costs little, whatever is in it."""

    refused: RefusedHead | None = None
    _unsaid = b""  # the head of an answer

    def send(self, event: Any) -> bytes | None:  # type: ignore[override]  # the library has an overload for each kind
        """Return the bytes to write for an event: an answer's head comes with what follows it, so that a client that
        waits is woken once.
        """
        said = super().send(event)
        if isinstance(event, h11.Response):
            self._unsaid = said or b""
            return b""
        head, self._unsaid = self._unsaid, b""
        return head + said if said is not None else None

    def next_event(self) -> Any:
        """Return the next event. Raises: h11.RemoteProtocolError, if the head is refused (see `refused`)."""
        if self.their_state is h11.IDLE:
            self.refused = http_head.of_lines(self.trailing_data[0])
        event = None if self.refused else super().next_event()
        if isinstance(event, h11.Request):
            self.refused = http_head.of_framing(name for name, _ in event.headers)
        if self.refused:
            raise h11.RemoteProtocolError(self.refused.message, self.refused.status)
        return event


class HttpProtocol(H11Protocol):
    """uvicorn's protocol of one connection, with a deadline on all that is waited for, and errors as JSON.

    What was read is parsed by turns (Pacer), as WebSockets are: clients that ask without end, on however many
    connections, hold up no pass of the loop. Nothing more is read until the turn has come.
    """

    def __init__(
        self, config: uvicorn.Config, state: ServerState, arrival: Arrival, deadlines: Deadlines, pacer: Pacer
    ) -> None:  # fmt: skip
        super().__init__(config, state, {"arrival": arrival})
        self.conn: Connection = Connection(h11.SERVER, HEAD_BYTES_MAX)
        self._arrival, self._deadlines, self._pacer = arrival, deadlines, pacer
        self._has_turn = False  # one is coming
        self._head: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._unsent: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called by asyncio when a client has connected."""
        super().connection_made(transport)
        self._arrival.opened(transport)
        self._head = self.loop.call_later(self._deadlines.head_s, self._too_late)

    def handle_events(self) -> None:
        """Called by uvicorn when there may be something to parse: has it parsed in this connection's turn."""
        if not self._has_turn:
            self._has_turn = True
            was_paused = self.flow.read_paused
            self.flow.pause_reading()
            self._pacer(functools.partial(self._turn, was_paused))

    def _turn(self, was_paused: bool) -> None:
        self._has_turn = False
        if self.transport.is_closing():
            return
        if not was_paused:  # else for an endpoint that has not read its body yet, and which resumes it
            self.flow.resume_reading()
        super().handle_events()
        if self.transport.get_protocol() is not self:  # it is a WebSocket by now
            return
        if self.conn.their_state is not h11.IDLE or self.transport.is_closing():
            self._disarm_head()
        elif self._head is None and self.conn.trailing_data[0]:  # the head of a further request has begun
            self._head = self.loop.call_later(self._deadlines.head_s, self._too_late)
        self._look()

    def on_response_complete(self) -> None:
        """Called by uvicorn when the application has said the whole answer."""
        super().on_response_complete()
        self._look()

    def pause_writing(self) -> None:
        """Called by asyncio when the client is slow to read."""
        super().pause_writing()
        self._look()

    def timeout_keep_alive_handler(self) -> None:
        """Called when nothing came for 5 s after an answer."""
        super().timeout_keep_alive_handler()
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio when the connection has ended."""
        self._disarm()
        self._arrival.gone()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Called by uvicorn with an upgrade request. Bytes behind the request in the same segment are not lost here."""
        self._disarm()
        behind = self.conn.trailing_data[0]
        super().handle_websocket_upgrade(event)
        if behind and not self.transport.is_closing():
            cast(asyncio.Protocol, self.transport.get_protocol()).data_received(behind)

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn when a request is malformed: answers in the API's form, with all headers."""
        self._refuse(self.conn.refused or RefusedHead(400, "malformed", msg))

    def _too_late(self) -> None:
        self._head = None
        self._refuse(RefusedHead(408, "too_late", f"no request within {self._deadlines.head_s:g} s"))

    def _refuse(self, refused: RefusedHead) -> None:
        if not self.transport.is_closing():
            self.transport.write(raw_answer(refused))
            self.transport.close()
        self._look()

    def _look(self) -> None:
        """Set the deadlines that what is waited for now has, and cancel the others."""
        left_unread = self.conn.our_state is h11.DONE and self.conn.their_state is h11.SEND_BODY
        if not left_unread:
            self._disarm_unread()
        elif self._unread is None:
            self._unread = self.loop.call_later(self._deadlines.body_s, self.transport.abort)
        if not self._is_sending:
            self._disarm_unsent()
        elif self._unsent is None:
            unsent = self.transport.get_write_buffer_size()
            due_s = self._deadlines.unsent_s + unsent / UNSENT_BYTES_S
            self._unsent = self.loop.call_later(due_s, self._look_at_unsent)

    @property
    def _is_sending(self) -> bool:
        return bool(self.transport.get_write_buffer_size()) or self.flow.write_paused or self.transport.is_closing()

    def _look_at_unsent(self) -> None:
        """Called when all that was unsent should have left."""
        self._unsent = None
        if self._is_sending:
            self.transport.abort()

    def _disarm(self) -> None:
        self._disarm_head()
        self._disarm_unread()
        self._disarm_unsent()

    def _disarm_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _disarm_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _disarm_unsent(self) -> None:
        if self._unsent is not None:
            self._unsent.cancel()
            self._unsent = None


class Server(uvicorn.Server):
    """uvicorn's server without its signal handling: the process handles signals itself (adapters/bootstrap.py). And
    without its accepting: adapters/listener.py bounds connections before TLS. Its task ends with what the listener
    failed of.
    """

    def __init__(
        self, config: uvicorn.Config, log: Log, on_accepted: Callable[[], None], on_turned_away: Callable[[], None],
        deadlines: Deadlines,
    ) -> None:  # fmt: skip
        super().__init__(config)
        self._log, self._deadlines = log, deadlines
        self._on_accepted, self._on_turned_away = on_accepted, on_turned_away
        self._ending = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn: begins to accept on the one socket."""
        self._pacer = Pacer()
        await self.lifespan.startup()
        (sock,) = sockets or []
        most = min(room(self.config.ssl), CONNECTIONS_MAX)
        limits = operators_limits(most, TOKEN_CONNECTIONS_MAX)
        self._log.info("operators are let in", at_most=limits.known_max, strangers_at_most=limits.strangers_max)
        listener = Listener(
            sock,
            self.config.ssl,
            limits,
            self._protocol,
            self._log,
            on_accepted=self._on_accepted,
            on_turned_away=self._on_turned_away,
        )
        listener.failed.add_done_callback(lambda _: self.end())
        listener.start()
        self.servers = [cast(asyncio.Server, listener)]
        self.started = True

    def end(self) -> None:
        """Tell every connection, WebSockets too, and end."""
        self.should_exit = True
        self._ending.set()

    async def main_loop(self) -> None:
        """Called by uvicorn: wait for the end, and give answers the new date each second. (Its own loop looks ten times
        a second.)
        """
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DATE_S):
                    await self._ending.wait()

    def _protocol(self, arrival: Arrival) -> HttpProtocol:
        return HttpProtocol(self.config, self.server_state, arrival, self._deadlines, self._pacer)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture no signals."""
        yield

    @property
    def is_short(self) -> bool:
        """Return whether accepting pauses for want of descriptors or of memory."""
        return any(cast(Listener, server).is_short for server in self.servers) if self.started else False

    def deafen(self) -> None:
        """Accept no more connections, for a drill: those that stand go on."""
        for server in self.servers:
            server.close()


def raw_answer(refused: RefusedHead) -> bytes:
    """Return a whole answer as bytes, for requests that do not reach the application."""
    body = msgspec.json.encode({"error": refused.code, "message": refused.message})
    lines = [
        f"HTTP/1.1 {refused.status} {http.HTTPStatus(refused.status).phrase}",
        "content-type: application/json",
        f"content-length: {len(body)}",
        "connection: close",
    ]
    lines += [f"{name}: {value}" for name, value in HEADERS.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def refuse(status: int, code: str, message: str, **more: str) -> Response:
    """Return an answer to an upgrade request in the API's form; `more`: headers."""
    body = msgspec.json.encode({"error": code, "message": message})
    response = Subscriber.refusal(status, body.decode(), {**HEADERS, **more})
    del response.headers["Content-Type"]
    response.headers["Content-Type"] = "application/json"
    return response


def _no_room(principal: Principal, subscriber: Subscriber, audience: Audience, auth: Auth) -> Response | None:
    """Return a refusal, if there is no room for this operator's connection, or if it was kept away for a while."""
    banned_s = audience.allowances.banned_s(principal.owner, asyncio.get_running_loop().time())
    if banned_s:
        wait_s = math.ceil(banned_s)
        told = f"more came over WebSockets of this token than one may send: come back in {wait_s} s"
        return refuse(429, "too_many", told, **{"Retry-After": f"{wait_s}"})
    is_kept_for = auth.is_kept_for(principal)
    if len(audience.subscribers) >= SUBSCRIBERS_MAX and not is_kept_for:
        told = f"{SUBSCRIBERS_MAX} WebSockets are open here, which is the most: try again soon"
        return refuse(503, "too_many", told, **{"Retry-After": "5"})
    if not subscriber.arrival.claim(
        f"{principal.owner} WebSockets", is_kept_for=is_kept_for, client_max=TOKEN_WEBSOCKETS_MAX
    ):
        told = f"too many connections are open, of this token ({TOKEN_WEBSOCKETS_MAX} WebSockets at most) or in all"
        return refuse(429, "too_many", told, **{"Retry-After": "5"})
    return None


def subscriber_class(
    audience: Audience, auth: Auth, audit_notes: AuditNotes, trusted: Sequence[Network]
) -> type[Subscriber]:
    """Return the protocol class for uvicorn's `ws=`. It checks the request, then its connection joins the audience."""

    def admit(request: Request, subscriber: Subscriber) -> Principal | Response | float:
        headers = request.headers
        address = client_address(subscriber.arrival.address, headers.get_all("X-Forwarded-For"), trusted)
        host = ",".join(headers.get_all("Host"))
        if not auth.host_ok(host):
            return refuse(421, "misdirected", "this is not the host that you asked for: set operators.url")
        if below(request.path.partition("?")[0], auth.public.prefix) != "/ws":
            return refuse(404, "not_found", "WebSockets are at /ws")
        origins = headers.get_all("Origin")
        if origins and not (len(origins) == 1 and auth.origin_ok(origins[0], host)):
            return refuse(403, "foreign_origin", "this page is not ours")
        authorization = headers.get_all("Authorization")
        sent = (authorization[0] if len(authorization) == 1 else "", headers.get_all("Cookie"))
        principal = auth.known(*sent)
        if principal is None and any(sent) and not subscriber.has_looked_again(lambda: auth.find(*sent, address)):
            return LOOK_AGAIN_S
        if principal is None:
            if authorization:
                audit_notes.note_refused("GET /ws", "not_signed_in", address, None, is_guess=True)
            return refuse(401, "not_signed_in", "sign in first", **{"WWW-Authenticate": "Bearer"})
        if principal.by_cookie and not origins:
            return refuse(403, "foreign_origin", "a browser names its origin; scripts sign in with a token")
        refusal = _no_room(principal, subscriber, audience, auth)
        if refusal is not None:
            return refusal
        if not principal.by_cookie and not principal.canary:
            audit_notes.note_connected(principal, address)
        return principal

    class Bound(Subscriber):
        headers = HEADERS

        def __init__(self, config: uvicorn.Config, server_state: ServerState, app_state: dict[str, Any]) -> None:
            super().__init__(audience, admit, app_state["arrival"])
            self._connections = cast(set[Any], server_state.connections)

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self._connections.add(self)
            super().connection_made(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            self._connections.discard(self)
            self.arrival.gone()
            super().connection_lost(exc)

    return Bound


def make_server(
    app: ASGIApp, tls: Tls, subscriber: type[Subscriber], log: Log, *, on_accepted: Callable[[], None],
    on_turned_away: Callable[[], None], deadlines: Deadlines = Deadlines(),  # noqa: B008  it has no state
) -> Server:  # fmt: skip
    """Return the server: `serve(sockets=[…])` runs it, `end` stops it, `config.ssl` is its TLS context."""
    config = uvicorn.Config(
        cast(Any, app),
        http=HttpProtocol,
        ws=subscriber,
        lifespan="off",
        log_config=None,
        log_level="error",  # its warnings are a line for each malformed request: strangers would wash away all others
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_S,
        ssl_certfile=tls.certificate or None,
        ssl_keyfile=tls.key or None,
        headers=[*HEADERS.items(), *(STRICT_TRANSPORT.items() if tls.certificate else ())],
    )
    config.load()
    return Server(config, log, on_accepted, on_turned_away, deadlines)
