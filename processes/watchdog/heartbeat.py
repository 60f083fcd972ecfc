"""The dead man's switch: somebody outside is called each minute while all goes round, and tells people when the calls
stay away: then this machine, or its way out, is gone.
"""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Final

from processes.adapters import alarm_sender
from processes.adapters.alarm_sender import Heartbeat
from processes.adapters.logs import Log
from processes.adapters.settings import Settings
from processes.core.alarms.target import masked
from processes.core.shown.status import HEALTH_ROUND_S_MAX, HeartbeatReport, Report
from processes.core.values import rfc3339

BEAT_S: Final = 60.0  # contract
CALL_S_MAX: Final = 20.0  # of one call
RETRY_S: Final = 15.0  # after one that failed


class DeadMansSwitch:
    """Calls who is named in alarms.heartbeat_url and alarms.heartbeat_exec. `run` runs for ever."""

    def __init__(self, settings: Settings, log: Log, *, beat_s: float = BEAT_S) -> None:
        wished = settings.file.alarms
        self._log, self._beat_s = log, beat_s
        self._report: Report | None = None
        self._calls = [Heartbeat(url=wished.heartbeat_url)] if wished.heartbeat_url else []
        self._calls += [Heartbeat(argv=wished.heartbeat_exec)] if wished.heartbeat_exec else []
        self.reports = [HeartbeatReport(_shown(call)) for call in self._calls]

    def look(self, report: Report) -> None:
        """Called when the judging loop has made a report."""
        self._report = report

    async def run(self) -> None:
        """Call for ever, each of them at its own pace."""
        await asyncio.gather(*(self._beat(place) for place in range(len(self._calls))), asyncio.Event().wait())

    async def _beat(self, place: int) -> None:
        while True:
            report, began_s = self._report, time.monotonic()
            if report is None or not goes_round(report, began_s):
                await asyncio.sleep(min(1.0, self._beat_s))
                continue
            name = socket.gethostname()
            error = await alarm_sender.call(self._calls[place], name, report.verdict, report.epoch, CALL_S_MAX)
            before = self.reports[place]
            if error:
                self._log.warning("the dead man's switch was not reached", target=before.target, error=error)
                self.reports[place] = HeartbeatReport(before.target, False, before.answered_at, error)
            else:
                self.reports[place] = HeartbeatReport(before.target, True, rfc3339(time.time()))
            pause_s = min(RETRY_S, self._beat_s) if error else self._beat_s
            await asyncio.sleep(max(0.0, began_s + pause_s - time.monotonic()))


def goes_round(report: Report, now_mono_s: float) -> bool:
    """Return whether a canary's command went round lately under the hub's current epoch, as the report says."""
    canary = report.canary
    if canary.round_mono_s is None or canary.epoch != report.epoch or not report.epoch:
        return False
    return now_mono_s - canary.round_mono_s <= HEALTH_ROUND_S_MAX


def _shown(call: Heartbeat) -> str:
    return masked(call.url) if call.url else call.argv[0]
