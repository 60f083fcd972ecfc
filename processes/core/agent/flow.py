"""How far a command's output has come: acknowledged, sent, and how much more may be under way. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final

# output sent and not acknowledged, per command: what a slow hub can cost us in memory
WINDOW_BYTES_MAX: Final = 256 * 1024
RECORD_BYTES: Final = 128  # what a record costs beyond its text: its frame and our bookkeeping; measured about 120
RESEND_S: Final = 5.0  # contract
RESEND_S_MAX: Final = 60.0  # of output: a hub with a full disk is not flooded


class Flow:
    """Invariant: 0 <= acked <= next, and `in_flight` is the cost of the records acked … next-1."""

    def __init__(self) -> None:
        self.acked = 0  # the hub has everything below
        self.next = 0  # the next record to be sent
        self.in_flight_bytes = 0
        self._costs: deque[int] = deque()
        self._pause_s = RESEND_S
        self.resend_boot_s = 0.0  # when what is not acknowledged is sent again

    def room_bytes(self) -> int:
        """How much may be read and sent now."""
        return max(0, WINDOW_BYTES_MAX - self.in_flight_bytes)

    def sent(self, text_bytes: int, now_boot_s: float) -> int:
        """One more record is under way; returns its offset."""
        if not self._costs:
            self.resend_boot_s = now_boot_s + self._pause_s
        cost = text_bytes + RECORD_BYTES
        self._costs.append(cost)
        self.in_flight_bytes += cost
        self.next += 1
        return self.next - 1

    def acknowledged(self, offset: int, now_boot_s: float) -> None:
        """The hub has all records below `offset`. Beyond what was sent: it has them from an earlier connection."""
        if offset <= self.acked:
            return
        self._pause_s = RESEND_S
        self.resend_boot_s = now_boot_s + RESEND_S
        if offset > self.next:
            self.rewind()
            self.acked = self.next = offset
        while self.acked < offset:
            self.in_flight_bytes -= self._costs.popleft()
            self.acked += 1
        assert self.next - self.acked == len(self._costs), "the window and its offsets have parted"

    def rewind(self) -> None:
        """Sending begins again at the first record that is not acknowledged."""
        self.next = self.acked
        self.in_flight_bytes = 0
        self._costs.clear()

    def begin_anew(self) -> None:
        """As `rewind`, on a new connection: with the shortest pause."""
        self.rewind()
        self._pause_s = RESEND_S

    def overdue(self, now_boot_s: float) -> bool:
        """True when output under way was not acknowledged in time. Each time the next wait is twice as long."""
        if not self._costs or now_boot_s < self.resend_boot_s:
            return False
        self._pause_s = min(RESEND_S_MAX, self._pause_s * 2)
        return True
