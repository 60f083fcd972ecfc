"""Items of a queue as a database keeps them: several in a row as one pack. Pure.

A pack has consecutive numbers. It is kept and let go as a whole, but may be read and acknowledged up to any item in it:
`ends` tells where each one ends.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from processes.core.errors import RemoteError
from processes.core.travels.queue_calls import Batch, QueueRefused
from processes.core.values import Position

PACK_ITEMS_MAX: Final = 500  # a gateway's append
PACK_BYTES_MAX: Final = 64 << 10  # what is read twice at most, where a read ends in the middle of a pack; guess
END_BYTES: Final = 4  # of one end in `ends`: unsigned, the most significant byte first


class Pack(NamedTuple):
    """Consecutive items. `first`: the number of the first one. `data`: all of them, one after another."""

    first: int
    ends: bytes
    data: bytes

    @property
    def last(self) -> int:
        """Return the number of the last item."""
        return self.first + len(self.ends) // END_BYTES - 1


class QueueHead(NamedTuple):
    """A queue as it stood when its packs were read. Invariant: 0 <= acknowledged <= newest."""

    name: str
    epoch: int
    newest: int
    acknowledged: int


def packed(items: Sequence[bytes]) -> Iterator[Pack]:
    """Return the items as packs within both limits, numbered from 1. An item that is larger has one of its own."""
    first = start = size = 0
    for index, item in enumerate(items):
        if index > start and (index - start >= PACK_ITEMS_MAX or size + len(item) > PACK_BYTES_MAX):
            yield _pack(items, start, index)
            start, size = index, 0
        size += len(item)
        first = index + 1
    if first > start:
        yield _pack(items, start, first)


def items_of(pack: Pack) -> list[bytes]:
    """Return the items. Raises: RemoteError, if the ends do not belong to the data."""
    ends = struct.unpack(f">{len(pack.ends) // END_BYTES}I", pack.ends)
    if not ends or ends[-1] != len(pack.data):
        raise RemoteError("malformed", "the ends of a pack do not belong to its data")
    return [pack.data[start:end] for start, end in itertools.pairwise((0, *ends))]


def batch(head: QueueHead, packs: Sequence[Pack], after: Position, items_max: int, bytes_max: int) -> Batch:
    """Return what a read after this position finds, as BoundedQueue.read does.

    `packs`: those that are kept behind it and behind what is acknowledged, in order, or the first of them.
    Raises: QueueRefused, for a position that the queue has not reached; RemoteError.
    """
    sequence, gap = _start(head, packs, after)
    if not packs:
        return Batch([], Position(head.epoch, head.newest), gap or sequence < head.newest)
    gap = gap or packs[0].first > sequence + 1
    found: list[bytes] = []
    at, size = max(sequence, packs[0].first - 1), 0
    for pack in packs:
        if pack.first > at + 1:
            break  # missing numbers: the items behind them come in the next batch
        for item in items_of(pack)[at + 1 - pack.first :]:
            size += len(item)
            if found and (len(found) >= items_max or size > bytes_max):
                return Batch(found, Position(head.epoch, at), gap)
            found.append(item)
            at += 1
    return Batch(found, Position(head.epoch, at), gap)


def _start(head: QueueHead, packs: Sequence[Pack], after: Position) -> tuple[int, bool]:
    if after.epoch != head.epoch:
        oldest = max(packs[0].first - 1, head.acknowledged) if packs else head.newest
        return oldest, after.epoch != 0
    if after.sequence > head.newest:
        raise QueueRefused(
            "bad_position", f"{head.name} stands at {head.newest} of epoch {head.epoch}, not at {after.sequence}"
        )
    return max(after.sequence, head.acknowledged), False


def _pack(items: Sequence[bytes], start: int, stop: int) -> Pack:
    some = items[start:stop]
    return Pack(
        start + 1, struct.pack(f">{len(some)}I", *itertools.accumulate(len(item) for item in some)), b"".join(some)
    )
