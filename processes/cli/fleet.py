"""The verbs of the fleet: hosts, host, remove, enroll, revoke."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
from rich.console import RenderableType

from processes.cli import enrolment, live, output
from processes.cli.client import decoded, segment
from processes.cli.failure import Failure
from processes.cli.options import as_json, asking, asks_hub
from processes.core.pages import HostsPage
from processes.core.values import HOST_NAME, Presence
from processes.core.views import HostView

HEADER = ["NAME", "PRESENCE", "LAST SEEN", "TYPE", "AGENT", "LOAD", "OPERATIONS"]


@click.command()
@click.option("--watch", is_flag=True, help="A screen that lives, until Ctrl-C.")
@as_json
@asks_hub
def hosts(watch: bool, as_json: bool, hub: str | None, token_file: Path | None) -> None:
    """List the fleet."""
    if watch and as_json:
        raise click.UsageError("--json is one document, and --watch has no end: choose one of them")
    with asking(hub, token_file) as api:
        if watch:
            live.watch(api, _picture)
        body = api.read("/hosts")
    page = decoded(body, HostsPage)
    if as_json:
        output.document(body)
        return
    output.table(HEADER, [_row(host) for host in page.hosts], "no hosts yet: fleethub enroll NAME")


def _row(host: HostView) -> list[str]:
    seen = host.last_seen or "never"
    return [host.name, host.presence, seen, host.host_type, host.agent_version, _load(host), " ".join(host.commands or [])]


def _picture(picture: live.Picture, said: str) -> RenderableType | None:
    """The fleet now, the unwell first, as many as the screen holds."""
    known = msgspec.json.decode(msgspec.json.encode(list(picture.rows.get("host", {}).values())), type=list[HostView])
    order = list(Presence)[::-1]
    rows = [_row(host) for host in sorted(known, key=lambda host: (order.index(Presence(host.presence)), host.name))]
    counts = ", ".join(f"{sum(host.presence == presence for host in known)} {presence}" for presence in Presence)
    return output.screen(f"{len(known)} hosts: {counts} ({said})", HEADER, rows)


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
        ("suspended", f"since {view.suspended_at}: {view.suspended}. Lift it: fleethub lift {view.name}" if view.suspended else ""),
        ("not shown", view.put_aside),
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


@click.command()
@click.argument("name")
@as_json
@asks_hub
def lift(name: str, as_json: bool, hub: str | None, token_file: Path | None) -> None:
    """Lift the suspension of a host's token; its agent is back within a minute."""
    with asking(hub, token_file) as api:
        body = api.once("POST", f"/hosts/{segment(name)}/lift")
    _done(body, as_json, f"{name}: its token is not suspended")


def _done(body: bytes, as_json: bool, line: str) -> None:
    if as_json:
        output.document(body or b"{}")
    else:
        output.say(line)


def _load(host: HostView) -> str:
    return "" if host.metrics is None or host.metrics.load is None else f"{host.metrics.load:.2f}"
