"""What is known of followed commands: no record is shown twice or out of order, and no end is taken back."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest
from doubles.api_server import active, fleet_run, part
from hypothesis import given
from hypothesis import strategies as st

from processes.cli.verbs.run import exit_code
from processes.client.watched import Watched, WatchedRun
from processes.core.records.command import FINAL, State
from processes.core.records.run import Part, RunView
from processes.core.shown.views import OutputView
from processes.core.values import Stream


def command() -> Watched:
    return Watched("c1", "web1", "pull", State.SENT)


def record(offset: int) -> OutputView:
    return OutputView(offset, Stream.STDOUT, f"line {offset}")


@given(st.lists(st.lists(st.integers(0, 12), max_size=6), max_size=20))
def test_records_in_any_order_are_shown_once_and_in_order(batches: list[list[int]]) -> None:
    """The bug it would catch: a line lost or doubled when the WebSocket and the API tell the same."""
    each = command()
    shown = [found.offset for batch in batches for found in each.take([record(offset) for offset in batch])]
    assert shown == list(range(len(shown)))
    assert each.next_offset == len(shown)


def test_an_older_message_does_not_take_back_an_end() -> None:
    each = command()
    each.learn({"state": "failed", "exit_code": 3, "reason": "exit"})
    each.learn({"state": "running"})
    assert (each.state, each.exit_code, each.reason) == (State.FAILED, 3, "exit")


def test_a_lost_command_may_still_succeed() -> None:
    each = command()
    each.learn({"state": "lost"})
    each.learn({"state": "succeeded", "exit_code": 0})
    assert each.state is State.SUCCEEDED


def view(*hosts: dict[str, Any], state: str = "running") -> RunView:
    return msgspec.convert(fleet_run(*hosts, state=state), RunView)


@pytest.mark.parametrize("one", list(Part))
@pytest.mark.parametrize("other", list(Part))
def test_run_exits_by_the_worst_end(one: Part, other: Part) -> None:
    """0 all succeeded, 1 any ended otherwise or was not attempted, 4 none did and some have not ended."""
    both = {one, other}
    expected = 1 if both & {Part.FAILED, Part.NOT_ATTEMPTED} else 0 if both == {Part.SUCCEEDED} else 4
    assert exit_code(view(part("a", one), part("b", other)), []) == expected


@pytest.mark.parametrize("state", list(State))
def test_a_command_that_ended_badly_counts_before_the_run_has_looked_at_it(state: State) -> None:
    bad = state in FINAL - {State.SUCCEEDED}
    assert exit_code(view(active("a", "c1")), [State.SUCCEEDED, state]) == (1 if bad else 4)


def test_an_older_view_does_not_take_back_the_end_of_a_run() -> None:
    fleet = WatchedRun(view(part("a", "succeeded", 1, "c2"), state="succeeded"))
    fleet.learn(view(active("a", "c2", 1)))
    assert fleet.over


@pytest.mark.parametrize(
    ("found", "made"),
    [
        (part("a", "pending"), 0),
        (active("a", "c1"), 1),
        (active("a", "c2", 1), 2),
        (part("a", "failed", 1, None, "host_removed"), 1),
        (part("a", "failed", 0, None, "too_many_in_all"), 0),
        (part("a", "succeeded", 1, "c2"), 2),
    ],
)
def test_a_host_has_commands_to_be_seen_until_as_many_were_seen_as_were_made(found: dict[str, Any], made: int) -> None:
    """The bug it would catch: a step so quick that nobody looked at it meanwhile is never shown."""
    now = view(found)
    fleet = WatchedRun(now)
    for seen in range(3):
        assert [each.host for each in fleet.unseen(now, Counter(a=seen))] == (["a"] if seen < made else [])
    fleet.searched(now.hosts[0])
    assert fleet.unseen(now, Counter()) == [], "what was searched for is not searched for again"
