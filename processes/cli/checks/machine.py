"""Checks of `doctor` on the machine: ports, limits, disk, certificate, clock, versions, systemd."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

from processes.adapters import own_user
from processes.adapters.settings import Settings, reachable
from processes.cli.checks.finding import Finding, Level
from processes.cli.machine import descriptors, own_processes, supervision
from processes.cli.machine import ports as both_ports
from processes.cli.terminal.failure import Failure
from processes.core.shown.certificate import NoCertificate, expires_wall_s

FILES_GOOD: Final = 65536  # for some ten thousand agents
DISK_BYTES_BAD: Final = 64 << 20
DISK_BYTES_LOW: Final = 1 << 30
SQLITE_MIN: Final = (3, 38, 0)  # JSON functions are built in
CONNECT_S_MAX: Final = 0.3
SYSTEMCTL_S_MAX: Final = 0.5
_TIME_ERROR: Final = 5  # adjtimex(2): the clock is not synchronized
_TIMEX_BYTES: Final = 512  # struct timex has 208


def ports(settings: Settings, deep: bool) -> Iterator[Finding]:
    """Check that both ports answer while the installation runs, and that both are free while it does not."""
    listens = (settings.file.operators.listen, settings.file.agents.listen)
    running = own_processes.supervisord_of(settings)
    if running is None and not supervision.somebody_answers(settings):
        try:
            both_ports.check(settings.file)
            yield Finding("ports", Level.OK, f"{listens[0]} and {listens[1]} are free")
        except Failure as failure:
            yield Finding("ports", Level.BAD, failure.message, failure.advice)
        return
    for name, listen in zip(("OPERATORS", "AGENTS"), listens, strict=True):
        started_with = running.environ if running is not None else {}
        listen = started_with.get(f"FLEETHUB_{name}_LISTEN", listen)  # noqa: PLW2901
        try:
            socket.create_connection(reachable(listen), CONNECT_S_MAX).close()
            yield Finding("ports", Level.OK, f"{name.lower()} can connect to {listen}")
        except OSError as error:
            yield Finding(
                "ports",
                Level.BAD,
                f"{name.lower()} cannot connect to {listen}: {error}",
                "fleethub status says who is unwell.",
            )


def limits(settings: Settings, deep: bool) -> Iterator[Finding]:
    """Check that there are enough descriptors, and that the second witness may read the stacks of frozen processes."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    good = hard == resource.RLIM_INFINITY or hard >= FILES_GOOD
    some = f"{hard}: enough for some {max(0, hard - 1024)} agents a gateway; {FILES_GOOD} is good for 10,000 hosts"
    try:
        descriptors.check()
        yield Finding("descriptors", Level.OK, "enough for 10,000 hosts" if good else some)
    except Failure as failure:
        yield Finding("descriptors", Level.BAD, failure.message, failure.advice)
    scope = _read("/proc/sys/kernel/yama/ptrace_scope")
    if scope not in ("", "0", "1") and os.geteuid() != 0:
        yield Finding(
            "ptrace", Level.WARNING,
            f"kernel.yama.ptrace_scope is {scope}: incidents will lack the second witness's stacks",
            "sysctl kernel.yama.ptrace_scope=1",
        )  # fmt: skip


def given_up(settings: Settings, deep: bool) -> Iterator[Finding]:
    """Check that the processes that strangers reach have neither root's capabilities nor its files."""
    for kind in own_user.KINDS if os.geteuid() == 0 else ():
        name = f"rights of {kind}"
        if not own_user.is_wanted(settings, kind):
            told = f"{kind}s run as root, as {kind}.own_user says, though without its capabilities"
            yield Finding(name, Level.OK, told)
        elif why := own_user.hindrances(settings, kind):
            yield Finding(
                name,
                Level.WARNING,
                f"{kind}s run as root, though without its capabilities: {'; '.join(why)}",
                "Install fleethub, and the Python that it runs on, where every user can read them; in a container "
                "grant what is named; have the folders above the state folder passed by all (chmod o+x). Or run "
                f"fleethub as a user of its own (fleethub systemd-unit). Then restart {kind}.",
            )
        else:
            told = f"{kind}s run as user {own_user.of(settings.state, kind)}, without root's capabilities"
            yield Finding(name, Level.OK, told)


