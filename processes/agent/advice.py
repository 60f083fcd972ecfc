"""What a person can do about a connection that is not let in or ends: a sentence for the log. Pure."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final
from urllib.parse import urljoin, urlsplit

from websockets.exceptions import InvalidURI

from processes.core.values import CloseCode

LOCATION_CHARS_MAX: Final = 200  # of a redirect's target in the log
WEB_SCHEMES: Final = {"ws": "http", "wss": "https"}
SOCKET_SCHEMES: Final = {"http": "ws", "https": "wss"}
A_PAGE: Final = "an ordinary web server or proxy answers there: `hub` is the URL of the agents' port and ends in /ws"
AWAY: Final = "a proxy before the hub answers, and does not reach the hub or takes no WebSockets through: see its log"
REFUSED: Final[Mapping[int, str]] = MappingProxyType({  # by HTTP status
    401: "the token is unknown, revoked or suspended: `fleethub host NAME` on the hub says which; "
    "or `hub` is not the agents' port",
    403: "something between here and the hub refuses: a proxy?",
    404: "there is nothing for agents at this path: `hub` is the URL of the agents' port and ends in /ws",
    400: "what answers there takes no WebSocket: does the proxy before the hub pass on Upgrade and Connection?",
    407: "a proxy on the way wants a sign-in: agents dial the hub themselves, so something redirects what they send",
    421: A_PAGE,
    426: "this is no WebSocket port: `hub` is the URL of the agents' port",
    429: "this host was closed because more came from it than a host may send: it is let in again after the hub's time",
    503: "the hub takes nobody just now: no action needed",
})  # fmt: skip
CLOSED: Final[Mapping[int | None, str]] = MappingProxyType({
    CloseCode.POLICY: "too many malformed frames, or more than a host may send: the hub's reason says which, and after "
    "several closes it suspends the host",
    CloseCode.REPLACED: "another agent came with the same token: does one run twice, or on a copied machine?",
    CloseCode.RENAMED: "the token is another host's: `name` and `token_file` do not belong together",
    CloseCode.REVOKED: "the token was revoked: `fleethub enroll NAME --again` prints a new one for the token file",
    CloseCode.SUSPENDED: "the hub has suspended this token: `fleethub host NAME` on the hub says why, and an operator "
    "has to lift that",
})  # fmt: skip


def refused(status: int, location: str, url: str) -> str:
    """About an upgrade that was answered with this status, and with the `Location` of a redirect; `url`: our `hub`."""
    if not 300 <= status < 400:
        return REFUSED.get(status) or (AWAY if status >= 500 else A_PAGE)
    meant = _meant(location, url)
    if meant:
        return f'redirected, which is not followed: hub = "{meant}" is meant'
    return (
        f"redirected to {location[:LOCATION_CHARS_MAX] or 'nowhere'}, which is not followed: "
        "does a proxy before the hub want a sign-in? `hub` is the URL of the agents' port"
    )


def _meant(location: str, url: str) -> str:
    """The URL for `hub` that a redirect names, if it leads to the same path elsewhere; empty: it does not."""
    try:
        own = urlsplit(url)
        there = urlsplit(urljoin(own._replace(scheme=WEB_SCHEMES.get(own.scheme, own.scheme)).geturl(), location))
        elsewhere = there.hostname and "@" not in there.netloc and (there.port or True) and there.path == own.path
    except ValueError:
        return ""
    scheme = SOCKET_SCHEMES.get(there.scheme, there.scheme)
    meant = f"{scheme}://{there.netloc}{there.path}"
    usable = elsewhere and scheme in WEB_SCHEMES and not there.query and not there.fragment
    return meant if usable and meant != url and len(meant) <= LOCATION_CHARS_MAX else ""


def unreached(error: Exception, url: str) -> str:
    """About a connection that did not come about; empty: the error says it all."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            "the hub's certificate is not trusted here: is `ca_file` that of its authority, the name right, "
            "this clock right?"
        )
    if isinstance(error, ssl.SSLError) or (isinstance(error, ConnectionResetError) and url.startswith("wss://")):
        return "no TLS could be agreed on: if the hub speaks none there, `hub` begins with ws://"
    if isinstance(error, (ValueError, InvalidURI)):
        return "nothing can be dialled there: `hub` looks like wss://fleet.example.org/ws"
    if not isinstance(error, OSError) and url.startswith("ws://"):
        return "the answer was not a WebSocket's: if the hub speaks TLS there, `hub` begins with wss://"
    return ""
