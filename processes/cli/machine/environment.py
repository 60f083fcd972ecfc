"""What supervisord needs before it starts: the variables that supervisord.conf expands, and the folders."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import processes
from processes.adapters import own_user
from processes.adapters.settings import Settings, checkout
from processes.adapters.state import durable
from processes.cli.terminal.failure import Failure

_FORBIDDEN: Final = '"\\\n'  # supervisord splits its commands as a shell does


def variables(settings: Settings, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables that supervisord.conf expands.

    Raises: Failure, if a path cannot stand in supervisord's configuration.
    """
    python = Path(sys.executable).absolute()
    found = {
        "FLEETHUB_STATE": str(settings.state),
        "FLEETHUB_PYTHON": str(python),
        "FLEETHUB_OPERATORS_LISTEN": settings.file.operators.listen,
        "FLEETHUB_AGENTS_LISTEN": settings.file.agents.listen,
        "FLEETHUB_QUEUES_START": str(bool(settings.names("queues"))).lower(),
        # one more than processes: member 0 of each group only holds the socket
        "FLEETHUB_GATEWAY_MEMBERS": str(settings.file.gateway.processes + 1),
        "FLEETHUB_FANOUT_MEMBERS": str(settings.file.fanout.processes + 1),
    }
    for name, value in found.items():
        if any(character in value for character in _FORBIDDEN):
            raise Failure(
                "bad_path",
                f'{name} is {value!r}: supervisord cannot take " \\ or a line break in it',
                "Choose another place.",
            )
    if "FLEETHUB_CONFIG" in environ:
        found["FLEETHUB_CONFIG"] = str(settings.config)
    return found


def path(environ: Mapping[str, str] = os.environ) -> str:
    """A PATH on which this installation's supervisord is found, for a shell in which a person starts it.

    `up` starts it without: what is on the PATH of supervisord is on that of this machine's agent and of its commands,
    and they are to find the system's pip and python3 there, not the hub's.
    """
    own, given = str(Path(sys.executable).absolute().parent), environ.get("PATH", os.defpath)
    return given if own in given.split(os.pathsep) else f"{own}{os.pathsep}{given}"


def exports(found: Mapping[str, str]) -> str:
    """The variables as `export` lines for a shell to eval."""
    return "".join(f"export {name}={_quoted(value)}\n" for name, value in found.items())


def make_folders(settings: Settings) -> None:
    """The state folder and those that supervisord needs exist and are this user's; nothing in it that others must not
    read or change is open to them.

    Raises: Failure, naming the folder or file, what is wrong with it, and what mends it.
    """
    from processes.adapters.state import private_files  # noqa: PLC0415  # for the verbs that make an installation

    for folder in (settings.state, settings.log, settings.run):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            owner = folder.stat().st_uid
        except OSError as error:
            raise _unusable(folder, error.strerror or str(error)) from None
        if owner != os.geteuid():
            raise _unusable(folder, f"it belongs to user {owner}, and this is user {os.geteuid()}")
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise _unusable(folder, "it is not writable")
    for folder in (settings.log, settings.run):
        own_user.close(folder)
    for kind in own_user.KINDS:
        if own_user.is_wanted(settings, kind) and not own_user.hindrances(settings, kind):
            with contextlib.suppress(OSError):  # the process goes on as root then, and says why
                own_user.show(settings, kind)
    if wrong := list(private_files.faults(settings)):
        raise Failure("not_private", "; ".join(each.what for each in wrong), "\n".join(each.mend for each in wrong))
    for folder in (settings.state, settings.histories, settings.run, *settings.run.glob("*/")):
        durable.sweep(folder)


def configuration() -> Path:
    """The path of supervisord.conf: the checkout's, or the one in the installed package."""
    home = checkout()
    return home / "supervisord.conf" if home else Path(processes.__file__).with_name("supervisord.conf")


def program() -> str:
    """What a person types to run the command line: bin/fleethub in a checkout that is not on the PATH."""
    home = checkout()
    return "bin/fleethub" if home and not shutil.which("fleethub") else "fleethub"


def _quoted(value: str) -> str:
    quoted = shlex.quote(value)
    return quoted if quoted.startswith("'") else f"'{quoted}'"


def _unusable(folder: Path, why: str) -> Failure:
    return Failure(
        "state_unusable",
        f"the state folder cannot be used: {folder}: {why}",
        "Set FLEETHUB_STATE to a folder of your own.",
    )


def refuse_elsewhere(settings: Settings, what: str) -> None:
    """Raises: Failure, if the truth is not in the state folder, where `what` would look for it."""
    if settings.file.store.url:
        raise Failure(
            "elsewhere",
            f"{what} is for a database in the state folder, and store.url says that PostgreSQL has it",
            "Use PostgreSQL's own means, such as pg_dump or a base backup.",
        )
