"""What a person sees of commands at their end: each output once, with the hosts that said it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

from processes.cli.following import Shown
from processes.cli.terminal import output
from processes.cli.terminal.text import count, drawn
from processes.client.watched import Watched
from processes.core.cli.folding import Folding, Said, folded, title
from processes.core.records.run import RunView
from processes.core.shown.views import CommandView, OutputView


class Spoken(NamedTuple):
    """A command that may have said something."""

    id: str
    host: str
    op: str


class ShownFolded(Shown):
    """A listener that keeps what commands say, and prints it folded when `end` is called."""

    def __init__(
        self,
        *,
        quiet: bool = False,
        on_run: Callable[[RunView], None] = lambda _: None,
        between: Callable[[], None] = lambda: None,
        why_waits: Callable[[CommandView], str] = lambda _: "",
        tells_failures: bool = False,
    ) -> None:
        super().__init__(
            None, quiet=quiet, on_run=on_run, between=between, why_waits=why_waits, tells_failures=tells_failures
        )
        self._folder = Folding()
        self._said: dict[str, Said] = {}

    def on_output(self, command: Watched, record: OutputView) -> None:
        """Called when a command has said something: keeps the line."""
        self._remember(command.id, record)
        self.keep(Spoken(command.id, command.host, command.op), record)

    def _lines_of(self, command: Watched) -> Iterable[str]:
        """What it said last: nothing of it was shown yet."""
        return self.last_lines.get(command.id, ())

    def keep(self, command: Spoken, record: OutputView) -> None:
        """Take in one line of a command."""
        said = self._said.setdefault(command.id, Said(command.host, command.op, command.id))
        self._folder.take(said, record.stream, drawn(record.data))

    def end(self, commands: Iterable[Spoken]) -> None:
        """Print all that was kept. `commands`: all that there are, those of one host in their order."""
        made = Counter[str]()
        for command in commands:
            said = self._said.setdefault(command.id, Said(command.host, command.op, command.id))
            said.step = made[command.host]
            made[command.host] += 1
        for groups in folded(self._said.values()):
            total = sum(len(group.hosts) for group in groups)
            for number, group in enumerate(groups):
                output.say(title(group, total, is_first=number == 0))
                for stream, line in group.said.lines:
                    output.stream(line, stream == "stderr")
                if group.missing:
                    more = count(group.missing, "more line")
                    output.note(f"fleethub: {more}: fleethub logs {group.said.command_id} prints all of them")
