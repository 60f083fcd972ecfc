"""The verb `token`: create, list and revoke the tokens of operators."""

from __future__ import annotations

from pathlib import Path

import click

from processes.cli.terminal import output
from processes.cli.terminal.options import as_json, asking, asks_hub
from processes.client.api import segment
from processes.core.shown.pages import TokenGone, TokenMade, TokensPage
from processes.core.values import Role


@click.group()
def token() -> None:
    """Create, list and revoke tokens of operators."""


@token.command("create")
@click.option("--role", required=True, type=click.Choice([role.value for role in Role]), help="What the token may do.")
@click.option("--label", default="", help="A note of whose token it is.")
@as_json
@asks_hub
def create(role: str, label: str, as_json: bool, hub: str | None, token_file: Path | None) -> None:
    """Create an operator token. It is printed once, alone on stdout."""
    with asking(hub, token_file) as api:
        told = api.once("POST", "/tokens", TokenMade, {"role": role, "label": label}, promised=(201,))
    if as_json:
        output.document(told.body)
        return
    created = told.view
    output.note(f"a token for the role {role}, shown this once (revoke it: fleethub token revoke {created.id}):")
    output.say(created.token)


@token.command("list")
@as_json
@asks_hub
def listing(as_json: bool, hub: str | None, token_file: Path | None) -> None:
    """List operator tokens by id, role and label."""
    with asking(hub, token_file) as api:
        told = api.read("/tokens", TokensPage)
    if as_json:
        output.document(told.body)
        return
    rows = [[view.id, view.role, view.created_at or "", view.label] for view in told.view.tokens]
    none = "none were created; there is only operator.token in the hub's state folder"
    output.table(["ID", "ROLE", "CREATED", "LABEL"], rows, none)


@token.command("revoke")
@click.argument("token_id", metavar="ID")
@as_json
@asks_hub
def revoke(token_id: str, as_json: bool, hub: str | None, token_file: Path | None) -> None:
    """Make an operator token void. Its connections end within 2 s, and no restored backup brings it back."""
    with asking(hub, token_file) as api:
        told = api.once("DELETE", f"/tokens/{segment(token_id)}", TokenGone)
    if as_json:
        output.document(told.body)
    else:
        output.say(f"{token_id}: void")
