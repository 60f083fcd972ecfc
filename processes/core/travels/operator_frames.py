"""The frames of the operators' WebSocket: what a fanout sends, and what an operator asks of it. Pure.

Fanout, command line, Python client, canary and drills all use these types. State that goes to many connections is
encoded once: a fanout puts the same `state` and the same `changes` into each connection's frame, and only the version
differs.

    fanout → operator    full_state delta sync output output_end error
    operator → fanout    get_state subscribe unsubscribe

A reader ignores a frame of an unknown type, because a newer fanout may send more: `decode` returns None then.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from processes.core.travels import shape
from processes.core.travels.messages import Change, Json
from processes.core.values import Stream

COMMAND_ID_CHARS_MAX: Final = 128
OFFSET_MAX: Final = 2**53  # the largest number that a browser holds exactly
OUTPUTS_MAX: Final = 20  # commands whose output one connection may follow; guess: a few windows
REMOVED: Final = "_removed"  # ends the kind of a change that takes a row away

CommandId = Annotated[str, Meta(min_length=1, max_length=COMMAND_ID_CHARS_MAX)]
Offset = Annotated[int, Meta(ge=0, le=OFFSET_MAX)]


# fanout → operator


class RowChange(msgspec.Struct, frozen=True, omit_defaults=True):
    """One row that is new, changed or gone. `fields`: a JSON object, merged into the row by key; none if it is gone."""

    kind: str
    id: str
    fields: Raw = Raw()

    @property
    def is_removal(self) -> bool:
        """Return whether the row is gone."""
        return self.kind.endswith(REMOVED)

    @property
    def row_kind(self) -> str:
        """Return the kind of the row itself: host, command, process, incident, ledger, overall, source."""
        return self.kind.removesuffix(REMOVED)


class FleetState(msgspec.Struct, frozen=True):
    """The whole state. Shape: lists of whole rows, each a JSON object, and three single objects."""

    hosts: list[Raw] = []
    commands: list[Raw] = []
    processes: list[Raw] = []
    incidents: list[Raw] = []
    conditions: list[Raw] = []
    silences: list[Raw] = []
    ledger: Raw | UnsetType = UNSET
    overall: Raw | UnsetType = UNSET
    source: Raw | UnsetType = UNSET


class FullState(msgspec.Struct, frozen=True, tag_field="type", tag="full_state"):
    """A frame with the whole state. `state`: an encoded `FleetState`, which `decode_state` reads."""

    epoch: int = 0
    version: int = 0
    state: Raw = Raw(b"{}")


class Delta(msgspec.Struct, frozen=True, tag_field="type", tag="delta"):
    """Changes to the state. Its version is one more than that of the frame before it, or a frame was missed.

    `changes`: an encoded list of `RowChange`, which `decode_changes` reads.
    """

    epoch: int = 0
    version: int = 0
    changes: Raw = Raw(b"[]")


class Sync(msgspec.Struct, frozen=True, tag_field="type", tag="sync"):
    """Nothing changed, and the connection lives."""

    epoch: int = 0
    version: int = 0


class OutputFrame(msgspec.Struct, frozen=True, tag_field="type", tag="output"):
    """One record of a command's output."""

    command_id: str
    offset: Annotated[int, Meta(ge=0)]
    stream: Stream = Stream.STDOUT
    data: str = ""


class OutputEnd(msgspec.Struct, frozen=True, tag_field="type", tag="output_end"):
    """The command has ended, and all of its output was sent. `truncated`: there was more than is kept."""

    command_id: str
    next_offset: int
    truncated: bool = False


class ErrorFrame(msgspec.Struct, frozen=True, tag_field="type", tag="error"):
    """A frame of the operator's was wrong. `error`: a fixed word; `message`: for a person."""

    error: str
    message: str = ""
    command_id: str | UnsetType = UNSET


ToOperator = FullState | Delta | Sync | OutputFrame | OutputEnd | ErrorFrame


# operator → fanout


class GetState(msgspec.Struct, frozen=True, tag_field="type", tag="get_state"):
    """Ask for a full state."""


class Subscribe(msgspec.Struct, frozen=True, tag_field="type", tag="subscribe"):
    """Ask for a command's output from `offset` on."""

    command_id: CommandId
    offset: Offset = 0


class Unsubscribe(msgspec.Struct, frozen=True, tag_field="type", tag="unsubscribe"):
    """End a subscription."""

    command_id: CommandId


FromOperator = GetState | Subscribe | Unsubscribe

_encoder = msgspec.json.Encoder()
_to_operator: msgspec.json.Decoder[ToOperator] = msgspec.json.Decoder(ToOperator)
_from_operator: msgspec.json.Decoder[FromOperator] = msgspec.json.Decoder(FromOperator)
_state = msgspec.json.Decoder(FleetState)
_changes = msgspec.json.Decoder(list[RowChange])


def encode(frame: ToOperator | FromOperator) -> bytes:
    """Return the frame's text."""
    return _encoder.encode(frame)


def encode_text(frame: FromOperator) -> str:
    """Return the frame's text as a str, which WebSocket clients send as a text frame."""
    return _encoder.encode(frame).decode()


def encode_state(state: FleetState) -> Raw:
    """Return the state, encoded once for the frames of all connections."""
    return Raw(_encoder.encode(state))


def encode_changes(changes: Iterable[Change]) -> Raw:
    """Return the changes, encoded once for the frames of all connections."""
    rows = [
        RowChange(change.kind, change.id)
        if change.kind.endswith(REMOVED)
        else RowChange(change.kind, change.id, Raw(change.fields))
        for change in changes
    ]
    return Raw(_encoder.encode(rows))


def raw_rows(rows: Sequence[Json]) -> list[Raw]:
    """Return encoded rows as `FleetState` holds them."""
    return [Raw(row) for row in rows]


def decode(text: str | bytes) -> ToOperator | None:
    """Return the frame of a fanout; None if this version does not know it."""
    try:
        return _to_operator.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def decode_state(frame: FullState) -> FleetState:
    """Return the rows of a full state. Raises: msgspec.DecodeError."""
    return _state.decode(frame.state)


def decode_changes(frame: Delta) -> list[RowChange]:
    """Return the changes of a delta. Raises: msgspec.DecodeError."""
    return _changes.decode(frame.changes)


def decode_request(text: str | bytes) -> FromOperator:
    """Return the frame of an operator. Raises: msgspec.DecodeError, if it is not of the protocol."""
    if complaint := shape.complaint(text.encode() if isinstance(text, str) else text):
        raise msgspec.DecodeError(complaint)
    return _from_operator.decode(text)
