"""What a person sees of commands that are followed: their output on both streams, and on stderr what is waited for."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from processes.cli.terminal import output
from processes.cli.terminal.client_failure import failure_of
from processes.cli.terminal.text import drawn
from processes.client.errors import HubAway
from processes.client.follow import Listener
from processes.client.watched import Watched
from processes.core.records.run import RunView
from processes.core.shown.views import OutputView


class Shown(Listener):
    """Prints what it hears.

    `hosts`: those whose names stand before the lines, aligned; None for no names. `quiet`: only an absent hub is told.
    """

    def __init__(
        self,
        hosts: Iterable[str] | None,
        *,
        quiet: bool = False,
        on_run: Callable[[RunView], None] = lambda _: None,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        self._prefixed, self._width = hosts is not None, max(map(len, hosts or ()), default=0)
        self._quiet, self._show_run, self._between = quiet, on_run, between

    def on_output(self, command: Watched, record: OutputView) -> None:
        """Part of Listener."""
        prefix = f"{command.host.ljust(self._width)} | " if self._prefixed else ""
        output.stream(prefix + drawn(record.data), record.stream == "stderr")

    def on_truncated(self, command: Watched) -> None:
        """Part of Listener."""
        output.note(f"{command.host}: the output was longer than what is kept")

    def on_run(self, view: RunView) -> None:
        """Part of Listener."""
        self._show_run(view)

    def on_host_gone(self, host: str) -> None:
        """Part of Listener."""
        if not self._quiet:
            output.note(f"fleethub: {host} is not connected: what it runs goes on there, and it tells when it is back")

    def on_host_back(self, host: str) -> None:
        """Part of Listener."""
        if not self._quiet:
            output.note(f"fleethub: {host} is back")

    def on_hub_away(self, error: HubAway) -> None:
        """Part of Listener."""
        output.note(f"fleethub: {failure_of(error).message}; the commands go on, asking again …")

    def between(self) -> None:
        """Part of Listener."""
        self._between()
