"""Which connections a port has, whose they are, and which one goes when there are too many. Pure: a connection is any
hashable key of the caller.

    accepted ──▶ silent ──▶ (a request's head is read) ──▶ stranger ──▶ (it shows a good credential) ──▶ known
                   │                                          │                                           │
                   │ too many: the oldest of the              │ the same                                  │ too many:
                   ▼ address that has most is ended           ▼                                           ▼ refused

Silent ones and strangers are crowds that are bounded apart, in all and for each address, so neither can be crowded out
by the other. Nobody new is refused for them: the oldest of the most numerous address goes, so whoever says at once what
he wants gets through a crowd that does not, and one address crowds out itself before any other. A known one is never
ended for a newcomer. How many a client may have, and how many all clients together, is bounded; the last of the room is
kept for those that the house cannot do without. At the agents' port there are no strangers: the first head has the
token or is refused.

What was told to end counts until it is gone, for it still has its descriptor.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Hashable, Iterable, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

# of the room: for those told to end that are not gone yet
SPARE_MAX: Final = 256
KEPT_MAX: Final = 64  # of the known ones: for the canary, and at the operators' port for this installation's own token
IPV6_SITE_BITS: Final = 64  # what one customer gets; source: RFC 6177
ADDRESSES_KEPT: Final = 1024  # texts whose address is known: each request names the same few again

Key = TypeVar("Key", bound=Hashable)
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
THIS_MACHINE: Final[tuple[Network, ...]] = (ipaddress.IPv4Network("127.0.0.0/8"), ipaddress.IPv6Network("::1/128"))


class PortLimits(NamedTuple):
    """How many connections a port may have. `all_max`: of any kind; `known_max`: of all clients; `kept`: of these for
    clients that the house cannot do without; `client_max`: of one client, if the caller names no other number.
    """

    all_max: int
    silent_max: int
    strangers_max: int
    known_max: int
    kept: int
    client_max: int


def agents_limits(room: int, client_max: int) -> PortLimits:
    """Return the limits of a port where almost all of `room` is for known ones; silent ones get what they leave free,
    half of the room at most.
    """
    spare = spare_of(room)
    known_max = max(room - spare - max(spare // 2, 1), 1)
    return PortLimits(room, max(room // 2, 1), 1, known_max, min(KEPT_MAX, room // 8), client_max)


def operators_limits(room: int, client_max: int) -> PortLimits:
    """Return the limits of a port where half of `room` is for known ones, a quarter for strangers, and the rest for
    silent ones.
    """
    silent_max = max(room // 4 - spare_of(room), 1)
    return PortLimits(room, silent_max, max(room // 4, 1), max(room // 2, 1), min(KEPT_MAX, room // 8), client_max)


def spare_of(room: int) -> int:
    """Return how many of the room are for connections that were told to end."""
    return max(1, min(SPARE_MAX, room // 8))


class Crowd(Generic[Key]):
    """Connections by address, oldest first. Half of `most` may be of one address.

    Invariant: the addresses are ranked by how many connections they have, in the order in which they came to have so
    many; `_top` is the highest rank.
    Cost: constant for each call and each one that is ended.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._address: dict[Key, str] = {}
        self._by_address: dict[str, dict[Key, None]] = {}
        self._ranks: dict[int, dict[str, None]] = {}
        self._top = 0

    def __len__(self) -> int:
        return len(self._address)

    def __contains__(self, key: Key) -> bool:
        return key in self._address

    def add(self, key: Key, address: str) -> list[Key]:
        """Add a connection. Return those that go for it, never itself; they are not in the crowd any more."""
        self._address[key] = address
        keys = self._by_address.setdefault(address, {})
        keys[key] = None
        self._rank(address, len(keys) - 1, len(keys))
        gone: list[Key] = []
        if len(keys) > max(self.most // 2, 1):
            gone.append(self._end_oldest(address))
        while len(self) > max(self.most, 1):
            crowded = (each for each in self._ranks[self._top] if each != address or self._top > 1)
            gone.append(self._end_oldest(next(crowded)))
        return gone

    def remove(self, key: Key) -> bool:
        """Remove a connection. Return False if it was not there."""
        address = self._address.pop(key, None)
        if address is None:
            return False
        keys = self._by_address[address]
        del keys[key]
        self._rank(address, len(keys) + 1, len(keys))
        if not keys:
            del self._by_address[address]
        return True

    def oldest(self) -> Key | None:
        """Return the oldest connection of the address that has most; None if there is none."""
        return next(iter(self._by_address[next(iter(self._ranks[self._top]))])) if self._top else None

    def _end_oldest(self, address: str) -> Key:
        oldest = next(iter(self._by_address[address]))
        self.remove(oldest)
        return oldest

    def _rank(self, address: str, before: int, after: int) -> None:
        """Called when an address has one connection more or less."""
        if before:
            del self._ranks[before][address]
            if not self._ranks[before]:
                del self._ranks[before]
        if after:
            self._ranks.setdefault(after, {})[address] = None
        if after > self._top or self._top not in self._ranks:
            self._top = after


class Connections(Generic[Key]):
    """All connections of one port, until they are gone.

    Invariant: a connection is in one crowd, or a client's, or was told to end.
    """

    def __init__(self, limits: PortLimits) -> None:
        self.limits = limits
        self.silent: Crowd[Key] = Crowd(limits.silent_max)
        self.strangers: Crowd[Key] = Crowd(limits.strangers_max)
        self._all: set[Key] = set()
        self._client: dict[Key, str] = {}
        self._of_client: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._all)

    @property
    def known(self) -> int:
        """Return how many are some client's."""
        return len(self._client)

    def of_client(self, client: str) -> int:
        """Return how many connections a client has."""
        return self._of_client.get(client, 0)

    def accepted(self, key: Key, address: str) -> list[Key]:
        """Called when a connection was accepted. Return those to end for it. It is among them if even those that were
        told to end take all of the room.
        """
        limits = self.limits
        if len(self._all) >= limits.all_max:
            return [key]
        self._all.add(key)
        free = limits.all_max - len(self._client) - spare_of(limits.all_max)
        self.silent.most = max(1, min(limits.silent_max, free))
        return self.silent.add(key, address)

    def spoke(self, key: Key, address: str) -> list[Key]:
        """Called when a request's head was read that names nobody yet. Return those to end for it."""
        return self.strangers.add(key, address) if self._leave(key) else []

    def claimed(self, key: Key, client: str, *, is_kept_for: bool = False, client_max: int | None = None) -> bool:
        """Called when a connection has shown a client's credential. Return False, and leave it what it was, if this
        client or all of them have too many. `is_kept_for`: the house cannot do without this client.
        """
        if self._client.get(key) == client:
            return True
        limits = self.limits
        full = len(self._client) >= limits.known_max - (0 if is_kept_for else limits.kept)
        most = limits.client_max if client_max is None else client_max
        if full or self.of_client(client) >= most or not self._leave(key):
            return False
        self._client[key] = client
        self._of_client[client] = self.of_client(client) + 1
        return True

    def gone(self, key: Key) -> None:
        """Called when a connection is gone, for whatever reason."""
        self._all.discard(key)
        self._leave(key)

    def _leave(self, key: Key) -> bool:
        """Take a connection from its crowd or client. Return False if it had none: it was told to end, or is gone."""
        client = self._client.pop(key, None)
        if client is not None:
            self._of_client[client] -= 1
            if not self._of_client[client]:
                del self._of_client[client]
        return self.silent.remove(key) or self.strangers.remove(key) or client is not None


