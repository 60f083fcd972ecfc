"""The messages that the processes send each other through the queues: events, broadcasts, deliveries. Pure.

Every message is one queue item: a byte with the format's version, then msgpack. Fields are only ever added, with
defaults, so that a process of the version before understands them (upgrades go process by process). `Event`,
`Broadcast` and `Delivery` are the unions of the messages of a kind of queue. `FromHub` is the base of the messages that
the hub sends: each carries the hub's epoch, and a receiver drops a message of an older epoch than it has seen.

    Event      events       gateway, fanout → hub   AgentRegistered HeartbeatsReceived … CensusTaken RequestReceived
                                                    SnapshotWanted AuditNoted PutAside TokenUsed CodeOffered
                                                    ConditionsJudged
    Broadcast  broadcasts   hub → each fanout       HubStarted Changed HostsHeard SnapshotPiece OutputGrew Replied
                                                    TryAgain
    Delivery   deliveries   hub → each gateway      HubStarted TokensPiece TokenChanged DeliverCommand DeliverAck …
"""

from __future__ import annotations

from typing import Final, NewType

import msgspec

from processes.core.errors import LocalError
from processes.core.travels.agent_frames import Heartbeat, Metrics, Register, UsualHeartbeat
from processes.core.travels.audit import AuditLine
from processes.core.travels.judged import JudgedCondition
from processes.core.values import ENROLMENT_CODE_S, CloseCode, OutputRecord

FORMAT: Final = 1

Json = NewType("Json", bytes)  # one encoded JSON value, handed on without decoding


# Agents' events, from a gateway. `connection` is "BOOT.NUMBER": the gateway's boot id and a counter, unique for ever.


class Connection(msgspec.Struct, frozen=True, omit_defaults=True):
    """One agent's connection after its `register`.

    Of foreign agents only: `written` has the ids of the commands sent on this connection. `idle`: the agent said on
    this connection that it runs nothing, so every command that it runs from then on was sent on this connection.
    """

    connection: str
    gateway: str
    host: str
    enrolment: str
    register: Register
    facts: Json = Json(b"{}")
    address: str = ""
    since_boot_s: float = 0.0  # CLOCK_BOOTTIME when it was accepted; of two of one host the later counts
    written: list[str] = []
    idle: bool = False
    progress: Json = Json(b"{}")  # of the agent's operations, as it was last reported
    told_s: float = 0.0  # the interval of heartbeats that the agent was told last; 0: none yet, or its own


class AgentEvent(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="t"):
    """Base of what happened on an agent's connection. The gateway takes `host` from the token, never from a frame."""

    connection: str
    gateway: str
    host: str


class AgentRegistered(AgentEvent, frozen=True, omit_defaults=True, tag=True):
    """A `register` frame arrived on a connection that had a valid token."""

    info: Connection


class AgentDisconnected(AgentEvent, frozen=True, omit_defaults=True, tag=True):
    """The connection ended."""

    code: int
    reason: str = ""


class HeartbeatReceived(AgentEvent, frozen=True, omit_defaults=True, tag=True):
    """A heartbeat arrived: a row of HeartbeatsReceived that is stepped alone, or the event of a gateway of the version
    before. The only event that may be conflated: of several of one host the newest is kept.
    """

    heartbeat: Heartbeat
    facts: Json = Json(b"{}")


class Beat(msgspec.Struct, frozen=True, array_like=True):
    """One host's heartbeat in a batch. `metrics`: an encoded agent_frames.Metrics, or null; handed on as it is.

    Fields are only ever added at the end, with defaults.
    """

    connection: str
    host: str
    metrics: Json = Json(b"null")
    facts: Json = Json(b"{}")
    pending_command: str | None = None
    command_pid: int | None = None


class HeartbeatsReceived(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="t", tag=True):
    """Heartbeats of many hosts of one gateway, at most BEATS_MAX, in no order that matters: one of each host.

    A gateway says it to a hub that said that it knows it (TokensPiece); another one gets each heartbeat as an event.
    """

    gateway: str
    beats: list[Beat]


BEATS_MAX: Final = 100  # in one item; 250 items (queue_calls.LIMITS) are then some 0.2 s of the hub's work


class AckReceived(AgentEvent, frozen=True, omit_defaults=True, tag=True):
    """The agent has stored the command durably. state: accepted, or duplicate if it had the command already."""

    command_id: str
    state: str


class RejectReceived(AgentEvent, frozen=True, omit_defaults=True, tag=True):
    """The agent will not run the command.

    Without a command id: a foreign agent's word about a command that was not sent on this connection.
    """

    reason: str
    command_id: str | None = None
    current_command: str | None = None


