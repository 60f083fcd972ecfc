"""The pulse: a fixed record by which a process proves that its main loop advances. Its fields, packing, reading. Pure.

The main loop itself writes the pulse after each complete turn (through adapters/state/pulse_file): a pulse from a
thread or a timer would prove nothing. A pulse file has two slots, which are written in turn, each with a sequence
number and a checksum. A reader takes the newer slot that is whole. So a writer that is stopped or killed in the middle
of a write never hides the turn before.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

import msgspec

from processes.core.older_python import StrEnum

MAGIC: Final = b"fhpulse3"
_HEAD: Final = struct.Struct("<8sQ")  # magic, sequence
_BODY: Final = struct.Struct("<II QQ QQ QQQQQ IIQ Q 64s32s IIII QQ Q II QQ Q QII QQI Q")
_TAIL: Final = struct.Struct("<I")  # CRC-32 of all before it
_IN_HAND: Final = struct.Struct("<Q 64s")  # the event in hand: since when, and which
_IN_HAND_AT: Final = _HEAD.size + struct.calcsize("<II QQ QQ QQQQQ IIQ")
SLOT_SIZE: Final = _HEAD.size + _BODY.size + _TAIL.size
SIZE: Final = 2 * SLOT_SIZE


class Blocked(StrEnum):
    """The resource that a living loop waits for. It is shown and alarmed, but is never alone a reason to kill."""

    NOTHING = ""
    STORAGE = "storage"
    QUEUES = "queues"
    STANDBY = "standby"  # a hub, for the lease: another one leads


class Pulse(msgspec.Struct, omit_defaults=True):
    """One pulse, as written or read.

    Units: *_ns in ns of CLOCK_MONOTONIC (0: none); *_ticks as in /proc/PID/stat field 22; counters since the start.
    Stages: received (taken from the inbox), stepped, committed, published, delivered. A process without one of these
    stages leaves its counter at 0.
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
    backlog: int = 0  # items received and not yet handled
    connections: int = 0  # sockets (gateway, fanout), hosts online (hub), commands running (agent)
    oldest_ns: int = 0  # when the oldest item of the backlog began to wait
    in_hand_ns: int = 0  # when the step of the event below began
    in_hand: str = ""  # the event being stepped: its kind and digest, at most 64 bytes
    blocked_on: str = ""  # a value of Blocked
    hosts: int = 0
    online: int = 0
    stale: int = 0
    offline: int = 0
    dropped: int = 0  # messages dropped because a queue was full
    errors: int = 0  # steps that raised, malformed frames
    storage_ns: int = 0  # when the database call that is under way began; each retry is a new call
    # dead letters that are kept (hub); rows left out because they ended this one's predecessors (fanout)
    dead_letters: int = 0
    suspended: int = 0  # hosts suspended for a flood of poison
    # The last position of the events queue at which the hub refused requests while it could write nothing to disk. It
    # is in the pulse before the operator hears of the refusal. The next hub re-reads the requests up to this position
    # and refuses those again that have no answer on disk.
    refused_epoch: int = 0
    refused_sequence: int = 0
    # whom it refused what they asked for: requests (fanout), registers under another host's name (gateway)
    refused: int = 0
    # The listening socket (gateway, fanout). Several processes may accept from one.
    accepted: int = 0  # connections that this very process took from it
    waiting: int = 0  # connections that nobody has taken yet, at the end of this turn
    waiting_max: int = 0  # how many may wait; the kernel drops more
    waiting_ns: int = 0  # since when some have waited at the end of every turn
    unaccepted_ns: int = 0  # since when some have waited at the end of every turn, and this process took none
    unaccepted_turns: int = 0  # how many turns ended so since
    turned_away: int = 0  # connections that were ended or refused because there were too many (gateway, fanout)


class Unreadable(Exception):
    """The record is not a pulse: neither slot is whole."""

    def __init__(self) -> None:
        super().__init__("garbage")


