"""Finds out whether the audit trail is whole: every line's hash is computed again, from the newest line to the oldest
that is kept. Pure.

It ends at the checkpoint: the last line that has gone by its age, or the last one from before the chain began. A trail
without its newest lines is whole in itself. So is one of which a part was written anew together with all behind it, by
somebody who can write the database. Both are found by a head that is known from elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from processes.core.travels.audit import AuditView, Head, Kind, chained

RESTORED: Final = "restored"  # `after` of the line of a restore …
BEGUN_ANEW: Final = "begun anew"  # … and of a database that was begun anew
MOVED: Final = "moved"  # … and of one that went on in another database, with the same trail
BREAKS_MAX: Final = 10  # that are told one by one
NOTES_MAX: Final = 10

_HEAD: Final = re.compile(r"([1-9][0-9]{0,17}):([0-9a-f]{64})")
_REPLACED: Final = re.compile(r"the trail of the replaced database ended at ([0-9]+:[0-9a-f]{64})")


class Break(msgspec.Struct, frozen=True):
    """A place where the chain does not hold. `number`: the line that is wrong, or behind which lines are missing."""

    number: int
    why: str


class Verified(msgspec.Struct, frozen=True):
    """What came of it. `head`: of the trail that was read; `since`: its checkpoint. `breaks`: the first ones, by
    number; `broken`: how many there are. `notes`: what explains the trail, and is no fault.
    """

    lines: int
    head: Head
    since: Head
    breaks: list[Break]
    broken: int
    notes: list[str]

    @property
    def is_whole(self) -> bool:
        """Return whether nothing is wrong."""
        return self.broken == 0


def parse_head(text: str) -> Head | None:
    """Return the head that an alarm told, NUMBER:HASH; None: it is none."""
    found = _HEAD.fullmatch(text.strip().lower())
    return None if found is None else Head(int(found.group(1)), found.group(2))


def replaced(head: Head) -> str:
    """Return what the line of a restore says of the trail that the replaced database had; empty: it had none."""
    return f"the trail of the replaced database ended at {head}" if head.hash else ""


class Verifier:
    """Takes the lines in pages, newest first, and says at the end what is wrong. `heads`: known from elsewhere.

    Lines may be added and may go by their age meanwhile: each page has the checkpoint of its moment.
    """

    def __init__(self, heads: Iterable[Head] = ()) -> None:
        self._heads = {head.number: head for head in heads}
        self._wrong_heads: list[Head] = []
        self._above: AuditView | None = None  # the line that was taken last, whose predecessor is still to come
        self._newest = Head(0, "")
        self._since = Head(0, "")
        self._found: list[Break] = []
        self._broken = 0
        self._replacing: list[AuditView] = []  # lines of restores, newest first
        self.lines = 0

    @property
    def is_done(self) -> bool:
        """Return whether the checkpoint was reached: what is older is not chained."""
        return self._above is not None and self._above.number <= self._since.number + 1

    def take(self, lines: Iterable[AuditView], checkpoint: Head) -> None:
        """Take the next older lines, newest first."""
        if checkpoint.number >= self._since.number:
            self._since = checkpoint
        for line in lines:
            if line.number <= self._since.number:
                return
            if self._above is None:
                self._newest = Head(line.number, line.hash or "")
            else:
                self._check(self._above, Head(line.number, line.hash or ""))
            self._above = line
            self.lines += 1
            if line.kind is Kind.DATABASE and line.after in (RESTORED, BEGUN_ANEW):
                self._replacing.append(line)
            head = self._heads.pop(line.number, None)
            if head is not None and head.hash != line.hash:
                self._wrong_heads.append(head)

    def finish(self) -> Verified:
        """Return what came of it. Called when there are no more lines, or `is_done`."""
        if self._above is not None and self._above.number > self._since.number:
            self._check(self._above, self._since)
        notes = self._notes()
        for head in self._wrong_heads:
            self._judge(head, f"line {head.number} is not the one that the head {_short(head)} was told of", notes)
        for head in self._heads.values():
            if head == self._since:
                continue
            if head.number <= self._since.number:
                notes.append(f"the head {_short(head)} cannot be checked: its line has gone by its age")
            else:
                newest = max(self._newest.number, self._since.number)
                told = f"the trail ends at line {newest}, and the head {_short(head)} was told of a later one"
                self._judge(head, told, notes)
        found = sorted(self._found, key=lambda each: each.number)[:BREAKS_MAX]
        newest_head = self._newest if self._newest.number else self._since
        return Verified(self.lines, newest_head, self._since, found, self._broken, notes[:NOTES_MAX])

    def _check(self, line: AuditView, before: Head) -> None:
        """Check a line against the one before it."""
        if line.number != before.number + 1:
            first, last = before.number + 1, line.number - 1
            many = f"lines {first} to {last} are" if first < last else f"line {first} is"
            self._add(before.number, f"{many} missing")
        elif line.hash is None:
            self._add(line.number, "it has no hash")
        elif chained(bytes.fromhex(before.hash), line).hex() != line.hash:
            self._add(line.number, "it does not follow from the line before it: one of the two was changed")

    def _judge(self, head: Head, told: str, notes: list[str]) -> None:
        """Decide what a head means that is not in the trail."""
        for line in self._replacing:
            known = _REPLACED.search(line.reason)
            if known is not None and known.group(1) == str(head):
                notes.append(f"the head {_short(head)} is that of the trail that line {line.number} replaced")
                return
        more = "; the database was replaced meanwhile: verify the one that was kept" if self._replacing else ""
        self._add(head.number, told + more)

    def _notes(self) -> list[str]:
        since, notes = self._since, []
        if since.number and since.hash:
            notes.append(f"lines up to {since.number} have gone by their age")
        elif since.number:
            notes.append(f"lines up to {since.number} are from before the chain began: they are not covered")
        for line in reversed(self._replacing):
            what = "a backup was restored" if line.after == RESTORED else "an empty database was begun"
            notes.append(f"line {line.number}, {line.at}: {what} here; {line.reason or 'it replaced no trail'}")
        return notes

    def _add(self, number: int, why: str) -> None:
        self._broken += 1
        self._found.append(Break(number, why))
        if len(self._found) > 2 * BREAKS_MAX:  # the newest come first, and the first are told
            self._found = sorted(self._found, key=lambda each: each.number)[:BREAKS_MAX]


def _short(head: Head) -> str:
    return f"{head.number}:{head.hash[:12]}…"
