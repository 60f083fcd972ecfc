"""The verb `agent`: runs this server's agent from its file, or makes that file from the hub's URL and a token."""

from __future__ import annotations

import getpass
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click

from processes.adapters import agents_url
from processes.adapters.machine import code_exchange
from processes.adapters.machine.agent_unit import UNIT
from processes.adapters.machine.systemd_units import SystemdUnits
from processes.adapters.ownership import NotPrivate
from processes.adapters.state import agent_file, agent_token
from processes.cli.machine import enrolment, sign_in
from processes.cli.terminal.failure import EXIT_USAGE, Failure
from processes.cli.terminal.options import invocation
from processes.cli.verbs.systemd_unit import agent_unit
from processes.core.values import HOST_NAME, is_plain_elsewhere

ROOTS_PLACE: Final = Path("/var/lib/fleethub-agent")
OWN_PLACE: Final = "~/.local/state/fleethub-agent"
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
@click.option(
    "--code",
    metavar="CODE",
    help="With --hub, instead of --token-file: the one-time code that enroll --code printed; - reads it from stdin.",
)
@click.option("--name", help="With --hub: the name that this server was enrolled under. [default: the machine's name]")
@click.option(
    "--place",
    type=click.Path(path_type=Path, file_okay=False),
    help=f"With --hub: the agent's folder. [default: {ROOTS_PLACE if os.geteuid() == 0 else OWN_PLACE}]",
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
    code: str | None,
    name: str | None,
    place: Path | None,
    insecure: bool,
    init: bool,
    install: bool,
) -> None:
    """Run this server's agent in the foreground: from its file, or the first time with --hub URL and --code CODE or
    --token-file FILE.

    The agent's file that is made here offers the operations `uptime` and `facts`. Add others under [commands.NAME] and
    start the agent again: it runs these, and nothing else.

    To enrol a server in one line: fleethub enroll web1 | ssh root@web1 fleethub agent --hub URL --name web1
    --token-file - --install

    Or with a one-time code, which is worth nothing once it was used: fleethub enroll web1 --code, and then on web1:
    fleethub agent --hub URL --code CODE --install. The token is made here, into the token file (0600).
    """
    if (config is None) == (hub is None):
        raise click.UsageError("give --config FILE, or --hub URL with --code CODE or --token-file FILE")
    if config is None:
        assert hub is not None
        if (token_file is None) == (code is None):
            raise click.UsageError(
                "--hub needs either --code, which `fleethub enroll NAME --code` printed, or --token-file, with the "
                "token that `fleethub enroll NAME` printed"
            )
        hub = hub.strip()
        _check_way(hub, insecure)
        units = invocation().units
        place = place or _default_place()
        if install:
            _check_systemd(units, lambda: _made(hub, STDIN, name, place) if token_file == STDIN else None)
        if code is not None:
            config = _made_by_code(hub, code, name, place)
        else:
            assert token_file is not None
            config = _made(hub, token_file, name, place)
        if install:
            _install(config, units)
        elif init:
            click.echo(config)
        if init or install:
            return
    elif init or install or code is not None:
        raise click.UsageError("--init, --install and --code make the agent's file: they need --hub")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", "processes.agent", "--config", str(config)])  # noqa: S606


def _check_systemd(units: SystemdUnits, keep: Callable[[], Path | None]) -> None:
    """Check that --install can be done here, before a code is used up. A token that comes through a pipe is shown
    nowhere else: `keep` makes the agent's file with it, and nothing has to be enrolled again. Raises: Failure.
    """
    try:
        units.check()
    except Failure as failure:
        if (path := keep()) is None:
            raise
        advice = f"Its file and token are made: let whatever starts things here run fleethub agent --config {path}"
        raise Failure(failure.code, failure.message, advice) from None


