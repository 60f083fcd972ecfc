"""The verb `drill`: rehearses failures on this installation, and measures how fast they are found and mended."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import os
import signal
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Final

import click

from processes.adapters.settings import load
from processes.cli.drills.programme import Programme
from processes.cli.machine import own_processes, supervision
from processes.cli.terminal import completion, output
from processes.cli.terminal.failure import EXIT_FAILED, EXIT_OK, EXIT_USAGE, Failure
from processes.cli.terminal.options import as_json
from processes.core.cli import drills
from processes.core.cli.drills import BY_NAME, CI_SLACK, DRILLS, HEADER, DrillResult

ROUNDS_MAX: Final = 1000


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=completion.drills)
@click.option("--list", "listing", is_flag=True, help="List the drills, and what each of them promises.")
@click.option("--all", "everything", is_flag=True, help="Rehearse every drill, one after the other.")
@click.option(
    "--rounds",
    type=click.IntRange(1, ROUNDS_MAX),
    default=1,
    show_default=True,
    help="How often each; the median and the worst time are shown.",
)
@click.option(
    "--short",
    is_flag=True,
    help="Hold conditions that last for seconds only; with --all, leave out what cannot be short.",
)
@as_json
def drill(  # noqa: PLR0917  # click's
    names: tuple[str, ...], listing: bool, everything: bool, rounds: int, short: bool, as_json: bool
) -> int:
    """Rehearse failures on this installation. Exit code 0 only if all stayed inside their promised bounds."""
    if listing:
        _list(as_json)
        return EXIT_OK
    if everything == bool(names):
        raise click.UsageError("name drills, or say --all; --list shows them")
    if unknown := [name for name in names if name not in BY_NAME]:
        close = difflib.get_close_matches(unknown[0], BY_NAME, 1)
        meant = f"; did you mean {close[0]}?" if close else ""
        raise Failure(
            "unknown_drill", f"there is no drill {unknown[0]!r}{meant}", "fleethub drill --list shows them.", EXIT_USAGE
        )
    chosen = [each for each in DRILLS if (everything and not (short and each.long)) or each.name in names]
    programme = Programme(
        load(_environ()), short=short, slack=CI_SLACK if os.environ.get("CI") == "true" else 1.0, say=output.progress
    )
    with _terminable():
        try:
            rows = asyncio.run(programme.play(chosen, rounds, skipping=everything))
        except KeyboardInterrupt:
            output.note("fleethub: interrupted; what the drill had broken is mended")
            raise
    _show(rows, programme.left_out, as_json)
    return EXIT_OK if rows and all(row.ok for row in rows) else EXIT_FAILED


def _environ() -> Mapping[str, str]:
    """The variables of settings that the running installation was started with; our own environment if none runs.

    Raises: Failure, if it is another user's.
    """
    settings = load()
    supervision.check_ours(settings)
    running = own_processes.supervisord_of(settings)
    return (
        os.environ
        if running is None
        else {key: value for key, value in running.environ.items() if key.startswith("FLEETHUB_")}
    )


def _list(as_json: bool) -> None:
    if as_json:
        output.document({"drills": DRILLS})
        return
    rows = []
    for each in DRILLS:
        needs = [word for word, holds in (("drills.enabled", each.inside), ("root", each.mounts)) if holds]
        rows.append([each.name, each.what, _bound(each.found_s), _bound(each.well_s), ", ".join(needs), each.why])
    output.table(["DRILL", "WHAT", "FOUND WITHIN", "WELL WITHIN", "NEEDS", "WHY"], rows)


def _bound(bound_s: float | None) -> str:
    return "-" if bound_s is None else f"{bound_s:.0f} s"


def _show(rows: list[DrillResult], left_out: list[tuple[str, str]], as_json: bool) -> None:
    if as_json:
        output.document({"drills": rows, "left_out": [{"name": name, "why": why} for name, why in left_out]})
        return
    output.table(
        ["", *(name.upper() for name in HEADER)], [["ok" if row.ok else "failed", *drills.cells(row)] for row in rows]
    )
    for row in rows:
        for line in row.trouble:
            output.say(f"{row.name}: {line}")
    for name, why in left_out:
        output.say(f"{name} was left out: {why}")
    failed = sum(not row.ok for row in rows)
    output.say(f"{len(rows)} drill{'s' * (len(rows) != 1)}, {len(rows) - failed} inside their bounds, {failed} not")


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """While this context is open, SIGTERM acts as Ctrl-C does, so that what is broken is mended before we end."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
