"""Sign-in: session cookies, Host and Origin, and how often an address may try. Pure: times, ids, keys are arguments."""

from __future__ import annotations

import base64
import hmac
import math
import re
from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

import msgspec

from processes.core.values import Role, is_this_machine

SESSION_S_MAX: Final = 12 * 3600.0  # source: OWASP session management, absolute timeout of a working day
IDLE_S_MAX: Final = 2 * 3600.0  # without a request or an open WebSocket. Source: the same; guess: a long meeting
USE_TOLD_S: Final = 60.0  # between two notes of one session's use; so much earlier may an idle session end
TOKEN_USE_TOLD_S: Final = 300.0  # of one token's use, which the hub writes to its disk; guess: nobody asks for less
TOKEN_SESSIONS_MAX: Final = 100  # open ones of one token and role. Guess: a whole team that shares one token
SESSIONS_MAX: Final = 10_000  # whose use is remembered; the oldest are forgotten first
CLOCK_BACK_S_MAX: Final = 60.0  # that a clock may have been set back since a session began
ATTEMPTS_MAX: Final = 10  # wrong credentials of one kind from one network …
ATTEMPTS_ALL_MAX: Final = 100  # … and in all, that are looked for in the state folder, within
ATTEMPTS_S: Final = 60.0
ADDRESSES_MAX: Final = 10_000  # networks and kinds that are remembered; the oldest are forgotten first
COOKIE_CHARS_MAX: Final = 2048

_HOST: Final = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(\d{1,5}))?")


class Principal(msgspec.Struct, frozen=True):
    """Who asks. `credential`: a token's SHA-256 or a session's id, by which the sign-in can be ended.

    `token_hash`: the SHA-256 of the token to which a session belongs; the session is good for as long as that token.
    `until_wall_s`: when the time of a token is over.
    """

    role: Role
    actor: str
    credential: str
    canary: bool = False
    by_cookie: bool = False
    token_hash: str = ""
    since_wall_s: float = 0.0  # when a session's operator signed in
    until_wall_s: float = math.inf

    @property
    def owner(self) -> str:
        """Return by what its connections, requests and frames are counted: a token by its SHA-256, and apart from it
        all browsers' sessions of one role that belong to it. So nobody gets more by signing in again, and whoever signs
        in by a link of a lower role uses up nothing of the token that this installation itself uses.
        """
        return f"{self.token_hash} {self.role}" if self.by_cookie else self.credential


class _Session(msgspec.Struct, frozen=True):
    id: str
    token_hash: str
    role: Role
    actor: str
    at: float


_session = msgspec.json.Decoder(_Session)


def session_of(session_id: str, token_hash: str, role: Role, actor: str, since_wall_s: float) -> Principal:
    """Return the session that began then and belongs to the token."""
    return Principal(role, actor, session_id, by_cookie=True, token_hash=token_hash, since_wall_s=since_wall_s)


def cookie(key: bytes, session: Principal) -> str:
    """Return the session, signed, for a Set-Cookie header."""
    content = _Session(session.credential, session.token_hash, session.role, session.actor, session.since_wall_s)
    body = base64.urlsafe_b64encode(msgspec.json.encode(content)).rstrip(b"=")
    return f"{body.decode()}.{_signature(key, body)}"


