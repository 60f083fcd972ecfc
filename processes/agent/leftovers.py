"""What runs of a command, found in the machine's process table: its shim when the run folder does not know it, and what
is left without a shim, which is ended, for nobody watches it any more.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Final

from processes.adapters import proc
from processes.core.agent.remembered import Started

ROUNDS_MAX: Final = 20  # of looking and killing: a process may fork while it is looked at
ROUND_S: Final = 0.05
SHIM: Final = b"/shim.py"
RUN_MARK: Final = b"FLEETHUB_RUN="


def shim(folder: Path) -> int | None:
    """The pid of the shim that was started for this run folder, whether or not the folder is still there; None: none
    lives. Cost: one look into /proc.
    """
    place = os.fsencode(folder)
    for pid in _pids():
        words = _read(pid, "cmdline").split(b"\0")
        if any(word.endswith(SHIM) for word in words) and place in words:
            return pid
    return None


def end(started: Started | None, command_id: str, folder: Path) -> tuple[int, int]:
    """Nothing of the command runs any more. Returns how many processes were killed, and how many survived even that.

    `folder`: its run folder, which tells it from a command of another agent on this machine. `started`: which session
    its program led; None: nobody knows. Cost: one look into /proc when there is nothing; at most 1 s. Blocks: call it
    on a thread.
    """
    killed: set[int] = set()
    for _ in range(ROUNDS_MAX):
        left = _left(started, command_id, folder)
        if not left:
            return len(killed), 0
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        killed |= left
        time.sleep(ROUND_S)  # until they are gone: the only news of it for one who is not their parent
    left = _left(started, command_id, folder)
    return len(killed - left), len(left)


def _left(started: Started | None, command_id: str, folder: Path) -> set[int]:
    """The living processes of the command: those of the session that its program led, and those in any session that
    have the command's mark in their environment: its run folder, or its id alone if an agent of a version before
    started it.

    While the program itself lives, its pid and start time name the session. Without it the number may be another's by
    now (that of a daemon whose leader is gone too), and only the environment counts. This agent and its parents are
    never among them: a command may be what started the agent anew.
    """
    mark, old_mark = RUN_MARK + os.fsencode(folder), f"FLEETHUB_COMMAND_ID={command_id}".encode()
    ours = _ancestry()
    leader = proc.stat(started.pid) if started is not None else None
    is_leader = leader is not None and started is not None and leader.start_ticks == started.start_ticks
    found = set()
    for pid in _pids():
        session, state = _session(pid)
        in_session = is_leader and started is not None and session == started.pid
        if (
            pid not in ours
            and state not in ("Z", "X", "")
            and (in_session or _is_marked(_read(pid, "environ").split(b"\0"), mark, old_mark))
        ):
            found.add(pid)
    return found


def _is_marked(environ: list[bytes], mark: bytes, old_mark: bytes) -> bool:
    return mark in environ or (old_mark in environ and not any(each.startswith(RUN_MARK) for each in environ))


def _ancestry() -> set[int]:
    """This process and those above it."""
    found, pid = set[int](), os.getpid()
    while pid > 0 and pid not in found:
        found.add(pid)
        fields = _stat(pid)
        pid = int(fields[1]) if fields else 0
    return found


def _session(pid: int) -> tuple[int, str]:
    """The process's session and state; 0 and "" if it is gone."""
    fields = _stat(pid)
    return (int(fields[3]), fields[0].decode()) if fields else (0, "")


def _stat(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat from the state on; empty: there is no such process."""
    stat = _read(pid, "stat")
    return stat[stat.rindex(b")") + 2 :].split() if b")" in stat else []


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
