"""The status of the installation, as the watchdog writes it: its types, and the verdict on the whole. Pure.

The watchdog writes it as JSON to run/watchdog.json in each of its turns; the CLI and the fanouts read it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

import msgspec

from processes.core.records.ledger import Ledger
from processes.core.shown.troubles import TROUBLES, StandingTrouble, Trouble, TroubleCode, trouble
from processes.core.travels.pulse import Blocked, Pulse
from processes.core.values import Severity, Time

# if the status is older than this, the watchdog is silent; it writes one a second. Guess: two were missed
SILENT_AFTER_S: Final = 3.0


class Verdict(enum.StrEnum):
    """The watchdog's judgement of a process."""

    STARTING = "starting"
    ADVANCING = "advancing"
    STANDBY = "standby"  # a hub: another one leads, and this one turns and waits
    LAGGING = "lagging"
    STALLED = "stalled"
    DEAF = "deaf"  # accepts no connection of those that wait at its port
    MEMORY = "memory"  # uses more memory than it may
    FROZEN = "frozen"
    DEAD = "dead"
    EXCUSED = "excused"
    UNKILLABLE = "unkillable"
    STOPPED = "stopped"  # by an operator
    SILENT = "silent"  # of the watchdog itself, said by the reader of its status

    @property
    def phrase(self) -> str:
        """Return what a sentence says of a process with this verdict: `hub` "is frozen"."""
        return PHRASES[self]

    @property
    def means(self) -> str:
        """Return the sentence that says what it means."""
        if self is Verdict.STANDBY:
            return "It is ready, and another hub leads."
        return "It works." if self is Verdict.ADVANCING else TROUBLES[TroubleCode(self)].means


PHRASES: Final = {each: f"is {each}" for each in Verdict} | {Verdict.MEMORY: "uses too much memory"}
TURNING: Final = frozenset({Verdict.ADVANCING, Verdict.STANDBY})  # nothing is wrong with it
WELL: Final = frozenset({Verdict.ADVANCING, Verdict.LAGGING, Verdict.STANDBY})  # it works, perhaps slowly
STUCK: Final = frozenset(
    {Verdict.FROZEN, Verdict.STALLED, Verdict.DEAF, Verdict.UNKILLABLE}
)  # it lives and does not work
# what the watchdog replaces by a kill
KILLED: Final = frozenset({Verdict.STALLED, Verdict.DEAF, Verdict.FROZEN, Verdict.MEMORY})
UNHEARD: Final = frozenset({Verdict.SILENT, Verdict.DEAD})  # of a watchdog that tells nothing
HALTED: Final = "stopped by a signal (SIGSTOP) or by a debugger"  # in the reason of a process that is frozen
QUIET_S: Final = 1.2  # a hub that has not turned for so long is told of; it turns each second at least, idle too


class Overall(enum.StrEnum):
    """The verdict on the whole installation."""

    OK = "ok"
    DEGRADED = "degraded"
    STALLED = "stalled"
    DOWN = "down"

    @property
    def exit_code(self) -> int:
        """Return the exit code of `fleethub status`: 0 ok, 1 degraded, 2 stalled or down (as monitoring plugins do)."""
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
    dead_letters: int = msgspec.field(default=0, name="letters")
    suspended: int = 0
    refused: int = 0
    accepted: int = 0
    waiting: int = 0
    turned_away: int = 0


class ProcessReport(msgspec.Struct, frozen=True):
    """The status of a process. state: supervisord's word (`state_of`). wanted: False if an operator stopped it."""

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


class PortReport(msgspec.Struct, frozen=True):
    """A port, as the canary found it by fresh connections. age_s: since the last one that was answered; None: none
    was. problem: why the last one was not; empty if it was, or if none has ended yet.
    """

    name: str  # agents or operators
    listen: str
    ok: bool = False
    age_s: float | None = None
    problem: str = ""


class CanaryReport(msgspec.Struct, frozen=True):
    """The canary's round, and the ports that it knocks at. ok: both are well. age_s: since its last command that went
    all the way; epoch: the hub's in that round.
    """

    ok: bool = False
    age_s: float | None = None
    latency_ms: float | None = None
    epoch: int = 0
    round_mono_s: float | None = None  # CLOCK_MONOTONIC of the last round's end
    heartbeat_age_s: float | None = None
    ports: list[PortReport] = []


