"""The watchdog's report: what `status` shows. Types of the contract, and how the whole is judged. Pure.

Written as JSON to run/watchdog.json at each of the watchdog's turns; the CLI and the fanouts read it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

import msgspec

from processes.core.records.ledger import Ledger
from processes.core.values import Time

# a report older than this: the watchdog is silent. It writes one a second; guess: two missed
SILENT_AFTER_S: Final = 3.0


class Verdict(enum.StrEnum):
    """What the watchdog says of a process."""

    STARTING = "starting"
    ADVANCING = "advancing"
    LAGGING = "lagging"
    STALLED = "stalled"
    MEMORY = "memory"  # holds more than it may
    FROZEN = "frozen"
    DEAD = "dead"
    EXCUSED = "excused"
    UNKILLABLE = "unkillable"
    STOPPED = "stopped"  # by an operator's wish
    SILENT = "silent"  # of the watchdog itself, said by whoever reads its report


class Overall(enum.StrEnum):
    """What is said of the whole installation."""

    OK = "ok"
    DEGRADED = "degraded"
    STALLED = "stalled"
    DOWN = "down"

    @property
    def exit_code(self) -> int:
        """Of `fleethub status`: 0 ok, 1 degraded, 2 stalled or down (the monitoring plugins' convention)."""
        return {Overall.OK: 0, Overall.DEGRADED: 1}.get(self, 2)


class PulseReport(msgspec.Struct, frozen=True):
    """A process's last pulse."""

    turn: int = 0
    age_s: float = 0.0
    backlog: int = 0
    oldest_s: float = 0.0
    blocked_on: str | None = None
    received: int = 0
    stepped: int = 0
    committed: int = 0
    published: int = 0
    delivered: int = 0
    connections: int = 0
    dropped: int = 0
    errors: int = 0
    in_hand: str = ""
    letters: int = 0
    suspended: int = 0


class ProcessReport(msgspec.Struct, frozen=True):
    """A process in the report. state: supervisord's word (`state_of`). wanted: false if an operator stopped it."""

    name: str
    state: str
    pid: int | None
    uptime_s: float | None
    restarts: int
    rss_bytes: int | None
    verdict: Verdict
    reason: str = ""
    pulse: PulseReport | None = None
    cpu_percent: float | None = None
    wanted: bool = True


class CanaryReport(msgspec.Struct, frozen=True):
    """The canary's round. age_s: since the last command that went all the way; epoch: under which hub it did."""

    ok: bool = False
    age_s: float | None = None
    latency_ms: float | None = None
    epoch: int = 0
    round_mono_s: float | None = None  # CLOCK_MONOTONIC of the last round's end
    heartbeat_age_s: float | None = None


class FleetReport(msgspec.Struct, frozen=True):
    """How many hosts, and how they are."""

    hosts: int = 0
    online: int = 0
    stale: int = 0
    offline: int = 0


class QueueReport(msgspec.Struct, frozen=True):
    """A queue's depth."""

    name: str
    items: int
    bytes: int
    items_max: int
    oldest_s: float
    refused: int
    dropped: int


class IncidentsReport(msgspec.Struct, frozen=True):
    """How many incidents there were, and the newest one's id."""

    total: int = 0
    last: str | None = None


class Report(msgspec.Struct, frozen=True):
    """`status --json`, and a few fields more."""

    verdict: Overall
    epoch: int
    processes: list[ProcessReport]
    canary: CanaryReport
    fleet: FleetReport
    commands: Ledger
    incidents: IncidentsReport
    reasons: list[str] = []  # why the verdict is not ok, the gravest first
    queues: list[QueueReport] = []
    at: Time | None = None
    at_mono_s: float = 0.0
    watchdog_silent_s: float | None = None
    supervisord_silent_s: float | None = None  # None: it answers
    writer_pid: int = 0  # the watchdog that wrote it, named for ever by both
    writer_start_ticks: int = 0


class IncidentView(msgspec.Struct, frozen=True):
    """An incident in the API, the CLI and on the page."""

    id: str
    process: str
    verdict: str
    reason: str
    begun_at: Time | None
    found_at: Time | None
    over_at: Time | None
    found_after_s: float | None
    recovered_after_s: float | None
    stuck_at: str | None
    lost: int
    remedy: str
    pid: int | None
    epoch: int
    drill: bool = False
    evidence: list[str] = []  # file names in the incident's folder
    events: list[str] = []  # its story, a line each


class CanaryFile(msgspec.Struct, frozen=True):
    """run/canary.json: hashes (SHA-256, hex) of the canary's tokens, for the gateway and the fanout to let it in."""

    agent_token_hash: str
    operator_token_hash: str


def state_of(pid: int, said: str, said_pid: int) -> str:
    """supervisord's word of a process, but where the kernel has known better since: supervisord is asked only now and
    then.

    `pid`: of the process that lives, 0 for none. `said`, `said_pid`: supervisord's last answer.
    """
    if pid and said_pid != pid:
        return "STARTING"  # it lives, and the answer is of before it
    if not pid and said == "RUNNING":
        return "EXITED"  # it died since
    return said


def is_wanted(name: str, wishes: Mapping[str, str]) -> bool:
    """True if the process is meant to run. Unasked: all but the agent, which `up` wants by name."""
    return wishes.get(name, "stopped" if name == "agent" else "running") == "running"


ROUND: Final = ("queues", "gateway", "fanout")  # besides the hub, what a command goes through
HEALTH_ROUND_S_MAX: Final = 10.0  # contract: /healthz is green only if a canary command went round within it


def overall(processes: list[ProcessReport], canary: CanaryReport, silent: bool) -> tuple[Overall, list[str]]:
    """The verdict on the whole, with the reasons.

    down: the hub is dead or not started. stalled: the hub is frozen or stalled, or the canary is red. degraded:
    anything else that was asked for is not well, or the watchdog is silent. What an operator stopped is not counted,
    except the hub.
    """
    reasons: list[str] = []
    grade = Overall.OK
    hub = next((process for process in processes if process.name == "hub"), None)
    if hub is None or hub.verdict in (Verdict.DEAD, Verdict.STOPPED, Verdict.STARTING):
        grade = Overall.DOWN
        asked = hub is not None and hub.verdict is Verdict.STOPPED and not hub.wanted
        reasons.append(
            "the hub is not running" if hub is None else f"the hub is {hub.verdict}{', as asked' if asked else ''}"
        )
    elif hub.verdict in (Verdict.FROZEN, Verdict.STALLED, Verdict.UNKILLABLE):
        grade = Overall.STALLED
        reasons.append(f"the hub is {hub.verdict}: {hub.reason}".rstrip(": "))
    elif not canary.ok and not silent:  # a silent watchdog's canary says nothing of the hub
        grade = Overall.STALLED
        reasons.append("no canary command went round lately")
        stopped = [
            p.name
            for p in processes
            if p.verdict is Verdict.STOPPED and not p.wanted and p.name.partition(":")[0] in ROUND
        ]
        reasons += [f"{name} is stopped, as asked" for name in stopped]
    others = [
        p for p in processes if p.wanted and p.verdict is not Verdict.ADVANCING and not (p.name == "hub" and reasons)
    ]
    for process in others:
        if not (silent and process.verdict is Verdict.SILENT):  # that is said below
            reasons.append(f"{process.name} is {process.verdict}: {process.reason}".rstrip(": "))
    for process in processes:
        if process.pulse and process.pulse.blocked_on:
            reasons.append(f"{process.name} is blocked on {process.pulse.blocked_on}")
    if silent:
        asked = any(p.name == "watchdog" and p.verdict is Verdict.STOPPED and not p.wanted for p in processes)
        reasons.append("the watchdog is stopped, as asked" if asked else "the watchdog is silent")
    if reasons and grade is Overall.OK:
        grade = Overall.DEGRADED
    return grade, reasons
