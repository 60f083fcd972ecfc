"""The verb `wait`: waits for the end of a command or a run."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from processes.cli import waits
from processes.cli.following import Shown
from processes.cli.terminal import completion, output
from processes.cli.terminal.failure import EXIT_FAILED, EXIT_OK, EXIT_UNANSWERED
from processes.cli.terminal.options import Seconds, as_json, asking, asks_hub
from processes.cli.verbs.commands import command_id_of, end_of, run_id_of, unknown_id
from processes.cli.verbs.run import counts, exit_code
from processes.client.api import Api
from processes.client.follow import Following
from processes.client.watched import WatchedRun, watched
from processes.core.records.command import State


@click.command()
@click.argument("its_id", metavar="ID", shell_complete=completion.work)
@click.option(
    "--wait",
    "wait_s",
    type=Seconds(),
    metavar="TIME",
    help="How long to wait: seconds, or 10m. [default: until it has ended]",
)
@as_json
@asks_hub
def wait(its_id: str, wait_s: float | None, as_json: bool, hub: str | None, token_file: Path | None) -> int:
    """Wait until a command or a run has ended, without its output.

    Exit code 0 if it succeeded, 1 if it ended otherwise, 4 if it has not ended at --wait.
    """
    with asking(hub, token_file) as api:
        named = command_id_of(api, its_id)
        if named is None:
            return _wait_for_run(api, its_id, wait_s, as_json)
        following = Following(api, [watched(api.command(named))], listener=_listener(api, as_json), output=False)
        following.run(wait_s)
        view = api.command(named)
    if as_json:
        output.document(view)
    else:
        output.say(f"{view.id}: {', '.join(filter(None, (view.state, end_of(view))))}")
    return EXIT_UNANSWERED if not view.state.final else EXIT_OK if view.state is State.SUCCEEDED else EXIT_FAILED


def _listener(api: Api, as_json: bool) -> Shown:
    return Shown(None, quiet=as_json, why_waits=partial(waits.why, api))


def _wait_for_run(api: Api, run_id: str, wait_s: float | None, as_json: bool) -> int:
    named = run_id_of(api, run_id)
    if named is None:
        raise unknown_id(run_id)
    fleet_run = WatchedRun(api.run(named))
    Following(api, fleet_run=fleet_run, listener=_listener(api, as_json), output=False).run(wait_s)
    view = api.run(named)
    if as_json:
        output.document(view)
    else:
        output.say(f"{view.id}: {view.state}: {counts(view)}")
    return exit_code(view, ())