class OutputReceived(AgentEvent, frozen=True, omit_defaults=True, tag=True):
    """Consecutive records of one command's output.

    Without a command id: a foreign agent's output of a command from before this connection.
    """

    records: list[OutputRecord]
    command_id: str | None = None


class StatusReceived(AgentEvent, frozen=True, omit_defaults=True, tag=True):
    """The agent's report of a command's end.

    Without a command id: a foreign agent's report of a command from before this connection.
    """

    status: str
    exit_code: int | None = None
    message: str = ""
    command_id: str | None = None
    op: str = ""
    reason: str = ""


class ProgressReceived(AgentEvent, frozen=True, omit_defaults=True, tag=True):
    """A foreign agent's progress, as it came. Without a command id: of a command from before this connection."""

    progress: Json
    command_id: str | None = None


class Undelivered(AgentEvent, frozen=True, omit_defaults=True, tag=True):
    """The gateway has no such connection, so it wrote the command to no socket."""

    command_id: str
    attempt: int


class HostFlooded(AgentEvent, frozen=True, omit_defaults=True, tag=True):
    """A gateway has closed a connection of this host for a flood, for the last time that it puts up with: the host is
    to be suspended.
    """


class HostImpersonated(AgentEvent, frozen=True, omit_defaults=True, tag=True):
    """Agents with this host's token claimed to be another host. `claimed`, `address`: of the last one; `count`: how
    many, since the gateway told it last.
    """

    claimed: str
    address: str = ""
    count: int = 1


class TokenOffered(AgentEvent, frozen=True, omit_defaults=True, tag=True):
    """The agent has made a new token, as it was asked to, and says its SHA-256 (hex)."""

    token_hash: str


class CensusTaken(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="t", tag=True):
    """One piece of a gateway's census: all its connections, at most CENSUS_PIECE in a piece.

    A host that is in no piece is not connected there. A gateway sends a census when it starts, when the hub's epoch or
    the events queue's epoch changes, and after a gap in its deliveries. The hub answers with the token table.
    """

    gateway: str
    census: int  # grows with each census since the gateway started
    boot: str
    piece: int
    last: bool
    connections: list[Connection] = []


class CodeOffered(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="t", tag=True):
    """Somebody offers a one-time code at a gateway, for the host that the code names, with the SHA-256 (hex) of the
    token that the host is to have. `offer`: the gateway's name for it, in the answer too.
    """

    gateway: str
    offer: str
    host: str
    code_hash: str
    token_hash: str
    address: str = ""


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
    """POST /api/v1/runs. parallel None: PARALLEL hosts at a time.

    The hosts are given by name, or by `where`: fields of a host and their values; {} selects every host. `query`: by
    which a fanout found those that are named; a key that is used again compares it instead of the names.
    """

    steps: list[str]
    hosts: list[str] | None = None
    where: dict[str, str] | None = None
    parallel: int | None = None
    max_failures: int | None = None
    ttl_s: float | None = None
    key: str | None = None
    query: str | None = None


class CancelRun(msgspec.Struct, frozen=True, tag_field="r", tag=True):
    """POST /api/v1/runs/ID/cancel."""

    run_id: str


class EnrollHost(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="r", tag=True):
    """POST /api/v1/hosts. The token itself never leaves the asking fanout; `token_hash` is its SHA-256 in hex."""

    name: str
    token_hash: str
    again: bool = False
    labels: dict[str, str] = {}


class MakeCode(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="r", tag=True):
    """POST /api/v1/hosts/NAME/code: a one-time code for a host, by its SHA-256 in hex, good for `expires_s`."""

    name: str
    code_hash: str
    again: bool = False
    expires_s: float = ENROLMENT_CODE_S
    labels: dict[str, str] = {}


class RotateHost(msgspec.Struct, frozen=True, tag_field="r", tag=True):
    """POST /api/v1/hosts/NAME/rotate: have the host's agent make a new token, now or when it connects."""

    name: str


class RevokeHost(msgspec.Struct, frozen=True, tag_field="r", tag=True):
    """POST /api/v1/hosts/NAME/revoke: make its token void and end its connection; the host and its commands stay."""

    name: str


class LabelHosts(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="r", tag=True):
    """POST /api/v1/hosts/labels: set and remove labels of these hosts. `query`: by which a fanout found them."""

    hosts: list[str]
    set: dict[str, str] = {}
    remove: list[str] = []
    query: str = ""


class SaveQuery(msgspec.Struct, frozen=True, tag_field="r", tag=True):
    """POST /api/v1/queries: keep this text under this name. A fanout has read it: it is a query."""

    name: str
    query: str


