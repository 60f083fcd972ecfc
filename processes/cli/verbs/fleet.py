"""The verbs of the fleet: hosts, host, enroll, revoke, remove, lift."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from processes.cli import live
from processes.cli.terminal import completion, interrupt, output, question
from processes.cli.terminal.failure import EXIT_FAILED, EXIT_OK, EXIT_USAGE, Failure
from processes.cli.terminal.options import Duration, as_json, asking, asks_hub, listed, sure
from processes.cli.terminal.text import age, ago, count, since
from processes.cli.verbs.label import labels_of
from processes.client.api import Api, segment
from processes.client.errors import HubAway, Refused
from processes.core.cli.tables import Cell, Column, short_ids
from processes.core.shown.pages import HostCode, HostEnrolled, HostRemoved, HostsPage, Me, SavedQueries
from processes.core.shown.query import Query, QueryError, parse
from processes.core.shown.status import WELL, Verdict
from processes.core.shown.versions import is_old_agent
from processes.core.shown.views import HostView
from processes.core.travels.agent_frames import Metrics
from processes.core.travels.operator_requests import CODE_S_MAX, LIFE_S_MIN
from processes.core.values import ENROLMENT_CODE_S, HOST_NAME, Presence, is_plain_elsewhere

if TYPE_CHECKING:
    from rich.console import RenderableType

    from processes.client.feed import Picture

HEADER = [
    Column("NAME", 0), Column("PRESENCE", 1), Column("LAST SEEN", 2), Column("CPU", 4), Column("MEMORY", 5),
    Column("DISK", 6), Column("LOAD", 8), Column("RUNNING", 3), Column("AGENT", 7), Column("OPERATIONS", 9, prose=True),
]  # fmt: skip
COMMANDS_SHOWN = 5  # the newest of one host

_facts = msgspec.json.Decoder(dict[str, Any])


@click.command()
@click.argument("query", nargs=-1, shell_complete=completion.query)
@click.option("--watch", is_flag=True, help="Show a live screen until Ctrl-C.")
@click.option(
    "--presence", type=click.Choice([presence.value for presence in Presence]), help="Only hosts of this presence."
)
@click.option("--search", metavar="TEXT", help="Only hosts whose name contains this text.")
@listed
@asks_hub
def hosts(
    *,
    query: tuple[str, ...],
    watch: bool,
    presence: str | None,
    search: str | None,
    as_json: bool,
    form: output.Form,
    hub: str | None,
    token_file: Path | None,
) -> None:
    """List the hosts of the fleet, or those that QUERY finds.

    QUERY is as on the page: role=web '!os:debian' 'cpu>80' offline 'since>10m' 'name:web*'. All its terms must match:
    a word is looked for in name, presence, type, system, running command and labels; field:text, field=text and
    field>number look at one field; ! is the opposite; @NAME stands for a saved query.
    """
    words = " ".join(query)
    if watch and as_json:
        raise click.UsageError("--json is one document, and --watch has no end: choose one of them")
    given = (("presence", presence), ("search", search), ("query", words or None))
    filters = {key: value for key, value in given if value is not None}
    with asking(hub, token_file) as api:
        if watch:
            api.once("GET", "/me", Me)  # so that its clock is known
            from processes.client.feed import Feed  # noqa: PLC0415  # with it comes a WebSocket

            wanted = query_of(_whole(api, words))
            live.watch(
                Feed(api), lambda picture, said: _picture(picture, said, api.now_wall_s(), filters, wanted, form=form)
            )
        told = api.read("/hosts", HostsPage, filters)
        now_wall_s = api.now_wall_s()
        if not as_json:
            _say_how_old(api)
    if as_json:
        output.document(told.body)
        return
    output.table(
        HEADER,
        [_row(host, now_wall_s) for host in told.view.hosts],
        output.none_found("host", filters, "fleethub enroll NAME"),
        form,
    )


def _whole(api: Api, words: str) -> str:
    """Return the query, with a saved one in the place of its name. Raises: Failure, Refused, HubAway."""
    if not words.startswith("@"):
        return words
    saved = {view.name: view.query for view in api.read("/queries", SavedQueries).view.queries}
    if words[1:] not in saved:
        raise Failure("unknown_query", f"there is no saved query {words[1:]!r}", "See: fleethub queries")
    return saved[words[1:]]


def query_of(words: str) -> Query:
    """Return the query that was typed. Raises: click.UsageError."""
    try:
        return parse(words)
    except QueryError as error:
        raise click.UsageError(f"in the query: {error.message}") from None


def _say_how_old(api: Api) -> None:
    """Say on stderr if no working hub stands behind the shown hosts, so that they may be out of date."""
    with contextlib.suppress(HubAway, Refused):
        verdict = next((process.verdict for process in api.status().processes if process.name == "hub"), None)
        if verdict is None or verdict not in WELL | {Verdict.EXCUSED}:
            output.note(
                f"the hub {verdict.phrase if verdict else 'is not known'}: the hosts are shown as it knew them last"
            )


def _row(host: HostView, now_wall_s: float) -> list[Cell | str]:
    numbers = host.metrics or Metrics()
    percents = [_percent(number) for number in (numbers.cpu, numbers.ram, numbers.disk)]
    load = "" if numbers.load is None else f"{numbers.load:.2f}"
    doing = (
        "not shown"
        if host.put_aside
        else "revoked"
        if host.revoked
        else "suspended"
        if host.suspended
        else host.pending_command or ""
    )
    seen = since(host.last_seen, now_wall_s, "never")
    return [host.name, host.presence, seen, *percents, load, doing, _agent(host), " ".join(host.commands or [])]


def _agent(host: HostView) -> str:
    """Return the agent's version, with a word if it is older than this fleethub: it is brought up to date by /agent."""
    from importlib import metadata  # noqa: PLC0415  # it takes as long as a request; --json names no agent

    is_old = is_old_agent(host.agent_version, host.protocol, metadata.version("fleethub"))
    return f"{host.agent_version} (old)" if is_old else host.agent_version


