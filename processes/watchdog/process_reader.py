"""Reads what there is to know of each process in a turn: its pulse, the kernel's figures, supervisord's answer. Decides
nothing.

Invariant: a process is named by (pid, start ticks), never by its pid alone; the pidfd held here belongs to exactly that
process.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from processes.adapters import cgroup, own_user, proc
from processes.adapters.state import gave_up, pulse_file
from processes.adapters.supervisor import Supervised
from processes.core.travels.pulse import Pulse, Unreadable
from processes.core.watchdog.verdict import ProcessFacts, Spent

# with an older pulse, or with a backlog, the kernel is asked about the process at every turn; else once in LOOK_S
QUIET_S: Final = 0.4
LOOK_S: Final = 1.0  # between two looks at CPU time and memory of a process that turns
GROUP_S: Final = 10.0  # between two looks at which control group a process is in
MEMORY_SHARE: Final = 0.5  # of the machine's memory: no process may hold more, whatever is configured


@dataclass
class Subject:
    """One process of the installation by its name, and the living process that bears it now."""

    name: str
    pid: int = 0  # 0: no process lives
    start_ticks: int = 0
    pidfd: int = -1
    killed_s: float | None = None  # when this very process was sent SIGKILL, or the decision to do so was made
    starts: int = 0  # different processes seen under this name
    pulse: Pulse | None = None
    unreadable: str = ""
    supervised: Supervised | None = None
    stat: proc.Stat | None = None
    rss_bytes: int | None = None
    rss_bytes_max: int = 0  # 0: no limit
    cpu_percent: float | None = None
    spent: Spent | None = None  # None: not asked for, since it turns and has nothing to do
    runnable: bool = False
    group: tuple[str, ...] = ()
    group_s: float = -GROUP_S
    cpu_mark: tuple[float, int] = field(default=(0.0, 0))

    @property
    def alive(self) -> bool:
        """True while the process lives."""
        return self.pid != 0


class ProcessReader:
    """Follows all processes by their names. `on_death` is called on the loop's thread when one dies."""

    def __init__(self, folder: Path, limits: Mapping[str, int], on_death: Callable[[Subject, int], None]) -> None:
        """`limits`: how many bytes of memory each process may hold; 0: as many as it wants."""
        most = int(proc.memory_bytes() * MEMORY_SHARE)
        self.subjects = {name: Subject(name, rss_bytes_max=min(limit, most)) for name, limit in limits.items()}
        self._folder, self._on_death = folder, on_death
        self._groups = cgroup.Groups()
        self._loop = asyncio.get_running_loop()

    def look(self, supervised: dict[str, Supervised] | None, now_s: float) -> None:
        """Read pulses and figures anew. `supervised`: supervisord's last answer; None while it does not answer."""
        self._groups.begin_round()
        for subject in self.subjects.values():
            try:
                subject.pulse, subject.unreadable = pulse_file.read(self._folder, subject.name), ""
            except Unreadable as error:
                subject.pulse, subject.unreadable = None, str(error)
            except OSError as error:
                subject.pulse, subject.unreadable = None, os.strerror(error.errno or 0)
            subject.supervised = supervised.get(subject.name) if supervised is not None else None
            if not subject.alive:
                self._adopt(subject, now_s)
            if subject.alive:
                self._measure(subject, now_s)

    def facts(self, subject: Subject, wanted: bool, untouched_since_s: float | None, pressed: bool) -> ProcessFacts:
        """The subject as the pure core judges it."""
        pulse = subject.pulse
        has_turned = subject.alive and pulse is not None and pulse.pid == subject.pid and pulse.turn > 0
        age_s = (
            time.clock_gettime(time.CLOCK_BOOTTIME) - subject.start_ticks / proc.TICKS_PER_S if subject.alive else 0.0
        )
        return ProcessFacts(
            wanted=wanted,
            supervised=subject.supervised.state if subject.supervised else "",
            pid=subject.pid,
            start_ticks=subject.start_ticks,
            age_s=age_s,
            pulse=subject.pulse,
            unreadable=subject.unreadable,
            state=subject.stat.state if subject.stat else "",
            runnable=subject.runnable,
            spent=subject.spent,
            rss_bytes=subject.rss_bytes or 0,
            rss_bytes_max=subject.rss_bytes_max,
            killed_s=subject.killed_s,
            pressed=pressed,
            untouched_since_s=untouched_since_s,
            gave_up=gave_up.said(self._folder.parent, subject.name) if wanted and not has_turned else "",
        )

    def quiet(self, now_s: float) -> bool:
        """Return whether the pulse of any living process is older than QUIET_S or missing, or tells of connections that
        the process does not accept.
        """
        return any(
            s.alive and (s.pulse is None or s.pulse.unaccepted_ns or now_s - s.pulse.written_ns / 1e9 > QUIET_S)
            for s in self.subjects.values()
        )

    def close(self) -> None:
        """Close all pidfds."""
        for subject in self.subjects.values():
            self._release(subject)

    def _adopt(self, subject: Subject, now_s: float) -> None:
        """Look for the living process of this name: the pulse tells of it first, supervisord knows every one."""
        pulse, known = subject.pulse, subject.supervised
        candidates = [pulse.pid] if pulse is not None and proc.alive(pulse.pid, pulse.start_ticks) else []
        if known is not None and known.pid > 0 and known.pid not in candidates:
            candidates.append(known.pid)
        for pid in candidates:
            try:
                pidfd = os.pidfd_open(pid)
            except OSError:
                continue
            stat = proc.stat(pid)
            # read after the pidfd was opened: if this is the right process, then so is the pidfd's
            named_by_itself = known is None or pid != known.pid
            if stat is None or stat.state in "ZX" or (named_by_itself and not self._may_be(subject, pid)):
                os.close(pidfd)
                continue
            subject.pid, subject.start_ticks, subject.pidfd = pid, stat.start_ticks, pidfd
            subject.starts += 1
            subject.killed_s, subject.cpu_percent, subject.group_s = None, None, -GROUP_S
            subject.cpu_mark = (now_s, stat.cpu_ticks)
            self._loop.add_reader(pidfd, self._died, subject)
            return

    def _may_be(self, subject: Subject, pid: int) -> bool:
        """Return whether a pulse may name this process. A lesser user's pulse names none of another user: what it names
        is watched, and killed.
        """
        kind = subject.name.partition(":")[0]
        if kind not in own_user.KINDS:
            return True
        try:
            user = own_user.let_in(self._folder.parent, kind)
            return user is None or os.stat(f"/proc/{pid}").st_uid == user
        except OSError:
            return False

    def _measure(self, subject: Subject, now_s: float) -> None:
        pulse = subject.pulse
        silent = pulse is None or pulse.pid != subject.pid or now_s - pulse.written_ns / 1e9 > QUIET_S
        asked = silent or (pulse is not None and (pulse.backlog > 0 or pulse.unaccepted_ns > 0))
        marked_s, ticks = subject.cpu_mark
        subject.spent = None
        if not asked and now_s < marked_s + LOOK_S:
            return
        stat = proc.stat(subject.pid)
        if stat is None:
            return  # it died: its pidfd will tell
        subject.stat, subject.rss_bytes = stat, stat.rss_bytes
        if now_s >= marked_s + LOOK_S:
            subject.cpu_percent = round(100 * (stat.cpu_ticks - ticks) / proc.TICKS_PER_S / (now_s - marked_s), 1)
            subject.cpu_mark = (now_s, stat.cpu_ticks)
        if asked:
            subject.spent = self._spent(subject, stat, now_s)
            subject.runnable = stat.state == "R" or (silent and proc.runs_any(subject.pid))

    def _spent(self, subject: Subject, stat: proc.Stat, now_s: float) -> Spent:
        if now_s - subject.group_s >= GROUP_S:
            subject.group, subject.group_s = self._groups.of(subject.pid), now_s
        scheduled, used_s = proc.scheduled(subject.pid), stat.cpu_ticks / proc.TICKS_PER_S
        ran_s, waited_s = (scheduled.cpu_ns / 1e9, scheduled.run_delay_ns / 1e9) if scheduled else (used_s, 0.0)
        return Spent(ran_s, waited_s, used_s, *self._groups.held(subject.group))

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
    """Send a signal to exactly this process. Return False if it is gone or not ours."""
    if subject.pidfd < 0:
        return False
    try:
        signal.pidfd_send_signal(subject.pidfd, number)
    except OSError:
        return False
    return True
