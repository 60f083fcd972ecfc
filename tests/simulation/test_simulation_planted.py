"""The planted bugs have their places: every tag in the source is used and every bug can be planted."""

from __future__ import annotations

import ast
import builtins
import functools
from pathlib import Path

import pytest
from simulation.planted import BUGS, BadTag, Bug, place, planted, tags

PACKAGE = Path(__file__).parent.parent.parent / "processes"


def test_every_tag_stands_once_and_is_used() -> None:
    """A tag that no bug names, or that stands twice, would mislead a reader of the source."""
    assert sorted(slug for slug, _ in tags(PACKAGE)) == sorted({bug.slug for bug in BUGS})


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_every_bug_can_be_planted(bug: Bug) -> None:
    """What comes out is Python, differs from what was there, and uses no name or attribute that is nowhere set."""
    text = _places()[bug.slug].read_text()
    changed = planted(text, bug)
    assert changed != text
    compile(changed, bug.slug, "exec")
    names, attributes = _used(changed)
    known, of_the_module = _used(text)
    assert names <= known | set(dir(builtins)) | _set(changed)
    assert attributes <= of_the_module or attributes <= _attributes_of_the_package()


@functools.cache
def _places() -> dict[str, Path]:
    return dict(tags(PACKAGE))


@functools.cache
def _attributes_of_the_package() -> set[str]:
    return {name for path in PACKAGE.rglob("*.py") for name in _used(path.read_text())[1]}


@functools.cache  # many bugs are planted in one module
def _used(text: str) -> tuple[set[str], set[str]]:
    """The names and the attributes that stand in a module."""
    nodes = list(ast.walk(ast.parse(text)))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    return names, {node.attr for node in nodes if isinstance(node, ast.Attribute)}


def _set(text: str) -> set[str]:
    """The names that a module assigns."""
    nodes = ast.walk(ast.parse(text))
    return {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


SAMPLE = """\
def f(a: int) -> int:
    # plant: head
    if (
        a > 1
    ):
        # plant: whole
        return g(
            a,
        )
    # plant: other
    # another comment
    elif a < 0:
        return 2
    return 3
# plant: end
"""


@pytest.mark.parametrize(
    ("slug", "becomes", "removed", "added"),
    [
        ("head", "if False:", ["    if (", "        a > 1", "    ):"], ["    if False:"]),
        ("whole", "a += 1\nreturn a", ["        return g(", "            a,", "        )"], ["        a += 1",
        "        return a"]),
        ("other", "elif a:", ["    elif a < 0:"], ["    elif a:"]),
    ],
)  # fmt: skip
def test_a_statement_of_many_lines_is_replaced_whole(
    slug: str, becomes: str, removed: list[str], added: list[str]
) -> None:
    """The head alone, if the change ends with a colon: its body, and everything else, stays."""
    assert (
        planted(SAMPLE, Bug("", slug, becomes)).splitlines()
        == SAMPLE.replace("\n".join(removed), "\n".join(added)).splitlines()
    )


@pytest.mark.parametrize(("slug", "becomes"), [("end", "pass"), ("whole", "if False:")])
def test_a_tag_above_nothing_that_could_change_is_an_error(slug: str, becomes: str) -> None:
    """A tag at the end of a file, and a head for a statement that has none, are told."""
    with pytest.raises(BadTag):
        planted(SAMPLE, Bug("", slug, becomes))


def test_a_tag_that_stands_twice_or_nowhere_is_an_error(tmp_path: Path) -> None:
    """bin/plant would else change one of them at random."""
    (tmp_path / "one.py").write_text(SAMPLE)
    assert place(tmp_path, "head") == tmp_path / "one.py"
    with pytest.raises(BadTag, match="0 times"):
        place(tmp_path, "nowhere")
    (tmp_path / "two.py").write_text(SAMPLE)
    with pytest.raises(BadTag, match="2 times"):
        place(tmp_path, "head")
