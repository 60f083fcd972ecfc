"""How a fanout's replica follows the hub: deltas, gaps, new epochs, snapshots in pieces. Pure.

    stale ──ask(name)──▶ asked ──piece 0 … last──▶ whole
      ▲ gap, HubStarted, a newer epoch, no piece for ASK_S_MAX            from any state

While a snapshot comes in, the old rows stay on show and follow the deltas of their own epoch. Rows of a new epoch are
shown only when its snapshot is whole, so that nobody sees rows of two hubs side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, assert_never

from processes.core.shown.replica import Replica
from processes.core.travels.messages import (
    Broadcast,
    Change,
    Changed,
    HostsHeard,
    HubStarted,
    Json,
    OutputGrew,
    Replied,
    SnapshotPiece,
    TryAgain,
)  # fmt: skip

ASK_S_MAX: Final = 1.0  # without a piece for so long, the snapshot is asked for again


@dataclass(slots=True)
class MirrorUpdate:
    """The result of one message. `changes`: to show, in order. `renewed`: all rows may have changed: show them all."""

    changes: list[tuple[Change, str]] = field(default_factory=list)  # each with the host that it is about; "": none
    heard: list[tuple[str, Json]] = field(default_factory=list)  # hosts, and the fields that heartbeats change of them
    renewed: bool = False
    new_hub: bool = False  # open requests must be asked again
    replied: Replied | None = None
    grew: OutputGrew | None = None
    again: str = ""  # the row or message that was left out under this name may be tried again


Admit = Callable[[Change, bool], Change | None]


def _as_it_is(change: Change, known: bool) -> Change | None:
    return change


def _enter(rows: Replica, change: Change, admit: Admit) -> Change | None:
    entered = admit(change, rows.row(change.kind, change.id) is not None)
    if entered is not None:
        rows.apply(entered)
    return entered


class Mirror:
    """The rows on show, and those of a snapshot that is coming in.

    Invariant: `epoch` is the newest hub epoch heard of and never goes back; `shown_epoch` <= `epoch` is that of the
    rows on show.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self.shown_epoch = 0
        self.shown = Replica()
        self.live = False  # the rows came from a hub, not from the database
        self._coming: Replica | None = None
        self._stale = True
        self._asked: str | None = None
        self._asked_s = 0.0
        self._pieces = 0

    def load(self, epoch: int, changes: Iterable[Change], admit: Admit = _as_it_is) -> None:
        """Show rows of the database, until a hub's come."""
        if self.live:
            return
        self.shown = Replica()
        for change in changes:
            _enter(self.shown, change, admit)
        self.shown_epoch = epoch
        self.epoch = max(self.epoch, epoch)

    def gap(self) -> None:
        """Called when messages were lost."""
        self._forget_asking()
        self._stale = True

    @property
    def is_whole(self) -> bool:
        """Return whether the rows are all of them, and of the newest hub."""
        return self.live and not self._stale and self.shown_epoch == self.epoch

    def wants(self, now_s: float) -> bool:
        """Return whether a snapshot should be asked for now."""
        return self._stale and (self._asked is None or now_s - self._asked_s > ASK_S_MAX)

    def ask(self, snapshot: str, now_s: float) -> None:
        """Called when a snapshot of this name is asked for."""
        self._coming, self._pieces = None, 0
        self._asked, self._asked_s = snapshot, now_s

    def take(self, message: Broadcast, now_s: float, admit: Admit = _as_it_is) -> MirrorUpdate:
        """Take one message into the rows. `admit` is called with each change, and whether its row is known; it returns
        the change to enter instead, or None. Raises: msgspec.DecodeError, for a row that is not a JSON object.
        """
        seen = MirrorUpdate()
        # plant: mirror-epoch
        if message.epoch < self.epoch:
            return seen
        if message.epoch > self.epoch or isinstance(message, HubStarted):
            self.epoch = message.epoch
            # plant: mirror-new-hub
            self.gap()
            seen.new_hub = True
        match message:
            case HubStarted():
                pass
            case Changed():
                self._follow(message.changes, seen, admit)
            case HostsHeard():
                self._hear(message.hosts, seen)
            case SnapshotPiece():
                self._assemble(message, now_s, seen, admit)
            case OutputGrew():
                seen.grew = message
            case Replied():
                seen.replied = message
            case TryAgain():
                seen.again = message.name
            case _:
                assert_never(message)
        return seen

    def _follow(self, changes: list[Change], seen: MirrorUpdate, admit: Admit) -> None:
        for change in changes:
            if self._coming is not None:
                _enter(self._coming, change, admit)
            if self.shown_epoch == self.epoch:
                before = self.shown.host_of(change)
                entered = _enter(self.shown, change, admit)
                if entered is not None:
                    seen.changes.append((entered, before or self.shown.host_of(entered)))

    def _hear(self, hosts: list[tuple[str, Json]], seen: MirrorUpdate) -> None:
        coming = self._coming
        if coming is not None:
            for host, fields in hosts:
                coming.hear(host, fields)
        if self.shown_epoch == self.epoch:
            seen.heard = [each for each in hosts if self.shown.hear(*each)]

    def _assemble(self, piece: SnapshotPiece, now_s: float, seen: MirrorUpdate, admit: Admit) -> None:
        if piece.snapshot != self._asked or piece.piece != self._pieces:
            return  # of a snapshot that is not waited for any more
        if piece.piece == 0:
            self._coming = Replica()
        assert self._coming is not None
        self._pieces += 1
        self._asked_s = now_s
        for change in piece.changes:
            _enter(self._coming, change, admit)
        if piece.last:
            self.shown, self.shown_epoch, self.live = self._coming, self.epoch, True
            self._stale = False
            self._forget_asking()
            seen.renewed = True

    def _forget_asking(self) -> None:
        self._coming, self._asked, self._pieces = None, None, 0
