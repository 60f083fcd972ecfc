"""What the kernel tells about a process in /proc. Plain reads, some 20 µs each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, NamedTuple

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class Stat(NamedTuple):
    """Fields of /proc/PID/stat. state: R S D T t Z …, as in proc(5). cpu_ticks: of all threads, user and system.

    Units: *_ticks in ticks of SC_CLK_TCK.
    """

    state: str
    start_ticks: int
    cpu_ticks: int
    rss_bytes: int


class Scheduled(NamedTuple):
    """/proc/PID/schedstat: of the main thread only, where each of our loops runs. Units: ns since its start."""

    cpu_ns: int
    run_delay_ns: int  # it could run, and waited for a CPU


def stat(pid: int) -> Stat | None:
    """Return the process's state; None: there is no such process."""
    try:
        text = _read(f"/proc/{pid}/stat")
        fields = text[text.rindex(b")") + 2 :].split()
        return Stat(
            fields[0].decode(), int(fields[19]), int(fields[11]) + int(fields[12]), int(fields[21]) * PAGE_BYTES
        )
    except (OSError, ValueError, IndexError):
        return None


def scheduled(pid: int) -> Scheduled | None:
    """Return how long the main thread ran and waited; None: no such process, or the kernel does not count."""
    try:
        cpu_ns, run_delay_ns, _ = _read(f"/proc/{pid}/schedstat").split()
        return Scheduled(int(cpu_ns), int(run_delay_ns))
    except (OSError, ValueError):
        return None


def runs_any(pid: int) -> bool:
    """Return True if any thread is in state R: on a CPU, or waiting for one. Cost: some 20 µs a thread."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
        for thread in threads:
            text = _read(f"/proc/{pid}/task/{thread}/stat")
            if text[text.rindex(b")") + 2 :][:1] == b"R":
                return True
    except (OSError, ValueError):
        return False  # the process, or a thread of it, has just ended
    return False


def memory_bytes() -> int:
    """Return how much memory this machine has."""
    return os.sysconf("SC_PHYS_PAGES") * PAGE_BYTES


def alive(pid: int, start_ticks: int) -> bool:
    """Return True while the very process that started at `start_ticks` lives. A zombie is dead."""
    found = stat(pid) if pid > 0 else None
    return found is not None and found.start_ticks == start_ticks and found.state not in "ZX"


def text(pid: int, name: str, bytes_max: int = 65536) -> str:
    """Return a file of /proc/PID as text; empty if it cannot be read.

    May hang for a process in state D, so call it on a thread.
    """
    try:
        return _read(f"/proc/{pid}/{name}", bytes_max).decode(errors="replace")
    except OSError:
        return ""


def descriptors(pid: int) -> int | None:
    """Return how many files the process has open; None if we may not see it."""
    try:
        return len(os.listdir(Path(f"/proc/{pid}/fd")))
    except OSError:
        return None


def _read(path: str, bytes_max: int = 4096) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, bytes_max)
    finally:
        os.close(fd)
