"""Requests over HTTP, one at a time, each with a deadline.

httpx brings click and rich with it, where these are installed. It is imported when the first connection is made, so
that a program that only imports the client does not load them.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from processes.client.errors import HubAway, Silence

if TYPE_CHECKING:
    import httpx

# OpenSSL's words for an answer that is not TLS, and for no answer
NO_TLS: Final = (
    "WRONG_VERSION_NUMBER",
    "RECORD_LAYER_FAILURE",
    "record layer failure",
    "handshake operation timed out",
)


class Deadline(NamedTuple):
    """How long one request may take. Units: seconds; after connecting, each step may take `answer_s`."""

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

    def __init__(self, url: str, token: str, trust: ssl.SSLContext | None, *, own: bool) -> None:
        """`trust`: None for what the system trusts. `own`: the port is this machine's, so that no proxy is used."""
        import httpx  # noqa: PLC0415  # see the module's docstring

        self.url, self._own, self._httpx = url, own, httpx
        self._client: httpx.Client = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"},
            verify=trust if trust is not None else True,
            trust_env=not own,
        )

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
        try:
            answer = self._client.request(
                method,
                path,
                content=body,
                headers={"Content-Type": "application/json"} if body is not None else {},
                params=dict(query) if query else None,
                timeout=self._httpx.Timeout(deadline.answer_s, connect=deadline.connect_s),
            )
        except (self._httpx.TransportError, self._httpx.InvalidURL) as error:
            raise self._away(error) from error
        return Answer(answer.status_code, answer.reason_phrase, answer.headers, answer.content)

    def _away(self, error: Exception) -> HubAway:
        """The error of httpx in plain words."""
        said = str(error) or type(error).__name__
        why = Silence.CUT if isinstance(error, self._httpx.TransportError) else Silence.UNREACHABLE
        message = f"{self.url} does not answer: {said}"
        if any(word in said for word in NO_TLS):
            why, message = Silence.NO_TLS, f"{self.url} does not speak TLS: {said}"
        elif "CERTIFICATE_VERIFY_FAILED" in said:
            why, message = Silence.UNTRUSTED, f"the certificate of {self.url} is not trusted here: {said}"
        elif isinstance(error, self._httpx.ConnectError | self._httpx.UnsupportedProtocol):
            why = Silence.UNREACHABLE
        elif isinstance(error, self._httpx.RemoteProtocolError) and self.url.startswith("http://") and not self._own:
            message += " (perhaps it speaks TLS: https://…)"
        return HubAway(message, url=self.url, why=why, own=self._own)
