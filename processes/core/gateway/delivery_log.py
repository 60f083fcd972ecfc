"""Tells whether a command that cannot be delivered was certainly never written to its connection. Pure.

A delivery may come twice (an append whose answer was lost, a gateway that died before it acknowledged), and the second
may find that the connection which got the first is gone. That does not hurt an agent with a journal. The hub sends a
command again that was never written, and a foreign agent would run it twice if it was written after all. So a gateway
says "never" only of connections of its own life, and remembers the commands written to foreign agents after their
connections have ended.
"""

from __future__ import annotations

from typing import Final

REMEMBERED_MAX: Final = 20_000  # commands; a foreign agent runs one at a time, so this is hours of a large fleet


class DeliveryLog:
    """Invariant: a command of a foreign agent was written if it is in here, and not written if it is not, unless it was
    forgotten.
    """

    def __init__(self, boot: str, remembered_max: int = REMEMBERED_MAX) -> None:
        self._prefix = f"{boot}."
        self._remembered_max = remembered_max
        self._commands: dict[tuple[str, str], None] = {}  # connection and command; oldest first
        self._forgotten = 0  # the highest number of a connection with a forgotten command

    def add(self, connection: str, command_id: str) -> None:
        """Called when the command's frame was handed to this foreign agent's socket."""
        self._commands[connection, command_id] = None
        if len(self._commands) > self._remembered_max:
            oldest = next(iter(self._commands))
            del self._commands[oldest]
            self._forgotten = max(self._forgotten, self._number(oldest[0]))

    def never(self, connection: str, command_id: str) -> bool:
        """Return True only if the command was certainly not written to this connection."""
        # plant: gateway-before
        if not connection.startswith(self._prefix) or self._number(connection) <= self._forgotten:
            return False
        return (connection, command_id) not in self._commands

    def _number(self, connection: str) -> int:
        return int(connection.removeprefix(self._prefix))
