"""A fleet of made-up hosts before a judge: a clock that goes in steps of a second, and what was told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from processes.core.conditions.freshness import FRESH_S, House
from processes.core.conditions.happened import CommandSight, RunSight
from processes.core.conditions.judge import ActiveSilence, Judge
from processes.core.conditions.rules import DEFAULTS, Rule, Rulebook
from processes.core.shown.query import parse
from processes.core.travels.judged import JudgedCondition
from processes.core.travels.messages import Json
from processes.core.values import Now, rfc3339

BOOT_S, WALL_S = 5_000.0, 1_800_000_000.0


class JudgedFleet:
    """Hosts and one judge. `shown` is what the hub would have: the newest of each condition, by its id."""

    def __init__(self, rules: Iterable[Rule] = DEFAULTS, *, settled: bool = True) -> None:
        self.at_s = 0.0
        self.house = House(1)
        self.rules = tuple(rules)
        self.rows: dict[str, dict[str, Any]] = {}
        self.shown: dict[str, JudgedCondition] = {}
        self.told: list[JudgedCondition] = []  # each time when one is worth an alarm: begun, and not silenced or a part
        self.judge = self.new_judge()
        if settled:
            self.go(FRESH_S + 1)

    @property
    def now(self) -> Now:
        """Return the time."""
        return Now(BOOT_S + self.at_s, WALL_S + self.at_s)

    def new_judge(self) -> Judge:
        """Return a judge that has taken over what is known."""
        judge = Judge(Rulebook(self.rules), "0.2.0", self.now)
        judge.load(self.shown.values())
        for name in self.rows:
            judge.host(name, self._row(name), self.now)
        return judge

    def _row(self, name: str) -> Json:
        return Json(msgspec.json.encode(self.rows[name]))

    def add(self, *names: str, address: str = "", gateway: str = "gateway", **labels: str) -> None:
        """Add hosts that are online."""
        for name in names:
            self.rows[name] = {
                "name": name, "presence": "online", "last_seen": rfc3339(self.now.wall_s), "address": address,
                "gateway": gateway, "agent_version": "0.2.0", "protocol": 1, "heartbeat_interval_s": 5.0,
                "labels": labels,
                "command_options": {"reboot": {"back_s": 300}, "pull": {}},
            }  # fmt: skip
            self.judge.host(name, self._row(name), self.now)

    def change(self, *names: str, **fields: Any) -> None:
        """Change rows of hosts."""
        for name in names:
            self.rows[name] |= fields
            self.judge.host(name, self._row(name), self.now)

    def lose(self, *names: str) -> None:
        """Take hosts away, as a cut cable does; the hub forgets by which gateway they were connected."""
        self.change(*names, presence="offline", last_seen=rfc3339(self.now.wall_s), gateway="")

    def back(self, *names: str, gateway: str = "gateway") -> None:
        """Bring hosts back."""
        self.change(*names, presence="online", last_seen=rfc3339(self.now.wall_s), gateway=gateway)

    def beat(self, *names: str, **metrics: Any) -> None:
        """Send heartbeats with these metrics."""
        for name in names:
            fields = {"last_seen": rfc3339(self.now.wall_s), "metrics": metrics}
            self.rows[name] |= fields
            self.judge.hear(name, Json(msgspec.json.encode(fields)), self.now)

    def command(self, host: str, op: str, state: str, id: str = "c1", **fields: Any) -> None:
        """Move a command."""
        ended = None if state in ("queued", "sent", "running") else rfc3339(self.now.wall_s)
        self.judge.command(CommandSight(id, host, op, state, finished_at=ended, **fields), self.now)

    def run(self, id: str, *, good: bool, steps: str = "pull") -> None:
        """End a run."""
        self.judge.run(RunSight(id, steps, good, self.now.wall_s, "3 of 40 hosts failed"), self.now)

    def silence(self, *silences: tuple[str, float, float]) -> None:
        """Make these all silences: query, and from when until when in seconds from now."""
        now_s = self.now.wall_s
        made = [ActiveSilence(f"s{i}", parse(q), now_s + a, now_s + b) for i, (q, a, b) in enumerate(silences)]
        self.judge.silences(made, self.now)

    def go(self, length_s: float, each: Callable[[], None] = lambda: None, *, step_s: float = 1.0) -> None:
        """Let time pass, second by second."""
        for _ in range(round(length_s / step_s)):
            self.at_s += step_s
            each()
            self.turn()

    def turn(self) -> None:
        """Take what the judge says."""
        for said in self.judge.turn(self.now, self.house):
            before = self.shown.get(said.id)
            self.shown[said.id] = said
            if _is_told(said) and (before is None or not _is_told(before)):
                self.told.append(said)

    @property
    def open(self) -> list[JudgedCondition]:
        """Return what stands."""
        return [each for each in self.shown.values() if each.open]

    @property
    def titles(self) -> list[str]:
        """Return the titles of what was told, in order."""
        return [each.title for each in self.told]


def _is_told(condition: JudgedCondition) -> bool:
    return condition.open and not condition.group and not condition.silence