def _picture(
    picture: Picture,
    said: str,
    now_wall_s: float,
    filters: Mapping[str, str],
    query: Query,
    *,
    form: output.Form = output.AS_IT_IS,
) -> RenderableType | None:
    """The fleet now: offline hosts first, and as many as the screen holds."""
    found = {
        name
        for name, row in picture.rows.get("host", {}).items()
        if query.matches(row, now_wall_s, (op := row.get("pending_command") or ""), "running" if op else "")
    }
    known = msgspec.json.decode(msgspec.json.encode(list(picture.rows.get("host", {}).values())), type=list[HostView])
    presence, search = filters.get("presence"), filters.get("search", "")
    order = list(Presence)[::-1]
    known_here = [host for host in known if host.name in found]
    shown = [host for host in known_here if search in host.name and presence in (None, host.presence)]
    rows = [
        _row(host, now_wall_s)
        for host in sorted(shown, key=lambda host: (order.index(Presence(host.presence)), host.name))
    ]
    counts = ", ".join(f"{sum(host.presence == presence for host in known)} {presence}" for presence in Presence)
    return output.screen(f"{count(len(known), 'host')}: {counts} ({said})", HEADER, rows, form=form)


@click.command()
@click.argument("name", shell_complete=completion.hosts)
@as_json
@asks_hub
def host(name: str, as_json: bool, hub: str | None, token_file: Path | None) -> None:
    """Show one host and its newest commands."""
    with asking(hub, token_file) as api:
        told = api.read(f"/hosts/{segment(name)}", HostView)
        if as_json:
            output.document(told.body)
            return
        now_wall_s = api.now_wall_s()
        newest, _ = api.commands({"host": name}, COMMANDS_SHOWN)
    view = told.view
    output.fields([*_who(view, now_wall_s), *_metrics(view), *_told(view)])
    if newest:
        output.say()
        output.table(
            ["COMMAND", "GIVEN", "OPERATION", "STATE"],
            [
                [its_id, since(c.created_at, now_wall_s), c.op, c.state]
                for its_id, c in zip(short_ids([c.id for c in newest]), newest, strict=True)
            ],
        )


