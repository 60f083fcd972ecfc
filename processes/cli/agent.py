"""The verb `agent`: runs the agent of this server, from its file, or from no more than the hub's URL and a token."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click

from processes.cli import enrolment
from processes.cli.failure import Failure
from processes.core.values import HOST_NAME

PLACE: Final = Path("/var/lib/fleethub-agent") if os.geteuid() == 0 else Path("~/.local/state/fleethub-agent").expanduser()


@click.command()
@click.option("--config", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="The agent's file.")
@click.option("--hub", metavar="URL", help="Of the agents' port: ws://HOST:7701/ws or wss://…; the agent's file is made from it.")
@click.option("--token-file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="With --hub: what enroll printed.")
@click.option("--name", help="With --hub: under which name it was enrolled. [default: this machine's]")
@click.option("--place", type=click.Path(path_type=Path, file_okay=False), default=PLACE, show_default=True, help="With --hub: its folder.")
@click.option("--init", is_flag=True, help="With --hub: make the file and stop; the unit is printed by: fleethub systemd-unit --agent.")
def agent(config: Path | None, hub: str | None, token_file: Path | None, name: str | None, place: Path, init: bool) -> None:  # noqa: PLR0917  # its options
    """Run the agent of this server in the foreground: with its file, or the first time with --hub URL --token-file FILE.

    The file that is made offers `uptime` and `facts`; what is added under [commands.NAME] can be run here, and nothing else.
    """
    if (config is None) == (hub is None):
        raise click.UsageError("give --config FILE, or --hub URL with --token-file FILE")
    if config is None:
        assert hub is not None
        if token_file is None:
            raise click.UsageError("--hub needs --token-file: the token that `fleethub enroll NAME` printed")
        config = _made(hub, token_file, name or enrolment.own_name(), place)
        if init:
            click.echo(config)
            return
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", "processes.agent", "--config", str(config)])  # noqa: S606  # our own program


def _made(hub: str, token_file: Path, name: str, place: Path) -> Path:
    """The agent's file in its folder. One that is there is the operator's: only its `hub` is kept up to date."""
    parts = urlsplit(hub)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise Failure("bad_url", f"{hub!r} is not the URL of an agents' port", "It looks like wss://fleet.example.org:7701/ws", 2)
    if not HOST_NAME.fullmatch(name):
        raise Failure("bad_name", f"{name!r} is not a host name", "Give --name as it was enrolled.", 2)
    path = place / "agent.toml"
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        enrolment.write_agent_file(path, hub if parts.path.strip("/") else f"{hub.rstrip('/')}/ws", name, token=token_file.absolute())
    except OSError as error:
        raise Failure("no_place", f"{place}: {error.strerror or error}", "Choose another --place.") from None
    return path
