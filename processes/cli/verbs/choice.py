"""On which hosts a run is to be: named, all, those with some values, or those that a query finds; shown, and asked."""

from __future__ import annotations

import sys
from typing import Any, Final, NamedTuple

import click
import msgspec

from processes.cli.terminal import interrupt, output
from processes.cli.terminal.text import count
from processes.client.api import Api
from processes.core.shown.pages import HostsPage
from processes.core.shown.views import HostView

NAMES_MAX: Final = 10  # named in a question

_object = msgspec.json.Decoder(dict[str, Any])


class Choice(NamedTuple):
    """What was typed. Exactly one of `hosts`, `where` ({}: all hosts) and `query` is given."""

    hosts: list[str] | None
    where: dict[str, str] | None
    query: str | None

    @property
    def is_wide(self) -> bool:
        """Whether the person who typed it has named no host."""
        return self.hosts is None

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


def is_sure(choice: Choice, found: list[HostView], ops: str, *, yes: bool) -> bool:
    """Return whether the run is meant: of several hosts that were not named, the person is asked."""
    if not choice.is_wide or yes or len(found) <= 1:
        return True
    names = [host.name for host in found]
    more = f" and {len(names) - NAMES_MAX} more" if len(names) > NAMES_MAX else ""
    shown = f"{ops} on {count(len(names), 'host')}: {', '.join(names[:NAMES_MAX])}{more}. Run it? [y/N] "
    print(shown, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


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


def choice_of(hosts: tuple[str, ...], everywhere: bool, where: tuple[str, ...], query: str | None) -> Choice:
    """Return what was typed as a choice. Raises: click.UsageError."""
    given = sum((bool(hosts), everywhere, query is not None))
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
