"""What is met by a rule and does not stand yet: for its time, and for others with the same cause. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from processes.core.conditions.rules import Rule
from processes.core.conditions.standing import Key
from processes.core.travels.judged import JudgedCondition


class Met(NamedTuple):
    """A rule that holds, and does not stand yet. `since_boot_s` counts no time before the house was well; that of the
    condition does.
    """

    rule: Rule
    since_boot_s: float
    condition: JudgedCondition


class Dwelling:
    """Invariant: `ready` (whose time is over, with the moment of that) and `lost` (hosts that may be part of a mass
    loss) are among what is met; `of_host` are the keys of what is met, by host.
    """

    def __init__(self) -> None:
        self.met: dict[Key, Met] = {}
        self.ready: dict[Key, float] = {}
        self.lost: dict[Key, None] = {}
        self.of_host: dict[str, set[Key]] = {}

    def put(self, key: Key, met: Met) -> None:
        """Make this what is met by the key."""
        self.met[key] = met
        self.of_host.setdefault(key[0], set()).add(key)

    def drop(self, key: Key) -> None:
        """Forget the key, if it is there."""
        if self.met.pop(key, None) is not None:
            self.ready.pop(key, None)
            self.lost.pop(key, None)
            keys = self.of_host[key[0]]
            keys.discard(key)
            if not keys:
                del self.of_host[key[0]]

    def keys_of(self, host: str) -> list[Key]:
        """Return the keys of a host."""
        return list(self.of_host.get(host, ()))

    def due(self, before_boot_s: float) -> Iterator[Key]:
        """Yield the keys whose time was over by then."""
        yield from [key for key, at_boot_s in self.ready.items() if at_boot_s <= before_boot_s]

    def pause(self, length_s: float) -> None:
        """Let so much time not have passed."""
        for key, met in self.met.items():
            self.met[key] = met._replace(since_boot_s=met.since_boot_s + length_s)
        for key in self.ready:
            self.ready[key] += length_s
