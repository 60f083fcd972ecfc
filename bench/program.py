"""The command line of bin/bench: what is measured, for how long, and how it is printed."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench import chart, commands, connections, fan_out, heartbeats, highest, peers, runs, slopes, start
from bench.chart import Undrawable
from bench.heartbeats import Hub
from bench.installation import Installation, installed
from bench.load import NoCompiler, compiled
from bench.peers import NoPeer
from bench.summary import FIGURE, summary

Measured = dict[str, Any]
OURS: Final = "fleethub"
DESCRIPTORS: Final = (
    65_536  # open files of one process: an agent takes one of the gateway's, and one of the generator's
)


def main(arguments: list[str] | None = None) -> int:
    """Measure what the command line names; print it. Return the exit code."""
    given = options().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started ends with us
    _raise_descriptors()
    try:
        compiled()
    except NoCompiler as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    found: Measured = given.measure(given)
    text = json.dumps(found)
    if given.out:
        given.out.write_text(text + "\n")
    print(text if given.json else "\n".join(_lines(found)))
    return 0


def _raise_descriptors() -> None:
    """Allow this process, and all that it starts, DESCRIPTORS open files, if it may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))


def options() -> argparse.ArgumentParser:
    """Return what can be typed."""
    options = argparse.ArgumentParser(
        description="Measures how fast this hub is. Everything that is measured is started by it and ends with it.",
        epilog="Figures are worth something on a machine that does nothing else.",
        allow_abbrev=False,
    )
    options.add_argument("--json", action="store_true", help="print one JSON document")
    options.add_argument("--out", type=Path, metavar="FILE", help="write the JSON document to this file too")
    verbs = options.add_subparsers(required=True, metavar="WHAT")

    def verb(name: str, about: str, measure: Callable[[argparse.Namespace], Measured]) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.", allow_abbrev=False)
        made.set_defaults(measure=measure)
        return made

    beats = verb("heartbeats", "what heartbeats cost each process, how many are shown, and how late", _heartbeats)
    shown = verb("fan-out", "what one change costs that is shown to many, beside a loop of write()", _shown)
    for options_of, subscribers in ((beats, 1), (shown, 990)):
        _number(options_of, "rate", 1000.0, "heartbeats in a second; 0: as many as the sockets take")
        _number(options_of, "agents", 1000, "that take turns")
        _number(options_of, "subscribers", subscribers, "who are shown all of it, up to 990")
        _number(options_of, "seconds", 10.0, "for each measurement")
        _beside(options_of)
    most = verb("highest", "the most heartbeats of which each is shown with its own value, and soon", _highest)
    _number(most, "agents", 5000, "that take turns; each may send 10 a second")
    _number(most, "lag-ms", highest.LAG_MS, "the 99th percentile from due to shown, at most")
    _number(most, "first", highest.FIRST, "heartbeats in a second to begin with")
    _number(most, "seconds", 5.0, "for each rate that is tried")
    _beside(most)
    given = verb("commands", "how long until a command is accepted, and until its end is seen", _commands)
    _number(given, "rate", 0.0, "commands in a second; 0: one at a time")
    _number(given, "agents", 100, "that take turns")
    _number(given, "seconds", 10.0, "for each measurement")
    _beside(given)
    many = verb("connections", "what a connected agent costs in memory, and how fast a fleet comes back", _connections)
    _number(many, "agents", 5000, "that connect at once")
    _beside(many)
    begun = verb("start", "how long a killed hub's successor takes over a large database", _start)
    _number(begun, "agents", 10_000, "hosts in the database")
    _number(begun, "commands", 100_000, "commands in the database, all at their end")
    _number(begun, "times", 1, "how often a hub is killed; the medians and the spread are told")
    going = verb("runs", "what the end of one command costs in a run over many hosts, beside one over few", _runs)
    _number(going, "agents", 10_000, "hosts of the large run")
    idle = verb("idle", "what an installation costs whose agents only send their usual heartbeats", _idle)
    _number(idle, "agents", 10, "that are connected")
    _number(idle, "seconds", 20.0, "for the measurement")
    verb("cli", "how long the command line takes to start", _cli)
    queues = verb("queues", "what goes through the queues alone", _queues)
    _number(queues, "seconds", 5.0, "for each load")
    queries = verb("queries", "how long a fanout takes to find hosts by a query", _queries)
    _number(queries, "hosts", 10_000, "in the fleet")
    verb("page", "how smooth the page is with 10,000 hosts beside 100, in a real browser", _page)
    grown = verb("slopes", "how the cost grows with agents, subscribers, heartbeats and commands", _slopes)
    grown.add_argument(
        "--only", action="append", choices=slopes.PARTS, default=[], metavar="PART",
        help=f"let only this grow ({', '.join(slopes.PARTS)}); may be given again",
    )  # fmt: skip
    grown.add_argument("--size", action="append", type=float, default=[], metavar="N",
                       help="only these sizes of it; may be given again")  # fmt: skip
    _number(grown, "seconds", 5.0, "for each measurement")
    _number(grown, "times", 3, "how often each point is measured; the medians and the spread are told")
    everything = verb("all", "every part of it once, each in an installation of its own", _all)
    everything.add_argument(
        "--quick", action="store_true", help="tiny loads in one installation, which only show that all of it runs"
    )
    drawn = verb("chart", "draw what slopes, or any other part beside others, wrote to files (--out)", _chart)
    drawn.add_argument("found", type=Path, nargs="+", metavar="FILE", help="what --out wrote; many become one chart")
    drawn.add_argument("to", type=Path, metavar="CHART", help="the SVG file to draw")
    return options


