"""The verbs of dead letters: deadletters, deadletter."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click
import msgspec

from processes.cli.terminal import output, question
from processes.cli.terminal.failure import EXIT_FAILED, EXIT_USAGE, Failure
from processes.cli.terminal.options import as_json, asking, asks_hub, listed, sure
from processes.cli.terminal.text import since
from processes.client.api import Api, segment
from processes.core.cli.tables import Column, Row, short_ids
from processes.core.records.dead_letter import DeadLetterView
from processes.core.shown.dead_letters import DeadLetterGone, DeadLettersPage

HEADER: Final = [
    Column("ID", 0), Column("PUT ASIDE", 3), Column("BY", 4), Column("WHY", 5), Column("KIND", 2), Column("HOST", 1),
    Column("ERROR", 6, prose=True),
]  # fmt: skip


@click.command()
@click.option("--limit", type=click.IntRange(1, 1000), default=200, show_default=True, help="How many, newest first.")
@listed
@asks_hub
def deadletters(*, limit: int, as_json: bool, form: output.Form, hub: str | None, token_file: Path | None) -> None:
    """List the dead letters, messages that were put aside because they ended a process, newest first."""
    with asking(hub, token_file) as api:
        told = api.read("/deadletters", DeadLettersPage, {"limit": limit})
        now_wall_s = api.now_wall_s()
    if as_json:
        output.document(told.body)
        return
    views = told.view.deadletters
    rows: list[Row] = [
        [its_id, since(v.at, now_wall_s), v.process, v.why, v.kind, v.host, "being retried" if v.retrying else v.error]
        for its_id, v in zip(short_ids([v.id for v in views]), views, strict=True)
    ]
    output.table(HEADER, rows, "no dead letters", form)


@click.command()
@click.argument("dead_letter_id", metavar="ID")
@click.option(
    "--retry", is_flag=True, help="Let the hub try it once more; if it ends the hub twice again, it is put aside again."
)
@click.option("--discard", is_flag=True, help="Throw it away for good.")
@sure
@as_json
@asks_hub
def deadletter(
    *,
    dead_letter_id: str,
    retry: bool,
    discard: bool,
    yes: bool,
    as_json: bool,
    hub: str | None,
    token_file: Path | None,
) -> int | None:
    """Show one dead letter with the stacks of the processes that it ended; or try it again, or discard it."""
    if retry and discard:
        raise Failure("usage", "give either --retry or --discard", exit_code=EXIT_USAGE)
    with asking(hub, token_file) as api:
        lost = f"{dead_letter_id} was put aside unread; what it would have told is lost with it."
        if discard and not question.is_sure(lost, "Throw it away for good?", yes=yes):
            return EXIT_FAILED
        if retry or discard:
            _act(api, dead_letter_id, retry, as_json)
            return None
        told = api.read(f"/deadletters/{segment(dead_letter_id)}", DeadLetterView)
    if as_json:
        output.document(told.body)
        return None
    view = told.view
    output.fields([
        ("id", view.id),
        ("put aside", f"{view.at or ''} by {view.process}"),
        ("why", view.why),
        ("kind", view.kind),
        ("host", view.host),
        ("size", f"{view.size_bytes} bytes"),
        ("retries", str(view.retries) if view.retries else ""),
        ("", "being retried now" if view.retrying else ""),
    ])  # fmt: skip
    _text("error", view.error)
    for death in view.deaths:
        incident = f", incident {death.incident}" if death.incident else ""
        _text(
            f"process {death.pid}: {death.cause}, seen at {death.at or 'an unknown time'}{incident}", death.stacks or ""
        )
    _text("event", msgspec.json.format(bytes(view.event), indent=2).decode())
    return None


def _act(api: Api, dead_letter_id: str, retry: bool, as_json: bool) -> None:
    # what is changed is named whole
    dead_letter_id = api.read(f"/deadletters/{segment(dead_letter_id)}", DeadLetterView).view.id
    path = f"/deadletters/{segment(dead_letter_id)}"
    body = (
        api.once("POST", f"{path}/retry", DeadLetterView, promised=(202,)).body
        if retry
        else api.once("POST", f"{path}/discard", DeadLetterGone).body
    )
    if as_json:
        output.document(body)
    else:
        output.say(f"{dead_letter_id}: {'it is tried again' if retry else 'discarded'}")


def _text(title: str, text: str) -> None:
    if not text:
        return
    output.say()
    output.say(f"── {title}")
    for line in text.splitlines():
        output.stream(line, to_stderr=False)
