"""The frames between agents and the gateway: types, limits, decoding. Pure.

A frame is a text message `{"type": …, "payload": {…}}`. The frame types are those of NixFleet's agents, and some more.
Fields that a foreign agent leaves out get defaults here, so everything behind the gateway sees typed, bounded values.
"""

from __future__ import annotations

import contextlib
from typing import Annotated, Any, Final, Literal, Union

import msgspec
from msgspec import Meta

from processes.core.errors import BadFrame
from processes.core.labels import KEY_CHARS_MAX, LABELS_MAX, VALUE_CHARS_MAX
from processes.core.travels import shape
from processes.core.values import OutputRecord, Stream

FRAME_BYTES_MAX: Final = 512 * 1024  # contract: a longer frame closes the connection with 1009
FACTS_BYTES_MAX: Final = 16 * 1024  # of fields that we do not know; guess: NixFleet's largest heartbeat is 2 KiB
LEFT_OUT: Final = "left_out"  # the fact that stands in their place if they are too long
PIECE_BYTES_MAX: Final = 8 * 1024  # of UTF-8 in one output record; contract
CUT: Final = "… [fleethub: a numbered piece of more than 8 KiB was cut here]"

Text = Annotated[str, Meta(max_length=1024)]
Id = Annotated[str, Meta(max_length=128)]
Line = Annotated[str, Meta(max_length=FRAME_BYTES_MAX)]
Percent = Annotated[float, Meta(ge=0, le=1_000_000)]  # rounding by the agent may give a little over 100
Pid = Annotated[int, Meta(ge=-(2**31), le=2**31)]
Count = Annotated[int, Meta(ge=0, le=2**53)]

Labels = Annotated[
    dict[Annotated[str, Meta(max_length=KEY_CHARS_MAX)], Annotated[str, Meta(max_length=VALUE_CHARS_MAX)]],
    Meta(max_length=LABELS_MAX),
]


class CommandOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """How an agent runs one op that it offers. `concurrent`: beside other commands. `back_s`: it reboots the machine,
    which is back within so many seconds.
    """

    timeout_s: float | None = None
    concurrent: bool = False
    back_s: Annotated[float, Meta(gt=0)] | None = None


class Known(msgspec.Struct, frozen=True):
    """A command in an agent's journal whose end the hub has not acknowledged yet."""

    command_id: Id
    state: Text  # accepted, started, finished


class Register(msgspec.Struct, frozen=True, omit_defaults=True):
    """The first frame of an agent's connection."""

    hostname: Text
    host_type: Text = ""
    agent_version: Text = ""
    os_version: Text = ""
    kernel: Text = ""
    machine: Text = ""
    heartbeat_interval: Annotated[float, Meta(gt=0, le=3600)] = 5.0
    protocol: Annotated[int, Meta(ge=0, le=1000)] = 0
    boot_id: Text = ""
    journal_id: Text = ""
    commands: Annotated[list[Id], Meta(max_length=1000)] | None = None
    command_options: Annotated[dict[Id, CommandOptions], Meta(max_length=1000)] | None = None
    known: Annotated[list[Known], Meta(max_length=2000)] | None = None
    labels: Labels | None = None  # what the server says of itself, which decides about nothing


class Metrics(msgspec.Struct, frozen=True, omit_defaults=True):
    """Measurements of a server.

    Units: cpu, ram, swap and disk in percent; load is the 1-minute load average; temperatures in °C;
    clock_s: the server's time when these were measured, in seconds since 1970.
    """

    cpu: Percent | None = None
    ram: Percent | None = None
    swap: Percent | None = None
    load: Annotated[float, Meta(ge=0, le=1_000_000)] | None = None
    disk: Percent | None = None
    uptime_s: Annotated[float, Meta(ge=0, le=1e12)] | None = None
    temperatures: Annotated[dict[Id, float], Meta(max_length=64)] | None = None
    clock_s: Annotated[float, Meta(ge=0, le=1e12)] | None = None


class Heartbeat(msgspec.Struct, frozen=True, omit_defaults=True):
    """Proof of reachability, with metrics."""

    metrics: Metrics | None = None
    pending_command: Text | None = None
    command_pid: Pid | None = None


class CommandAck(msgspec.Struct, frozen=True):
    """The agent has the command. `accepted`: it is journalled and fsynced; `duplicate`: the journal had it already."""

    command_id: Id
    state: Text = "accepted"


class CommandRejected(msgspec.Struct, frozen=True, omit_defaults=True):
    """The agent will not run the command. Foreign agents give no command id."""

    reason: Text = ""
    command_id: Id | None = None
    current_command: Text | None = None
    current_pid: Pid | None = None


