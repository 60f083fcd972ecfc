"""What a step asks for: rows to write, changes to publish, messages to deliver, answers. Pure values.

The order in which the hub carries them out is stated in hub/loop.py; here is only what they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from processes.core.records.command import Command, Transition
from processes.core.records.dead_letter import DeadLetter
from processes.core.records.host import HostRecord
from processes.core.records.run import Run
from processes.core.travels.audit import AuditLine
from processes.core.travels.messages import Change, DeliverAck, Delivery, Json, OutputGrew, Replied
from processes.core.values import OutputRecord

# Rows. One transaction writes those of a batch, in order, with the ledger and the events position.


@dataclass(frozen=True, slots=True)
class PutHost:
    """The host's record is this."""

    host: HostRecord


@dataclass(frozen=True, slots=True)
class DropHost:
    """The host is no more."""

    name: str


@dataclass(frozen=True, slots=True)
class PutCommand:
    """The command's record is this."""

    command: Command


@dataclass(frozen=True, slots=True)
class DropCommand:
    """The command leaves no trace (the canary's only)."""

    command_id: str


@dataclass(frozen=True, slots=True)
class PutRun:
    """The run's record is this."""

    run: Run


@dataclass(frozen=True, slots=True)
class AddTransition:
    """One more line in the audit trail."""

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
class DropToken:
    """The operator token is no more."""

    token_hash: str


@dataclass(frozen=True, slots=True)
class AddOutput:
    """Consecutive records of a command's output."""

    command_id: str
    records: tuple[OutputRecord, ...]


@dataclass(frozen=True, slots=True)
class PutReply:
    """The answer to a request, kept so that asking again gives the same."""

    request_id: str
    at_wall_s: float
    status: int
    body: Json


@dataclass(frozen=True, slots=True)
class PutKey:
    """An idempotency key names this request and these commands."""

    key: str
    digest: str
    command_ids: tuple[str, ...]
    at_wall_s: float


@dataclass(frozen=True, slots=True)
class PutToken:
    """A further operator token."""

    token_hash: str
    role: str
    label: str
    at_wall_s: float


@dataclass(frozen=True, slots=True)
class PutDeadLetter:
    """A message put aside, with why."""

    letter: DeadLetter


@dataclass(frozen=True, slots=True)
class DropDeadLetter:
    """The letter is no more: it was stepped after all, discarded, or the oldest of too many."""

    letter_id: str


Write = (
    PutHost | DropHost | PutCommand | DropCommand | PutRun | AddTransition | AddAudit | Revoke | AddOutput | PutReply | PutKey | PutToken
    | DropToken | PutDeadLetter | DropDeadLetter
)  # fmt: skip


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
        """True when something must be on disk before any of it is seen."""
        return bool(self.writes)

    @property
    def promises(self) -> bool:
        """True when somebody is told that something is kept, perhaps something of a step before: it may not overtake
        the disk.
        """
        return bool(self.replies) or any(isinstance(message, DeliverAck) for _, message in self.deliveries)

    def extend(self, later: Effects) -> None:
        """These effects, and then those."""
        self.writes += later.writes
        self.at_once += later.at_once
        self.changes += later.changes
        self.deliveries += later.deliveries
        self.replies += later.replies
        self.grew += later.grew
        self.snapshots += later.snapshots
        self.retries += later.retries
        self.tried_again += later.tried_again
