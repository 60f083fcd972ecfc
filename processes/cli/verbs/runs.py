"""The verb `runs`: lists fleet runs, or shows one of them host by host."""

from __future__ import annotations

from pathlib import Path

import click

from processes.cli.following import LAST_CHARS, LAST_LINES
from processes.cli.terminal import output
from processes.cli.terminal.options import as_json, asking, asks_hub
from processes.cli.terminal.text import drawn
from processes.cli.verbs.run import WORDS, counts, followed
from processes.client.api import Api, segment
from processes.client.errors import Refused
from processes.core.records.run import Part, PartView, RunView
from processes.core.shown.pages import RunsPage

PAGE_MAX = 100  # runs in one answer of the API
TOLD_MAX = 10  # failed hosts of a run whose last lines are shown: each costs two questions


@click.command()
@click.argument("run_id", metavar="[ID]", required=False)
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Without ID: how many, newest first."
)
@click.option("--follow", is_flag=True, help="With ID: show the output and wait for the end, as `run` does.")
@click.option("-b", "--fold", is_flag=True, help="With --follow: what several hosts said is printed once, at the end.")
@as_json
@asks_hub
def runs(
    *, run_id: str | None, limit: int, follow: bool, fold: bool, as_json: bool, hub: str | None, token_file: Path | None
) -> int | None:
    """List fleet runs, newest first; with ID, show one of them host by host."""
    if follow and run_id is None:
        raise click.UsageError("--follow needs the ID of a run")
    with asking(hub, token_file) as api:
        if run_id is None:
            _list(api, limit, as_json)
            return None
        if follow:
            return followed(api, api.run(run_id), None, as_json, fold=fold)
        told = api.read(f"/runs/{segment(run_id)}", RunView)
        if as_json:
            output.document(told.body)
            return None
        failed = [part for part in told.view.hosts if part.state is Part.FAILED]
        last_lines = [_last_lines(api, part) for part in failed[:TOLD_MAX]]
    _show(told.view)
    for part, lines in zip(failed, last_lines, strict=False):
        if lines:
            output.say()
            output.say(f"{part.host} at {part.op}: {part.reason}")
            for line in lines:
                output.say(f"  | {line}")
    return None


def _last_lines(api: Api, part: PartView) -> list[str]:
    """Return what the host's failed command said last; nothing if it was never made, or is not kept any more."""
    if part.command_id is None:
        return []
    try:
        first = max(0, api.command(part.command_id).output_next - LAST_LINES)
        records = api.output(part.command_id, first).records
    except Refused as refused:
        if refused.not_found:
            return []
        raise
    return [drawn(record.data)[:LAST_CHARS] for record in records[-LAST_LINES:]]


def _list(api: Api, limit: int, as_json: bool) -> None:
    found, following = api.paged(
        "/runs", RunsPage, {}, limit, page_max=PAGE_MAX, rows=lambda page: (page.runs, page.next)
    )
    if as_json:
        output.document({"runs": found, "next": following})
        return
    rows = [[view.id, view.created_at or "", view.state, ",".join(view.steps), counts(view)] for view in found]
    output.table(["ID", "GIVEN", "STATE", "STEPS", "HOSTS"], rows, output.none_found("run", {}, "fleethub run OP HOST"))


def _show(view: RunView) -> None:
    output.fields([
        ("id", view.id),
        ("state", view.state),
        ("steps", ", ".join(view.steps)),
        ("hosts", counts(view)),
        ("parallel", str(view.parallel)),
        ("max failures", "" if view.max_failures is None else str(view.max_failures)),
        ("query", view.query),
        ("given", f"{view.created_at} by {view.actor}"),
        ("key", view.key or ""),
        ("cancel asked", view.cancel_requested_at or ""),
        ("finished", view.finished_at or ""),
    ])  # fmt: skip
    waiting = (Part.PENDING, Part.NOT_ATTEMPTED)
    rows = [
        [
            part.host,
            WORDS.get(part.state, part.state),
            "" if part.state in waiting else part.op,
            part.command_id or "",
            part.reason,
        ]
        for part in sorted(view.hosts, key=lambda part: part.state is not Part.FAILED)
    ]
    output.table(["HOST", "STATE", "STEP", "COMMAND", ""], rows)
