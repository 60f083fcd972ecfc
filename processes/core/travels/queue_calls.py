"""The calls to `queues` and its replies, and their bytes: a byte with the format's version, then msgpack. Pure.

Fields are only ever added, with defaults, so that processes of two versions understand each other: upgrades go process
by process.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Final, NamedTuple, TypeVar

import msgspec
from msgspec import Meta

from processes.core.errors import LocalError
from processes.core.values import Position

# of one append: half of the smallest queue's limit, so that every allowed append fits an empty queue
APPEND_ITEMS_MAX: Final = 10_000
# of one append: a census piece of 200 long registers is about 20 MiB; nine tenths of the smallest queue are 28 MiB
APPEND_BYTES_MAX: Final = 24 << 20
EPOCH_MAX: Final = 2**52  # exact in JSON and in a database's integer

FORMAT: Final = 1  # that this version writes
FORMATS: Final = (1,)  # that this version understands
# the items, msgpack's few bytes for each of them, and the other fields
MESSAGE_BYTES_MAX: Final = APPEND_BYTES_MAX + 16 * APPEND_ITEMS_MAX + 4096
READ_ITEMS_MAX: Final = APPEND_ITEMS_MAX
READ_BYTES_MAX: Final = 8 << 20  # an item that is larger comes alone
WAIT_S_MAX: Final = 10.0  # of one long poll; so the thread that serves a dead peer waits no longer

Name = Annotated[str, Meta(max_length=128)]
HubEpoch = Annotated[int, Meta(ge=0, lt=EPOCH_MAX)]
SequenceNumber = Annotated[int, Meta(ge=0, lt=EPOCH_MAX)]
Serial = Annotated[int, Meta(ge=0, lt=EPOCH_MAX)]


class QueueRefused(LocalError):
    """A call that no queue could ever answer.

    `code`: malformed, format, unknown_queue, too_many_queues, too_big, bad_position, given_up, not_yours.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Appended(NamedTuple):
    """The result of an append. accepted False: the queue is full and nothing was appended.

    A lossy append that was not accepted used up its sequence numbers all the same. `position` is that of the queue's
    newest item: if the append was accepted, of its last item.
    """

    accepted: bool
    position: Position


class Batch(NamedTuple):
    """The items that a read found, in order. `position`: the `after` of the next read.

    gap: at least one item before these is lost.
    """

    items: list[bytes]
    position: Position
    gap: bool


class QueueStats(NamedTuple):
    """One queue as it is now. `appended`, `refused`, `dropped` and `acknowledged` count items since the epoch began.

    Invariant: appended == acknowledged + items. readers: connections whose last read was of this queue.
    """

    name: str
    epoch: int
    items: int
    bytes: int
    items_max: int
    bytes_max: int
    oldest_age_s: float
    appended: int
    refused: int
    dropped: int
    acknowledged: int
    readers: int = 0


class QueueLimits(NamedTuple):
    """How much one queue keeps. `bulk_items_max`: with so many kept, no more bulk is taken, so that what is not bulk
    never waits long behind it.
    """

    items_max: int
    bytes_max: int
    bulk_items_max: int = 1 << 62


LIMITS: Final = (  # by prefix; a prefix that ends with / needs a name behind it
    # 250, and one append of a gateway's 500 behind them, are some 0.2 s of the hub's work: an operator's request waits
    # no longer than that behind reports and heartbeats, most of which wait in their gateway
    ("events", QueueLimits(100_000, 64 << 20, 250)),
    ("broadcasts/", QueueLimits(20_000, 32 << 20)),
    ("deliveries/", QueueLimits(20_000, 32 << 20)),
)
_READER: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


def limits_of(name: str) -> QueueLimits:
    """Return the limits of the queue of this name. Raises: QueueRefused, if there can be no such queue."""
    for prefix, limits in LIMITS:
        has_reader = name.startswith(prefix) and _READER.fullmatch(name.removeprefix(prefix)) is not None
        if has_reader if prefix.endswith("/") else name == prefix:
            return limits
    raise QueueRefused(
        "unknown_queue", f"there is no queue {name[:100]!r}: " + ", ".join(prefix for prefix, _ in LIMITS)
    )


