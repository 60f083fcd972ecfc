"""The verb `agent`: runs this server's agent from its file, or makes that file from the hub's URL and a token."""

from __future__ import annotations

import getpass
import os
import re
import sys
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click

from processes.adapters.settings import is_plain_elsewhere
from processes.cli.machine import enrolment, sign_in
from processes.cli.machine.systemd_units import SystemdUnits
from processes.cli.terminal.failure import EXIT_USAGE, Failure
from processes.cli.terminal.options import invocation
from processes.cli.verbs.systemd_unit import agent_unit
from processes.core.values import HOST_NAME

PLACE: Final = (
    Path("/var/lib/fleethub-agent") if os.geteuid() == 0 else Path("~/.local/state/fleethub-agent").expanduser()
)
UNIT: Final = "fleethub-agent.service"
STDIN: Final = Path("-")
TOKEN_CHARS_MAX: Final = 4096
TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{32,}")  # `enroll` prints 43 of these characters


@click.command()
@click.option("--config", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="The agent's file.")
@click.option(
    "--hub",
    metavar="URL",
    help="Make the agent's file, with this URL of the agents' port: ws://HOST:7701/ws or wss://…",
)
@click.option(
    "--token-file", type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True),
    help="With --hub: file with the token that enroll printed; - reads it from stdin into the agent's folder.",
)  # fmt: skip
@click.option("--name", help="With --hub: the name that this server was enrolled under. [default: the machine's name]")
@click.option(
    "--place",
    type=click.Path(path_type=Path, file_okay=False),
    default=PLACE,
    show_default=True,
    help="With --hub: the agent's folder.",
)
@click.option(
    "--insecure",
    is_flag=True,
    help="With --hub ws://…: dial another machine without TLS, because a tunnel or a proxy encrypts the way.",
)
@click.option("--init", is_flag=True, help="With --hub: make the agent's file, print its path and stop.")
@click.option(
    "--install",
    is_flag=True,
    help="With --hub: make the agent's file and a systemd unit that runs the agent, now and after each boot.",
)
def agent(
    *,
    config: Path | None,
    hub: str | None,
    token_file: Path | None,
    name: str | None,
    place: Path,
    insecure: bool,
    init: bool,
    install: bool,
) -> None:
    """Run this server's agent in the foreground: from its file, or the first time with --hub URL --token-file FILE.

    The agent's file that is made here offers the operations `uptime` and `facts`. Add others under [commands.NAME] and
    start the agent again: it runs these, and nothing else.

    To enrol a server in one line: fleethub enroll web1 | ssh root@web1 fleethub agent --hub URL --name web1
    --token-file - --install
    """
    if (config is None) == (hub is None):
        raise click.UsageError("give --config FILE, or --hub URL with --token-file FILE")
    if config is None:
        assert hub is not None
        if token_file is None:
            raise click.UsageError("--hub needs --token-file: the token that `fleethub enroll NAME` printed")
        _check_way(hub, insecure)
        units = invocation().units
        if install:
            units.check()
        config = _made(hub, token_file, name, place)
        if install:
            _install(config, units)
        elif init:
            click.echo(config)
        if init or install:
            return
    elif init or install:
        raise click.UsageError("--init and --install make the agent's file: they need --hub")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", "processes.agent", "--config", str(config)])  # noqa: S606


def _check_way(hub: str, insecure: bool) -> None:
    """Raises: Failure, if the token would go to another machine where everybody on the way can read it."""
    if is_plain_elsewhere(hub) and not insecure:
        raise Failure(
            "insecure_url",
            f"{hub} is another machine and has no TLS: whoever is on the way can read the token and give commands",
            "Give a wss:// URL, or add --insecure if a tunnel or a proxy encrypts the way.",
            EXIT_USAGE,
        )


def _made(hub: str, token_file: Path, given: str | None, place: Path) -> Path:
    """Make the agent's file in its folder and return its path.

    A file that exists is the operator's: only its `hub` is kept up to date. Raises: Failure.
    """
    parts = urlsplit(hub)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise Failure(
            "bad_url",
            f"{hub!r} is not the URL of an agents' port",
            "It looks like wss://fleet.example.org:7701/ws",
            EXIT_USAGE,
        )
    name = given or enrolment.own_name()
    if not HOST_NAME.fullmatch(name):
        raise Failure("bad_name", f"{name!r} is not a host name", "Give --name as it was enrolled.", EXIT_USAGE)
    path = place / "agent.toml"
    there = enrolment.existing(path).name
    if given is not None and there not in ("", given):
        advice = f"Leave out --name to go on as {there}, choose another --place, or change the name in that file."
        raise Failure("other_name", f"{path} is the file of {there}, not of {given}", advice, EXIT_USAGE)
    token = _read_token() if token_file == STDIN else None
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        if token is not None:
            token_file = place / enrolment.existing(path).token_file
            sign_in.write_secret(token_file, token)
        enrolment.write_agent_file(
            path, hub if parts.path.strip("/") else f"{hub.rstrip('/')}/ws", name, token=token_file.absolute()
        )
    except OSError as error:
        raise Failure("no_place", f"{place}: {error.strerror or error}", "Choose another --place.") from None
    return path


def _read_token() -> str:
    """The token from stdin; on a terminal it is asked for and not shown. Raises: Failure."""
    token = ""
    if sys.stdin is not None:
        token = (getpass.getpass("token: ") if sys.stdin.isatty() else sys.stdin.readline(TOKEN_CHARS_MAX)).strip()
    if not TOKEN.fullmatch(token):
        raise Failure(
            "no_token",
            "stdin does not hold a token",
            "fleethub enroll NAME prints it: fleethub enroll web1 | ssh root@web1 …",
        )
    return token


def _install(config: Path, units: SystemdUnits) -> None:
    """Have systemd run the agent with this file, now and at boot. Raises: Failure."""
    units.install(UNIT, agent_unit(Path(sys.executable).absolute(), config.absolute()))
    click.echo(f"{UNIT} is enabled and runs: {config}")
