"""The pages in docs/ against the code: what can be typed, read as settings, or looked up is as they say."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import click
import msgspec
import pytest

from processes.adapters import settings
from processes.agent import config
from processes.cli.__main__ import cli
from processes.core.conditions import rules
from processes.core.hub.delivery import ENDS
from processes.core.records.command import State
from processes.core.shown.status import Verdict
from processes.core.values import Presence, Role, Unknown

HOME = Path(__file__).resolve().parents[2]
PAGES = sorted(path for path in (HOME / "docs").glob("*.md") if path.name != "threats-and-faults.md")
README = HOME / "README.md"


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", page.read_text(), re.DOTALL | re.MULTILINE)


def typed(page: Path) -> list[str]:
    """What can be typed, without those words before a verb that name a user, a container or an image."""
    found = blocks(page, "sh") + re.findall(r"`([^`\n]+)`", page.read_text())
    lines = [re.sub(r"\bsudo -u \w+ |\bpodman exec \w+ ", "", text) for text in found]
    return [re.sub(r"^.*\b(?:podman|chown) .*$", "", text, flags=re.MULTILINE) for text in lines]


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: page.name)
def test_every_verb_and_option_on_a_page_can_be_typed(page: Path) -> None:
    for text in typed(page):
        for verb, rest in re.findall(r"(?:^|[\s(])(?<!from )(?:bin/)?fleethub ([a-z-]+)([^\n|;)]*)", text):
            command = cli.get_command(click.Context(cli), verb)
            assert command is not None, f"{page.name}: fleethub {verb}"
            if isinstance(command, click.Group):
                inner = (rest.split() or [""])[0]
                if command.invoke_without_command and inner not in command.commands:
                    continue
                assert inner in command.commands, f"{page.name}: fleethub {verb} {inner}"
                command = command.commands[inner]
            known = {option for parameter in command.params for option in parameter.opts}
            for option in re.findall(r"(?<!\S)--[a-z-]+", rest):
                assert option in known, f"{page.name}: fleethub {verb} {option}"


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: page.name)
def test_every_file_and_page_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    linked = {name.partition("#")[0] for name in re.findall(r"\]\((?!https?:|#)([^)]+)", text)}
    assert [name for name in sorted(linked) if not (page.parent / name).exists()] == []
    named = {
        name
        for code in typed(page)
        for name in re.findall(r"(?<![\w/.:$])((?:bin|processes|tests|docs|\.ci)/[\w./-]+)", code)
    }
    assert [name for name in sorted(named) if not (HOME / name).exists()] == []


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: page.name)
def test_every_piece_of_a_settings_file_on_a_page_is_one(page: Path) -> None:
    for block in blocks(page, "toml"):
        values = tomllib.loads(block)
        if "rules" in values:
            assert rules.read(values)
            continue
        agents = set(values) <= {"labels"} or all(
            isinstance(value, dict) for value in values.get("commands", {"": 0}).values()
        )
        msgspec.convert({"hub": "ws://h/ws", **values} if agents else values, config.File if agents else settings.File)


def test_every_page_is_named_by_another_one() -> None:
    named = {
        (page.parent / name.partition("#")[0]).resolve()
        for page in [README, *PAGES]
        for name in re.findall(r"\]\((?!https?:|#)([^)]+)", page.read_text())
        if page.parent / name != page
    }
    assert [page.name for page in PAGES if page not in named] == []


def rows(section: str) -> dict[str, str]:
    """The first two columns of the tables below a headline of words.md."""
    text = (HOME / "docs" / "words.md").read_text().partition(f"## {section}\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| `([a-z_]+)` \| ([^|]*) \|", text, re.MULTILINE))


def test_every_word_for_a_process_a_host_and_a_command_is_explained() -> None:
    assert set(rows("A process")) == set(Verdict)
    assert set(rows("A host")) >= set(Presence)
    assert set(rows("A command")) >= set(State)
    assert set(rows("A command")) >= {reason for _, reason in ENDS.values() if reason}
    assert set(rows("A command")) >= set(Unknown)


def test_every_reason_that_is_explained_is_one_that_the_code_says() -> None:
    said = "".join(path.read_text() for path in (HOME / "processes").rglob("*.py"))
    reasons = {word for word in rows("A command") if word not in set(State)}
    assert len(reasons) > 12
    assert [word for word in sorted(reasons) if f'"{word}"' not in said] == []
    # and every literal reason of a move into a final state is explained
    moved = set(re.findall(r'State\.(?:LOST|EXPIRED|REJECTED|FAILED)\s*,\s*[\w."]+,\s*"([a-z_]+)"', said))
    assert len(moved) > 6
    assert sorted(moved - set(rows("A command"))) == []


def test_every_role_is_explained() -> None:
    text = (HOME / "docs" / "security.md").read_text()
    assert [role for role in Role if f"| {role} |" not in text] == []
