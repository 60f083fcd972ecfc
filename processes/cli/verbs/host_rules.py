"""The verb of rules: which conditions of hosts are told, and what the file would say now."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from processes.adapters.settings import load
from processes.adapters.state import rules_file
from processes.adapters.state.rules_file import RulesUnreadable
from processes.cli.terminal import output
from processes.cli.terminal.failure import Failure
from processes.cli.terminal.options import as_json, asking, asks_hub
from processes.core.conditions import signs
from processes.core.conditions.rules import Rule, Rulebook, RulesError, condition_text, duration_text, read
from processes.core.conditions.sight import sight_of
from processes.core.conditions.signs import HOST_KINDS, HostTrack
from processes.core.shown.pages import HostsPage
from processes.core.travels.messages import Json

NAMES_MAX: Final = 5  # of hosts that a rule would name


@click.group("rules", invoke_without_command=True)
@as_json
@click.pass_context
def rules(context: click.Context, as_json: bool) -> None:
    """Show the rules by which conditions of hosts are told: those of rules.toml, and the defaults behind them."""
    if context.invoked_subcommand is None:
        _show(_read(load().rules), [], as_json)


@rules.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@as_json
@asks_hub
def check(file: Path | None, as_json: bool, hub: str | None, token_file: Path | None) -> None:
    """Read FILE (or rules.toml) as the hub would, and show which hosts each rule is about and what it holds of now."""
    found = _read(file or load().rules)
    with asking(hub, token_file) as api:
        rows = msgspec.json.decode(api.read("/hosts", HostsPage).body, type=dict[str, Any])["hosts"]
        version = msgspec.json.decode(api.read("/me", dict[str, Any]).body)["version"]
    _show(found, [(row, version) for row in rows], as_json)


def _read(path: Path) -> tuple[Rule, ...]:
    try:
        found = read(rules_file.read(path))
        Rulebook(found)
        return found
    except (RulesUnreadable, RulesError) as error:
        raise Failure("bad_rules", f"{path}: {error}", "Nothing was changed; the rules before go on to hold.") from None


def _show(found: tuple[Rule, ...], hosts: list[tuple[dict[str, Any], str]], as_json: bool) -> None:
    about, holds = _looked(found, hosts)
    if as_json:
        output.document({
            "rules": [
                {
                    "name": rule.name, "query": rule.query, "condition": condition_text(rule), "for_s": rule.for_s,
                    "severity": rule.severity or "none", "hosts": len(about[place]), "now": holds[place],
                }
                for place, rule in enumerate(found)
            ]
        })  # fmt: skip
        return
    rows = [
        [
            rule.name or "-", rule.query or "every host", condition_text(rule), duration_text(rule.for_s),
            rule.severity or "none", *([str(len(about[place])), _names(holds[place])] if hosts else []),
        ]
        for place, rule in enumerate(found)
    ]  # fmt: skip
    output.table(
        ["NAME", "HOSTS THAT MEET", "CONDITION", "FOR", "SEVERITY", *(["ARE", "HOLDS NOW OF"] if hosts else [])],
        rows,
        "",
    )


def _looked(
    found: tuple[Rule, ...], hosts: list[tuple[dict[str, Any], str]]
) -> tuple[list[list[str]], list[list[str]]]:
    """Return the hosts that each rule is about, and those of which it holds now, whatever its time."""
    book, now_wall_s = Rulebook(found), time.time()
    about: list[list[str]] = [[] for _ in found]
    holds: list[list[str]] = [[] for _ in found]
    places = {id(rule): place for place, rule in enumerate(found)}
    for row, version in hosts:
        sight = sight_of(Json(msgspec.json.encode(row)))
        for kind in {rule.kind for rule in found}:
            for rule in book.of(kind, lambda row=row: row, now_wall_s):  # type: ignore[misc]
                about[places[id(rule)]].append(sight.name)
                if kind in HOST_KINDS and signs.sign(rule, sight, HostTrack(), 0.0, version):
                    holds[places[id(rule)]].append(sight.name)
    return about, holds


def _names(hosts: list[str]) -> str:
    more = f" and {len(hosts) - NAMES_MAX} more" if len(hosts) > NAMES_MAX else ""
    return ", ".join(hosts[:NAMES_MAX]) + more or "-"
