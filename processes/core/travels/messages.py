"""What travels through the queues between the processes: events, broadcasts, deliveries. Pure.

Every message is one queue item: a byte with the format's version, then msgpack. Fields are only ever added, with
defaults, so that a process of the version before understands them (upgrades go process by process). Every message of
the hub carries its epoch; whoever meets an older one than it has seen drops it.

    events       gateway, fanout → hub        AgentRegistered HeartbeatReceived … CensusTaken RequestReceived
                 SnapshotWanted
                                              AuditNoted PutAside
    broadcasts   hub → each fanout            HubStarted Changed SnapshotPiece OutputGrew Replied
    deliveries   hub → each gateway           HubStarted TokensPiece TokenChanged DeliverCommand DeliverAck …
"""

from __future__ import annotations

from typing import Final, NewType

import msgspec

from processes.core.errors import LocalError
from processes.core.travels.agent_frames import Heartbeat, Register
from processes.core.travels.audit import AuditLine
from processes.core.values import CloseCode, OutputRecord

FORMAT: Final = 1

Json = NewType("Json", bytes)  # one encoded JSON value, handed on without decoding


# Agents' events, from a gateway. `connection` is "BOOT.NUMBER", unique for ever: the gateway's boot id and a counter.


class Connection(msgspec.Struct, frozen=True, omit_defaults=True):
    """One agent's connection after its `register`. Of foreign agents only: `written`, ids of the commands written on
    it; `idle`: on it the agent said that it runs nothing, so whatever it runs from then on was written on it.
    """

    connection: str
    gateway: str
    host: str
    enrolment: str
    register: Register
    facts: Json = Json(b"{}")
    address: str = ""
    since_boot_s: float = 0.0  # CLOCK_BOOTTIME of its `register`: of two connections of one host the later is current
    written: list[str] = []
    idle: bool = False
    progress: Json = Json(b"{}")  # of its operations, as it told it last


class AgentEvent(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="t"):
    """Something that an agent's connection did. The gateway vouches for `host`: it comes from the token, never from a
    frame.
    """

    connection: str
    gateway: str
    host: str


class AgentRegistered(AgentEvent, frozen=True, omit_defaults=True, tag=True):
    """`register` arrived on a connection that was let in."""

    info: Connection


class AgentDisconnected(AgentEvent, frozen=True, omit_defaults=True, tag=True):
    """The connection is gone."""

    code: int
    reason: str = ""


class HeartbeatReceived(AgentEvent, frozen=True, omit_defaults=True, tag=True):
    """A heartbeat; the only event that may be conflated (the newest of a host is kept)."""

    heartbeat: Heartbeat
    facts: Json = Json(b"{}")


class AckReceived(AgentEvent, frozen=True, omit_defaults=True, tag=True):
    """The agent has the command durably. state: accepted or duplicate."""

    command_id: str
    state: str


class RejectReceived(AgentEvent, frozen=True, omit_defaults=True, tag=True):
    """The agent will not run the command. Without an id: of a foreign agent, about nothing that was written on this
    connection.
    """

    reason: str
    command_id: str | None = None
    current_command: str | None = None


class OutputReceived(AgentEvent, frozen=True, omit_defaults=True, tag=True):
    """Consecutive records of one command's output. Without an id: a foreign agent's, of a command from before this
    connection.
    """

    records: list[OutputRecord]
    command_id: str | None = None


class StatusReceived(AgentEvent, frozen=True, omit_defaults=True, tag=True):
    """The agent's report of a command's end. Without an id: a foreign agent's, of a command from before this
    connection.
    """

    status: str
    exit_code: int | None = None
    message: str = ""
    command_id: str | None = None
    op: str = ""
    reason: str = ""


class ProgressReceived(AgentEvent, frozen=True, omit_defaults=True, tag=True):
    """A foreign agent's progress, as it came. Without an id: of a command from before this connection."""

    progress: Json
    command_id: str | None = None


class Undelivered(AgentEvent, frozen=True, omit_defaults=True, tag=True):
    """The gateway has no such connection: the command was not written to any socket."""

    command_id: str
    attempt: int


class CensusTaken(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="t", tag=True):
    """All connections of a gateway, in pieces of at most CENSUS_PIECE; what is in none of them is not connected there.

    Sent when the gateway starts, when the hub's epoch or the events queue's epoch changes, and after a gap in its
    deliveries. The hub answers with the token table.
    """

    gateway: str
    census: int  # grows with each census of this gateway's life
    boot: str
    piece: int
    last: bool
    connections: list[Connection] = []


CENSUS_PIECE: Final = 200  # connections; a register with a long `known` list is about 100 KiB at most


# Operators' requests, from a fanout


class GiveCommand(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="r", tag=True):
    """POST /api/v1/commands. ttl_s None: the setting's default."""

    op: str
    hosts: list[str]
    key: str | None = None
    ttl_s: float | None = None


class CancelCommand(msgspec.Struct, frozen=True, tag_field="r", tag=True):
    """POST /api/v1/commands/ID/cancel."""

    command_id: str


