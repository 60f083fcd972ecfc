"""Which frames one operator's connection gets, and when: gathering, conflation, versions, skipping. Pure.

    live ──(its buffer is full: a delta is skipped)──▶ behind ──(it has drained: a full state)──▶ live

A version belongs to one connection: it grows by exactly 1 with each delta sent on it; a skipped delta uses none. No
connection waits for another: one that does not read delays no other.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final, NamedTuple

from processes.core.shown.replica import merged
from processes.core.travels.messages import Change, Json

GATHER_S_MAX: Final = 0.05  # contract: the first change goes out at once, further ones are gathered for so long
# changes of commands go out so soon behind others, so that who watches a command sees it move …
GATHER_COMMANDS_S_MAX: Final = 0.005
# … while that costs no more frames a second than these, over all connections; guess: 2 % of a core
EARLY_FRAMES_PER_S_MAX: Final = 2_000.0
GATHERED_ROWS_MAX: Final = 5_000  # with so many they go out at once; about a frame of 1 MiB
SYNC_S: Final = 5.0  # contract: between two `sync`
BUFFER_BYTES_HIGH: Final = 1 << 20  # unsent bytes above which deltas are skipped
BUFFER_BYTES_MAX: Final = 4 << 20  # above which the connection is ended
SLOW_S_MAX: Final = 10.0  # for which a connection may be over BUFFER_BYTES_HIGH
# the slowest link that still gets a whole state in time; guess: a bad mobile phone
FULL_BYTES_PER_S_MIN: Final = 64 * 1024


class Step(enum.Enum):
    """What to do with one connection now."""

    SEND = enum.auto()  # the delta, with the feed's version
    FULL = enum.auto()  # a full state, with the feed's version and epoch
    SKIP = enum.auto()  # nothing: the connection is behind, and its buffer is full


class Room(NamedTuple):
    """The bounds of a connection's unsent bytes. Units: bytes and seconds."""

    buffer_bytes_high: int
    buffer_bytes_max: int
    slow_s_max: float


def room(full_state_bytes: int) -> Room:
    """Return the bounds for a connection that was just sent a full state of this size, which must not make it slow."""
    return Room(
        BUFFER_BYTES_HIGH + full_state_bytes,
        BUFFER_BYTES_MAX + full_state_bytes,
        SLOW_S_MAX + full_state_bytes / FULL_BYTES_PER_S_MIN,
    )


class Feed:
    """One connection's version and whether it is behind.

    Invariant: a delta is sent only on top of a full state of the same epoch, with the version after the one before.
    """

    def __init__(self, version: int) -> None:
        self.version = version
        self.epoch = 0
        self.behind = True  # it has no full state yet

    def delta(self, epoch: int, slow: bool) -> Step:
        """Return what to do about changes of this epoch."""
        if self.behind or epoch != self.epoch:
            self.behind = True
            return self.whole(epoch, slow)
        if slow:
            self.behind = True
            return Step.SKIP
        self.version += 1
        return Step.SEND

    def whole(self, epoch: int, slow: bool) -> Step:
        """Return what to do when a full state is needed: asked for, after a gap, or in a new
        epoch. `epoch` never goes back.
        """
        self.behind = True
        if slow:
            return Step.SKIP
        self.behind = False
        self.epoch = max(self.epoch, epoch)
        return Step.FULL


class _Row:
    __slots__ = ("fields", "heard", "removed")

    def __init__(self) -> None:
        self.removed = False  # the row is removed first …
        self.fields: Json | None = None  # … then these fields are merged …
        self.heard: Json | None = None  # … and then these, of a heartbeat, which take the place of those before

    def all_fields(self) -> Json | None:
        """Return all fields that are to be merged; None if there are none."""
        if self.fields is None or self.heard is None:
            return self.heard or self.fields
        return merged(self.fields, self.heard)


class Gathering:
    """Changes until they are sent, conflated by row.

    Invariant: applied in order, the changes that `take` returns have the same result as those that were added.
    """

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], _Row] = {}
        self._taken_s = -GATHER_S_MAX
        self._has_command = False  # among the gathered changes
        self._early_frames = EARLY_FRAMES_PER_S_MAX  # that may still be sent before GATHER_S_MAX is over

    def add(self, change: Change) -> None:
        """Add a change. Raises: msgspec.DecodeError, if its fields are not a JSON object."""
        kind = change.kind.removesuffix("_removed")
        row = self._rows.setdefault((kind, change.id), _Row())
        self._has_command = self._has_command or kind == "command"
        if kind != change.kind:
            row.removed, row.fields, row.heard = True, None, None
        else:
            row.fields = merged(row.all_fields() or Json(b"{}"), change.fields)
            row.heard = None

    def hear(self, host: str, fields: Json) -> None:
        """Add what a heartbeat changes of a host: a JSON object with the same keys each time."""
        key = ("host", host)
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = _Row()
        row.heard = fields

    def due_s(self) -> float | None:
        """Return when the gathered changes should go out; None if there are none. Units: as of `now_s` in `take`."""
        if not self._rows:
            return None
        if len(self._rows) >= GATHERED_ROWS_MAX:
            return self._taken_s
        is_early = self._has_command and self._early_frames >= 1
        return self._taken_s + (GATHER_COMMANDS_S_MAX if is_early else GATHER_S_MAX)

    def take(self, now_s: float, connections: int = 1) -> list[Change]:
        """Return all gathered changes, and gather anew. `connections`: to how many they are sent."""
        passed_s = now_s - self._taken_s
        refilled = min(self._early_frames + passed_s * EARLY_FRAMES_PER_S_MAX, EARLY_FRAMES_PER_S_MAX)
        self._early_frames = refilled - (connections if passed_s < GATHER_S_MAX else 0)
        rows, self._rows = self._rows, {}
        self._taken_s, self._has_command = now_s, False
        found: list[Change] = []
        for (kind, id), row in rows.items():
            if row.removed:
                found.append(Change(f"{kind}_removed", id))
            fields = row.all_fields()
            if fields is not None:
                found.append(Change(kind, id, fields))
        return found


def differences(kind: str, before: Mapping[str, Json], after: Mapping[str, Json]) -> list[Change]:
    """Return the changes that turn the rows of a kind, by id, from `before` into `after`; each has the whole row."""
    gone = [Change(f"{kind}_removed", id) for id in before if id not in after]
    return gone + [Change(kind, id, row) for id, row in after.items() if before.get(id) != row]
