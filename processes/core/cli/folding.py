"""The output of many hosts, each text once, with the hosts that said it. Pure.

A host's output is told from another's by its digest, so that what is kept has a limit and what is compared has none.
Both streams are compared each by itself: in which order two streams come is a matter of chance.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final, NamedTuple

from processes.core.values import Stream

LINES_BYTES_MAX: Final = 16 * 1024 * 1024  # of different lines that are kept; guess
LINES_MAX: Final = 2_000_000  # that are kept over all commands, equal ones too; guess: 16 MB of references
NAMES_MAX: Final = 5  # hosts of the most frequent output that are named; the odd ones all are


class Said:
    """What one command has said so far. Invariant: `lines` are the first of its `count` lines."""

    def __init__(self, host: str, op: str, command_id: str) -> None:
        self.host, self.op, self.command_id = host, op, command_id
        self.step = 0  # the how many-th command of its host it is
        self.lines: list[tuple[Stream, str]] = []
        self.count = 0
        self._digests = {stream: hashlib.sha256() for stream in Stream}

    def take(self, stream: Stream, line: str) -> None:
        """Take in one more line."""
        self.count += 1
        self._digests[stream].update(f"{len(line)}:{line}".encode(errors="surrogatepass"))

    @property
    def digest(self) -> tuple[int, str, bytes, bytes]:
        """What two commands with the same output have in common."""
        out, err = (self._digests[stream].digest() for stream in (Stream.STDOUT, Stream.STDERR))
        return self.step, self.op, out, err


class Folding:
    """Takes the output of all commands as it comes, and tells it folded."""

    def __init__(self, *, lines_bytes_max: int = LINES_BYTES_MAX, lines_max: int = LINES_MAX) -> None:
        self._bytes_left, self._lines_left = lines_bytes_max, lines_max
        self._known: dict[str, str] = {}  # each line once, however many hosts say it

    def take(self, said: Said, stream: Stream, line: str) -> None:
        """Take in one more line of a command. Past the limits it is compared and counted, and not kept."""
        is_whole = len(said.lines) == said.count
        said.take(stream, line)
        if not is_whole or self._lines_left <= 0:
            return
        if line not in self._known:
            size = len(line.encode(errors="surrogatepass"))
            if size > self._bytes_left:
                return
            self._bytes_left -= size
            self._known[line] = line
        self._lines_left -= 1
        said.lines.append((stream, self._known[line]))


class Group(NamedTuple):
    """Hosts with one output, of one step: `said` is that of the first that kept most of it."""

    hosts: list[str]
    said: Said

    @property
    def missing(self) -> int:
        """How many lines are not kept."""
        return self.said.count - len(self.said.lines)


def folded(commands: Iterable[Said]) -> list[list[Group]]:
    """Return the groups of each step, in order: those of most hosts first, hosts by name."""
    steps: dict[tuple[int, str], dict[object, list[Said]]] = {}
    for said in commands:
        steps.setdefault((said.step, said.op), {}).setdefault(said.digest, []).append(said)
    found = []
    for _, alike in sorted(steps.items()):
        groups = [
            Group(sorted(said.host for said in same), max(same, key=lambda said: len(said.lines)))
            for same in alike.values()
        ]
        found.append(sorted(groups, key=lambda group: (-len(group.hosts), group.hosts)))
    return found


def title(group: Group, total: int, *, is_first: bool) -> str:
    """Return a line that names the group: its hosts, and its share of the `total` of the step."""
    named = group.hosts[:NAMES_MAX] if is_first else group.hosts
    more = len(group.hosts) - len(named)
    names = ", ".join(named) + (f" and {more} more" if more else "")
    share = f"{len(group.hosts)} of {total}" if total > 1 else "1"
    quiet = "" if group.said.count else ", no output"
    return f"--- {share} at {group.said.op}{quiet}: {names}"