def _number(options: argparse.ArgumentParser, name: str, usual: float, about: str) -> None:
    kind = type(usual)
    options.add_argument(f"--{name}", type=kind, default=usual, metavar="N", help=f"{about}; by default {usual:,}")


def _beside(options: argparse.ArgumentParser) -> None:
    options.add_argument(
        "--beside", action="append", choices=sorted(peers.PACKAGES), default=[], metavar="PEER",
        help=f"measure this in the same run too ({', '.join(sorted(peers.PACKAGES))}); needs Go; may be given again",
    )  # fmt: skip
    _number(options, "times", 1, "how often each is measured, by turns; the medians and the spread are told")


# what the verbs do


def _heartbeats(given: argparse.Namespace) -> Measured:
    def once(hub: Hub) -> Measured:
        return asyncio.run(
            heartbeats.measured(hub, given.agents, given.rate, given.seconds, subscribers=given.subscribers)
        )

    return _by_turns(given, once)


def _shown(given: argparse.Namespace) -> Measured:
    def once(hub: Hub) -> Measured:
        return fan_out.measured(hub, given.agents, given.rate, given.seconds, subscribers=given.subscribers)

    return _by_turns(given, once)


def _commands(given: argparse.Namespace) -> Measured:
    if "nats" in given.beside:
        raise SystemExit("bench: nats knows no commands; it can be measured beside heartbeats and connections")
    return _by_turns(given, lambda hub: asyncio.run(commands.measured(hub, given.agents, given.rate, given.seconds)))


def _connections(given: argparse.Namespace) -> Measured:
    return _by_turns(given, lambda hub: asyncio.run(connections.measured(hub, given.agents)))


def _start(given: argparse.Namespace) -> Measured:
    with installed(given.agents, lambda house: start.remember(house, given.commands)) as hub:
        turns = [start.killed(hub) for _ in range(given.times)]
    told = turns[0] if given.times == 1 else summary(turns)
    return {"agents": given.agents, "commands": given.commands, **told}


def _runs(given: argparse.Namespace) -> Measured:
    return {name: runs.measured(hosts) for name, hosts in (("few", 10), ("many", given.agents))}


def _idle(given: argparse.Namespace) -> Measured:
    with installed(given.agents) as hub:
        return asyncio.run(start.idle(hub, given.agents, given.seconds))


def _cli(_: argparse.Namespace) -> Measured:
    with installed(10) as hub:
        return start.command_line(hub)


def _chart(given: argparse.Namespace) -> Measured:
    try:
        found = [json.loads(path.read_bytes()) for path in given.found]
        given.to.write_text(chart.drawn(merged(found)))
    except (OSError, ValueError, TypeError, KeyError, Undrawable) as error:
        raise SystemExit(f"bench: {given.to} cannot be drawn: {error}") from None
    return {"chart": str(given.to)}


def _queries(given: argparse.Namespace) -> Measured:
    from bench import queries  # noqa: PLC0415  # each of these loads what the others do not need

    return queries.measured(given.hosts)


def merged(found: list[Measured]) -> Measured:
    """Return what many files hold as if it were one: points one after the other, figures of one hub together."""
    whole: Measured = {}
    for each in found:
        for name, value in each.items():
            if isinstance(value, list):
                whole[name] = sorted([*whole.get(name, []), *value], key=lambda point: float(point["size"]))
            elif isinstance(value, dict):
                whole[name] = {**whole.get(name, {}), **value}
            else:
                whole[name] = value
    return whole


def _queues(given: argparse.Namespace) -> Measured:
    from bench import queues  # noqa: PLC0415  # each of these two loads what the others do not need

    return queues.measured(given.seconds)


def _page(_: argparse.Namespace) -> Measured:
    from bench import page  # noqa: PLC0415  # a browser

    return page.measured()


def _slopes(given: argparse.Namespace) -> Measured:
    """Shape: for each part that grows, its points in order."""
    size = slopes.Sizes(seconds=given.seconds, times=given.times)
    if given.size:
        if len(given.only) != 1:
            raise SystemExit("bench: --size says how much there is of one thing: name it with --only")
        (name,) = given.only
        kind = type(getattr(size, name)[0])
        wanted: Measured = {name: tuple(kind(each) for each in given.size)}
        size = size._replace(**wanted)
    return slopes.measured(slopes.Growing(size), given.only or slopes.PARTS)


