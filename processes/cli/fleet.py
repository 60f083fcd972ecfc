"""The verbs of the fleet: hosts, host, remove, enroll, revoke; and token create."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from processes.cli import enrolment, output
from processes.cli.client import HostsPage, decoded, segment
from processes.cli.failure import Failure
from processes.cli.options import as_json, asking, asks_hub
from processes.core.values import HOST_NAME, Role
from processes.core.views import HostView


class NewToken(msgspec.Struct, frozen=True):
    """POST /api/v1/tokens. The token is shown this once."""

    token: str


@click.command()
@as_json
@asks_hub
def hosts(as_json: bool, hub: str | None, token_file: Path | None) -> None:
    """List the fleet."""
    with asking(hub, token_file) as api:
        body = api.read("/hosts")
    page = decoded(body, HostsPage)
    if as_json:
        output.document(body)
        return
    rows = [
        [
            host.name,
            host.presence,
            host.last_seen or "never",
            host.host_type,
            host.agent_version,
            _load(host),
            " ".join(host.commands or []),
        ]
        for host in page.hosts
    ]
    output.table(["NAME", "PRESENCE", "LAST SEEN", "TYPE", "AGENT", "LOAD", "OPERATIONS"], rows, "no hosts yet: fleethub enroll NAME")


@click.command()
@click.argument("name")
@as_json
@asks_hub
def host(name: str, as_json: bool, hub: str | None, token_file: Path | None) -> None:
    """Show one host."""
    with asking(hub, token_file) as api:
        body = api.read(f"/hosts/{segment(name)}")
    view = decoded(body, HostView)
    if as_json:
        output.document(body)
        return
    metrics = msgspec.to_builtins(view.metrics) if view.metrics else {}
    output.fields([
        ("name", view.name),
        ("presence", view.presence),
        ("last seen", view.last_seen or "never"),
        ("connected since", view.connected_since or ""),
        ("address", view.address),
        ("enrolled", (view.enrolled_at or "") + (", its token is revoked" if view.revoked else "")),
        ("type", view.host_type),
        ("agent", view.agent_version),
        ("system", view.os_version),
        ("operations", " ".join(view.commands or [])),
        ("running", view.pending_command or ""),
        *((key, str(value)) for key, value in metrics.items() if value is not None),
        ("facts", "" if bytes(view.facts) == b"{}" else bytes(view.facts).decode(errors="replace")),
    ])  # fmt: skip


@click.command()
@click.argument("name")
@as_json
@asks_hub
def remove(name: str, as_json: bool, hub: str | None, token_file: Path | None) -> None:
    """Remove a host: its waiting commands are cancelled, its sent and running ones lost."""
    with asking(hub, token_file) as api:
        body = api.once("DELETE", f"/hosts/{segment(name)}")
    _done(body, as_json, f"{name}: removed")


@click.command()
@click.argument("name")
@click.option("--again", is_flag=True, help="Give an existing host a new token; the old one is void.")
@as_json
@asks_hub
def enroll(name: str, again: bool, as_json: bool, hub: str | None, token_file: Path | None) -> None:
    """Enrol a host. Its token is printed once, alone on stdout."""
    if not HOST_NAME.fullmatch(name):
        raise Failure("bad_name", f"{name!r} is not a host name", "Letters, digits, hyphens and dots, as in RFC 1123.", 2)
    with asking(hub, token_file) as api:
        enrolled = enrolment.enroll(api, name, again)
    if as_json:
        output.document(enrolled)
        return
    output.note(f"{enrolled.name}: enrolled. This is its token, shown this once: put it into the file that agent.toml names as token_file.")
    output.say(enrolled.token)


@click.command()
@click.argument("name")
@as_json
@asks_hub
def revoke(name: str, as_json: bool, hub: str | None, token_file: Path | None) -> None:
    """Make a host's token void; its connection ends within 2 s."""
    with asking(hub, token_file) as api:
        body = api.once("POST", f"/hosts/{segment(name)}/revoke")
    _done(body, as_json, f"{name}: its token is void")


@click.group()
def token() -> None:
    """Tokens of operators."""


@token.command("create")
@click.option("--role", required=True, type=click.Choice([role.value for role in Role]), help="What it may do.")
@click.option("--label", default="", help="Whose it is.")
@as_json
@asks_hub
def token_create(role: str, label: str, as_json: bool, hub: str | None, token_file: Path | None) -> None:
    """Create an operator token. It is printed once, alone on stdout."""
    with asking(hub, token_file) as api:
        body = api.once("POST", "/tokens", {"role": role, "label": label})
    created = decoded(body, NewToken)
    if as_json:
        output.document(body)
        return
    output.note(f"a token for a {role}, shown this once:")
    output.say(created.token)


def _done(body: bytes, as_json: bool, line: str) -> None:
    if as_json:
        output.document(body or b"{}")
    else:
        output.say(line)


def _load(host: HostView) -> str:
    return "" if host.metrics is None or host.metrics.load is None else f"{host.metrics.load:.2f}"
