"""The verb `run`: starts a fleet run, which the hub carries on whatever happens here, and follows it to its end."""

from __future__ import annotations

import contextlib
import shlex
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from processes.cli import waits
from processes.cli.folded import ShownFolded, Spoken
from processes.cli.following import Shown, failed_line
from processes.cli.terminal import completion, interrupt, output
from processes.cli.terminal.client_failure import failure_of
from processes.cli.terminal.failure import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_NOT_ACCEPTED,
    EXIT_OK,
    EXIT_UNANSWERED,
    Failure,
)
from processes.cli.terminal.options import Seconds, as_json, asking, asks_hub, invocation
from processes.cli.terminal.streams import ReaderGone, Unwritable
from processes.cli.terminal.text import age, count
from processes.cli.verbs.choice import Plan, check_sure, choice_of, settled
from processes.client.api import Api
from processes.client.errors import HubAway, Refused
from processes.client.follow import SILENT_S_MAX, Following
from processes.client.http_link import Deadline
from processes.client.watched import Brief, Watched, WatchedRun
from processes.core.cli.tables import ID_CHARS
from processes.core.records.command import State
from processes.core.records.run import Part, PartView, RunView
from processes.core.shown import reasons
from processes.core.shown.views import CommandView
from processes.core.travels.operator_requests import (
    KEY_CHARS_MAX,
    PARALLEL,
    REQUEST_HOSTS_MAX,
    STEPS_MAX,
    TTL_S_MAX,
    TTL_WORDS,
)
from processes.core.values import OP_NAME, Presence

NAMES_MAX: Final = 5  # hosts named in one line
TOLD_MAX: Final = 20  # failed hosts whose last lines are shown once more; guess: what a person reads
OFFLINE_S_MAX: Final = Deadline(2.0, 2.0)  # the run goes on meanwhile: naming offline hosts is not worth a longer wait
WORDS = {Part.PENDING: "waiting", Part.ACTIVE: "under way", Part.NOT_ATTEMPTED: "not attempted"}


class RunDocument(msgspec.Struct, frozen=True):
    """A run as --json prints it, with those of its commands that were seen."""

    run: RunView
    commands: list[CommandView | Brief]


@click.command()
@click.argument("ops", metavar="OP[,OP...]", shell_complete=completion.ops)
@click.argument("hosts", metavar="HOST...", nargs=-1, shell_complete=completion.hosts)
@click.option("--all", "everywhere", is_flag=True, help="On every host.")
@click.option(
    "--where",
    multiple=True,
    metavar="KEY=VALUE",
    help="With --all: only on hosts whose KEY is VALUE. May be repeated.",
)
@click.option(
    "--query",
    metavar="QUERY",
    shell_complete=completion.query,
    help="On the hosts that this query finds, as `hosts QUERY` shows them.",
)
@click.option("--dry-run", is_flag=True, help="Show on which hosts it would run, and send nothing.")
@click.option("--yes", is_flag=True, help="Do not ask before it runs on more than one host.")
@click.option(
    "--parallel",
    type=click.IntRange(1, REQUEST_HOSTS_MAX),
    metavar="N",
    default=PARALLEL,
    show_default=True,
    help="On at most N hosts at a time.",
)
@click.option(
    "--max-failures",
    type=click.IntRange(0, REQUEST_HOSTS_MAX),
    metavar="N",
    help="Begin no further host once more than N have failed.",
)
@click.option(
    "--ttl",
    "ttl_s",
    type=Seconds(TTL_S_MAX, TTL_WORDS),
    metavar="TIME",
    help="How long each command may wait for its host: seconds, or 10m, 2h. "
    "[default: the hub's setting commands.ttl_s, which is 3600 if not set]",
)  # fmt: skip
@click.option(
    "--key",
    metavar="TEXT",
    help="A name for this very run: typed again with the same key, it is not begun again. [default: a new key]",
)
@click.option(
    "--failed-of",
    metavar="RUN",
    shell_complete=completion.runs,
    help="On the hosts that failed in this run, or were not attempted.",
)
@click.option("--offering", is_flag=True, help="Leave out hosts that do not offer all these operations, and name them.")
@click.option("-b", "--fold", is_flag=True, help="Print the output at the end, and what several hosts said once.")
@click.option("--no-wait", is_flag=True, help="Return once the run is accepted.")
@click.option(
    "--wait", "wait_s", type=Seconds(), metavar="TIME",
    help="How long to wait for the end: seconds, or 10m. "
    "[default: until all have ended, or the hub has not answered for 10 minutes]",
)  # fmt: skip
@as_json
@asks_hub
def run(
    *,
    ops: str,
    hosts: tuple[str, ...],
    everywhere: bool,
    where: tuple[str, ...],
    query: str | None,
    dry_run: bool,
    yes: bool,
    parallel: int,
    max_failures: int | None,
    ttl_s: float | None,
    key: str | None,
    failed_of: str | None,
    offering: bool,
    fold: bool,
    no_wait: bool,
    wait_s: float | None,
    as_json: bool,
    hub: str | None,
    token_file: Path | None,
) -> int:
    """Run operations on hosts, one after the other on each; a host where one fails takes no further part.

    Exit code 0 only if all operations succeeded on every host. On a terminal you are shown the hosts and asked, if
    there is more than one. Where nobody can be asked, --all and --query need --yes (else exit code 2). A query runs on
    exactly the hosts that it found.
    """
    if no_wait and wait_s is not None:
        raise click.UsageError("--no-wait does not wait, --wait says for how long to wait: choose one of them")
    if key is not None and not 1 <= len(key) <= KEY_CHARS_MAX:
        raise click.UsageError(f"--key must have 1 to {KEY_CHARS_MAX} characters")
    steps, choice = _steps(ops), choice_of(hosts, everywhere, where, query, failed_of)
    if offering and where:
        raise click.UsageError("--offering chooses among named hosts, those of --failed-of or all, not with --where")
    if not dry_run:
        check_sure(choice, yes=yes)
    body: dict[str, object] = {"steps": steps, "key": key or uuid.uuid4().hex}
    limits = {"parallel": parallel, "max_failures": max_failures, "ttl_s": ttl_s}
    body.update({name: value for name, value in limits.items() if value is not None})
    with asking(hub, token_file) as api:
        if failed_of is not None:
            choice = choice._replace(hosts=failed_hosts(api.run(failed_of)))
        plan = Plan(steps, parallel, offering=offering, yes=yes, dry_run=dry_run, as_json=as_json)
        chosen = settled(api, choice, plan)
        if chosen is None:
            return EXIT_OK if dry_run else EXIT_FAILED
        body.update(chosen)
        view = _started(api, body, again=_again(invocation().words, key, body))
        _tell_offline(api, view)
        if not no_wait:
            return followed(api, view, wait_s, as_json, fold=fold)
        if as_json:
            output.document(RunDocument(view, list(_commands_now(api, view))))
        else:
            output.say(view.id)
            output.progress(f"fleethub runs {view.id} --follow shows it, fleethub cancel {view.id} ends it")
        return EXIT_OK


