"""How often each process was started anew, counted over the lives of several watchdogs. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from processes.core.shown.status import Report

OWN = "watchdog"


class RestartCounts:
    """`last`: what the watchdog before this one reported last, None if nobody knows. Its counts go on here if it
    watched the same supervisord's children, which the first look tells: any of them still lives.
    """

    def __init__(self, last: Report | None) -> None:
        self._last = last
        self._before: dict[str, int] | None = None  # counted by the watchdog before this one; None: not yet known

    def now(self, pids: Mapping[str, int], starts: Mapping[str, int]) -> dict[str, int]:
        """Returns each process's restarts. `pids`: of whoever lives now, 0 if nobody does. `starts`: how many different
        processes this watchdog has seen under each name.
        """
        if self._before is None:
            self._before = restarts_before(self._last, pids)
        return {name: self._before.get(name, 0) + max(0, seen - 1) for name, seen in starts.items()}


def restarts_before(last: Report | None, pids: Mapping[str, int]) -> dict[str, int]:
    """Returns the restarts that the last report counted, and one more for each process that was replaced since. It
    returns nothing if that report is of another supervisord's children.
    """
    if last is None or not any(p.pid and pids.get(p.name) == p.pid for p in last.processes if p.name != OWN):
        return {}
    return {
        process.name: process.restarts + (process.pid is not None and process.pid != pids.get(process.name))
        for process in last.processes
    }
