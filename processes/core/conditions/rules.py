"""Rules: which condition of which hosts is worth a word, after how long, and how grave it is. Pure.

A rule is a table `[[rules]]` of rules.toml in the state folder:

    query = "role=laptop"      # which hosts; left out: every host
    condition = "offline"      # a kind, and where it has one a limit: "disk > 90 %"
    for = "14d"                # for how long it must have been so
    severity = "warning"       # info, warning, critical; or "none": such hosts are never told of for this

Of the rules of one kind, those of the first query that a host meets count for it; of those with the same severity, the
first. So two rules with the same query make two grades of one kind, and a rule further up takes its hosts from those
below. The rules of the file stand before ours
(DEFAULTS), unless the file says `defaults = false`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from processes.core.errors import FleethubError
from processes.core.shown import query
from processes.core.shown.query import Host, Query, QueryError
from processes.core.travels.judged import ConditionKind
from processes.core.values import Severity

RULES_MAX: Final = 100  # each is looked at for each heartbeat of each host
QUERY_CHARS_MAX: Final = 1_000
FOR_S_MAX: Final = 366 * 86400.0
FLAPS_S: Final = 600.0  # "flapping > 3": lost more than three times within so long
FLAPS_MAX: Final = 50  # times that are remembered
NONE: Final = "none"

_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
_DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)([smhdw]?)")
_CONDITION: Final = re.compile(r"([a-z_]{1,32})(?:\s*>\s*(\d{1,9}(?:\.\d{1,3})?)\s*(%|s|°C|C)?)?")


class RulesError(FleethubError):
    """The rules cannot be used; the text says which one, and what to do."""


class _Limit(NamedTuple):
    """What a kind's limit may be. `below`: by how much the value must be under the limit until it is over."""

    unit: str
    least: float
    most: float
    below: float = 0.0


LIMITS: Final = {
    ConditionKind.FLAPPING: _Limit("", 1, FLAPS_MAX - 1),
    ConditionKind.CLOCK: _Limit("s", 5, 1e9, 2.0),
    ConditionKind.DISK: _Limit("%", 1, 99.9, 1.0),
    ConditionKind.MEMORY: _Limit("%", 1, 99.9, 3.0),
    ConditionKind.TEMPERATURE: _Limit("°C", 1, 200, 3.0),
}
JUDGED: Final = frozenset(ConditionKind) - {ConditionKind.MANY, ConditionKind.RULES}


class Rule(msgspec.Struct, frozen=True):
    """One rule. severity None: nobody is told. limit 0: the kind has none. Units: for_s in seconds."""

    kind: ConditionKind
    query: str = ""
    limit: float = 0.0
    for_s: float = 0.0
    severity: Severity | None = Severity.WARNING
    name: str = ""

    @property
    def shown(self) -> str:
        """Return what the rule is called."""
        return self.name or condition_text(self)

    @property
    def until_below(self) -> float:
        """Return the value at which what this rule found is over."""
        found = LIMITS.get(self.kind)
        return self.limit - (found.below if found is not None else 0.0)


def condition_text(rule: Rule) -> str:
    """Return the condition as it stands in the file."""
    found = LIMITS.get(rule.kind)
    return str(rule.kind) if found is None else f"{rule.kind} > {rule.limit:g} {found.unit}".rstrip()


def duration_text(length_s: float) -> str:
    """Return a length of time for a person, in its two largest units: 78 s, 3 min 20 s, 2 h, 14 d."""
    left = round(length_s)
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if left >= size and len(parts) < 2:
            parts.append(f"{left // size} {unit}")
            left %= size
        elif parts:
            break
    return " ".join(parts) or "0 s"


_K: Final = ConditionKind
DEFAULTS: Final = (  # what a small fleet wants; guesses, each
    Rule(_K.OFFLINE, for_s=60.0),
    Rule(_K.STALE, for_s=300.0),
    Rule(_K.FLAPPING, limit=3),
    Rule(_K.CLOCK, limit=60.0, for_s=300.0),
    Rule(_K.DISK, limit=90.0, for_s=300.0),
    Rule(_K.DISK, limit=97.0, for_s=60.0, severity=Severity.CRITICAL),
    Rule(_K.MEMORY, limit=95.0, for_s=600.0),
    Rule(_K.TEMPERATURE, limit=90.0, for_s=120.0),
    Rule(_K.AGENT_OLD, for_s=86400.0, severity=Severity.INFO),
    Rule(_K.COMMAND_FAILED, severity=Severity.INFO),
    Rule(_K.COMMAND_LOST),
    Rule(_K.RUN_STOPPED),
)


def read(content: Mapping[str, Any]) -> tuple[Rule, ...]:
    """Return the rules of a file's content, with ours behind them unless it says otherwise. Raises: RulesError."""
    with_defaults, tables = content.get("defaults", True), content.get("rules", [])
    if unknown := [key for key in content if key not in ("defaults", "rules")]:
        raise RulesError(f"{unknown[0]!r} is not known here: there are [[rules]] and defaults = true or false")
    if not isinstance(with_defaults, bool):
        raise RulesError("defaults is true or false")
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise RulesError("rules stand in tables that begin with [[rules]]")
    if len(tables) > RULES_MAX:
        raise RulesError(f"{len(tables)} rules are more than {RULES_MAX}")
    found = []
    for number, table in enumerate(tables, 1):
        try:
            found.append(_rule(table))
        except RulesError as error:
            raise RulesError(f"rule {number}{_named(table)}: {error}") from None
    return (*found, *(DEFAULTS if with_defaults else ()))


