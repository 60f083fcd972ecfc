"""The verb `run`: gives a command, streams its output, and says by its exit code how it ended everywhere."""

from __future__ import annotations

import contextlib
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from processes.cli import output
from processes.cli.client import Api, HubAway
from processes.cli.failure import EXIT_FAILED, EXIT_NOT_ACCEPTED, EXIT_OK, EXIT_UNANSWERED, Failure
from processes.cli.follow import Following
from processes.cli.options import as_json, asking, asks_hub
from processes.cli.watch import Watched
from processes.core.command import State
from processes.core.values import OP_NAME
from processes.core.views import HostView


@click.command()
@click.argument("op", metavar="OP")
@click.argument("hosts", metavar="HOST...", nargs=-1)
@click.option("--all", "everywhere", is_flag=True, help="On every host.")
@click.option("--where", multiple=True, metavar="KEY=VALUE", help="With --all: on those hosts whose KEY is VALUE. May be repeated.")
@click.option("--ttl", "ttl_s", type=click.FloatRange(0), metavar="S", help="How long it may wait for its host.")
@click.option("--no-wait", is_flag=True, help="Return once it is accepted.")
@click.option("--wait", "wait_s", type=click.FloatRange(0), metavar="S", help="How long to wait for the end.")
@as_json
@asks_hub
def run(
    *,
    op: str,
    hosts: tuple[str, ...],
    everywhere: bool,
    where: tuple[str, ...],
    ttl_s: float | None,
    no_wait: bool,
    wait_s: float | None,
    as_json: bool,
    hub: str | None,
    token_file: Path | None,
) -> int:
    """Run an operation on hosts. Exit code 0 only if it succeeded on every one."""
    _check(op, hosts, everywhere, where)
    with asking(hub, token_file) as api:
        names = _matching(api.hosts(), where) if everywhere else list(hosts)
        body: dict[str, object] = {"op": op, "hosts": names, "key": uuid.uuid4().hex}
        if ttl_s is not None:
            body["ttl_s"] = ttl_s
        try:
            accepted = api.give(body).commands
        except HubAway as away:
            raise Failure(
                "not_accepted",
                str(away),
                f"If it was accepted after all, fleethub commands shows it with the key {body['key']}.",
                EXIT_NOT_ACCEPTED,
            ) from None
        if no_wait:
            if as_json:
                output.document({"commands": accepted})
            else:
                output.table(["ID", "HOST", "OPERATION", "STATE"], [[each.id, each.host, each.op, each.state] for each in accepted])
            return EXIT_OK
        commands = [Watched(each.id, each.host, each.op, State(each.state)) for each in accepted]
        return _follow(api, commands, wait_s, as_json)


def exit_code(states: Iterable[State]) -> int:
    """0: all succeeded. 1: any ended otherwise. 4: none did, and some have not ended."""
    found = set(states)
    if any(state.final and state is not State.SUCCEEDED for state in found):
        return EXIT_FAILED
    return EXIT_UNANSWERED if any(not state.final for state in found) else EXIT_OK


def _follow(api: Api, commands: list[Watched], wait_s: float | None, as_json: bool) -> int:
    with _bar(len(commands), as_json) as advance:
        following = Following(api, commands, quiet=as_json, on_end=lambda _: advance())
        try:
            following.run(wait_s)
        except KeyboardInterrupt:
            output.note("fleethub: the commands go on: fleethub commands shows them, fleethub cancel ID ends one")
            raise
        except HubAway as away:
            output.note(f"fleethub: {away}")
    if as_json:
        output.document({"commands": [_view(api, each) for each in following.commands.values()]})
    else:
        _summarize(list(following.commands.values()))
    return exit_code(each.state for each in following.commands.values())


def _view(api: Api, each: Watched) -> msgspec.Struct:
    with contextlib.suppress(HubAway, Failure):
        return api.command(each.id)
    return each.brief()


def _summarize(commands: list[Watched]) -> None:
    for each in commands:
        if each.state is not State.SUCCEEDED:
            code = f"exit code {each.exit_code}" if each.exit_code else ""
            output.note(
                f"{each.host}: {each.state} {', '.join(filter(None, (each.reason, code)))}".rstrip() + f"  (fleethub command {each.id})"
            )
    counts = Counter(str(each.state) for each in commands)
    output.note(", ".join(f"{count} {state}" for state, count in counts.most_common()))


@contextlib.contextmanager
def _bar(total: int, as_json: bool) -> Iterator[Callable[[], None]]:
    """A progress bar under the output, if a person watches both streams; else nothing."""
    if as_json or not (sys.stdout.isatty() and sys.stderr.isatty()):
        yield lambda: None
        return
    shown = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*shown, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("hosts", total=total)
        yield lambda: progress.advance(task)


def _check(op: str, hosts: tuple[str, ...], everywhere: bool, where: tuple[str, ...]) -> None:
    if not OP_NAME.fullmatch(op):
        raise click.UsageError(f"OP is one operation's name, and {op!r} is not")
    if everywhere == bool(hosts):
        raise click.UsageError("name the hosts, or say --all" if not hosts else "name the hosts or say --all, not both")
    if where and not everywhere:
        raise click.UsageError("--where chooses among all hosts: say --all with it")
    for condition in where:
        if not condition.partition("=")[1] or not condition.partition("=")[0]:
            raise click.UsageError(f"--where {condition!r} is not KEY=VALUE")


def _matching(hosts: list[HostView], where: tuple[str, ...]) -> list[str]:
    """Names of the hosts that meet every condition, on a field of the host or on a fact that its agent told."""
    conditions = [condition.partition("=")[::2] for condition in where]
    found = [host.name for host in hosts if all(_text(host, key) == value for key, value in conditions)]
    if not found:
        raise Failure("no_host", f"no host has {' and '.join(where)}" if where else "there are no hosts", "fleethub hosts lists them.")
    return found


def _text(host: HostView, key: str) -> str | None:
    facts = msgspec.json.decode(host.facts, type=dict[str, object])
    value = getattr(host, key) if key in host.__struct_fields__ else facts.get(key)
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, str | int | float) else None
