"""Run folders and the shim's program: what is written, in which order, and read back."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processes.agent import folder, shim
from processes.agent.folder import SpoolReader
from processes.core.agent.remembered import ReportStatus, SpoolRecord
from processes.core.values import Stream


def run_shim(home: Path, *argv: str, timeout_s: float = 30.0, output: int = 1 << 20, prepared: bool = True) -> int:
    """The shim's exit code, of a run in a folder that is prepared as by an agent."""
    if prepared:
        folder.prepare(home)
    command = [sys.executable, "-I", "-S", str(shim.__file__), str(home), str(timeout_s), str(output), *argv]
    return subprocess.run(command, timeout=30).returncode


def test_shim_that_finds_no_leave_to_start_or_an_exit_runs_nothing(tmp_path: Path) -> None:
    """What was removed from the folder is no leave: `unstarted` is made by the agent, once, and used up by the start."""
    for name in ("empty", "started", "exit", "exit and unstarted"):
        home = tmp_path / name
        home.mkdir()
        for found in name.split(" and "):
            (home / found).write_text("")
        assert run_shim(home, "touch", f"{home}/ran", prepared=False) == shim.EXIT_NOT_RUN
        assert not (home / "ran").exists()


def test_leave_to_start_is_used_up_by_the_start(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert run_shim(home, "sh", "-c", f"echo ran >> {tmp_path}/ran") == 0
    for found in home.iterdir():
        if found.name != "spool":
            found.unlink()
    assert run_shim(home, "sh", "-c", f"echo ran >> {tmp_path}/ran", prepared=False) == shim.EXIT_NOT_RUN
    assert (tmp_path / "ran").read_text() == "ran\n"


def test_program_that_removes_its_run_folder_at_once_runs_once_and_no_end_is_told(tmp_path: Path) -> None:
    """The shim must not conclude from a folder that its program emptied that nothing was begun."""
    home = tmp_path / "home"
    code = run_shim(home, "sh", "-c", f"rm -rf {home}; echo ran >> {tmp_path}/ran")
    assert (tmp_path / "ran").read_text() == "ran\n"
    assert code not in (0, shim.EXIT_NOT_RUN)
    assert not home.exists()


def test_shim_that_finds_the_lock_taken_runs_nothing(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run_shim(tmp_path, "touch", f"{tmp_path}/ran") == shim.EXIT_NOT_RUN
    assert not (tmp_path / "ran").exists()


def test_shim_waits_for_an_agent_that_only_looks_at_the_lock(tmp_path: Path) -> None:
    folder.prepare(tmp_path)
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_SH)
    command = [sys.executable, "-I", "-S", str(shim.__file__), str(tmp_path), "30", "1000", "true"]
    with subprocess.Popen(command) as started:
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline and not _has_open(started.pid, "lock"):
            time.sleep(0.005)
        os.close(lock)
        assert started.wait(20) == 0
    assert folder.facts(tmp_path, False).ended is not None


def _has_open(pid: int, name: str) -> bool:
    for fd in Path(f"/proc/{pid}/fd").glob("*"):
        with contextlib.suppress(OSError):
            if os.readlink(fd).endswith(f"/{name}"):
                return True
    return False


def test_shim_that_finds_a_cancel_says_cancelled_and_runs_nothing(tmp_path: Path) -> None:
    folder.cancel(tmp_path, "SIGTERM")
    assert run_shim(tmp_path, "touch", f"{tmp_path}/ran") == 0
    ended = folder.facts(tmp_path, False).ended
    assert ended is not None
    assert ended.status is ReportStatus.CANCELLED
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "started").exists()


