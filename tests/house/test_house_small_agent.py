"""An agent is small: what it imports, and that Python 3.9 can run it."""

from __future__ import annotations

import ast
import asyncio
import base64
import contextlib
import io
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from processes.agent import unpack
from processes.fanout import agent_download

HOME = Path(__file__).resolve().parents[2]
OLDEST = (3, 9)
PYTHONS = [Path("/root/.pyenv/versions/3.9.18/bin/python3.9"), Path("/usr/bin/python3.9")]
LIBRARIES = {"msgspec", "psutil", "structlog", "websockets"}
STANDING_IN = {"tomli"}  # for what an older interpreter lacks
# names of the standard library that 3.9 lacks. Source: What's New in Python 3.10 to 3.14
NEWER = {
    "asyncio": {"Runner", "TaskGroup", "timeout", "timeout_at", "Barrier"}, "datetime": {"UTC"},
    "enum": {"StrEnum", "verify", "member", "nonmember", "ReprEnum"}, "contextlib": {"chdir", "aclosing"},
    "hashlib": {"file_digest"}, "itertools": {"pairwise", "batched"}, "inspect": {"get_annotations"},
    "sqlite3": {"SQLITE_CORRUPT", "SQLITE_FULL", "SQLITE_NOTADB", "Blob"}, "types": {"NoneType", "UnionType"},
    "sys": {"orig_argv", "stdlib_module_names", "exception", "monitoring"}, "os": {"EFD_CLOEXEC", "eventfd", "splice"},
    "typing": {
        "Self", "TypeAlias", "ParamSpec", "Concatenate", "TypeGuard", "assert_never", "Never", "LiteralString", "override",
        "Required", "NotRequired", "Unpack", "reveal_type",
    },
}  # fmt: skip
NEWER_BUILTINS = {"aiter", "anext", "ExceptionGroup", "BaseExceptionGroup", "EncodingWarning"}
NEWER_MODULES = {"tomllib"}

MODULES = agent_download.closure()
FILES = {**MODULES, "processes.agent.unpack": agent_download.ROOM / "unpack.py"}


def faults(source: str) -> Iterator[str]:
    """What 3.9 would not take of a module, line by line."""
    tree = ast.parse(source, feature_version=OLDEST)
    excused = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Try) or (isinstance(node, ast.If) and "version_info" in ast.unparse(node.test))
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if line in excused:
            continue
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in NEWER.get(node.value.id, ()):
                yield f"{line}: {ast.unparse(node)}"
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{line}: {each.name}" for each in node.names if each.name in NEWER.get(node.module or "", ()))
        elif isinstance(node, ast.Import):
            yield from (f"{line}: {each.name}" for each in node.names if each.name in NEWER_MODULES)
        elif isinstance(node, ast.Name) and node.id in NEWER_BUILTINS:
            yield f"{line}: {node.id}"
        elif isinstance(node, ast.keyword) and node.arg in ("slots", "kw_only", "strict", "process_group"):
            yield f"{line}: {node.arg}="
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance" and _is_union(node.args[1]):
            yield f"{line}: {ast.unparse(node)}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str | bytes) and _is_possessive(node.value):
            yield f"{line}: a possessive quantifier"
    for statement in tree.body:
        value = statement.value if isinstance(statement, ast.Assign | ast.AnnAssign) else None
        if value is not None and _is_union(value) and all(_is_type(each) for each in _sides(value)):
            yield f"{statement.lineno}: {ast.unparse(statement)[:60]}"


def _is_union(node: ast.AST) -> bool:
    return isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr)


def _sides(node: ast.expr) -> list[ast.expr]:
    return [*_sides(node.left), node.right] if isinstance(node, ast.BinOp) and _is_union(node) else [node]


def _is_type(node: ast.expr) -> bool:
    name = ast.unparse(node).rpartition(".")[2]
    return name in ("None", "str", "int", "float", "bytes", "bool") or (name[:1].isupper() and not name.isupper())


def _is_possessive(text: str | bytes) -> bool:
    text = text if isinstance(text, str) else text.decode("latin-1")
    return bool(re.search(r"[\])][*+?]\+[()\[\\]", text))


def test_an_agent_imports_no_more_than_its_few_libraries() -> None:
    """The bug it would catch: an import of the settings brings the hub's stack onto each server."""
    foreign = {
        found.split(".")[0]
        for path in FILES.values()
        for node in agent_download._at_import(ast.parse(path.read_text()))
        for found in ([each.name for each in node.names] if isinstance(node, ast.Import) else [node.module or ""])
    } - {"processes"}
    assert foreign - sys.stdlib_module_names == LIBRARIES | STANDING_IN
    assert {"processes.adapters.settings", "processes.core.travels.messages"}.isdisjoint(MODULES)
    assert set(agent_download.LIBRARIES) == LIBRARIES


def test_the_unpacker_knows_the_standard_library_alone() -> None:
    tree = ast.parse(FILES["processes.agent.unpack"].read_text())
    names = {
        (each.name if isinstance(node, ast.Import) else node.module or "").split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for each in node.names
    }
    assert names <= sys.stdlib_module_names


def test_an_agents_modules_use_nothing_that_python_3_9_lacks() -> None:
    found = [f"{path.relative_to(HOME)}:{fault}" for path in FILES.values() for fault in faults(path.read_text())]
    lazy = "processes/core/travels/shape.py"  # judged by the gateway alone; compiled when it is needed
    assert [fault for fault in found if not fault.startswith(lazy)] == []


