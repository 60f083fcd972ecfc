"""The language of queries: what each term finds, what is refused and where, and what a query may cost."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest
from doubles.query_cases import FOUND, HOST, NOW_S, RUNNING, WRONG, random_cases

from processes.core.shown.query import (
    ELSEWHERE,
    OWN,
    RESERVED,
    TERMS_MAX,
    VALUE_CHARS_MAX,
    Query,
    QueryError,
    number_text,
    parse,
)
from processes.core.shown.views import HostView
from processes.core.travels.operator_requests import QUERY_CHARS_MAX


def finds(query: str, host: dict[str, Any] = HOST) -> bool:
    return parse(query).matches(host, NOW_S, **RUNNING)


@pytest.mark.parametrize(("query", "found"), FOUND)
def test_hosts_are_found(query: str, found: bool) -> None:
    assert finds(query) is found


@pytest.mark.parametrize(("query", "message", "piece"), WRONG)
def test_what_cannot_be_read_is_refused_with_its_place(query: str, message: str, piece: str) -> None:
    with pytest.raises(QueryError) as raised:
        parse(query)
    assert (raised.value.message, query[raised.value.start : raised.value.end]) == (message, piece)


def test_a_host_that_was_never_seen_has_been_offline_since_it_was_enrolled() -> None:
    host = {**HOST, "presence": "offline", "last_seen": None, "connected_since": None}
    assert finds("offline since>9d", host)
    assert not finds("offline since>11d", host)
    assert finds("offline since>4s", {**host, "last_seen": HOST["last_seen"]})
    assert not finds("since>0", {"name": "a", "presence": "online"})


@pytest.mark.parametrize(
    "time",
    [
        "2025-11-30 10:53:15.000Z", "2025-02-31T10:53:15.000Z", "2025-11-30T10:53:60.000Z", "2025-11-30T10:53:15.00xZ",
        "2025-11-30T10:53:15.000+", "2025-11-30T10:53:15Z", "2025-W48-7T10:53:15.000Z", "2025-11-30T1\N{ARABIC-INDIC DIGIT ONE}:53:15.000Z",
        "2025-11-30T10:53:15.000Z ", "", 1764500000, None,
    ],
)  # fmt: skip
def test_what_is_no_time_has_no_age(time: object) -> None:
    assert not finds("seen>0", {**HOST, "last_seen": time})
    assert not finds("seen<1", {**HOST, "last_seen": time})


@pytest.mark.parametrize("key", ["name", "os_version", "host_type", "presence"])
def test_words_are_found_beside_what_is_no_text(key: str) -> None:
    for odd in (7, ["web"], None, {"web": 1}):
        assert finds("rack=b4 prod pull", {**HOST, key: odd})
        assert not finds('"7"', {**HOST, key: odd, "labels": {}, "agent_labels": {}})


def test_an_idle_host_has_no_running_command() -> None:
    for query in ("running:*", "state:*", "pull"):
        assert not parse(query).matches({**HOST, "commands": []}, NOW_S)


def test_a_number_is_written_so_that_it_reads_as_the_same() -> None:
    chance = random.Random(1)
    values = [struct.unpack("d", chance.randbytes(8))[0] for _ in range(1000)]
    values += [chance.uniform(-1, 1) * 10 ** chance.randrange(-9, 24) for _ in range(1000)]
    for value in (*values, *(chance.randrange(2**66) for _ in range(500))):
        text = number_text(value)
        if text.strip("-") not in ("infinity", "nan"):
            assert float(text) == float(value)
            assert not text.endswith(".0")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2.0, "2"), (-0.0, "0"), (1e20, "100000000000000000000"), (1e21, "1e+21"), (1.5e-7, "1.5e-7"), (1e-6, "0.000001"),
        (123.456, "123.456"), (2**63, "9223372036854776000"), (10**400, "infinity"), (-(10**400), "-infinity"),
        (True, "true"), (1.25e22, "1.25e+22"), (-0.5, "-0.5"),
    ],
)  # fmt: skip
def test_a_number_is_written_as_the_page_writes_it(value: float, text: str) -> None:
    assert number_text(value) == text


def test_a_query_looks_at_no_more_of_a_row_than_it_says() -> None:
    """A row that has only `keys` is found exactly when the whole row is: what is not named need not be decoded."""
    asked = [*((query, HOST, RUNNING) for query, _ in FOUND), *random_cases(7, 2000)]
    read = 0
    for text, host, running in asked:
        try:
            query = parse(text)
        except QueryError:
            continue
        read += 1
        part = {key: value for key, value in host.items() if key in query.keys}
        now = running or {}
        assert query.matches(part, NOW_S, **now) == query.matches(host, NOW_S, **now), text
        if not query.asks_running:
            assert query.matches(host, NOW_S) == query.matches(host, NOW_S, **now), text
    assert read > 1000


def test_hosts_that_are_looked_at_together_are_found_as_each_alone() -> None:
    """What one host has, and what it does, is never taken for another's."""
    cases = random_cases(9, 1200)
    hosts, running = [each.host for each in cases], [each.running or {} for each in cases]
    doing = [(now.get("op", ""), now.get("state", "")) for now in running]
    found = read = 0
    for first, case in enumerate(cases):
        some = slice(first, first + 25)
        try:
            query = parse(case.query)
        except QueryError:
            continue
        alone = [at for at, host in enumerate(hosts[some]) if query.matches(host, NOW_S, *doing[some][at])]
        assert query.found(hosts[some], NOW_S, doing[some]) == alone, case.query
        read, found = read + 1, found + len(alone)
    assert read > 500
    assert found > 2 * read


