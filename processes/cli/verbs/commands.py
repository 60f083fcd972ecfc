"""The verbs of commands that were given: commands, command, cancel, logs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import click
import msgspec

from processes.cli import waits
from processes.cli.folded import ShownFolded, Spoken
from processes.cli.following import Shown
from processes.cli.terminal import completion, output
from processes.cli.terminal.failure import Failure
from processes.cli.terminal.options import as_json, asking, asks_hub, listed
from processes.cli.terminal.text import ago, count, drawn, since, took, until
from processes.client.api import Api, segment
from processes.client.errors import Refused
from processes.client.follow import Following
from processes.client.watched import commands_made, watched
from processes.core.cli.tables import Column, Row, short_ids
from processes.core.records.command import State
from processes.core.records.run import RunState
from processes.core.shown import reasons
from processes.core.shown.pages import CommandWithHistory
from processes.core.shown.views import CommandView, OutputPage, OutputView
from processes.core.values import seconds_between

HEADER: Final = [
    Column("ID", 0), Column("GIVEN", 3), Column("HOST", 1), Column("OPERATION", 2), Column("STATE", 1),
    Column("WHY", 4, prose=True),
]  # fmt: skip
HISTORY: Final = [Column("AT", 1), Column("FROM", 3), Column("TO", 0), Column("REASON", 2), Column("BY", 4)]


@click.command()
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="How many, newest first.")
@click.option("--host", "host", help="Only commands of this host.", shell_complete=completion.hosts)
@click.option(
    "--state", "state", type=click.Choice([state.value for state in State]), help="Only commands in this state."
)
@click.option("--query", "query", metavar="QUERY", help="Only of hosts that this query finds now, as hosts QUERY does.")
@listed
@asks_hub
def commands(
    *,
    limit: int,
    host: str | None,
    state: str | None,
    query: str | None,
    as_json: bool,
    form: output.Form,
    hub: str | None,
    token_file: Path | None,
) -> None:
    """List commands, newest first."""
    filters = {"host": host, "state": state, "query": query}
    with asking(hub, token_file) as api:
        found, following = api.commands({key: value for key, value in filters.items() if value is not None}, limit)
        now_wall_s = api.now_wall_s()
    if as_json:
        output.document({"commands": found, "next": following})
        return
    rows: list[Row] = [
        [its_id, since(view.created_at, now_wall_s), view.host, view.op, view.state, end_of(view)]
        for its_id, view in zip(short_ids([view.id for view in found]), found, strict=True)
    ]
    output.table(HEADER, rows, output.none_found("command", filters, "fleethub run OP HOST"), form)


@click.command()
@click.argument("command_id", metavar="ID", shell_complete=completion.commands)
@as_json
@asks_hub
def command(command_id: str, as_json: bool, hub: str | None, token_file: Path | None) -> None:
    """Show one command with its history."""
    with asking(hub, token_file) as api, _or_a_run(api, command_id):
        told = api.read(f"/commands/{segment(command_id)}", CommandWithHistory)
        if as_json:
            output.document(told.body)
            return
        view = told.view
        waits_for, now_wall_s = waits.why(api, view), api.now_wall_s()
    lasted_s = seconds_between(view.started_at or view.sent_at, view.finished_at)
    output.fields([
        ("id", view.id),
        ("host", view.host),
        ("operation", view.op),
        ("run", view.run or ""),
        ("state", ": ".join(filter(None, (view.state, reasons.why(view.reason, view.state, None, ""))))),
        ("waits", waits_for),
        ("exit code", "" if view.exit_code is None else str(view.exit_code)),
        ("took", "" if lasted_s is None else took(lasted_s)),
        ("message", view.message),
        ("given", f"{_when(view.created_at, now_wall_s)}, by {view.actor}"),
        ("expires", until(view.expires_at, now_wall_s).shown if view.state == State.QUEUED else ""),
        ("cancel asked", asked_by(view.cancel_requested_at, view.cancel_requested_by, now_wall_s)),
        ("attempts", str(view.attempt)),
        ("output", count(view.output_next, "record") + (", truncated" if view.output_truncated else "")),
    ])  # fmt: skip
    output.say()
    steps: list[Row] = [
        [since(step.at, now_wall_s), step.before or "", step.after, step.reason, step.actor] for step in view.history
    ]
    output.table(HISTORY, steps, "the history is not kept any more")


def _when(at: str | None, now_wall_s: float) -> str:
    """Return a time as a person wants it, and as it is."""
    return "" if at is None else f"{ago(at, now_wall_s)}, at {at}"


def asked_by(at: str | None, actor: str, now_wall_s: float) -> str:
    """Return when somebody asked for a cancel, and who was the first; empty, if nobody did."""
    return "" if at is None else f"{_when(at, now_wall_s)}, by {actor or 'somebody'}"


@click.command()
@click.argument("command_id", metavar="ID", shell_complete=completion.work)
@as_json
@asks_hub
def cancel(command_id: str, as_json: bool, hub: str | None, token_file: Path | None) -> None:
    """Cancel a command or a run. A command that was already sent ends only when its agent reports its end."""
    with asking(hub, token_file) as api:
        # look first what the id names: to cancel something unknown would stand in the audit as a refused attempt
        named, named_run = command_id_of(api, command_id), None
        if named != command_id:
            named_run = run_id_of(api, command_id)
        if named is not None and named_run is not None:
            said = f"{command_id!r} is the beginning of a command's id, {named}, and of a run's, {named_run}"
            raise Failure("ambiguous_id", said, "Type more of the one that is meant.")
        if named_run is not None:
            _cancel_run(api, named_run, as_json)
            return
        if named is None:
            raise unknown_id(command_id)
        view = api.cancel(named)
    if as_json:
        output.document(view)
        return
    if view.state is State.CANCELLED:
        output.say(f"{view.id}: cancelled")
    elif view.unheard_since is not None:
        output.say(f"{view.id}: {view.state}, {view.host} is not connected: it is asked to end it when it is back")
    else:
        output.say(f"{view.id}: {view.state}, its agent is asked to end it")


def unknown_id(its_id: str) -> Failure:
    """Return what is said of an id that is neither a command's nor a run's."""
    advice = "fleethub commands and fleethub runs list them."
    return Failure("unknown_id", f"there is no command and no run {its_id!r}", advice)


def command_id_of(api: Api, given: str) -> str | None:
    """Return the command's id that begins so; None, if there is none. Raises: Refused, HubAway."""
    return _known(lambda: api.command(given).id)


