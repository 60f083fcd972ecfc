"""What the hosts have in common that something happened to at the same time: a label, a network, a run. Pure.

A trait is a text such as `rack=b4` or `network 10.0.4.0/24`. It is a cause, if most of the hosts that have it are among
those that it happened to: that all lost hosts have env=prod says nothing while a hundred others with env=prod are well.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

MANY_MIN: Final = 5  # so many hosts at once are told as one; contract
SHARE_MIN: Final = 0.8  # of the hosts with a trait, so many are affected if it is the cause; guess
FLEET_SHARE: Final = 0.2  # contract: a fifth of the fleet at once makes the installation degraded
WHOLE_SHARE: Final = 0.9  # so much of the fleet is all of it, for words
NETWORK: Final = "network "  # how the trait of a network begins; a label that says as much is the better word
WHOLE: Final = "the whole fleet"
NO_TRAIT: Final = "nothing that they share"


class SharedCause(NamedTuple):
    """Hosts with one cause. `trait`: a label, network or run; or WHOLE, or NO_TRAIT."""

    trait: str
    hosts: tuple[str, ...]


class Traits:
    """How many hosts of the fleet have each trait."""

    def __init__(self) -> None:
        self._of: dict[str, frozenset[str]] = {}
        self.counts: Counter[str] = Counter()

    @property
    def fleet(self) -> int:
        """Return how many hosts there are."""
        return len(self._of)

    def put(self, host: str, traits: frozenset[str]) -> None:
        """Set the traits of a host."""
        before = self._of.get(host)
        if before == traits:
            return
        self.counts.subtract(before or ())
        self.counts.update(traits)
        self._of[host] = traits

    def drop(self, host: str) -> None:
        """Forget the host."""
        self.counts.subtract(self._of.pop(host, frozenset()))

    def of(self, host: str) -> frozenset[str]:
        """Return the traits of a host."""
        return self._of.get(host, frozenset())


def causes(affected: Iterable[str], traits: Traits, more: Mapping[str, str] | None = None) -> list[SharedCause]:
    """Return what explains the affected hosts, the trait with most hosts first; whom nothing explains is in none.

    `more`: a trait of this very case for each host, such as the run of a command; every host that has it is affected.
    Cost: the affected hosts with their traits, for each cause that is found.
    """
    left, found = dict.fromkeys(affected), []
    fleet = traits.fleet
    while len(left) >= MANY_MIN:
        having: dict[str, list[str]] = defaultdict(list)
        for host in left:
            for trait in traits.of(host):
                having[trait].append(host)
            if more and (own := more.get(host)):
                having[own].append(host)
        own_traits = set((more or {}).values())
        best = min(
            (
                (-len(hosts), trait not in own_traits, trait.startswith(NETWORK), traits.counts[trait], trait)
                for trait, hosts in having.items()
                if len(hosts) >= MANY_MIN
                and (trait in own_traits or len(hosts) >= SHARE_MIN * traits.counts[trait])
                and (trait in own_traits or traits.counts[trait] < fleet)
            ),
            default=None,
        )
        if best is None:
            break
        hosts = having[best[-1]]
        found.append(SharedCause(best[-1], tuple(hosts)))
        for host in hosts:
            del left[host]
    if len(left) >= MANY_MIN and len(left) >= FLEET_SHARE * fleet:
        found.append(SharedCause(WHOLE if len(left) >= WHOLE_SHARE * fleet else NO_TRAIT, tuple(left)))
    return found


def is_mass(hosts: int, fleet: int) -> bool:
    """Return whether the loss of so many hosts at once makes the installation degraded."""
    return hosts >= MANY_MIN and hosts >= FLEET_SHARE * fleet
