"""On which hosts a run is to be: named, all, those with some values, or those that a query finds; shown, and asked."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import click
import msgspec

from processes.cli.terminal import interrupt, output, question
from processes.cli.terminal.failure import EXIT_FAILED, Failure
from processes.cli.terminal.text import count
from processes.client.api import Api
from processes.core.shown.pages import HostsPage
from processes.core.shown.views import HostView

NAMES_MAX: Final = 10  # named in a question

_object = msgspec.json.Decoder(dict[str, Any])


class Choice(NamedTuple):
    """What was typed. Exactly one of `hosts`, `where` ({}: all hosts) and `query` is given, or none of them yet: then
    the hosts are those that failed in another run.
    """

    hosts: list[str] | None
    where: dict[str, str] | None
    query: str | None

    @property
    def is_wide(self) -> bool:
        """Whether the person who typed it has named no host."""
        return self.where is not None or self.query is not None

    def found(self, api: Api) -> list[HostView]:
        """Return the hosts as they are now; of those that are named, all that there are. Raises: Refused, HubAway."""
        if self.query is not None:
            return api.read("/hosts", HostsPage, {"query": self.query}).view.hosts
        known = api.read("/hosts", HostsPage).view.hosts
        if self.hosts is not None:
            return [host for host in known if host.name in self.hosts]
        return [host for host in known if _has(host, self.where or {})]

    def body(self, found: list[HostView] | None) -> dict[str, object]:
        """Return the choice as fields of a request. `found`: those that were shown; the request names exactly these."""
        if self.query is not None:
            return {"query": self.query, **({} if found is None else {"hosts": [host.name for host in found]})}
        return {"hosts": self.hosts} if self.hosts is not None else {"where": self.where or {}}


def check_sure(choice: Choice, *, yes: bool) -> None:
    """Check that whoever names no host means it. Raises: click.UsageError, where nobody can be asked."""
    if choice.is_wide and not yes and not interrupt.asks():
        raise click.UsageError("--all and --query need --yes where nobody can be asked; --dry-run shows the hosts")


class Plan(NamedTuple):
    """What is to be done with the chosen hosts. `parallel`: on so many at a time."""

    steps: list[str]
    parallel: int
    offering: bool = False
    yes: bool = False
    dry_run: bool = False
    as_json: bool = False


def settled(api: Api, choice: Choice, plan: Plan) -> dict[str, object] | None:
    """Return the chosen hosts as fields of a request, once they are shown and asked about as far as that is needed.
    None: nothing is to be sent. Raises: Failure, if there is none; Refused, HubAway.
    """
    looks = plan.dry_run or plan.offering or choice.query is not None or (choice.is_wide and not plan.yes)
    found = choice.found(api) if looks else None
    if choice.query is not None and not found:
        raise Failure("unknown_host", "no host matches the query", "See: fleethub hosts QUERY")
    body = choice.body(found)
    if plan.offering and found is not None:
        asked = choice.hosts or sorted(host.name for host in found if not host.revoked)
        left = _offering(found, asked, plan.steps)
        found = [host for host in found if host.name in left]
        body = {"hosts": left, **({} if choice.query is None else {"query": choice.query})}
    if plan.dry_run:
        show(choice, found or [], plan.steps, as_json=plan.as_json)
        return None
    named = [host.name for host in found] if found is not None else choice.hosts or []
    if not is_sure(named, plan):
        return None
    return body


def _offering(found: list[HostView], asked: list[str], steps: list[str]) -> list[str]:
    """Return those of these hosts that offer every step, or were never seen, and say which do not. `found`: what is
    known of them.

    A name that is not enrolled stays, for the hub to refuse. Raises: Failure, if none is left.
    """
    known = {host.name: host for host in found}
    lacking = {
        name
        for name in asked
        if name in known and (offered := known[name].commands) is not None and not set(steps) <= set(offered)
    }
    left = [name for name in asked if name not in lacking]
    what = ", ".join(steps)
    if not left:
        raise Failure("not_offered", f"none of {count(len(asked), 'host')} offers {what}", exit_code=EXIT_FAILED)
    if lacking:
        output.note(
            f"fleethub: {count(len(lacking), 'host')} left out, not offering {what}: {', '.join(sorted(lacking))}"
        )
    return left


def is_sure(names: list[str], plan: Plan) -> bool:
    """Return whether the run is meant: of several hosts, a person at a terminal is asked."""
    if len(names) <= 1:
        return True
    more = f" and {len(names) - NAMES_MAX} more" if len(names) > NAMES_MAX else ""
    pace = "all at once" if len(names) <= plan.parallel else f"{plan.parallel} at a time"
    what = f"{','.join(plan.steps)} on {count(len(names), 'host')}, {pace}: {', '.join(names[:NAMES_MAX])}{more}."
    return question.is_sure(what, "Run it?", yes=plan.yes)


def show(choice: Choice, found: list[HostView], steps: list[str], *, as_json: bool) -> None:
    """Show on which hosts the run would be, and which of them would keep it from beginning."""
    lacking = [host.name for host in found if host.commands is not None and not set(steps) <= set(host.commands)]
    names = [host.name for host in found]
    if as_json:
        output.document({"query": choice.query, "steps": steps, "hosts": names, "not_offering": lacking})
        return
    for name in names:
        output.say(name)
    output.progress(f"{','.join(steps)} would run on {count(len(names), 'host')}; nothing was sent")
    if lacking:
        output.note(f"fleethub: not all offer that, and the hub would refuse it: {', '.join(lacking[:NAMES_MAX])}")


def choice_of(
    hosts: tuple[str, ...], everywhere: bool, where: tuple[str, ...], query: str | None, failed_of: str | None
) -> Choice:
    """Return what was typed as a choice. Raises: click.UsageError."""
    if failed_of is not None and (hosts or everywhere or where or query is not None):
        raise click.UsageError(
            "--failed-of chooses the hosts: name none, and say neither --all nor --where nor --query"
        )
    given = sum((bool(hosts), everywhere, query is not None, failed_of is not None))
    if given != 1:
        raise click.UsageError("name the hosts, or say --all, or give --query" + (": one of them" if given else ""))
    if joined := next((host for host in hosts if "," in host), None):
        raise click.UsageError(f"{joined!r} is not a host name: hosts are separated by spaces")
    if where and not everywhere:
        raise click.UsageError("--where chooses among all hosts: give --all with it")
    if query is not None and not query.strip():
        raise click.UsageError("an empty query finds every host: say --all")
    conditions: dict[str, str] = {}
    for condition in where:
        key, equals, value = condition.partition("=")
        if not key or not equals:
            raise click.UsageError(f"--where {condition!r} is not KEY=VALUE")
        if conditions.setdefault(key, value) != value:
            raise click.UsageError(f"--where {key} is given twice, but no host has both values")
    return Choice(list(hosts) or None, conditions if everywhere else None, query)


def _has(host: HostView, where: dict[str, str]) -> bool:
    """Return whether the host has these values, as the hub finds it (core/hub/runs.py)."""
    fields = _object.decode(msgspec.json.encode(host))
    facts = {**fields["facts"], **fields["heartbeat_facts"]}
    return all(_text(fields.get(name, facts.get(name))) == value for name, value in where.items())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
