"""What bin/bench tells of fleet runs: each command is ended and written. How much it costs is no business of a test."""

from __future__ import annotations

from bench import runs


def test_all_commands_of_a_run_are_ended_and_written() -> None:
    found = runs.measured(3)
    assert (found["hosts"], found["state"]) == (3, "succeeded")
    assert found["ended"]["kb"] > 0
    assert found["start"]["kb"] > 0