def _default_place() -> Path:
    """Return the folder of this user's agent. Raises: Failure, if nobody knows where this user is at home."""
    try:
        return ROOTS_PLACE if os.geteuid() == 0 else Path(OWN_PLACE).expanduser()
    except RuntimeError:  # no HOME, and no entry in passwd: a container, or a user of its own
        raise Failure("no_place", f"user {os.geteuid()} has no home folder: HOME is not set", "Give --place.") from None


def _check_way(hub: str, insecure: bool) -> None:
    """Raises: Failure, if nothing can be dialled there, or the token would go to another machine where everybody on the
    way can read it.
    """
    try:
        agents_url.parsed(hub)
    except agents_url.BadUrl as error:
        raise Failure(
            "bad_url",
            f"--hub {hub!r} {error}",
            "The URL of the agents' port looks like wss://fleet.example.org:7701/ws",
            EXIT_USAGE,
        ) from None
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
    name = given or enrolment.own_name()
    path, url = _checked(hub, name, place, is_given=given is not None)
    token = _read_token() if token_file == STDIN else None
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        if token is not None:
            token_file = place / agent_file.read(path).token_file
            sign_in.write_secret(token_file, token)
            agent_token.discard(token_file)  # of a token that this one replaces
        agent_file.write(path, url, name, token=token_file.absolute())
    except OSError as error:
        raise Failure("no_place", f"{place}: {error.strerror or error}", "Choose another --place.") from None
    return path


def _made_by_code(hub: str, typed: str, given: str | None, place: Path) -> Path:
    """Exchange the code for a token, make the agent's file, and return its path. Raises: Failure."""
    code = code_exchange.parsed(_read_secret("code: ") if typed == "-" else typed)
    if given not in (None, code.host):
        raise Failure("other_name", f"the code is for {code.host}, not for {given}", "Leave out --name.", EXIT_USAGE)
    path, url = _checked(hub, code.host, place, is_given=True)
    file = agent_file.read(path)
    token_file = (place / file.token_file).absolute()
    ca_file = str(place / file.ca_file) if file.ca_file else ""
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        code_exchange.exchange(url, code, token_file, ca_file)
        agent_file.write(path, url, code.host, token=token_file)
    except (OSError, NotPrivate) as error:
        raise Failure("no_place", f"{place}: {error}", "Choose another --place.") from None
    return path


def _checked(hub: str, name: str, place: Path, *, is_given: bool) -> tuple[Path, str]:
    """Return the path of the agent's file and the URL for it. `is_given`: another name in that file is a mistake.

    Raises: Failure.
    """
    if not HOST_NAME.fullmatch(name):
        raise Failure("bad_name", f"{name!r} is not a host name", "Give --name as it was enrolled.", EXIT_USAGE)
    path = place / "agent.toml"
    there = agent_file.read(path).name
    if is_given and there not in ("", name):
        advice = f"Leave out --name to go on as {there}, choose another --place, or change the name in that file."
        raise Failure("other_name", f"{path} is the file of {there}, not of {name}", advice, EXIT_USAGE)
    return path, hub if urlsplit(hub).path.strip("/") else f"{hub.rstrip('/')}/ws"


def _read_token() -> str:
    """The token from stdin. Raises: Failure."""
    token = _read_secret("token: ")
    if not TOKEN.fullmatch(token):
        raise Failure(
            "no_token",
            "stdin does not hold a token",
            "fleethub enroll NAME prints it: fleethub enroll web1 | ssh root@web1 …",
        )
    return token


def _read_secret(asks: str) -> str:
    """A line from stdin; on a terminal it is asked for and not shown. Empty: there is none."""
    if sys.stdin is None:
        return ""
    return (getpass.getpass(asks) if sys.stdin.isatty() else sys.stdin.readline(TOKEN_CHARS_MAX)).strip()


def _install(config: Path, units: SystemdUnits) -> None:
    """Have systemd run the agent with this file, now and at boot. Raises: Failure."""
    units.install(UNIT, agent_unit(Path(sys.executable).absolute(), config.absolute()))
    click.echo(f"{UNIT} is enabled and runs: {config}")
