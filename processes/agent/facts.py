"""What this machine is, and the built-in op `facts`, which prints it: a line a fact. Run as a program, with the
standard library alone.

A fact that cannot be read is left out, whatever its file holds; bytes that are no UTF-8 are replaced.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Callable

OS_RELEASE = ("/etc/os-release", "/usr/lib/os-release")  # os-release(5): the first that is there
FILE_BYTES_MAX = 64 * 1024


def facts() -> dict[str, str]:
    """The machine's facts, by name."""
    sources: dict[str, Callable[[], str]] = {
        "hostname": platform.node,
        "os": os_name,
        "kernel": platform.release,
        "machine": platform.machine,
        "cpus": lambda: str(os.cpu_count() or ""),
        "memory_mib": lambda: str(_memory_kib() // 1024),
        "disk_gib": lambda: f"{shutil.disk_usage('/').total / 2**30:.1f}",
        "disk_free_gib": lambda: f"{shutil.disk_usage('/').free / 2**30:.1f}",
        "uptime_s": lambda: f"{float(_read('/proc/uptime').split()[0]):.0f}",
        "load": lambda: " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "python": platform.python_version,
    }
    found = {}
    for name, source in sources.items():
        with contextlib.suppress(OSError, ValueError, LookupError):
            found[name] = source()
    return {name: fact for name, fact in found.items() if fact}


def os_name() -> str:
    """The operating system's name and version for people; the kernel's, where nothing tells it."""
    for path in OS_RELEASE:
        with contextlib.suppress(OSError):
            fields = dict(line.split("=", 1) for line in _read(path).splitlines() if "=" in line)
            name = fields.get("PRETTY_NAME") or fields.get("NAME") or ""
            with contextlib.suppress(ValueError):  # quotes that are not closed
                name = " ".join(shlex.split(name))
            return name or platform.release()
    return platform.release()


def readable(fact: str) -> str:
    """The fact without halves of characters, which stand for bytes that are no UTF-8: `register` could not be sent."""
    return fact.encode(errors="replace").decode()


def _memory_kib() -> int:
    totals = [line.split()[1] for line in _read("/proc/meminfo").splitlines() if line.startswith("MemTotal:")]
    return int(totals[0])


def _read(path: str) -> str:
    with open(path, "rb") as file:
        return file.read(FILE_BYTES_MAX).decode(errors="replace")


if __name__ == "__main__":
    for name, fact in facts().items():
        sys.stdout.buffer.write(readable(f"{name}: {fact}\n").encode())
