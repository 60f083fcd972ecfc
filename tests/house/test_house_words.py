"""The words, the docstrings and what must not be left lying about, read from the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

HOME = Path(__file__).resolve().parents[2]
SOURCES = sorted((HOME / "processes").rglob("*.py"))
TESTS = sorted([*(HOME / "tests").rglob("*.py"), *(HOME / "bench").rglob("*.py")])
WORDS_NOT_USED = {"helper", "helpers", "util", "utils"}  # they say nothing of what is inside
GIVEN = {"data_received"}  # names that others dictate: asyncio's protocols
LEFT_OVERS = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
FUNCTION_LINES_MAX = 60  # a habit: more is two things, or a table (LONG says why)
CLASS_LINES_MAX = 300
LINE_CHARS_MAX = 120
WIDE = {  # files with longer lines, and why
    "processes/adapters/state/__init__.py": "rows of the map",
    "processes/fanout/openapi_prose.py": "paragraphs of the document",
    "processes/fanout/outputs.py": "a lambda with its types",
    "processes/fanout/page/terminal.js": "a regular expression",
}
TEST_LINE_CHARS_MAX = 180  # scripts and frames in strings
LONG = {  # "FILE NAME" → why it is longer than the habit
    "processes/adapters/websocket.py WebSocket": "one protocol, of which no part stands alone",
    "processes/core/hub/step.py step": "two lines for each kind of event",
}

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def relative(path: Path) -> str:
    return str(path.relative_to(HOME))


def definitions(path: Path) -> Iterator[tuple[Definition, bool]]:
    """Every class and function of the file; True with those that are public: not private, and not inside a function or
    a private class.
    """

    def inside(body: list[ast.stmt], public: bool) -> Iterator[tuple[Definition, bool]]:
        for statement in body:
            if isinstance(statement, Definition):
                visible = public and not statement.name.startswith("_")
                yield statement, visible
                yield from inside(
                    statement.body, visible and isinstance(statement, ast.ClassDef) and not is_protocol(statement)
                )
            elif isinstance(statement, ast.If | ast.With | ast.Try):
                yield from inside(statement.body, public)

    yield from inside(ast.parse(path.read_text()).body, True)


def is_protocol(definition: ast.ClassDef) -> bool:
    """Its methods are described where they are written out."""
    return any(ast.unparse(base).startswith("Protocol") for base in definition.bases)


def overrides(definition: Definition) -> bool:
    return any(
        "override" in ast.unparse(decorator) or ".setter" in ast.unparse(decorator)
        for decorator in definition.decorator_list
    )


def words(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def test_words_are_split_as_they_are_read() -> None:
    assert words("HTTPServerData_of_job2") == {"http", "server", "data", "of", "job"}


def test_every_public_function_and_class_says_what_it_is() -> None:
    found = [
        f"{relative(path)}:{definition.lineno} {definition.name}"
        for path in SOURCES
        for definition, public in definitions(path)
        if public and not ast.get_docstring(definition) and not overrides(definition) and definition.name not in GIVEN
    ]
    assert found == []


def test_every_module_says_what_it_is() -> None:
    assert [relative(path) for path in SOURCES + TESTS if not ast.get_docstring(ast.parse(path.read_text()))] == []


def test_the_words_that_are_not_used_name_nothing() -> None:
    found = [
        f"{relative(path)}:{definition.lineno} {definition.name}"
        for path in SOURCES
        for definition, _ in definitions(path)
        if words(definition.name) & WORDS_NOT_USED and definition.name not in GIVEN
    ]
    files = [relative(path) for path in SOURCES + TESTS if words(path.stem) & WORDS_NOT_USED]
    assert found + files == []


def test_nothing_is_left_for_later() -> None:
    folders = ["processes", "tests", "bench", "bin", ".ci"]
    files = [
        path
        for folder in folders
        for path in (HOME / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    found = [
        f"{relative(path)}:{number}"
        for path in [*files, *(path for path in HOME.glob("*.*") if path.is_file())]
        if path.suffix not in (".png", ".woff2", ".ico", ".zip")
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if LEFT_OVERS.search(line)
    ]
    assert found == []


def test_functions_and_classes_are_read_on_a_screen_or_two() -> None:
    """What is longer says why in LONG, and LONG names nothing that is short."""
    found = {}
    for path in SOURCES:
        for definition, _ in definitions(path):
            lines = (definition.end_lineno or 0) - definition.lineno + 1
            if lines > (CLASS_LINES_MAX if isinstance(definition, ast.ClassDef) else FUNCTION_LINES_MAX):
                found[f"{relative(path)} {definition.name}"] = lines
    assert {name: lines for name, lines in found.items() if name not in LONG} == {}
    assert [name for name in LONG if name not in found] == []


def test_no_line_is_longer_than_a_screen_is_wide() -> None:
    page = sorted(path for path in (HOME / "processes" / "fanout" / "page").iterdir() if path.suffix != ".svg")
    scripts = sorted(path for path in (HOME / "bin").iterdir() if path.is_file())
    found = [
        f"{relative(path)}:{number}"
        for path in [*SOURCES, *TESTS, *page, *scripts]
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > (TEST_LINE_CHARS_MAX if path in TESTS else LINE_CHARS_MAX) and relative(path) not in WIDE
    ]
    assert found == []


def test_test_files_have_names_of_their_own() -> None:
    """They share one namespace: two of the same name would hide each other."""
    names = [path.name for path in TESTS if path.name.startswith("test_")]
    assert sorted(names) == sorted(set(names))


def test_no_two_classes_of_the_core_have_one_name() -> None:
    places: dict[str, list[str]] = {}
    for path in (HOME / "processes" / "core").rglob("*.py"):
        for statement in ast.parse(path.read_text()).body:
            if isinstance(statement, ast.ClassDef):
                places.setdefault(statement.name, []).append(relative(path))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_no_module_name_stands_in_three_rooms() -> None:
    """But for the files that every process has alike."""
    places: dict[str, list[str]] = {}
    for path in SOURCES:
        if path.stem not in ("__init__", "__main__", "loop"):
            places.setdefault(path.stem, []).append(relative(path))
    assert {name: found for name, found in places.items() if len(found) > 2} == {}
