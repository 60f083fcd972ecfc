"""The verb `runs`: lists fleet runs, or shows one of them host by host."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click

from processes.cli.following import LAST_CHARS, LAST_LINES
from processes.cli.terminal import completion, output
from processes.cli.terminal.options import asking, asks_hub, listed
from processes.cli.terminal.text import ago, drawn, since
from processes.cli.verbs.commands import asked_by
from processes.cli.verbs.run import WORDS, counts, followed, importance, unbegun, why_stopped
from processes.client.api import Api, segment
from processes.client.errors import Refused
from processes.core.cli.tables import Column, Row, short_ids
from processes.core.records.command import State
from processes.core.records.run import Part, PartView, RunView
from processes.core.shown import reasons
from processes.core.shown.pages import RunsPage
from processes.core.shown.views import CommandView

PAGE_MAX = 100  # runs in one answer of the API
ENDS_MAX = 500  # commands of one state whose ends are asked for
WAITING = (Part.PENDING, Part.NOT_ATTEMPTED)
HEADER: Final = [
    Column("ID", 0), Column("GIVEN", 4), Column("STATE", 1), Column("STEPS", 2), Column("HOSTS", 3, prose=True),
]  # fmt: skip
HOSTS: Final = [
    Column("HOST", 0), Column("STATE", 1), Column("STEP", 3), Column("COMMAND", 4), Column("WHY", 2, prose=True),
]  # fmt: skip
TOLD_MAX = 10  # failed hosts of a run whose last lines are shown: each costs two questions


@click.command()
@click.argument("run_id", metavar="[ID]", required=False, shell_complete=completion.runs)
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Without ID: how many, newest first."
)
@click.option("--follow", is_flag=True, help="With ID: show the output and wait for the end, as `run` does.")
@click.option("-b", "--fold", is_flag=True, help="With --follow: what several hosts said is printed once, at the end.")
@listed
@asks_hub
def runs(
    *,
    run_id: str | None,
    limit: int,
    follow: bool,
    fold: bool,
    as_json: bool,
    form: output.Form,
    hub: str | None,
    token_file: Path | None,
) -> int | None:
    """List fleet runs, newest first; with ID, show one of them host by host, those that failed first."""
    if follow and run_id is None:
        raise click.UsageError("--follow needs the ID of a run")
    with asking(hub, token_file) as api:
        if run_id is None:
            _list(api, limit, form, as_json)
            return None
        if follow:
            return followed(api, api.run(run_id), None, as_json, fold=fold)
        told = api.read(f"/runs/{segment(run_id)}", RunView)
        if as_json:
            output.document(told.body)
            return None
        failed = [part for part in told.view.hosts if part.state is Part.FAILED]
        ended = _ended_badly(api, told.view) if failed else {}
        last_lines = [_last_lines(api, ended.get(part.command_id or "")) for part in failed[:TOLD_MAX]]
        now_wall_s = api.now_wall_s()
    whys = {part.host: _why(part, ended.get(part.command_id or "")) for part in told.view.hosts}
    _show(told.view, whys, form, now_wall_s)
    for part, lines in zip(failed, last_lines, strict=False):
        if lines and not form.names:
            output.say()
            output.say(f"{part.host} at {part.op}: {whys[part.host]}")
            for line in lines:
                output.say(f"  | {line}")
    return None


def _ended_badly(api: Api, view: RunView) -> dict[str, CommandView]:
    """Return the run's commands that ended otherwise than well, by their ids; of each state at most ENDS_MAX."""
    bad = (state for state in State if state.final and state is not State.SUCCEEDED)
    found = [each for state in bad for each in api.commands({"run": view.id, "state": state}, ENDS_MAX)[0]]
    return {each.id: each for each in found}


def _why(part: PartView, command: CommandView | None) -> str:
    """Return why the host left the run, in words."""
    if command is None:
        return reasons.in_words(part.reason)
    return reasons.why(command.reason, command.state, command.exit_code, command.message) or str(command.state)


def _last_lines(api: Api, command: CommandView | None) -> list[str]:
    """Return what the host's failed command said last; nothing if it was never made, or is not kept any more."""
    if command is None:
        return []
    try:
        records = api.output(command.id, max(0, command.output_next - LAST_LINES)).records
    except Refused as refused:
        if refused.not_found:
            return []
        raise
    return [drawn(record.data)[:LAST_CHARS] for record in records[-LAST_LINES:]]


def _list(api: Api, limit: int, form: output.Form, as_json: bool) -> None:
    found, following = api.paged(
        "/runs", RunsPage, {}, limit, page_max=PAGE_MAX, rows=lambda page: (page.runs, page.next)
    )
    if as_json:
        output.document({"runs": found, "next": following})
        return
    now_wall_s = api.now_wall_s()
    rows: list[Row] = [
        [its_id, since(view.created_at, now_wall_s), view.state, ",".join(view.steps), counts(view)]
        for its_id, view in zip(short_ids([view.id for view in found]), found, strict=True)
    ]
    output.table(HEADER, rows, output.none_found("run", {}, "fleethub run OP HOST"), form)


def _show(view: RunView, whys: Mapping[str, str], form: output.Form, now_wall_s: float) -> None:
    begun = sorted((part for part in view.hosts if part.state not in WAITING), key=importance)
    ids = short_ids([part.command_id or "" for part in begun])
    rows: list[Row] = [
        [
            part.host,
            "cancelled" if part.cancelled else WORDS.get(part.state, part.state),
            part.op,
            its_id,
            whys[part.host],
        ]
        for part, its_id in zip(begun, ids, strict=True)
    ]
    if form.names:
        output.table(HOSTS, rows, form=form)
        return
    output.fields([
        ("id", view.id),
        ("state", view.state),
        ("steps", ", ".join(view.steps)),
        ("hosts", counts(view)),
        ("parallel", str(view.parallel)),
        ("max failures", "" if view.max_failures is None else str(view.max_failures)),
        ("query", view.query),
        ("given", f"{view.created_at}, {ago(view.created_at, now_wall_s)}, by {view.actor}"),
        ("key", view.key or ""),
        ("cancel asked", asked_by(view.cancel_requested_at, view.cancel_requested_by, now_wall_s)),
        ("finished", view.finished_at or ""),
        ("stopped", why_stopped(view).removeprefix("stopped ")),
    ])  # fmt: skip
    if rows:
        output.table(HOSTS, rows, form=form)
    for line in unbegun(view):
        output.say(line)