def pack(pulse: Pulse, sequence: int) -> bytes:
    """Return the bytes of one slot."""
    body = _BODY.pack(
        pulse.pid, 0, pulse.start_ticks, pulse.epoch, pulse.turn, pulse.written_ns,
        pulse.received, pulse.stepped, pulse.committed, pulse.published, pulse.delivered,
        min(pulse.backlog, 2**32 - 1), pulse.connections, pulse.oldest_ns, pulse.in_hand_ns,
        pulse.in_hand.encode()[:64], pulse.blocked_on.encode()[:32],
        pulse.hosts, pulse.online, pulse.stale, pulse.offline, pulse.dropped, pulse.errors,
        pulse.storage_ns, pulse.dead_letters, pulse.suspended, pulse.refused_epoch, pulse.refused_sequence,
        pulse.refused,
        pulse.accepted, pulse.waiting, pulse.waiting_max, pulse.waiting_ns, pulse.unaccepted_ns,
        min(pulse.unaccepted_turns, 2**32 - 1),
        pulse.turned_away,
    )  # fmt: skip
    slot = _HEAD.pack(MAGIC, sequence) + body
    return slot + _TAIL.pack(zlib.crc32(slot))


def repack(slot: bytes, pulse: Pulse, sequence: int) -> bytes:
    """Return the bytes of the slot with this sequence and with the event that the pulse has in hand; its other fields
    are those of the slot. Cost: a quarter of `pack`.
    """
    head, hand = _HEAD.pack(MAGIC, sequence), _IN_HAND.pack(pulse.in_hand_ns, pulse.in_hand.encode()[:64])
    behind = _IN_HAND_AT + _IN_HAND.size
    body = b"".join((head, slot[_HEAD.size : _IN_HAND_AT], hand, slot[behind : -_TAIL.size]))
    return body + _TAIL.pack(zlib.crc32(body))


def unpack(record: bytes) -> Pulse:
    """Return the newest pulse of a file's two slots. Raises: Unreadable."""
    slots = [record[at : at + SLOT_SIZE] for at in (0, SLOT_SIZE) if len(record) >= at + SLOT_SIZE]
    slots.sort(key=_sequence, reverse=True)
    slot = next(filter(_is_whole, slots), None)
    if slot is None:
        raise Unreadable
    (
        pid, _, start_ticks, epoch, turn, written_ns, received, stepped, committed, published, delivered,
        backlog, connections, oldest_ns, in_hand_ns, in_hand, blocked_on, hosts, online, stale, offline, dropped,
        errors, storage_ns, dead_letters, suspended, refused_epoch, refused_sequence, refused,
        accepted, waiting, waiting_max, waiting_ns, unaccepted_ns, unaccepted_turns, turned_away,
    ) = _BODY.unpack_from(slot, _HEAD.size)  # fmt: skip
    return Pulse(
        pid, start_ticks, epoch, turn, written_ns, received, stepped, committed, published, delivered,
        backlog, connections, oldest_ns, in_hand_ns, _text(in_hand), _text(blocked_on),
        hosts, online, stale, offline, dropped, errors, storage_ns, dead_letters, suspended,
        refused_epoch, refused_sequence, refused,
        accepted, waiting, waiting_max, waiting_ns, unaccepted_ns, unaccepted_turns, turned_away,
    )  # fmt: skip


def enter_accepts(pulse: Pulse, accepted: int, waiting: int, waiting_max: int, now_ns: int) -> None:
    """Enter at the end of a turn how many connections this process has accepted, and how many wait.

    A process that accepted some since its last turn takes what waits, however many do. One that accepted none is not
    yet deaf: what waits may have come just now, or another process may have been quicker. So both the time and the
    turns are counted (core/watchdog/verdict.py judges them).
    """
    took = accepted != pulse.accepted
    pulse.accepted, pulse.waiting, pulse.waiting_max = accepted, waiting, waiting_max
    pulse.waiting_ns = (pulse.waiting_ns or now_ns) if waiting else 0
    if took or not waiting:
        pulse.unaccepted_ns = pulse.unaccepted_turns = 0
    else:
        pulse.unaccepted_ns = pulse.unaccepted_ns or now_ns
        pulse.unaccepted_turns += 1


def _text(field: bytes) -> str:
    return field.rstrip(b"\0").decode(errors="replace")


def _sequence(slot: bytes) -> int:
    found: int = _HEAD.unpack_from(slot)[1]
    return found


def _is_whole(slot: bytes) -> bool:
    """Return False for a slot that is being written, or was never a pulse."""
    (checksum,) = _TAIL.unpack_from(slot, SLOT_SIZE - _TAIL.size)
    return slot[: len(MAGIC)] == MAGIC and zlib.crc32(slot[: -_TAIL.size]) == checksum
