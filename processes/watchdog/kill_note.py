"""The note before a kill: which process, why, and the event it has in hand. The successor counts the death by it
(adapters/state/deaths.py).
"""

from __future__ import annotations

import contextlib
from typing import Final

from processes.adapters import clock
from processes.adapters.settings import Settings
from processes.adapters.state import deaths, pulse_file
from processes.core.records.poison import Cause, Note
from processes.core.shown.status import Verdict
from processes.core.travels.pulse import Unreadable
from processes.watchdog.evidence import on_thread, within
from processes.watchdog.process_reader import Subject

NOTE_S_MAX: Final = 0.5  # the kill waits no longer; a disk that hangs keeps no frozen process alive


async def write(settings: Settings, subject: Subject, verdict: Verdict, incident_id: str) -> str:
    """Write the note durably. Return a line for the incident; empty if no event is in hand and nothing was noted.
    Never raises.
    """
    pid, start_ticks = subject.pid, subject.start_ticks
    stopped = subject.stat is not None and subject.stat.state in "Tt"
    pulse = None
    with contextlib.suppress(Unreadable, OSError):
        pulse = pulse_file.read(settings.pulses, subject.name)
    if pulse is None or (pulse.pid, pulse.start_ticks) != (pid, start_ticks) or not pulse.in_hand:
        return ""
    note = Note(
        clock.boot_id(),
        pid,
        start_ticks,
        cause_of(verdict, stopped=stopped),
        pulse.in_hand,
        pulse.in_hand_ns,
        incident_id,
    )
    try:
        await within(NOTE_S_MAX, on_thread(lambda: deaths.write_note(settings, subject.name, note)))
    except (OSError, TimeoutError) as error:
        return f"{pulse.in_hand} is in hand, which could not be noted: {error or type(error).__name__}"
    return f"{pulse.in_hand} is in hand ({note.cause})"


def cause_of(verdict: Verdict, *, stopped: bool) -> str:
    """Return the cause for the note. A process stopped by SIGSTOP or a debugger was not frozen by its event."""
    if verdict is Verdict.MEMORY:
        return Cause.MEMORY
    if verdict is Verdict.FROZEN:
        return "stopped" if stopped else Cause.FROZEN
    return str(verdict)