def disk(settings: Settings, deep: bool, *, bytes_bad: int = DISK_BYTES_BAD) -> Iterator[Finding]:
    """Check that the database has room, on a file system on which SQLite's locks work."""
    place = next(each for each in (settings.state, *settings.state.parents) if each.exists())
    free = shutil.disk_usage(place).free
    files = os.statvfs(place)
    told = f"{free >> 20} MiB free at {place}"
    if free < bytes_bad or (files.f_files and files.f_favail < 100):
        yield Finding(
            "disk",
            Level.BAD,
            f"{told}, {files.f_favail} files",
            "Make room: with a full disk commands are refused (storage_blocked).",
        )
    elif free < DISK_BYTES_LOW:
        yield Finding("disk", Level.WARNING, told, "Make room, or lower retention.output_mb.")
    else:
        yield Finding("disk", Level.OK, told)
    kind = _filesystem(place)
    if kind.startswith(("nfs", "cifs", "smb", "fuse.sshfs", "9p")):
        yield Finding(
            "filesystem",
            Level.BAD,
            f"{place} is on {kind}, where SQLite's locks cannot be relied on",
            "Choose a local disk.",
        )


def certificate(settings: Settings, deep: bool) -> Iterator[Finding]:
    """Check that the certificate does not expire soon."""
    path = settings.file.tls.certificate
    if not path:
        return
    advice = "Renew it: new connections get the new one without a restart."
    try:
        left_days = (expires_wall_s(Path(path).read_text("ascii", "replace")) - time.time()) / 86400
    except (OSError, NoCertificate) as error:
        yield Finding("certificate", Level.BAD, f"{path}: {error}", advice)
        return
    level = Level.BAD if left_days < 3 else Level.WARNING if left_days < 14 else Level.OK
    yield Finding("certificate", level, f"{path} is good for {left_days:.0f} days", "" if level is Level.OK else advice)


def clock(settings: Settings, deep: bool) -> Iterator[Finding]:
    """Check that something keeps the clock right, and that it has not gone back."""
    newest = max((path.stat().st_mtime for path in (settings.database, settings.report) if path.exists()), default=0.0)
    if newest > time.time() + 60:
        ahead_s = newest - time.time()
        yield Finding(
            "clock",
            Level.BAD,
            f"it is {ahead_s:.0f} s behind what was written last",
            "Set it right; then fleethub restart.",
        )
        return
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)  # modes 0: only reads the clock's state
    if ctypes.CDLL(None).adjtimex(buffer) == _TIME_ERROR:
        yield Finding(
            "clock", Level.WARNING,
            "the kernel says that nothing keeps it right: times shown may be wrong (deadlines are not)",
            "Run chrony or systemd-timesyncd, unless the host of this virtual machine keeps its clock.",
        )  # fmt: skip
    else:
        yield Finding("clock", Level.OK, "kept right")


def versions(settings: Settings, deep: bool) -> Iterator[Finding]:
    """Check that Python's SQLite is new enough, and that this is Linux."""
    python, sqlite, kernel = platform.python_version(), sqlite3.sqlite_version, platform.release()
    told = f"fleethub {metadata.version('fleethub')}, Python {python}, SQLite {sqlite}, Linux {kernel}"
    if sqlite3.sqlite_version_info < SQLITE_MIN:
        yield Finding(
            "versions",
            Level.BAD,
            told,
            f"SQLite {'.'.join(map(str, SQLITE_MIN))} or newer is needed: take a newer Python.",
        )
    elif not sys.platform.startswith("linux"):
        yield Finding("versions", Level.BAD, f"{told}, {sys.platform}", "fleethub needs Linux.")
    else:
        yield Finding("versions", Level.OK, told)


def systemd(settings: Settings, deep: bool) -> Iterator[Finding]:
    """Check whether systemd starts the installation at boot."""
    if not Path("/run/systemd/system").exists():
        yield Finding(
            "systemd",
            Level.OK,
            "this machine is not run by systemd: fleethub comes back after a boot only if something starts it",
        )
        return
    words = ["systemctl", "is-enabled", "fleethub.service"]
    try:
        done = subprocess.run(  # noqa: S603
            words, capture_output=True, text=True, errors="replace", timeout=SYSTEMCTL_S_MAX, check=False
        )
        said = done.stdout.strip() or "not known to systemd"
    except (OSError, subprocess.TimeoutExpired) as error:
        said = f"systemctl does not answer: {error}"
    if said == "enabled":
        yield Finding("systemd", Level.OK, "fleethub.service is enabled")
    else:
        yield Finding(
            "systemd",
            Level.OK,
            f"fleethub.service is {said}: after a boot somebody must type fleethub up (see fleethub systemd-unit)",
        )


def _filesystem(place: Path) -> str:
    device = place.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in _read("/proc/self/mountinfo").splitlines():
        words = line.split()
        if words[2] == wanted:
            return words[words.index("-") + 1]
    return ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