def read_cookie(key: bytes, text: str, now_wall_s: float) -> Principal | None:
    """Return whose session the cookie is; None if it is not signed by this installation, altered, or too old.

    A cookie that names no token is of a version before: None.
    """
    body, dot, signature = text.partition(".")
    if not dot or len(text) > COOKIE_CHARS_MAX or not text.isascii():
        return None
    if not hmac.compare_digest(_signature(key, body.encode()), signature):
        return None
    try:
        session = _session.decode(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (ValueError, msgspec.DecodeError):
        return None
    if is_over(session.at, now_wall_s):
        return None
    return session_of(session.id, session.token_hash, session.role, session.actor, session.at)


def is_over(since_wall_s: float, now_wall_s: float) -> bool:
    """Return whether a session that began then has ended by its age."""
    return not -CLOCK_BACK_S_MAX <= now_wall_s - since_wall_s <= SESSION_S_MAX


def is_fresh(principal: Principal, now_wall_s: float, fresh_s: float) -> bool:
    """Return whether who asks has signed in within `fresh_s`. A token signs in with each request."""
    return not principal.by_cookie or now_wall_s - principal.since_wall_s <= fresh_s


def is_idle(since_wall_s: float, used_wall_s: float, now_wall_s: float) -> bool:
    """Return whether a session that began and was last used then has ended because nobody used it."""
    return now_wall_s - max(since_wall_s, used_wall_s) > IDLE_S_MAX


def _signature(key: bytes, body: bytes) -> str:
    return base64.urlsafe_b64encode(hmac.digest(key, body, "sha256")).rstrip(b"=").decode()


class Public(msgspec.Struct, frozen=True):
    """The names by which browsers may call this installation: loopback always, and one public origin
    (`https://fleet.example:8443`).
    """

    origin: str = ""  # scheme://host[:port], lower case, without a default port
    host: str = ""  # its host[:port]
    secure: bool = False  # cookies only over TLS
    prefix: str = ""  # the path below which browsers ask (`/fleet`), whether a proxy takes it away or not

    @classmethod
    def of(cls, url: str, listen: str, tls: bool) -> Public:
        """Return the names by operators.url; if it is not set, by the address listened on,
        unless that is every address.
        """
        scheme = "https" if tls else "http"
        if not url and not re.match(r"(0\.0\.0\.0|\*|localhost|127\.|\[[0:]*1?\]:)", listen):
            url = f"{scheme}://{listen}"
        parts = urlsplit(url)
        host = normal_host(parts.netloc, parts.scheme)
        origin = f"{parts.scheme}://{host}" if host else ""
        return cls(origin, host, tls or parts.scheme == "https", parts.path.rstrip("/"))


def normal_host(host: str, scheme: str) -> str:
    """Return host[:port] in lower case and without the scheme's default port; empty if it is not a host."""
    found = _HOST.fullmatch(host)
    if found is None:
        return ""
    name, port = found.group(1).lower().removesuffix("."), found.group(2)
    return name if port is None or int(port) == {"http": 80, "https": 443}.get(scheme) else f"{name}:{int(port)}"


def host_allowed(host: str, public: Public) -> bool:
    """Return whether a request's Host is this installation; any other may be a rebound DNS name (answer: 421).

    An empty one is no other: a load balancer's probe over HTTP/1.0 has none, and every browser names one.
    """
    return (
        not host
        or _is_loopback(host)
        or (bool(public.host) and normal_host(host, urlsplit(public.origin).scheme) == public.host)
    )


def below(path: str, prefix: str) -> str:
    """Return the path as the installation has it: without the prefix, if a proxy has left that in place."""
    return path.removeprefix(prefix) if prefix and path.startswith(f"{prefix}/") else path


def cookie_values(headers: Iterable[str], name: str) -> list[str]:
    """Return the values of the cookies of that name, in order. Whatever else a browser sends hides none of them.

    Source: RFC 6265, section 5.4: pairs, each ended by a semicolon. Other programs of the host set what they like. The
    parser of the standard library undoes quotes and escapes, which no cookie of ours has, and takes 14 s for a head
    full of backslashes (CVE-2024-7592, Python before 3.11.10).
    """
    pairs = (pair.partition("=") for header in headers for pair in header.split(";"))
    return [value.strip().strip('"') for found, equals, value in pairs if equals and found.strip() == name]


def _is_loopback(host: str) -> bool:
    found = _HOST.fullmatch(host)
    return found is not None and is_this_machine(found.group(1))


def origin_allowed(origin: str, host: str, public: Public, tls: bool) -> bool:
    """Return whether the asking page is our own: of the public origin, or of the loopback host in the request.

    Source: RFC 6454; `null` and everything that is not exactly scheme://host[:port] is foreign.
    """
    scheme, separator, rest = origin.partition("://")
    if not separator or scheme not in ("http", "https") or not normal_host(rest, scheme) or rest != rest.lower():
        return False
    given = f"{scheme}://{normal_host(rest, scheme)}"
    own_scheme = "https" if tls else "http"
    return given == public.origin or (_is_loopback(host) and given == f"{own_scheme}://{normal_host(host, own_scheme)}")


class Attempts:
    """Counts wrong credentials by network and by kind (token, code, bearer), and in all.

    Nobody is kept out by others' guesses: a token that is known is never counted nor asked about here, and a code is
    looked up whatever was counted. What the limits refuse is a further look into the state folder for an unknown token.
    Bounded: ADDRESSES_MAX networks and kinds, ATTEMPTS_MAX times each.
    """

    def __init__(self) -> None:
        self._by_source: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()
        self._all: deque[float] = deque(maxlen=ATTEMPTS_ALL_MAX)

    def allow(self, network: str, kind: str, now_s: float) -> bool:
        """Return whether one more unknown credential of this kind is within the limits; if so, count it."""
        times = self._by_source.setdefault((network, kind), deque(maxlen=ATTEMPTS_MAX))
        self._by_source.move_to_end((network, kind))
        if len(self._by_source) > ADDRESSES_MAX:
            self._by_source.popitem(last=False)
        for kept, limit in ((times, ATTEMPTS_MAX), (self._all, ATTEMPTS_ALL_MAX)):
            while kept and now_s - kept[0] >= ATTEMPTS_S:
                kept.popleft()
            if len(kept) >= limit:
                return False
        times.append(now_s)
        self._all.append(now_s)
        return True

    def succeeded(self, network: str, kind: str) -> None:
        """Take back the last counted attempt, which was no guess: the token had been made a moment ago."""
        for kept in (self._by_source.get((network, kind)), self._all):
            if kept:
                kept.pop()


class Uses:
    """Remembers when each session or token was last used in this process, to within `told_s`. Bounded: SESSIONS_MAX."""

    def __init__(self, told_s: float = USE_TOLD_S) -> None:
        self._told: OrderedDict[str, float] = OrderedDict()
        self._told_s = told_s

    def note(self, credential: str, now_wall_s: float) -> bool:
        """Note a use. Return whether to tell the other processes: at most once in `told_s` for one credential."""
        if 0.0 <= now_wall_s - self._told.get(credential, float("-inf")) < self._told_s:
            return False
        self._told[credential] = now_wall_s
        self._told.move_to_end(credential)
        if len(self._told) > SESSIONS_MAX:
            self._told.popitem(last=False)
        return True

    def last_wall_s(self, credential: str) -> float:
        """Return when it was last used here; 0 if that is not known."""
        return self._told.get(credential, 0.0)
