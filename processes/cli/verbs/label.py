"""The verbs of labels and of saved queries: label, queries."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from processes.cli.terminal import completion, output
from processes.cli.terminal.options import as_json, asking, asks_hub, listed
from processes.cli.terminal.text import count, since
from processes.client.api import segment
from processes.core import labels
from processes.core.cli.tables import Column, Row
from processes.core.shown.pages import HostsLabelled, SavedQueries, SavedQueryGone, SavedQueryView


@click.command()
@click.argument(
    "words", metavar="[HOST...] KEY=VALUE... [KEY-...]", nargs=-1, required=True, shell_complete=completion.hosts
)
@click.option(
    "--query",
    metavar="QUERY",
    shell_complete=completion.query,
    help="The hosts that this query finds, instead of naming them.",
)
@as_json
@asks_hub
def label(
    *, words: tuple[str, ...], query: str | None, as_json: bool, hub: str | None, token_file: Path | None
) -> None:
    """Set labels of hosts (KEY=VALUE), or remove them (KEY-): of all these hosts, or of none.

    A key has lower case letters, digits, '-', '_' and '.'; a value may have upper case too, and may be empty. What a
    server says of itself, in [labels] of its agent's file, is shown apart and is not changed by this.
    """
    hosts = [word for word in words if "=" not in word and not word.endswith("-")]
    wanted = labels_of(word for word in words if "=" in word)
    removed = [word[:-1] for word in words if "=" not in word and word.endswith("-")]
    if not wanted and not removed:
        raise click.UsageError("name a label to set (KEY=VALUE) or to remove (KEY-)")
    if bool(hosts) == (query is not None):
        raise click.UsageError(
            "name the hosts or give --query, not both" if hosts else "name the hosts, or give --query"
        )
    for key in removed:
        if wrong := labels.complaint_of_key(key):
            raise click.UsageError(wrong)
    chosen: dict[str, object] = {"hosts": hosts} if query is None else {"query": query}
    with asking(hub, token_file) as api:
        told = api.once("POST", "/hosts/labels", HostsLabelled, {**chosen, "set": wanted, "remove": removed})
    if as_json:
        output.document(told.body)
        return
    for name in told.view.hosts if query is not None else ():
        output.say(name)
    output.progress(f"{count(len(told.view.hosts), 'host')}, {told.view.changed} changed")


def labels_of(words: Iterable[str]) -> dict[str, str]:
    """Return the labels that were typed as KEY=VALUE. Raises: click.UsageError."""
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if wrong := labels.complaint(key, value) if equals else f"{word!r} is not KEY=VALUE":
            raise click.UsageError(wrong)
        if found.setdefault(key, value) != value:
            raise click.UsageError(f"the label {key} is given twice")
    return found


@click.group("queries", invoke_without_command=True)
@listed
@asks_hub
@click.pass_context
def queries(
    context: click.Context, *, as_json: bool, form: output.Form, hub: str | None, token_file: Path | None
) -> None:
    """List the saved queries: @NAME stands for one wherever a query is asked for."""
    if context.invoked_subcommand is not None:
        return
    with asking(hub, token_file) as api:
        told = api.read("/queries", SavedQueries)
        now_wall_s = api.now_wall_s()
    if as_json:
        output.document(told.body)
        return
    rows: list[Row] = [
        [view.name, view.query, view.actor, since(view.saved_at, now_wall_s)] for view in told.view.queries
    ]
    header = [Column("NAME", 0), Column("QUERY", 1, prose=True), Column("BY", 2), Column("SAVED", 3)]
    output.table(header, rows, "none is saved: fleethub queries save NAME QUERY", form)


@queries.command("save")
@click.argument("name")
@click.argument("query")
@as_json
@asks_hub
def save(name: str, query: str, as_json: bool, hub: str | None, token_file: Path | None) -> None:
    """Keep a query under a name, in the place of the one that has it."""
    with asking(hub, token_file) as api:
        told = api.once("POST", "/queries", SavedQueryView, {"name": name, "query": query})
    if as_json:
        output.document(told.body)
    else:
        output.progress(f"@{told.view.name} stands for {told.view.query}")


@queries.command("remove")
@click.argument("name")
@as_json
@asks_hub
def remove(name: str, as_json: bool, hub: str | None, token_file: Path | None) -> None:
    """Forget a saved query."""
    with asking(hub, token_file) as api:
        told = api.once("DELETE", f"/queries/{segment(name)}", SavedQueryGone)
    if as_json:
        output.document(told.body)
    else:
        output.progress(f"{told.view.name} is not saved any more")