def followed(api: Api, view: RunView, wait_s: float | None, as_json: bool, *, fold: bool = False) -> int:
    """Follow a run until it is over, or at most for `wait_s`, and return the exit code. `fold`: print its output at the
    end, and what several hosts said once.
    """
    fleet_run = WatchedRun(view)
    if not as_json:
        output.progress(f"run {view.id} on {count(view.total, 'host')}")
    with _bar(view, as_json) as (show, paused), contextlib.ExitStack() as stack:
        between: Callable[[], None] = lambda: None  # noqa: E731  # redefined below
        if interrupt.asks():
            interrupts = stack.enter_context(interrupt.Interrupts())

            def between() -> None:
                if interrupts.noted:
                    with paused():
                        _leave_or_cancel(api, fleet_run, interrupts)

        names = [part.host for part in view.hosts]
        why, several = partial(waits.why, api), view.total > 1
        shown = (
            ShownFolded(quiet=as_json, on_run=show, between=between, why_waits=why, tells_failures=several)
            if fold
            else Shown(names, quiet=as_json, on_run=show, between=between, why_waits=why, tells_failures=several)
        )
        following = Following(api, fleet_run=fleet_run, listener=shown, output=not as_json)
        left = False
        try:
            following.run(wait_s)
        except KeyboardInterrupt:
            left = True
        except (ReaderGone, Unwritable):
            if not fleet_run.over:
                output.note(f"fleethub: the run goes on: fleethub runs {view.id} --follow")
            raise
        except HubAway as away:
            told = failure_of(away)
            output.note(f"fleethub: the hub does not answer: {told.message}; what follows is {age(SILENT_S_MAX)} old")
            if told.advice:
                output.note(f"  {told.advice}")
    commands = following.commands
    if isinstance(shown, ShownFolded) and not as_json:
        shown.end(Spoken(each.id, each.host, each.op) for each in commands.values())
    if as_json:
        output.document(RunDocument(fleet_run.view, [each.shown() for each in commands.values()]))
    if left:
        output.note(
            f"fleethub: the run goes on: fleethub runs {view.id} --follow shows it, fleethub cancel {view.id} ends it"
        )
        return EXIT_INTERRUPTED
    if not as_json:
        summarize(fleet_run.view, commands, shown.last_lines)
    code = exit_code(fleet_run.view, (each.state for each in commands.values()))
    if code == EXIT_UNANSWERED:
        output.note(
            f"fleethub: not all have answered: fleethub runs {view.id} --follow goes on, "
            f"fleethub cancel {view.id} ends it"
        )
    return code


