"""What happened once: a command that failed or was lost, a run that stopped, rules that cannot be used. Pure.

It stands until the same succeeds, somebody acknowledges it, or KEPT_S is over.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from processes.core.conditions import signs
from processes.core.conditions.beginnings import Beginnings
from processes.core.conditions.dwelling import Dwelling, Met
from processes.core.conditions.rules import Rule
from processes.core.conditions.sight import wall_s
from processes.core.conditions.standing import Key, StandingConditions, condition_id
from processes.core.records.command import State
from processes.core.travels.judged import HAPPENED, ConditionKind, JudgedCondition
from processes.core.values import Now, Severity

LATE_S: Final = 86400.0  # a command or run that ended longer ago begins nothing
KEPT_S: Final = 7 * 86400.0  # what happened once is over after so long, if nobody acknowledges it


class CommandSight(msgspec.Struct, frozen=True):
    """The fields of a command's row that rules are about."""

    id: str = ""
    host: str = ""
    op: str = ""
    state: str = ""
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    finished_at: str | None = None
    run: str | None = None


class RunSight(NamedTuple):
    """A run that has ended. `is_good`: it succeeded on every host; or somebody cancelled it."""

    id: str
    steps: str
    is_good: bool
    finished_wall_s: float
    text: str = ""


_FAILED: Final = frozenset({State.FAILED, State.REJECTED})
OUTCOMES: Final = {
    **dict.fromkeys(map(str, _FAILED), ConditionKind.COMMAND_FAILED), str(State.LOST): ConditionKind.COMMAND_LOST,
}  # fmt: skip


class Happenings:
    """Makes of what happened once what dwells and stands."""

    def __init__(self, dwelling: Dwelling, standing: StandingConditions, beginnings: Beginnings) -> None:
        self._dwelling, self._standing, self._beginnings = dwelling, standing, beginnings

    def run(self, rules: list[Rule], run: RunSight, now: Now) -> None:
        """Called when a run has ended, or is seen again."""
        for rule in rules:
            assert rule.severity is not None
            for key in [k for k in self._standing.of_host.get("", ()) if k[1] is ConditionKind.RUN_STOPPED]:
                stands = self._standing.alone[key]
                if (
                    run.is_good
                    and stands.text.startswith(f"{run.steps}:")
                    and run.finished_wall_s > stands.since_wall_s
                ):
                    self._standing.end(key, now.wall_s, "the same succeeded since")
            if run.is_good or now.wall_s - run.finished_wall_s > LATE_S:
                continue
            key = ("", ConditionKind.RUN_STOPPED, run.id, rule.severity)
            self._happened(key, rule, f"run {run.id[:8]} stopped", f"{run.steps}: {run.text}", run.finished_wall_s, now)

    def acknowledged(self, condition: JudgedCondition, now: Now) -> None:
        """Called when an operator has acknowledged a condition: what happened once is over by that."""
        if condition.kind in HAPPENED:
            for key in [k for k in self._standing.of_host.get(condition.host or "", ()) if k[1] is condition.kind]:
                if self._standing.alone[key].id == condition.id:
                    self._standing.end(key, now.wall_s, "acknowledged")
        elif condition.kind is ConditionKind.MANY and condition.of in HAPPENED:
            for key, each in list(self._standing.alone.items()):
                if each.group == condition.id:
                    self._standing.end(key, now.wall_s, "acknowledged")

    def rules_problem(self, problem: str, now: Now) -> None:
        """Called with what is wrong with the rules; empty: nothing. The ones before go on to hold."""
        key = ("", ConditionKind.RULES, "", Severity.WARNING)
        stands = self._standing.alone.get(key)
        if problem:
            begun_wall_s = stands.begun_wall_s if stands is not None else now.wall_s
            id = stands.id if stands is not None else condition_id("rules", f"{now.wall_s:.3f}")
            self._standing.put(
                key,
                JudgedCondition(
                    id=id, host=None, kind=ConditionKind.RULES, severity=Severity.WARNING,
                    title="the rules cannot be used", text=f"{problem[:500]}; try: fleethub rules check",
                    since_wall_s=begun_wall_s, begun_wall_s=begun_wall_s,
                ),
            )  # fmt: skip
        elif stands is not None:
            self._standing.end(key, now.wall_s, "they can be used again")

    def forget_old(self, now: Now) -> None:
        """End what nobody has acknowledged for long."""
        for key, condition in list(self._standing.alone.items()):
            if key[1] in HAPPENED and now.wall_s - condition.since_wall_s > KEPT_S:
                self._standing.end(key, now.wall_s, "nobody acknowledged it within a week")

    def ended_well(self, command: CommandSight, now: Now) -> None:
        """End what an earlier command of the same operation began."""
        finished_wall_s = wall_s(command.finished_at) or now.wall_s
        for key in [k for k in self._dwelling.keys_of(command.host) if k[2] == command.op]:
            if self._dwelling.met[key].condition.since_wall_s <= finished_wall_s:
                self._dwelling.drop(key)
        for key in [k for k in self._standing.of_host.get(command.host, ()) if k[2] == command.op]:
            lasted_s = finished_wall_s - self._standing.alone[key].since_wall_s
            if lasted_s >= 0:
                self._standing.end(key, finished_wall_s, signs.over(key[1], lasted_s))

    def ended_badly(
        self, rules: list[Rule], kind: ConditionKind, command: CommandSight, labels: dict[str, str], now: Now
    ) -> None:
        """Begin what the end of a command means by these rules."""
        finished_wall_s = wall_s(command.finished_at)
        if finished_wall_s is None or now.wall_s - finished_wall_s > LATE_S:
            return
        why = command.message or command.reason or (f"exit code {command.exit_code}" if command.exit_code else "")
        text = f"{command.op}: {why}".rstrip(": ") + f"; command {command.id}"
        for rule in rules:
            assert rule.severity is not None
            key = (command.host, kind, command.op, rule.severity)
            self._happened(key, rule, signs.title(kind, command.host), text, finished_wall_s, now, command, labels)

    def _happened(  # noqa: PLR0917  # what is known of it
        self,
        key: Key,
        rule: Rule,
        title: str,
        text: str,
        at_wall_s: float,
        now: Now,
        command: CommandSight | None = None,
        labels: dict[str, str] | None = None,
    ) -> None:
        subject = f"{command.op} {command.id}" if command is not None else key[2]
        id = condition_id(key[0], key[1], subject, key[3])
        if key in self._standing.alone or self._standing.is_over(id):
            return
        condition = JudgedCondition(
            id=id, host=key[0] or None, kind=key[1], severity=key[3], title=title, text=text[:500],
            since_wall_s=at_wall_s, begun_wall_s=now.wall_s, subject=subject, rule=rule.shown, labels=labels or {},
        )  # fmt: skip
        if key not in self._dwelling.met:
            self._dwelling.put(key, Met(rule, now.boot_s, condition))
            self._dwelling.ready[key] = now.boot_s
            if command is not None and command.run:
                self._beginnings.note_trait(id, f"run {command.run[:8]}")