@pytest.mark.parametrize(
    "line",
    [
        "asyncio.timeout(1)", "from typing import Self", "import tomllib", "Either = Left | Right", "sys.orig_argv",
        "isinstance(a, int | str)", "try_ = BaseExceptionGroup", "dataclass(slots=True)", r"R = re.compile('[a]*+(b)')",
        "Some: Final = Left | None", "match a:\n    case 1: pass",
    ],
)  # fmt: skip
def test_what_python_3_9_lacks_is_found(line: str) -> None:
    """The rule itself: each of these would be caught."""
    found: list[str] = []
    with contextlib.suppress(SyntaxError):
        found = list(faults(line))
        assert found
    assert found or line.startswith("match"), "3.9's own grammar knows no match statement"


def test_ruff_judges_an_agents_modules_by_python_3_9() -> None:
    with (HOME / "pyproject.toml").open("rb") as file:
        targets = tomllib.load(file)["tool"]["ruff"]["per-file-target-version"]
    patterns = [
        f"{before}{each}{after}"
        for pattern in targets
        for before, inner, after in [re.fullmatch(r"([^{]*)(?:\{(.*)\})?(.*?)", pattern).groups("")]  # type: ignore[union-attr]
        for each in inner.split(",")
    ]
    for path in FILES.values():
        assert any(fnmatch(str(path.relative_to(HOME)), pattern) for pattern in patterns), (
            f"{path}: not in pyproject.toml"
        )


HUB = "wss://fleet.example.org:7701/ws"


@pytest.fixture(scope="module")
def file() -> agent_download.AgentFile:
    """The file as a fanout makes it."""
    return agent_download.make(HUB)


def test_the_same_tree_makes_the_same_file(file: agent_download.AgentFile) -> None:
    assert agent_download.make(HUB) == file
    assert agent_download.make("wss://other.example.org/ws").digest != file.digest, "its hub is in it"
    assert len(file.content) < 2 << 20
    assert unpack.__doc__ is not None
    assert unpack.__doc__.encode() in file.content


def test_it_is_made_once_for_all_who_ask(file: agent_download.AgentFile) -> None:
    """It costs half a second, and anybody may ask."""

    async def asked() -> None:
        download = agent_download.AgentDownload(HUB)
        first, second = await asyncio.gather(download.file(), download.file())
        assert first is second
        assert first == file

    asyncio.run(asked())


def payload(content: bytes) -> zipfile.ZipFile:
    text = content.decode().partition('payload="""')[2].partition('"""')[0]
    return zipfile.ZipFile(io.BytesIO(base64.b64decode(text)))


def test_what_a_file_unpacks_to_is_small(file: agent_download.AgentFile) -> None:
    """The promise: 15 MB with all libraries, and what is carried is for one interpreter."""
    members = payload(file.content)
    assert sum(member.file_size for member in members.infolist()) < 6_000_000
    carried = {name.split("/")[1] for name in members.namelist() if name.startswith("lib.")}
    assert carried >= LIBRARIES
    assert not [name for name in members.namelist() if ".." in name or name.startswith("/")]


@pytest.mark.parametrize("cut", [0.02, 0.5, 0.99, 1.0])
def test_a_file_that_is_cut_anywhere_does_nothing(file: agent_download.AgentFile, cut: float, tmp_path: Path) -> None:
    """`curl | sh` runs what has come; here not even --help is answered before the last line is there."""
    content = file.content[: int((len(file.content) - 2) * cut)]
    place = tmp_path / "place"
    words = ["sh", "-s", "--", "--code", "web1:secret", "--hub", "ws://127.0.0.1:1/ws", "--folder", str(place)]
    done = subprocess.run(words, input=content, capture_output=True, timeout=120, cwd=tmp_path)
    assert (done.stdout, list(tmp_path.iterdir())) == (b"", [])


def test_without_a_python_that_is_new_enough_it_says_what_to_do(file: agent_download.AgentFile, tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    for name in ("/usr/libexec/platform-python", "/run/current-system/sw/bin/python3"):
        if Path(name).exists():
            pytest.skip(f"{name} is there")
    script = tmp_path / "agent"
    script.write_bytes(file.content)
    done = subprocess.run(["/bin/sh", script], env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "Python 3.9 or newer is needed" in done.stderr


def test_every_module_of_an_agent_can_be_compiled_by_python_3_9(tmp_path: Path) -> None:
    """By the real one, where it is; its grammar is checked above in any case."""
    python = next((path for path in PYTHONS if path.exists()), None)
    if python is None:
        pytest.skip("there is no Python 3.9 here")
    words = [str(python), "-I", "-c", "import sys\nfor name in sys.argv[1:]: compile(open(name).read(), name, 'exec')"]
    done = subprocess.run([*words, *map(str, FILES.values())], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    files = agent_download.make(HUB)
    script = tmp_path / "agent"
    script.write_bytes(files.content)
    environ = {**os.environ, "PYTHON": str(python)}
    done = subprocess.run(["sh", script, "--help"], env=environ, capture_output=True, text=True, timeout=120)
    assert (done.returncode, f"this is {'.'.join(map(str, OLDEST))}." in done.stdout) == (0, True), done.stderr
