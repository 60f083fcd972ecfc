"""What is outside a drill's bounds, how rounds become a row, and the table of the crash matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from processes.core.cli.drills import (
    AGENTS,
    BEGIN,
    BY_NAME,
    DRILLS,
    END,
    FOUND_S,
    HEADER,
    ONE_PROCESS,
    OPERATORS,
    WELL_S,
    Drill,
    Figures,
    Given,
    Left,
    cells,
    markdown,
    outcome,
    together,
    trouble,
)  # fmt: skip
from processes.core.records.command import State

README = (Path(__file__).resolve().parents[3] / "README.md").read_text()
FREEZE = Drill(name="x-stop", what="x", process="x", verdict="frozen", guilty="f")
LASTS = Drill(name="lasts", what="a condition", found_s=None, wait_s=2.0)
LEFT = Left(id="1", process="x", verdict="frozen", stuck_at="a/x.py:1 f", lost=0, drill=True)
GOOD = Figures(name="x-stop", detected_s=2.0, recovered_s=3.0, commands=9)


def seen(**fields: Any) -> Figures:
    return msgspec.structs.replace(GOOD, **fields)


def left(**fields: Any) -> Left:
    return msgspec.structs.replace(LEFT, **fields)


def test_a_round_inside_its_bounds_has_no_trouble() -> None:
    assert trouble(FREEZE, GOOD, [LEFT], ["x"]) == []
    assert trouble(LASTS, seen(detected_s=None), [], []) == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"detected_s": 3.01}, "found after 3.01 s; the bound is 3 s"),
        ({"detected_s": None}, "it is not known after how long it was found"),
        ({"recovered_s": 5.01}, "well after 5.01 s; the bound is 5 s"),
        ({"recovered_s": None}, "it is not known after how long it was well"),
        ({"lost": 1}, "1 commands lost"),
        ({"late": 1}, "1 commands not ended in time"),
        ({"doubled": 2}, "2 commands ran twice"),
        ({"agents_disconnected": 3}, "3 agents disconnected"),
        ({"operators_disconnected": 1}, "1 operators disconnected"),
        ({"trouble": ["a thing"]}, "a thing"),
    ],
)
def test_what_is_outside_is_told(fields: dict[str, Any], said: str) -> None:
    assert trouble(FREEZE, seen(**fields), [LEFT], ["x"]) == [said]


@pytest.mark.parametrize(
    ("incidents", "said"),
    [
        ([], "it left no incident"),
        ([left(verdict="stalled")], "the verdict was stalled, not frozen"),
        ([left(drill=False)], "incident 1 is not marked as a drill's"),
        ([left(lost=2)], "incident 1 tells of 2 lost commands"),
        ([left(stuck_at="a/x.py:1 g")], "the evidence says a/x.py:1 g, not f"),
        ([LEFT, left(id="2", process="y")], "an incident of y (frozen) that is not explained: 2"),
    ],
)
def test_an_incident_that_is_not_the_drills_is_told(incidents: list[Left], said: str) -> None:
    assert trouble(FREEZE, GOOD, incidents, ["x"]) == [said]


def test_a_frozen_process_without_a_place_is_told() -> None:
    anywhere = msgspec.structs.replace(FREEZE, guilty="", inside=True)
    assert trouble(anywhere, GOOD, [left(stuck_at=None)], ["x"]) == ["the evidence does not say where it stood"]
    stopped = msgspec.structs.replace(anywhere, inside=False)
    assert trouble(stopped, GOOD, [left(stuck_at=None)], ["x"]) == [], "a signal stops a process anywhere"


def test_a_condition_may_kill_nobody_and_keep_nobody_waiting() -> None:
    assert trouble(LASTS, seen(wait_s=2.1), [], []) == ["accepted after 2.10 s; the bound is 2 s"]
    assert trouble(LASTS, GOOD, [LEFT], ["x"]) == [
        "x was replaced without a reason",
        "an incident of x (frozen) that is not explained: 1",
    ]


def test_whose_connections_may_break_is_not_told_of() -> None:
    promised = msgspec.structs.replace(FREEZE, breaks=(AGENTS, OPERATORS), replaced=("y",))
    assert trouble(promised, seen(agents_disconnected=9, operators_disconnected=9), [LEFT], ["x", "y"]) == []


def test_slack_widens_times_and_nothing_else() -> None:
    late = seen(detected_s=FOUND_S * 2, recovered_s=WELL_S * 2)
    assert trouble(FREEZE, late, [LEFT], ["x"], 2.0) == []
    assert len(trouble(FREEZE, late, [LEFT], ["x"], 1.9)) == 2
    assert trouble(FREEZE, seen(lost=1), [LEFT], ["x"], 100.0) == ["1 commands lost"]


def test_rounds_are_told_by_their_worst_and_their_median() -> None:
    rounds = [
        seen(ok=True, detected_s=1.0, recovered_s=2.0, incident="a", wait_s=1.0),
        seen(
            ok=False,
            detected_s=9.0,
            recovered_s=None,
            incident="b",
            lost=1,
            doubled=1,
            agents_disconnected=2,
            trouble=["late"],
        ),
        seen(ok=True, detected_s=2.0, recovered_s=4.0, incident="c", wait_s=3.0, agents_disconnected=1),
    ]
    row = together(FREEZE, rounds)
    assert (row.ok, row.rounds, row.incident, row.trouble) == (False, 3, "b", ["late"])
    assert (row.detected_s, row.detected_median_s) == (9.0, 2.0)
    assert (row.recovered_s, row.recovered_median_s) == (4.0, 3.0)
    assert (row.lost, row.doubled, row.commands, row.wait_s, row.agents_disconnected) == (1, 1, 27, 3.0, 2)
    assert together(FREEZE, [rounds[0], rounds[2]]).incident == "c"


def test_the_matrix_has_a_line_for_each_row() -> None:
    ok = together(FREEZE, [seen(ok=True, stuck_at="/a/b/x.py:1 f|g")])
    failed = together(LASTS, [seen(ok=False, detected_s=None)])
    lines = markdown([ok, failed]).splitlines()
    assert [line.count("|") for line in lines] == [len(HEADER) + 1] * 4
    assert lines[2].startswith("| `x-stop` | x | 1 | 2.00 s | 3.00 s |")
    assert lines[2].endswith("| x.py:1 f∣g |")
    assert lines[3].startswith("| `lasts` **failed** | a condition | 1 | – |")
    assert len(cells(ok)) == len(HEADER)


def test_every_drill_has_a_name_of_its_own_and_a_reason_for_each_wider_bound() -> None:
    assert len(BY_NAME) == len(DRILLS)
    assert DRILLS[-1].name == "supervisord-kill", "everything after it would meet another installation"
    for drill in DRILLS:
        wider = drill.well_s > WELL_S or drill.found_s is None or drill.found_s > FOUND_S or drill.wait_s is not None
        assert not wider or drill.why, drill.name
        assert bool(drill.process) == bool(drill.verdict), drill.name
    assert {"hub-kill", "hub-stop", "hub-deadlock", "queues-stop", "gateway-kill", "fanout-stop"} <= set(ONE_PROCESS)


def test_the_readme_shows_exactly_the_drills_that_there_are() -> None:
    _, begin, rest = README.partition(BEGIN)
    table, end, _ = rest.partition(END)
    assert begin
    assert end
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == [drill.name for drill in DRILLS]
    assert not any("**failed**" in row for row in rows)
    assert [row.split(" | ")[1] for row in rows] == [drill.what for drill in DRILLS]


@pytest.mark.parametrize(
    ("given", "lost", "late", "doubled", "said"),
    [
        (Given("c", State.SUCCEEDED, ran=1), 0, 0, 0, ""),
        (Given("c", State.SUCCEEDED, ran=0), 1, 0, 0, "command c succeeded and did not run"),
        (Given("c", State.SUCCEEDED, ran=2), 0, 0, 1, ""),
        (Given("c", State.LOST, "rebooted"), 1, 0, 0, "command c is lost rebooted"),
        (Given("c", None, "GET /commands/c was answered 404"), 1, 0, 0, "command c: GET /commands/c was answered 404"),
        (Given("c", State.FAILED, "exit_code", 1), 0, 0, 0, "command c is failed exit_code"),
        *[
            (Given("c", state, ran=1), 0, 1, 0, f"command c has not ended yet: {state}")
            for state in State if not state.final
        ],
    ],
)  # fmt: skip
def test_a_command_that_ends_late_is_late_and_only_what_is_gone_is_lost(
    given: Given, lost: int, late: int, doubled: int, said: str
) -> None:
    """The bug it would catch: a busy machine, on which a command takes longer, counts as one that loses commands."""
    assert outcome([given]) == (1, lost, late, doubled, [said] if said else [])
    good = Given("g", State.SUCCEEDED, ran=1)
    assert outcome([good, given, good])[:4] == (3, lost, late, doubled)
