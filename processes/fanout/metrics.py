"""The metrics in Prometheus's text format, from the watchdog's report and the pulses: all fanouts answer alike."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from processes.adapters.settings import Settings
from processes.adapters.state import status_file
from processes.core.records.command import State
from processes.core.records.condition import ConditionState
from processes.core.shown import certificate
from processes.core.shown.status import Overall, ProcessReport, Report, Verdict
from processes.core.shown.versions import is_old_agent
from processes.core.travels import agent_frames
from processes.core.travels.messages import Json
from processes.core.travels.pulse import Blocked
from processes.core.values import Presence

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

ALL: Final = frozenset({"queues", "hub", "gateway", "fanout", "watchdog", "agent"})


class OfPulse(NamedTuple):
    """A metric of a process's pulse. `kinds`: the processes that fill this field; others have no series of it."""

    field: str
    name: str
    text: str
    kinds: frozenset[str]


GAUGES: Final = (
    OfPulse("age_s", "pulse_age_seconds", "Since the last completed turn of the main loop", ALL),
    OfPulse("backlog", "backlog_items", "Received and not yet dealt with", ALL - {"fanout", "watchdog"}),
    OfPulse(
        "oldest_s",
        "backlog_oldest_seconds",
        "For which the oldest item of the backlog waits",
        frozenset({"hub", "gateway"}),
    ),
    OfPulse(
        "dead_letters",
        "dead_letters",
        "Messages put aside and kept (hub), rows left out because they ended it each time (fanout)",
        frozenset({"hub", "fanout"}),
    ),
    OfPulse("suspended", "suspended", "Hosts whose token is suspended for a flood of poison (hub)", frozenset({"hub"})),
    OfPulse(
        "connections",
        "connections",
        "Sockets (gateway, fanout, queues), hosts online (hub), commands running (agent)",
        ALL - {"watchdog"},
    ),
    OfPulse(
        "waiting",
        "connections_waiting",
        "Connections that wait at its port to be accepted, by whichever process of the port",
        frozenset({"gateway", "fanout"}),
    ),
)
COUNTERS: Final = (
    OfPulse("turn", "turns", "Completed turns of the main loop", ALL),
    OfPulse("received", "received", "Items taken from the inbox", ALL - {"watchdog"}),
    OfPulse("stepped", "stepped", "Items stepped", frozenset({"hub", "fanout", "agent"})),
    OfPulse("committed", "committed", "Items committed", frozenset({"hub", "agent"})),
    OfPulse("published", "published", "Items published", frozenset({"hub", "gateway", "fanout"})),
    OfPulse("delivered", "delivered", "Items delivered", frozenset({"queues", "hub", "gateway", "agent"})),
    OfPulse(
        "dropped",
        "dropped",
        "Messages dropped because something was full; at a fanout also deltas that a slow operator was not sent",
        ALL - {"agent", "watchdog"},
    ),
    OfPulse(
        "refused",
        "refused",
        "Requests that were refused for their credential, role or content (fanout), agents that claimed another host's "
        "name (gateway)",
        frozenset({"gateway", "fanout"}),
    ),
    OfPulse("accepted", "accepted", "Connections accepted at its port", frozenset({"gateway", "fanout"})),
    OfPulse(
        "turned_away",
        "connections_turned_away",
        "Connections that were ended or refused because there were too many",
        frozenset({"gateway", "fanout"}),
    ),
    OfPulse("errors", "errors", "Steps that raised, malformed frames", ALL - {"queues", "watchdog"}),
)
BLOCKED: Final = {Blocked.STORAGE: frozenset({"hub"}), Blocked.QUEUES: frozenset({"hub", "gateway", "fanout"})}
CERTIFICATE_BYTES_MAX: Final = 1 << 20


class Metrics:
    """A registry of its own, so that neither the Python runtime nor another library adds metrics."""

    def __init__(self, settings: Settings) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._fleet = _Fleet(settings)
        self._registry.register(self._fleet)

    def export(self, hosts: list[Json], *, each: bool, conditions: Sequence[Json] = ()) -> bytes:
        """Return the text. `each`: with series of each of these hosts. One call at a time. Blocks: it reads files."""
        self._fleet.hosts, self._fleet.each, self._fleet.conditions = hosts, each, conditions
        return generate_latest(self._registry)


class _Fleet(Collector):
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.hosts: list[Json] = []
        self.each = False
        self.conditions: Sequence[Json] = ()

    def collect(self) -> Iterator[Metric]:
        report = status_file.current_report(self._settings)
        yield from _whole(report)
        yield from _files(self._settings)
        yield from _commands(report)
        for process_metrics in (_states(report), _pulses(report), _queues(report)):
            yield from process_metrics
        hosts = [_host_row.decode(row) for row in self.hosts]
        own = importlib.metadata.version("fleethub")
        old = sum(is_old_agent(host.agent_version, host.protocol, own) for host in hosts)
        yield GaugeMetricFamily("fleethub_hosts_agent_old", "Hosts whose agent is older than this process", value=old)
        yield from _conditions(report, self.conditions)
        if self.each and hosts:
            yield from _hosts(hosts)