class Output(msgspec.Struct, frozen=True, omit_defaults=True):
    """One record of a command's output. Foreign agents give neither a command id nor an offset."""

    line: Line
    command_id: Id | None = None
    command: Text = ""
    stream: Stream = Stream.STDOUT
    offset: Count | None = None

    def records(self) -> list[OutputRecord]:
        """Return the line as records, each of at most PIECE_BYTES_MAX.

        A line that its agent has numbered stays one record, because the agent's numbers must stay valid. If it is too
        long, it is cut and marked with CUT.
        """
        # counted in characters: bytes that are not UTF-8 become longer on the way
        if self.offset is not None and len(self.line) > PIECE_BYTES_MAX:
            return [OutputRecord(self.offset, self.stream, self.line[: PIECE_BYTES_MAX - len(CUT)] + CUT)]
        if self.offset is not None:
            return [OutputRecord(self.offset, self.stream, self.line)]
        # an agent that splits at LF alone leaves the CR of CR LF; at a record's end that would mean "drawn over"
        line = self.line.removesuffix("\r")
        return [OutputRecord(None, self.stream, piece) for piece in pieces(line)]


def pieces(line: str) -> list[str]:
    """Return the line in pieces of at most PIECE_BYTES_MAX of UTF-8, at least one. No character is cut in two."""
    encoded = line.encode()
    found = []
    while len(encoded) > PIECE_BYTES_MAX:
        end = PIECE_BYTES_MAX
        while encoded[end] & 0xC0 == 0x80:  # in the middle of a character
            end -= 1
        found.append(encoded[:end].decode())
        encoded = encoded[end:]
    return [*found, encoded.decode()]


class StatusFrame(msgspec.Struct, frozen=True, omit_defaults=True):
    """A command's end. status: ok, error, cancelled, timed_out; of NixFleet's agents also warning, stopped.

    `reason`: why the command failed, if its program was not the cause; one of values.Unknown: nobody knows the end.
    """

    status: Text
    command_id: Id | None = None
    command: Text = ""
    exit_code: Annotated[int, Meta(ge=-(2**31), le=2**31)] | None = None
    message: Text = ""
    reason: Text = ""


class OperationProgress(msgspec.Struct, frozen=True):
    """How far a foreign agent's running command is, kept as it came."""

    progress: dict[str, Any] = msgspec.field(default_factory=dict)


class CommandComplete(msgspec.Struct, frozen=True):
    """Accepted from foreign agents; a proof of life and nothing more."""


class TestProgress(msgspec.Struct, frozen=True):
    """Accepted from foreign agents; a proof of life and nothing more."""

    __test__ = False  # not a test class, whatever its name


class NewToken(msgspec.Struct, frozen=True):
    """The answer to `rotate_token`: the SHA-256 (hex) of the token that this host is to have from now on."""

    token_hash: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


AgentFrame = Union[
    Register, Heartbeat, CommandAck, CommandRejected, Output, StatusFrame,
    OperationProgress, CommandComplete, TestProgress, NewToken,
]  # fmt: skip

FRAME_TYPES: Final[dict[str, type[AgentFrame]]] = {
    "register": Register,
    "heartbeat": Heartbeat,
    "command_ack": CommandAck,
    "command_rejected": CommandRejected,
    "output": Output,
    "status": StatusFrame,
    "operation_progress": OperationProgress,
    "command_complete": CommandComplete,
    "test_progress": TestProgress,
    "new_token": NewToken,
}
FRAME_NAMES: Final = {frame: name for name, frame in FRAME_TYPES.items()}


# Hub → agent


class Registered(msgspec.Struct, frozen=True):
    """The hub has the registration."""

    host_id: Id
    protocol: int
    heartbeat_interval: float


class CommandFrame(msgspec.Struct, frozen=True):
    """Run this op. `ttl_s`: seconds that are left when the frame is sent; after that the agent refuses to start it."""

    command: Id
    command_id: Id
    attempt: int = 1
    ttl_s: float | None = None


class Ack(msgspec.Struct, frozen=True, omit_defaults=True):
    """Without `offset`: the command's report is durable, and the agent may forget the command.

    With `offset`: the command's output below this offset is durable.
    """

    command_id: Id
    offset: int | None = None
    quarantined: bool = False


class KillCommand(msgspec.Struct, frozen=True):
    """End a running command. pid 0: the running command's."""

    signal: Text
    command_id: Id
    pid: int = 0