def plain(address: str) -> str:
    """Return the address of a peer as people know it: IPv4 behind a socket for IPv6 is IPv4."""
    mapped = address.lower().removeprefix("::ffff:")
    return mapped if address[:7].lower() == "::ffff:" and "." in mapped else address


def site_of(address: str) -> str:
    """Return what counts as one address: an IPv4 address, or an IPv6 network of 64 bits; other texts as they are."""
    found = _parsed(address)
    if found is None:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, IPV6_SITE_BITS), strict=False))
    return str(found)


def is_within(address: str, networks: Iterable[Network]) -> bool:
    """Return whether an address is in one of the networks; False if it is no address."""
    found = _parsed(address)
    if found is None:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return any(found in network for network in networks)


def client_address(peer: str, forwarded_for: Sequence[str], trusted: Sequence[Network]) -> str:
    """Return the address of the client behind trusted proxies: the last in X-Forwarded-For that is none of theirs.

    `peer`: who connected; if that is no trusted proxy, the header is ignored. `forwarded_for`: the header's values, in
    their order. Each proxy appends who connected to it; so what stands before an entry that is not trusted, or is no
    address, was said by a stranger.
    """
    found = plain(peer)
    entries = [entry.strip() for value in forwarded_for for entry in value.split(",")]
    while is_within(found, trusted) and entries:
        said = _bare(entries.pop())
        if said is None:
            break
        found = said
    return found


def _bare(entry: str) -> str | None:
    """Return the address of an entry, which may have a port and brackets; None if it has none."""
    if entry.startswith("["):
        entry = entry[1:].partition("]")[0]
    elif entry.count(":") == 1:
        entry = entry.partition(":")[0]
    found = _parsed(entry)
    return None if found is None else str(found)


@functools.lru_cache(ADDRESSES_KEPT)
def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address that a text is, without its zone; None if it is none."""
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
