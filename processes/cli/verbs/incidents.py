"""The verbs of incidents: this machine's are read from the state folder, whatever is down; --hub asks another hub."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import click

from processes.adapters.settings import Settings
from processes.adapters.state import incidents_db
from processes.cli.terminal import completion, output
from processes.cli.terminal.failure import Failure
from processes.cli.terminal.options import as_json, asking, asks_hub, listed, settings_anyway
from processes.cli.terminal.text import count, since
from processes.client.api import segment
from processes.client.errors import Refused
from processes.core.cli.tables import Cell, Column, short_ids
from processes.core.shown.pages import IncidentsPage, IncidentWithEvidence
from processes.core.shown.short_ids import AmbiguousId
from processes.core.shown.status import IncidentView

FIRST: Final = (
    "stacks.txt",
    "tasks.txt",
    "pyspy.txt",
)  # this evidence is shown first: it says where the process stood; the rest follows in its own order
HEADER: Final = [
    Column("ID", 0), Column("FOUND", 2), Column("PROCESS", 1), Column("VERDICT", 1), Column("FOUND AFTER", 4),
    Column("RECOVERED AFTER", 3), Column("DRILL", 5), Column("STUCK AT", 6),
]  # fmt: skip


@click.command()
@click.option("--limit", type=click.IntRange(1, 1000), default=200, show_default=True, help="How many, newest first.")
@listed
@asks_hub
def incidents(*, limit: int, as_json: bool, form: output.Form, hub: str | None, token_file: Path | None) -> None:
    """List incidents, newest first: which process was unwell, and how fast it was found and recovered."""
    found, now_wall_s = _listed(limit, hub, token_file)
    if as_json:
        output.document({"incidents": found})
        return
    ids = short_ids([view.id for view in found])
    rows = [_row(its_id, view, now_wall_s) for its_id, view in zip(ids, found, strict=True)]
    output.table(HEADER, rows, "no incidents", form)


@click.command()
@click.argument("incident_id", metavar="ID", shell_complete=completion.incidents)
@click.option("--evidence", is_flag=True, help="Also the evidence: stacks, pulse, what the kernel knows.")
@as_json
@asks_hub
def incident(*, incident_id: str, evidence: bool, as_json: bool, hub: str | None, token_file: Path | None) -> None:
    """Show one incident: what was found, how fast, and what was done about it. With --evidence, all that was kept."""
    settings = settings_anyway() if hub is None else None
    try:
        view = _found(incident_id, settings, hub, token_file)
    except AmbiguousId as error:
        raise Failure(error.code, error.message, "Type more of the one that is meant.") from None
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
    folder = "" if settings is None else f"{settings.evidence / Path(view.id).name}/"
    if not evidence:
        lines = sum(len(text.splitlines()) for text in view.evidence_text.values())
        if lines:
            whole = f"fleethub incident {incident_id} --evidence"
            output.say()
            output.say(
                output.as_typed(f"evidence, {count(lines, 'line')}: {whole} shows {', '.join(view.evidence_text)}")
            )
        return
    for name, text in sorted(
        view.evidence_text.items(), key=lambda each: FIRST.index(each[0]) if each[0] in FIRST else len(FIRST)
    ):
        output.say()
        output.say(f"── {folder}{name}")
        for line in text.splitlines():
            output.stream(line, to_stderr=False)


def _listed(limit: int, hub: str | None, token_file: Path | None) -> tuple[list[IncidentView], float]:
    """Return the incidents, and the time by the clock of who wrote them."""
    if hub is None:
        return incidents_db.incidents(settings_anyway().incidents_database, limit), time.time()
    with asking(hub, token_file) as api:
        return api.read("/incidents", IncidentsPage, {"limit": limit}).view.incidents, api.now_wall_s()


def _found(
    incident_id: str, settings: Settings | None, hub: str | None, token_file: Path | None
) -> IncidentWithEvidence | None:
    if settings is not None:
        view = incidents_db.incident(settings.incidents_database, incident_id)
        return None if view is None else incidents_db.with_evidence(view, settings.evidence)
    with asking(hub, token_file) as api:
        try:
            return api.read(f"/incidents/{segment(incident_id)}", IncidentWithEvidence).view
        except Refused as refused:
            if refused.not_found:
                return None
            raise


def _row(its_id: Cell, view: IncidentView, now_wall_s: float) -> list[Cell | str]:
    return [
        its_id,
        since(view.found_at, now_wall_s),
        view.process,
        view.verdict,
        _after(view.found_after_s),
        _after(view.recovered_after_s),
        "drill" if view.drill else "",
        view.stuck_at or "",
    ]


def _after(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.2f} s"
