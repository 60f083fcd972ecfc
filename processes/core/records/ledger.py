"""The ledger: how many commands were ever accepted, and how many are in which state. It always adds up. Pure."""

from __future__ import annotations

import msgspec

from processes.core.records.command import State


class Ledger(msgspec.Struct, frozen=True):
    """Counts of commands. A command that is pruned stays counted in its last state.

    Invariant: `accepted` is the sum of the others.
    """

    accepted: int = 0
    queued: int = 0
    sent: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    rejected: int = 0
    expired: int = 0
    cancelled: int = 0
    lost: int = 0

    @property
    def balanced(self) -> bool:
        """Return True if the counts add up."""
        ended = self.succeeded + self.failed + self.rejected + self.expired + self.cancelled + self.lost
        return self.accepted == self.open + ended

    @property
    def open(self) -> int:
        """Return how many commands have not ended."""
        return self.queued + self.sent + self.running

    def moved(self, before: State | None, after: State) -> Ledger:
        """Return the ledger after one command's transition. `before` None: the command was accepted just now."""
        counts = {str(after): getattr(self, after) + 1}
        if before is None:
            counts["accepted"] = self.accepted + 1
        else:
            counts[str(before)] = getattr(self, before) - 1
        return msgspec.structs.replace(self, **counts)
