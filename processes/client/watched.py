"""What is known of commands and runs that someone waits for: which output comes next, and who has ended. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from processes.core.records.command import State
from processes.core.records.run import PartView, RunState, RunView
from processes.core.shown.views import CommandView, OutputView


class Brief(msgspec.Struct, frozen=True):
    """What is known of a command without asking again."""

    id: str
    host: str
    op: str
    state: State
    reason: str
    exit_code: int | None


class Watched:
    """One command. Invariant: `next_offset` only grows, and what is below it was shown exactly once, in order."""

    def __init__(self, command_id: str, host: str, op: str, state: State) -> None:
        self.id, self.host, self.op, self.state = command_id, host, op, state
        self.reason = ""
        self.message = ""
        self.exit_code: int | None = None
        self.next_offset = 0
        self.confirmed = False  # the API itself said that it has ended, and how
        self.complete = False  # nothing will come after next_offset
        self.view: CommandView | None = None  # as the API told it last

    def learn(self, fields: Mapping[str, Any]) -> None:
        """The command as the hub now says it is; a part of its fields is enough. A final state is not left for an open
        one.
        """
        state = State(fields.get("state", self.state))
        if self.state.final and not state.final:
            return  # an older message, overtaken by an answer of the API
        self.state = state
        self.reason = str(fields.get("reason", self.reason))
        self.message = str(fields.get("message", self.message))
        code = fields.get("exit_code", self.exit_code)
        self.exit_code = code if isinstance(code, int) else None

    def take(self, records: Iterable[OutputView]) -> list[OutputView]:
        """Those to show now: records seen already are left out, and nothing after a gap is taken."""
        shown = []
        for record in records:
            if record.offset == self.next_offset:
                shown.append(record)
                self.next_offset += 1
        return shown

    def shown(self) -> CommandView | Brief:
        """All that the API said of it, or what else is known."""
        return self.view or Brief(self.id, self.host, self.op, self.state, self.reason, self.exit_code)

    @property
    def over(self) -> bool:
        """True when it has ended and all its output was shown."""
        return self.confirmed and self.complete


def watched(view: CommandView) -> Watched:
    """A command to be waited for, from its view."""
    found = Watched(view.id, view.host, view.op, view.state)
    found.reason, found.message, found.exit_code = view.reason, view.message, view.exit_code
    return found


class WatchedRun:
    """One fleet run. Invariant: an end is not taken back."""

    def __init__(self, view: RunView) -> None:
        self.view = view
        self._searched: dict[str, int] = {}  # host → how many of its commands there were when they were searched for

    @property
    def id(self) -> str:
        """The run's id."""
        return self.view.id

    @property
    def over(self) -> bool:
        """True when it has ended."""
        return self.view.state is not RunState.RUNNING

    def learn(self, view: RunView) -> None:
        """The run as the API now says it is."""
        if not self.over:
            self.view = view

    def unseen(self, view: RunView, seen: Counter[str]) -> list[PartView]:
        """The hosts that have more commands of this run than were seen of them, and were not searched for yet."""
        return [
            part
            for part in view.hosts
            if (made := commands_made(part)) > seen[part.host] and made > self._searched.get(part.host, 0)
        ]

    def searched(self, part: PartView) -> None:
        """All commands that this part tells of were searched for: what was not found is not there."""
        self._searched[part.host] = commands_made(part)


def commands_made(part: PartView) -> int:
    """How many commands of a run were made for this host so far: one for each step that it has begun."""
    return part.step + (part.command_id is not None)
