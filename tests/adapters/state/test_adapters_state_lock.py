"""The lock of one process: who has it, and asking without taking it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from processes.adapters.state import drill_mark, lock
from processes.core.errors import ResourceError


def test_a_lock_is_held_until_its_descriptor_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "lock" / "hub"
    assert not lock.is_held(path)
    fd = lock.hold(path)
    assert lock.is_held(path)
    with pytest.raises(ResourceError, match=f"held by process {os.getpid()}"):
        lock.hold(path)
    os.close(fd)
    assert not lock.is_held(path)
    os.close(lock.hold(path))


def test_a_mark_that_cannot_be_read_is_no_drill_but_a_lock_nobody_can_judge_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("a file where the folder should be")
    assert not drill_mark.is_held(tmp_path)
    with pytest.raises(NotADirectoryError):
        lock.is_held(tmp_path / "lock" / "drill")
