"""Restarts as they are counted from one watchdog to the next."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processes.core.shown.status import (
    CanaryReport,
    CommandsReport,
    FleetReport,
    IncidentsReport,
    Overall,
    ProcessReport,
    Report,
    Verdict,
)
from processes.core.watchdog.restarts import RestartCounts, restarts_before


def report(**rows: tuple[int | None, int]) -> Report:
    """Each process's pid and restarts."""
    processes = [
        ProcessReport(name, "RUNNING", pid, 1.0, restarts, 1, Verdict.ADVANCING)
        for name, (pid, restarts) in rows.items()
    ]
    return Report(Overall.OK, 3, processes, CanaryReport(), FleetReport(), CommandsReport(), IncidentsReport())


LAST = report(hub=(5, 2), queues=(6, 1), watchdog=(7, 0))


@pytest.mark.parametrize(
    ("last", "pids", "before"),
    [
        (LAST, {"hub": 5, "queues": 66, "watchdog": 77}, {"hub": 2, "queues": 2, "watchdog": 1}),
        (LAST, {"hub": 5, "queues": 0, "watchdog": 77}, {"hub": 2, "queues": 2, "watchdog": 1}),  # it is being replaced
        (LAST, {"hub": 55, "queues": 66, "watchdog": 77}, {}),  # another supervisord's children
        (LAST, {"hub": 55, "queues": 66, "watchdog": 7}, {}),  # its own pid, given once more, says nothing
        (report(hub=(None, 3), queues=(6, 0)), {"hub": 8, "queues": 6}, {"hub": 3, "queues": 0}),  # it was stopped
        (report(hub=(None, 3)), {"hub": 0}, {}),
        (None, {"hub": 5}, {}),
    ],
)
def test_counting_goes_on_only_beside_the_same_children(
    last: Report | None, pids: dict[str, int], before: dict[str, int]
) -> None:
    assert restarts_before(last, pids) == before


def test_what_this_watchdog_sees_is_added_and_the_first_look_decides_what_was_before() -> None:
    counts = RestartCounts(LAST)
    assert counts.now({"hub": 5, "queues": 6, "fanout": 0}, {"hub": 1, "queues": 1, "fanout": 0}) == {
        "hub": 2, "queues": 1, "fanout": 0,
    }  # fmt: skip
    later = counts.now({"hub": 50, "queues": 60, "fanout": 9}, {"hub": 3, "queues": 2, "fanout": 1})
    assert later == {"hub": 4, "queues": 2, "fanout": 0}, "the first start is no restart"


@given(st.lists(st.sampled_from(("hub", "queues", "watchdog")), max_size=30))
def test_each_death_is_counted_once_whichever_watchdog_sees_it(deaths: Any) -> None:
    """The bug it would catch: a watchdog's own death makes the counts begin anew, or counts somebody twice."""
    pids = {"hub": 1, "queues": 2, "fanout": 3, "watchdog": 4}  # the fanout lives through all of it
    starts, wanted = dict.fromkeys(pids, 1), dict.fromkeys(pids, 0)
    counts = RestartCounts(None)
    told = report(**{name: (pid, counts.now(pids, starts)[name]) for name, pid in pids.items()})
    for number, name in enumerate(deaths, 10):
        pids[name] = number
        wanted[name] += 1
        starts[name] += 1
        if name == "watchdog":
            counts, starts = RestartCounts(told), dict.fromkeys(pids, 1)
        seen = counts.now(pids, starts)
        assert seen == wanted
        told = report(**{each: (pid, seen[each]) for each, pid in pids.items()})