class FleetReport(msgspec.Struct, frozen=True):
    """How many hosts there are, by presence. None: not known yet, since no hub has said it."""

    hosts: int | None = None
    online: int | None = None
    stale: int | None = None
    offline: int | None = None

    @classmethod
    def of(cls, hub: Pulse | None) -> FleetReport:
        """Return what a hub's pulse says. A hub that has not turned yet knows of no host, which does not mean that
        there is none.
        """
        if hub is None or not hub.written_ns:
            return cls()
        return cls(hub.hosts, hub.online, hub.stale, hub.offline)


class CommandsReport(msgspec.Struct, frozen=True):
    """The ledger's counts, all of them or none. None: not known yet, since the database was not read."""

    accepted: int | None = None
    queued: int | None = None
    sent: int | None = None
    running: int | None = None
    succeeded: int | None = None
    failed: int | None = None
    rejected: int | None = None
    expired: int | None = None
    cancelled: int | None = None
    lost: int | None = None

    @classmethod
    def of(cls, ledger: Ledger | None) -> CommandsReport:
        """Return the counts of a ledger; None: it was not read."""
        return cls() if ledger is None else cls(**msgspec.structs.asdict(ledger))


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
    """How many incidents there were, and the newest one's id. total None: not known yet, since nobody has looked."""

    total: int | None = None
    last: str | None = None


class HouseCondition(msgspec.Struct, frozen=True):
    """A condition of the installation itself, of which somebody is told. told: the targets that heard of it."""

    id: str
    severity: Severity
    title: str
    text: str = ""
    since: Time | None = None
    told: list[str] = []


class HeartbeatReport(msgspec.Struct, frozen=True):
    """The dead man's switch: who outside is called while all goes round. answered_at: when it answered last."""

    target: str
    ok: bool = False
    answered_at: Time | None = None
    error: str = ""


class Report(msgspec.Struct, frozen=True):
    """`status --json`, and a few fields more."""

    verdict: Overall
    epoch: int
    processes: list[ProcessReport]
    canary: CanaryReport
    fleet: FleetReport
    commands: CommandsReport
    incidents: IncidentsReport
    reasons: list[str] = []  # why the verdict is not ok, the gravest first
    troubles: list[Trouble] = []  # these, and what else is wrong, with what to do
    queues: list[QueueReport] = []
    at: Time | None = None
    at_mono_s: float = 0.0
    hindrance: str = ""  # what keeps the database from being written, if that is known
    watchdog_silent_s: float | None = None
    supervisord_silent_s: float | None = None  # None: it answers
    conditions: list[HouseCondition] = []
    told: dict[str, list[str]] = {}  # conditions of hosts that an alarm was sent of, and the targets that it reached
    heartbeats: list[HeartbeatReport] = []
    writer_pid: int = 0  # of the watchdog that wrote it; pid and start ticks identify it for ever
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
    events: list[str] = []  # what happened, a line each


class CanaryFile(msgspec.Struct, frozen=True):
    """run/canary.json: SHA-256 (hex) of the canary's tokens, by which gateway and fanout know the canary."""

    agent_token_hash: str
    operator_token_hash: str


def state_of(pid: int, said: str, said_pid: int) -> str:
    """Return supervisord's word for the state of a process, corrected if it is out of date.

    supervisord is asked only now and then; the kernel knows at once. `pid`: of the living process, 0 for none. `said`,
    `said_pid`: supervisord's last answer.
    """
    if pid and said_pid != pid:
        return "STARTING"  # the process lives, and supervisord's answer is about an earlier one
    if not pid and said == "RUNNING":
        return "EXITED"  # the process has died since the answer
    return said


def is_wanted(name: str, desired: Mapping[str, str]) -> bool:
    """Return True if the process is meant to run. Unless `desired` says otherwise, all are but the agent (see `up`)."""
    return desired.get(name, "stopped" if name == "agent" else "running") == "running"


AGENTS_BACK_S: Final = 60.0  # an agent's longest pause between two tries: BACKOFF_S_MAX of core/agent/reconnect.py
ROUND: Final = ("queues", "gateway", "fanout")  # the processes that a command passes, besides the hub
BEHIND: Final = {"agents": "gateway", "operators": "fanout"}  # who accepts at a port
HEALTH_ROUND_S_MAX: Final = 10.0  # contract: /healthz is green only if a canary command went round within it


class Witness(enum.StrEnum):
    """Who tells how the installation is, and so how far the canary's state is to be believed."""

    PRESENT = "present"
    NEW = "new"  # a watchdog that was started a moment ago: its canary has not gone round yet
    SILENT = "silent"  # nobody: it is read from pulses, and the canary is a silent watchdog's
    UNWRITTEN = "unwritten"  # nobody: the watchdog works, and cannot write its report