class StartRun(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="r", tag=True):
    """POST /api/v1/runs. Hosts by name, or `where`: fields of the host and their values; {} is every host. parallel
    None: all.
    """

    steps: list[str]
    hosts: list[str] | None = None
    where: dict[str, str] | None = None
    parallel: int | None = None
    max_failures: int | None = None
    ttl_s: float | None = None
    key: str | None = None


class CancelRun(msgspec.Struct, frozen=True, tag_field="r", tag=True):
    """POST /api/v1/runs/ID/cancel."""

    run_id: str


class EnrollHost(msgspec.Struct, frozen=True, tag_field="r", tag=True):
    """POST /api/v1/hosts. The token itself never leaves the asking fanout; `token_hash` is its SHA-256 in hex."""

    name: str
    token_hash: str
    again: bool = False


class RevokeHost(msgspec.Struct, frozen=True, tag_field="r", tag=True):
    """POST /api/v1/hosts/NAME/revoke: its token is void, its connection ends; the host and its commands stay."""

    name: str


class RemoveHost(msgspec.Struct, frozen=True, tag_field="r", tag=True):
    """DELETE /api/v1/hosts/NAME."""

    name: str


class CreateToken(msgspec.Struct, frozen=True, tag_field="r", tag=True):
    """A further operator token, by its hash."""

    token_hash: str
    role: str
    label: str = ""


class RehearseFault(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="r", tag="Drill"):
    """Rehearse a fault inside the hub's step (only with drills.enabled). Meant for one epoch: a successor ignores it.

    fault: deadlock, busy, blocked, exception, leak, exit; poison and poison_exit happen in every epoch, until they are
    put aside.
    """

    fault: str
    epoch: int


class RevokeToken(msgspec.Struct, frozen=True, tag_field="r", tag=True):
    """DELETE /api/v1/tokens/ID, by the token's hash."""

    token_hash: str


class LiftHost(msgspec.Struct, frozen=True, tag_field="r", tag=True):
    """POST /api/v1/hosts/NAME/lift: its token is no longer suspended."""

    name: str


class RetryLetter(msgspec.Struct, frozen=True, tag_field="r", tag=True):
    """POST /api/v1/deadletters/ID/retry."""

    letter_id: str


class DiscardLetter(msgspec.Struct, frozen=True, tag_field="r", tag=True):
    """POST /api/v1/deadletters/ID/discard."""

    letter_id: str


Request = (
    GiveCommand | CancelCommand | StartRun | CancelRun | EnrollHost | RevokeHost | RemoveHost | LiftHost | CreateToken | RevokeToken
    | RetryLetter | DiscardLetter | RehearseFault
)  # fmt: skip


class RequestReceived(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="t", tag=True):
    """An operator's request. Stepped after `deadline_boot_s` it is refused: its asker was told 503 by then.

    Asked again after a gap with the same `request_id`; the answer is then the same too.
    """

    request_id: str
    fanout: str
    actor: str
    deadline_boot_s: float
    request: Request


class SnapshotWanted(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="t", tag=True):
    """A fanout started, met a gap or a new hub: it needs the whole state. `snapshot` is echoed in the pieces."""

    fanout: str
    snapshot: str


class AuditNoted(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="t", tag=True):
    """What a fanout alone knows for the audit trail: sign-ins, and attempts that it refused itself."""

    fanout: str
    lines: list[AuditLine]


class Death(msgspec.Struct, frozen=True, omit_defaults=True):
    """A death by the process's own fault, with `name` in hand; boot, pid and start ticks say which process, for ever.

    Units: boot_s of CLOCK_BOOTTIME of the boot named in `boot`, wall_s since 1970; both of when its successor looked at
    it.
    """

    name: str
    cause: str  # a value of poison.Cause
    boot: str
    boot_s: float
    wall_s: float
    pid: int
    start_ticks: int
    incident: str = ""
    stacks: str = ""


class PutAside(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="t", tag=True):
    """A fanout left a broadcast out, because it ended that fanout each time: of what kind, of which row, and how it
    ended.
    """

    fanout: str
    name: str
    kind: str
    id: str
    deaths: list[Death]


Event = (
    AgentRegistered | AgentDisconnected | HeartbeatReceived | AckReceived | RejectReceived | OutputReceived | StatusReceived
    | ProgressReceived | Undelivered | CensusTaken | RequestReceived | SnapshotWanted | AuditNoted | PutAside
)  # fmt: skip


# Broadcasts, hub → each fanout


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """One row of the state. kind: host, host_removed, command, command_removed, ledger. `fields`: a JSON object, merged
    by key.
    """

    kind: str
    id: str
    fields: Json = Json(b"{}")


class FromHub(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="t"):
    """What a hub says to a fanout."""

    epoch: int


class HubStarted(FromHub, frozen=True, omit_defaults=True, tag=True):
    """First message of a hub's life on every queue it writes; fanouts answer SnapshotWanted, gateways CensusTaken."""


