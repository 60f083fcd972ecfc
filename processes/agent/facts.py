"""The built-in op `facts`: prints what this machine is, a line a fact. Run as a program, with the standard library
alone.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys


def facts() -> dict[str, str]:
    """The machine's facts, by name."""
    with open("/proc/meminfo") as file:
        memory_kib = int(next(line for line in file if line.startswith("MemTotal:")).split()[1])
    with open("/proc/uptime") as file:
        uptime_s = float(file.read().split()[0])
    disk = shutil.disk_usage("/")
    return {
        "hostname": platform.node(),
        "os": _os_name(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpus": str(os.cpu_count()),
        "memory_mib": str(memory_kib // 1024),
        "disk_gib": f"{disk.total / 2**30:.1f}",
        "disk_free_gib": f"{disk.free / 2**30:.1f}",
        "uptime_s": f"{uptime_s:.0f}",
        "load": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "python": platform.python_version(),
    }


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"


if __name__ == "__main__":
    for name, fact in facts().items():
        sys.stdout.write(f"{name}: {fact}\n")
