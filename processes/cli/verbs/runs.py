"""The verb `runs`: lists fleet runs, or shows one of them host by host."""

from __future__ import annotations

from pathlib import Path

import click

from processes.cli.terminal import output
from processes.cli.terminal.options import as_json, asking, asks_hub
from processes.cli.verbs.run import WORDS, counts, followed
from processes.client.api import Api, segment
from processes.core.records.run import Part, RunView
from processes.core.shown.pages import RunsPage

PAGE_MAX = 100  # runs in one answer of the API


@click.command()
@click.argument("run_id", metavar="[ID]", required=False)
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Without ID: how many, newest first."
)
@click.option("--follow", is_flag=True, help="With ID: show the output and wait for the end, as `run` does.")
@as_json
@asks_hub
def runs(
    *, run_id: str | None, limit: int, follow: bool, as_json: bool, hub: str | None, token_file: Path | None
) -> int | None:
    """List fleet runs, newest first; with ID, show one of them host by host."""
    if follow and run_id is None:
        raise click.UsageError("--follow needs the ID of a run")
    with asking(hub, token_file) as api:
        if run_id is None:
            _list(api, limit, as_json)
            return None
        if follow:
            return followed(api, api.run(run_id), None, as_json)
        told = api.read(f"/runs/{segment(run_id)}", RunView)
    if as_json:
        output.document(told.body)
    else:
        _show(told.view)
    return None


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
        for part in view.hosts
    ]
    output.table(["HOST", "STATE", "STEP", "COMMAND", ""], rows)