def exit_code(view: RunView, states: Iterable[State]) -> int:
    """The exit code of a run as it is now, with the states of its commands.

    0: every host has succeeded. 1: a host has ended otherwise, or was not attempted. 4: neither; some have not ended.
    """
    bad = any(state.final and state is not State.SUCCEEDED for state in states)
    if bad or view.failed or view.not_attempted:
        return EXIT_FAILED
    return EXIT_UNANSWERED if view.succeeded < view.total else EXIT_OK


def summarize(view: RunView, commands: dict[str, Watched], last_lines: Mapping[str, Iterable[str]]) -> None:
    """Print on stderr a line for each host that did not succeed, and how many hosts ended how. Those that failed come
    first, each with what its command said last, if there were several hosts to read; those that were not begun are
    named in one line.
    """
    left = [part for part in view.hosts if part.state in (Part.FAILED, Part.ACTIVE)]
    for number, part in enumerate(sorted(left, key=importance)):
        output.note(_line(part, commands.get(part.command_id or "")))
        if part.state is Part.FAILED and not part.cancelled and view.total > 1 and number < TOLD_MAX:
            for line in last_lines.get(part.command_id or "", ()):
                output.note(f"  | {line}")
    for line in unbegun(view):
        output.note(line)
    output.note(f"run {view.id} {view.state}: {counts(view)}")
    if stopped := why_stopped(view):
        output.note(stopped)


def importance(part: PartView) -> int:
    """Return where a host stands among those of its run: the failed ones first, those that wait last."""
    if part.state is Part.FAILED:
        return 1 if part.cancelled else 0
    order = (Part.ACTIVE, Part.SUCCEEDED, Part.PENDING, Part.NOT_ATTEMPTED)
    return 2 + order.index(part.state)


def unbegun(view: RunView) -> list[str]:
    """Return one line for the hosts that wait, and one for those that were not attempted."""
    lines = []
    for state in (Part.PENDING, Part.NOT_ATTEMPTED):
        names = [part.host for part in view.hosts if part.state is state]
        if names:
            how_many = f"{len(names)} hosts " if len(names) > 1 else ""
            lines.append(f"{how_many}{WORDS[state]}: {few(names)}" if how_many else f"{names[0]}: {WORDS[state]}")
    return lines


def few(names: Sequence[str]) -> str:
    """Return the first of the names, and how many more there are."""
    more = len(names) - NAMES_MAX
    return ", ".join(names[:NAMES_MAX]) + (f" and {more} more" if more > 0 else "")


def counts(view: RunView) -> str:
    """How many of the run's hosts are in which state, in words: cancelled ones apart from those that failed."""
    numbers = {part: getattr(view, part) for part in Part}
    numbers[Part.FAILED] -= view.cancelled
    said = [f"{count} {WORDS.get(part, part)}" for part, count in numbers.items() if count]
    if view.cancelled:
        said.insert(
            sum(1 for part in (Part.PENDING, Part.ACTIVE, Part.SUCCEEDED, Part.FAILED) if numbers[part]),
            f"{view.cancelled} cancelled",
        )
    return ", ".join(said)


def why_stopped(view: RunView) -> str:
    """Return what the limit of failures has done; empty, if it has done nothing."""
    if view.max_failures is None or view.failed <= view.max_failures or not (view.not_attempted or view.pending):
        return ""
    kept = f"{count(view.not_attempted or view.pending, 'host')} not attempted (--max-failures {view.max_failures})"
    return f"stopped after {count(view.failed, 'failure')}: {kept}; again on them and the failed: --failed-of {view.id}"


def _line(part: PartView, command: Watched | None) -> str:
    if command is not None and command.state.final and part.state is not Part.SUCCEEDED:
        return failed_line(command)
    state = "cancelled" if part.cancelled else WORDS.get(part.state, part.state)
    if command is not None and command.state is State.QUEUED:
        state = "waiting for its host"
    why = reasons.why(part.reason, state, None, "")
    shown = f"  (fleethub command {part.command_id[:ID_CHARS]})" if part.command_id else ""
    return f"{part.host}: {state} at {part.op}" + (f": {why}" if why else "") + shown


