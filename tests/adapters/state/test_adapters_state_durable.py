"""Files that are whole whatever fails: every write short, the disk full at any call, a kill between any two calls."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from processes.adapters import failpoint
from processes.adapters.state import canary_file, durable, epoch_file, history_file, revocations, session_files
from processes.agent import folder as agent_folder
from processes.core.shown.status import CanaryFile

TINY_BYTES = 8192  # two pages: what is written beyond them is refused


class Killed(BaseException):
    """The process is killed here: nothing after it is carried out, not even what tidies up."""


class FaultyOs:
    """The `os` module in front of a faulty disk. Calls that touch it are counted; the one numbered `at` strikes.

    `takes`: how many bytes each write takes, in turn. After a kill every call raises: a dead process tidies nothing up.
    """

    COUNTED = ("open", "write", "fsync", "close", "replace", "link", "unlink", "fchmod", "fstat", "pread")

    def __init__(self, takes: list[int], at: int, fault: type[BaseException] | int | None) -> None:
        self._takes = itertools.cycle(takes or [1 << 30])
        self._left, self._fault = at, fault
        self.struck = False
        self._dead = False

    def __getattr__(self, name: str) -> Any:
        found = getattr(os, name)
        if not callable(found) or name not in (*self.COUNTED, "ftruncate"):
            return found
        return lambda *words, **named: self._call(name, found, *words, **named)

    def _call(self, name: str, call: Callable[..., Any], *words: Any, **named: Any) -> Any:
        if self._dead:
            raise Killed
        if name in self.COUNTED and self._fault is not None and not self.struck:
            if self._left == 0:
                self.struck = True
                if isinstance(self._fault, int):
                    if name == "close":
                        call(*words, **named)  # Linux lets the descriptor go, whatever it answers
                    raise OSError(self._fault, os.strerror(self._fault))
                self._dead = True
                raise self._fault
            self._left -= 1
        if name == "write":
            fd, content = words
            return call(fd, bytes(content)[: max(1, next(self._takes))])
        return call(*words, **named)


@contextlib.contextmanager
def faulty(layer: FaultyOs) -> Iterator[None]:
    """durable's own `os` is this one meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(durable, "os", layer)
        yield


takes = st.lists(st.integers(1, 40), max_size=4)
at = st.integers(0, 14)
faults = st.sampled_from([None, errno.ENOSPC, errno.EDQUOT, errno.EIO, Killed])
contents = st.binary(max_size=100)


@given(takes, at, faults, st.none() | contents, contents)
@example([3], 99, None, b"old", b"new content")
def test_a_replaced_file_is_the_old_one_or_the_new_one(
    takes: list[int], at: int, fault: Any, old: bytes | None, new: bytes
) -> None:
    """Would catch: a write that was short, a rename before the content is whole, a temporary file that stays."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        if old is not None:
            path.write_bytes(old)
        layer = FaultyOs(takes, at, fault)
        try:
            with faulty(layer):
                durable.replace(path, new, durable=at % 2 == 0)
        except (OSError, Killed):
            assert layer.struck
            assert (path.read_bytes() if path.exists() else None) in (old, new)
        else:
            assert path.read_bytes() == new
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        if fault is not Killed:
            assert {each.name for each in Path(folder).iterdir()} <= {"file"}


@given(takes, at, faults, st.lists(st.text("abcdef", max_size=20), max_size=4), st.lists(st.text("abcdef", min_size=1)))
@example([1], 99, None, ["a"], ["b", "c"])
def test_appended_lines_are_all_there_or_none(
    takes: list[int], at: int, fault: Any, old: list[str], new: list[str]
) -> None:
    """After a refusal none is there; after a kill whole lines of them, and perhaps a torn one without its newline."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "list"
        path.write_text("".join(f"{line}\n" for line in old))
        layer = FaultyOs(takes, at, fault)
        try:
            with faulty(layer):
                durable.append_lines(path, new)
        except OSError:
            assert path.read_text() == "".join(f"{line}\n" for line in old)
        except Killed:
            whole = path.read_text().split("\n")[:-1]
            assert whole == (old + new)[: len(whole)]
            assert len(whole) >= len(old)
        else:
            assert path.read_text().split("\n")[:-1] == old + new


