"""What is known of followed commands: no record is shown twice or out of order, and no end is taken back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from processes.cli.run import exit_code
from processes.cli.watch import Watched
from processes.core.command import FINAL, State
from processes.core.values import Stream
from processes.core.views import OutputView


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


def test_run_exits_by_the_worst_end() -> None:
    """0 all succeeded, 1 any ended otherwise, 4 none did and some have not ended: every pair of states."""
    for one in State:
        for other in State:
            both = {one, other}
            if both == {State.SUCCEEDED}:
                expected = 0
            elif both & (FINAL - {State.SUCCEEDED}):
                expected = 1
            else:
                expected = 4
            assert exit_code([one, other]) == expected, (one, other)
