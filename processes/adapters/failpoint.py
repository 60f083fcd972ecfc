"""Failpoints: named places at which a process kills itself when a drill asked for it. Without drills: one check for
None.

A drill arms one by writing `NAME COUNT` into the file of the process (`arm`): FLEETHUB_STATE/run/failpoint of the hub,
STATE/failpoint of an agent and its shims. The process that gets there for the COUNT-th time removes the file and then
kills itself, as SIGKILL from outside would: nothing is flushed, nothing closed. Removed first, so it strikes once.
`NAME COUNT hang` makes the thread that gets there hang instead, as on a disk that never answers.
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
    "hub.before_begin": "a batch is stepped in memory, its transaction not begun",
    "hub.after_begin": "the transaction is begun, nothing written in it",
    "hub.after_insert": "the rows are written in the open transaction, ledger and position not",
    "hub.before_commit": "all is written in the open transaction, COMMIT not said",
    "hub.after_commit": "the batch is durable, and nobody was told",
    "hub.answered": "operators have their answers, and no agent its command",
    "hub.before_send": "deliveries are about to be put into their queue",
    "hub.after_send": "deliveries are in their queue, the events they came from not yet let go",
    "hub.after_acknowledge": "the events are let go",
    "hub.report_stepped": "a report is in memory, nothing of it on disk",
    "hub.report_committed": "a report is durable, its ack not under way",
}
AGENT: Final[Mapping[str, str]] = {
    "agent.received": "a delivery has come, nothing is written",
    "agent.journalled": "it is in the journal, and the hub does not know",
    "agent.acked": "`command_ack` is on the wire",
    "agent.starting": "its shim is about to be started",
    "agent.started": "its shim is started",
    "agent.exited": "its end was seen, nothing was said of it",
    "agent.reported": "its report is on the wire",
    "agent.acknowledged": "the hub has acknowledged its report, the journal does not say so",
    "agent.settled": "the journal says that it is over, its run folder still stands",
}
SHIM: Final[Mapping[str, str]] = {
    "shim.locked": "the shim holds the folder's lock and has begun nothing",
    "shim.before_started": "the program's process is made, `started` not written",
    "shim.after_started": "`started` is durable, the program not yet begun",
    "shim.exited": "the program has ended, `exit` is not written",
    "shim.written": "`exit` is durable",
}
WATCHDOG: Final[Mapping[str, str]] = {
    "watchdog.found": "a process is found frozen, its evidence not collected",
    "watchdog.collected": "its evidence is kept, and it is not killed",
    "watchdog.noted": "what the process has in hand is noted, and it is not killed",
    "watchdog.killed": "it is killed, and nothing more was done",
}
NAMES: Final[Mapping[str, str]] = {**HUB, **AGENT, **SHIM, **WATCHDOG}

_file: Path | None = None  # None: no drills here


def allow(file: Path) -> None:
    """From now on failpoints strike in this process, when armed by this file."""
    global _file  # noqa: PLW0603  # one process, one answer: handing it through every layer would cost more than it tells
    _file = file


def allowed() -> Path | None:
    """The file that arms failpoints in this process; None where there are no drills."""
    return _file


def reach(name: str) -> None:
    """Kills this process, if a drill armed this place and this is the time. Else nothing. Cost: an `open` under
    drills.
    """
    if _file is not None:
        _reach(_file, name)


def arm(file: Path, name: str, count: int = 1, *, hang: bool = False) -> None:
    """The process of this file dies when it reaches `name` for the `count`-th time from now on; with `hang`, that
    thread stops there.

    Raises: KeyError, for no such name.
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
        threading.Event().wait()  # without an end: that is the fault
    os.kill(os.getpid(), signal.SIGKILL)
