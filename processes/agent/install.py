"""Makes a server's agent out of a program that unpack.py has put there: token, file, unit. The last step names it.

Each step may be taken again: a code goes on with the secret that is on disk, a file that is there keeps all but `hub`,
and `program` is switched by one rename. Nothing here touches the agent's state, which holds its journal and what runs.
"""

from __future__ import annotations

import argparse
import getpass
import os
import shutil
import sys
from pathlib import Path
from urllib.parse import urlsplit

from processes.adapters import agents_url
from processes.adapters.machine import agent_unit, code_exchange
from processes.adapters.machine.systemd_units import SystemdUnits
from processes.adapters.ownership import NotPrivate
from processes.adapters.state import agent_file
from processes.agent import __main__ as agent
from processes.agent.config import ConfigError, load
from processes.core.errors import EXIT_OK, EXIT_USAGE, Failure, FleethubError
from processes.core.values import is_plain_elsewhere


def main(arguments: list[str], units: SystemdUnits = SystemdUnits()) -> int:  # noqa: B008  # it has no state
    """Install, and return the exit code. `--check`: only see that all of the program can be imported."""
    parser = argparse.ArgumentParser(prog="sh agent")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--hub-of-file", default="")
    for name in ("--hub", "--code", "--ca-file"):
        parser.add_argument(name, default="")
    parser.add_argument("--insecure", action="store_true")
    parser.add_argument("--no-service", action="store_true")
    options = parser.parse_args(arguments)
    if options.check:
        return EXIT_OK
    try:
        _install(options, units)
    except Failure as failure:
        advice = f"\n{failure.advice}" if failure.advice else ""
        print(f"fleethub agent: {failure.message}{advice}", file=sys.stderr)
        return failure.exit_code
    except (OSError, FleethubError) as error:
        print(f"fleethub agent: {error}", file=sys.stderr)
        return 1
    return EXIT_OK


def _install(options: argparse.Namespace, units: SystemdUnits) -> None:
    """Raises: Failure, FleethubError, OSError."""
    folder: Path = options.folder
    path = folder / "agent.toml"
    _enrol(options, path)
    try:
        name = load(path).name
    except ConfigError as error:
        raise Failure("bad_agent_file", str(error), "Mend it, and type the same again.") from None
    program = Path(agent.__file__).resolve().parents[2]
    _name(folder, program)
    words = [os.path.realpath(sys.executable), "-I", str(folder / "program" / "start.py")]
    if options.no_service or os.geteuid() != 0 or not units.booted.is_dir():
        line = " ".join([*words, "--config", str(path)])
        print(f"fleethub agent: {name} is ready; let whatever starts things here run:\n    {line}")
        print("One that runs already goes on with the program before: start it anew.")
        return
    units.check()
    units.install(agent_unit.UNIT, agent_unit.agent_unit(words, path))
    print(f"fleethub agent: {name} runs, now and after each boot ({agent_unit.UNIT}): {path}")


def _enrol(options: argparse.Namespace, path: Path) -> None:
    """Have a token and a file: by the code, or those that are there. Raises: Failure, FleethubError, OSError."""
    file = agent_file.read(path)
    token_file = path.parent / file.token_file
    if not options.code:
        if not file.hub or not token_file.exists():
            advice = "`fleethub enroll NAME --code` on the hub prints one."
            raise Failure("no_code", f"{path.parent} holds no agent yet: --code is needed", advice, EXIT_USAGE)
        if options.hub and options.hub != file.hub:
            agent_file.write(path, _dialled(options.hub, options.insecure), file.name)
        return
    code = code_exchange.parsed(_asked() if options.code == "-" else options.code)
    if file.name not in ("", code.host):
        advice = "Choose another --folder, or change the name in that file."
        raise Failure("other_name", f"{path} is the file of {file.name}, not of {code.host}", advice, EXIT_USAGE)
    url = _dialled(options.hub or options.hub_of_file, options.insecure)
    ca_file = options.ca_file or (str(path.parent / file.ca_file) if file.ca_file else "")
    try:
        code_exchange.exchange(url, code, token_file, ca_file)
    except NotPrivate as error:
        raise Failure("no_place", str(error), "Choose another --folder.") from None
    agent_file.write(path, url, code.host, token=token_file, ca=ca_file)


def _dialled(url: str, insecure: bool) -> str:
    """Return the URL for the agent's file. Raises: Failure, if it is none, or would show the token on its way."""
    url = url.strip()
    try:
        agents_url.parsed(url)
    except agents_url.BadUrl as error:
        advice = "The URL of the agents' port looks like wss://fleet.example.org:7701/ws"
        raise Failure("bad_url", f"--hub {url!r} {error}", advice, EXIT_USAGE) from None
    if is_plain_elsewhere(url) and not insecure:
        raise Failure(
            "insecure_url",
            f"{url} is another machine and has no TLS: whoever is on the way can read the token and give commands",
            "Give --hub wss://…, or add --insecure if a tunnel or a proxy encrypts the way.",
            EXIT_USAGE,
        )
    return url if urlsplit(url).path.strip("/") else f"{url.rstrip('/')}/ws"


def _asked() -> str:
    """Return the code that is typed on the terminal, not shown. Raises: Failure, without one."""
    try:
        with open("/dev/tty", "r+b", buffering=0):
            return getpass.getpass("code: ")
    except (OSError, EOFError):
        raise Failure("no_terminal", "there is no terminal to ask for the code on", "Give --code CODE.") from None


def _name(folder: Path, program: Path) -> None:
    """Make `program` lead to this one, by one rename; remove those that are older than the one before it."""
    link, fresh = folder / "program", folder / f".program-{os.getpid()}"
    before = link.resolve() if link.is_symlink() else None
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(Path("programs") / program.name)
    fresh.replace(link)
    for other in (folder / "programs").iterdir():
        if other not in (program, before) and not other.name.startswith("."):
            shutil.rmtree(other, ignore_errors=True)
