"""The pulse: one fixed record in which a process proves that its main loop advances. Pure: its fields, packing, reading.

Written by the main loop itself after a complete turn (adapters/pulse_file carries it out). A thread or timer that wrote it would
prove nothing. The record is protected by a seqlock: a counter before and after the body, both equal when nobody was writing.
"""

from __future__ import annotations

import enum
import struct
from typing import Final

import msgspec

MAGIC: Final = b"fhpulse1"
_HEAD: Final = struct.Struct("<8sQ")  # magic, sequence before
_BODY: Final = struct.Struct("<II QQ QQ QQQQQ IIQ Q 64s32s IIII QQ")
_TAIL: Final = struct.Struct("<Q")  # sequence after
SIZE: Final = _HEAD.size + _BODY.size + _TAIL.size


class Blocked(enum.StrEnum):
    """What a living loop waits for from outside. Shown and alarmed, never by itself a reason to kill."""

    NOTHING = ""
    STORAGE = "storage"
    QUEUES = "queues"


class Pulse(msgspec.Struct, omit_defaults=True):
    """One reading. Units: *_ns of CLOCK_MONOTONIC (0: none), *_ticks as in /proc/PID/stat field 22; counters since start.

    Stages: received (taken from the inbox), stepped, committed, published, delivered; a process without a stage leaves it 0.
    """

    pid: int = 0
    start_ticks: int = 0
    epoch: int = 0  # the hub's own, or the newest hub epoch this process has seen
    turn: int = 0
    written_ns: int = 0
    received: int = 0
    stepped: int = 0
    committed: int = 0
    published: int = 0
    delivered: int = 0
    backlog: int = 0  # items received and not yet dealt with
    connections: int = 0  # sockets (gateway, fanout), hosts online (hub), commands running (agent)
    oldest_ns: int = 0  # since when the oldest item of the backlog waits
    in_hand_ns: int = 0  # since when the event below is being stepped
    in_hand: str = ""  # the event being stepped: its kind and digest, at most 64 bytes
    blocked_on: str = ""  # a value of Blocked
    hosts: int = 0
    online: int = 0
    stale: int = 0
    offline: int = 0
    dropped: int = 0  # messages dropped because a queue was full
    errors: int = 0  # steps that raised, malformed frames


class Unreadable(Exception):
    """Not a pulse: `reason` is `garbage` (wrong size or magic) or `torn` (always being written while read)."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def pack(pulse: Pulse, sequence: int) -> bytes:
    """The record's bytes, `sequence` on both sides."""
    body = _BODY.pack(
        pulse.pid, 0, pulse.start_ticks, pulse.epoch, pulse.turn, pulse.written_ns,
        pulse.received, pulse.stepped, pulse.committed, pulse.published, pulse.delivered,
        min(pulse.backlog, 2**32 - 1), pulse.connections, pulse.oldest_ns, pulse.in_hand_ns,
        pulse.in_hand.encode()[:64], pulse.blocked_on.encode()[:32],
        pulse.hosts, pulse.online, pulse.stale, pulse.offline, pulse.dropped, pulse.errors,
    )  # fmt: skip
    return _HEAD.pack(MAGIC, sequence) + body + _TAIL.pack(sequence)


def unpack(record: bytes) -> Pulse | None:
    """The pulse in a record; None while it is being written (read again).

    Raises: Unreadable("garbage").
    """
    if len(record) < SIZE or record[:8] != MAGIC:
        raise Unreadable("garbage")
    _, before = _HEAD.unpack_from(record)
    (after,) = _TAIL.unpack_from(record, _HEAD.size + _BODY.size)
    if before != after:
        return None
    (
        pid, _, start_ticks, epoch, turn, written_ns, received, stepped, committed, published, delivered,
        backlog, connections, oldest_ns, in_hand_ns, in_hand, blocked_on, hosts, online, stale, offline, dropped, errors,
    ) = _BODY.unpack_from(record, _HEAD.size)  # fmt: skip
    return Pulse(
        pid, start_ticks, epoch, turn, written_ns, received, stepped, committed, published, delivered,
        backlog, connections, oldest_ns, in_hand_ns, _text(in_hand), _text(blocked_on),
        hosts, online, stale, offline, dropped, errors,
    )  # fmt: skip


HEAD_SIZE: Final = _HEAD.size
BODY_SIZE: Final = _BODY.size


def _text(field: bytes) -> str:
    return field.rstrip(b"\0").decode(errors="replace")
