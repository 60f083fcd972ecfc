"""Names that the shell completes: hosts come from the hub, all others from this machine.

If anything goes wrong, nothing is completed, and nothing is said.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final

import click

from processes.adapters.settings import load_anyway
from processes.cli.terminal.options import asking
from processes.client.http_link import Deadline

HOSTS_S_MAX: Final = Deadline(1.0, 1.0)  # somebody sits there with a finger on Tab
NAMES_MAX: Final = 200  # more than anybody reads

Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def _silent(names: Callable[[click.Context, str], list[str]]) -> Complete:
    """A function for click's `shell_complete`: the names that begin with the typed text and are not on the line yet."""

    def complete(context: click.Context, parameter: click.Parameter, typed: str) -> list[str]:
        with contextlib.suppress(Exception):
            there = context.params.get(parameter.name or "")
            given = there if isinstance(there, tuple) else ()
            return [name for name in names(context, typed) if name.startswith(typed) and name not in given][:NAMES_MAX]
        return []

    return complete


def _hosts(context: click.Context, typed: str) -> list[str]:
    with asking(context.params.get("hub"), context.params.get("token_file")) as api:
        query = {"search": typed} if typed else None
        return [host.name for host in api.hosts(query, HOSTS_S_MAX)]


def _processes(_context: click.Context, _typed: str) -> list[str]:
    settings, _ = load_anyway()
    return settings.all_names()


def _incidents(_context: click.Context, _typed: str) -> list[str]:
    from processes.adapters.state import incidents_db  # noqa: PLC0415  # every verb has completions, few are asked for

    settings, _ = load_anyway()
    return [view.id for view in incidents_db.incidents(settings.incidents_database)]


def _drills(_context: click.Context, _typed: str) -> list[str]:
    from processes.core.cli.drills import DRILLS  # noqa: PLC0415

    return [drill.name for drill in DRILLS]


hosts: Final = _silent(_hosts)
processes: Final = _silent(_processes)
incidents: Final = _silent(_incidents)
drills: Final = _silent(_drills)
