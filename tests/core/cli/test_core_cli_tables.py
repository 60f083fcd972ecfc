"""Tables at any width: what is copied is whole, what has no room is left out by importance."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processes.core.cli.tables import (
    GAP,
    ID_CHARS,
    Cell,
    Column,
    as_columns,
    cut_between_words,
    fitted,
    in_order,
    short_ids,
)

words = st.text("abcdef", min_size=1, max_size=12) | st.text("abcdef", min_size=20, max_size=30)
tables = st.integers(1, 7).flatmap(
    lambda count: st.tuples(
        st.lists(st.builds(Column, words, st.integers(0, 9), st.booleans()), min_size=count, max_size=count),
        st.lists(
            st.lists(st.lists(words, max_size=8).map(" ".join), min_size=count, max_size=count), min_size=1, max_size=5
        ),
    )
)


@given(tables, st.integers(1, 200))
def test_what_is_shown_is_whole_and_what_is_left_out_matters_less(
    table: tuple[list[Column], list[list[str]]], room: int
) -> None:
    """The bugs it would catch: half an id, a word in two pieces, or a name left out while a counter stays."""
    columns, rows = table
    widths = fitted(columns, rows, room)
    for place, (column, width) in enumerate(zip(columns, widths, strict=True)):
        cells = [column.name, *(row[place] for row in rows)]
        if width and not column.prose:
            assert width == max(map(len, cells)), "nothing in it breaks"
        if width and column.prose:
            assert width >= max((len(word) for cell in cells for word in cell.split()), default=0), "no word breaks"
    kept = [place for place, width in enumerate(widths) if width]
    assert kept
    assert all(widths[place] for place, column in enumerate(columns) if column.rank == 0)
    fits = sum(widths) + GAP * (len(kept) - 1) <= room
    forced = [place for place, column in enumerate(columns) if column.rank == 0]
    first = min(range(len(columns)), key=lambda place: (columns[place].rank, place))
    assert fits or set(kept) <= {*forced, first}
    if room >= sum(max(len(text) for text in (c.name, *(r[p] for r in rows))) + GAP for p, c in enumerate(columns)):
        assert len(kept) == len(columns), "there is room for all"


def test_columns_go_by_importance_and_not_by_place() -> None:
    columns = [Column("NAME", 0), Column("CPU", 3), Column("STATE", 1), Column("WHY", 2, prose=True)]
    rows = [["storage-07", "12 %", "offline", "its disk is full since yesterday"]]
    assert fitted(columns, rows, 80) == [10, 4, 7, 32]
    assert fitted(columns, rows, 50) == [10, 4, 7, 23]
    assert fitted(columns, rows, 44) == [10, 0, 7, 23]
    assert fitted(columns, rows, 25) == [10, 4, 7, 0]
    assert fitted(columns, rows, 19) == [10, 0, 7, 0]
    assert fitted(columns, rows, 4) == [10, 0, 0, 0]
    assert fitted(as_columns(["A", "B"]), [["xx", "yy"]], 3) == [2, 0]


@given(st.lists(words, max_size=9).map(" ".join), st.integers(3, 60))
def test_a_line_is_cut_between_words(text: str, room: int) -> None:
    cut = cut_between_words(text, room)
    assert len(cut) <= room
    assert cut in {text, "…"} or (cut.endswith(" …") and set(cut.split()[:-1]) <= set(text.split()))
    assert text.startswith(cut.removesuffix("…").rstrip(" "))


@pytest.mark.parametrize(
    ("cells", "wanted"),
    [
        (["10 %", "9 %", "", "100 %"], ["9 %", "10 %", "100 %", ""]),
        (["web10", "web9", "Web1", "-"], ["Web1", "web10", "web9", "-"]),
        (["2026-01-02T00:00:00Z", "2025-12-31T00:00:00Z"], ["2025-12-31T00:00:00Z", "2026-01-02T00:00:00Z"]),
        (["10", "x", "9"], ["10", "9", "x"]),
    ],
)
def test_rows_stand_in_the_order_of_a_column_and_empty_cells_last(cells: list[str], wanted: list[str]) -> None:
    ordered = [row[0] for row in in_order([[cell] for cell in cells], 0, descending=False)]
    assert ordered == wanted
    down = [row[0] for row in in_order([[cell] for cell in cells], 0, descending=True)]
    assert down == [*reversed([cell for cell in wanted if cell.strip("-")]), *(c for c in wanted if not c.strip("-"))]


def test_ages_are_in_the_order_of_their_times() -> None:
    """The bug it would catch: 2 h stands before 90 s."""
    rows = [[Cell("90 s ago", "2026-01-02T00:00:00Z")], [Cell("2 h ago", "2026-01-01T22:00:00Z")]]
    assert in_order(rows, 0, descending=False) == rows[::-1]


@given(st.lists(st.text("0123456789abcdef", min_size=32, max_size=32), max_size=20))
def test_a_short_id_is_of_one_alone(ids: list[str]) -> None:
    short = short_ids(ids)
    assert [cell.exact for cell in short] == ids
    assert all(cell.exact.startswith(cell.shown) and len(cell.shown) >= ID_CHARS for cell in short)
    assert len({cell.shown for cell in short}) == len(set(ids))


def test_a_short_id_is_as_long_as_it_must_be() -> None:
    assert [cell.shown for cell in short_ids(["0123456789x", "a" * 11])] == ["01234567", "a" * 8]
    assert [cell.shown for cell in short_ids(["0123456789x", "0123456788x"])] == ["0123456789", "0123456788"]
    assert [cell.shown for cell in short_ids(["1", "22"])] == ["1", "22"]
