"""Who may import whom, read from the source: the rooms of the house keep apart."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parents[2]
PACKAGE = HOME / "processes"
ROOMS = sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())
PROCESSES = [room for room in ROOMS if room not in ("core", "adapters", "client")]
SOURCES = sorted(PACKAGE.rglob("*.py"))
# Who may import whom of ours, room by room; a room may always import itself. The ground of all of them is core's
# values.py, errors.py, budgets.py and connections.py ("core"). What is not named here is a room that nobody may make
# without a word about it.
SHARED = {"core", "core.travels", "core.records", "core.shown"}
HANDS = (
    "adapters", "adapters.state", "adapters.failpoint", "adapters.own_process", "adapters.bootstrap", "adapters.machine",
    "adapters.queue_engine",
)  # fmt: skip
MAY: dict[str, set[str]] = {
    "core": set(),
    "core.travels": {"core"},
    "core.records": {"core", "core.travels"},
    "core.shown": {"core", "core.travels", "core.records"},
    "core.queues": {"core", "core.travels"},
    "core.alarms": SHARED,
    "core.conditions": SHARED,
    "core.hub": SHARED,
    "core.gateway": SHARED,
    "core.fanout": SHARED,
    "core.agent": SHARED,
    "core.watchdog": SHARED,
    "core.cli": SHARED,
    "adapters": SHARED | {"core.alarms"},
    "adapters.alarm_targets": SHARED | {"adapters", "adapters.alarm_sender"},  # a room of one file: settings → targets
    # a room of one file: settings → engine
    "adapters.queue_engine": SHARED | {"adapters", "adapters.postgres"},
    "adapters.state": SHARED | {"adapters"},
    "adapters.truth_reader": SHARED | {"adapters", "adapters.state", "adapters.postgres"},  # a room of one file
    "adapters.postgres": SHARED | {"core.queues", "adapters", "adapters.state"},
    "adapters.failpoint": {"adapters.state"},  # a room of one file too: it writes the file that arms it
    "adapters.own_process": SHARED | {"adapters", "adapters.state"},  # a room of one file: it opens a file of stacks
    "adapters.bootstrap": SHARED
    | {
        "adapters",
        "adapters.state",
        "adapters.own_process",
    },  # a room of one file: it opens what the others are made of
    "adapters.machine": SHARED | {"adapters", "adapters.state"},  # what is done on a server for its agent
    "adapters.alarm_sender": SHARED | {"core.alarms", "adapters", "adapters.bootstrap"},  # a program of its own
    "queues": SHARED | {"core.queues", *HANDS},
    "hub": SHARED | {"core.hub", *HANDS, "adapters.postgres"},
    "gateway": SHARED | {"core.gateway", *HANDS},
    "fanout": SHARED | {"core.fanout", "core.conditions", *HANDS, "adapters.postgres", "adapters.truth_reader"},
    "agent": SHARED | {"core.agent", *HANDS},
    "watchdog": SHARED
    | {
        "core.watchdog",
        "core.alarms",
        *HANDS,
        "adapters.alarm_sender",
        "adapters.alarm_targets",
        "adapters.truth_reader",
    },
    "client": SHARED | {"adapters"},
    "cli": SHARED
    | {
        "core.cli",
        "core.alarms",
        "core.conditions",
        *HANDS,
        "adapters.postgres",
        "adapters.truth_reader",
        "adapters.alarm_sender",
        "adapters.alarm_targets",
        "client",
    },
}
# what the core may use of the standard library: nothing that knows a clock, a file, a socket, a thread, chance or a log
PURE = {
    "__future__", "abc", "array", "base64", "binascii", "bisect", "collections", "contextlib", "copy",
    "dataclasses", "datetime", "difflib", "enum", "functools", "hashlib", "heapq", "hmac", "html", "ipaddress",
    "itertools", "json", "math", "operator", "re", "reprlib", "statistics", "string", "struct", "textwrap", "types", "typing",
    "typing_extensions", "unicodedata", "urllib.parse", "zlib",
}  # fmt: skip
IMPURE_CALLS = re.compile(r"\b(datetime\.(now|today|utcnow)|open|print|input)\(")


def relative(path: Path, home: Path = HOME) -> str:
    return str(path.relative_to(home))


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Each module that the file imports, anywhere in it, with the line; `from a import b` counts as a and a.b where
    that is ours.
    """
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield module, node.lineno
            if module.startswith("processes"):
                yield from ((f"{module}.{alias.name}", node.lineno) for alias in node.names)


