"""The page of what was measured against the program: each command on it is one that can be typed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from bench.program import options

PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"


def test_every_command_of_the_page_is_one_that_can_be_typed() -> None:
    typed = re.findall(r"`bin/bench ([^`\n]+)`", PAGE.read_text())
    assert len(typed) > 10
    for words in typed:
        options().parse_args(shlex.split(words))


def test_every_chart_of_the_page_is_there() -> None:
    charts = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", PAGE.read_text())
    assert charts
    assert [name for name in charts if not (PAGE.parent / name).is_file()] == []
