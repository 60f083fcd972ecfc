"""What a fanout has to say to the audit trail: who was refused, who signed in. Counted in memory, and written in a
bounded number of lines, however many requests there are. Pure.

What is refused is counted by who asked and why, and written once, as the minute ends; after a quiet minute at once. A
sign-in is written at once; the same again within the minute is counted, and written as the minute ends. Whoever asks
with a good credential comes first, then who was refused most often; what finds no room is one more line, which says how
many. What had no credential at all is in no line.

How much disk that may cost: LINES_MAX lines a minute, from an allowance of BURST_LINES that grows by one line in
GROW_S. A line has LINE_BYTES_MAX bytes at most, its place in the database's indexes included.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, NamedTuple

from processes.core.travels.audit import Kind

MINUTE_S: Final = 60.0
LINES_MAX: Final = 20  # a minute
BURST_LINES: Final = 240  # guess: a quiet hour's worth of mistakes at once
GROW_S: Final = 60.0
KEPT_LINES: Final = 120  # of them for what signed-in operators do: refusals of strangers are one line a minute then
SOURCES_MAX: Final = 1000  # that are told apart within a minute; further ones are only counted
TEXT_BYTES_MAX: Final = 120  # of each text of a line; a path may be as long as a request's head
LINE_BYTES_MAX: Final = 1024  # three texts, one of them also in an index, a time, a hash
DAY_LINES_MAX: Final = BURST_LINES + int(86400 / GROW_S)  # of one fanout that is never restarted
GUESSES_ALARM: Final = (
    100  # wrong credentials within a minute that are an alarm; guess: no broken script tries as often
)
GUESSERS_TOLD: Final = 5

OTHERS: Final = "others"


class Noted(NamedTuple):
    """One line of the trail, without its time."""

    kind: Kind
    subject: str
    after: str
    actor: str
    reason: str = ""


class Guessing(NamedTuple):
    """The wrong credentials of a minute. `most`: the networks that most came from, and how many."""

    times: int
    most: list[tuple[str, int]]

    def __str__(self) -> str:
        """Return it for a person."""
        named = ", ".join(f"{network} ({times})" for network, times in self.most)
        return f"{self.times} within a minute, most from {named}"


class _Entry:
    def __init__(self, first: Noted, is_known: bool, is_written: bool) -> None:
        self.first, self.is_known, self.is_written = first, is_known, is_written
        self.count = 0  # not yet in any line


class Tally:
    """The counts of the minute. Units: seconds of any clock that does not go back.

    Invariant: 0 <= allowance <= BURST_LINES, and each line takes one of it.
    """

    def __init__(self, now_s: float) -> None:
        self._entries: dict[tuple[str, ...], _Entry] = {}
        self._unnamed = 0
        self._guesses: Counter[str] = Counter()
        self._allowance, self._grown_s = float(BURST_LINES), now_s
        self._minute_s = now_s

    def due_s(self) -> float:
        """Return when the minute ends."""
        return self._minute_s + MINUTE_S

    @property
    def is_counting(self) -> bool:
        """Return whether anything waits for the end of a minute, or is to be told from a repetition until then."""
        return bool(self._entries or self._unnamed or self._guesses)

    def refused(self, noted: Noted, *, is_known: bool) -> None:
        """Count a refused request. `is_known`: its credential was good."""
        self._count((noted.kind, noted.after, noted.actor, noted.reason), noted, is_known=is_known)

    def happened(self, noted: Noted, now_s: float) -> Noted | None:
        """Return the line if it is to be written now; if not, it is counted until the minute ends."""
        self._grow(now_s)
        key = (noted.kind, noted.after, noted.actor, noted.subject)
        if key in self._entries or len(self._entries) >= 2 * SOURCES_MAX or self._allowance < 1.0:
            self._count(key, noted, is_known=True)
            return None
        self._allowance -= 1.0
        self._entries[key] = _Entry(noted, is_known=True, is_written=True)
        return _cut(noted)

    def guessed(self, network: str) -> None:
        """Count a wrong credential."""
        self._guesses[network if network in self._guesses or len(self._guesses) < SOURCES_MAX else OTHERS] += 1

    def take(self, now_s: float) -> list[Noted]:
        """Return the lines of the minute that ends now. What finds no room is counted in the last of them; if there is
        room for none, all of it goes on being counted. Strangers get no room of KEPT_LINES.
        """
        self._grow(now_s)
        self._minute_s = now_s
        lines: list[Noted] = []
        left: dict[tuple[str, ...], _Entry] = {}
        for is_known, kept in ((True, 0), (False, KEPT_LINES)):
            waiting = {key: each for key, each in self._entries.items() if each.count and each.is_known is is_known}
            unnamed = 0 if is_known else self._unnamed
            room = min(LINES_MAX, int(self._allowance) - kept) - len(lines)
            if room < 1:
                left.update(waiting)
            elif waiting or unnamed:
                lines += _lines(sorted(waiting.values(), key=lambda entry: -entry.count), unnamed, room)
                self._unnamed -= unnamed
        self._allowance -= len(lines)
        self._entries = left
        return lines

    def take_guessing(self) -> Guessing | None:
        """Return the guesses of the minute that ends now, if they are so many that somebody is to be told."""
        guesses, self._guesses = self._guesses, Counter()
        times = guesses.total()
        return Guessing(times, guesses.most_common(GUESSERS_TOLD)) if times >= GUESSES_ALARM else None

    def _count(self, key: tuple[str, ...], noted: Noted, *, is_known: bool) -> None:
        entry = self._entries.get(key)
        if entry is None:
            if len(self._entries) >= SOURCES_MAX * (2 if is_known else 1):  # strangers leave room for the others
                self._unnamed += 1
                return
            entry = self._entries[key] = _Entry(noted, is_known, is_written=False)
        entry.count += 1

    def _grow(self, now_s: float) -> None:
        self._allowance = min(float(BURST_LINES), self._allowance + (now_s - self._grown_s) / GROW_S)
        self._grown_s = now_s


def _lines(waiting: list[_Entry], unnamed: int, room: int) -> list[Noted]:
    """Return at most `room` lines, the last of which counts what has none of its own."""
    whole = len(waiting) <= room and not unnamed
    shown, rest = (waiting, []) if whole else (waiting[: room - 1], waiting[room - 1 :])
    lines = [_line(entry) for entry in shown]
    if more := unnamed + sum(entry.count for entry in rest):
        lines.append(Noted(Kind.REQUEST, f"{more} requests", "refused", OTHERS, "too many to be named"))
    return lines


def _line(entry: _Entry) -> Noted:
    first, count = entry.first, entry.count
    if entry.is_written:
        return _cut(first._replace(reason=f"{count} more times within a minute"))
    if count == 1:
        return _cut(first)
    cut = _cut(first)
    return cut._replace(reason=f"{cut.reason}, {count} times".lstrip(", "))


def _cut(noted: Noted) -> Noted:
    """Return the line with texts of at most TEXT_BYTES_MAX bytes: what is not ASCII is written in ASCII."""
    texts = (noted.subject, noted.actor, noted.reason)
    subject, actor, reason = (
        text[:TEXT_BYTES_MAX].encode("ascii", "backslashreplace").decode()[:TEXT_BYTES_MAX] for text in texts
    )
    return noted._replace(subject=subject, actor=actor, reason=reason)
