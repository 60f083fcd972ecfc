"""A contested identity stands while it is said, and is forgotten later."""

from __future__ import annotations

import os
import time
from pathlib import Path

from processes.adapters import contested_file
from processes.adapters.contested_file import HOSTS_MAX, LATELY_S


def test_what_is_said_stands_until_it_is_old_and_is_then_gone(tmp_path: Path) -> None:
    assert contested_file.lately(tmp_path) == []
    contested_file.say(tmp_path, "web1")
    contested_file.say(tmp_path, "web2")
    assert contested_file.lately(tmp_path) == ["web1", "web2"]
    old_s = time.time() - LATELY_S - 1
    for host in ("web1", "web2"):
        os.utime(tmp_path / "contested" / host, (old_s, old_s))
    contested_file.say(tmp_path, "web2")
    assert contested_file.lately(tmp_path) == ["web2"]
    assert os.listdir(tmp_path / "contested") == ["web2"]


def test_many_are_cut_and_a_disk_that_refuses_is_no_matter(tmp_path: Path) -> None:
    for number in range(HOSTS_MAX + 5):
        contested_file.say(tmp_path, f"web{number}")
    assert len(contested_file.lately(tmp_path)) == HOSTS_MAX
    (tmp_path / "file").touch()
    contested_file.say(tmp_path / "file", "web1")
