"""What goes into an agent's step and what comes out of it. Pure. Two of different kinds are never equal, whatever they
hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Union

import msgspec

from processes.core.agent.remembered import Ended, FolderVerdict, JournalRow, SpoolRecord
from processes.core.travels import agent_frames

# Inputs: what happened


class Connected(msgspec.Struct, frozen=True):
    """The hub let us in. `number` grows with each connection."""

    number: int


class Disconnected(msgspec.Struct, frozen=True):
    """That connection is gone."""


class Received(msgspec.Struct, frozen=True):
    """The hub said something."""

    frame: agent_frames.HubFrame


class Recorded(msgspec.Struct, frozen=True):
    """A RecordRow is durable. `known`: the row that was there already, and stays; None: it is new."""

    command_id: str
    known: JournalRow | None


class RecordFailed(msgspec.Struct, frozen=True):
    """A RecordRow could not be made durable: what it was for must not happen. `reason`: the word for the hub."""

    command_id: str
    reason: str


class Updated(msgspec.Struct, frozen=True):
    """The row of a RecordLaunch or a RecordEnd is durable."""

    row: JournalRow


class UpdateFailed(msgspec.Struct, frozen=True):
    """The row of a RecordLaunch or a RecordEnd could not be made durable: nothing may follow from it."""

    command_id: str


class Observed(msgspec.Struct, frozen=True):
    """A look into a run folder. `first` is the offset of records[0].

    `total`: how many records there are, once the command has ended. It is less than before if the spool was cut or
    removed since. `said`: what the last shim said that ran nothing.
    """

    command_id: str
    run: FolderVerdict
    pid: int | None = None
    first: int = 0
    records: Sequence[SpoolRecord] = ()
    ended: Ended | None = None
    total: int | None = None
    said: str = ""


class Ticked(msgspec.Struct, frozen=True):
    """Time passed. `metrics`: the newest, None if there are none."""

    metrics: agent_frames.Metrics | None


class NextTokenMade(msgspec.Struct, frozen=True):
    """A new token is on disk; its SHA-256 in hex."""

    token_hash: str


Input = Union[
    Connected, Disconnected, Received, Recorded, RecordFailed, Updated, UpdateFailed, Observed, Ticked, NextTokenMade,
]  # fmt: skip


# Effects: what to do, in this order


class Send(msgspec.Struct, frozen=True):
    """Write the frame to connection `number`; if that is gone, nothing."""

    number: int
    frame: agent_frames.AgentFrame


class RecordRow(msgspec.Struct, frozen=True):
    """Make the row durable if its id is new; answered by Recorded or RecordFailed."""

    row: JournalRow


class RecordLaunch(msgspec.Struct, frozen=True):
    """Prepare the run folder, then make the row durable, which says that a shim may be started. Answered by Updated or
    UpdateFailed. This is the only place where a run folder is made: what vanished later is never made anew.
    """

    row: JournalRow


class RecordEnd(msgspec.Struct, frozen=True):
    """Make the row durable, which says that the command ended without having run. Answered by Updated or
    UpdateFailed.
    """

    row: JournalRow


class SettleRow(msgspec.Struct, frozen=True):
    """Replace the row; its folder may go when `forget` and the row is durable. A failure is told in the log and is
    harmless.
    """

    row: JournalRow
    forget: bool = False


class Launch(msgspec.Struct, frozen=True):
    """Start a shim for this command. Its row says `launched`, durably."""

    command_id: str
    op: str


class Kill(msgspec.Struct, frozen=True):
    """Write the cancel into the run folder, and tell its shim if there is one, also when the folder takes no file."""

    command_id: str
    signal: str


class MakeNextToken(msgspec.Struct, frozen=True):
    """Make a new token, durably, beside the one in use; answered by NextTokenMade, or not at all on a full disk."""


Effect = Union[Send, RecordRow, RecordLaunch, RecordEnd, SettleRow, Launch, Kill, MakeNextToken]


class Look(NamedTuple):
    """A wish to look into a run folder: records from offset `first` on, of at most `room_bytes`; 0: none."""

    command_id: str
    first: int
    room_bytes: int
