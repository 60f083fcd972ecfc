"""Reasons in words: every one that the manual of words explains has some."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from processes.core.shown import reasons

PAGE = Path(__file__).resolve().parents[3] / "docs" / "words.md"


def test_every_reason_of_the_page_of_words_has_words_here() -> None:
    """The bug it would catch: `journal_replaced` is shown as it is, to somebody who has never read of journals."""
    table = PAGE.read_text().partition("| reason | of | what it means |")[2].partition("\n\n")[0]
    named = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert len(named) > 20
    assert [reason for reason in named if reasons.in_words(reason) == reason] == []
    assert all("_" not in text for text in reasons.WORDS.values())


@pytest.mark.parametrize(
    ("ended", "wanted"),
    [
        (("exit", "failed", 3, ""), "exit code 3"),
        (("failed", "failed", 3, ""), "exit code 3"),
        (("timed_out", "failed", 143, ""), "it ran for too long, and was ended, exit code 143"),
        (("succeeded", "succeeded", 0, ""), ""),
        (("warning", "succeeded", 0, "3 units"), "with a warning, 3 units"),
        (("host_offline", "expired", None, ""), "its host was not connected in time"),
        (("not_started", "failed", None, "exec /no: No such file"),
         "its program could not be started, exec /no: No such file"),
        (("what_comes_next", "failed", None, ""), "what_comes_next"),
        (("", "running", None, ""), ""),
    ],
)  # fmt: skip
def test_why_something_ended_is_said_once_and_in_words(ended: tuple[str, str, int | None, str], wanted: str) -> None:
    assert reasons.why(*ended) == wanted
