"""Which id is meant by the beginning of one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processes.core.shown.short_ids import CANDIDATES_MAX, CHARS_MIN, AmbiguousId, meant

IDS = ["abcd1", "abcd2", "abce1", "abcdef", "x" * 32]


def beginning(given_id: str) -> list[str]:
    return sorted(each for each in IDS if each.startswith(given_id))


@pytest.mark.parametrize(
    ("typed", "id_"),
    [
        ("abcd1", "abcd1"), ("abce", "abce1"), ("xxxx", "x" * 32), ("abcdef", "abcdef"), ("abcde", "abcdef"),
        ("xxx", "xxx"), ("", ""), ("abcf", "abcf"), ("abcd11", "abcd11"),
    ],
)  # fmt: skip
def test_one_id_is_meant_by_itself_or_by_its_beginning_alone(typed: str, id_: str) -> None:
    assert meant(typed, beginning(typed), "commands") == id_


def test_several_that_begin_so_are_named_and_none_is_taken() -> None:
    with pytest.raises(AmbiguousId, match=r"several commands begin with 'abcd': abcd1, abcd2, abcdef") as refused:
        meant("abcd", beginning("abcd"), "commands")
    assert refused.value.candidates == ["abcd1", "abcd2", "abcdef"]
    many = [f"aaaa{number:03}" for number in range(CANDIDATES_MAX + 1)]
    with pytest.raises(AmbiguousId, match=r"aaaa009, …") as refused:
        meant("aaaa", many, "runs")
    assert refused.value.candidates == many[:CANDIDATES_MAX]


@given(st.lists(st.text("ab", min_size=1, max_size=8), unique=True), st.text("ab", max_size=8))
def test_what_is_meant_is_typed_as_it_is_or_begins_so_and_nothing_else_does(ids: list[str], typed: str) -> None:
    there = sorted(each for each in ids if each.startswith(typed))
    try:
        found = meant(typed, there, "ids")
    except AmbiguousId:
        assert len(there) > 1
        assert typed not in ids
        assert len(typed) >= CHARS_MIN
    else:
        assert found == typed or [found] == there
        assert found in ids or found == typed
