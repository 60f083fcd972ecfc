"""What a command left running whose shim was killed: found by its session, and ended, for nobody watches it any
more.
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


def end(started: Started, command_id: str) -> tuple[int, int]:
    """Nothing of the command's session runs any more. Returns how many processes were killed, and how many survived
    even that.

    Cost: one look into /proc when there is nothing; at most 1 s. Blocks: call it on a thread.
    """
    killed: set[int] = set()
    for _ in range(ROUNDS_MAX):
        left = _session(started, command_id)
        if not left:
            return len(killed), 0
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        killed |= left
        time.sleep(ROUND_S)  # until they are gone: the only news of it for one who is not their parent
    return len(killed), len(_session(started, command_id))


def _session(started: Started, command_id: str) -> set[int]:
    """The living members of the session that the program led.

    While the program itself lives, its pid and start time name the session. Without it the number may be another's by
    now (that of a daemon whose leader is gone too), so a member must hold the command's id in its environment.
    """
    members = {
        pid for entry in os.scandir("/proc") if entry.name.isdecimal() and _is_in(pid := int(entry.name), started.pid)
    }
    leader = proc.stat(started.pid)
    if leader is not None:
        return members if leader.start_ticks == started.start_ticks else set()
    mark = f"FLEETHUB_COMMAND_ID={command_id}".encode()
    return {pid for pid in members if mark in _environment(pid)}


def _is_in(pid: int, session: int) -> bool:
    """True if the process is a living member of the session."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    fields = stat[stat.rindex(b")") + 2 :].split()
    return int(fields[3]) == session and fields[0] not in (b"Z", b"X")


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
