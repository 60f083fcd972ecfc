"""The verb `status`: the watchdog's view, read from the state folder, whatever is down."""

from __future__ import annotations

import sys
import time

import click
from rich.console import Console

from processes.adapters import watchdog_view
from processes.adapters.settings import SettingsError, load
from processes.cli import output
from processes.cli.failure import EXIT_UNKNOWN, Failure
from processes.cli.options import as_json
from processes.core.report import ProcessReport, Report

EVERY_S = 1.0  # of --watch


@click.command()
@click.option("--watch", is_flag=True, help="Again every second, until Ctrl-C.")
@as_json
def status(watch: bool, as_json: bool) -> int:
    """Show how everything is. Exit code 0 ok, 1 degraded, 2 stalled or down, 3 unknown."""
    if watch and as_json:
        raise click.UsageError("--json is one document, and --watch has no end: choose one of them")
    try:
        settings = load()
    except SettingsError as error:
        raise Failure("settings", str(error), exit_code=EXIT_UNKNOWN) from None
    if not settings.run.exists():
        raise Failure("unknown", f"there is no installation at {settings.state}", "Start one: fleethub up", EXIT_UNKNOWN)
    report = watchdog_view.current_report(settings)
    if as_json:
        output.document(report)
        return report.verdict.exit_code
    _show(report)
    while watch:
        time.sleep(EVERY_S)
        report = watchdog_view.current_report(settings)
        if sys.stdout.isatty():
            Console().clear()
        _show(report)
    return report.verdict.exit_code


def _show(report: Report) -> None:
    output.say(f"{report.verdict}{': ' if report.reasons else ''}{'; '.join(report.reasons)}")
    rows = [_row(process) for process in report.processes]
    output.table(["PROCESS", "VERDICT", "STATE", "PID", "UPTIME", "RESTARTS", "TURN", "AGE", "BACKLOG", "REASON"], rows)
    canary, fleet, commands = report.canary, report.fleet, report.commands
    latency = f", {canary.latency_ms:.1f} ms" if canary.latency_ms is not None else ""
    age = f"{canary.age_s:.1f} s ago" if canary.age_s is not None else "never"
    output.say(f"canary: last round {age}{latency}, hub epoch {report.epoch}")
    output.say(f"hosts: {fleet.hosts}, {fleet.online} online, {fleet.stale} stale, {fleet.offline} offline")
    counts = [f"{getattr(commands, name)} {name}" for name in commands.__struct_fields__ if getattr(commands, name)]
    output.say(f"commands: {', '.join(counts) or 'none'}")
    last = f", the last: fleethub incident {report.incidents.last}" if report.incidents.last else ""
    output.say(f"incidents: {report.incidents.total}{last}")


def _row(process: ProcessReport) -> list[str]:
    pulse = process.pulse
    return [
        process.name,
        process.verdict,
        process.state,
        str(process.pid or "-"),
        "-" if process.uptime_s is None else f"{process.uptime_s:.0f} s",
        str(process.restarts),
        str(pulse.turn) if pulse else "-",
        f"{pulse.age_s:.2f} s" if pulse else "-",
        str(pulse.backlog) if pulse else "-",
        process.reason,
    ]
