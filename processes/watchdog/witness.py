"""What the watchdog sees of each process in one of its turns: pulse, kernel, supervisord's view. Reads, no decisions.

Invariant: a process is named by (pid, start ticks), never by its pid alone; the pidfd held here belongs to exactly that one.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from processes.adapters import proc, pulse_file
from processes.adapters.supervisor import ProcessInfo
from processes.core.pulse import Pulse, Unreadable
from processes.core.stall import Facts

QUIET_S: Final = 0.3  # a pulse older than this makes the kernel be asked at every turn; else once in LOOK_S
LOOK_S: Final = 1.0  # between two looks at CPU time and memory of a process that turns


@dataclass
class Subject:
    """One process of the installation, whoever of its successors lives."""

    name: str
    pid: int = 0  # 0: nobody lives
    start_ticks: int = 0
    pidfd: int = -1
    killed_s: float | None = None  # when this very process was sent SIGKILL, or it was decided to
    starts: int = 0  # different processes seen under this name
    pulse: Pulse | None = None
    unreadable: str = ""
    info: ProcessInfo | None = None
    stat: proc.Stat | None = None
    rss_bytes: int | None = None
    cpu_percent: float | None = None
    cpu_ns: int = -1  # of the main thread; -1 while its pulse is fresh: nobody asks then
    run_delay_ns: int = 0
    looked_s: float = 0.0
    cpu_mark: tuple[float, int] = field(default=(0.0, 0))

    @property
    def alive(self) -> bool:
        """True while the process lives that is named here."""
        return self.pid != 0


class Witness:
    """Follows all processes by their names. `on_death` is called on the loop's thread as soon as the kernel says that one is gone."""

    def __init__(self, folder: Path, names: list[str], on_death: Callable[[Subject, int], None]) -> None:
        self.subjects = {name: Subject(name) for name in names}
        self._folder, self._on_death = folder, on_death
        self._loop = asyncio.get_running_loop()

    def look(self, view: dict[str, ProcessInfo] | None, now_s: float) -> None:
        """Enters what can be seen now. `view`: supervisord's, None while it does not answer."""
        for subject in self.subjects.values():
            try:
                subject.pulse, subject.unreadable = pulse_file.read(self._folder, subject.name), ""
            except Unreadable as error:
                subject.pulse, subject.unreadable = None, str(error)
            except OSError as error:
                subject.pulse, subject.unreadable = None, os.strerror(error.errno or 0)
            subject.info = view.get(subject.name) if view is not None else None
            if not subject.alive:
                self._adopt(subject, now_s)
            if subject.alive:
                self._measure(subject, now_s)

    def facts(self, subject: Subject, wanted: bool, canary_red_s: float, pressed: bool) -> Facts:
        """The subject as the pure core judges it."""
        age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - subject.start_ticks / proc.TICKS_PER_S if subject.alive else 0.0
        return Facts(
            wanted=wanted,
            supervised=subject.info.state if subject.info else "",
            pid=subject.pid,
            start_ticks=subject.start_ticks,
            age_s=age_s,
            pulse=subject.pulse,
            unreadable=subject.unreadable,
            state=subject.stat.state if subject.stat else "",
            cpu_ns=subject.cpu_ns,
            run_delay_ns=subject.run_delay_ns,
            killed_s=subject.killed_s,
            pressed=pressed,
            canary_red_s=canary_red_s,
        )

    def quiet(self, now_s: float) -> bool:
        """True if the pulse of any living process is not fresh."""
        return any(s.alive and (s.pulse is None or now_s - s.pulse.written_ns / 1e9 > QUIET_S) for s in self.subjects.values())

    def close(self) -> None:
        """Lets all pidfds go."""
        for subject in self.subjects.values():
            self._release(subject)

    def _adopt(self, subject: Subject, now_s: float) -> None:
        """Looks for the living process of this name: the pulse knows first, supervisord knows all."""
        pulse, info = subject.pulse, subject.info
        candidates = [pulse.pid] if pulse is not None and proc.alive(pulse.pid, pulse.start_ticks) else []
        if info is not None and info.pid > 0 and info.pid not in candidates:
            candidates.append(info.pid)
        for pid in candidates:
            try:
                pidfd = os.pidfd_open(pid)
            except OSError:
                continue
            stat = proc.stat(pid)
            # read after the pidfd was opened: if this is the right process, then so is the pidfd's
            if stat is None or stat.state in "ZX":
                os.close(pidfd)
                continue
            subject.pid, subject.start_ticks, subject.pidfd = pid, stat.start_ticks, pidfd
            subject.starts += 1
            subject.killed_s, subject.looked_s, subject.cpu_percent = None, 0.0, None
            subject.cpu_mark = (now_s, stat.cpu_ticks)
            self._loop.add_reader(pidfd, self._died, subject)
            return

    def _measure(self, subject: Subject, now_s: float) -> None:
        pulse = subject.pulse
        quiet = pulse is None or pulse.pid != subject.pid or now_s - pulse.written_ns / 1e9 > QUIET_S
        scheduled = proc.scheduled(subject.pid) if quiet else None
        subject.cpu_ns, subject.run_delay_ns = scheduled or (-1, 0)
        if not quiet and now_s - subject.looked_s < LOOK_S:
            return
        stat = proc.stat(subject.pid)
        if stat is None:
            return  # its pidfd will say so
        subject.stat, subject.rss_bytes = stat, stat.rss_bytes
        if now_s - subject.looked_s >= LOOK_S:
            marked_s, ticks = subject.cpu_mark
            if now_s > marked_s + 0.5:
                subject.cpu_percent = round(100 * (stat.cpu_ticks - ticks) / proc.TICKS_PER_S / (now_s - marked_s), 1)
            subject.cpu_mark, subject.looked_s = (now_s, stat.cpu_ticks), now_s

    def _died(self, subject: Subject) -> None:
        pid = subject.pid
        self._release(subject)
        subject.pid, subject.start_ticks, subject.stat = 0, 0, None
        subject.rss_bytes = subject.cpu_percent = None
        self._on_death(subject, pid)

    def _release(self, subject: Subject) -> None:
        if subject.pidfd >= 0:
            self._loop.remove_reader(subject.pidfd)
            os.close(subject.pidfd)
            subject.pidfd = -1


def send(subject: Subject, number: signal.Signals) -> bool:
    """Sends a signal to exactly the process that is named. False: it is gone, or not ours."""
    if subject.pidfd < 0:
        return False
    try:
        signal.pidfd_send_signal(subject.pidfd, number)
    except OSError:
        return False
    return True
