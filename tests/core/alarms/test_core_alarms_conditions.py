"""What is alarmed, and what is not: each condition once with its words, and the same house in health without any."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from processes.core.alarms import conditions
from processes.core.alarms.alarm import Condition
from processes.core.alarms.conditions import DAY_S, DISK_FREE_MIN_BYTES, AlarmFacts
from processes.core.records.request import OperatorToken
from processes.core.shown.status import (
    CanaryReport,
    CommandsReport,
    FleetReport,
    IncidentsReport,
    IncidentView,
    Overall,
    PortReport,
    ProcessReport,
    PulseReport,
    Report,
    Verdict,
)
from processes.core.values import Severity

NOW_S = 1_800_000_000.0


def test_a_token_that_ends_is_told_at_each_threshold_once_and_a_short_or_replaced_one_is_not() -> None:
    def keys(life_days: float, left_days: float) -> set[str]:
        ends = NOW_S + left_days * DAY_S
        token = OperatorToken("abcdef0123456789", "viewer", "screen", ends - life_days * DAY_S, ends)
        told = found(report(), ending=[token])
        assert all(each.severity is Severity.WARNING and "screen" in each.title for each in told.values())
        return {key.rpartition(":")[2] for key in told}

    assert keys(90, 7.01) == set()
    assert keys(90, 6.99) == {"7"}
    assert keys(90, 0.99) == {"7", "1"}
    assert keys(90, -0.01) == {"7", "1", "0"}
    assert keys(27, 6) == set(), "made for less than four weeks: a week before is no news"
    assert keys(4, -1) == {"1", "0"}
    assert keys(3, -1) == set(), "it ended as was meant"
    unknown = conditions.unknown(report(), AlarmFacts(), incidents_known=True)
    assert "token:" in unknown, "a watchdog that could not read them yet ends no alarm"


def process(name: str, verdict: Verdict = Verdict.ADVANCING, **more: Any) -> ProcessReport:
    return ProcessReport(name, "RUNNING", 1, 1.0, 0, None, verdict, **more)


def report(*processes: ProcessReport, canary: bool = True, **more: Any) -> Report:
    rows = [
        process(name) for name in ("queues", "hub", "gateway", "fanout") if name not in {row.name for row in processes}
    ]
    return Report(
        Overall.OK,
        1,
        [*rows, *processes],
        CanaryReport(ok=canary),
        FleetReport(),
        CommandsReport(),
        IncidentsReport(),
        **more,
    )


def found(seen: Report, **facts: Any) -> dict[str, Condition]:
    return {c.key: c for c in conditions.conditions(seen, AlarmFacts(**facts), NOW_S)}


def view(**more: Any) -> IncidentView:
    base = IncidentView(
        "20261123T1",
        "hub",
        "frozen",
        "no turn for 2.1 s",
        None,
        None,
        None,
        2.1,
        None,
        "hub/loop.py:7 take_twice",
        0,
        "",
        41,
        3,
    )
    return msgspec.structs.replace(base, **more)


def test_healthy_house_alarms_nobody() -> None:
    assert (
        found(
            report(),
            disk_free_bytes=DISK_FREE_MIN_BYTES,
            certificate_wall_s=NOW_S + 15 * DAY_S,
            put_aside=[],
            suspended=[],
        )
        == {}
    )


@pytest.mark.parametrize(
    ("key", "severity", "seen", "facts"),
    [
        ("lagging:gateway", Severity.WARNING, report(process("gateway", Verdict.LAGGING)), {}),
        ("unkillable:hub", Severity.CRITICAL, report(process("hub", Verdict.UNKILLABLE)), {}),
        ("budget:hub", Severity.CRITICAL, report(), {"budgets": frozenset({"hub"})}),
        ("storage", Severity.CRITICAL, report(process("hub", pulse=PulseReport(blocked_on="storage"))), {}),
        ("canary", Severity.CRITICAL, report(canary=False, reasons=["no canary command went round lately"]), {}),
        ("supervisord", Severity.CRITICAL, report(supervisord_silent_s=conditions.SUPERVISORD_S), {}),
        ("disk", Severity.WARNING, report(), {"disk_free_bytes": DISK_FREE_MIN_BYTES - 1}),
        ("deadletter:7", Severity.WARNING, report(), {"put_aside": [("7", "a status of web1")]}),
        ("suspended:web1", Severity.CRITICAL, report(), {"suspended": [("web1", "a flood of poison")]}),
        ("contested:web1", Severity.WARNING, report(), {"contested": ["web1"]}),
        ("impersonated:web1", Severity.CRITICAL, report(), {"impersonated": [("web1", "it registered as web2")]}),
        ("guessed:fanout", Severity.WARNING, report(), {"guessed": [("fanout", "120 within a minute")]}),
        ("certificate:unreadable", Severity.WARNING, report(), {"certificate_problem": "it is cut off"}),
    ],
)
def test_each_condition_stands_alone_with_its_severity(
    key: str, severity: Severity, seen: Report, facts: dict[str, Any]
) -> None:
    stands = found(seen, **facts)
    assert list(stands) == [key]
    assert stands[key].severity is severity
    assert stands[key].title


def test_a_port_that_answers_nobody_is_told_as_that_and_not_as_a_command_that_did_not_go_round() -> None:
    said = "the agents' port 127.0.0.1:7701 answers no new connection: no answer within 2 s"
    canary = CanaryReport(ports=[PortReport("agents", "127.0.0.1:7701"), PortReport("operators", "x", ok=True)])
    seen = msgspec.structs.replace(report(reasons=[said]), canary=canary)
    assert found(seen)["canary"].text == said
    whole = msgspec.structs.replace(seen, canary=CanaryReport(ports=[PortReport("operators", "x", ok=True)]))
    assert found(whole)["canary"].text == f"no command goes all the way round; {said}"


@pytest.mark.parametrize(
    "seen",
    [
        report(supervisord_silent_s=conditions.SUPERVISORD_S - 0.1),
        report(process("queues", pulse=PulseReport(blocked_on="queues"))),
        report(process("hub", Verdict.STOPPED, wanted=False), canary=False),
        report(process("hub", Verdict.FROZEN), process("fanout", Verdict.EXCUSED)),
    ],
)
def test_what_is_an_incident_or_wanted_or_too_young_is_no_condition(seen: Report) -> None:
    assert found(seen) == {}


@pytest.mark.parametrize(
    ("left_days", "keys"),
    [
        (15, []),
        (13.9, ["certificate:14"]),
        (2.9, ["certificate:14", "certificate:3"]),
        (-0.1, ["certificate:14", "certificate:3", "certificate:0"]),
    ],
)
def test_certificate_is_told_of_at_each_threshold(left_days: float, keys: list[str]) -> None:
    assert list(found(report(), certificate_wall_s=NOW_S + left_days * DAY_S)) == keys


def test_an_alarm_names_the_restart_budget_in_whole() -> None:
    """The bug it would catch: what a client may send is a budget too, and the reader looks there."""
    assert found(report(), budgets=frozenset({"hub"}))["budget:hub"].title == "the restart budget of hub is used up"


@pytest.mark.parametrize(
    ("kept", "audited", "text"),
    [
        (False, "tried_again", "it was retried"),
        (False, "discarded", "it was discarded"),
        (False, None, "it made room for newer ones, or was too old to be kept"),
        (True, None, "it is still kept, but newer ones took its place among the alarms"),
        (True, "tried_again", "it is still kept, but newer ones took its place among the alarms"),
    ],
)
def test_the_end_of_a_dead_letters_alarm_is_told_as_it_was(kept: bool, audited: str | None, text: str) -> None:
    assert conditions.end_of_dead_letter(kept, audited) == text
    assert conditions.over(AlarmFacts(ended={"7": text})) == {"deadletter:7": text}


def test_incident_is_told_with_process_verdict_line_remedy_and_loss() -> None:
    told = conditions.incident(view(remedy="killed and replaced"))
    assert (told.key, told.title, told.severity, told.after_s) == (
        "incident:20261123T1",
        "hub frozen",
        Severity.WARNING,
        0.0,
    )
    assert told.text == "no turn for 2.1 s; stuck at hub/loop.py:7 take_twice; killed and replaced; incident 20261123T1"
    over = conditions.incident(
        view(remedy="killed and replaced", recovered_after_s=2.61, over_at="2026-11-23T22:00:00.000Z")
    )
    assert over.over == "well again after 2.6 s, nothing lost, killed and replaced"
    assert conditions.incident(view(verdict="memory")).title == "hub uses too much memory"


def test_incident_waits_for_its_remedy_but_not_for_ever() -> None:
    assert conditions.incident(view()).after_s == conditions.SETTLE_S
    assert conditions.incident(view(over_at="now")).after_s == 0


def test_loss_and_the_unkillable_are_critical_and_a_drill_is_only_said() -> None:
    lost = conditions.incident(view(lost=2))
    assert (lost.severity, "2 accepted commands disappeared" in lost.over) == (Severity.CRITICAL, True)
    assert conditions.incident(view(verdict="unkillable")).severity is Severity.CRITICAL
    drill = view(lost=2, drill=True)
    assert (conditions.incident(drill).severity, conditions.lasting(drill).severity) == (Severity.INFO, Severity.INFO)
    assert "(drill)" in conditions.incident(drill).title


def test_incident_that_does_not_end_is_told_again_as_critical() -> None:
    lasting = conditions.lasting(view())
    assert (lasting.severity, lasting.after_s, lasting.key) == (
        Severity.CRITICAL,
        conditions.LASTING_S,
        "lasting:20261123T1",
    )


@pytest.mark.parametrize(
    ("before", "now", "titles"),
    [(None, 5, []), (5, 5, []), (5, 4, []), (5, 6, ["1 command became lost"]), (0, 3, ["3 commands became lost"])],
)
def test_commands_that_became_lost_are_told_of_once(before: int | None, now: int, titles: list[str]) -> None:
    assert [c.title for c in conditions.lost(before, now)] == titles


@pytest.mark.parametrize(("away_s", "told"), [(0.5, 0), (conditions.HOLE_S - 0.1, 0), (conditions.HOLE_S, 1)])
def test_a_time_in_which_nobody_watched_is_told_of(away_s: float, told: int) -> None:
    assert len(conditions.hole(away_s)) == told


@pytest.mark.parametrize(
    ("at_mono_s", "at_wall_s", "now_mono_s", "now_wall_s", "away_s"),
    [
        (100.0, 1000.0, 101.0, 1001.0, 1.0),
        (100.0, 1000.0, 101.0, 1001.0 + 86400, 1.0),  # the wall clock was moved
        (100.0, 1000.0, 101.0, 1001.0 - 86400, 0.0),
        (900.0, 1000.0, 5.0, 1180.0, 180.0),  # the machine was started anew
    ],
)
def test_hole_before_a_start_is_not_made_up_by_a_moved_clock(
    at_mono_s: float, at_wall_s: float, now_mono_s: float, now_wall_s: float, away_s: float
) -> None:
    assert conditions.away_s(at_mono_s, at_wall_s, now_mono_s, now_wall_s) == away_s


def test_watchdog_that_starts_anew_does_not_call_over_what_it_cannot_know() -> None:
    known = conditions.unknown(
        report(), AlarmFacts(put_aside=[], suspended=[], ending=[], hosts=[]), incidents_known=True
    )
    assert known == ()
    unwell = conditions.unknown(report(process("hub", Verdict.DEAD)), AlarmFacts(), incidents_known=False)
    assert set(unwell) == {
        "incident:",
        "lasting:",
        "budget:hub",
        "unkillable:hub",
        "deadletter:",
        "suspended:",
        "token:",
        "host:",
    }
