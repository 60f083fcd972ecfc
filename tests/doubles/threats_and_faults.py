"""The rows of docs/threats.toml, docs/faults.toml and docs/machines.toml, checked against the tests that they name, and
the pages made of them.
"""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple
from xml.etree import ElementTree

import msgspec

from processes.core.cli.drills import DRILLS

HOME: Final = Path(__file__).resolve().parents[2]
PAGE: Final = HOME / "docs" / "threats-and-faults.md"
MACHINES: Final = HOME / "docs" / "machines.md"
PARTS: Final = {"threats": "What an attacker may try", "faults": "What can break"}
UNTRIED: Final = "not run"


class Row(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One threat or fault; the fields are told at the head of docs/threats.toml."""

    name: str
    what: str
    defence: str
    where: list[str]
    tests: list[str] = []
    drills: list[str] = []
    campaign: list[str] = []
    open: str = ""
    was: str = ""


class Ran(NamedTuple):
    """How a test ended, in all its cases together."""

    cases: int
    failed: int
    skipped: int


def rows(part: str) -> list[Row]:
    """Return the rows of `threats`, `faults` or `machines`, as they stand."""
    return msgspec.convert(tomllib.loads((HOME / "docs" / f"{part}.toml").read_text())["row"], list[Row])


def places() -> dict[str, list[str]]:
    """Return the file below tests/ of each test function, by its name. A name may be in several."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted((HOME / "tests").rglob("test_*.py")):
        for name in re.findall(r"^ *(?:async )?def (test_\w+)\(", path.read_text(), re.MULTILINE):
            found[name].append(str(path.relative_to(HOME / "tests")))
    return found


def trouble(row: Row, tests: Mapping[str, list[str]], drills: set[str], campaign: set[str]) -> Iterator[str]:
    """What is wrong with a row; nothing, if nothing is."""
    for name in row.tests:
        if len(tests.get(name, ())) != 1:
            yield f"{row.name}: {name} is the name of {len(tests.get(name, ()))} tests"
    for kind, named, known in (("drill", row.drills, drills), ("fault of bin/hostile", row.campaign, campaign)):
        yield from (f"{row.name}: there is no {kind} {name!r}" for name in named if name not in known)
    for name in row.where:
        if not (HOME / "processes" / name).is_file():
            yield f"{row.name}: there is no processes/{name}"
    if not row.tests and not row.open:
        yield f"{row.name}: it has neither a test nor a reason why there is none"
    if not row.where:
        yield f"{row.name}: it does not say where its defence is"


def drill_names() -> set[str]:
    """Return the names of all drills."""
    return {drill.name for drill in DRILLS}


def results(junit: Path) -> dict[str, Ran]:
    """Return how each test function of a report of pytest (--junitxml) ended. Raises: OSError, ParseError."""
    found: dict[str, Ran] = {}
    for case in ElementTree.parse(junit).iter("testcase"):
        name = case.get("name", "").partition("[")[0]
        before = found.get(name, Ran(0, 0, 0))
        failed = case.find("failure") is not None or case.find("error") is not None
        skipped = case.find("skipped") is not None
        found[name] = Ran(before.cases + 1, before.failed + failed, before.skipped + skipped)
    return found


def result(row: Row, ran: Mapping[str, Ran]) -> str:
    """Return what became of a row's tests in one run of the suite."""
    mine = [ran[name] for name in row.tests if name in ran]
    cases, failed, skipped = (sum(numbers) for numbers in zip(*mine, strict=True)) if mine else (0, 0, 0)
    missing = len(row.tests) - len(mine)
    if failed:
        return f"FAILED: {failed} of {cases}"
    said = [f"{cases - skipped} passed"] if cases > skipped else []
    said += [f"{skipped} skipped"] if skipped else []
    said += [f"{missing} tests {UNTRIED}"] if missing else []
    return ", ".join(said) or "no test"


def page(tests: Mapping[str, list[str]], ran: Mapping[str, Ran] | None = None) -> str:
    """Return the whole page. With results of a run a row says how its tests ended; without, what they show."""
    out = [
        "# Threats and faults",
        "",
        "What may be tried or may break, what stands against it, and what shows it. `bin/threats-and-faults` makes this "
        "page of `docs/threats.toml`, `docs/faults.toml` and the tests; with `--results FILE` (of `bin/test "
        "--junitxml=FILE`) it prints how the tests ended. A drill is tried on a running installation with `fleethub "
        "drill NAME`, a campaign with `bin/hostile`.",
    ]
    for part, title in PARTS.items():
        found = rows(part)
        tried = sum(bool(row.tests) for row in found)
        out += ["", f"## {title}", "", f"{len(found)} rows, {tried} of them with tests, "
                f"{sum(bool(row.open) for row in found)} with something that is not shown.", ""]  # fmt: skip
        out += ["| what | defence | where | shown by | result |", "|---|---|---|---|---|"]
        out += [_line(row, tests, ran) for row in found]
    return "\n".join(out) + "\n"


def machines_page(tests: Mapping[str, list[str]]) -> str:
    """Return the page of docs/machines.toml: what came in, what it led to, and what is true now."""
    out = [
        "# Machines, proxies and people as they are",
        "",
        "What real machines, proxies and people do to a fleethub. `bin/threats-and-faults` makes this page of "
        "`docs/machines.toml` and the tests.",
        "",
        "| what comes in | before | now | where | shown by |",
        "|---|---|---|---|---|",
    ]
    for row in rows("machines"):
        shown = [f"`{name}` ({', '.join(tests.get(name, ['?']))})" for name in row.tests]
        now = f"{row.defence} Not shown: {row.open}." if row.open else row.defence
        where = ", ".join(f"`{name}`" for name in row.where)
        out.append(_cells(f"**{row.name}** {row.what}", row.was, now, where, "<br>".join(shown)))
    return "\n".join(out) + "\n"


def _cells(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _line(row: Row, tests: Mapping[str, list[str]], ran: Mapping[str, Ran] | None) -> str:
    shown = [f"`{name}` ({', '.join(tests.get(name, ['?']))})" for name in row.tests]
    shown += [f"drill `{name}`" for name in row.drills]
    shown += [f"campaign {', '.join(f'`{name}`' for name in row.campaign)}"] if row.campaign else []
    shows = "no test" if not row.tests else "in part" if row.open else "shown"
    end = shows if ran is None else result(row, ran)
    end += f": {row.open}" if row.open else ""
    where = ", ".join(f"`{name}`" for name in row.where)
    return _cells(f"**{row.name}** {row.what}", row.defence, where, "<br>".join(shown), end)
