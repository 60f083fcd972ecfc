"""The verb `token`: create, list, rotate and revoke the tokens of operators."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final

import click

from processes.adapters.settings import load
from processes.cli.machine import sign_in
from processes.cli.terminal import interrupt, output, question
from processes.cli.terminal.failure import EXIT_FAILED, EXIT_OK, EXIT_USAGE, Failure
from processes.cli.terminal.options import Duration, as_json, asking, asks_hub, listed, sure
from processes.cli.terminal.text import ago, since, until
from processes.client.api import segment
from processes.core.cli.tables import Cell, Column, Row
from processes.core.shown.pages import TokenGone, TokenMade, TokensPage, TokenView
from processes.core.travels.operator_requests import LIFE_S_MAX, LIFE_S_MIN, OVERLAP_S, OVERLAP_S_MAX
from processes.core.values import Role

OWN = "operator.token"
HEADER: Final = [
    Column("ID", 0), Column("ROLE", 2), Column("CREATED", 5), Column("EXPIRES", 3), Column("LAST USED", 4),
    Column("LABEL", 1),
]  # fmt: skip


@click.group()
def token() -> None:
    """Create, list, rotate and revoke tokens of operators."""


@token.command("create")
@click.option("--role", required=True, type=click.Choice([role.value for role in Role]), help="What the token may do.")
@click.option("--label", default="", help="A note of whose token it is.")
@click.option(
    "--expires",
    "expires_s",
    type=Duration(LIFE_S_MIN, LIFE_S_MAX),
    help="For how long it is good: 12h, 90d. [default: until it is revoked]",
)
@as_json
@asks_hub
def create(
    *, role: str, label: str, expires_s: float | None, as_json: bool, hub: str | None, token_file: Path | None
) -> None:
    """Create an operator token. It is printed once, alone on stdout.

    With --expires it is good no more within 2 s of that time: its connections and sessions end. An alarm tells 7 days
    before, a day before, and then. It is listed as expired for 30 days more.
    """
    asked = {"role": role, "label": label, **({} if expires_s is None else {"expires_s": expires_s})}
    with asking(hub, token_file) as api:
        told = api.once("POST", "/tokens", TokenMade, asked, promised=(201,))
    if as_json:
        output.document(told.body)
        return
    created = told.view
    until = f", good until {created.expires_at}" if created.expires_at else ""
    output.note(f"a token for the role {role}{until}, shown this once (revoke it: fleethub token revoke {created.id}):")
    output.say(created.token)


@token.command("list")
@listed
@asks_hub
def listing(*, as_json: bool, form: output.Form, hub: str | None, token_file: Path | None) -> None:
    """List operator tokens: made when, good until when, last used when. A use is told within five minutes."""
    with asking(hub, token_file) as api:
        told = api.read("/tokens", TokensPage)
        now_wall_s = api.now_wall_s()
    if as_json:
        output.document(told.body)
        return
    rows: list[Row] = [
        [
            view.id,
            view.role,
            since(view.created_at, now_wall_s),
            _end(view, now_wall_s),
            since(view.last_used_at, now_wall_s, "never"),
            view.label,
        ]
        for view in told.view.tokens
    ]
    none = "none were created; there is only operator.token in the hub's state folder"
    output.table(HEADER, rows, none, form)


def _end(view: TokenView, now_wall_s: float) -> Cell:
    if view.replaced_by:
        return Cell("replaced", f"replaced by {view.replaced_by}")
    end = until(view.expires_at, now_wall_s, "never")
    return Cell(f"expired {end.shown}", f"expired {end.exact}") if view.expired else end


@token.command("rotate")
@click.argument("token_id", metavar="ID")
@click.option(
    "--overlap",
    "overlap_s",
    type=Duration(0, OVERLAP_S_MAX),
    default=f"{OVERLAP_S // 60:.0f}m",
    show_default=True,
    help="For how long the old token is still good; 0s: it is void at once.",
)
@as_json
@asks_hub
def rotate(*, token_id: str, overlap_s: float, as_json: bool, hub: str | None, token_file: Path | None) -> None:
    """Make a new token in the place of one, with its role, its label and the same length of life. It is printed once,
    alone on stdout. The old one is void after the overlap: then its connections and sessions end.

    ID may be the label instead, if only one token has it. operator.token stands for the installation's own: on this
    machine alone, its file gets a new token, the old one is void within 2 s, and nothing is printed on stdout.
    """
    if token_id == OWN:
        _rotate_own(hub, as_json=as_json)
        return
    with asking(hub, token_file) as api:
        listed = api.read("/tokens", TokensPage).view.tokens
        id = _known(token_id, listed)
        told = api.once("POST", f"/tokens/{segment(id)}/rotate", TokenMade, {"overlap_s": overlap_s}, promised=(201,))
    if as_json:
        output.document(told.body)
        return
    old = f"the old one is good until {told.view.old_until}" if overlap_s else "the old one is void"
    output.note(f"{id}: {told.view.id} takes its place, shown this once; {old}:")
    output.say(told.view.token)


def _known(named: str, listed: list[TokenView]) -> str:
    """The id of the token of this id or label. Raises: Failure."""
    found = [view.id for view in listed if view.id == named] or [
        view.id for view in listed if view.label == named and not view.expired and not view.replaced_by
    ]
    if len(found) != 1:
        what = f"{len(found)} tokens have the label" if found else "there is no token with the id or label"
        raise Failure("unknown_token", f"{what} {named!r}", "fleethub token list shows them; give the id.")
    return found[0]


def _rotate_own(hub: str | None, *, as_json: bool) -> None:
    """Give the installation's own token file a new token. The fanouts see it at their next look. Raises: Failure."""
    if hub is not None:
        told = "operator.token is rotated on the hub's own machine"
        raise Failure("not_here", told, f"There: fleethub token rotate {OWN}", EXIT_USAGE)
    path = load().operator_token
    if not path.exists():
        raise Failure("no_installation", f"there is no {path}", "fleethub up makes one.")
    try:
        sign_in.write_secret(path, secrets.token_urlsafe(32))
    except OSError as error:
        raise Failure(
            "not_written", f"{path}: {error.strerror or error}", "Run this as the owner of the file."
        ) from None
    if as_json:
        output.document({"path": str(path)})
    else:
        output.note(f"{path} holds a new token; the old one, and the sessions that belong to it, end within 2 s")


@token.command("revoke")
@click.argument("token_id", metavar="ID")
@sure
@as_json
@asks_hub
def revoke(*, token_id: str, yes: bool, as_json: bool, hub: str | None, token_file: Path | None) -> int:
    """Make an operator token void. Its connections end within 2 s, and no restored backup brings it back.

    On a terminal you are shown whose it is, and asked.
    """
    with asking(hub, token_file) as api:
        if not yes and interrupt.asks():
            named = [view for view in api.read("/tokens", TokensPage).view.tokens if view.id == token_id]
            if named and not question.is_sure(_whose(named[0], api.now_wall_s()), f"Make {token_id} void?", yes=yes):
                return EXIT_FAILED
        told = api.once("DELETE", f"/tokens/{segment(token_id)}", TokenGone)
    if as_json:
        output.document(told.body)
    else:
        output.say(f"{token_id}: void")
    return EXIT_OK


def _whose(view: TokenView, now_wall_s: float) -> str:
    used = f"used last {ago(view.last_used_at, now_wall_s)}" if view.last_used_at else "never used"
    label = f" of {view.label}" if view.label else ""
    return f"{view.id} is a token{label} with the role {view.role}, {used}: its sessions and connections end."
