"""The command line of bin/bench: what is measured, for how long, and how it is printed."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from typing import Any

from bench import heartbeats
from bench.installation import installed
from bench.load import NoCompiler, compiled


def main() -> int:
    """Measure what the command line names; print it. Return the exit code."""
    given = _options().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started ends with us
    try:
        compiled()
    except NoCompiler as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    found: dict[str, Any] = given.measure(given)
    print(json.dumps(found) if given.json else "\n".join(_lines(found)))
    return 0


def _options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        description="Measures how fast this hub is. Everything that is measured is started by it and ends with it."
    )
    options.add_argument("--json", action="store_true", help="print one JSON document")
    verbs = options.add_subparsers(required=True, metavar="WHAT")
    beats = verbs.add_parser(
        "heartbeats", help="what heartbeats cost each process, how many are shown, and how late",
        description=heartbeats.__doc__,
    )  # fmt: skip
    beats.add_argument("--rate", type=float, default=1000.0, metavar="N", help="in a second; 0: as many as are taken")
    beats.add_argument("--agents", type=int, default=1000, metavar="N", help="that take turns; by default 1000")
    beats.add_argument("--seconds", type=float, default=10.0, metavar="S", help="how long; by default 10")
    beats.add_argument("--subscribers", type=int, default=1, metavar="N", help="who are shown all of it; by default 1")
    beats.set_defaults(measure=_heartbeats)
    return options


def _heartbeats(given: argparse.Namespace) -> dict[str, Any]:
    with installed(given.agents) as hub:
        return asyncio.run(
            heartbeats.measured(hub, given.agents, given.rate, given.seconds, subscribers=given.subscribers)
        )


def _lines(found: dict[str, Any]) -> list[str]:
    """Return the result for a person, a line for each figure."""
    lines = []
    for name, value in found.items():
        inner = value.items() if isinstance(value, dict) else ()
        told = "  ".join(f"{each} {_figure(number)}" for each, number in inner) or _figure(value)
        lines.append(f"{name:18} {told}")
    return lines


def _figure(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.3f}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
