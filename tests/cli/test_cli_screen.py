"""A live screen on a small terminal: each row on one line, and what does not fit is counted."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from processes.cli.terminal import output

ROWS = [[f"host{number}", "online " * 20, "\x1b[31m"] for number in range(40)]


def drawn(monkeypatch: pytest.MonkeyPatch, width: int, height: int, rows: list[list[str]]) -> list[str]:
    """The lines that a terminal of that size shows."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("LINES", str(height))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    picture = output.screen("first " * 30, ["NAME", "PRESENCE", "TEXT"], rows, ["last " * 30, "end"])
    assert picture is not None
    text = io.StringIO()
    Console(file=text, width=width, height=height).print(picture)
    return text.getvalue().splitlines()


@pytest.mark.parametrize("width", [20, 40, 80])
@pytest.mark.parametrize("height", [6, 10, 24])
def test_what_does_not_fit_is_cut_and_counted(monkeypatch: pytest.MonkeyPatch, width: int, height: int) -> None:
    """The bug it would catch: rows that wrap push the count of the others, and the last lines, off the screen."""
    lines = drawn(monkeypatch, width, height, ROWS)
    assert len(lines) == height
    assert max(map(len, lines)) <= width
    shown = sum(line.startswith("host") for line in lines)
    (more,) = [int(found[1]) for line in lines if (found := re.match(r"… (\d+) more", line))]
    assert shown + more == len(ROWS)
    assert lines[-1].startswith("end")


def test_what_fits_is_shown_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = drawn(monkeypatch, 80, 24, ROWS[:20])
    assert (len(lines), sum(line.startswith("host") for line in lines)) == (24, 20)
    assert not any(line.startswith("…") for line in lines)


def test_columns_that_have_no_room_are_left_out_and_the_first_ones_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bug it would catch: on a narrow terminal every cell is cut to three letters, names included."""
    rows = [["a-rather-long-name", "online", "12 %", "something"]]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    for width, wanted in (
        (43, "a-rather-long-name  online  12 %  something"),
        (42, "a-rather-long-name  online  12 %"),
        (10, "a-rather-…"),
    ):
        monkeypatch.setenv("COLUMNS", str(width))
        picture = output.screen("first", ["NAME", "PRESENCE"[:6], "CPU", "TEXT"], rows)
        assert picture is not None
        text = io.StringIO()
        Console(file=text, width=width, height=10).print(picture)
        assert text.getvalue().splitlines()[2].rstrip() == wanted


HEADER = ["NAME", "PRESENCE", "LAST SEEN", "CPU", "MEMORY", "DISK", "LOAD", "RUNNING", "AGENT", "OPERATIONS"]
HOST = ["storage-07", "online", "2 s ago", "100 %", "8 %", "20 %", "5.38", "", "0.1.0", "uptime facts pull switch"]


@pytest.mark.parametrize("width", [10, 20, 30, 40, 60, 80, 120, 200])
def test_a_table_on_a_narrow_terminal_is_legible_and_names_what_it_leaves_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    """The bug it would catch: ten columns of two letters each."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    output.table(HEADER, [HOST, ["pid/1", *HOST[1:]]])
    told = capsys.readouterr()
    plain = re.sub(r"\x1b\[[0-9;]*m", "", told.out)
    lines = plain.splitlines()
    assert max(map(len, lines)) <= width
    assert any(line.startswith("storage-07") for line in lines)
    assert any(line.startswith("pid/1") for line in lines)
    left_out = re.search("no room for (.*): widen", told.err)
    missing = left_out[1].split(", ") if left_out else []
    shown = [name for name in HEADER if name not in missing]
    assert re.split(" {2,}", lines[0].rstrip()) == shown, "no header is broken"
    if width >= 20:  # the name is whole, and so is every other cell
        for row in lines[1:]:
            cells = {cell for cell in re.split(" {2,}", row.strip()) if cell}
            assert cells <= {*HOST, "pid/1"}
    assert (width < 120) == bool(missing)
