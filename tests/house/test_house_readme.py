"""The README against the code: what it names exists."""

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
            assert verb in cli.commands, f"fleethub {verb}"
            command: click.Command = cli.commands[verb]
            if isinstance(command, click.Group):
                inner = rest.split()[0]
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
