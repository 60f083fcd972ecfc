"""The README and the manual against the code: what they name exists."""

from __future__ import annotations

import re
from pathlib import Path

import click

from processes.cli.__main__ import cli

HOME = Path(__file__).resolve().parents[2]
README = (HOME / "README.md").read_text()
CODE = re.findall(r"```[a-z]*\n(.*?)```", README, re.DOTALL) + re.findall(r"`([^`\n]+)`", README)


def test_every_command_in_the_readme_is_one_that_can_be_typed() -> None:
    for text in CODE:
        for verb, rest in re.findall(r"(?:^|[\s(])(?<!from )(?:bin/)?fleethub ([a-z-]+)([^\n|;)]*)", text):
            command = cli.get_command(click.Context(cli), verb)
            assert command is not None, f"fleethub {verb}"
            if isinstance(command, click.Group):
                inner = (rest.split() or [""])[0]
                if command.invoke_without_command and inner not in command.commands:
                    continue
                assert inner in command.commands, f"fleethub {verb} {inner}"
                command = command.commands[inner]
            known = {option for parameter in command.params for option in parameter.opts}
            for option in re.findall(r"(?<!\S)--[a-z-]+", rest):
                assert option in known, f"fleethub {verb} {option}"


def test_every_file_that_the_readme_names_exists() -> None:
    names = {name for text in CODE for name in re.findall(r"(?<![\w/.:])((?:bin|processes|tests|\.ci)/[\w./-]+)", text)}
    names |= set(re.findall(r"\]\((?!https?:|#)([^)#]+)", README))
    names |= {name for text in CODE for name in re.findall(r"(?<![\w/.-])([\w-]+\.(?:conf|md))\b", text)}
    assert [name for name in sorted(names) if not (HOME / name).exists()] == []


def test_every_file_that_the_manual_names_exists() -> None:
    """Paths there are those inside processes/, or inside core/ or fanout/ where the text stands under that room."""
    package = HOME / "processes"
    manual = (package / "__init__.py").read_text()
    rooms = sorted(path.name for path in [*package.iterdir(), *(package / "core").iterdir()] if path.is_dir())
    names = set(re.findall(rf"(?<![\w/])((?:{'|'.join(rooms)}|page|tests)/[\w/]+\.(?:py|js))", manual))
    assert len(names) > 40
    places = (HOME, package, package / "core", package / "fanout", package / "cli")
    assert [name for name in sorted(names) if not any((place / name).exists() for place in places)] == []