def room_of(module: str) -> str | None:
    """Which room of ours a module belongs to, as MAY names it; None if it is not ours."""
    parts = module.split(".")
    if parts[0] != "processes" or len(parts) < 2:
        return None
    inner = ".".join(parts[1:3])
    return inner if inner in MAY else parts[1]


def room_of_file(path: Path, home: Path = HOME) -> str:
    """The same of a file of ours."""
    return room_of(".".join(path.relative_to(home).with_suffix("").parts)) or ""


def is_pure(module: str) -> bool:
    """True for what the core may use of others."""
    top = module.split(".", maxsplit=1)[0]
    return top == "msgspec" or module in PURE or top in PURE


def breaks(path: Path, home: Path = HOME) -> list[str]:
    """The file's imports that its room may not have. `home`: what `processes` stands in."""
    own = room_of_file(path, home)
    if own not in MAY:
        return [f"{relative(path, home)} is in a room without a rule: {own!r}"]
    found = []
    for module, line in imports(path):
        room = room_of(module)
        if room is not None:
            # `from processes.core import travels` names a room, and says nothing yet of what is taken out of it
            allowed = room in MAY[own] or room == own or (home / Path(*module.split("."))).is_dir()
        else:
            allowed = not own.startswith("core") or module == "processes" or is_pure(module)
        if not allowed:
            found.append(f"{relative(path, home)}:{line} imports {module}")
    return found


def test_each_room_imports_only_what_it_may() -> None:
    """core: pure parts and core. adapters: core and third parties. A process: itself, core, adapters, never another
    process.
    """
    assert len(SOURCES) > 20
    assert [line for path in SOURCES if path.parent != PACKAGE for line in breaks(path)] == []


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("core", "import time"), ("core", "from processes.adapters import clock"), ("core", "import asyncio"),
        ("core", "from urllib import request"),
        ("adapters", "from processes.hub import loop"), ("hub", "import processes.gateway.loop"),
        ("cli", "from processes import watchdog"),
    ],
)  # fmt: skip
def test_a_forbidden_import_is_found(room: str, line: str, tmp_path: Path) -> None:
    """The rule itself: each of these would be caught."""
    path = tmp_path / "processes" / room / "sample.py"
    path.parent.mkdir(parents=True)
    path.write_text(f"def late():\n    {line}\n")
    assert len(breaks(path, tmp_path)) >= 1


def test_the_rooms_have_no_circle() -> None:
    """Whoever reads a room needs what is below it, and never what is above."""
    floor: dict[str, int] = {}
    while len(floor) < len(MAY):
        ready = [room for room in MAY if room not in floor and MAY[room] <= set(floor)]
        assert ready, f"a circle among {sorted(set(MAY) - set(floor))}"
        floor.update(
            {room: 1 + max((floor[below] for below in MAY[room] if below in floor), default=0) for room in ready}
        )


def test_no_relative_and_no_star_imports() -> None:
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.level or any(alias.name == "*" for alias in node.names)):
                found.append(f"{relative(path)}:{node.lineno}")
    assert found == []


def test_rooms_do_not_re_export() -> None:
    """Every `__init__.py` is a text about its room, and no code."""
    for path in PACKAGE.rglob("__init__.py"):
        body = ast.parse(path.read_text()).body
        assert all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body), relative(path)
        assert body, f"{relative(path)} says nothing"


def test_the_core_has_no_clock_no_file_and_no_output() -> None:
    for path in (PACKAGE / "core").rglob("*.py"):
        calls = [
            ast.unparse(node.func) + "(" for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
        ]
        assert [call for call in calls if IMPURE_CALLS.match(call)] == [], relative(path)


def test_importing_a_module_does_nothing() -> None:
    """At a module's top there are definitions and constants; a call alone there would be an effect."""
    found = []
    for path in SOURCES:
        if path.name == "__main__.py":
            continue
        for node in ast.parse(path.read_text()).body:
            effect = isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant)
            if effect or isinstance(node, ast.For | ast.While | ast.With | ast.Delete):
                found.append(f"{relative(path)}:{node.lineno}")
    assert found == []


def test_each_process_has_the_same_two_entry_files() -> None:
    for room in PROCESSES:
        assert (PACKAGE / room / "__main__.py").exists(), room
        assert room == "cli" or (PACKAGE / room / "loop.py").exists(), room