def _started(api: Api, body: dict[str, object], again: str) -> RunView:
    known = f"Ask again with: {again}; with that key it never runs twice. If it was accepted, fleethub runs lists it."
    try:
        return api.start_run(body)
    except (HubAway, Refused) as error:
        if isinstance(error, Refused) and error.code not in ("redirected", "bad_answer"):
            raise
        told = failure_of(error)
        end = "" if told.advice.endswith((".", "?")) or not told.advice else "."
        raise Failure("not_accepted", told.message, f"{told.advice}{end} {known}".strip(), EXIT_NOT_ACCEPTED) from None
    except KeyboardInterrupt:
        output.note(f"fleethub: interrupted before the hub answered. {known}")
        raise


def _again(words: Sequence[str], key: str | None, body: dict[str, object]) -> str:
    """The line to type to ask for the very same run again. The key comes first, before any "--" among the words."""
    return shlex.join(("fleethub", *words[:1], *(() if key is not None else ("--key", str(body["key"]))), *words[1:]))


def _tell_offline(api: Api, view: RunView) -> None:
    """Say on stderr which of the run's hosts are offline, so that it is clear what is waited for.

    Says nothing if the hub does not answer.
    """
    try:
        offline = api.hosts({"presence": Presence.OFFLINE}, OFFLINE_S_MAX)
    except (HubAway, Refused):
        return
    open_parts = {part.host for part in view.hosts if part.state in (Part.PENDING, Part.ACTIVE)}
    names = [host.name for host in offline if host.name in open_parts]
    if names and view.ttl_s > 0:
        shown = few(names)
        verb = "is offline: its command waits" if len(names) == 1 else "are offline: their commands wait"
        output.note(f"fleethub: {shown} {verb} for at most {age(view.ttl_s)}")


def _leave_or_cancel(api: Api, fleet_run: WatchedRun, interrupts: interrupt.Interrupts) -> None:
    """Cancel the run if the person wants that. Raises: KeyboardInterrupt, if the run is to be left running."""
    if not interrupts.wants_cancel():
        return
    try:
        view = api.cancel_run(fleet_run.id)
        output.note(
            f"run {view.id}: no further host is begun, and the agents of {view.active} are asked to end what they run"
        )
    except (HubAway, Refused) as error:  # it may have ended meanwhile; the caller follows it on, and will see
        output.note(f"fleethub: not cancelled: {error}")


def _commands_now(api: Api, view: RunView) -> Iterator[CommandView | Brief]:
    """The commands that the run began with. If the hub does not answer now, what is known of them without it."""
    made = [part for part in view.hosts if part.command_id is not None]
    seen: dict[str, CommandView] = {}
    with contextlib.suppress(HubAway, Refused):
        seen = {command.id: command for command in api.commands_of(view.id, len(made))}
    for part in made:
        assert part.command_id is not None
        yield seen.get(part.command_id) or Brief(part.command_id, part.host, part.op, State.QUEUED, "", None)


@contextlib.contextmanager
def _bar(
    view: RunView, as_json: bool
) -> Iterator[tuple[Callable[[RunView], None], Callable[[], contextlib.AbstractContextManager[None]]]]:
    """Show a progress bar under the output, if a person watches both streams.

    Yields the function that moves it, and the context in which it is hidden, for a question.
    """
    if as_json or not (sys.stdout.isatty() and sys.stderr.isatty()):
        yield lambda _: None, contextlib.nullcontext
        return
    shown = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("[red]{task.fields[failed]}"),
        TimeElapsedColumn(),
    )
    with Progress(*shown, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("hosts", total=view.total, failed="")

        def show(now: RunView) -> None:
            failed = f"{now.failed - now.cancelled} failed" if now.failed > now.cancelled else ""
            progress.update(task, completed=now.total - now.pending - now.active, failed=failed)

        @contextlib.contextmanager
        def paused() -> Iterator[None]:
            progress.stop()
            yield
            progress.start()

        yield show, paused


def _steps(ops: str) -> list[str]:
    steps = ops.split(",")
    if len(steps) > STEPS_MAX:
        raise click.UsageError(f"{len(steps)} operations are named, but a run has at most {STEPS_MAX}")
    for op in steps:
        if not OP_NAME.fullmatch(op):
            raise click.UsageError(
                f"OP is the name of an operation, or several separated by commas; {op!r} is not a name"
            )
    return steps


def failed_hosts(view: RunView) -> list[str]:
    """Return the hosts that failed in the run or were not attempted. Raises: Failure, if there is none."""
    names = [part.host for part in view.hosts if part.state in (Part.FAILED, Part.NOT_ATTEMPTED)]
    if not names:
        raise Failure("no_host_failed", f"no host failed in run {view.id}: {counts(view)}", exit_code=EXIT_FAILED)
    return names
