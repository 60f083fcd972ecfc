"""Why a process cannot go on: its word is there until it ends in order, and on no account keeps it from ending."""

from __future__ import annotations

import os
from pathlib import Path

from processes.adapters.state import gave_up


def test_the_last_word_is_told_for_a_while_and_until_it_is_forgotten(tmp_path: Path) -> None:
    assert gave_up.said(tmp_path, "hub") == ""
    gave_up.say(tmp_path, "hub", "the first")
    gave_up.say(tmp_path, "hub", "no room:\n  make some\x00")
    assert gave_up.said(tmp_path, "hub") == "no room: make some\x00"
    assert gave_up.said(tmp_path, "gateway:1") == ""
    place = tmp_path / "gave_up" / "hub"
    assert place.stat().st_mode & 0o777 == 0o600
    long_ago = place.stat().st_mtime - gave_up.LATELY_S - 1
    os.utime(place, (long_ago, long_ago))
    assert gave_up.said(tmp_path, "hub") == ""
    gave_up.say(tmp_path, "hub", "again")
    gave_up.forget(tmp_path, "hub")
    gave_up.forget(tmp_path, "hub")
    assert gave_up.said(tmp_path, "hub") == ""


def test_nothing_is_raised_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("no folder")
    gave_up.say(tmp_path / "run", "hub", "why")
    gave_up.forget(tmp_path / "run", "hub")
    assert gave_up.said(tmp_path / "run", "hub") == ""