class RemoveQuery(msgspec.Struct, frozen=True, tag_field="r", tag=True):
    """DELETE /api/v1/queries/NAME."""

    name: str


class RemoveHost(msgspec.Struct, frozen=True, tag_field="r", tag=True):
    """DELETE /api/v1/hosts/NAME."""

    name: str


class CreateToken(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="r", tag=True):
    """POST /api/v1/tokens: a further operator token, by its SHA-256 in hex. expires_s None: it has no end."""

    token_hash: str
    role: str
    label: str = ""
    expires_s: float | None = None


class RotateToken(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="r", tag=True):
    """POST /api/v1/tokens/ID/rotate: a new token in the place of one, both by their SHA-256 in hex. The old one is good
    for `overlap_s` more.
    """

    token_hash: str
    new_hash: str
    overlap_s: float = 0.0


class RehearseFault(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="r", tag="Drill"):
    """Rehearse a fault inside the hub's step (only with drills.enabled). A hub of another epoch ignores the request.

    fault: deadlock, busy, blocked, exception, leak, exit. The faults poison and poison_exit happen in every epoch,
    until the request is put aside as a dead letter.
    """

    fault: str
    epoch: int


class RevokeToken(msgspec.Struct, frozen=True, tag_field="r", tag=True):
    """DELETE /api/v1/tokens/ID, by the token's hash."""

    token_hash: str


class LiftHost(msgspec.Struct, frozen=True, tag_field="r", tag=True):
    """POST /api/v1/hosts/NAME/lift: end the suspension of its token."""

    name: str


class AcknowledgeCondition(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="r", tag=True):
    """POST /api/v1/conditions/ID/acknowledge: somebody has seen it."""

    condition_id: str
    why: str = ""


class MakeSilence(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="r", tag=True):
    """POST /api/v1/silences: nobody is told of hosts that meet the query, for `for_s`, from `in_s` from now on."""

    query: str
    why: str
    for_s: float
    in_s: float = 0.0


class EndSilence(msgspec.Struct, frozen=True, tag_field="r", tag=True):
    """DELETE /api/v1/silences/ID."""

    silence_id: str


class RetryDeadLetter(msgspec.Struct, frozen=True, tag_field="r", tag="RetryLetter"):
    """POST /api/v1/deadletters/ID/retry."""

    dead_letter_id: str = msgspec.field(name="letter_id")


class DiscardDeadLetter(msgspec.Struct, frozen=True, tag_field="r", tag="DiscardLetter"):
    """POST /api/v1/deadletters/ID/discard."""

    dead_letter_id: str = msgspec.field(name="letter_id")


Request = (
    GiveCommand | CancelCommand | StartRun | CancelRun | EnrollHost | MakeCode | RotateHost | RevokeHost | RemoveHost
    | LabelHosts | SaveQuery | RemoveQuery
    | LiftHost | CreateToken | RotateToken | RevokeToken | RetryDeadLetter | DiscardDeadLetter | RehearseFault
    | AcknowledgeCondition | MakeSilence | EndSilence
)  # fmt: skip


class RequestReceived(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="t", tag=True):
    """An operator's request.

    If the hub steps it after `deadline_boot_s`, it refuses the request: the fanout has told the operator 503 by then.
    After a gap the fanout sends the request again with the same `request_id`, and gets the same answer.
    """

    request_id: str
    fanout: str
    actor: str
    deadline_boot_s: float
    request: Request


class SnapshotWanted(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="t", tag=True):
    """A fanout started, or met a gap or a new hub, and needs the whole state. The pieces repeat `snapshot`.

    `hears`: this fanout knows HostsHeard; one of the version before gets each host's fields as a Change.
    """

    fanout: str
    snapshot: str
    hears: bool = False


class AuditNoted(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="t", tag=True):
    """Lines of the audit trail that only a fanout knows: sign-ins, and attempts that it refused itself."""

    fanout: str
    lines: list[AuditLine]


class TokenUsed(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="t", tag=True):
    """An operator token was used, or a session that belongs to it. A fanout says so once in some minutes; it may be
    lost.
    """

    fanout: str
    token_hash: str
    at_wall_s: float