def run_id_of(api: Api, given: str) -> str | None:
    """Return the run's id that begins so; None, if there is none. Raises: Refused, HubAway."""
    return _known(lambda: api.run(given, hosts=False).id)


def _known(ask: Callable[[], str]) -> str | None:
    try:
        return ask()
    except Refused as refused:
        if refused.not_found:
            return None
        raise


@contextlib.contextmanager
def _or_a_run(api: Api, its_id: str) -> Iterator[None]:
    """Turn an unknown command into a Failure that says so if the id is a run's. Raises: Failure."""
    try:
        yield
    except Refused as refused:
        if refused.not_found and run_id_of(api, its_id) is not None:
            raise Failure(
                "is_a_run", f"{its_id} is a run, not a command", f"fleethub runs {its_id} names its commands."
            ) from None
        raise


def _cancel_run(api: Api, run_id: str, as_json: bool) -> None:
    view = api.cancel_run(run_id)
    if as_json:
        output.document(view)
    elif view.state is RunState.RUNNING:
        output.say(
            f"{view.id}: no further host is begun, and the agents of {view.active} are asked to end what they run"
        )
    else:
        output.say(f"{view.id}: {view.state}")


@click.command()
@click.argument("command_id", metavar="ID", shell_complete=completion.work)
@click.option("--follow", is_flag=True, help="Go on printing until the command, or the run, has ended.")
@click.option("-b", "--fold", is_flag=True, help="Of a run: print what several hosts said once.")
@as_json
@asks_hub
def logs(
    *, command_id: str, follow: bool, fold: bool, as_json: bool, hub: str | None, token_file: Path | None
) -> int | None:
    """Print the output of a command, or of a run's commands: its stdout on stdout, its stderr on stderr."""
    if follow and as_json:
        raise click.UsageError("--json prints one document at the end, --follow prints as it comes: choose one of them")
    with asking(hub, token_file) as api:
        try:
            view = api.command(command_id)
        except Refused as refused:
            if not refused.not_found:
                raise
            return _logs_of_run(api, command_id, follow=follow, fold=fold, as_json=as_json)
        if follow:
            Following(api, [watched(view)], listener=Shown(None)).run()
            return None
        records, last = _all_output(api, view.id)
    if as_json:
        page = OutputPage(view.id, records, last.next_offset, last.complete, last.truncated)
        output.document(page)
        return None
    for record in records:
        output.stream(drawn(record.data), record.stream == "stderr")
    if last.truncated:
        output.note("fleethub: the output was longer than what the hub keeps")
    return None


class RunOutput(msgspec.Struct, frozen=True):
    """The output of a run's commands as --json prints it."""

    run: str
    commands: list[OutputPage]


def _logs_of_run(api: Api, run_id: str, *, follow: bool, fold: bool, as_json: bool) -> int | None:
    """Print the output of a run's commands, host by host. Raises: Failure, if there is no run of this id."""
    named = run_id_of(api, run_id)
    if named is None:
        raise unknown_id(run_id)
    run = api.run(named)
    if follow:
        from processes.cli.verbs.run import followed  # noqa: PLC0415  # with it comes a progress bar

        return followed(api, run, None, as_json=False, fold=fold)
    made = api.commands_of(named, sum(map(commands_made, run.hosts)))
    commands = sorted(made, key=lambda command: command.host)  # those of one host stay in their order
    if as_json:
        output.document(RunOutput(named, [_whole(api, command) for command in commands]))
        return None
    shown = ShownFolded() if fold else Shown([command.host for command in commands])
    for command in commands:
        for page in _pages(api, command.id):
            for record in page.records:
                if isinstance(shown, ShownFolded):
                    shown.keep(Spoken(command.id, command.host, command.op), record)
                else:
                    shown.on_output(watched(command), record)
    if isinstance(shown, ShownFolded):
        shown.end(Spoken(command.id, command.host, command.op) for command in commands)
    return None


def _whole(api: Api, command: CommandView) -> OutputPage:
    records, last = _all_output(api, command.id)
    return OutputPage(command.id, records, last.next_offset, last.complete, last.truncated)


def _pages(api: Api, command_id: str) -> Iterator[OutputPage]:
    """Yield a command's output page by page, at least one."""
    first = 0
    while True:
        page = api.output(command_id, first)
        yield page
        if page.complete or not page.records:
            return
        first = page.next_offset


def _all_output(api: Api, command_id: str) -> tuple[list[OutputView], OutputPage]:
    pages = list(_pages(api, command_id))
    return [record for page in pages for record in page.records], pages[-1]


def end_of(view: CommandView) -> str:
    """Return why and with which code the command ended, in words; empty if nothing is to be said of that."""
    return reasons.why(view.reason, view.state, view.exit_code, "")
