"""The verb `doctor`: checks everything that an installation needs, and says what is wrong and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import click
import msgspec

from processes.adapters.settings import Settings, SettingsError, load
from processes.cli.checks import machine, state_folder
from processes.cli.checks.finding import Finding, Level
from processes.cli.terminal import output
from processes.cli.terminal.options import as_json

GROUPS: tuple[Callable[[Settings, bool], Iterator[Finding]], ...] = (
    state_folder.folder,
    state_folder.secrets,
    state_folder.databases,
    state_folder.processes,
    machine.ports,
    machine.limits,
    machine.given_up,
    machine.disk,
    machine.certificate,
    machine.clock,
    machine.versions,
    machine.systemd,
)
MARKS = {Level.OK: "ok", Level.WARNING: "warning", Level.BAD: "bad"}


class Examined(msgspec.Struct, frozen=True):
    """All findings, as --json prints them."""

    verdict: Level
    checks: list[Finding]


@click.command()
@click.option(
    "--deep",
    is_flag=True,
    help="Read the databases to their end, however long it takes; otherwise doctor is done within a second.",
)
@as_json
def doctor(deep: bool, as_json: bool) -> int:
    """Check ports, files, limits, clock, disk, databases, versions and systemd, and say what to do. This machine only.

    Exit code: 0 all is well, 1 something should be looked at, 2 something is wrong.
    """
    found = list(_found(deep))
    verdict = max((each.level for each in found), key=list(Level).index)
    if as_json:
        output.document(Examined(verdict, found))
        return verdict.exit_code
    for each in found:
        output.mark(MARKS[each.level], f"{each.check}: {each.found}")
        if each.advice:
            output.say(f"         {each.advice}")
    return verdict.exit_code


def _found(deep: bool) -> Iterator[Finding]:
    try:
        settings = load()
    except SettingsError as error:
        yield Finding("settings", Level.BAD, str(error), "Mend this first: nothing else can be checked until then.")
        return
    yield Finding("settings", Level.OK, f"state {settings.state}")
    for group in GROUPS:
        try:
            yield from group(settings, deep)
        except Exception as error:  # a check that fails is a finding too, and the other checks go on
            name = getattr(group, "__name__", "check")
            yield Finding(
                name, Level.WARNING, f"could not be checked: {type(error).__name__}: {error}", "Look at it by hand."
            )
