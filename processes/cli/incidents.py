"""The verbs of incidents, read from the state folder: the watchdog's own file and its evidence."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from processes.adapters import incident_file
from processes.adapters.settings import Settings, load
from processes.cli import output
from processes.cli.failure import Failure
from processes.cli.options import as_json
from processes.core.report import IncidentView

EVIDENCE_BYTES_MAX: Final = 256 * 1024  # of one file on the screen; the whole is in the folder


@click.command()
@click.option("--limit", type=click.IntRange(1, 1000), default=200, show_default=True, help="How many, newest first.")
@as_json
def incidents(limit: int, as_json: bool) -> None:
    """List what went wrong and what was done about it, newest first."""
    found = incident_file.incidents(load().incidents_database, limit)
    if as_json:
        output.document({"incidents": found})
        return
    rows = [
        [
            view.id,
            view.found_at or "",
            view.process,
            view.verdict,
            _after(view.found_after_s),
            _after(view.recovered_after_s),
            view.stuck_at or "",
        ]
        for view in found
    ]
    output.table(["ID", "FOUND", "PROCESS", "VERDICT", "FOUND AFTER", "RECOVERED AFTER", "STUCK AT"], rows, "no incidents")


@click.command()
@click.argument("incident_id", metavar="ID")
@as_json
def incident(incident_id: str, as_json: bool) -> None:
    """Show one incident with its evidence: stacks, pulse, what was done."""
    settings = load()
    view = incident_file.incident(settings.incidents_database, incident_id)
    if view is None:
        raise Failure("not_found", f"there is no incident {incident_id!r}", "fleethub incidents lists them.")
    if as_json:
        output.document(view)
        return
    output.fields([
        ("id", view.id),
        ("process", f"{view.process}, process {view.pid}" if view.pid else view.process),
        ("verdict", f"{view.verdict}: {view.reason}".rstrip(": ")),
        ("stuck at", view.stuck_at or ""),
        ("begun", view.begun_at or ""),
        ("found", f"{view.found_at or ''} after {_after(view.found_after_s)}"),
        ("over", f"{view.over_at} after {_after(view.recovered_after_s)}" if view.over_at else "not yet"),
        ("remedy", view.remedy),
        ("lost", str(view.lost)),
        ("drill", "yes" if view.drill else ""),
    ])  # fmt: skip
    for line in view.events:
        output.say(f"  {line}")
    _evidence(settings, view)


def _evidence(settings: Settings, view: IncidentView) -> None:
    folder = settings.evidence / Path(view.id).name
    for name in view.evidence:
        path = folder / Path(name).name
        output.say()
        output.say(f"── {path}")
        try:
            with path.open("rb") as file:
                text = file.read(EVIDENCE_BYTES_MAX).decode(errors="replace")
        except OSError as error:
            output.say(f"cannot be read: {error.strerror}")
            continue
        for line in text.splitlines():
            output.stream(line, to_stderr=False)
        if path.stat().st_size > EVIDENCE_BYTES_MAX:
            output.say("… and more, in the file")


def _after(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.2f} s"
