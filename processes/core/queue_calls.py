"""The calls to `queues` and its replies, and their bytes: a byte with the format's version, then msgpack. Pure.

Fields are only ever added, with defaults, so that a process of the version before is understood (upgrades go process by process).
"""

from __future__ import annotations

from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta

from processes.core.bounded_queue import APPEND_BYTES_MAX, APPEND_ITEMS_MAX, EPOCH_MAX, Appended, Batch, QueueRefused, QueueStats
from processes.core.values import Position

FORMAT: Final = 1
FORMATS: Final = (1,)  # that are understood
MESSAGE_BYTES_MAX: Final = APPEND_BYTES_MAX + 16 * APPEND_ITEMS_MAX + 4096  # the items, msgpack's few bytes for each, the rest
READ_ITEMS_MAX: Final = APPEND_ITEMS_MAX
READ_BYTES_MAX: Final = 8 << 20  # one item may be larger, and is then given alone
WAIT_S_MAX: Final = 10.0  # of one long poll; a waiting thread of a dead peer lives no longer

Name = Annotated[str, Meta(max_length=128)]
HubEpoch = Annotated[int, Meta(ge=0, lt=EPOCH_MAX)]
Sequence = Annotated[int, Meta(ge=0, lt=EPOCH_MAX)]
Serial = Annotated[int, Meta(ge=0, lt=EPOCH_MAX)]


class Call(msgspec.Struct, frozen=True, tag_field="c"):
    """What every call carries. `role`: the caller's process name; `hub_epoch`: its own (the hub), else the newest it has seen."""

    role: Name
    hub_epoch: HubEpoch


class AppendCall(Call, frozen=True, tag=True):
    """Append all or nothing. `client`: of one link, random; `number`: grows with each of its appends; 0: of the version before."""

    queue: Name
    items: Annotated[list[bytes], Meta(max_length=APPEND_ITEMS_MAX)]
    bulk: bool = False
    lossy: bool = False
    client: Serial = 0
    number: Serial = 0


class ReadCall(Call, frozen=True, tag=True):
    """Read after a position, waiting at most `wait_s` for something to read."""

    queue: Name
    epoch: Annotated[int, Meta(ge=0, lt=EPOCH_MAX)]
    sequence: Sequence
    items_max: Annotated[int, Meta(ge=1, le=READ_ITEMS_MAX)]
    bytes_max: Annotated[int, Meta(ge=1, le=READ_BYTES_MAX)]
    wait_s: Annotated[float, Meta(ge=0, le=WAIT_S_MAX)]


class AcknowledgeCall(Call, frozen=True, tag=True):
    """Let go of everything up to a position."""

    queue: Name
    epoch: Annotated[int, Meta(ge=0, lt=EPOCH_MAX)]
    sequence: Sequence


class StatsCall(Call, frozen=True, tag=True):
    """Tell of every queue."""


class PingCall(Call, frozen=True, tag=True):
    """Answer, once the queues' own lock could be had."""


AnyCall = AppendCall | ReadCall | AcknowledgeCall | StatsCall | PingCall


class Reply(msgspec.Struct, frozen=True, tag_field="r"):
    """An answer."""


class AppendedReply(Reply, frozen=True, tag=True):
    """To an append."""

    appended: Appended


class BatchReply(Reply, frozen=True, tag=True):
    """To a read."""

    batch: Batch


class StatsReply(Reply, frozen=True, tag=True):
    """To stats."""

    queues: list[QueueStats]


class DoneReply(Reply, frozen=True, tag=True):
    """To an acknowledgement and a ping."""


class FencedReply(Reply, frozen=True, tag=True):
    """To a hub that was replaced."""

    own_epoch: int
    newest_epoch: int


class RefusedReply(Reply, frozen=True, tag=True):
    """To a call that cannot be answered; as in QueueRefused."""

    code: str
    message: str


AnyReply = AppendedReply | BatchReply | StatsReply | DoneReply | FencedReply | RefusedReply

_T = TypeVar("_T")
_PREFIX: Final = bytes([FORMAT])
_encoder = msgspec.msgpack.Encoder()
_calls: msgspec.msgpack.Decoder[AnyCall] = msgspec.msgpack.Decoder(AnyCall)
_replies: msgspec.msgpack.Decoder[AnyReply] = msgspec.msgpack.Decoder(AnyReply)


def read_call(
    role: str, hub_epoch: int, queue: str, after: Position, *, items_max: int, bytes_max: int, wait_s: float
) -> ReadCall:  # fmt: skip
    """A read with its wishes cut to what one call may ask for."""
    return ReadCall(
        role, hub_epoch, queue, after.epoch, after.sequence,
        items_max=max(1, min(items_max, READ_ITEMS_MAX)),
        bytes_max=max(1, min(bytes_max, READ_BYTES_MAX)),
        wait_s=max(0.0, min(wait_s, WAIT_S_MAX)),
    )  # fmt: skip


def encode(message: AnyCall | AnyReply) -> bytes:
    """One message."""
    return _PREFIX + _encoder.encode(message)


def decode_call(message: bytes) -> AnyCall:
    """The call. Raises: QueueRefused, for anything that is none."""
    return _decode(_calls, message)


def decode_reply(message: bytes) -> AnyReply:
    """The reply. Raises: QueueRefused, for anything that is none."""
    return _decode(_replies, message)


def _decode(decoder: msgspec.msgpack.Decoder[_T], message: bytes) -> _T:
    if not message or message[0] not in FORMATS:
        raise QueueRefused("format", f"a message of format {message[0] if message else 'none'}, this version knows {FORMATS}")
    try:
        return decoder.decode(memoryview(message)[1:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise QueueRefused("malformed", str(error)[:300]) from None
