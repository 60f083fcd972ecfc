"""What a person sees of followed commands: their output on stdout and stderr, and on stderr what is waited for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from processes.cli.terminal import output
from processes.cli.terminal.client_failure import failure_of
from processes.cli.terminal.text import drawn
from processes.client.errors import HubAway
from processes.client.follow import Listener
from processes.client.watched import Watched
from processes.core.cli.tables import ID_CHARS
from processes.core.records.command import State
from processes.core.records.run import RunView
from processes.core.shown import reasons
from processes.core.shown.views import CommandView, OutputView

LAST_LINES: Final = 3  # of a command that failed, shown once more with its reason
LAST_CHARS: Final = 200  # of each of them
EXPLAINED_MAX: Final = 5  # commands of which it is said why they wait: each costs up to three questions


def failed_line(command: Watched) -> str:
    """Return who failed at what and why, and how to see more."""
    why = reasons.why(command.reason, command.state, command.exit_code, command.message)
    said = f"{command.host}: {command.state} at {command.op}" + (f": {why}" if why else "")
    return f"{said}  (fleethub command {command.id[:ID_CHARS]})"


class Shown(Listener):
    """A listener that prints.

    `hosts`: each line begins with its host's name, aligned over these; None for lines without names.
    `quiet`: tell of an absent hub, and not of absent hosts. `why_waits`: says why a command waits for its host.
    `tells_failures`: say at once which command has failed, and why.
    """

    def __init__(
        self,
        hosts: Iterable[str] | None,
        *,
        quiet: bool = False,
        on_run: Callable[[RunView], None] = lambda _: None,
        between: Callable[[], None] = lambda: None,
        why_waits: Callable[[CommandView], str] = lambda _: "",
        tells_failures: bool = False,
    ) -> None:
        self._why_waits, self._tells_failures = why_waits, tells_failures
        self._explained = 0
        self._prefixed, self._width = hosts is not None, max(map(len, hosts or ()), default=0)
        self._quiet, self._show_run, self._between = quiet, on_run, between
        self.last_lines: dict[str, deque[str]] = {}  # by command: what it said last

    def on_output(self, command: Watched, record: OutputView) -> None:
        """Called when a command has said something: prints the line on the stream that the command wrote it to."""
        self._remember(command.id, record)
        prefix = f"{command.host.ljust(self._width)} | " if self._prefixed else ""
        output.stream(prefix + drawn(record.data), record.stream == "stderr")

    def _remember(self, command_id: str, record: OutputView) -> None:
        lines = self.last_lines.setdefault(command_id, deque(maxlen=LAST_LINES))
        lines.append(drawn(record.data)[:LAST_CHARS])

    def on_end(self, command: Watched) -> None:
        """Called when a command has ended and its output was shown: says at once that it has failed."""
        if self._tells_failures and not self._quiet and command.state is not State.SUCCEEDED:
            output.note(f"fleethub: {failed_line(command)}")
            for line in self._lines_of(command):
                output.note(f"  | {line}")

    def _lines_of(self, command: Watched) -> Iterable[str]:
        """What it said last, if that was not shown just now."""
        return ()

    def on_waiting(self, command: CommandView) -> None:
        """Called when a command goes on waiting for its host: says why, of the first few."""
        if not self._quiet and self._explained < EXPLAINED_MAX and (why := self._why_waits(command)):
            self._explained += 1
            output.note(f"fleethub: {command.op} waits: {why}")

    def on_truncated(self, command: Watched) -> None:
        """Called when a command has said more than the hub keeps: says so."""
        output.note(f"{command.host}: the output was longer than what the hub keeps")

    def on_run(self, view: RunView) -> None:
        """Called with the run each time the hub was asked for it: passes it on."""
        self._show_run(view)

    def on_host_gone(self, host: str) -> None:
        """Called when a host with an open command has lost its connection: says so, once."""
        if not self._quiet:
            output.note(
                f"fleethub: {host} is not connected: its command goes on there, and is reported when the host is back"
            )

    def on_host_back(self, host: str) -> None:
        """Called when such a host is connected again: says so."""
        if not self._quiet:
            output.note(f"fleethub: {host} is back")

    def on_hub_away(self, error: HubAway) -> None:
        """Called when the hub does not answer any more: says so, once until it answers again."""
        output.note(f"fleethub: {failure_of(error).message}; the commands go on, asking again …")

    def between(self) -> None:
        """Called often, between two pieces of news: calls what `between` gave."""
        self._between()
