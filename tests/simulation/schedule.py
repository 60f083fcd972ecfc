"""What befalls a simulated house: which fault when at whom, which operator asks for what, and what the house is made of.

A run draws its schedule as it goes; a schedule that was kept is taken as it stands. Each draw has a name and is written
down under it, so a kept schedule does not depend on how often, or in which order, the dice are asked. What it does not
hold (the code has a new choice to make) comes from dice of the act's own. How long each frame and each I/O takes is
noise: it comes from the seed, one stream for each process, and is not written down.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T", bound=str | float | None)


class Draws:
    """The choices of one act, by name. `held`: what is known of them, and where the others are written down."""

    def __init__(self, dice: random.Random, held: dict[str, Any]) -> None:
        self._dice, self.held = dice, held

    def uniform(self, name: str, low: float, high: float) -> float:
        """A time or the like, to the thousandth."""
        if name not in self.held:
            self.held[name] = round(self._dice.uniform(low, high), 3)
        return float(self.held[name])

    def number(self, name: str, low: int, high: int) -> int:
        """A whole number, both bounds included."""
        if name not in self.held:
            self.held[name] = self._dice.randint(low, high)
        return int(self.held[name])

    def happens(self, name: str, probability: float) -> bool:
        """Whether something is so."""
        if name not in self.held:
            self.held[name] = self._dice.random() < probability
        return bool(self.held[name])

    def choice(self, name: str, values: Sequence[T], weights: Sequence[int] | None = None) -> T:
        """One of the values. A kept one is taken even if it is not among them."""
        if name not in self.held:
            self.held[name] = self._dice.choices(values, weights)[0] if weights else self._dice.choice(values)
        value: T = self.held[name]
        return value

    def victim(self, name: str, candidates: Sequence[str]) -> str:
        """One of the candidates, "" if there is none, or if the kept one is not among them."""
        if not candidates:
            return ""
        found = self.choice(name, candidates)
        return found if found in candidates else ""

    def sample(self, name: str, values: Sequence[str], most: int) -> list[str]:
        """From one to so many of the values, each at most once."""
        if name not in self.held:
            self.held[name] = self._dice.sample(values, self._dice.randint(1, most))
        return list(self.held[name])


class Schedule:
    """The acts, each with a kind and a number: `world 0` is what the house is made of, every `fault` and every `story`
    (of one operator) happens `at_s` seconds after the chaos began. `found`: what the schedule found once.
    """

    def __init__(self, seed: int, found: str = "", acts: list[dict[str, Any]] | None = None) -> None:
        self.seed, self.found = seed, found
        self.kept = acts is not None
        self.acts = acts or []

    def dice(self, name: str) -> random.Random:
        """Dice of this name: whatever others ask, they give the same."""
        return random.Random(f"{self.seed} {name}")

    def acts_of(self, kind: str, count: int) -> list[Draws]:
        """The acts of this kind, in the order of their numbers: `count` new ones, or all that were kept. Once for a kind."""
        if not self.kept:
            self.acts += [{"act": f"{kind} {number}"} for number in range(count)]
        acts = [act for act in self.acts if act["act"].split()[0] == kind]
        acts.sort(key=lambda act: int(act["act"].split()[1]))
        return [Draws(self.dice(act["act"]), act) for act in acts]

    # the file

    @classmethod
    def read(cls, path: Path) -> Schedule:
        """A kept schedule."""
        text = json.loads(path.read_text())
        return cls(text["seed"], text["found"], text["acts"])

    def write(self, path: Path) -> None:
        """Keeps it: an act a line, in the order of time."""
        acts = sorted(self.acts, key=lambda act: act.get("at_s", -1.0))
        lines = ",\n".join("    " + json.dumps(act, ensure_ascii=False) for act in acts)
        path.write_text(
            f'{{\n  "found": {json.dumps(self.found, ensure_ascii=False)},\n  "seed": {self.seed},\n'
            f'  "acts": [\n{lines}\n  ]\n}}\n'
        )
