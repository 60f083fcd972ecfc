"""What Prometheus reads, in its text format: from the watchdog's report and the pulses, so that any fanout answers alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from processes.adapters import watchdog_view
from processes.adapters.settings import Settings
from processes.core import wire
from processes.core.command import State
from processes.core.messages import Json
from processes.core.report import Overall, Report, Verdict
from processes.core.values import Presence

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

_GAUGES: Final = {  # of a process's pulse
    "age_s": ("pulse_age_seconds", "Since the last completed turn of the main loop"),
    "backlog": ("backlog_items", "Received and not yet dealt with"),
    "oldest_s": ("backlog_oldest_seconds", "For which the oldest item of the backlog waits"),
    "letters": ("dead_letters", "Messages put aside and kept (hub), rows left out because they ended it each time (fanout)"),
    "suspended": ("suspended", "Hosts whose token is suspended for a flood of poison (hub)"),
    "connections": ("connections", "Sockets (gateway, fanout), hosts online (hub), commands running (agent)"),
}
_COUNTERS: Final = {
    "turn": ("turns", "Completed turns of the main loop"),
    "received": ("received", "Items taken from the inbox"),
    "stepped": ("stepped", "Items stepped"),
    "committed": ("committed", "Items committed"),
    "published": ("published", "Items published"),
    "delivered": ("delivered", "Items delivered"),
    "dropped": ("dropped", "Messages dropped because something was full"),
    "errors": ("errors", "Steps that raised, malformed frames"),
}


class Metrics:
    """A registry of our own: nothing of this process's Python is exported, and no other library adds to it."""

    def __init__(self, settings: Settings) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._fleet = _Fleet(settings)
        self._registry.register(self._fleet)

    def export(self, hosts: list[Json]) -> bytes:
        """The text, with series of these hosts. One call at a time. Blocks: it reads files."""
        self._fleet.hosts = hosts
        return generate_latest(self._registry)


class _Fleet(Collector):
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.hosts: list[Json] = []

    def collect(self) -> Iterator[Metric]:
        report = watchdog_view.current_report(self._settings)
        yield from _whole(report)
        yield from _commands(report)
        for process_metrics in (_states(report), _pulses(report), _queues(report)):
            yield from process_metrics
        if self.hosts:
            yield from _hosts(self.hosts)


def _whole(report: Report) -> Iterator[Metric]:
    yield _choice("fleethub_verdict", "The verdict on the whole", "verdict", list(Overall), report.verdict)
    yield GaugeMetricFamily("fleethub_hub_epoch", "The newest hub epoch", value=report.epoch)
    yield GaugeMetricFamily("fleethub_watchdog_silent_seconds", "0 while the watchdog reports", value=report.watchdog_silent_s or 0.0)
    yield GaugeMetricFamily("fleethub_canary_ok", "1 while canary commands go round", value=float(report.canary.ok))
    age = GaugeMetricFamily("fleethub_canary_age_seconds", "Since the last canary command went round")
    latency = GaugeMetricFamily("fleethub_canary_latency_seconds", "How long the last canary command took")
    if report.canary.age_s is not None:
        age.add_metric([], report.canary.age_s)
    if report.canary.latency_ms is not None:
        latency.add_metric([], report.canary.latency_ms / 1000)
    yield from (age, latency)
    yield CounterMetricFamily("fleethub_incidents", "Incidents ever", value=report.incidents.total)
    hosts = GaugeMetricFamily("fleethub_hosts", "Hosts by presence", labels=["presence"])
    for presence in ("online", "stale", "offline"):
        hosts.add_metric([presence], getattr(report.fleet, presence))
    yield hosts


def _commands(report: Report) -> Iterator[Metric]:
    yield CounterMetricFamily(
        "fleethub_commands_accepted", "Commands ever accepted: always the sum of all states", value=report.commands.accepted
    )
    states = GaugeMetricFamily("fleethub_commands", "Commands by state, pruned ones included", labels=["state"])
    for state in State:
        states.add_metric([state.value], getattr(report.commands, state))
    yield states


def _states(report: Report) -> Iterator[Metric]:
    verdicts = GaugeMetricFamily("fleethub_process_verdict", "1 for the watchdog's verdict on a process", labels=["process", "verdict"])
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
    with_pulse = [(process, process.pulse) for process in report.processes if process.pulse is not None]
    for field, (name, text) in _GAUGES.items():
        gauge = GaugeMetricFamily(f"fleethub_process_{name}", text, labels=["process"])
        for process, pulse in with_pulse:
            gauge.add_metric([process.name], float(getattr(pulse, field)))
        yield gauge
    for field, (name, text) in _COUNTERS.items():
        counter = CounterMetricFamily(f"fleethub_process_{name}", text, labels=["process"])
        for process, pulse in with_pulse:
            counter.add_metric([process.name], getattr(pulse, field))
        yield counter
    blocked = GaugeMetricFamily("fleethub_process_blocked", "1 while it waits for something outside", labels=["process", "on"])
    for process, pulse in with_pulse:
        for cause in ("storage", "queues"):
            blocked.add_metric([process.name, cause], float(pulse.blocked_on == cause))
    yield blocked


def _queues(report: Report) -> Iterator[Metric]:
    items = GaugeMetricFamily("fleethub_queue_items", "Items in a queue", labels=["queue"])
    size = GaugeMetricFamily("fleethub_queue_bytes", "Bytes in a queue", labels=["queue"])
    oldest = GaugeMetricFamily("fleethub_queue_oldest_seconds", "For which its oldest item waits", labels=["queue"])
    refused = CounterMetricFamily("fleethub_queue_refused", "Items refused because it was full", labels=["queue"])
    dropped = CounterMetricFamily("fleethub_queue_dropped", "Items dropped because it was full", labels=["queue"])
    for queue in report.queues:
        for family, value in ((items, queue.items), (size, queue.bytes), (oldest, queue.oldest_s), (refused, queue.refused)):
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


def _hosts(rows: list[Json]) -> Iterator[Metric]:
    online = GaugeMetricFamily("fleethub_host_online", "1 while the host is online", labels=["host"])
    families = {
        field: GaugeMetricFamily(f"fleethub_host_{name}", text, labels=["host"]) for field, (name, text, _) in _HOST_METRICS.items()
    }
    for row in rows:
        host = _host_row.decode(row)
        online.add_metric([host.name], float(host.presence == Presence.ONLINE))
        for field, family in families.items():
            value = getattr(host.metrics, field, None)
            if host.presence == Presence.ONLINE and value is not None:  # what is not known is not shown as known
                family.add_metric([host.name], value * _HOST_METRICS[field][2])
    yield online
    yield from families.values()


class _HostRow(msgspec.Struct):
    name: str
    presence: str = ""
    metrics: wire.Metrics | None = None


_host_row = msgspec.json.Decoder(_HostRow)


def _choice(name: str, text: str, label: str, values: list[Overall], chosen: Overall) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value in values:
        family.add_metric([value.value], float(value is chosen))
    return family