def _named(table: dict[str, Any]) -> str:
    return f" ({table['name']})" if isinstance(table.get("name"), str) else ""


def _rule(table: dict[str, Any]) -> Rule:
    known = ("name", "query", "condition", "for", "severity")
    for key, value in table.items():
        if key not in known:
            raise RulesError(f"{key!r} is not known: a rule has {', '.join(known)}")
        if not isinstance(value, str) and not (key == "for" and isinstance(value, int | float) and value is not True):
            raise RulesError(f"{key} is a text in quotes")
    if "condition" not in table:
        raise RulesError(f"it has no condition: one of {_kinds()}")
    kind, limit = _condition(table["condition"])
    if len(table.get("query", "")) > QUERY_CHARS_MAX:
        raise RulesError(f"its query has more than {QUERY_CHARS_MAX} characters")
    for_s = _for_s(table.get("for", 0))
    if kind in {_K.COMMAND_FAILED, _K.COMMAND_LOST, _K.RUN_STOPPED, _K.FLAPPING} and for_s:
        raise RulesError(f"{kind} happens at one moment: leave `for` out")
    severity = table.get("severity", Severity.WARNING)
    if severity not in (*Severity, NONE):
        raise RulesError(f"severity {severity!r} is none of {', '.join(Severity)}, {NONE}")
    return Rule(
        kind, table.get("query", "").strip(), limit, for_s, None if severity == NONE else Severity(severity),
        table.get("name", "").strip()[:80],
    )  # fmt: skip


def _kinds() -> str:
    return ", ".join(kind for kind in ConditionKind if kind in JUDGED)


def _condition(text: str) -> tuple[ConditionKind, float]:
    found = _CONDITION.fullmatch(text.strip())
    kind = next((kind for kind in JUDGED if found is not None and kind == found.group(1)), None)
    if found is None or kind is None:
        raise RulesError(f"condition {text!r} is none of {_kinds()}; with a limit it looks like disk > 90 %")
    bounds, limit, unit = LIMITS.get(kind), found.group(2), (found.group(3) or "").replace("°C", "C")
    if bounds is None:
        if limit is not None:
            raise RulesError(f"{kind} has no limit: `for` says how long")
        return kind, 0.0
    if limit is None:
        raise RulesError(f"{kind} needs a limit, such as {kind} > {bounds.most if bounds.most < 100 else 60:g}")
    if unit and unit != bounds.unit.replace("°C", "C"):
        raise RulesError(f"{kind} is measured in {bounds.unit or 'times'}, not in {unit}")
    if not bounds.least <= float(limit) <= bounds.most:
        raise RulesError(f"the limit of {kind} is {bounds.least:g} to {bounds.most:g}")
    return kind, float(limit)


def _for_s(said: str | float) -> float:
    if isinstance(said, str):
        found = _DURATION.fullmatch(said.strip())
        if found is None:
            raise RulesError(f"for = {said!r} is not a length of time: 90s, 5m, 2h, 14d")
        said = float(found.group(1)) * _UNITS[found.group(2) or "s"]
    if not math.isfinite(said) or not 0 <= said <= FOR_S_MAX:
        raise RulesError("for is 0 to 366 days")
    return float(said)


class Rulebook:
    """Rules with their queries parsed. Cost of `of`: one match for each query of the kind, up to the first that holds.

    Raises (when made): RulesError, for a query that cannot be read.
    """

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self.rules = rules
        self._by_kind: dict[ConditionKind, list[tuple[Query | None, list[Rule]]]] = {}
        queries: dict[ConditionKind, dict[str, list[Rule]]] = {}
        for number, rule in enumerate(rules, 1):
            of_kind = queries.setdefault(rule.kind, {})
            if rule.query not in of_kind:
                self._by_kind.setdefault(rule.kind, []).append(
                    (_parsed(rule, number), of_kind.setdefault(rule.query, []))
                )
            if rule.severity not in [other.severity for other in of_kind[rule.query]]:  # else one further up holds
                of_kind[rule.query].append(rule)

    def of(self, kind: ConditionKind, row: Callable[[], Host], now_wall_s: float) -> list[Rule]:
        """Return the rules of this kind that count for the host with this row; none, if nobody is told of it."""
        for asked, rules in self._by_kind.get(kind, ()):
            if asked is None or asked.matches(row(), now_wall_s):
                return [rule for rule in rules if rule.severity is not None]
        return []

    def of_run(self) -> list[Rule]:
        """Return the rules for a run that stopped: it is no host's, so only those for every host."""
        for asked, rules in self._by_kind.get(ConditionKind.RUN_STOPPED, ()):
            if asked is None:
                return [rule for rule in rules if rule.severity is not None]
        return []


def _parsed(rule: Rule, number: int) -> Query | None:
    if not rule.query:
        return None
    try:
        return query.parse(rule.query)
    except QueryError as error:
        raise RulesError(
            f"rule {number}{f' ({rule.name})' if rule.name else ''}: query {rule.query!r}: {error}"
        ) from None
