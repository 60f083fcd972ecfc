"""Tables for people: which columns a terminal has room for, how wide each is, and in which order rows stand. Pure.

Nothing that is copied may be cut: a name, an id or a time is shown whole, or its column is left out and named. Columns
are left out by importance. Only prose, such as a reason, may stand on several lines, broken between words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

ID_CHARS: Final = 8  # of a short id; the page shows as many
GAP: Final = 2  # characters between two columns
PROSE_CHARS_MIN: Final = 20  # prose in less would be read word by word; guess

_NUMBER: Final = re.compile(r"-?\d+(?:\.\d+)?")


class Column(NamedTuple):
    """One column. `rank`: of several that have no room, those with the highest go first; 0: it never goes."""

    name: str
    rank: int
    prose: bool = False


class Cell(NamedTuple):
    """What a cell shows, and the exact value behind it: a time behind an age, a whole id behind a short one."""

    shown: str
    exact: str


Row = Sequence[Cell | str]


def as_columns(header: Sequence[Column | str]) -> list[Column]:
    """Return the header as columns; of those that are only named, the rightmost goes first."""
    return [each if isinstance(each, Column) else Column(each, place) for place, each in enumerate(header)]


def fitted(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], room: int, width: Callable[[str], int] = len
) -> list[int]:
    """Return the width of each column, 0 for one that is left out: all others stand whole within `room` characters.

    `width`: how many characters of a terminal a text takes. A first column that is wider than all of the room is the
    one exception: it stays.
    """
    natural = [
        max(width(text) for text in (column.name, *(row[place] for row in rows)))
        for place, column in enumerate(columns)
    ]
    least = [
        _least(column, [row[place] for row in rows], natural[place], width) for place, column in enumerate(columns)
    ]
    taken: list[int] = []
    for place in sorted(range(len(columns)), key=lambda place: (columns[place].rank, place)):
        if not taken or columns[place].rank == 0 or sum(least[each] + GAP for each in (*taken, place)) - GAP <= room:
            taken.append(place)
    widths = [least[place] if place in taken else 0 for place in range(len(columns))]
    left = room - sum(widths) - GAP * (len(taken) - 1)
    for place in taken:
        more = max(0, min(left, natural[place] - widths[place]))
        widths[place] += more
        left -= more
    return widths


def _least(column: Column, cells: Iterable[str], natural: int, width: Callable[[str], int]) -> int:
    if not column.prose:
        return natural
    words = [column.name, *(word for cell in cells for word in cell.split())]
    return min(natural, max(PROSE_CHARS_MIN, *(width(word) for word in words)))


def cut_between_words(text: str, room: int, width: Callable[[str], int] = len) -> str:
    """Return as many whole words as there is room for, with … behind them if there are more."""
    if width(text) <= room:
        return text
    words = text.split(" ")
    while words and width(" ".join(words)) + 2 > room:
        words.pop()
    return f"{' '.join(words)} …" if words else "…"


def in_order(rows: Sequence[Row], place: int, *, descending: bool) -> list[Row]:
    """Return the rows by their exact values in one column: numbers by size, empty cells last in both orders."""
    filled = [row for row in rows if exact(row[place]).strip("-")]
    numbers = [_NUMBER.match(exact(row[place])) for row in filled]

    def key(row: Row) -> tuple[float, str]:
        text = exact(row[place])
        number = _NUMBER.match(text)
        return (float(number[0]) if number and all(numbers) else 0.0), text.casefold()

    empty = [row for row in rows if not exact(row[place]).strip("-")]
    return [*sorted(filled, key=key, reverse=descending), *empty]


def exact(cell: Cell | str) -> str:
    """Return the exact value of the cell."""
    return cell if isinstance(cell, str) else cell.exact


def shown(cell: Cell | str) -> str:
    """Return what the cell shows to a person."""
    return cell if isinstance(cell, str) else cell.shown


def short_ids(ids: Sequence[str]) -> list[Cell]:
    """Return the ids shortened to ID_CHARS characters, or as many more as make each one of these ids alone."""
    chars, there = ID_CHARS, set(ids)
    while len({each[:chars] for each in there}) < len(there):
        chars += 1
    return [Cell(each[:chars], each) for each in ids]
