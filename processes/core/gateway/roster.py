"""Who is connected: all sockets, and the registered ones by connection id and by host. Pure: a socket is any hashable
object of the caller. How many there may be is decided at the accept (core/connections.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from typing import Final, Generic, NamedTuple, TypeVar

from processes.core.gateway.agent_connection import AgentConnection

CONTESTED_MAX: Final = 3  # replacements within CONTESTED_S; contract
CONTESTED_S: Final = 60.0
LIVES_MAX: Final = 4  # of a host, that are remembered; guess: more copies of one machine than two are rare

Socket = TypeVar("Socket", bound=Hashable)


class Member(NamedTuple, Generic[Socket]):
    """A socket that was let in, and the state of its connection."""

    socket: Socket
    connection: AgentConnection


class Roster(Generic[Socket]):
    """Invariant: a host has at most one registered connection, and it is found by both names or by none."""

    def __init__(self) -> None:
        self.sockets: set[Socket] = set()
        self._by_id: dict[str, Member[Socket]] = {}
        self._by_host: dict[str, Member[Socket]] = {}
        self._replaced_s: dict[str, deque[float]] = {}
        self._lives: dict[str, tuple[str, ...]] = {}  # the last LIVES_MAX of each host

    def __len__(self) -> int:
        return len(self._by_id)

    def find(self, connection_id: str) -> Member[Socket] | None:
        """Return the registered connection of this id, if it is here and not ending."""
        return self._by_id.get(connection_id)

    def of_host(self, host: str) -> Member[Socket] | None:
        """Return the registered connection of this host."""
        return self._by_host.get(host)

    def registered(self) -> list[Member[Socket]]:
        """Return all registered connections, as of now."""
        return list(self._by_id.values())

    def connections(self) -> Iterator[AgentConnection]:
        """Yield the registered connections, as of now."""
        return (member.connection for member in self.registered())

    def register(self, member: Member[Socket]) -> Member[Socket] | None:
        """Make this the host's connection, unless a later one is. Return the other one, which the caller ends."""
        host, old = member.connection.host, self._by_host.get(member.connection.host)
        self._by_id[member.connection.id] = member
        if old is not None and old.connection.since_boot_s > member.connection.since_boot_s:
            return member
        self._by_host[host] = member
        return old

    def contested(self, host: str, now_s: float) -> bool:
        """Count a replacement. Return whether it is the third within a minute: two machines may have the same token."""
        times = self._replaced_s.setdefault(host, deque(maxlen=CONTESTED_MAX))
        times.append(now_s)
        return len(times) == CONTESTED_MAX and now_s - times[0] <= CONTESTED_S

    def returns(self, host: str, life: str) -> bool:
        """Note a registration. Return whether this life of the host registered before another one did, which proves
        that two machines have its token: of one machine no boot and no journal ever comes back after the next.

        An agent that was replaced waits for half a minute and more, so of two copies none is replaced often.
        """
        lives = self._lives.get(host, ())
        if lives and lives[-1] == life:
            return False
        self._lives[host] = (*(each for each in lives if each != life), life)[-LIVES_MAX:]
        return life in lives

    def unregister(self, connection: AgentConnection) -> None:
        """Called when the connection ends: deliveries do not find it any more."""
        member = self._by_id.pop(connection.id, None)
        if member is not None and self._by_host.get(connection.host) is member:
            del self._by_host[connection.host]

    def gone(self, socket: Socket) -> None:
        """Called when the socket is gone."""
        self.sockets.discard(socket)
