"""The CPU control group of a process: how often its quota throttled it, and how long its processes waited for a CPU.

Reads versions 2 and 1, also side by side, wherever they are mounted. A process without a quota has zeros. Figures
that cannot be read are zero too: they excuse nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final, NamedTuple

LEVELS_MAX: Final = 16  # of a group and the groups above it that are read; a container has three or four


class Held(NamedTuple):
    """Figures since the group was made. throttled: of the quota's `periods`, those in which the group was throttled.

    Units: pressed_s in seconds.
    """

    periods: int = 0
    throttled: int = 0
    pressed_s: float = 0.0


class Mounts(NamedTuple):
    """Where version 2 (`unified`) and version 1 (`cpu`) are mounted; empty: nowhere."""

    unified: str
    cpu: str


def mounts(text: str) -> Mounts:
    """Return the mounts in the text of /proc/self/mounts."""
    unified = cpu = ""
    for line in text.splitlines():
        fields = line.split(" ")
        if len(fields) < 4:
            continue
        _, place, kind, options = fields[:4]
        if kind == "cgroup2":
            unified = unified or place
        elif kind == "cgroup" and "cpu" in options.split(","):
            cpu = cpu or place
    return Mounts(unified, cpu)


def folders(places: Mounts, groups: str) -> list[str]:
    """Return the folders of a process's CPU group and of all groups above it; the innermost of each version first.

    `groups`: the text of /proc/PID/cgroup.
    """
    found: list[str] = []
    for line in groups.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        root = places.unified if not controllers else places.cpu if "cpu" in controllers.split(",") else ""
        if not root or ".." in path.split("/"):  # outside of the part of the tree that we see
            continue
        parts = [part for part in path.split("/") if part]
        found += ["/".join([root, *parts[:depth]]) for depth in range(len(parts), -1, -1)]
    return found[:LEVELS_MAX]


class Groups:
    """Reads groups. A group that several processes share is read once between two calls of `begin_round`."""

    def __init__(self, mounted: str | None = None) -> None:
        self._places = mounts(_text("/proc/self/mounts") if mounted is None else mounted)
        self._round: dict[tuple[str, ...], Held] = {}

    def of(self, pid: int) -> tuple[str, ...]:
        """Return the process's group as `held` wants it: the folders that have figures about CPUs."""
        found = folders(self._places, _text(f"/proc/{pid}/cgroup"))
        return tuple(
            path for path in found if os.path.exists(f"{path}/cpu.stat") or os.path.exists(f"{path}/cpu.pressure")
        )

    def begin_round(self) -> None:
        """Forget all figures, so that every group is read again."""
        self._round.clear()

    def held(self, group: tuple[str, ...]) -> Held:
        """Return the group's figures of this round. Any level may have a quota; the one that throttled most counts."""
        known = self._round.get(group)
        if known is None:
            known = self._round[group] = _held(group)
        return known


def _held(group: Iterable[str]) -> Held:
    periods = throttled = 0
    pressed_s: float | None = None
    for path in group:
        counts = dict(line.split(" ", 1) for line in _text(f"{path}/cpu.stat").splitlines() if " " in line)
        if _number(counts.get("nr_throttled")) > throttled:
            periods, throttled = _number(counts.get("nr_periods")), _number(counts.get("nr_throttled"))
        if pressed_s is None:
            pressed_s = _pressed_s(_text(f"{path}/cpu.pressure"))
    if pressed_s is None:
        pressed_s = _pressed_s(_text("/proc/pressure/cpu"))
    return Held(periods, throttled, pressed_s or 0.0)


def _pressed_s(text: str) -> float | None:
    """Return the total of `some` in a pressure file; None if there is none. Units: seconds."""
    first, _, _ = text.partition("\n")
    _, found, total = first.partition("total=")
    return _number(total) / 1e6 if first.startswith("some ") and found else None


def _number(text: str | None) -> int:
    return int(text) if text and text.strip().isdigit() else 0


def _text(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(fd, 65536).decode(errors="replace")
        finally:
            os.close(fd)
    except OSError:
        return ""
