"""The verbs of what is wrong with hosts: conditions, acknowledge, silence, silences, unsilence."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from processes.cli.terminal import completion, output
from processes.cli.terminal.options import Duration, as_json, asking, asks_hub, listed
from processes.cli.terminal.text import since, until
from processes.client.api import segment
from processes.core.cli.tables import Cell, Column, Row
from processes.core.records.condition import ConditionView, SilenceView
from processes.core.shown.pages import ConditionsPage, SilencesPage
from processes.core.travels.operator_requests import SILENCE_S_MAX

ID_CHARS: Final = 12  # of an id that are shown; any beginning of it that is unique will do

HEADER: Final = [
    Column("ID", 0), Column("SEVERITY", 3), Column("STATE", 5), Column("SINCE", 4), Column("HOST", 1),
    Column("WHAT", 2, prose=True),
]  # fmt: skip
SILENCES: Final = [
    Column("ID", 0), Column("QUERY", 1, prose=True), Column("FROM", 5), Column("UNTIL", 2), Column("BY", 4),
    Column("WHY", 3, prose=True),
]  # fmt: skip


@click.command()
@click.argument("query", default="")
@click.option("--host", shell_complete=completion.hosts, help="Of this host alone.")
@click.option("--over", is_flag=True, help="Also those that are over, the newest first.")
@click.option("--all", "every", is_flag=True, help="Also each host of what is told as one condition of many.")
@listed
@asks_hub
def conditions(
    *,
    query: str,
    host: str | None,
    over: bool,
    every: bool,
    as_json: bool,
    form: output.Form,
    hub: str | None,
    token_file: Path | None,
) -> None:
    """List what is wrong now: with hosts (of those that QUERY finds), and with the installation itself."""
    asked: dict[str, str | int] = {"over": int(over)}
    if query:
        asked["query"] = query
    if host is not None:
        asked["host"] = host
    with asking(hub, token_file) as api:
        told = api.read("/conditions", ConditionsPage, asked)
        now_wall_s = api.now_wall_s()
    if as_json:
        output.document(told.body)
        return
    views = told.view.conditions
    shown = [view for view in views if every or query or host or not view.group]
    rows: list[Row] = [
        [
            Cell(view.id[:ID_CHARS], view.id),
            view.severity,
            view.state,
            since(view.since, now_wall_s),
            view.host or "-",
            _line(view),
        ]
        for view in shown
    ]
    output.table(HEADER, rows, "nothing is wrong", form)
    if hidden := len(views) - len(shown):
        output.note(f"{hidden} conditions are parts of these: fleethub conditions --all")


def _line(view: ConditionView) -> str:
    line = f"{view.title}: {view.text}".rstrip(": ")
    if view.over:
        return f"{line}; {view.over}"
    if view.kind == "many" and view.left < view.hosts:
        line += f" ({view.left} of them still)"
    return line


@click.command()
@click.argument("condition_id", metavar="ID")
@click.option("--why", default="", help="What you know of it.")
@as_json
@asks_hub
def acknowledge(*, condition_id: str, why: str, as_json: bool, hub: str | None, token_file: Path | None) -> None:
    """Note that you have seen a condition. What happened once, such as a failed command, is over by that."""
    with asking(hub, token_file) as api:
        told = api.once("POST", f"/conditions/{segment(condition_id)}/acknowledge", ConditionView, {"why": why})
    if as_json:
        output.document(told.body)
    else:
        output.say(f"{told.view.id[:ID_CHARS]}: acknowledged: {told.view.title}")


@click.command()
@click.argument("query")
@click.option("--for", "for_s", type=Duration(60, SILENCE_S_MAX), required=True, help="How long, such as 2h.")
@click.option("--why", required=True, help="What is going on.")
@click.option("--in", "in_s", type=Duration(0, SILENCE_S_MAX), default="0s", help="Begin after this time, such as 30m.")
@as_json
@asks_hub
def silence(
    *, query: str, for_s: float, why: str, in_s: float, as_json: bool, hub: str | None, token_file: Path | None
) -> None:
    """Have nobody told of the hosts that QUERY finds, for a time; what is wrong with them is listed all the same."""
    body = {"query": query, "why": why, "for_s": for_s, "in_s": in_s}
    with asking(hub, token_file) as api:
        told = api.once("POST", "/silences", SilenceView, body, promised=(201,))
    if as_json:
        output.document(told.body)
    else:
        output.say(f"{told.view.id}: {told.view.query} is silenced from {told.view.starts_at} until {told.view.until}")


@click.command()
@listed
@asks_hub
def silences(*, as_json: bool, form: output.Form, hub: str | None, token_file: Path | None) -> None:
    """List the silences: those that count or will, and the newest that have ended."""
    with asking(hub, token_file) as api:
        told = api.read("/silences", SilencesPage)
        now_wall_s = api.now_wall_s()
    if as_json:
        output.document(told.body)
        return
    rows: list[Row] = [
        [
            v.id,
            v.query,
            until(v.starts_at, now_wall_s),
            until(v.until, now_wall_s),
            v.actor,
            f"ended by {v.ended_by}" if v.ended_at else v.why,
        ]
        for v in told.view.silences
    ]
    output.table(SILENCES, rows, "no silences", form)


@click.command()
@click.argument("silence_id", metavar="ID")
@as_json
@asks_hub
def unsilence(silence_id: str, as_json: bool, hub: str | None, token_file: Path | None) -> None:
    """End a silence before its time."""
    with asking(hub, token_file) as api:
        told = api.once("DELETE", f"/silences/{segment(silence_id)}", SilenceView)
    if as_json:
        output.document(told.body)
    else:
        output.say(f"{told.view.id}: ended")
