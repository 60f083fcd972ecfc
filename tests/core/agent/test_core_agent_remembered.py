"""What a run folder means, how long a command may wait, when an agent comes back."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processes.core.agent.flow import WINDOW_BYTES_MAX, Flow
from processes.core.agent.reconnect import after_close_s, after_refusal_s, backoff_s
from processes.core.agent.remembered import (
    Ended,
    Folder,
    FolderVerdict,
    JournalRow,
    JournalState,
    ReportStatus,
    Started,
    judge,
)
from processes.core.values import Now, Unknown

HERE, BEFORE, EMPTIED = Started(7, 1, "boot"), Started(7, 1, "another"), Started(0, 0, "")
END = Ended(ReportStatus.OK, 0)


@pytest.mark.parametrize(
    ("lives", "started", "unstarted", "ended"),
    list(itertools.product([False, True], [None, HERE, BEFORE, EMPTIED], [False, True], [None, END])),
)
def test_every_run_folder_has_one_meaning(
    lives: bool, started: Started | None, unstarted: bool, ended: Ended | None
) -> None:
    run, outcome = judge(Folder(lives, started, unstarted, ended), "boot")
    if ended is not None:
        assert (run, outcome) == (FolderVerdict.ENDED, ended)
    elif lives:
        assert run is (FolderVerdict.LAUNCHING if started is None else FolderVerdict.RUNNING)
    elif started is None and unstarted:
        assert run is FolderVerdict.UNSTARTED
    else:
        assert run is FolderVerdict.ENDED
        assert outcome is not None
        assert outcome.status is ReportStatus.ERROR
        assert outcome.reason in set(Unknown)
        words = "removed or emptied" if started is None else "rebooted" if started is BEFORE else "shim died"
        assert words in outcome.message


def test_nothing_that_vanishes_from_a_folder_makes_it_runnable() -> None:
    """Whatever subset of a folder's content is removed: only the file that says so proves that nothing ran."""
    for lives, started in itertools.product([False, True], [None, HERE, BEFORE, EMPTIED]):
        assert judge(Folder(lives, started, False, None), "boot")[0] is not FolderVerdict.UNSTARTED


def test_time_left_runs_on_the_boot_clock_and_across_a_reboot_on_a_clamped_wall_clock() -> None:
    row = JournalRow("c", "op", JournalState.ADMITTED, "boot", 100.0, 5000.0, 60.0)
    assert row.left_s(Now(130.0, 1e9), "boot") == 30.0
    assert row.left_s(Now(1.0, 5040.0), "next") == 20.0
    assert row.left_s(Now(1.0, 1.0), "next") == 60.0  # a wall clock set back gives no more than it had
    assert row.left_s(Now(1.0, 1e9), "next") == 0.0
    assert JournalRow("c", "op", JournalState.ADMITTED, "boot", 0, 0, None).left_s(Now(1e9, 1e9), "boot") is None


@pytest.mark.parametrize(
    ("code", "failures", "low_s", "high_s"),
    [
        (None, 0, 0, 1), (1006, 0, 0, 1), (1006, 3, 0, 8), (1006, 99, 0, 60), (1001, 0, 0, 1), (1012, 4, 0, 1), (1012,
        6, 0, 60),
        (4000, 0, 0, 1), (4008, 2, 0, 1), (4499, 2, 0, 1), (4409, 0, 30, 60), (4501, 0, 60, 60), (4503, 9, 60, 60),
        (4999, 0, 60, 60),
        (1008, 2, 30, 60), (1009, 0, 0, 1), (5000, 1, 0, 2),
    ],
)  # fmt: skip
def test_close_code_decides_when_to_come_back(code: int | None, failures: int, low_s: float, high_s: float) -> None:
    assert after_close_s(code, failures, 0.0) == low_s
    assert after_close_s(code, failures, 1.0) == high_s


@pytest.mark.parametrize(
    ("status", "retry_after_s", "low_s", "high_s"),
    [
        (401, None, 60, 60),
        (401, 1, 60, 60),
        (503, 5, 5, 7),
        (503, 1e9, 60, 62),
        (503, -1, 0, 2),
        (503, None, 0, 2),
        (404, None, 0, 2),
    ],
)
def test_refusal_decides_when_to_come_back(
    status: int, retry_after_s: float | None, low_s: float, high_s: float
) -> None:
    assert after_refusal_s(status, retry_after_s, 1, 0.0) == low_s
    assert after_refusal_s(status, retry_after_s, 1, 1.0) == high_s


def test_backoff_is_full_jitter_capped_at_a_minute() -> None:
    assert [backoff_s(failures, 1.0) for failures in (0, 1, 2, 5, 6, 10**6)] == [1, 2, 4, 32, 60, 60]
    assert backoff_s(5, 0.25) == 8.0


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("sent"), st.integers(0, 9000)),
            st.tuples(st.just("ack"), st.integers(0, 40)),
            st.tuples(st.just("rewind"), st.just(0)),
        )
    )
)
def test_window_always_equals_what_is_between_acked_and_next(program: list[tuple[str, int]]) -> None:
    """Would catch: bytes leaked by an ack or a rewind, until nothing may be sent any more."""
    flow = Flow()
    costs: dict[int, int] = {}
    for move, number in program:
        before = flow.in_flight_bytes
        if move == "sent":
            offset = flow.sent(number, 0.0)
            costs[offset] = flow.in_flight_bytes - before
        elif move == "ack":
            flow.acknowledged(number, 0.0)
        else:
            flow.rewind()
        assert 0 <= flow.acked <= flow.next
        assert flow.in_flight_bytes == sum(costs[offset] for offset in range(flow.acked, flow.next))
        assert flow.room_bytes() == max(0, WINDOW_BYTES_MAX - flow.in_flight_bytes)
