"""Text from outside can do nothing to a terminal."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processes.cli.terminal import output
from processes.cli.terminal.text import (
    age,
    ago,
    ascii_json,
    coloured,
    colourless,
    columns,
    count,
    drawn,
    harmless_json,
    plain,
    since,
    took,
    until,
)
from processes.core.cli.tables import Cell
from processes.core.values import seconds_between

HARMFUL = {"Cc", "Cf", "Cs", "Zl", "Zp"}


@given(st.text(alphabet=st.characters(codec=None)))
def test_no_control_or_bidi_character_of_any_text_comes_through(text: str) -> None:
    """The bug it would catch: an escape sequence, a bidi override or a lone surrogate in a host's name or a command's
    output.
    """
    shown = plain(text)
    assert not [c for c in shown if unicodedata.category(c) in HARMFUL and c not in "\u200c\u200d"]
    shown.encode()


@given(st.dictionaries(st.text(), st.text()))
def test_json_in_ascii_is_the_same_document(document: dict[str, str]) -> None:
    text = json.dumps(document, ensure_ascii=False)
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # no lone surrogates
    assert ascii_json(text).isascii()
    assert json.loads(ascii_json(text)) == json.loads(text)


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "gbk", "euc_jp", "utf-8", "UTF8", "cp1252"])
def test_a_document_is_json_in_every_locale(encoding: str) -> None:
    """The bug it would catch: --json in a legacy locale is no JSON, exit 0."""
    script = (
        "from processes.cli.terminal import output, streams; streams.prepare(); output.document({'a': 'ünï 🚀 語'})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONIOENCODING": encoding}, capture_output=True, check=True
    )
    assert json.loads(done.stdout.decode("utf-8")) == {"a": "ünï 🚀 語"}


@given(st.binary())
def test_no_bytes_of_an_agent_reach_the_terminal_as_controls(raw: bytes) -> None:
    shown = plain(raw.decode(errors="replace"), keep="\t")
    assert all(c == "\t" or ord(c) >= 32 for c in shown)
    assert "\x9b" not in shown  # CSI as one C1 character
    assert "\x7f" not in shown


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S", "Zs"], exclude_characters="\\")))
def test_text_that_is_harmless_stays_as_it_is(text: str) -> None:
    assert plain(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("\x1b]52;c;AAAA\x1b\\", "\\x1b]52;c;AAAA\\x1b\\"),
        ("user\u202etxt.exe", "user\\u202etxt.exe"),
        ("\ud800", "\\ud800"),
        ("a\rb\nc", "a\\x0db\\x0ac"),
        ("\U000e0041", "\\U000e0041"),
        ("Zürich 🧑‍🚒", "Zürich 🧑‍🚒"),
    ],
)
def test_what_is_escaped_is_shown_as_its_number(text: str, shown: str) -> None:
    assert plain(text) == shown


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5))
def test_a_document_on_a_terminal_is_the_same_and_has_no_control_or_bidi_character(value: object) -> None:
    document = json.dumps(value, ensure_ascii=False, indent=2)
    shown = harmless_json(document)
    assert json.loads(shown) == value
    assert not [c for c in shown if unicodedata.category(c) in HARMFUL and c not in "\n\u200c\u200d"]


def test_a_document_is_escaped_on_a_terminal_and_left_as_it_is_for_a_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {"data": "\u009b31m \u202eexe.txt\u2028 \U000e0041"}
    output.document(told)
    assert json.loads(capsys.readouterr().out) == told
    output.document(told)
    assert told["data"] in capsys.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    output.document(told)
    shown = capsys.readouterr().out
    assert json.loads(shown) == told
    assert shown.isascii()


@pytest.mark.parametrize(
    ("line", "shown"), [("10 %\r55 %\r", "55 %"), ("\r55 %", "55 %"), ("plain", "plain"), ("\r\r", ""), ("", "")]
)
def test_what_was_drawn_over_is_not_shown(line: str, shown: str) -> None:
    assert drawn(line) == shown


def test_columns_are_aligned_and_nothing_is_cut_off() -> None:
    long = "x" * 300
    assert columns(["A", "BB"], [["1", long], ["333", "4"]]) == ["A    BB", f"1    {long}", "333  4"]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "-"), (-3.0, "0 s"), (0.4, "0 s"), (119.0, "119 s"), (120.0, "2 min"), (7199.0, "120 min"),
        (7200.0, "2 h"),
        (172_799.0, "48 h"), (172_800.0, "2 days"), (8_640_000.0, "100 days"),
    ],
)  # fmt: skip
def test_an_age_is_said_in_one_unit(seconds: float | None, said: str) -> None:
    assert age(seconds) == said


def test_how_long_ago_is_by_the_clock_of_who_told_it() -> None:
    assert ago("1970-01-01T00:01:00.000Z", 100.0) == "40 s ago"
    assert ago(None, 100.0) == "never"


def test_one_is_not_several_and_a_short_time_has_its_tenths() -> None:
    assert [count(number, "host") for number in (0, 1, 2)] == ["0 hosts", "1 host", "2 hosts"]
    assert [took(seconds) for seconds in (0.0, 1.26, 11.4, 600.0)] == ["0.0 s", "1.3 s", "11 s", "10 min"]
    assert seconds_between("2026-01-02T03:04:05.000Z", "2026-01-02T03:04:06.250Z") == 1.25
    assert seconds_between(None, "2026-01-02T03:04:06.250Z") is None


SGR = re.compile(r"\x1b\[[0-9;]*m")
pieces = st.lists(
    st.sampled_from(["\x1b[31m", "\x1b[0;1m", "\x1b[38;5;8m", "\x1b[8m", "\x1b[1;8;31m", "\x1b[38;5;1;8m", "\x1b[2J",
                     "\x1b]0;x\x07", "\x1b[m", "\x9b31m", "\u202e", "\r", "a", " ", "\t", "\x1b", "[31m", "\x1b[31"])
    | st.text(max_size=3),
    max_size=12,
).map("".join)  # fmt: skip


@given(pieces)
def test_of_all_sequences_only_colours_come_through_and_they_end_with_the_line(text: str) -> None:
    """The bugs it would catch: a title or a clearing of the screen comes through beside colours; what follows the line
    is red too; text is hidden.
    """
    line = coloured(text)
    rest = SGR.sub("", line)
    assert not [c for c in rest if unicodedata.category(c) in HARMFUL and c not in "\u200c\u200d\t"]
    assert not SGR.search(line) or line.endswith("\x1b[0m")
    kept = [found[2:-1].split(";") for found in SGR.findall(line)]
    for numbers in kept:
        while numbers:
            number = numbers.pop(0)
            assert number not in {"8", "08", "008"}
            if number in {"38", "48"}:
                del numbers[: 2 if numbers[:1] == ["5"] else 4]
    assert "\x1b" not in colourless(text)


@pytest.mark.parametrize(
    ("text", "on_terminal", "elsewhere"),
    [
        ("\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m\x1b[0m", "red"),
        ("\x1b[8mhidden", "hidden\x1b[0m", "hidden"),
        ("\x1b[38;5;8mgrey", "\x1b[38;5;8mgrey\x1b[0m", "grey"),
        ("a\tb", "a\tb", "a\tb"),
        ("\x1b[2J", "\\x1b[2J\x1b[0m", "\\x1b[2J"),
    ],
)
def test_colours_are_kept_on_a_terminal_and_left_out_elsewhere(text: str, on_terminal: str, elsewhere: str) -> None:
    assert coloured(text) == on_terminal
    assert colourless(text) == elsewhere


@pytest.mark.parametrize(
    ("is_terminal", "environ", "kept"),
    [(True, {}, True), (False, {}, False), (True, {"NO_COLOR": "1"}, False), (True, {"TERM": "dumb"}, False)],
)
def test_a_commands_colours_are_for_terminals_whose_owner_wants_them(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    is_terminal: bool,
    environ: dict[str, str],
    kept: bool,
) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    output.stream("\x1b[31mred", to_stderr=False)
    assert ("\x1b[31m" in capsys.readouterr().out) == kept


def test_a_time_is_shown_as_an_age_and_known_as_it_is() -> None:
    at = "1970-01-01T00:01:00.000Z"
    assert since(at, 100.0) == Cell("40 s ago", at)
    assert since(None, 100.0, "never") == Cell("never", "never")
    assert (until(at, 10.0), until(at, 100.0), until(None, 1.0)) == (
        Cell("in 50 s", at),
        Cell("40 s ago", at),
        Cell("", ""),
    )
