"""What the operator wants is kept, change by change."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from processes.adapters import watchdog_view
from processes.adapters.settings import load
from processes.cli import wishes


def test_wishes_of_many_verbs_at_once_are_all_kept(tmp_path: Path) -> None:
    """The bug it would catch: two verbs read the same file, and the second overwrites the first one's wish."""
    settings = load({"FLEETHUB_STATE": str(tmp_path)})
    names = [f"gateway:{number}" for number in range(40)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda name: wishes.wish(settings, {name: wishes.STOPPED}), names))
    assert watchdog_view.wishes(settings) == dict.fromkeys(names, "stopped")


def test_a_later_wish_replaces_the_earlier_one_of_that_process_only(tmp_path: Path) -> None:
    settings = load({"FLEETHUB_STATE": str(tmp_path)})
    wishes.wish(settings, {"hub": wishes.STOPPED, "agent": wishes.RUNNING})
    wishes.wish(settings, {"hub": wishes.RUNNING})
    assert watchdog_view.wishes(settings) == {"hub": "running", "agent": "running"}
