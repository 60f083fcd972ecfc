"""Tables and their overlay, against plain dicts."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from processes.core.hub.tables import Overlay, Table

KEYS = st.sampled_from("abcde")
ROWS = st.integers(0, 9)
CHANGES = st.lists(st.tuples(KEYS, st.none() | ROWS), max_size=30)


def parity(_: str, row: int) -> str | None:
    """What a row counts as: rows over 7 nowhere."""
    return None if row > 7 else "odd" if row % 2 else "even"


@given(st.lists(CHANGES, max_size=5))
def test_steps_over_an_overlay_are_the_same_as_on_a_dict(steps: list[list[tuple[str, int | None]]]) -> None:
    """The bugs it would catch: a change that reaches the table before it is applied, one that is lost, or one too many
    in a count.
    """
    table, plain = Table[int]("t", class_of=parity), dict[str, int]()
    for changes in steps:
        overlay = Overlay()
        before = dict(table)
        wanted = dict(plain)
        for key, row in changes:
            overlay.set(table, key, row)
            if row is None:
                wanted.pop(key, None)
            else:
                wanted[key] = row
            assert {key: overlay.get(table, key) for key in "abcde"} == {key: wanted.get(key) for key in "abcde"}
            assert dict(table) == before
        overlay.apply_rows()
        plain = wanted
        assert dict(table) == plain
        classes = [parity(key, row) for key, row in plain.items()]
        assert {name: table.counts[name] for name in ("odd", "even")} == {n: classes.count(n) for n in ("odd", "even")}


@given(st.lists(st.tuples(st.integers(0, 30).map(str), ROWS), max_size=80))
def test_of_a_bounded_class_the_oldest_leave_and_the_others_stay(rows: list[tuple[str, int]]) -> None:
    """Oldest: whose class has been the same for longest."""
    table, order = Table[int]("t", class_of=parity, kept={"odd": 3}), list[str]()
    plain: dict[str, Any] = {}
    for key, row in rows:
        table.put_row(key, row)
        if key in order and parity(key, row) != "odd":
            order.remove(key)
        elif key not in order and parity(key, row) == "odd":
            order.append(key)
        plain[key] = row
        if len(order) > 3:
            del plain[order.pop(0)]
        assert dict(table) == plain
        assert table.counts["odd"] == len(order) <= 3


def test_two_tables_do_not_mix() -> None:
    first, second = Table[int]("first"), Table[int]("second")
    overlay = Overlay()
    overlay.set(first, "a", 1)
    assert overlay.get(second, "a") is None
    assert list(overlay.changed(second)) == []
    overlay.apply_rows()
    assert (dict(first), dict(second)) == ({"a": 1}, {})
