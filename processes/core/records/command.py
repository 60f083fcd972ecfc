"""A command's life: its record and the one table of its transitions. Pure.

        queued ──▶ sent ──▶ running ──▶ succeeded | failed | cancelled
          │          │         └──────▶ lost ──▶ succeeded | failed      (once, on a late report)
          │          ├───▶ succeeded | failed | rejected | cancelled | lost
          └──▶ expired | cancelled | lost

The theory: only the hub has a `queued` command, so the hub may end it (its time is over, an operator cancels it, its
host is removed). From `sent` on the agent may have begun it. Then only the agent's word ends the command, or the hub
gives up knowing: `lost` says just that, and never guesses. There is no `sent → queued`: a redelivery is another attempt
while the command stays `sent`, and the agent's journal makes sure that it runs once. An agent's word about a command
that is still `queued` proves that it was sent, so the hub makes it `sent` first. What bothers the author: an agent that
says `rejected` after it said that the command runs is broken, and nobody knows which of its words is true. There is no
edge from `running` to `rejected`; such a command becomes `lost` (contradicted).
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from processes.core.errors import LocalError


class State(enum.StrEnum):
    """Where a command is in its life."""

    QUEUED = "queued"
    SENT = "sent"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    LOST = "lost"

    @property
    def final(self) -> bool:
        """Return True if nothing more is expected; a late report may still end a `lost` command."""
        return self in FINAL


FINAL: Final = frozenset({State.SUCCEEDED, State.FAILED, State.REJECTED, State.EXPIRED, State.CANCELLED, State.LOST})

TRANSITIONS: Final[dict[State, frozenset[State]]] = {
    State.QUEUED: frozenset({State.SENT, State.EXPIRED, State.CANCELLED, State.LOST}),
    State.SENT: frozenset({State.RUNNING, State.SUCCEEDED, State.FAILED, State.REJECTED, State.CANCELLED, State.LOST}),
    State.RUNNING: frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.LOST}),
    State.LOST: frozenset({State.SUCCEEDED, State.FAILED}),
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset(),
    State.REJECTED: frozenset(),
    State.EXPIRED: frozenset(),
    State.CANCELLED: frozenset(),
}


class UnknownTransition(LocalError):
    """A pair of states that is not in the table: somebody reported something that cannot be true."""

    def __init__(self, command_id: str, before: State, after: State) -> None:
        super().__init__(f"command {command_id}: {before} → {after} is not a transition")
        self.command_id, self.before, self.after = command_id, before, after


class Command(msgspec.Struct, frozen=True, omit_defaults=True):
    """One command for one host, as it is in the database. Change it only by `msgspec.structs.replace` and `moved`.

    Units: *_wall_s in seconds since 1970; *_boot_s in seconds of CLOCK_BOOTTIME of the boot named in `boot`.
    """

    id: str
    number: int  # grows with each accepted command: the order in which a host gets them
    host: str
    enrolment: str
    op: str
    actor: str
    created_wall_s: float
    ttl_s: float
    expires_wall_s: float
    expires_boot_s: float
    boot: str
    state: State = State.QUEUED
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    attempt: int = 0
    connection: str = ""  # the connection on which it was last sent
    journal: str = ""  # the journal id of the agent to which it was last sent
    sent_boot_s: float = 0.0
    sent_wall_s: float | None = None
    started_wall_s: float | None = None
    finished_wall_s: float | None = None
    lost_wall_s: float | None = None  # kept when a late report ends a lost command
    adopted: bool = False  # it was found running on `connection`, but was sent on an earlier one
    unheard_wall_s: float | None = None  # when its host's connection ended, while it is sent or running
    unheard_boot_s: float = 0.0  # the same time on the clock of deadlines
    cancel_wall_s: float | None = None
    cancel_actor: str = ""
    evidence: dict[str, str] = {}  # what a foreign host said of its system when the command was sent
    boot_before: str = ""  # of a command that reboots its host: the boot in which it was last sent
    key: str | None = None
    run: str | None = None
    output_next: int = 0  # offset of the next output record
    output_bytes: int = 0
    output_truncated: bool = False

    @property
    def open(self) -> bool:
        """Return True until the command is in a final state."""
        return self.state not in FINAL


class Transition(msgspec.Struct, frozen=True):
    """One line of a command's history, and of the audit trail."""

    command_id: str
    at_wall_s: float
    before: State | None  # None: accepted
    after: State
    reason: str
    actor: str  # an operator, "agent" or "hub"


def moved(command: Command, after: State, at_wall_s: float, reason: str = "", **fields: object) -> Command:
    """Return the command in its next state.

    Raises: UnknownTransition, for a pair that is not in the table.
    """
    if after not in TRANSITIONS[command.state]:
        raise UnknownTransition(command.id, command.state, after)
    if after is State.SENT and command.sent_wall_s is None:
        fields.setdefault("sent_wall_s", at_wall_s)
    if after is State.RUNNING:
        fields.setdefault("started_wall_s", at_wall_s)
    if after in FINAL:
        fields.setdefault("finished_wall_s", at_wall_s)
    if command.state is State.LOST:
        fields.setdefault("lost_wall_s", command.finished_wall_s)
    moved: Command = msgspec.structs.replace(command, state=after, reason=reason, **fields)
    return moved
