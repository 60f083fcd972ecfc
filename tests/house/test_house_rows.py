"""Each threat and each fault has tests that exist, or a reason why it has none; and the page says what stands there."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from doubles import hostile, threats_and_faults
from doubles.threats_and_faults import Ran, Row

MACHINES = threats_and_faults.rows("machines")
ROWS = [row for part in threats_and_faults.PARTS for row in threats_and_faults.rows(part)] + MACHINES
TESTS = threats_and_faults.places()
DRILLS = threats_and_faults.drill_names()
FAULTS = set(hostile.FAULTS)


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_a_row_names_tests_that_exist_or_says_why_there_are_none(row: Row) -> None:
    assert list(threats_and_faults.trouble(row, TESTS, DRILLS, FAULTS)) == []


def test_each_row_has_a_name_of_its_own() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS) >= 87


def test_each_drill_and_each_fault_of_the_campaign_belongs_to_a_row() -> None:
    assert {name for row in ROWS for name in row.drills} == DRILLS
    assert {name for row in ROWS for name in row.campaign} == FAULTS


def test_the_page_is_what_the_script_makes_of_the_rows() -> None:
    made = threats_and_faults.page(TESTS)
    assert threats_and_faults.PAGE.read_text() == made, "bin/threats-and-faults makes it anew"
    made = threats_and_faults.machines_page(TESTS)
    assert threats_and_faults.MACHINES.read_text() == made, "bin/threats-and-faults makes it anew"


def test_each_row_of_machines_says_what_it_led_to_before() -> None:
    assert [row.name for row in MACHINES if not row.was] == []


def test_what_is_wrong_with_a_row_is_found() -> None:
    good = Row("a-row", "", "", ["core/values.py"], [next(iter(TESTS))], ["hub-kill"], ["flood"])
    twice = {**TESTS, "test_twice": ["a.py", "b.py"]}

    def found(**changes: object) -> list[str]:
        return list(threats_and_faults.trouble(msgspec.structs.replace(good, **changes), twice, DRILLS, FAULTS))

    assert found() == []
    assert found(tests=["test_of_nothing"]) == ["a-row: test_of_nothing is the name of 0 tests"]
    assert found(tests=["test_twice"]) == ["a-row: test_twice is the name of 2 tests"]
    assert found(drills=["no-drill"]) == ["a-row: there is no drill 'no-drill'"]
    assert found(campaign=["no-fault"]) == ["a-row: there is no fault of bin/hostile 'no-fault'"]
    assert found(where=["nowhere.py"]) == ["a-row: there is no processes/nowhere.py"]
    assert found(where=[]) == ["a-row: it does not say where its defence is"]
    assert found(tests=[]) == ["a-row: it has neither a test nor a reason why there is none"]
    assert found(tests=[], open="it cannot be tried") == []


def test_how_the_tests_of_a_run_ended_is_told_of_each_row(tmp_path: Path) -> None:
    report = tmp_path / "junit.xml"
    report.write_text(
        "<testsuites><testsuite><testcase name='test_a[1]'/><testcase name='test_a[2]'><failure/></testcase>"
        "<testcase name='test_b'/><testcase name='test_c'><skipped/></testcase></testsuite></testsuites>"
    )
    ran = threats_and_faults.results(report)
    assert ran == {"test_a": Ran(2, 1, 0), "test_b": Ran(1, 0, 0), "test_c": Ran(1, 0, 1)}

    def result(*tests: str) -> str:
        return threats_and_faults.result(Row("a-row", "", "", [], list(tests)), ran)

    assert result("test_a", "test_b") == "FAILED: 1 of 3"
    assert result("test_b", "test_c") == "1 passed, 1 skipped"
    assert result("test_b", "test_d") == "1 passed, 1 tests not run"
    assert result("test_d") == "1 tests not run"
    assert result() == "no test"