class Death(msgspec.Struct, frozen=True, omit_defaults=True):
    """A process died by its own fault while it stepped the event `name`. `host_mark`: that of the host whose agent
    caused the event (poison.mark_of_host); empty: no agent's, or the death was noted by a version without marks.

    `boot`, `pid` and `start_ticks` identify the process for ever.
    Units: boot_s in seconds of CLOCK_BOOTTIME of the boot named in `boot`; wall_s in seconds since 1970. Both are the
    time at which the successor examined the death.
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
    host_mark: str = ""


class PutAside(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="t", tag=True):
    """A fanout leaves a row out, because entering it ended the fanout each time. `kind`, `id`: the row.

    Or, with an `error`, which is a traceback: the fanout shows the row, and its judge leaves the host out. The hub
    keeps a dead letter of either.
    """

    fanout: str
    name: str
    kind: str
    id: str
    deaths: list[Death]
    error: str = ""


class ConditionsJudged(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="t", tag=True):
    """What has changed of the conditions of hosts, at most JUDGED_MAX of them, each whole. The one fanout that judges
    says it again until it sees it shown.
    """

    fanout: str
    conditions: list[JudgedCondition]


FromGateway = (
    AgentRegistered | AgentDisconnected | HeartbeatReceived | HeartbeatsReceived | AckReceived | RejectReceived
    | OutputReceived | StatusReceived | ProgressReceived | Undelivered | HostFlooded | HostImpersonated | CensusTaken
    | CodeOffered | TokenOffered
)  # fmt: skip
FromFanout = RequestReceived | SnapshotWanted | AuditNoted | PutAside | TokenUsed | ConditionsJudged
Event = FromGateway | FromFanout


# Broadcasts, hub → each fanout


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """A change of one row. kind: host, host_removed, command, command_removed, ledger, condition, silence,
    silence_removed.

    `fields`: a JSON object, merged into the row by its top-level keys.
    """

    kind: str
    id: str
    fields: Json = Json(b"{}")


class FromHub(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="t"):
    """Base of every message that a hub sends, to a fanout (`Broadcast`) or to a gateway (`Delivery`)."""

    epoch: int


class HubStarted(FromHub, frozen=True, omit_defaults=True, tag=True):
    """A hub's first message on every queue that it writes. Fanouts answer SnapshotWanted, gateways CensusTaken."""


class Changed(FromHub, frozen=True, omit_defaults=True, tag=True):
    """Changes, in order. They are committed, or are of state that is never on disk."""

    changes: list[Change]


class HostsHeard(FromHub, frozen=True, omit_defaults=True, tag=True):
    """What the heartbeats of a batch change of hosts that are known. Shape: (host, fields), each host once.

    `fields`: a JSON object, merged into the host's row. It has the same keys each time of one host (`last_seen`,
    `metrics`; the canary's `beat` too), so a later one takes the place of an earlier one undecoded.
    """

    hosts: list[tuple[str, Json]]


class SnapshotPiece(FromHub, frozen=True, omit_defaults=True, tag=True):
    """Whole rows of the state. They come between the deltas of the same queue: a row is current where its piece stands.

    The first piece (number 0) begins an empty replica. Deltas for rows that are not in it yet are merged into an empty
    row; a later piece brings the whole row. After the last piece the replica is complete.
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
    """An operator wants the row tried again that this fanout left out under `name`: show it again."""

    name: str


Broadcast = HubStarted | Changed | HostsHeard | SnapshotPiece | OutputGrew | Replied | TryAgain


# Deliveries, hub → each gateway


class Token(msgspec.Struct, frozen=True):
    """A host that may connect, by the SHA-256 (hex) of its token. `enrolment`: the host_id that its agent is told."""

    token_hash: str
    host: str
    enrolment: str


class TokensPiece(FromHub, frozen=True, omit_defaults=True, tag=True):
    """A piece of the token table. Number 0 begins an empty table; with the last piece it is complete and current.

    `batches`: this hub knows HeartbeatsReceived.
    """

    piece: int
    last: bool
    tokens: list[Token]
    batches: bool = False


class TokenChanged(FromHub, frozen=True, omit_defaults=True, tag=True):
    """`token` replaces the token of `host`; None: the host has none (any more, or for now).

    The gateway ends connections that used another token, with `code` and `reason`.
    """

    host: str
    token: Token | None
    code: int = CloseCode.REVOKED.value
    reason: str = "the token is no longer valid"


class DeliverRegistered(FromHub, frozen=True, omit_defaults=True, tag=True):
    """The hub has this connection's registration. A gateway that has told the agent the same already ignores the
    message. `heartbeat_interval`: how often the agent is to send heartbeats; 0: as often as it said.
    """

    connection: str
    host: str
    enrolment: str
    heartbeat_interval: float = 0.0


class DeliverCommand(FromHub, frozen=True, omit_defaults=True, tag=True):
    """Write the command to this connection, or answer Undelivered.

    The gateway computes the frame's ttl_s from `expires_boot_s` when it writes the command.
    """

    connection: str
    host: str
    command_id: str
    op: str
    attempt: int
    expires_boot_s: float | None = None


class DeliverAck(FromHub, frozen=True, omit_defaults=True, tag=True):
    """Without `offset`: the command's report is durable. With `offset`: its output below this offset is durable."""

    connection: str
    command_id: str
    offset: int | None = None
    quarantined: bool = False