def _highest(given: argparse.Namespace) -> Measured:
    def once(hub: Hub) -> Measured:
        return asyncio.run(highest.measured(hub, given.agents, given.seconds, given.lag_ms, first=given.first))

    return _by_turns(given, once)


def _all(given: argparse.Namespace) -> Measured:
    if given.quick:
        quick = Size(agents=10, subscribers=(3,), rate=20.0, commands_per_s=5.0, seconds=1.0, settle_s=0.2, lag_ms=0.0)
        with installed(10, lambda house: start.remember(house, 20)) as hub:
            growing = slopes.Growing(QUICK, lambda _: contextlib.nullcontext(hub))
            found = {"slopes": slopes.measured(growing)}
            return {**found, **{name: measure(hub, quick) for name, measure in PARTS.items()}}
    found = {}
    for name, measure in PARTS.items():
        size = Size(agents=WHOLE.get(name, 1000))
        count = 100_000 if name == "start" else 0
        with installed(size.agents, functools.partial(start.remember, commands=count)) as hub:
            found[name] = measure(hub, size)
    return {**found, "slopes": slopes.measured(slopes.Growing(slopes.Sizes()))}


class Size(NamedTuple):
    """How large a load is: so many agents, and subscribers one after the other. Units: in a second; seconds."""

    agents: int
    subscribers: tuple[int, ...] = (1, 100, 990)
    rate: float = 1000.0
    commands_per_s: float = 200.0
    seconds: float = 10.0
    settle_s: float = heartbeats.SETTLE_S
    lag_ms: float = highest.LAG_MS


def _fan_out(hub: Installation, size: Size) -> Measured:
    return {
        f"{count} subscribers": fan_out.measured(
            hub, size.agents, size.rate, size.seconds, subscribers=count, settle_s=size.settle_s
        )
        for count in size.subscribers
    }


def _asked(hub: Installation, size: Size) -> Measured:
    rates = {"one at a time": 0.0, "at a rate": size.commands_per_s}
    return {
        name: asyncio.run(commands.measured(hub, size.agents, rate, size.seconds, settle_s=size.settle_s))
        for name, rate in rates.items()
    }


WHOLE: Final = {"connections": 10_000, "start": 10_000, "idle": 10, "cli": 10}  # agents, where they are not 1,000
QUICK: Final = slopes.Sizes(
    agents=(3,), rate=(5.0,), subscribers=(2,), commands=(5.0,),
    beats_per_s=10.0, commands_per_s=5.0, beating=3, few=3, seconds=0.4, settle_s=0.2, times=1,
)  # fmt: skip
PARTS: Final[dict[str, Callable[[Installation, Size], Measured]]] = {
    "fan-out": _fan_out,
    "commands": _asked,
    "highest": lambda hub, size: asyncio.run(
        highest.measured(hub, size.agents, size.seconds / 2, size.lag_ms, first=size.rate, settle_s=size.settle_s)
    ),
    "connections": lambda hub, size: asyncio.run(connections.measured(hub, size.agents, size.settle_s)),
    "idle": lambda hub, size: asyncio.run(start.idle(hub, size.agents, size.seconds, size.settle_s)),
    "cli": lambda hub, _: start.command_line(hub),
    "start": lambda hub, _: start.killed(hub),
}


def _by_turns(given: argparse.Namespace, once: Callable[[Hub], Measured]) -> Measured:
    """Measure our hub, and each peer beside it, by turns. Only one of them runs at a time."""
    turns: dict[str, list[Measured]] = {}
    for _ in range(given.times):
        for name in (OURS, *given.beside):
            opened: AbstractContextManager[Hub] = (
                installed(given.agents) if name == OURS else peers.running(name, given.agents)
            )
            try:
                with opened as hub:
                    turns.setdefault(name, []).append(once(hub))
            except NoPeer as error:
                turns[name] = []
                print(f"bench: {name} is left out: {error}", file=sys.stderr)
    if given.times == 1 and not given.beside:
        return turns[OURS][0]
    return {name: summary(found) for name, found in turns.items() if found}


# how it is printed


def _lines(found: Measured, before: str = "") -> list[str]:
    """Return the result for a person, a line for each figure."""
    lines = []
    for name, value in found.items():
        whole = f"{before}{name}"
        if isinstance(value, dict) and set(value) == FIGURE:
            spread = (
                f"   ({_figure(value['least'])} … {_figure(value['most'])})" if value["least"] != value["most"] else ""
            )
            lines.append(f"{whole:32} {_figure(value['median'])}{spread}")
        elif isinstance(value, dict):
            lines += _lines(value, f"{whole} ")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for number, point in enumerate(value):
                lines += _lines(point, f"{whole} {number} ")
        else:
            lines.append(f"{whole:32} {_figure(value)}")
    return lines


def _figure(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.3f}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
