"""Options that stand before the verb are taken as if they stood behind it, and no others are."""

from __future__ import annotations

import itertools

import click
import pytest

from processes.cli.__main__ import cli, execute
from processes.cli.terminal.options import wants_json
from processes.cli.terminal.verb_group import leading

OPTIONS = [("--hub", "http://a:1"), ("--hub=http://a:1",), ("--token-file", "t"), ("--json",)]
VERBS = [("hosts",), ("token", "list"), ("sessions", "end"), ("audit", "verify"), ("alarms", "test"), ("up",)]


def taken(*words: str) -> list[str]:
    return cli._behind_the_verb(click.Context(cli), list(words))


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_wherever_the_options_stand_the_verb_comes_first_and_they_follow_in_their_order(verb: tuple[str, ...]) -> None:
    for some in itertools.permutations(OPTIONS, 2):
        wanted = [*verb, *some[0], *some[1], "--all"]
        for at in itertools.product(range(len(verb) + 1), repeat=2):
            if at[0] <= at[1]:
                words = list(verb)
                words[at[1] : at[1]] = some[1]
                words[at[0] : at[0]] = some[0]
                assert taken(*words, "--all") == wanted, words


@pytest.mark.parametrize(
    "words",
    [
        ("hosts", "--json", "web"), ("run", "up", "--", "--json"), ("audit", "--limit", "3", "verify"),
        ("sessions", "--hub", "x"), ("command", "token", "list"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_stands_behind_a_verb_stays_where_it_is(words: tuple[str, ...]) -> None:
    assert taken(*words) == list(words)


def test_only_what_begins_the_words_is_leading() -> None:
    assert leading(["--json", "--hub", "a", "x", "--json"]) == (["--json", "--hub", "a"], ["x", "--json"])
    assert leading(["--json=1", "x"]) == ([], ["--json=1", "x"])
    assert leading(["--hub"]) == (["--hub"], [])
    assert leading(["--hubb", "x"]) == ([], ["--hubb", "x"])


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = execute(words)
    shown = capsys.readouterr()
    return code, shown.out + shown.err


@pytest.mark.parametrize("verb", [(), ("run",), ("token",), ("token", "revoke")])
def test_help_of_a_verb_is_its_help(capsys: pytest.CaptureFixture[str], verb: tuple[str, ...]) -> None:
    assert said(capsys, "help", *verb) == said(capsys, *verb, "--help")
    assert said(capsys, "help", "nonsense")[0] == 2


@pytest.mark.parametrize(("typed", "meant"), [("bogus", ""), ("statsu", "status"), ("log", "logs"), ("hsots", "hosts")])
def test_a_verb_is_suggested_only_if_it_is_near(capsys: pytest.CaptureFixture[str], typed: str, meant: str) -> None:
    """The bug it would catch: "did you mean logs?" for bogus."""
    code, shown = said(capsys, typed)
    assert code == 2
    assert ("did you mean" in shown) == bool(meant)
    assert f"did you mean {meant}?" in shown or not meant


def test_json_is_asked_for_in_three_ways() -> None:
    for words in (["hosts", "--json"], ["hosts", "-o", "json"], ["hosts", "-ojson"], ["x", "--output=json"]):
        assert wants_json(words)
    assert not wants_json(["hosts", "-o", "wide", "json"])
