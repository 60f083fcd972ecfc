"""The verb `sessions`: who is signed in with a browser, and the end of one or of all of these sign-ins."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from processes.cli.terminal import output
from processes.cli.terminal.options import as_json, asking, asks_hub, listed
from processes.cli.terminal.text import since
from processes.client.api import Api, segment
from processes.client.errors import Refused
from processes.core.cli.tables import Column, Row
from processes.core.shown.pages import SessionEnded, SessionsPage

HEADER: Final = [
    Column("ID", 0), Column("WHO", 1), Column("ROLE", 3), Column("SIGNED IN", 2), Column("FROM", 4),
    Column("BROWSER", 5, prose=True),
]  # fmt: skip


@click.group("sessions", invoke_without_command=True)
@listed
@asks_hub
@click.pass_context
def sessions(
    context: click.Context, *, as_json: bool, form: output.Form, hub: str | None, token_file: Path | None
) -> None:
    """List the browsers that are signed in, newest first. `sessions end` signs one or all of them out."""
    if context.invoked_subcommand is not None:
        return
    with asking(hub, token_file) as api:
        told = api.read("/sessions", SessionsPage)
        now_wall_s = api.now_wall_s()
    if as_json:
        output.document(told.body)
        return
    rows: list[Row] = [
        [view.id, view.actor, view.role, since(view.signed_in_at, now_wall_s), view.address, view.browser]
        for view in told.view.sessions
    ]
    output.table(HEADER, rows, "no browser is signed in", form)


@sessions.command("end")
@click.argument("session_id", metavar="ID", required=False)
@click.option("--all", "every", is_flag=True, help="End all that the token may see: an admin's token sees all.")
@as_json
@asks_hub
def end(session_id: str | None, every: bool, as_json: bool, hub: str | None, token_file: Path | None) -> None:
    """Sign a browser out, or all with --all. Its pages end within 2 s; whoever has a token can sign in again."""
    if (session_id is None) != every:
        raise click.UsageError("Give either the ID of a session or --all.")
    with asking(hub, token_file) as api:
        ended = _end_all(api) if session_id is None else [_end(api, session_id)]
    if as_json:
        output.document({"ended": ended})
    elif session_id is not None:
        output.say(f"{session_id}: ended")
    else:
        output.say(f"sessions ended: {len(ended)}")


def _end(api: Api, session_id: str) -> str:
    return api.once("DELETE", f"/sessions/{segment(session_id)}", SessionEnded).view.id


def _end_all(api: Api) -> list[str]:
    """End all sessions; the API lists so many at a time. Return their ids."""
    ended: dict[str, None] = {}
    while listed := [view.id for view in api.read("/sessions", SessionsPage).view.sessions if view.id not in ended]:
        for session_id in listed:
            try:
                _end(api, session_id)
            except Refused as error:
                if error.code != "unknown_session":  # another has just ended it
                    raise
            ended[session_id] = None
    return list(ended)
