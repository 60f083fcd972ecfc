"""A contested identity stands while it is said, and is forgotten later."""

from __future__ import annotations

import os
import time
from pathlib import Path

from processes.adapters.state import contested
from processes.adapters.state.contested import HOSTS_MAX, LATELY_S


def test_what_is_said_stands_until_it_is_old_and_is_then_gone(tmp_path: Path) -> None:
    assert contested.lately(tmp_path) == []
    contested.say(tmp_path, "web1")
    contested.say(tmp_path, "web2")
    assert contested.lately(tmp_path) == ["web1", "web2"]
    old_s = time.time() - LATELY_S - 1
    for host in ("web1", "web2"):
        os.utime(tmp_path / "contested" / host, (old_s, old_s))
    contested.say(tmp_path, "web2")
    assert contested.lately(tmp_path) == ["web2"]
    assert os.listdir(tmp_path / "contested") == ["web2"]


def test_many_are_cut_and_a_disk_that_refuses_is_no_matter(tmp_path: Path) -> None:
    for number in range(HOSTS_MAX + 5):
        contested.say(tmp_path, f"web{number}")
    assert len(contested.lately(tmp_path)) == HOSTS_MAX
    (tmp_path / "file").touch()
    contested.say(tmp_path / "file", "web1")
