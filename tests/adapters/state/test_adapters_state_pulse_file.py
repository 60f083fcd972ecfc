"""Pulse files between two processes."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from doubles.deadline import WAIT_S

from processes.adapters import proc
from processes.adapters.state import pulse_file
from processes.adapters.state.pulse_file import PulseFile, read, start_ticks
from processes.core.travels import pulse as record
from processes.core.travels.pulse import Pulse, Unreadable

WRITER = """
import sys
from pathlib import Path
from processes.adapters.state.pulse_file import PulseFile
file = PulseFile(Path(sys.argv[1]), "hub")
print(flush=True)
while True:
    turn = file.pulse.turn + 1
    file.pulse.received = file.pulse.stepped = file.pulse.committed = file.pulse.published = file.pulse.delivered = turn
    file.pulse.in_hand = str(turn)
    file.beat()
"""


def test_a_new_file_names_its_process_and_no_turn_yet(tmp_path: Path) -> None:
    PulseFile(tmp_path, "hub").close()
    pulse = read(tmp_path, "hub")
    assert pulse is not None
    assert (pulse.pid, pulse.turn, pulse.written_ns) == (os.getpid(), 0, 0)
    assert pulse.start_ticks == start_ticks(os.getpid())


def test_a_beat_is_a_turn_and_what_is_in_hand_is_none(tmp_path: Path) -> None:
    file = PulseFile(tmp_path, "hub")
    before_ns = time.monotonic_ns()
    file.pulse.backlog = 3
    file.beat()
    pulse = read(tmp_path, "hub")
    assert pulse is not None
    assert (pulse.turn, pulse.backlog, pulse.in_hand) == (1, 3, "")
    assert before_ns <= pulse.written_ns <= time.monotonic_ns()
    file.take("StatusReceived abc")
    pulse = read(tmp_path, "hub")
    assert pulse is not None
    assert (pulse.turn, pulse.in_hand) == (1, "StatusReceived abc")
    assert pulse.in_hand_ns > 0
    file.put_down()
    pulse = read(tmp_path, "hub")
    assert pulse is not None
    assert (pulse.turn, pulse.in_hand, pulse.in_hand_ns) == (1, "", 0)
    file.close()


def test_no_file_is_none_and_garbage_is_said_to_be(tmp_path: Path) -> None:
    assert read(tmp_path, "hub") is None
    (tmp_path / "hub").write_bytes(b"x" * 10)
    with pytest.raises(Unreadable):
        read(tmp_path, "hub")


def test_a_reader_never_sees_half_a_pulse(tmp_path: Path) -> None:
    """Another process writes as fast as it can, all its counters alike; a torn reading would mix two turns."""
    child = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        turns: set[int] = set()
        reads, deadline = 0, time.monotonic() + WAIT_S
        while reads < 20_000 or len(turns) <= 100:  # on a busy machine the two take turns rarely
            assert time.monotonic() < deadline
            reads += 1
            pulse = read(tmp_path, "hub")
            assert pulse is not None
            counters = {pulse.received, pulse.stepped, pulse.committed, pulse.published, pulse.delivered, pulse.turn}
            assert len(counters) == 1
            assert pulse.in_hand == (str(pulse.turn) if pulse.turn else "")
            turns.add(pulse.turn)
    finally:
        child.kill()
        child.communicate()


def test_a_successors_file_replaces_the_predecessors_whole(tmp_path: Path) -> None:
    first = PulseFile(tmp_path, "hub")
    first.beat()
    second = PulseFile(tmp_path, "hub")
    pulse = read(tmp_path, "hub")
    assert pulse is not None
    assert pulse.turn == 0
    first.beat()  # into a file that nobody reads any more
    pulse = read(tmp_path, "hub")
    assert pulse is not None
    assert pulse.turn == 0
    assert [p.name for p in tmp_path.iterdir()] == ["hub"]
    first.close()
    second.close()


@pytest.mark.parametrize("damage", ["unlink", "truncate", "garbage", "stale"])
def test_a_damaged_file_is_whole_again_after_the_next_beats(tmp_path: Path, damage: str) -> None:
    """Beyond the end of a file that was cut off lies SIGBUS, so this test would not end but die."""
    file, path = PulseFile(tmp_path, "hub", mend_s=0.0), tmp_path / "hub"
    file.beat()
    if damage == "unlink":
        path.unlink()
    elif damage == "truncate":
        path.write_bytes(b"")
    elif damage == "garbage":
        path.with_name("other").write_bytes(b"x" * 500)
        path.with_name("other").replace(path)
    else:
        path.with_name("other").write_bytes(record.pack(Pulse(pid=2**22 - 1, start_ticks=1, turn=99), 1) * 2)
        path.with_name("other").replace(path)
    file.beat()
    file.beat()
    pulse = read(tmp_path, "hub")
    assert pulse is not None
    assert (pulse.pid, pulse.turn) == (os.getpid(), 3)
    file.close()


def test_a_file_that_cannot_be_mended_now_costs_nothing_and_is_mended_later(tmp_path: Path) -> None:
    """A full disk: the loop goes on turning."""
    file = PulseFile(tmp_path, "hub", mend_s=0.0)
    (tmp_path / "hub").write_bytes(b"")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        file.beat()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with pytest.raises(Unreadable):
        read(tmp_path, "hub")
    file.beat()
    assert read(tmp_path, "hub") == file.pulse
    file.close()


def test_start_ticks_name_a_process_and_none_when_it_is_gone() -> None:
    child = subprocess.Popen(["sleep", "600"])
    ticks = start_ticks(child.pid)
    assert ticks is not None
    assert proc.alive(child.pid, ticks)
    assert not proc.alive(child.pid, ticks + 1)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not proc.alive(child.pid, ticks)  # a zombie
    child.wait()
    assert pulse_file.start_ticks(child.pid) is None
    assert not proc.alive(child.pid, ticks)


def test_a_process_name_with_spaces_and_brackets_is_no_trouble(tmp_path: Path) -> None:
    program = tmp_path / "a) S 1 (b"
    program.symlink_to("/bin/sleep")
    child = subprocess.Popen([program, "600"])
    try:
        deadline = time.monotonic() + WAIT_S
        while (
            proc.text(child.pid, "comm").strip() != program.name or proc.descriptors(child.pid) != 3
        ):  # the loader has one open
            assert time.monotonic() < deadline
        stat = proc.stat(child.pid)
        assert stat is not None
        assert stat.start_ticks == start_ticks(child.pid)
        assert stat.state in "SR"
        assert proc.scheduled(child.pid) is not None
    finally:
        child.kill()
        child.wait()


def test_a_full_disk_stops_nobody_from_starting_and_the_file_comes_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write

    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    file = PulseFile(tmp_path, "hub")
    file.beat()
    assert read(tmp_path, "hub") is None
    monkeypatch.setattr(os, "write", real)
    deadline = time.monotonic() + WAIT_S
    while read(tmp_path, "hub") is None:
        assert time.monotonic() < deadline
        file.beat()
        time.sleep(0.01)
    file.beat()
    pulse = read(tmp_path, "hub")
    assert pulse is not None
    assert pulse.turn == file.pulse.turn
    file.close()


def test_what_was_refused_is_carried_over_from_pulse_to_pulse(tmp_path: Path) -> None:
    first = PulseFile(tmp_path, "hub")
    turn = first.pulse.turn
    first.refuse(7, 42)
    first.close()
    second = PulseFile(tmp_path, "hub")
    found = read(tmp_path, "hub")  # before it has beaten once
    assert found is not None
    assert (found.refused_epoch, found.refused_sequence, turn) == (7, 42, 0)
    second.refuse(8, 1)
    second.close()
    third = PulseFile(tmp_path, "hub")
    assert (third.pulse.refused_epoch, third.pulse.refused_sequence) == (8, 1)
    third.close()
