"""Kills and starts processes through supervisord, or without it if it does not answer. The most tested code here."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from typing import Final

from processes.adapters.supervisor import Supervisor, SupervisorAway, SupervisorFault
from processes.watchdog import evidence, process_reader
from processes.watchdog.process_reader import Subject

POKES: Final = 4  # measured: the successor then runs after 0.02 s plus imports, instead of after 1–2 s
POKE_S: Final = 0.003
ANSWER_S_MAX: Final = 2.5  # supervisord's own deadline is 2 s; a thread that hangs beyond it is left behind


async def kill(supervisor: Supervisor, subject: Subject, *, mute: bool = False) -> str:
    """Send SIGKILL to exactly this process, and return what was done, for the incident. Never raises.

    Goes through supervisord, which then starts the successor at once. `mute`: supervisord does not answer and is not
    asked; once it runs again, it finds the process dead and starts the successor.
    """
    pid = subject.pid
    if not subject.alive:
        return "it was dead already"
    began_s = time.monotonic()
    try:
        if mute:
            raise SupervisorAway("supervisord does not answer")
        await _answer(supervisor, lambda: supervisor.kill(subject.name))
    except SupervisorFault as fault:
        problem = str(fault)
    except SupervisorAway:
        problem = "supervisord does not answer"
    else:
        return f"killed process {pid} through supervisord in {time.monotonic() - began_s:.3f} s"
    if subject.pid != pid:
        return f"it died by itself; {problem}"
    if process_reader.send(subject, signal.SIGKILL):
        return f"killed process {pid} directly: {problem}"
    return f"could not kill process {pid}: {problem}"


async def poke(supervisor: Supervisor) -> None:
    """Make supervisord notice a death at once. Never raises."""
    for _ in range(POKES):
        try:
            await _answer(supervisor, supervisor.poke)
        except (SupervisorAway, SupervisorFault):
            return
        await asyncio.sleep(POKE_S)


async def start(supervisor: Supervisor, name: str) -> str:
    """Have supervisord start a process that it had given up, and return the outcome, for the incident. Never raises."""
    try:
        await _answer(supervisor, lambda: supervisor.start(name))
    except (SupervisorAway, SupervisorFault) as error:
        return f"could not be started: {error}"
    return "started again"


async def _answer(supervisor: Supervisor, call: Callable[[], None]) -> None:
    try:
        await evidence.within(ANSWER_S_MAX, evidence.on_thread(call))
    except TimeoutError:
        raise SupervisorAway("supervisord does not answer in time") from None
