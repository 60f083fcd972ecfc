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
IDS_MAX: Final = 50  # newest commands or runs that are offered
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


def _ops(context: click.Context, typed: str) -> list[str]:
    """The operations that hosts offer, behind those that stand before a comma already."""
    before = typed[: typed.rfind(",") + 1]
    with asking(context.params.get("hub"), context.params.get("token_file")) as api:
        offered = {op for host in api.hosts(None, HOSTS_S_MAX) for op in host.commands or ()}
    return [before + op for op in sorted(offered - set(before.split(",")))]


def _newest_commands(context: click.Context, typed: str) -> list[str]:
    from processes.core.shown.pages import CommandsPage  # noqa: PLC0415  # every verb has completions, few are asked

    with asking(context.params.get("hub"), context.params.get("token_file")) as api:
        query = {"limit": IDS_MAX}
        return [
            view.id
            for view in api.once("GET", "/commands", CommandsPage, query=query, deadline=HOSTS_S_MAX).view.commands
        ]


def _newest_runs(context: click.Context, typed: str) -> list[str]:
    from processes.core.shown.pages import RunsPage  # noqa: PLC0415

    with asking(context.params.get("hub"), context.params.get("token_file")) as api:
        query = {"limit": IDS_MAX}
        return [view.id for view in api.once("GET", "/runs", RunsPage, query=query, deadline=HOSTS_S_MAX).view.runs]


def _work(context: click.Context, typed: str) -> list[str]:
    return [*_newest_runs(context, typed), *_newest_commands(context, typed)]


def _query(context: click.Context, typed: str) -> list[str]:
    """The last term of a query: its field, or a label that hosts have."""
    from processes.core.shown.query import RESERVED  # noqa: PLC0415

    before, term = typed[: typed.rfind(" ") + 1], typed[typed.rfind(" ") + 1 :]
    opposite = "!" if term.startswith("!") else ""
    with asking(context.params.get("hub"), context.params.get("token_file")) as api:
        labels = {
            f"{key}={value}"
            for host in api.hosts(None, HOSTS_S_MAX)
            for key, value in {**host.agent_labels, **host.labels}.items()
        }
    return [f"{before}{opposite}{word}" for word in (*(f"{name}:" for name in sorted(RESERVED)), *sorted(labels))]


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
ops: Final = _silent(_ops)
commands: Final = _silent(_newest_commands)
runs: Final = _silent(_newest_runs)
work: Final = _silent(_work)
query: Final = _silent(_query)
processes: Final = _silent(_processes)
incidents: Final = _silent(_incidents)
drills: Final = _silent(_drills)