def test_a_term_and_its_opposite_find_every_host_once() -> None:
    for text, host, running in random_cases(8, 1500):
        now = running or {}
        try:
            plain, opposite = parse(f"name:* {text}"), parse(f"name:* !{text}")
        except QueryError:
            continue
        if len(plain.tests) == 2 and text[:1] not in ("!", "-") and len(opposite.tests) == 2:
            both = [
                Query("", query.tests[1:], query.looks, True).matches(host, NOW_S, **now) for query in (plain, opposite)
            ]
            assert both in ([True, False], [False, True]), text


def test_what_a_query_costs_is_bounded_by_its_length_and_its_terms() -> None:
    """Each term looks at a host once, and at no more than VALUE_CHARS_MAX characters of a value; the first that does
    not match ends it.
    """
    words = " ".join(f"!f{n}:*x" for n in range(TERMS_MAX))
    query = parse(words)
    looks = 0

    class Counted(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            nonlocal looks
            looks += 1
            return super().get(key, default)

    assert query.matches(Counted(HOST), NOW_S)
    assert looks <= len(ELSEWHERE)
    terms = 0

    def counted(_: object) -> set[int]:
        nonlocal terms
        terms += 1
        return set()

    assert not query._replace(tests=(counted, counted)).matches(HOST, NOW_S)
    assert terms == 1
    assert parse("a" * QUERY_CHARS_MAX).tests
    long = {**HOST, "facts": {"long": "x" * VALUE_CHARS_MAX + "end"}, "os_version": "y" * VALUE_CHARS_MAX + "end"}
    assert not finds("long:end", long)
    assert finds("long:x", long)
    assert not finds("yend", long)
    assert finds("yy", long)


def test_a_label_cannot_be_named_as_what_every_host_has() -> None:
    assert set(HostView.__struct_fields__) <= OWN
    for name in ("name", "os", "since", "label", "cpu", "presence", "state", "condition"):
        assert name in RESERVED


def test_any_text_is_read_or_refused_with_a_place_within_it() -> None:
    chance = random.Random(2)
    refused = 0
    for _ in range(3000):
        text = "".join(chance.choices('ab:=<>!-*" \t\n\0.5mÄ\N{GRINNING FACE}', k=chance.randrange(40)))
        try:
            query = parse(text)
        except QueryError as error:
            refused += 1
            place = (0, error.start, error.end, len(text))
            assert sorted(place) == list(place), text
            assert error.start < error.end  # noqa: PT017
        else:
            assert query.matches(HOST, NOW_S) in (True, False)
            assert len(query.tests) <= TERMS_MAX
    assert 500 < refused < 2990