def _whole(report: Report) -> Iterator[Metric]:
    """Yield metrics of the whole. What is not known yet has no series: a 0 would read as a counter's new beginning."""
    yield _choice("fleethub_verdict", "The verdict on the whole", "verdict", list(Overall), report.verdict)
    yield GaugeMetricFamily("fleethub_hub_epoch", "The newest hub epoch", value=report.epoch or None)
    yield GaugeMetricFamily(
        "fleethub_watchdog_silent_seconds", "0 while the watchdog reports", value=report.watchdog_silent_s or 0.0
    )
    yield GaugeMetricFamily("fleethub_canary_ok", "1 while canary commands go round", value=float(report.canary.ok))
    age = GaugeMetricFamily("fleethub_canary_age_seconds", "Since the last canary command went round")
    latency = GaugeMetricFamily("fleethub_canary_latency_seconds", "How long the last canary command took")
    ports = GaugeMetricFamily(
        "fleethub_port_ok", "1 while the canary's fresh connections to the port are answered", labels=["port"]
    )
    for port in report.canary.ports:
        ports.add_metric([port.name], float(port.ok))
    yield ports
    if report.canary.age_s is not None:
        age.add_metric([], report.canary.age_s)
    if report.canary.latency_ms is not None:
        latency.add_metric([], report.canary.latency_ms / 1000)
    yield from (age, latency)
    yield CounterMetricFamily("fleethub_incidents", "Incidents ever", value=report.incidents.total)
    hosts = GaugeMetricFamily("fleethub_hosts", "Hosts by presence", labels=["presence"])
    for presence in ("online", "stale", "offline"):
        if (counted := getattr(report.fleet, presence)) is not None:
            hosts.add_metric([presence], counted)
    yield hosts


def _files(settings: Settings) -> Iterator[Metric]:
    """Yield metrics of files and the disk. Those that cannot be read have no series."""
    build = GaugeMetricFamily(
        "fleethub_build_info", "1; the version is that of the process that answers", labels=["version"]
    )
    build.add_metric([importlib.metadata.version("fleethub")], 1.0)
    yield build
    size = GaugeMetricFamily(
        "fleethub_database_bytes", "A database's files on the disk, its write-ahead log included", labels=["database"]
    )
    for path in (settings.database, settings.incidents_database):
        with contextlib.suppress(OSError):
            size.add_metric([path.stem], path.stat().st_size + _size(path.with_name(f"{path.name}-wal")))
    yield size
    free = GaugeMetricFamily("fleethub_state_free_bytes", "Free for fleethub on the disk of the state folder")
    with contextlib.suppress(OSError):
        disk = os.statvfs(settings.state)
        free.add_metric([], disk.f_bavail * disk.f_frsize)
    yield free
    judged = GaugeMetricFamily("fleethub_judged_timestamp_seconds", "When hosts were judged last, since 1970")
    with contextlib.suppress(OSError):
        judged.add_metric([], settings.judging.stat().st_mtime)
    yield judged
    expiry = GaugeMetricFamily(
        "fleethub_certificate_expiry_timestamp_seconds", "When the TLS certificate expires, since 1970"
    )
    if settings.file.tls.certificate:
        with (
            contextlib.suppress(OSError, certificate.NoCertificate),
            open(settings.file.tls.certificate, errors="replace") as file,
        ):
            expiry.add_metric([], certificate.expires_wall_s(file.read(CERTIFICATE_BYTES_MAX)))
    yield expiry


def _conditions(report: Report, rows: Sequence[Json]) -> Iterator[Metric]:
    """Yield how many conditions of hosts stand, and when the dead man's switch answered last."""
    family = GaugeMetricFamily(
        "fleethub_conditions", "Conditions that stand, of hosts, of many hosts at once and of runs",
        labels=["kind", "severity", "state"],
    )  # fmt: skip
    views = [_condition_row.decode(row) for row in rows]
    counts = Counter((view.kind, view.severity, view.state) for view in views if view.state != ConditionState.OVER)
    for labels, count in sorted(counts.items()):
        family.add_metric(list(labels), count)
    yield family
    answered = GaugeMetricFamily(
        "fleethub_heartbeat_answered_timestamp_seconds", "When the dead man's switch answered last, since 1970",
        labels=["target"],
    )  # fmt: skip
    for each in report.heartbeats:
        if each.answered_at is not None:
            answered.add_metric([each.target], datetime.datetime.fromisoformat(each.answered_at).timestamp())
    yield answered


class _ConditionRow(msgspec.Struct):
    kind: str = ""
    severity: str = ""
    state: str = ""


_condition_row = msgspec.json.Decoder(_ConditionRow)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _commands(report: Report) -> Iterator[Metric]:
    yield CounterMetricFamily(
        "fleethub_commands_accepted",
        "Commands ever accepted: always the sum of all states",
        value=report.commands.accepted,
    )
    states = GaugeMetricFamily(
        "fleethub_commands",
        "Commands by state, pruned ones included; a late report takes one from lost",
        labels=["state"],
    )
    for state in State:
        if (counted := getattr(report.commands, state)) is not None:
            states.add_metric([state.value], counted)
    yield states


