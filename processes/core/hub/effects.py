"""The effects of a step: rows to write, changes to publish, messages to deliver, answers. Pure values.

The order in which the hub carries them out is stated on the fields of Outcome (core/hub/turn.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from processes.core.records.command import Transition
from processes.core.records.dead_letter import DeadLetter
from processes.core.travels.audit import AuditLine
from processes.core.travels.messages import (
    Change,
    CodeAnswered,
    DeliverAck,
    Delivery,
    HostsHeard,
    OutputGrew,
    Replied,
    SnapshotWanted,
)
from processes.core.values import OutputRecord

# Rows. One transaction writes those of a batch, in order, with the ledger and the events position.


@dataclass(frozen=True, slots=True)
class Put:
    """Make this the row of the key in a durable table. `table`: the name of one of the memory's tables."""

    table: str
    key: str
    row: Any


@dataclass(frozen=True, slots=True)
class Drop:
    """Remove the row of this key from a durable table."""

    table: str
    key: str


@dataclass(frozen=True, slots=True)
class AddTransition:
    """Add a line about a command to the audit trail."""

    transition: Transition


@dataclass(frozen=True, slots=True)
class AddAudit:
    """Add a line about anything but a command to the audit trail."""

    line: AuditLine


@dataclass(frozen=True, slots=True)
class Revoke:
    """Make this token void for ever, whatever backup is restored: its hash is kept outside of the database too."""

    token_hash: str


@dataclass(frozen=True, slots=True)
class AddOutput:
    """Add consecutive records of a command's output."""

    command_id: str
    records: tuple[OutputRecord, ...]


Write = Put | Drop | AddTransition | AddAudit | Revoke | AddOutput


@dataclass(slots=True)
class Effects:
    """All effects of one step, or of one batch of steps.

    If there are writes, everything but `at_once` waits until they are committed; if there are none, nothing waits.
    """

    writes: list[Write] = field(default_factory=list)
    # volatile changes: if they waited, later ones would be shown before them
    at_once: list[Change] = field(default_factory=list)
    changes: list[Change | HostsHeard] = field(default_factory=list)
    deliveries: list[tuple[str, Delivery]] = field(default_factory=list)  # gateway, message
    replies: list[tuple[str, Replied]] = field(default_factory=list)  # fanout, message
    grew: list[OutputGrew] = field(default_factory=list)
    snapshots: list[SnapshotWanted] = field(default_factory=list)
    retries: list[DeadLetter] = field(default_factory=list)  # to be stepped once more
    tried_again: list[tuple[str, str]] = field(default_factory=list)  # fanout, the name of what it left out

    @property
    def rows(self) -> list[Change]:
        """Return the changes without what batches of heartbeats show; a step of one event makes no other."""
        return [change for change in self.changes if isinstance(change, Change)]

    @property
    def durable(self) -> bool:
        """Return whether a row must be on disk before any effect is seen."""
        return bool(self.writes)

    @property
    def promises(self) -> bool:
        """Return whether a reply or an acknowledgement is among the effects. It may rest on rows of an earlier step, so
        it must not overtake their commit.
        """
        return bool(self.replies) or any(
            isinstance(message, DeliverAck | CodeAnswered) for _, message in self.deliveries
        )

    def extend(self, later: Effects) -> None:
        """Add later effects behind these."""
        self.writes += later.writes
        self.at_once += later.at_once
        self.changes += later.changes
        self.deliveries += later.deliveries
        self.replies += later.replies
        self.grew += later.grew
        self.snapshots += later.snapshots
        self.retries += later.retries
        self.tried_again += later.tried_again
