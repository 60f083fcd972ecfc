"""The file of rules: what it may say, and what is said of mistakes in it."""

from __future__ import annotations

import tomllib

import pytest

from processes.core.conditions.rules import DEFAULTS, Rule, Rulebook, RulesError, condition_text, duration_text, read
from processes.core.conditions.sight import HostSight
from processes.core.travels.judged import ConditionKind
from processes.core.values import Severity


def test_rules_of_the_file_stand_before_the_defaults() -> None:
    text = """
        [[rules]]
        name = "laptops"
        query = "role=laptop"
        condition = "offline"
        for = "14d"
        [[rules]]
        condition = "disk > 80.5 %"
        for = 90
        severity = "critical"
    """
    found = read(tomllib.loads(text))
    assert found[:2] == (
        Rule(ConditionKind.OFFLINE, "role=laptop", 0.0, 14 * 86400.0, Severity.WARNING, "laptops"),
        Rule(ConditionKind.DISK, "", 80.5, 90.0, Severity.CRITICAL),
    )
    assert found[2:] == DEFAULTS
    assert read(tomllib.loads("defaults = false")) == ()
    assert read({}) == DEFAULTS


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rule = 1", "'rule' is not known here: there are [[rules]]"),
        ("rules = 3", "tables that begin with [[rules]]"),
        ("defaults = 1", "defaults is true or false"),
        ("[[rules]]\nquery = 'a=b'", "rule 1: it has no condition: one of offline, stale, flapping"),
        ("[[rules]]\ncondition = 'offlin'", "condition 'offlin' is none of"),
        ("[[rules]]\ncondition = 'many'", "condition 'many' is none of"),
        ("[[rules]]\ncondition = 'disk'", "disk needs a limit, such as disk > 99.9"),
        ("[[rules]]\ncondition = 'offline > 3'", "offline has no limit"),
        ("[[rules]]\ncondition = 'disk > 90 C'", "disk is measured in %, not in C"),
        ("[[rules]]\ncondition = 'disk > 100'", "the limit of disk is 1 to 99.9"),
        ("[[rules]]\ncondition = 'offline'\nfor = '5 minutes'", "for = '5 minutes' is not a length of time: 90s"),
        ("[[rules]]\ncondition = 'offline'\nfor = -1", "for is 0 to 366 days"),
        ("[[rules]]\ncondition = 'offline'\nfor = true", "for is a text in quotes"),
        (
            "[[rules]]\ncondition = 'offline'\nseverity = 'bad'",
            "severity 'bad' is none of info, warning, critical, none",
        ),
        (
            "[[rules]]\nname = 'x'\ncondition = 'offline'\nhosts = 'a'",
            "rule 1 (x): 'hosts' is not known: a rule has name",
        ),
        ("[[rules]]\ncondition = 'command_lost'\nfor = '5m'", "command_lost happens at one moment"),
        ("[[rules]]\ncondition = 3", "condition is a text in quotes"),
        ("[[rules]]\ncondition = 'stale'\n" * 101, "101 rules are more than 100"),
    ],
)
def test_a_mistake_is_named_with_its_rule_and_what_to_do(text: str, told: str) -> None:
    with pytest.raises(RulesError) as raised:
        read(tomllib.loads(text))
    assert told in str(raised.value)


def test_a_query_that_cannot_be_read_is_named_with_its_rule() -> None:
    with pytest.raises(RulesError, match=r"rule 2 \(x\): query '\"open': the quotation mark"):
        Rulebook((Rule(ConditionKind.STALE), Rule(ConditionKind.OFFLINE, '"open', name="x")))


def test_of_one_kind_the_rules_of_the_first_query_that_holds_count() -> None:
    K = ConditionKind.DISK
    rules = (
        Rule(K, "a=1", 50.0), Rule(K, "b=1", 60.0, severity=None), Rule(K, "", 90.0),
        Rule(K, "a=1", 70.0, severity=Severity.CRITICAL), Rule(K, "", 97.0, severity=Severity.CRITICAL),
    )  # fmt: skip
    book = Rulebook(rules)

    def limits(**labels: str) -> list[float]:
        return [rule.limit for rule in book.of(K, lambda: {"labels": labels}, 0.0)]

    assert limits(a="1", b="1") == [50.0, 70.0]
    assert limits(b="1") == []
    assert limits() == [90.0, 97.0]
    assert book.of(ConditionKind.OFFLINE, dict, 0.0) == []


def test_each_default_is_read_back_from_its_text() -> None:
    for rule in DEFAULTS:
        assert rule.severity is not None
        table = {"condition": condition_text(rule), "for": rule.for_s, "severity": str(rule.severity)}
        assert read({"rules": [table], "defaults": False}) == (rule,)
    Rulebook(DEFAULTS)


@pytest.mark.parametrize(
    ("length_s", "told"),
    [(0.2, "0 s"), (78, "1 min 18 s"), (3600, "1 h"), (3601, "1 h"), (90000, "1 d 1 h"), (59.6, "1 min")],
)
def test_a_length_of_time_has_two_units_at_most(length_s: float, told: str) -> None:
    assert duration_text(length_s) == told


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.0.4.7:999", "10.0.4.0/24"), ("10.0.4.7", "10.0.4.0/24"), ("[2001:db8:1:2::7]:80", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::7", "2001:db8:1:2::/64"), ("127.0.0.1:5", ""), ("::1", ""), ("", ""), ("proxy", ""),
    ],
)  # fmt: skip
def test_the_network_of_an_address(address: str, network: str) -> None:
    assert HostSight(address=address).network == network
