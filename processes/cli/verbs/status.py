"""The verb `status`: the watchdog's view. It is read from the state folder, so it works whatever is down."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from processes.adapters.settings import Settings, SettingsError
from processes.adapters.state import status_file
from processes.cli import live
from processes.cli.machine import own_processes
from processes.cli.machine.environment import program
from processes.cli.terminal import output
from processes.cli.terminal.client_failure import failure_of
from processes.cli.terminal.failure import EXIT_UNKNOWN, Failure
from processes.cli.terminal.options import as_json, asking, asks_hub, settings_anyway
from processes.cli.terminal.text import age
from processes.client.errors import ClientError, HubAway
from processes.core.cli.tables import Column
from processes.core.shown.status import HeartbeatReport, Overall, ProcessReport, Report, of_hosts
from processes.core.shown.troubles import TroubleCode, trouble

if TYPE_CHECKING:
    from rich.console import RenderableType

    from processes.client.feed import Picture

HEADER = [
    Column("PROCESS", 0), Column("VERDICT", 1), Column("STATE", 7), Column("PID", 8), Column("UP", 3),
    Column("RESTARTS", 4), Column("CPU", 5), Column("MEMORY", 6), Column("TURN", 11), Column("PULSE", 9),
    Column("BACKLOG", 10), Column("REASON", 2, prose=True),
]  # fmt: skip
NOT_KNOWN = "not known yet"  # nobody has read it, or nobody can
EVERY_S = 1.0  # between two screens of --watch


@click.command()
@click.option("--watch", is_flag=True, help="Show a live screen until Ctrl-C.")
@as_json
@asks_hub
def status(watch: bool, as_json: bool, hub: str | None, token_file: Path | None) -> int:
    """Show how everything is. Exit code: 0 ok, 1 degraded, 2 stalled or down, 3 unknown.

    This machine's status is read from the state folder, whatever is down; with --hub another hub is asked for its own.
    """
    if watch and as_json:
        raise click.UsageError("--json is one document, and --watch has no end: choose one of them")
    if hub is not None:
        return _remote(hub, token_file, watch, as_json)
    try:
        settings = settings_anyway()
    except SettingsError as error:
        raise Failure("settings", str(error), exit_code=EXIT_UNKNOWN) from None
    if not settings.run.exists():
        raise Failure(
            "unknown", f"there is no installation at {settings.state}", f"Start one: {program()} up", EXIT_UNKNOWN
        )
    if watch:
        _watch_folder(settings)
    report = _current(settings)
    if as_json:
        output.document(report)
    else:
        _show(report)
    return report.verdict.exit_code


def _current(settings: Settings) -> Report:
    """The status of this machine's installation; if nothing runs, its only reason is that.

    Raises: Failure, if nothing was ever started here.
    """
    report = status_file.current_report(settings)
    told = report.watchdog_silent_s is None  # by a watchdog that runs
    if told or any(process.pid for process in report.processes) or own_processes.supervisord_of(settings) is not None:
        return report
    if not settings.epoch_file.exists() and not settings.database.exists():
        raise Failure(
            "unknown", f"nothing was ever started at {settings.state}", f"Start it: {program()} up", EXIT_UNKNOWN
        )
    text = "nothing runs here"
    wrong = trouble(TroubleCode.DEAD, text, "hub", "fleethub up")
    return msgspec.structs.replace(report, reasons=[f"{text}: {program()} up"], troubles=[wrong])


def _remote(hub: str, token_file: Path | None, watch: bool, as_json: bool) -> int:
    try:
        with asking(hub, token_file) as api:
            if watch:
                from processes.client.feed import Feed  # noqa: PLC0415  # with it comes a WebSocket

                live.watch(Feed(api), _picture)
            told = api.read("/status", Report)
    except ClientError as error:
        failed = failure_of(error)
        code = "unknown" if isinstance(error, HubAway) else failed.code
        raise Failure(code, failed.message, failed.advice, EXIT_UNKNOWN) from None
    except Failure as failure:
        raise Failure(failure.code, failure.message, failure.advice, EXIT_UNKNOWN) from None
    if as_json:
        output.document(told.body)
    else:
        _show(told.view)
    return told.view.verdict.exit_code


def _watch_folder(settings: Settings) -> None:
    """Show a live screen that is read from the state folder, whatever is down. Raises: KeyboardInterrupt."""
    from rich.console import Console  # noqa: PLC0415  # for a terminal alone
    from rich.live import Live  # noqa: PLC0415

    with (
        Live(console=Console(), screen=True, auto_refresh=False)
        if sys.stdout.isatty()
        else contextlib.nullcontext() as screen
    ):
        while True:
            drawn = _drawn(_current(settings), "")
            if screen is not None and drawn is not None:
                screen.update(drawn, refresh=True)
            time.sleep(EVERY_S)


def _picture(picture: Picture, said: str) -> RenderableType | None:
    rows = picture.rows
    overall = rows.get("overall", {}).get("overall")
    if overall is None:
        return output.screen(said, HEADER, [])
    newest = next(iter(rows.get("incident", {})), None)
    report = msgspec.convert(
        {
            **overall,
            "processes": list(rows.get("process", {}).values()),
            "commands": rows.get("ledger", {}).get("ledger", {}),
            "incidents": {"total": len(rows.get("incident", {})), "last": newest},
        },
        Report,
        strict=False,
    )
    return _drawn(report, said)


def _drawn(report: Report, said: str) -> RenderableType | None:
    first = f"{_first(report)}{f'  ({said})' if said else ''}"
    return output.screen(
        first, HEADER, [_row(process) for process in report.processes], _lines(report) + _wrong(report)
    )


def _first(report: Report) -> str:
    said = "; ".join(report.reasons) or of_hosts(report)
    return f"{report.verdict}: {said}" if said else str(report.verdict)


def _show(report: Report) -> None:
    output.say(_first(report))
    if any(process.pid for process in report.processes):
        output.table(HEADER, [_row(process) for process in report.processes])
    for line in [*_lines(report), *_wrong(report)]:
        output.say(line)


def _wrong(report: Report) -> list[str]:
    """Return what is wrong and what to do, two lines for each."""
    lines = []
    for each in report.troubles:
        lasts = f", for {age(each.seconds)}" if each.seconds is not None and each.seconds >= 1 else ""
        lines += [f"{each.severity}: {each.text}{lasts}", f"    what to do: {output.as_typed(each.remedy)}"]
    return ["what is wrong:", *lines] if lines else []


def _lines(report: Report) -> list[str]:
    canary, fleet, commands = report.canary, report.fleet, report.commands
    latency = f", {canary.latency_ms:.1f} ms" if canary.latency_ms is not None else ""
    last_round = f"{canary.age_s:.1f} s ago" if canary.age_s is not None else NOT_KNOWN
    presence = f"{fleet.online} online, {fleet.stale} stale, {fleet.offline} offline"
    if report.verdict is Overall.DOWN:
        presence = "no hub knows how they are"
    counts = [f"{getattr(commands, name)} {name}" for name in commands.__struct_fields__ if getattr(commands, name)]
    last = output.as_typed(f", the last: fleethub incident {report.incidents.last}") if report.incidents.last else ""
    return [
        f"canary: last round {last_round}{latency}, hub epoch {report.epoch or NOT_KNOWN}",
        f"hosts: {NOT_KNOWN if fleet.hosts is None else f'{fleet.hosts}, {presence}'}",
        f"commands: {NOT_KNOWN if commands.accepted is None else ', '.join(counts) or 'none'}",
        f"incidents: {NOT_KNOWN if report.incidents.total is None else report.incidents.total}{last}",
        *(_heartbeat(each) for each in report.heartbeats),
    ]


def _heartbeat(each: HeartbeatReport) -> str:
    """Return how the dead man's switch is."""
    answered = f"answered last at {each.answered_at}" if each.answered_at else "has not answered yet"
    return f"heartbeat to {each.target}: {answered}" + (f"; {each.error}" if each.error else "")


def _row(process: ProcessReport) -> list[str]:
    pulse = process.pulse
    return [
        process.name,
        process.verdict,
        process.state,
        str(process.pid or "-"),
        age(process.uptime_s),
        str(process.restarts),
        "-" if process.cpu_percent is None else f"{process.cpu_percent:.0f} %",
        "-" if process.rss_bytes is None else f"{process.rss_bytes >> 20} MiB",
        str(pulse.turn) if pulse else "-",
        f"{pulse.age_s:.1f} s" if pulse else "-",
        str(pulse.backlog) if pulse else "-",
        process.reason,
    ]
