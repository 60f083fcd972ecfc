"""Failpoints: named places at which a process kills itself if a drill asked for it. Without drills they do nothing.

A drill arms a failpoint by writing `NAME COUNT` into the process's file (`arm`): FLEETHUB_STATE/run/failpoint for the
hub, STATE/failpoint for an agent and its shims. The process that reaches the place for the COUNT-th time removes the
file, so that the failpoint strikes once, and then kills itself as SIGKILL from outside would: nothing is flushed,
nothing is closed. `NAME COUNT hang` makes the thread hang there instead, as on a disk that never answers.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from processes.adapters.state import durable

HUB: Final[Mapping[str, str]] = {
    "hub.before_begin": "a batch is stepped in memory, its transaction is not begun",
    "hub.after_begin": "the transaction is begun, nothing written in it",
    "hub.after_insert": "the rows are in the open transaction, ledger and position are not",
    "hub.before_commit": "everything is in the open transaction, COMMIT is not said",
    "hub.after_commit": "the batch is durable, and nobody knows of it",
    "hub.answered": "operators have their answers, and no agent its command",
    "hub.before_send": "deliveries are about to be put into their queue",
    "hub.after_send": "deliveries are in their queue, the events are not yet acknowledged",
    "hub.after_acknowledge": "the events are acknowledged",
    "hub.report_stepped": "a report is stepped in memory, nothing of it is on disk",
    "hub.report_committed": "a report is durable, its ack is not under way",
}
AGENT: Final[Mapping[str, str]] = {
    "agent.received": "a delivery has come, nothing is written",
    "agent.journalled": "it is in the journal, and the hub does not know",
    "agent.acked": "`command_ack` is on the wire",
    "agent.starting": "its shim is about to be started",
    "agent.started": "its shim is started",
    "agent.exited": "the program's end was seen, nothing is sent about it",
    "agent.reported": "its report is on the wire",
    "agent.acknowledged": "the hub has acknowledged its report, the journal does not say so",
    "agent.settled": "the journal says that it is over, its run folder still stands",
}
SHIM: Final[Mapping[str, str]] = {
    "shim.locked": "the shim holds the folder's lock and has begun nothing",
    "shim.before_started": "the program's process is made, `started` is not written",
    "shim.after_started": "`started` is durable, the program is not yet begun",
    "shim.exited": "the program has ended, `exit` is not written",
    "shim.written": "`exit` is durable",
}
WATCHDOG: Final[Mapping[str, str]] = {
    "watchdog.found": "a process is found frozen, its evidence is not collected",
    "watchdog.collected": "its evidence is kept, and it is not yet killed",
    "watchdog.noted": "the event that the process steps is noted, and it is not yet killed",
    "watchdog.killed": "it is killed, and nothing more is done",
}
NAMES: Final[Mapping[str, str]] = {**HUB, **AGENT, **SHIM, **WATCHDOG}

_file: Path | None = None  # None: no drills here


def allow(file: Path) -> None:
    """Let this file arm failpoints in this process."""
    global _file  # noqa: PLW0603  # one answer a process; an argument through every layer would tell nothing more
    _file = file


def allowed() -> Path | None:
    """Return the file that arms failpoints in this process; None if there are no drills."""
    return _file


def reach(name: str) -> None:
    """Kill this process if a drill has armed this place and it is reached for the last time that was counted.

    Cost: with drills an `open`, without them a comparison.
    """
    if _file is not None:
        _reach(_file, name)


def arm(file: Path, name: str, count: int = 1, *, hang: bool = False) -> None:
    """Let the process of this file die when it reaches `name` for the `count`-th time from now on.

    With `hang` the thread that reaches it stops there instead. Raises: KeyError, if there is no such name.
    """
    if name not in NAMES:
        raise KeyError(name)
    durable.replace(file, f"{name} {count}{' hang' if hang else ''}\n".encode(), durable=False)


def _reach(file: Path, name: str) -> None:
    try:
        armed, count, *how = file.read_text().split()
    except FileNotFoundError:
        return
    if armed != name:
        return
    if int(count) > 1:
        arm(file, name, int(count) - 1, hang=bool(how))
        return
    file.unlink(missing_ok=True)
    if how:
        threading.Event().wait()  # for ever: that is the fault
    os.kill(os.getpid(), signal.SIGKILL)