def _states(report: Report) -> Iterator[Metric]:
    verdicts = GaugeMetricFamily(
        "fleethub_process_verdict", "1 for the watchdog's verdict on a process", labels=["process", "verdict"]
    )
    restarts = CounterMetricFamily("fleethub_process_restarts", "Restarts", labels=["process"])
    uptime = GaugeMetricFamily("fleethub_process_uptime_seconds", "Since its start", labels=["process"])
    memory = GaugeMetricFamily("fleethub_process_rss_bytes", "Resident memory", labels=["process"])
    wanted = GaugeMetricFamily("fleethub_process_wanted", "0 if an operator stopped it", labels=["process"])
    for process in report.processes:
        for verdict in Verdict:
            verdicts.add_metric([process.name, verdict.value], float(process.verdict is verdict))
        restarts.add_metric([process.name], process.restarts)
        wanted.add_metric([process.name], float(process.wanted))
        if process.uptime_s is not None:
            uptime.add_metric([process.name], process.uptime_s)
        if process.rss_bytes is not None:
            memory.add_metric([process.name], process.rss_bytes)
    yield from (verdicts, restarts, uptime, memory, wanted)


def _pulses(report: Report) -> Iterator[Metric]:
    with_pulse = [
        (process.name, _kind(process), process.pulse) for process in report.processes if process.pulse is not None
    ]
    for families, shape in ((GAUGES, GaugeMetricFamily), (COUNTERS, CounterMetricFamily)):
        for field, name, text, kinds in families:
            family = shape(f"fleethub_process_{name}", text, labels=["process"])
            for process, kind, pulse in with_pulse:
                if kind in kinds:
                    family.add_metric([process], float(getattr(pulse, field)))
            yield family
    blocked = GaugeMetricFamily(
        "fleethub_process_blocked", "1 while it waits for something outside", labels=["process", "on"]
    )
    for process, kind, pulse in with_pulse:
        for cause, kinds in BLOCKED.items():
            if kind in kinds:
                blocked.add_metric([process, cause.value], float(pulse.blocked_on == cause))
    yield blocked


def _kind(process: ProcessReport) -> str:
    """Return the process's name without its number."""
    return process.name.partition(":")[0]


def _queues(report: Report) -> Iterator[Metric]:
    items = GaugeMetricFamily("fleethub_queue_items", "Items in a queue", labels=["queue"])
    size = GaugeMetricFamily("fleethub_queue_bytes", "Bytes in a queue", labels=["queue"])
    oldest = GaugeMetricFamily("fleethub_queue_oldest_seconds", "For which its oldest item waits", labels=["queue"])
    refused = CounterMetricFamily("fleethub_queue_refused", "Items refused because it was full", labels=["queue"])
    dropped = CounterMetricFamily("fleethub_queue_dropped", "Items dropped because it was full", labels=["queue"])
    for queue in report.queues:
        for family, value in (
            (items, queue.items),
            (size, queue.bytes),
            (oldest, queue.oldest_s),
            (refused, queue.refused),
        ):
            family.add_metric([queue.name], value)
        dropped.add_metric([queue.name], queue.dropped)
    yield from (items, size, oldest, refused, dropped)


_HOST_METRICS: Final = {  # of a host's last heartbeat; field → name, help, factor to the base unit
    "cpu": ("cpu_ratio", "Busy share of all CPUs, 0 to 1", 0.01),
    "ram": ("memory_ratio", "Used share of the memory, 0 to 1", 0.01),
    "swap": ("swap_ratio", "Used share of the swap, 0 to 1", 0.01),
    "disk": ("disk_ratio", "Used share of the disk, 0 to 1", 0.01),
    "load": ("load", "Load average over a minute", 1.0),
    "uptime_s": ("uptime_seconds", "Since the host's boot", 1.0),
}


def _hosts(hosts: list[_HostRow]) -> Iterator[Metric]:
    online = GaugeMetricFamily("fleethub_host_online", "1 while the host is online", labels=["host"])
    families = {
        field: GaugeMetricFamily(f"fleethub_host_{name}", text, labels=["host"])
        for field, (name, text, _) in _HOST_METRICS.items()
    }
    for host in hosts:
        online.add_metric([host.name], float(host.presence == Presence.ONLINE))
        for field, family in families.items():
            value = getattr(host.metrics, field, None)
            if host.presence == Presence.ONLINE and value is not None:  # an unknown value has no sample
                family.add_metric([host.name], value * _HOST_METRICS[field][2])
    yield online
    yield from families.values()


class _HostRow(msgspec.Struct):
    name: str
    presence: str = ""
    agent_version: str = ""
    protocol: int = 0
    metrics: agent_frames.Metrics | None = None


_host_row = msgspec.json.Decoder(_HostRow)


def _choice(name: str, text: str, label: str, values: list[Overall], chosen: Overall) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value in values:
        family.add_metric([value.value], float(value is chosen))
    return family