def _who(view: HostView, now_wall_s: float) -> list[tuple[str, str]]:
    seen = (
        f"{ago(view.last_seen, now_wall_s)}, at {view.last_seen}"
        if view.last_seen
        else ""
        if view.put_aside
        else "never"
    )
    return [
        ("name", view.name),
        ("presence", view.presence),
        ("last seen", seen),
        ("connected since", view.connected_since or ""),
        ("address", view.address),
        ("enrolled", (view.enrolled_at or "") + (", its token is revoked" if view.revoked else "")),
        ("new token", f"asked for at {view.rotation_asked_at}" if view.rotation_asked_at else ""),
        ("enrolment code", f"good until {view.code_until}" if view.code_until else ""),
        (
            "suspended",
            output.as_typed(f"since {view.suspended_at}: {view.suspended}. Lift it: fleethub lift {view.name}")
            if view.suspended
            else "",
        ),
        ("not shown", view.put_aside),
        ("type", view.host_type),
        ("agent", _agent(view)),
        ("labels", _labels(view.labels)),
        ("its own labels", _labels(view.agent_labels)),
        ("system", view.os_version),
        ("kernel", " ".join(filter(None, (view.kernel, view.machine)))),
        ("operations", " ".join(view.commands or [])),
        ("running", view.pending_command or ""),
        *(
            (f"progress of {op}", f"step {p.current} of {p.total} {p.status}")
            for op, p in view.progress.items()
            if p.total
        ),
    ]


