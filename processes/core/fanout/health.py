"""The answer of /healthz, from the hub's pulse and the watchdog's report. Pure.

Without a pulse the hub is down; a pulse without a canary round under the same epoch is not enough to be well, nor is a
round while one port answers no new connections (`agents_port_closed`, `operators_port_closed`). `canary_unknown`: no
round was complete since the watchdog began, so nobody knows yet; `canary_stale`: the last one is too long ago.
"""

from __future__ import annotations

from typing import NamedTuple

from processes.core.shown.status import BEHIND, HEALTH_ROUND_S_MAX, SILENT_AFTER_S, STUCK, Overall, Report
from processes.core.travels.pulse import Pulse


class Health(NamedTuple):
    """The answer. `reason`: a fixed word; empty if the answer is 200, whatever the verdict on the whole is."""

    verdict: Overall
    reason: str

    @property
    def ok(self) -> bool:
        """Return whether to answer 200."""
        return not self.reason


def judge(hub: Pulse | None, hub_alive: bool, report: Report | None, now_s: float, stall_s: float) -> Health:
    """Return the health, with the gravest reason that applies. Units: now_s in seconds of CLOCK_MONOTONIC."""
    if hub is None or not hub_alive:
        return Health(Overall.DOWN, "hub_not_running")
    if hub.written_ns == 0:
        return Health(Overall.DOWN, "hub_starting")
    if now_s - hub.written_ns / 1e9 >= stall_s:
        return Health(Overall.STALLED, "hub_frozen")
    if report is None or not 0 <= now_s - report.at_mono_s <= SILENT_AFTER_S:
        return Health(Overall.DEGRADED, "watchdog_silent")
    verdicts = {process.name: process.verdict for process in report.processes if process.wanted}
    if verdicts.get("hub") in STUCK:
        return Health(Overall.STALLED, f"hub_{verdicts['hub']}")
    for port in report.canary.ports:  # a port that nobody is meant to serve is only why no round is complete
        served = any(name.partition(":")[0] == BEHIND[port.name] for name in verdicts)
        if served and port.age_s is not None and now_s - report.at_mono_s + port.age_s > HEALTH_ROUND_S_MAX:
            return Health(Overall.STALLED, f"{port.name}_port_closed")
    ended_s = report.canary.round_mono_s
    if ended_s is None:
        return Health(Overall.STALLED, "canary_unknown")
    if not 0 <= now_s - ended_s <= HEALTH_ROUND_S_MAX:
        return Health(Overall.STALLED, "canary_stale")
    if report.canary.epoch != hub.epoch:
        return Health(Overall.STALLED, "canary_epoch")
    if any(port.age_s is None for port in report.canary.ports):
        return Health(Overall.STALLED, "canary_stale")
    for name, verdict in verdicts.items():
        kind = name.partition(":")[0]
        if kind in ("gateway", "fanout") and verdict in STUCK:
            return Health(Overall.DEGRADED, f"{kind}_{verdict}")
    return Health(report.verdict, "")
