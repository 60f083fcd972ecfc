"""What a step asks for: rows to write, changes to publish, messages to deliver, answers. Pure values.

The order in which the hub carries them out is stated in hub/loop.py; here is only what they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from processes.core.records.command import Transition
from processes.core.records.dead_letter import DeadLetter
from processes.core.travels.audit import AuditLine
from processes.core.travels.messages import Change, DeliverAck, Delivery, OutputGrew, Replied
from processes.core.values import OutputRecord

# Rows. One transaction writes those of a batch, in order, with the ledger and the events position.


@dataclass(frozen=True, slots=True)
class Put:
    """Makes this the row of the key in a durable table. `table`: the name of one of the memory's tables, or tokens."""

    table: str
    key: str
    row: Any


@dataclass(frozen=True, slots=True)
class Drop:
    """The row of this key in a durable table is no more."""

    table: str
    key: str


@dataclass(frozen=True, slots=True)
class AddTransition:
    """One more line in the audit trail, of a command."""

    transition: Transition


@dataclass(frozen=True, slots=True)
class AddAudit:
    """One more line in the audit trail, of anything but a command."""

    line: AuditLine


@dataclass(frozen=True, slots=True)
class Revoke:
    """This token is void for ever, whatever backup is restored: its hash is kept outside of the database too."""

    token_hash: str


@dataclass(frozen=True, slots=True)
class AddOutput:
    """Consecutive records of a command's output."""

    command_id: str
    records: tuple[OutputRecord, ...]


Write = Put | Drop | AddTransition | AddAudit | Revoke | AddOutput


@dataclass(slots=True)
class Effects:
    """All that one step, or one batch of steps, asks for.

    With writes, everything here waits until they are committed, but `at_once`; without, it may be carried out at once.
    """

    writes: list[Write] = field(default_factory=list)
    at_once: list[Change] = field(
        default_factory=list
    )  # volatile: if they waited, what comes after them would be shown before them
    changes: list[Change] = field(default_factory=list)
    deliveries: list[tuple[str, Delivery]] = field(default_factory=list)  # gateway, message
    replies: list[tuple[str, Replied]] = field(default_factory=list)  # fanout, message
    grew: list[OutputGrew] = field(default_factory=list)
    snapshots: list[tuple[str, str]] = field(default_factory=list)  # fanout, the snapshot's name
    retries: list[DeadLetter] = field(default_factory=list)  # to be stepped once more
    tried_again: list[tuple[str, str]] = field(default_factory=list)  # fanout, the name of what it left out

    @property
    def durable(self) -> bool:
        """Returns whether something must be on disk before any of it is seen."""
        return bool(self.writes)

    @property
    def promises(self) -> bool:
        """Returns whether somebody is told that something is kept, perhaps by a step before: that
        may not overtake the disk.
        """
        return bool(self.replies) or any(isinstance(message, DeliverAck) for _, message in self.deliveries)

    def extend(self, later: Effects) -> None:
        """Adds later effects behind these."""
        self.writes += later.writes
        self.at_once += later.at_once
        self.changes += later.changes
        self.deliveries += later.deliveries
        self.replies += later.replies
        self.grew += later.grew
        self.snapshots += later.snapshots
        self.retries += later.retries
        self.tried_again += later.tried_again