@given(takes, at, faults, contents)
def test_a_created_file_is_whole_or_not_there(takes: list[int], at: int, fault: Any, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        layer = FaultyOs(takes, at, fault)
        try:
            with faulty(layer):
                durable.create(path, content)
        except (OSError, Killed):
            assert not path.exists() or path.read_bytes() == content
        else:
            assert path.read_bytes() == content


@pytest.mark.parametrize("at", range(7))
def test_a_full_disk_leaves_the_old_file_alone_in_its_folder(at: int, tmp_path: Path) -> None:
    """Wherever it is said: at the opening, at a write, at the sync, at the closing, at the rename."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with faulty(FaultyOs([2], at, errno.ENOSPC)), pytest.raises(OSError, match="No space"):
        durable.replace(path, b"new one")
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_file_that_is_there_is_not_created_again(tmp_path: Path) -> None:
    durable.create(tmp_path / "key", b"first")
    with pytest.raises(FileExistsError):
        durable.create(tmp_path / "key", b"second")
    assert (tmp_path / "key").read_bytes() == b"first"
    assert len(list(tmp_path.iterdir())) == 1


def test_the_mode_is_as_told_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        durable.replace(tmp_path / "shown", b"x", mode=0o644)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "shown").stat().st_mode) == 0o644


def test_a_link_in_the_place_is_replaced_and_not_followed(tmp_path: Path) -> None:
    """Nobody who can put a link into a folder of ours makes us write elsewhere."""
    (tmp_path / "elsewhere").write_bytes(b"untouched")
    (tmp_path / "file").symlink_to(tmp_path / "elsewhere")
    durable.replace(tmp_path / "file", b"ours")
    assert (tmp_path / "elsewhere").read_bytes() == b"untouched"
    assert not (tmp_path / "file").is_symlink()
    (tmp_path / "list").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        durable.append_lines(tmp_path / "list", ["x"])
    assert (tmp_path / "elsewhere").read_bytes() == b"untouched"


def test_many_writers_of_one_path_leave_one_whole_file(tmp_path: Path) -> None:
    """Each writes its own content a hundred times; whatever is read meanwhile is one of them, whole."""
    path = tmp_path / "file"
    every = [bytes([97 + number]) * 3000 for number in range(4)]
    durable.replace(path, every[0], durable=False)

    def write(content: bytes) -> None:
        for _ in range(100):
            durable.replace(path, content, durable=False)

    threads = [threading.Thread(target=write, args=(content,)) for content in every]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert path.read_bytes() in every
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_what_a_killed_writer_left_is_swept_away_once_it_is_old(tmp_path: Path) -> None:
    with faulty(FaultyOs([1], 3, Killed)), pytest.raises(Killed):
        durable.replace(tmp_path / "file", b"content")
    (left,) = tmp_path.iterdir()
    (tmp_path / ".theirs").touch()
    os.utime(tmp_path / ".theirs", (0, 0))
    durable.sweep(tmp_path)
    assert left.exists()  # somebody may still be writing it
    os.utime(left, (0, 0))
    durable.sweep(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == [".theirs"]


def test_a_torn_line_does_not_join_the_next_one(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("whole\nto")
    durable.append_lines(tmp_path / "list", ["next"])
    assert (tmp_path / "list").read_text() == "whole\nto\nnext\n"


def test_a_revocation_that_the_disk_takes_only_half_of_is_said_and_not_there(tmp_path: Path) -> None:
    """The kernel takes some bytes of the hash without an error, then refuses: whoever asked hears of it."""
    path, known, asked = tmp_path / "revoked", "a" * 64, "b" * 64
    revocations.add(path, [known])
    with faulty(ShortThenFull(10)), pytest.raises(OSError, match="No space"):
        revocations.add(path, [asked])
    assert path.read_text() == known + "\n"
    revocations.add(path, [asked])
    assert revocations.read(path) == {known, asked}


class ShortThenFull(FaultyOs):
    """The disk takes so many bytes more, and then no more."""

    def __init__(self, left: int) -> None:
        super().__init__([left], 0, None)
        self._room = left

    def _call(self, name: str, call: Callable[..., Any], *words: Any, **named: Any) -> Any:
        if name == "write":
            if self._room == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fd, content = words
            count = os.write(fd, bytes(content)[: self._room])
            self._room -= count
            return count
        return super()._call(name, call, *words, **named)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of TINY_BYTES. Only root may mount one."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={TINY_BYTES},mode=0700", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(words, capture_output=True, check=False).returncode != 0:
        pytest.skip("no file system may be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_refuses_a_revocation_aloud(tiny_disk: Path) -> None:
    """A real full file system: the list has no room left in its page, and another page is not to be had."""
    path = tiny_disk / "revoked"
    revocations.add(path, [f"{number:064x}" for number in range(62)])  # 4,030 of 4,096 bytes
    before = path.read_bytes()
    (tiny_disk / "ballast").write_bytes(b"x" * 4096)
    with pytest.raises(OSError, match="No space"):
        revocations.add(path, ["c" * 64, "d" * 64])
    assert path.read_bytes() == before
    (tiny_disk / "ballast").unlink()
    revocations.add(path, ["c" * 64, "d" * 64])
    assert {"c" * 64, "d" * 64} < revocations.read(path)


def test_a_full_disk_leaves_what_was_replaced_whole(tiny_disk: Path) -> None:
    """4,000 bytes cannot be replaced by 10,003 on a disk of 8,192: they stay, and nothing else does."""
    path = tiny_disk / "state.json"
    durable.replace(path, b"o" * 4000)
    with pytest.raises(OSError, match="No space"):
        durable.replace(path, b"n" * 10_003)
    assert path.read_bytes() == b"o" * 4000
    assert [each.name for each in tiny_disk.iterdir()] == ["state.json"]


FAMILIES: dict[str, tuple[Callable[[Path], object], Callable[[Path], object], Callable[[Path], object]]] = {
    "revoked": (
        lambda folder: revocations.add(folder / "revoked", ["a" * 64]),
        lambda folder: revocations.add(folder / "revoked", ["b" * 64]),
        lambda folder: revocations.read(folder / "revoked"),
    ),
    "epoch": (
        lambda folder: epoch_file.write(folder / "epoch", 7),
        lambda folder: epoch_file.write(folder / "epoch", 1_000_000),
        lambda folder: epoch_file.read(folder / "epoch"),
    ),
    "history": (
        lambda folder: history_file.write(folder / "history" / "fanout", b"old"),
        lambda folder: history_file.write(folder / "history" / "fanout", b"newer than that"),
        lambda folder: history_file.read(folder / "history" / "fanout"),
    ),
    "canary": (
        lambda folder: canary_file.write(folder / "canary.json", CanaryFile("a", "b")),
        lambda folder: canary_file.write(folder / "canary.json", CanaryFile("c" * 40, "d" * 40)),
        lambda folder: canary_file.read(folder / "canary.json"),
    ),
    "signed_out": (
        lambda folder: session_files.end(folder, "one", 1.0),
        lambda folder: session_files.end(folder, "two", 1.0),
        lambda folder: session_files.ended(folder, 60.0, None),
    ),
    "failpoint": (
        lambda folder: failpoint.arm(folder / "failpoint", "hub.before_begin", 3),
        lambda folder: failpoint.arm(folder / "failpoint", "hub.answered", 12),
        lambda folder: (folder / "failpoint").read_text(),
    ),
    "cancel": (
        lambda folder: agent_folder.cancel(folder, "SIGTERM"),
        lambda folder: agent_folder.cancel(folder, "SIGKILL"),
        lambda folder: (folder / "cancel").read_text(),
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("room", range(3))
def test_whoever_writes_on_a_full_disk_hears_of_it_and_the_old_stays(family: str, room: int, tmp_path: Path) -> None:
    """Every family of files: the disk takes a few bytes of the new content, and then refuses."""
    first, second, read = FAMILIES[family]
    first(tmp_path)
    before = read(tmp_path)
    layer = FaultyOs([1 + room], 1 + room, errno.ENOSPC)
    with faulty(layer), pytest.raises(OSError, match="No space"):
        second(tmp_path)
    assert read(tmp_path) == before
    second(tmp_path)
    assert read(tmp_path) != before
