"""What is known of followed commands and runs: which output comes next, and which have ended. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from processes.core.records.command import State
from processes.core.records.run import PartView, RunState, RunView
from processes.core.shown.views import CommandView, OutputView


class Brief(msgspec.Struct, frozen=True):
    """As much of a command as is known without asking for it."""

    id: str
    host: str
    op: str
    state: State
    reason: str
    exit_code: int | None


class Watched:
    """One followed command. Invariant: `next_offset` only grows, and all output below it was shown once, in order."""

    def __init__(self, command_id: str, host: str, op: str, state: State) -> None:
        self.id, self.host, self.op, self.state = command_id, host, op, state
        self.reason = ""
        self.message = ""
        self.exit_code: int | None = None
        self.next_offset = 0
        self.confirmed = False  # the API itself has told its end
        self.complete = False  # there is no output from next_offset on
        self.view: CommandView | None = None  # as the API showed it last

    def learn(self, fields: Mapping[str, Any]) -> None:
        """Take in all or some fields that the hub now tells. A final state is never replaced by an open one."""
        state = State(fields.get("state", self.state))
        if self.state.final and not state.final:
            return  # this message is older than an answer of the API that came before it
        self.state = state
        self.reason = str(fields.get("reason", self.reason))
        self.message = str(fields.get("message", self.message))
        code = fields.get("exit_code", self.exit_code)
        self.exit_code = code if isinstance(code, int) else None

    def take(self, records: Iterable[OutputView]) -> list[OutputView]:
        """The records to show now: not those shown already, and none after a gap."""
        shown = []
        for record in records:
            if record.offset == self.next_offset:
                shown.append(record)
                self.next_offset += 1
        return shown

    def shown(self) -> CommandView | Brief:
        """The command as the API showed it last, or as much as is known."""
        return self.view or Brief(self.id, self.host, self.op, self.state, self.reason, self.exit_code)

    @property
    def over(self) -> bool:
        """True if it has ended and all its output was shown."""
        return self.confirmed and self.complete


def watched(view: CommandView) -> Watched:
    """A command to follow, made from its view."""
    found = Watched(view.id, view.host, view.op, view.state)
    found.reason, found.message, found.exit_code = view.reason, view.message, view.exit_code
    return found


class WatchedRun:
    """One followed fleet run. Invariant: an end is not taken back."""

    def __init__(self, view: RunView) -> None:
        self.view = view
        self._searched: dict[str, int] = {}  # host → how many commands it had when they were last searched for

    @property
    def id(self) -> str:
        """The run's id."""
        return self.view.id

    @property
    def over(self) -> bool:
        """True if it has ended."""
        return self.view.state is not RunState.RUNNING

    def learn(self, view: RunView) -> None:
        """Take in the run as the API now shows it."""
        if not self.over:
            self.view = view

    def unseen(self, view: RunView, seen: Counter[str]) -> list[PartView]:
        """The hosts with more commands of this run than are known of them, unless these were searched for already."""
        return [
            part
            for part in view.hosts
            if (made := commands_made(part)) > seen[part.host] and made > self._searched.get(part.host, 0)
        ]

    def searched(self, part: PartView) -> None:
        """Called when all commands of this host were searched for; those that were not found do not exist."""
        self._searched[part.host] = commands_made(part)


def commands_made(part: PartView) -> int:
    """How many commands of a run were made for this host so far: one for each step it has begun."""
    return part.step + (part.command_id is not None)
