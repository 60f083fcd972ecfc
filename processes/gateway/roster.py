"""Who is connected: all sockets, those not let in yet, the registered ones by connection id and by host."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

from processes.core.gateway.agent_connection import AgentConnection
from processes.gateway.agent_socket import AgentSocket

CONTESTED_MAX: Final = 3  # replacements within CONTESTED_S; contract
CONTESTED_S: Final = 60.0


class Roster:
    """Invariant: a host has at most one registered connection, and it is found by both names or by none."""

    def __init__(self, sockets_max: int) -> None:
        self.sockets_max = sockets_max
        self.sockets: set[AgentSocket] = set()
        self._strangers: dict[AgentSocket, None] = {}  # not let in yet, oldest first
        self._by_id: dict[str, AgentSocket] = {}
        self._by_host: dict[str, AgentSocket] = {}
        self._replaced_s: dict[str, deque[float]] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def is_full(self) -> bool:
        """True if there is one socket more than may be let in."""
        return len(self.sockets) > self.sockets_max

    def find(self, connection: str) -> AgentSocket | None:
        """The registered connection of this id, if it is here and not ending."""
        return self._by_id.get(connection)

    def of_host(self, host: str) -> AgentSocket | None:
        """The registered connection of this host."""
        return self._by_host.get(host)

    def registered(self) -> list[AgentSocket]:
        """All of them, as of now."""
        return list(self._by_id.values())

    def sessions(self) -> Iterator[AgentConnection]:
        """Their sessions, as of now."""
        return (connection.session for connection in self.registered() if connection.session is not None)

    def made(self, connection: AgentSocket) -> AgentSocket | None:
        """A new socket. Returns one to end for it: strangers may take half of the room, and the one that dawdled
        longest goes.
        """
        self.sockets.add(connection)
        self._strangers[connection] = None
        return next(iter(self._strangers)) if len(self._strangers) > max(self.sockets_max // 2, 1) else None

    def let_in(self, connection: AgentSocket) -> None:
        """It is no stranger any more."""
        self._strangers.pop(connection, None)

    def register(self, session: AgentConnection, connection: AgentSocket) -> AgentSocket | None:
        """The host's connection is this one. Returns the one it replaces, which the caller ends."""
        old = self._by_host.get(session.host)
        self._by_host[session.host] = self._by_id[session.connection] = connection
        return old

    def contested(self, host: str, now_s: float) -> bool:
        """Counts a replacement. True if it is the third within a minute: two machines may have the same token."""
        times = self._replaced_s.setdefault(host, deque(maxlen=CONTESTED_MAX))
        times.append(now_s)
        return len(times) == CONTESTED_MAX and now_s - times[0] <= CONTESTED_S

    def unregister(self, session: AgentConnection) -> None:
        """Deliveries do not find it any more."""
        if self._by_host.get(session.host) is self._by_id.pop(session.connection, None):
            self._by_host.pop(session.host, None)

    def gone(self, connection: AgentSocket) -> None:
        """The socket is no more."""
        self.sockets.discard(connection)
        self._strangers.pop(connection, None)