class Changed(FromHub, frozen=True, omit_defaults=True, tag=True):
    """Committed (or volatile) changes, in order."""

    changes: list[Change]


class SnapshotPiece(FromHub, frozen=True, omit_defaults=True, tag=True):
    """Whole rows as they are now, among the deltas of the same queue: each row is current where its piece stands.

    The first piece (number 0) starts an empty replica; deltas for rows not yet seen are merged into nothing and come
    again in a later piece; after the last piece the replica is whole.
    """

    snapshot: str
    piece: int
    last: bool
    changes: list[Change]


class OutputGrew(FromHub, frozen=True, omit_defaults=True, tag=True):
    """Output of a command up to `next_offset` (exclusive) can be read from the database."""

    command_id: str
    next_offset: int
    complete: bool = False


class Replied(FromHub, frozen=True, omit_defaults=True, tag=True):
    """The answer to a request: an HTTP status and a JSON body as the API gives it."""

    request_id: str
    status: int
    body: Json


class TryAgain(FromHub, frozen=True, omit_defaults=True, tag=True):
    """What this fanout left out under this name is to be shown again: an operator wants it tried."""

    name: str


Broadcast = HubStarted | Changed | SnapshotPiece | OutputGrew | Replied | TryAgain


# Deliveries, hub → each gateway


class Token(msgspec.Struct, frozen=True):
    """A host that may connect, by the SHA-256 (hex) of its token. `enrolment` is the host_id it is told."""

    token_hash: str
    host: str
    enrolment: str


class TokensPiece(FromHub, frozen=True, omit_defaults=True, tag=True):
    """The whole token table in pieces (number 0 starts an empty one); complete, and current, with the last."""

    piece: int
    last: bool
    tokens: list[Token]


class TokenChanged(FromHub, frozen=True, omit_defaults=True, tag=True):
    """`token` replaces whatever `host` had; None: it has none (any more, or for now). Connections that used another one
    end now.
    """

    host: str
    token: Token | None
    code: int = CloseCode.REVOKED.value
    reason: str = "the token is no longer valid"


class DeliverRegistered(FromHub, frozen=True, omit_defaults=True, tag=True):
    """The hub holds this connection's registration. A gateway that told the agent already ignores it."""

    connection: str
    host: str
    enrolment: str


class DeliverCommand(FromHub, frozen=True, omit_defaults=True, tag=True):
    """Write the command to this connection, or answer Undelivered. The gateway stamps ttl_s from expires_boot_s when it
    writes.
    """

    connection: str
    host: str
    command_id: str
    op: str
    attempt: int
    expires_boot_s: float | None = None


class DeliverAck(FromHub, frozen=True, omit_defaults=True, tag=True):
    """Without offset: the report is durable. With it: output below is."""

    connection: str
    command_id: str
    offset: int | None = None
    quarantined: bool = False


class DeliverKill(FromHub, frozen=True, omit_defaults=True, tag=True):
    """Ask the agent to end a command."""

    connection: str
    command_id: str
    signal: str = "SIGTERM"


class CloseConnection(FromHub, frozen=True, omit_defaults=True, tag=True):
    """End this connection with a close code of values.CloseCode."""

    connection: str
    code: int
    reason: str = ""


Delivery = (
    HubStarted
    | TokensPiece
    | TokenChanged
    | DeliverRegistered
    | DeliverCommand
    | DeliverAck
    | DeliverKill
    | CloseConnection
)


_encoder = msgspec.msgpack.Encoder()
_event: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(Event)
_broadcast: msgspec.msgpack.Decoder[Broadcast] = msgspec.msgpack.Decoder(Broadcast)
_delivery: msgspec.msgpack.Decoder[Delivery] = msgspec.msgpack.Decoder(Delivery)
_PREFIX: Final = bytes([FORMAT])


def encode(message: Event | Broadcast | Delivery) -> bytes:
    """One queue item."""
    return _PREFIX + _encoder.encode(message)


def decode_event(item: bytes) -> Event:
    """The event of an item of `events`. Raises: LocalError, if it is of a format that this version does not know."""
    return _event.decode(_body(item))


def decode_broadcast(item: bytes) -> Broadcast:
    """The message of an item of `broadcasts`. Raises: LocalError."""
    return _broadcast.decode(_body(item))


def decode_delivery(item: bytes) -> Delivery:
    """The message of an item of `deliveries`. Raises: LocalError."""
    return _delivery.decode(_body(item))


def _body(item: bytes) -> memoryview:
    if item[:1] != _PREFIX:
        raise LocalError(f"a message of format {item[0] if item else 'none'}, this version knows {FORMAT}")
    return memoryview(item)[1:]


# The names of the queues

EVENTS: Final = "events"


def broadcasts_of(fanout: str) -> str:
    """The queue from the hub to one fanout."""
    return f"broadcasts/{fanout}"


def deliveries_of(gateway: str) -> str:
    """The queue from the hub to one gateway."""
    return f"deliveries/{gateway}"
