"""The small values that every room speaks of. Pure."""

from __future__ import annotations

import datetime
import enum
import re
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta

HOST_NAME_MAX: Final = 253  # characters; RFC 1123 section 2.1
HOST_NAME: Final = re.compile(r"(?!.{254})[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
                              r"(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*")  # fmt: skip
OP_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

CANARY_HOST: Final = "_canary"  # not an RFC 1123 name, so nobody can enrol or command it
CANARY_OP: Final = "noop"
PROTOCOL: Final = 1  # what fleethub's own agents say in `register`; 0 is a foreign agent

NIXFLEET_OPS: Final = (  # what a host without `protocol: 1` offers; source: NixFleet's agent 3.1.5
    "pull", "switch", "pull-switch", "test", "rollback", "update", "force-update", "refresh-git", "refresh-lock",
    "refresh-system", "refresh-all", "check-version", "stop", "restart", "reboot",
)  # fmt: skip
STOP: Final = "stop"  # the one of them that works beside another, and on it

Time = Annotated[
    str, Meta(extra_json_schema={"format": "date-time"})
]  # as `rfc3339` writes it, and the API's document says so


class Now(NamedTuple):
    """One reading of both clocks, handed to the pure core.

    Units: `boot_s` seconds of CLOCK_BOOTTIME (deadlines), `wall_s` seconds since 1970 UTC (for people, and across
    reboots).
    """

    boot_s: float
    wall_s: float


class Position(NamedTuple):
    """A place in a queue: the epoch of the queue's memory, and the sequence number of the last item dealt with.

    Sequences begin at 1; `Position(epoch, 0)` stands before the first item, epoch 0 means "from the beginning of
    whatever is there".
    """

    epoch: int
    sequence: int


class Presence(enum.StrEnum):
    """What is known of a host's connection. `stale`: restored from disk, not yet heard of by this hub."""

    ONLINE = "online"
    STALE = "stale"
    OFFLINE = "offline"


class Role(enum.StrEnum):
    """What an operator may do: look, command, or also change the fleet and the tokens."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def may(self, needed: Role) -> bool:
        """True when this role includes `needed`."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


class Stream(enum.StrEnum):
    """Which stream of a command a piece of output came from."""

    STDOUT = "stdout"
    STDERR = "stderr"


class Unknown(enum.StrEnum):
    """Reasons of an agent's report that says: it was begun, and nobody can know how it ended. A hub makes it `lost`."""

    REBOOTED = "rebooted"  # the machine, between its start and its end
    SHIM_DIED = "shim_died"  # what watched it was killed
    UNREADABLE = "record_unreadable"  # the record of its end is damaged


class OutputRecord(msgspec.Struct, frozen=True):
    """One line of a command's output (without its newline), or a piece of at most 8 KiB of a long one.

    One that ends with a carriage return is drawn over by the next of its stream, as a bar of progress is.
    `offset` is its running number over both streams, from 0; None from an agent that does not number.
    """

    offset: int | None
    stream: Stream
    data: str


class CloseCode(enum.IntEnum):
    """Every way a WebSocket of ours is closed. 1001, 1012 and 4000–4499: come back; 4500–4999: do not."""

    NORMAL = 1000
    GOING_AWAY = 1001
    POLICY = 1008  # ten malformed frames within a minute
    TOO_BIG = 1009
    RESTART = 1012
    KEEPALIVE = 4000  # nothing was heard for too long
    SLOW = 4008  # the peer does not read
    REPLACED = 4409  # a newer connection with the same token
    RENAMED = 4503  # `register` named another host than the token's
    REVOKED = 4501  # the token is no longer valid
    SUSPENDED = 4502  # too many of its events were put aside; until an operator lifts it


def rfc3339(wall_s: float | None) -> str | None:
    """The time as the contract writes it: RFC 3339, UTC, milliseconds. None stays None."""
    if wall_s is None:
        return None
    at = datetime.datetime.fromtimestamp(wall_s, datetime.UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds_between(begun_at: str | None, over_at: str | None) -> float | None:
    """From one time of the API to another; None if one is not known."""
    if begun_at is None or over_at is None:
        return None
    begun, over = datetime.datetime.fromisoformat(begun_at), datetime.datetime.fromisoformat(over_at)
    return (over - begun).total_seconds()


def token_id(token_hash: str) -> str:
    """How people name an operator token: the beginning of its hash, which is no secret."""
    return token_hash[:12]


def process_name(kind: str, number: int, count: int) -> str:
    """The contract's name of a process: `gateway` when there is one, `gateway:0` … when there are several."""
    return kind if count == 1 else f"{kind}:{number}"
