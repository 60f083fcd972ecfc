"""What the operator wants is kept, change by change."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from processes.adapters.settings import load
from processes.adapters.state import desired_state


def test_changes_of_many_verbs_at_once_are_all_kept(tmp_path: Path) -> None:
    """The bug it would catch: two verbs read the same file, and the second overwrites the first one's change."""
    settings = load({"FLEETHUB_STATE": str(tmp_path)})
    names = [f"gateway:{number}" for number in range(40)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda name: desired_state.change(settings, {name: desired_state.STOPPED}), names))
    assert desired_state.read(settings) == dict.fromkeys(names, "stopped")


def test_a_later_change_replaces_the_earlier_one_of_that_process_only(tmp_path: Path) -> None:
    settings = load({"FLEETHUB_STATE": str(tmp_path)})
    desired_state.change(settings, {"hub": desired_state.STOPPED, "agent": desired_state.RUNNING})
    desired_state.change(settings, {"hub": desired_state.RUNNING})
    assert desired_state.read(settings) == {"hub": "running", "agent": "running"}