def witness_of(processes: list[ProcessReport]) -> Witness:
    """Return how far a watchdog is to be believed that has written no report lately, by its pulse.

    The pulse has its room on the disk beforehand. One that turns all the same began a moment ago, or cannot write.
    """
    watchdog = next((process for process in processes if process.name == "watchdog"), None)
    if watchdog is None or watchdog.verdict is not Verdict.ADVANCING:
        return Witness.SILENT
    return Witness.NEW if (watchdog.uptime_s or 0.0) < SILENT_AFTER_S else Witness.UNWRITTEN


def judged(
    processes: list[ProcessReport], canary: CanaryReport, witness: Witness = Witness.PRESENT, hindrance: str = ""
) -> tuple[Overall, list[Trouble]]:
    """Return the verdict on the whole, with what makes it so, the gravest first.

    down: the hub is dead, stopped or starting. stalled: the hub is frozen, stalled or unkillable, or the canary is red
    (which it is too while one port answers no fresh connections). degraded: another process that is wanted is not well,
    one is blocked, or the watchdog is silent. Processes that an operator stopped are not counted, except the hub.
    `hindrance`: what keeps the database from being written, if that is known.
    """
    found: list[Trouble] = []
    grade = Overall.OK
    hub = next((process for process in processes if process.name == "hub"), None)
    if hub is None or hub.verdict in (Verdict.DEAD, Verdict.STOPPED, Verdict.STARTING):
        grade = Overall.DOWN
        found.append(_down(hub))
    elif hub.verdict in STUCK:
        grade = Overall.STALLED
        found.append(_of_process(hub, witness, "the hub"))
    elif not canary.ok and witness is Witness.PRESENT:  # that of a silent watchdog says nothing about the hub
        grade = Overall.STALLED
        found += _red(canary, processes)
    others = [p for p in processes if p.wanted and p.verdict not in TURNING and not (p.name == "hub" and found)]
    for process in others:
        if not (witness is Witness.SILENT and process.name == "watchdog" and process.verdict in UNHEARD):  # see below
            found.append(_of_process(process, witness))
    found += _blocked(processes, hindrance)
    if witness is Witness.SILENT:
        found.append(_silent(processes))
    elif witness is Witness.UNWRITTEN:
        found.append(trouble(TroubleCode.REPORT_UNWRITTEN, f"the watchdog's report cannot be written{_by(hindrance)}"))
    elif witness is Witness.NEW and not canary.ok and not found:
        found.append(
            trouble(TroubleCode.WATCHDOG_NEW, "the watchdog began a moment ago: no test command has come back yet")
        )
    if found and grade is Overall.OK:
        grade = Overall.DEGRADED
    return grade, found


def is_quiet(pulse: Pulse | None, now_s: float) -> bool:
    """Return whether a process has not turned for a moment, by its pulse."""
    return pulse is not None and pulse.written_ns > 0 and now_s - pulse.written_ns / 1e9 > QUIET_S


def quiet(processes: list[ProcessReport]) -> list[Trouble]:
    """Return a trouble for a hub that has not turned for a moment and is not judged yet. It changes no verdict."""
    return [
        trouble(TroubleCode.QUIET, f"the hub has not turned for {process.pulse.age_s:.1f} s", "hub")
        for process in processes
        if process.name == "hub"
        and process.verdict in WELL
        and process.pulse is not None
        and process.pulse.age_s > QUIET_S
    ]


def standing(conditions: list[HouseCondition]) -> list[StandingTrouble]:
    """Return the conditions that stand as troubles have them."""
    return [
        StandingTrouble(each.id, each.severity, f"{each.title}: {each.text}".rstrip(": "), each.since)
        for each in conditions
    ]


def unheard(heartbeats: list[HeartbeatReport]) -> list[Trouble]:
    """Return a trouble for each dead man's switch that cannot be told that all is well."""
    return [
        trouble(
            TroubleCode.HEARTBEAT, f"the dead man's switch {each.target} does not answer: {each.error}", each.target
        )
        for each in heartbeats
        if each.error and not each.ok
    ]


def _down(hub: ProcessReport | None) -> Trouble:
    if hub is None:
        return trouble(TroubleCode.DEAD, "the hub is not running", "hub", "fleethub up")
    asked = hub.verdict is Verdict.STOPPED and not hub.wanted
    said = f": {hub.reason}" if hub.reason and hub.verdict is not Verdict.STOPPED else ", as asked" * asked
    return trouble(_code(hub), f"the hub {hub.verdict.phrase}{said}", "hub", severity=Severity.CRITICAL)