def test_program_that_cannot_be_told_started_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a durable `started` there is no run: here the disk is full for just that file."""
    real = os.fsync
    folder.prepare(tmp_path)

    def full(fd: int) -> None:
        if os.readlink(f"/proc/self/fd/{fd}").endswith("started"):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(fd)

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match="No space left"):
        shim._write_started()
    assert not (tmp_path / "started").exists()


def test_record_of_an_end_that_cannot_be_read_is_an_unknown_outcome(tmp_path: Path) -> None:
    (tmp_path / "exit").write_text("status=nonsense\ncode=x\n")
    ended = folder.facts(tmp_path, False).ended
    assert ended is not None
    assert ended.status is ReportStatus.ERROR
    assert "unknown" in ended.message


def test_message_of_an_end_keeps_its_equal_signs_and_stays_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shim._write_exit("error", 3, "a=b\nstatus=ok")
    ended = folder.facts(tmp_path, False).ended
    assert ended is not None
    assert (ended.status, ended.exit_code, ended.message) == (ReportStatus.ERROR, 3, "a=b status=ok")


def test_ids_never_become_paths(tmp_path: Path) -> None:
    for command_id in ("../../x", "/etc/passwd", "a" * 128):
        assert folder.place(tmp_path, command_id).parent == tmp_path


def spool(home: Path, *chunks: tuple[int, bytes], output: int = 1 << 20) -> None:
    written = shim.Spool(str(home / "spool"), output)
    for stream, chunk in chunks:
        written.take(stream, chunk)
    written.finish()


def test_reader_goes_back_and_forth_and_never_gives_half_a_record(tmp_path: Path) -> None:
    spool(tmp_path, (1, b"a\nb"), (2, b"err\n"), (1, b"c\nlast"))
    reader = SpoolReader(tmp_path)
    everything = [("stdout", "a"), ("stderr", "err"), ("stdout", "bc"), ("stdout", "last")]
    assert [(record.stream.value, record.text) for record in reader.read(0, 1000)] == everything
    assert reader.read(4, 1000) == []
    assert [record.text for record in reader.read(1, 1)] == ["err"]
    assert [record.text for record in reader.read(2, 1000)] == ["bc", "last"]
    assert reader.read(9, 1000) == []
    assert SpoolReader(tmp_path).total() == 4
    with (tmp_path / "spool").open("ab") as file:
        file.write(shim.RECORD.pack(1, 100) + b"half")
    assert SpoolReader(tmp_path).total() == 4
    assert SpoolReader(tmp_path).read(4, 1000) == []


def test_spool_that_is_not_there_has_no_records(tmp_path: Path) -> None:
    assert SpoolReader(tmp_path).read(0, 1000) == []
    assert SpoolReader(tmp_path).total() == 0


PARTS = (
    st.binary(max_size=20_000)
    | st.builds(lambda count: b"7 %\r" * count, st.integers(0, 5000))
    | st.builds(lambda count: b"b" * count + b"\r", st.integers(0, 9000))
)


@given(st.lists(st.lists(PARTS, max_size=4).map(b"".join), max_size=6), st.integers(1, 9000))
def test_spooled_output_is_the_output_whatever_its_bytes_and_chunks(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], cut: int
) -> None:
    """Would catch: a piece lost at a chunk's edge, a character cut in two, a record over the limit. Only the CR of a CR
    LF goes.
    """
    home = tmp_path_factory.mktemp("spool")
    whole = b"".join(line.replace(b"\n", b"") + b"\n" for line in lines)
    spool(home, *((1, whole[at : at + cut]) for at in range(0, len(whole), cut)))
    raw = (home / "spool").read_bytes()
    pieces, at = [], 0
    while at < len(raw):
        _, length = shim.RECORD.unpack_from(raw, at)
        pieces.append(raw[at + shim.RECORD.size : at + shim.RECORD.size + length])
        at += shim.RECORD.size + length
    assert all(len(piece) <= shim.PIECE_BYTES_MAX for piece in pieces)
    assert b"".join(pieces) == b"".join(line.removesuffix(b"\r") for line in whole.split(b"\n"))


def test_reader_gives_every_record_once_in_small_bites(tmp_path: Path) -> None:
    spool(tmp_path, (1, b"".join(b"line %d\n" % number for number in range(5000))))
    reader, records = SpoolReader(tmp_path), list[SpoolRecord]()
    while bite := reader.read(len(records), 3000):
        records += bite
    assert records == [SpoolRecord(Stream.STDOUT, f"line {number}") for number in range(5000)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ""),
        (b"", ""),
        (
            b"Traceback:\n  line\nOSError: [Errno 28] No space left on device\n\n",
            "OSError: [Errno 28] No space left on device",
        ),
        (b"killed before it was started\nB\366se\r\n", "B\ufffdse"),
        (b"x" * 9999, "x" * folder.WORDS_CHARS_MAX),
    ],
)
def test_last_words_of_a_shim_are_the_last_line_that_it_said(tmp_path: Path, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / "shim.err").write_bytes(content)
    assert folder.last_words(tmp_path) == words