def check_append(items: Sequence[bytes]) -> None:
    """Check that these items may be one append. Raises: QueueRefused."""
    if len(items) > APPEND_ITEMS_MAX:
        raise QueueRefused("too_big", f"{len(items)} items in one append, at most {APPEND_ITEMS_MAX}")
    size_bytes = sum(map(len, items))
    if size_bytes > APPEND_BYTES_MAX:
        raise QueueRefused("too_big", f"{size_bytes} bytes in one append, at most {APPEND_BYTES_MAX}")


class Call(msgspec.Struct, frozen=True, tag_field="c"):
    """Base of every call. `role`: the caller's process name.

    `hub_epoch`: the hub's own epoch if the caller is the hub, else the newest that the caller has seen.
    """

    role: Name
    hub_epoch: HubEpoch


class AppendCall(Call, frozen=True, tag=True):
    """Append all items, or none.

    `client`: a random number of the caller's link. `number`: grows with each append of that link; 0: the caller is of a
    version that does not number its appends.
    """

    queue: Name
    items: Annotated[list[bytes], Meta(max_length=APPEND_ITEMS_MAX)]
    bulk: bool = False
    lossy: bool = False
    client: Serial = 0
    number: Serial = 0


class ReadCall(Call, frozen=True, tag=True):
    """Read the items after a position; wait at most `wait_s` until there are some."""

    queue: Name
    epoch: Annotated[int, Meta(ge=0, lt=EPOCH_MAX)]
    sequence: SequenceNumber
    items_max: Annotated[int, Meta(ge=1, le=READ_ITEMS_MAX)]
    bytes_max: Annotated[int, Meta(ge=1, le=READ_BYTES_MAX)]
    wait_s: Annotated[float, Meta(ge=0, le=WAIT_S_MAX)]


class AcknowledgeCall(Call, frozen=True, tag=True):
    """Remove every item up to a position."""

    queue: Name
    epoch: Annotated[int, Meta(ge=0, lt=EPOCH_MAX)]
    sequence: SequenceNumber


class StatsCall(Call, frozen=True, tag=True):
    """Return the stats of every queue."""


class PingCall(Call, frozen=True, tag=True):
    """Answer as soon as the lock of the queues could be taken."""


AnyCall = AppendCall | ReadCall | AcknowledgeCall | StatsCall | PingCall


class Reply(msgspec.Struct, frozen=True, tag_field="r"):
    """Base of every reply."""


class AppendedReply(Reply, frozen=True, tag=True):
    """Reply to an append."""

    appended: Appended


class BatchReply(Reply, frozen=True, tag=True):
    """Reply to a read."""

    batch: Batch


class StatsReply(Reply, frozen=True, tag=True):
    """Reply to a stats call."""

    queues: list[QueueStats]


class DoneReply(Reply, frozen=True, tag=True):
    """Reply to an acknowledgement or a ping."""


class FencedReply(Reply, frozen=True, tag=True):
    """Reply to a hub that was replaced; as in errors.Fenced."""

    own_epoch: int
    newest_epoch: int


class RefusedReply(Reply, frozen=True, tag=True):
    """Reply to a call that cannot be answered; as in QueueRefused."""

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
    """Return a read whose numbers are cut to the limits of one call."""
    return ReadCall(
        role, hub_epoch, queue, after.epoch, after.sequence,
        items_max=max(1, min(items_max, READ_ITEMS_MAX)),
        bytes_max=max(1, min(bytes_max, READ_BYTES_MAX)),
        wait_s=max(0.0, min(wait_s, WAIT_S_MAX)),
    )  # fmt: skip


def encode(message: AnyCall | AnyReply) -> bytes:
    """Return the message as bytes."""
    return _PREFIX + _encoder.encode(message)


def decode_call(message: bytes) -> AnyCall:
    """Return the call. Raises: QueueRefused, for anything that is not a call."""
    return _decode(_calls, message)


def decode_reply(message: bytes) -> AnyReply:
    """Return the reply. Raises: QueueRefused, for anything that is not a reply."""
    return _decode(_replies, message)


def _decode(decoder: msgspec.msgpack.Decoder[_T], message: bytes) -> _T:
    if not message or message[0] not in FORMATS:
        raise QueueRefused(
            "format", f"a message of format {message[0] if message else 'none'}, this version knows {FORMATS}"
        )
    try:
        return decoder.decode(memoryview(message)[1:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise QueueRefused("malformed", str(error)[:300]) from None
