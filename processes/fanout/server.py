"""The operators' port: uvicorn's HTTP with deadlines and headers added, and WebSockets by adapters/websocket.py.

uvicorn hands an upgrade request to the class given as `ws=`, built with (config, server_state, app_state) by keyword;
uvicorn's minor version is pinned because of that.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import Counter
from collections.abc import Iterator
from http.cookies import CookieError, SimpleCookie
from typing import Any, ClassVar, Final, cast

import h11
import msgspec
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState
from websockets.http11 import Request, Response

from processes.adapters.settings import Tls, is_loopback
from processes.core.fanout.signin import Principal
from processes.fanout.auth import Auth
from processes.fanout.subscribers import SUBSCRIBERS_MAX, Audience, Subscriber

BACKLOG: Final = 4096  # measured: 5,000 connects at once take 1.4 s with it, 3.1 s with asyncio's 100
HEAD_S_MAX: Final = 10.0  # for the whole head of a request
HEAD_BYTES_MAX: Final = 32 * 1024
CONNECTIONS_MAX: Final = 2048  # HTTP connections at a time; half of the descriptors that every default limit gives
KEPT_FREE: Final = 128  # of them for this machine alone: the canary must get through when clients hold all others
ADDRESS_MAX: Final = 512  # of them for one address of another machine
# a token made a moment ago is known here after so long: the state folder is looked at every 0.5 s
LOOK_AGAIN_S: Final = 0.7
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


class HttpProtocol(H11Protocol):
    """uvicorn's protocol, with a deadline on the request's head, a bound on connections, and errors as JSON."""

    _head: asyncio.TimerHandle | None = None
    _address = ""  # under which the connection is counted
    _by_address: ClassVar[Counter[str]] = Counter()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called by asyncio when a client has connected."""
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self._address = str(peer[0]) if peer else "unknown"
        self._by_address[self._address] += 1
        elsewhere = not is_loopback(self._address)
        room = CONNECTIONS_MAX - (KEPT_FREE if elsewhere else 0)
        if len(self.connections) > room or (elsewhere and self._by_address[self._address] > ADDRESS_MAX):
            transport.write(raw_answer(503, "Service Unavailable", "too_many", "too many connections: come back soon"))
            transport.close()
            return
        self._head = self.loop.call_later(HEAD_S_MAX, self._too_late)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio with the bytes that were read."""
        super().data_received(data)
        reading = (
            self.conn.their_state is h11.IDLE
            and not self.transport.is_closing()
            and self.transport.get_protocol() is self
        )
        if not reading:
            self._disarm()
        elif self._head is None:  # the head of a further request has begun
            self._head = self.loop.call_later(HEAD_S_MAX, self._too_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio when the connection has ended."""
        self._disarm()
        self._leave()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Called by uvicorn with an upgrade request. Bytes behind the request in the same segment are not lost here."""
        self._disarm()
        self._leave()  # subscribers have a limit of their own
        behind = self.conn.trailing_data[0]
        super().handle_websocket_upgrade(event)
        if behind and not self.transport.is_closing():
            cast(asyncio.Protocol, self.transport.get_protocol()).data_received(behind)

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn when a request is malformed: answers in the API's form, with all headers."""
        if not self.transport.is_closing():
            self.transport.write(raw_answer(400, "Bad Request", "malformed", msg))
            self.transport.close()

    def _too_late(self) -> None:
        self._head = None
        if not self.transport.is_closing():
            self.transport.write(raw_answer(408, "Request Timeout", "too_late", f"no request within {HEAD_S_MAX:g} s"))
            self.transport.close()

    def _leave(self) -> None:
        """Stop counting the connection. A second call does nothing."""
        address, self._address = self._address, ""
        if address:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    def _disarm(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None


class Server(uvicorn.Server):
    """uvicorn's server without its signal handling: the process handles signals itself (adapters/bootstrap.py)."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture no signals."""
        yield


def raw_answer(status: int, phrase: str, code: str, message: str) -> bytes:
    """Return a whole answer as bytes, for requests that do not reach the application."""
    body = msgspec.json.encode({"error": code, "message": message})
    lines = [
        f"HTTP/1.1 {status} {phrase}",
        "content-type: application/json",
        f"content-length: {len(body)}",
        "connection: close",
    ]
    lines += [
        f"{name}: {value}" for name, value in {**HEADERS, **({"retry-after": "5"} if status == 503 else {})}.items()
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def subscriber_class(audience: Audience, auth: Auth) -> type[Subscriber]:
    """Return the protocol class for uvicorn's `ws=`. It checks the request, then its connection joins the audience."""

    def refuse(status: int, code: str, message: str, **more: str) -> Response:
        body = msgspec.json.encode({"error": code, "message": message})
        response = Subscriber.refusal(status, body.decode(), {**HEADERS, **more})
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = "application/json"
        return response

    def admit(request: Request, subscriber: Subscriber) -> Principal | Response | float:
        headers = request.headers
        host = ",".join(headers.get_all("Host"))
        if not auth.host_ok(host):
            return refuse(421, "misdirected", "this is not the host that you asked for: set operators.url")
        if request.path.partition("?")[0] != "/ws":
            return refuse(404, "not_found", "WebSockets are at /ws")
        origins = headers.get_all("Origin")
        if origins and not (len(origins) == 1 and auth.origin_ok(origins[0], host)):
            return refuse(403, "foreign_origin", "this page is not ours")
        authorization = headers.get_all("Authorization")
        principal = auth.known(
            authorization[0] if len(authorization) == 1 else "", cookies_of(headers.get_all("Cookie"))
        )
        if principal is None and authorization and not subscriber.looked_again:
            subscriber.looked_again = True
            return LOOK_AGAIN_S
        if principal is None:
            return refuse(401, "not_signed_in", "sign in first", **{"WWW-Authenticate": "Bearer"})
        if principal.by_cookie and not origins:
            return refuse(403, "foreign_origin", "a browser names its origin; scripts sign in with a token")
        banned_s = audience.allowances.banned_s(principal.credential, asyncio.get_running_loop().time())
        if banned_s:
            return refuse(429, "too_many", "too much came from you: come back later",
                          **{"Retry-After": f"{math.ceil(banned_s)}"})  # fmt: skip
        if len(audience.subscribers) >= SUBSCRIBERS_MAX:
            return refuse(503, "too_many", "too many operators are connected", **{"Retry-After": "5"})
        return principal

    class Bound(Subscriber):
        headers = HEADERS

        def __init__(self, config: uvicorn.Config, server_state: ServerState, app_state: dict[str, Any]) -> None:
            super().__init__(audience, admit)
            self._connections = cast(set[Any], server_state.connections)

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self._connections.add(self)
            super().connection_made(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            self._connections.discard(self)
            super().connection_lost(exc)

    return Bound


def cookies_of(headers: list[str]) -> dict[str, str]:
    """Return the cookies of a request, by name; none if they cannot be read."""
    try:
        return {name: morsel.value for name, morsel in SimpleCookie("; ".join(headers)).items()}
    except CookieError:
        return {}


def make_server(app: ASGIApp, tls: Tls, subscriber: type[Subscriber]) -> Server:
    """Return the server: `serve(sockets=[…])` runs it, `should_exit` stops it, `config.ssl` is its TLS context."""
    config = uvicorn.Config(
        cast(Any, app),
        http=HttpProtocol,
        ws=subscriber,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=GRACE_S,
        h11_max_incomplete_event_size=HEAD_BYTES_MAX,
        ssl_certfile=tls.certificate or None,
        ssl_keyfile=tls.key or None,
        headers=[*HEADERS.items(), *(STRICT_TRANSPORT.items() if tls.certificate else ())],
    )
    config.load()
    return Server(config)