class RotateOwnToken(msgspec.Struct, frozen=True):
    """Make a new token, and say its hash with `new_token`. The connection then ends with 1012: come back with it."""


HubFrame = Union[Registered, CommandFrame, Ack, KillCommand, RotateOwnToken]

HUB_FRAME_TYPES: Final[dict[str, type[HubFrame]]] = {
    "registered": Registered,
    "command": CommandFrame,
    "ack": Ack,
    "kill_command": KillCommand,
    "rotate_token": RotateOwnToken,
}
HUB_FRAME_NAMES: Final = {frame: name for name, frame in HUB_FRAME_TYPES.items()}


class _Envelope(msgspec.Struct):
    type: Annotated[str, Meta(max_length=64)]
    payload: msgspec.Raw = msgspec.Raw(b"{}")


class _OutEnvelope(msgspec.Struct):
    type: str
    payload: Any


class UsualHeartbeat(msgspec.Struct, forbid_unknown_fields=True):
    """A heartbeat with the fields of Heartbeat and no others: it has no facts."""

    metrics: Metrics | None = None
    pending_command: Text | None = None
    command_pid: Pid | None = None


class _UsualEnvelope(msgspec.Struct):
    type: Literal["heartbeat"]
    payload: UsualHeartbeat


_USUAL: Final = b'{"type":"heartbeat","payload":{'  # as nearly every frame of an agent begins
_usual = msgspec.json.Decoder(_UsualEnvelope)
_envelope = msgspec.json.Decoder(_Envelope)
_object = msgspec.json.Decoder(dict[str, Any])
_encoder = msgspec.json.Encoder()
_decoders = {name: msgspec.json.Decoder(frame) for name, frame in FRAME_TYPES.items()}
_hub_decoders = {name: msgspec.json.Decoder(frame) for name, frame in HUB_FRAME_TYPES.items()}


def encode(frame: AgentFrame | HubFrame) -> bytes:
    """Return the frame as the UTF-8 text of a WebSocket message."""
    kind = FRAME_NAMES.get(type(frame)) or HUB_FRAME_NAMES[type(frame)]  # type: ignore[arg-type,index]
    return _encoder.encode(_OutEnvelope(kind, frame))


def usual_heartbeat(text: bytes) -> UsualHeartbeat | None:
    """Return what nearly every frame of an agent is, decoded at once; None: it has other fields too, is of another type
    or is wrong, which `decode` says.
    """
    if not text.startswith(_USUAL) or shape.complaint(text):
        return None
    try:
        return _usual.decode(text).payload
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError):
        return None


def decode(text: bytes) -> tuple[AgentFrame | None, bytes]:
    """Return one frame of an agent, and its facts: the unknown fields of `register` or `heartbeat`, as a JSON object.

    The frame is None if its type is unknown: newer agents may say more. It is a sign of life all the same.
    Raises: BadFrame, for anything that breaks the protocol; its text is fit for a log line.
    """
    if complaint := shape.complaint(text):
        raise BadFrame(complaint)
    try:
        if text.startswith(_USUAL):
            with contextlib.suppress(msgspec.DecodeError):
                usual = _usual.decode(text).payload
                return Heartbeat(usual.metrics, usual.pending_command, usual.command_pid), b"{}"
        envelope = _envelope.decode(text)
        decoder = _decoders.get(envelope.type)
        if decoder is None:
            return None, b"{}"
        frame = decoder.decode(envelope.payload)
        if not isinstance(frame, (Register, Heartbeat)):
            return frame, b"{}"
        return frame, _facts(frame, envelope.payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise BadFrame(str(error)[:300]) from None


def decode_hub(text: bytes) -> HubFrame | None:
    """Return one frame of the hub, or None for a type that this agent does not know.

    Raises: BadFrame.
    """
    try:
        envelope = _envelope.decode(text)
        decoder = _hub_decoders.get(envelope.type)
        return None if decoder is None else decoder.decode(envelope.payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise BadFrame(str(error)[:300]) from None


def _facts(frame: Register | Heartbeat, payload: msgspec.Raw) -> bytes:
    own = frame.__struct_fields__
    extra = {key: value for key, value in _object.decode(payload).items() if key not in own}
    facts = _encoder.encode(extra) if extra else b"{}"
    if len(facts) > FACTS_BYTES_MAX:  # an odd machine is not offline for that, and operators see why nothing is shown
        return _encoder.encode({LEFT_OUT: f"further fields of {len(facts)} bytes: at most {FACTS_BYTES_MAX} are kept"})
    return facts