class DeliverKill(FromHub, frozen=True, omit_defaults=True, tag=True):
    """Ask the agent to end a command."""

    connection: str
    command_id: str
    signal: str = "SIGTERM"


class CodeAnswered(FromHub, frozen=True, omit_defaults=True, tag=True):
    """The answer to a code that was offered at this gateway: an HTTP status, and the host's name or why not."""

    offer: str
    status: int
    told: str


class DeliverRotate(FromHub, frozen=True, omit_defaults=True, tag=True):
    """Ask the agent to make a new token."""

    connection: str


class CloseConnection(FromHub, frozen=True, omit_defaults=True, tag=True):
    """End this connection with a close code of values.CloseCode."""

    connection: str
    code: int
    reason: str = ""


Delivery = (
    HubStarted | TokensPiece | TokenChanged | DeliverRegistered | DeliverCommand | DeliverAck | DeliverKill
    | CloseConnection | CodeAnswered | DeliverRotate
)  # fmt: skip


class _PackedBeats(msgspec.Struct, frozen=True, tag_field="t", tag="HeartbeatsReceived"):
    gateway: str
    beats: list[msgspec.Raw]


_encoder = msgspec.msgpack.Encoder()
_json_encoder = msgspec.json.Encoder()
_beat = msgspec.msgpack.Decoder(Beat)
_metrics: msgspec.json.Decoder[Metrics | None] = msgspec.json.Decoder(Metrics | None)
_event: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(Event)
_broadcast: msgspec.msgpack.Decoder[Broadcast] = msgspec.msgpack.Decoder(Broadcast)
_delivery: msgspec.msgpack.Decoder[Delivery] = msgspec.msgpack.Decoder(Delivery)
_PREFIX: Final = bytes([FORMAT])


def encode(message: Event | Broadcast | Delivery) -> bytes:
    """Return the message as one queue item."""
    return _PREFIX + _encoder.encode(message)


def encode_beat(connection: str, host: str, said: Heartbeat | UsualHeartbeat, facts: Json = Json(b"{}")) -> bytes:
    """Return the heartbeat as a row for `pack_beats`. Raises: OverflowError or msgspec.EncodeError, for numbers that do
    not fit.
    """
    metrics = Json(_json_encoder.encode(said.metrics))
    return _encoder.encode(Beat(connection, host, metrics, facts, said.pending_command, said.command_pid))


def pack_beats(gateway: str, rows: list[bytes], *, batches: bool) -> list[bytes]:
    """Return encoded heartbeats of one gateway as items of `events`. `batches`: the hub knows HeartbeatsReceived."""
    if not batches:
        beats = [_beat.decode(row) for row in rows]
        return [
            encode(
                HeartbeatReceived(
                    beat.connection, gateway, beat.host,
                    Heartbeat(_metrics.decode(beat.metrics), beat.pending_command, beat.command_pid), beat.facts,
                )
            )
            for beat in beats
        ]  # fmt: skip
    pieces = (rows[at : at + BEATS_MAX] for at in range(0, len(rows), BEATS_MAX))
    return [_PREFIX + _encoder.encode(_PackedBeats(gateway, list(map(msgspec.Raw, piece)))) for piece in pieces]


def decode_event(item: bytes) -> Event:
    """Return the event in an item of `events`. Raises: LocalError, for a format that this version does not know."""
    return _event.decode(body_of(item))


def decode_broadcast(item: bytes) -> Broadcast:
    """Return the message in an item of `broadcasts`. Raises: LocalError."""
    return _broadcast.decode(body_of(item))


def decode_delivery(item: bytes) -> Delivery:
    """Return the message in an item of `deliveries`. Raises: LocalError."""
    return _delivery.decode(body_of(item))


def body_of(item: bytes) -> memoryview:
    """Return the message in an item, still encoded. Raises: LocalError, for a format that this version lacks."""
    if item[:1] != _PREFIX:
        raise LocalError(f"a message of format {item[0] if item else 'none'}, this version knows {FORMAT}")
    return memoryview(item)[1:]


# The names of the queues

EVENTS: Final = "events"


def broadcasts_of(fanout: str) -> str:
    """Return the name of the queue from the hub to one fanout."""
    return f"broadcasts/{fanout}"


def deliveries_of(gateway: str) -> str:
    """Return the name of the queue from the hub to one gateway."""
    return f"deliveries/{gateway}"
