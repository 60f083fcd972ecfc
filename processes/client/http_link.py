"""Requests over HTTP, one at a time, each with a deadline.

httpx brings click and rich with it, where these are installed. It is imported when the first connection is made, so
that a program that only imports the client does not load them.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from processes.client.errors import HubAway, NotAnAddress, Silence
from processes.client.way import Proxy

if TYPE_CHECKING:
    import httpx

# OpenSSL's words for an answer that is not TLS, and for no answer
NO_TLS: Final = (
    "WRONG_VERSION_NUMBER",
    "RECORD_LAYER_FAILURE",
    "record layer failure",
    "handshake operation timed out",
)


BODY_BYTES_MAX: Final = 256 << 20  # of one answer; guess: several times the listing of the largest fleet
BODY_BYTES_PER_S_MIN: Final = 2048.0  # an answer that comes more slowly is given up; guess: a modem's pace


class Deadline(NamedTuple):
    """How long one request may take. Units: seconds.

    `answer_s`: from the connection until the answer begins, however slowly its head comes; its body has as long again,
    and longer only while it comes at BODY_BYTES_PER_S_MIN.
    """

    answer_s: float
    connect_s: float


class Answer(NamedTuple):
    """One HTTP answer."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes


class HttpLink:
    """The HTTP connections to one operators' port."""

    def __init__(
        self, url: str, token: str, trust: ssl.SSLContext | None, *, own: bool, proxy: Proxy | None = None
    ) -> None:
        """`trust`: None for no TLS. `own`: the port is this machine's. Raises: NotAnAddress."""
        import httpx  # noqa: PLC0415  # see the module's docstring

        self.url, self._own, self._httpx, self._proxy = url, own, httpx, proxy
        try:
            self._client: httpx.Client = httpx.Client(
                base_url=url,
                headers={"Authorization": f"Bearer {token}"},
                verify=trust if trust is not None else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
                trust_env=False,  # way.py has read it
                proxy=None if proxy is None else proxy.url,
            )
        except httpx.InvalidURL:
            raise NotAnAddress(url) from None
        self._socket: socket.socket | None = None  # of the connection that was made last: requests go one at a time

    def close(self) -> None:
        """End the connections."""
        self._client.close()

    def ask(
        self,
        method: str,
        path: str,
        deadline: Deadline,
        body: bytes | None = None,
        query: Mapping[str, str | int] | None = None,
    ) -> Answer:
        """The answer to one request, whatever its status. Raises: HubAway."""
        request = self._client.build_request(
            method,
            path,
            content=body,
            headers={"Content-Type": "application/json"} if body is not None else {},
            params=dict(query) if query else None,
            timeout=self._httpx.Timeout(deadline.answer_s, connect=deadline.connect_s),
            extensions={"trace": self._note_socket},
        )
        try:
            with self._cut_after(deadline.connect_s + deadline.answer_s):
                answer = self._client.send(request, stream=True)
            with contextlib.closing(answer):
                content = self._body(answer, deadline.answer_s)
        except (self._httpx.RequestError, self._httpx.InvalidURL, UnicodeError) as error:  # UnicodeError: of a bad name
            raise self._away(error) from error
        return Answer(answer.status_code, answer.reason_phrase, answer.headers, content)

    def _note_socket(self, event: str, told: Mapping[str, Any]) -> None:
        """Called by httpx at each step of a request."""
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            self._socket = told["return_value"].get_extra_info("socket")

    @contextlib.contextmanager
    def _cut_after(self, seconds: float) -> Iterator[None]:
        """Ends the connection when the time is over: httpx's own deadlines begin anew with each byte that comes.

        Raises: httpx.ReadTimeout.
        """
        over = threading.Event()

        def cut() -> None:
            over.set()
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)  # a TLS socket's own would race the reader

        timer = threading.Timer(seconds, cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        except self._httpx.TransportError as error:
            if over.is_set():
                raise self._httpx.ReadTimeout(f"no whole answer within {seconds:.0f} s") from error
            raise
        finally:
            timer.cancel()

    def _body(self, answer: httpx.Response, grace_s: float) -> bytes:
        """The whole body. Raises: httpx.ReadTimeout, if it comes too slowly; httpx.ReadError, if it has no end."""
        found = bytearray()
        begun_mono_s = time.monotonic()
        for piece in answer.iter_bytes():
            found += piece
            if len(found) > BODY_BYTES_MAX:
                raise self._httpx.ReadError(f"its answer is longer than {BODY_BYTES_MAX >> 20} MiB")
            if time.monotonic() - begun_mono_s > grace_s + len(found) / BODY_BYTES_PER_S_MIN:
                raise self._httpx.ReadTimeout(f"its answer comes too slowly: {len(found)} bytes so far")
        return bytes(found)

    def _away(self, error: Exception) -> HubAway:
        """The error of httpx in plain words."""
        said = str(error) or type(error).__name__
        why = Silence.CUT if isinstance(error, self._httpx.TransportError) else Silence.UNREACHABLE
        message = f"{self.url} does not answer: {said}"
        if any(word in said for word in NO_TLS):
            why, message = Silence.NO_TLS, f"{self.url} does not speak TLS: {said}"
        elif "CERTIFICATE_VERIFY_FAILED" in said:
            why, message = Silence.UNTRUSTED, f"the certificate of {self.url} is not trusted here: {said}"
        elif isinstance(error, self._httpx.ConnectError | self._httpx.UnsupportedProtocol | UnicodeError):
            why = Silence.UNREACHABLE
        elif isinstance(error, self._httpx.RemoteProtocolError) and self.url.startswith("http://") and not self._own:
            message += " (perhaps it speaks TLS: https://…)"
        if self._proxy is not None:
            message += f", asked by way of {self._proxy}"
        return HubAway(message, url=self.url, why=why, own=self._own)
