"""Small values that every room uses. Pure."""

from __future__ import annotations

import datetime
import enum
import functools
import hashlib
import ipaddress
import re
from typing import Annotated, Final, NamedTuple
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from processes.core.older_python import UTC, StrEnum

HOST_NAME_MAX: Final = 253  # characters; RFC 1123 section 2.1
HOST_NAME: Final = re.compile(r"(?!.{254})[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
                              r"(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*")  # fmt: skip
OP_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

TOKEN_VOID: Final = 410  # the answer to a code that comes with a token which was made void: make another and ask again
ENROLMENT_CODE_S: Final = (
    3600.0  # for so long an enrolment code is good unless said otherwise; guess: a machine's installation
)
RFC3339_KEPT: Final = 10_000  # times as text; guess: of all commands that move within some seconds
CANARY_HOST: Final = "_canary"  # not an RFC 1123 name, so nobody can enrol or command it
CANARY_OP: Final = "noop"
PROTOCOL: Final = 1  # what fleethub's own agents say in `register`; 0 is a foreign agent

NIXFLEET_OPS: Final = (  # what a host without `protocol: 1` offers; source: NixFleet's agent 3.1.5
    "pull", "switch", "pull-switch", "test", "rollback", "update", "force-update", "refresh-git", "refresh-lock",
    "refresh-system", "refresh-all", "check-version", "stop", "restart", "reboot",
)  # fmt: skip
STOP: Final = "stop"  # the only one of them that runs beside another command: it ends that command

# as `rfc3339` writes it; the format stands in the API's document
Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]


class Now(NamedTuple):
    """One reading of both clocks, handed to the pure core.

    Units: `boot_s` in seconds of CLOCK_BOOTTIME (for deadlines); `wall_s` in seconds since 1970 UTC (for people, and
    across reboots).
    """

    boot_s: float
    wall_s: float


class Position(NamedTuple):
    """A place in a queue: the epoch of the queue's memory, and the sequence number of the last item that was handled.

    Sequence numbers begin at 1, so `Position(epoch, 0)` stands before the first item. Epoch 0 means "from the oldest
    item that is still kept".
    """

    epoch: int
    sequence: int


class Presence(StrEnum):
    """What is known of a host's connection. `stale`: restored from disk; this hub has not heard of the host yet."""

    ONLINE = "online"
    STALE = "stale"
    OFFLINE = "offline"


class Severity(StrEnum):
    """How bad it is."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


GRAVITY: Final = {Severity.INFO: 0, Severity.WARNING: 1, Severity.CRITICAL: 2}


class Role(StrEnum):
    """What an operator may do: look, also give commands, or also change hosts and tokens."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def may(self, needed: Role) -> bool:
        """Return True if this role includes `needed`."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


class Stream(StrEnum):
    """Which stream of a command a piece of output came from."""

    STDOUT = "stdout"
    STDERR = "stderr"


class Unknown(StrEnum):
    """Why nobody can know how a command ended that was begun: reasons in an agent's report. The hub makes it `lost`."""

    REBOOTED = "rebooted"  # the machine rebooted while the command ran
    SHIM_DIED = "shim_died"  # the shim that watched the command was killed
    UNREADABLE = "record_unreadable"  # the record of the command's end is damaged


class OutputRecord(msgspec.Struct, frozen=True):
    """One line of a command's output (without its newline), or a piece of at most 8 KiB of a long one.

    A record that ends with a carriage return is drawn over by the next record of the same stream, like a progress bar.
    `offset` is the record's number, counted over both streams from 0; None if the agent does not number its output.
    """

    offset: int | None
    stream: Stream
    data: str


class CloseCode(enum.IntEnum):
    """Every code with which we close a WebSocket. After 1001, 1012 and 4000–4499 come back; after 1008 in half a
    minute; after 4500–4999 do not.
    """

    NORMAL = 1000
    GOING_AWAY = 1001
    POLICY = 1008  # malformed frames, a flood (core/budgets.py), or no `register` in time
    TOO_BIG = 1009
    RESTART = 1012
    KEEPALIVE = 4000  # nothing was heard for too long
    SLOW = 4008  # the peer does not read
    REPLACED = 4409  # a newer connection with the same token
    RENAMED = 4503  # `register` named another host than the token's
    REVOKED = 4501  # the token is no longer valid
    # until an operator lifts it: too many of its events became dead letters, or it was closed for a flood three times
    SUSPENDED = 4502


@functools.lru_cache(maxsize=RFC3339_KEPT)
def rfc3339(wall_s: float | None) -> str | None:
    """Return the time as text: RFC 3339, UTC, milliseconds. None stays None. The same few times are asked for over and
    over: of each step of a command, all times of its row.
    """
    if wall_s is None:
        return None
    at = datetime.datetime.fromtimestamp(wall_s, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds_between(begun_at: str | None, over_at: str | None) -> float | None:
    """From one time of the API to another; None if one is not known."""
    if begun_at is None or over_at is None:
        return None
    begun, over = datetime.datetime.fromisoformat(begun_at), datetime.datetime.fromisoformat(over_at)
    return (over - begun).total_seconds()


def is_this_machine(host: str) -> bool:
    """Return whether a name or address, as it stands in a URL, a Host header or a setting, is this machine's own."""
    try:
        found = ipaddress.ip_address(host.removeprefix("[").removesuffix("]").partition("%")[0])
    except ValueError:
        return host.lower() == "localhost"
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback


def is_plain_elsewhere(url: str) -> bool:
    """Return True for a ws:// URL of another machine: who dials it shows the token to whoever is on the way."""
    parts = urlsplit(url)
    return parts.scheme == "ws" and not is_this_machine(parts.hostname or "")


def digest(secret: str) -> str:
    """Return how a token or code is kept: SHA-256 in hex. Secrets are random, so a slow hash would add nothing."""
    return hashlib.sha256(secret.encode(errors="surrogateescape")).hexdigest()


def token_id(token_hash: str) -> str:
    """Return the name of an operator token for people: the beginning of its hash, which is no secret."""
    return token_hash[:12]


PROCESSES_MAX: Final = 64  # of one kind; guess: each takes 40 MB, and a core is busy with one


def process_name(kind: str, number: int, count: int) -> str:
    """Return the name of a process: `gateway` if there is only one, `gateway:0`, `gateway:1` … if there are several."""
    return kind if count == 1 else f"{kind}:{number}"
