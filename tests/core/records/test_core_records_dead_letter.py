"""Which dead letters go when there are too many: those of the host that has most, of the kind of which it has most."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processes.core.records import dead_letter
from processes.core.records.dead_letter import DeadLetter, Why

EMPTY_BYTES = DeadLetter("", 0.0, "X", Why.STRAY).size_bytes


def kept(*hosts_and_whys: str, sizes: dict[int, int] | None = None) -> dict[str, DeadLetter]:
    """Return dead letters by id (0, 1, …), oldest first, of words such as "a.stray"; `sizes`: bytes of some events."""
    found = {}
    for number, word in enumerate(hosts_and_whys):
        host, _, why = word.partition(".")
        event = b"x" * (sizes or {}).get(number, 0)
        found[str(number)] = DeadLetter(str(number), float(number), "X", why, host=host, event=event)
    return found


@pytest.mark.parametrize(
    ("words", "gone"),
    [
        (["a.poison", "b.stray", "b.stray", "b.stray"], ["1"]),
        (["b.poison", "a.poison", "b.stray", "b.stray", "b.stray"], ["2", "3"]),
        (["a.poison", "a.raised", "a.stray", "a.stray"], ["2"]),
        ([".raised", ".raised", "a.poison", "b.poison"], ["0"]),  # of no host: one more host
        (["a.stray", "b.stray", "c.stray", "d.stray"], ["0"]),
        (["a.stray", "b.stray", "c.stray"], []),
    ],
)
def test_the_host_that_has_most_loses_the_oldest_of_its_commonest_kind(words: list[str], gone: list[str]) -> None:
    assert dead_letter.too_many(kept(*words), count_max=3) == gone


def test_in_bytes_the_host_that_takes_most_loses_first_though_others_have_more_of_them() -> None:
    found = kept("a.poison", "a.poison", "a.poison", "b.raised", "b.raised", "c.poison", sizes={3: 9000, 4: 9000})
    assert dead_letter.too_many(found, bytes_max=12_000 + 6 * EMPTY_BYTES) == ["3"]


def test_the_newest_stays_however_large_it_is() -> None:
    found = kept("a.poison", "b.poison", sizes={1: 9000})
    assert dead_letter.too_many(found, bytes_max=5000) == ["0"]
    assert dead_letter.too_many({"1": found["1"]}, bytes_max=5000) == []


def test_a_flood_of_stray_reports_of_one_host_displace_nothing_but_themselves() -> None:
    found = {f"p{n}": DeadLetter(f"p{n}", 1.0, "X", Why.POISON, host=f"h{n}", event=b"x" * 9000) for n in range(50)}
    found |= {f"own{n}": DeadLetter(f"own{n}", 1.0, "X", Why.POISON, host="flood") for n in range(9)}
    before = set(found)
    for number in range(1200):
        found[f"s{number}"] = DeadLetter(f"s{number}", 2.0, "X", Why.STRAY, host="flood")
        for gone in dead_letter.too_many(found):
            del found[gone]
    assert before <= set(found)
    assert len(found) == dead_letter.DEAD_LETTERS_MAX
    assert list(found)[-1] == "s1199"


arrivals = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from([Why.POISON, Why.STRAY]), st.integers(0, 2000)), max_size=60
)


@settings(deadline=None)
@given(arrivals, st.integers(1, 12), st.integers(4, 30))
def test_nobody_loses_one_but_who_has_most_and_the_bounds_hold(
    arrived: list[tuple[str, Why, int]], count_max: int, kilobytes_max: int
) -> None:
    """The bugs that it would catch: the oldest of all goes; a host within its share pays for another's flood; too much
    is kept, or more is thrown away than must be.
    """
    bytes_max = kilobytes_max * 1000
    found: dict[str, DeadLetter] = {}
    for number, (host, why, size) in enumerate(arrived):
        newest = str(number)
        found[newest] = DeadLetter(newest, 1.0, "X", why, host=host, event=b"x" * size)
        for gone in dead_letter.too_many(found, count_max=count_max, bytes_max=bytes_max):
            assert gone != newest
            too_many = len(found) > count_max
            assert too_many or sum(each.size_bytes for each in found.values()) > bytes_max, "it need not have gone"
            held: Counter[str] = Counter()
            for each in found.values():
                held[each.host] += 1 if too_many else each.size_bytes
            others = {each.host for id, each in found.items() if id != newest}
            assert held[found[gone].host] == max(held[host] for host in others)
            older = list(found)[: list(found).index(gone)]
            assert not [id for id in older if (found[id].host, found[id].why) == (found[gone].host, found[gone].why)]
            del found[gone]
        assert len(found) <= count_max
        assert len(found) == 1 or sum(each.size_bytes for each in found.values()) <= bytes_max