def _labels(labels: Mapping[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in labels.items())


def _metrics(view: HostView) -> list[tuple[str, str]]:
    if view.metrics is None:
        return []
    numbers = view.metrics
    temperatures = (numbers.temperatures or {}).items()
    return [
        ("cpu", _percent(numbers.cpu)),
        ("memory", _percent(numbers.ram)),
        ("swap", _percent(numbers.swap)),
        ("disk", _percent(numbers.disk)),
        ("load", "" if numbers.load is None else f"{numbers.load:.2f}"),
        ("up", "" if numbers.uptime_s is None else age(numbers.uptime_s)),
        ("temperatures", ", ".join(f"{sensor} {degrees:.0f} °C" for sensor, degrees in temperatures)),
    ]


def _told(view: HostView) -> list[tuple[str, str]]:
    """What the agent reported beyond the fields known here: a line for each, with its value as it is."""
    told = {**_facts.decode(view.facts), **_facts.decode(view.heartbeat_facts)}
    return [
        (name, value if isinstance(value, str) else msgspec.json.encode(value).decode())
        for name, value in told.items()
        if value
    ]


def _percent(number: float | None) -> str:
    return "" if number is None else f"{number:.0f} %"


@click.command()
@click.argument("name", shell_complete=completion.hosts)
@sure
@as_json
@asks_hub
def remove(*, name: str, yes: bool, as_json: bool, hub: str | None, token_file: Path | None) -> int:
    """Remove a host: its queued commands are cancelled, its sent and running ones are lost.

    On a terminal you are asked first, if it is online or has open commands.
    """
    with asking(hub, token_file) as api:
        costs = "" if yes or not interrupt.asks() else _costs_of_removal(api.host(name))
        if costs and not question.is_sure(costs, f"Remove {name}?", yes=yes):
            return EXIT_FAILED
        told = api.once("DELETE", f"/hosts/{segment(name)}", HostRemoved)
    ended = told.view.commands_ended
    _done(told.body, as_json, f"{name}: removed" + (f", with {count(ended, 'open command')}" if ended else ""))
    return EXIT_OK


def _costs_of_removal(view: HostView | None) -> str:
    """Return what is lost with the host; empty, if that is nothing."""
    if view is None or (view.presence == Presence.OFFLINE and not view.ledger.open):
        return ""
    costs = [f"{view.name} is {view.presence}"]
    if view.ledger.open:
        waiting = view.ledger.queued
        begun = view.ledger.open - waiting
        costs += [f"{count(waiting, 'queued command')} would be cancelled"] if waiting else []
        costs += [f"{count(begun, 'command')} under way would be lost, and may go on there unseen"] if begun else []
    costs.append("its agent needs a new token to come back")
    return "; ".join(costs) + "."


@click.command()
@click.argument("name")
@click.option(
    "--again", is_flag=True, help="Also if it is enrolled already: it gets a new token, and the old one becomes void."
)
@click.option("--rotate", is_flag=True, help="Have the host's own agent make a new token instead.")
@click.option(
    "--code", is_flag=True, help="Print a one-time code instead of a token: the host's agent exchanges it for a token."
)
@click.option(
    "--expires",
    "expires_s",
    type=Duration(LIFE_S_MIN, CODE_S_MAX),
    help=f"With --code: for how long the code is good. [default: {ENROLMENT_CODE_S / 3600:.0f}h]",
)
@click.option("--label", "words", multiple=True, metavar="KEY=VALUE", help="A label that it gets. May be repeated.")
@as_json
@asks_hub
def enroll(
    *,
    name: str,
    again: bool,
    rotate: bool,
    code: bool,
    expires_s: float | None,
    words: tuple[str, ...],
    as_json: bool,
    hub: str | None,
    token_file: Path | None,
) -> None:
    """Enrol a host. Its token is printed once, alone on stdout.

    With --rotate the agent of a host that is enrolled makes a new token for itself, now or when it connects, and nobody
    is shown it. The old one is void once the hub has the hash of the new one.

    With --code a one-time code is printed instead. The agent that is started with it makes the token itself, and nobody
    is shown it. With --again too, the host's token is good until the code is used. A suspension is lifted by a new
    token: at once, or when the code is used.
    """
    if expires_s is not None and not code:
        raise click.UsageError("--expires is for --code: a host's token has no end")
    if not HOST_NAME.fullmatch(name):
        advice = "Use letters, digits, hyphens and dots, as in RFC 1123."
        raise Failure("bad_name", f"{name!r} is not a host name", advice, EXIT_USAGE)
    labels = labels_of(words)
    if rotate:
        if again or code or labels:
            raise click.UsageError(
                "--rotate leaves the enrolment as it is: give it without --again, --code and --label"
            )
        _have_rotated(name, as_json=as_json, hub=hub, token_file=token_file)
        return
    if code:
        asked = {"again": again, **({"labels": labels} if labels else {})}
        asked |= {} if expires_s is None else {"expires_s": expires_s}
        _print_code(name, asked, as_json=as_json, hub=hub, token_file=token_file)
        return
    with asking(hub, token_file) as api:
        known = again and not as_json and api.host(name) is not None
        enrolled = api.enroll(name, again=again, labels=labels)
    if as_json:
        output.document(enrolled)
    else:
        _tell_token(enrolled, again=again, known=known)


def _tell_token(enrolled: HostEnrolled, *, again: bool, known: bool) -> None:
    how = (
        "enrolled again, its old token is void"
        if known
        else "enrolled; it was not known before"
        if again
        else "enrolled"
    )
    if enrolled.lifted:
        output.note(f"{enrolled.name} was suspended, and is not any more: {enrolled.lifted}")
    if not sys.stdout.isatty():  # it goes to a file or a program, such as ssh: nobody is to type anything
        output.note(f"{enrolled.name}: {how}. Its token is on stdout, and nowhere else.")
        output.say(enrolled.token)
        return
    output.note(f"{enrolled.name}: {how}. Its token, shown this once:")
    output.say(enrolled.token)
    there = _line_there(enrolled.agents_url, f"--name {enrolled.name} --token-file -")
    output.progress(f"Type on {enrolled.name}, as root (it asks for the token):\n    {there}")
    piped = f"fleethub enroll {enrolled.name} --again | ssh root@{enrolled.name} {there}"
    output.progress(f"Or do it from here, with a new token:\n    {piped}")


def _line_there(agents_url: str, credential: str) -> str:
    """Return what is to be typed on the host that is enrolled."""
    insecure = " --insecure" if is_plain_elsewhere(agents_url) else ""  # the hub's own setting allowed that
    return f"fleethub agent --hub {agents_url} {credential} --install{insecure}"


def _have_rotated(name: str, *, as_json: bool, hub: str | None, token_file: Path | None) -> None:
    with asking(hub, token_file) as api:
        told = api.once("POST", f"/hosts/{segment(name)}/rotate", HostView, promised=(202,))
    when = "now" if told.view.presence == Presence.ONLINE else "when it connects"
    _done(told.body, as_json, f"{name}: its agent makes a new token {when}")


def _print_code(
    name: str, asked: Mapping[str, object], *, as_json: bool, hub: str | None, token_file: Path | None
) -> None:
    with asking(hub, token_file) as api:
        told = api.once("POST", f"/hosts/{segment(name)}/code", HostCode, asked, promised=(201,))
        operators_url = told.view.operators_url or api.url
    if as_json:
        output.document(told.body)
        return
    made = told.view
    if made.suspended:
        output.note(f"{made.name} is suspended until the code is used, which lifts that: {made.suspended}")
    output.note(f"{made.name}: a code for one use, good until {made.expires_at}, shown this once:")
    output.say(made.code)
    there = _line_there(made.agents_url, "--code -")
    output.progress(f"Type on {made.name}, as root (it asks for the code):\n    {there}")
    if made.agent_sha256:
        line = _line_without_fleethub(operators_url, made)
        output.progress(f"Or, where fleethub is not installed, but Python 3.9 or newer and curl are:\n    {line}")
    elif made.agent_file_missing:
        output.note(f"A host without fleethub cannot be enrolled now: {made.agent_file_missing}")


def _line_without_fleethub(operators_url: str, made: HostCode) -> str:
    """Return what is to be typed on a host that has no fleethub: it fetches one file, checks it and runs it."""
    insecure = " --insecure" if is_plain_elsewhere(made.agents_url) else ""
    return (
        f'f=$(mktemp) && curl -fsS {operators_url.rstrip("/")}/agent -o "$f" && '
        f'echo "{made.agent_sha256}  $f" | sha256sum -c --quiet - && sh "$f" --code -{insecure}'
    )


@click.command()
@click.argument("name", shell_complete=completion.hosts)
@sure
@as_json
@asks_hub
def revoke(*, name: str, yes: bool, as_json: bool, hub: str | None, token_file: Path | None) -> int:
    """Make a host's token void; its connection ends within 2 s. On a terminal you are asked first."""
    with asking(hub, token_file) as api:
        if not yes and interrupt.asks() and (view := api.host(name)) is not None:
            opened = f", and {count(view.ledger.open, 'open command')} of it cannot be reported" * bool(
                view.ledger.open
            )
            happens = f"{name} is {view.presence}: it is kept out until it gets a new token{opened}."
            if not question.is_sure(happens, f"Make the token of {name} void?", yes=yes):
                return EXIT_FAILED
        told = api.once("POST", f"/hosts/{segment(name)}/revoke", HostView)
    _done(told.body, as_json, f"{name}: its token is void")
    return EXIT_OK


@click.command()
@click.argument("name", shell_complete=completion.hosts)
@as_json
@asks_hub
def lift(name: str, as_json: bool, hub: str | None, token_file: Path | None) -> None:
    """Lift the suspension of a host; its agent is back within a minute."""
    with asking(hub, token_file) as api:
        told = api.once("POST", f"/hosts/{segment(name)}/lift", HostView)
    _done(told.body, as_json, f"{name}: its token is not suspended")


def _done(body: bytes, as_json: bool, line: str) -> None:
    if as_json:
        output.document(body)
    else:
        output.say(line)