def _of_process(process: ProcessReport, witness: Witness, name: str = "") -> Trouble:
    text = f"{name or process.name} {process.verdict.phrase}: {process.reason}".rstrip(": ")
    alone = witness is Witness.SILENT and process.verdict in KILLED  # nobody replaces it
    remedy = f"fleethub restart watchdog, which replaces it; or: fleethub restart {process.name}" if alone else ""
    return trouble(_code(process), text, process.name, remedy)


def _code(process: ProcessReport) -> TroubleCode:
    """Return the code of a process that is not well: its verdict, or more exactly if that is known."""
    if process.verdict is Verdict.FROZEN and HALTED in process.reason:
        return TroubleCode.HALTED
    if process.verdict in (Verdict.DEAD, Verdict.STARTING) and process.state in ("BACKOFF", "FATAL"):
        return TroubleCode.CRASHING
    return TroubleCode(process.verdict)


def _red(canary: CanaryReport, processes: list[ProcessReport]) -> list[Trouble]:
    """Return why the canary is red, as far as that is known."""
    lately = "lately" if canary.age_s is not None else "yet"
    found = _closed(canary, processes) or [trouble(TroubleCode.CANARY, f"no canary command went round {lately}")]
    return found + [
        trouble(TroubleCode.STOPPED, f"{p.name} is stopped, as asked", p.name)
        for p in processes
        if p.verdict is Verdict.STOPPED and not p.wanted and p.name.partition(":")[0] in ROUND
    ]


def _blocked(processes: list[ProcessReport], hindrance: str) -> list[Trouble]:
    found = []
    for process in processes:
        blocked_on = process.pulse.blocked_on if process.pulse else None
        if blocked_on == Blocked.STORAGE:
            text = f"{process.name} is blocked on storage{_by(hindrance)}"
            found.append(trouble(TroubleCode.STORAGE, text, process.name))
        elif blocked_on and blocked_on != Blocked.STANDBY:
            found.append(trouble(TroubleCode.QUEUES, f"{process.name} is blocked on {blocked_on}", process.name))
    return found


def _by(hindrance: str) -> str:
    return f": {hindrance}" if hindrance else ""


def _silent(processes: list[ProcessReport]) -> Trouble:
    watchdog = next((process for process in processes if process.name == "watchdog"), None)
    if watchdog is not None and watchdog.verdict is Verdict.STOPPED and not watchdog.wanted:
        return trouble(TroubleCode.STOPPED, "the watchdog is stopped, as asked", "watchdog")
    if watchdog is not None and watchdog.verdict is Verdict.DEAD:
        why = f": {watchdog.reason}" if watchdog.reason not in ("", "not running") else ""
        return trouble(TroubleCode.SILENT, f"the watchdog does not run{why}", "watchdog")
    return trouble(TroubleCode.SILENT, "the watchdog is silent", "watchdog")


def of_hosts(report: Report) -> str:
    """Return a sentence on hosts that an installation lacks though it is well itself; empty if it lacks none.

    Hosts that are off are no fault of the installation, and change no verdict. But after a gateway's death all of its
    agents are away until they have connected again, and who looks then must not take `ok` for theirs.
    """
    fleet = report.fleet
    if report.verdict is not Overall.OK or not fleet.hosts or fleet.online is None or fleet.online >= fleet.hosts:
        return ""
    ages_s = {
        process.name: process.uptime_s
        for process in report.processes
        if process.name.partition(":")[0] == "gateway" and process.uptime_s is not None
    }
    newest = min(ages_s, key=lambda name: ages_s[name], default="")
    if newest and ages_s[newest] < AGENTS_BACK_S:
        return (
            f"{fleet.online} of {fleet.hosts} hosts online, as {newest} began {ages_s[newest]:.0f} s ago: "
            f"agents connect again within {AGENTS_BACK_S:.0f} s"
        )
    return "" if fleet.online else f"none of {fleet.hosts} hosts is online"


def _closed(canary: CanaryReport, processes: list[ProcessReport]) -> list[Trouble]:
    """Return a trouble for each port at which fresh connections are not answered, though nobody stopped who accepts
    there.
    """
    wanted = {process.name.partition(":")[0] for process in processes if process.wanted}
    return [
        trouble(
            TroubleCode.PORT,
            f"the {port.name}' port {port.listen} answers no new connection: {port.problem}",
            port.name,
        )
        for port in canary.ports
        if not port.ok and (port.problem or port.age_s is not None) and BEHIND[port.name] in wanted
    ]
