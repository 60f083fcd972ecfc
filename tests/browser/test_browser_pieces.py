"""The page's pure parts, in the browser that will run them: terminal colours, the search, paths of charts, presence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from doubles.page_stage import Stage
from doubles.query_cases import FOUND, HOST, NOW_S, RUNNING, WRONG, Asked, random_cases
from playwright.sync_api import Browser, Page

from processes.core.shown.query import OWN, QueryError
from processes.core.shown.query import parse as query_of
from processes.core.shown.versions import is_old_agent

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page(browser: Browser, played: Stage) -> Iterator[Page]:
    """A page of ours without the dashboard: modules are taken from the same server."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{played.house.url}/favicon.svg")
    yield page
    context.close()


def call(page: Page, module: str, what: str, *arguments: Any) -> Any:
    """`what` is an expression over `m`, the module, and `a`, the arguments."""
    return page.evaluate(f"async (a) => {{ const m = await import('/{module}.js'); return {what}; }}", list(arguments))


@pytest.mark.parametrize(
    ("raw", "pieces"),
    [
        ("plain", [("plain", "")]),
        ("\x1b[1;31mred\x1b[0m end", [("red", "bold fg-1"), (" end", "")]),
        ("\x1b[38;5;196mnear\x1b[39m", [("near", "fg-1")]),
        ("\x1b[38;2;0;0;255mblue", [("blue", "fg-4")]),
        ("\x1b[7mturned", [("turned", "fg-ground bg-text")]),
        ("\x1b[38;5mcut short", [("cut short", "")]),
        ("\x1b[2J\x1b[1;1Hcursor", [("cursor", "")]),
        ("\x1b]8;;http://evil.example\x07link\x1b]8;;\x07", [("link", "")]),
        ("\x1bPq device \x1b\\after", [("after", "")]),
        ("10 %\r50 %\r100 %\r", [("100 %", "")]),
        ("\x1b[32mgreen\rstill", [("still", "fg-2")]),
        ("a\x1b", [("a", "")]),
        ("\x1b[999999999;1mbold", [("bold", "bold")]),
    ],
)
def test_colours_are_obeyed_and_nothing_else(page: Page, raw: str, pieces: list[tuple[str, str]]) -> None:
    found = call(page, "terminal", "m.line(a[0]).pieces", raw)
    assert [(piece["text"], piece["names"]) for piece in found] == pieces


def test_a_colour_goes_on_in_the_next_line(page: Page) -> None:
    assert call(page, "terminal", "m.line('next', m.line('\\u001b[33mfirst').style).pieces[0].names") == "fg-3"


def test_a_long_line_of_broken_escapes_is_read_in_one_pass(page: Page) -> None:
    line = "('\\u001b[' + '1;'.repeat(4_000_000) + '\\u001b]x'.repeat(2_000_000))"
    assert call(page, "terminal", f"m.line({line}).pieces.length") == 1, "a second pass a sign would take days"


def test_the_page_finds_what_python_finds(page: Page) -> None:
    """The same queries over the same hosts, read by query.js and by core/shown/query.py: those of the table, and
    random ones; the refused ones have the same words and the same place.
    """
    asked = [Asked(query, HOST, RUNNING) for query in (*(row[0] for row in FOUND), *(row[0] for row in WRONG))]
    asked += random_cases(3, 2000)
    what = "a[0].map(([q, host, running]) => { const found = m.parse(q); return found.error ? [found.error.message, "
    what += "found.error.start, found.error.end] : found.matches(host, running, a[1]); })"
    found = call(page, "query", what, asked, NOW_S * 1000)
    expected: list[object] = []
    for query, host, running in asked:
        try:
            expected.append(query_of(query).matches(host, NOW_S, **(running or {})))
        except QueryError as error:
            expected.append([error.message, error.start, error.end])
    different = [(case, page, ours) for case, page, ours in zip(asked, found, expected, strict=True) if page != ours]
    assert different == []
    assert {str(answer)[:1] for answer in expected} == {"T", "F", "["}


def test_the_page_knows_the_fields_of_a_host(page: Page) -> None:
    assert set(call(page, "query", "m.OWN")) == OWN


def test_what_can_be_read_of_a_query_is_looked_for_while_the_rest_is_typed(page: Page) -> None:
    assert call(page, "query", "m.parse('web os:').matches(a[0])", HOST) is True
    assert call(page, "query", "m.parse('nixos os:').matches(a[0])", HOST) is False


def test_a_line_has_gaps_where_nothing_is_known(page: Page) -> None:
    box = {"x0": 0, "x1": 10, "y0": 0, "y1": 100}
    points = [[0, 0], [1, 50], [2, None], [3, 100], [9, 400], [10, 0]]
    assert call(page, "charts", "m.path(a[0], a[1], 100, 10, 5)", points, box) == "M0 10L10 5M30 0M90 0L100 10"


def test_an_axis_ends_at_a_round_number(page: Page) -> None:
    values = [0, 0.03, 1, 1.1, 7, 100, 101, -5]
    assert call(page, "charts", "a[0].map(m.ceiling)", values) == pytest.approx([1, 0.05, 1, 2, 10, 100, 200, 1])


@pytest.mark.parametrize(
    ("presence", "ago_s", "trusted", "word"),
    [
        ("online", 1, True, "online"), ("online", 14, True, "quiet"), ("online", 1, False, "unknown"), ("offline", 1,
        True, "offline"),
        ("stale", 99, True, "stale"), ("offline", 1, False, "unknown"),
    ],
)  # fmt: skip
def test_a_green_light_never_outlives_what_proves_it(
    page: Page, presence: str, ago_s: float, trusted: bool, word: str
) -> None:
    what = "m.presenceOf({ presence: a[0], last_seen: new Date(1e12 - a[1] * 1000).toISOString(), heartbeat_interval_s: 5 }, 1e12, a[2]).word"
    assert call(page, "words", what, presence, ago_s, trusted) == word


@pytest.mark.parametrize(
    "query", ["cpu>1", "cpu<1", "generation:to", "generation=x", "location:a", "-deep.er:x", "ops:pull", "own:1"]
)
def test_a_query_never_fails_whatever_values_agents_send(page: Page, query: str) -> None:
    """An object may bring a toString that is no function: then String() throws, and no row is drawn any more."""
    odd = {"toString": 1, "valueOf": 1}
    host: dict[str, Any] = {
        "name": "a",
        "metrics": None,
        "commands": [odd],
        "facts": {"cpu": odd, "generation": {"toString": odd}, "own": [odd]},
    }
    host["heartbeat_facts"] = {"location": [[["a"]]], "deep": [odd]}
    found = call(page, "query", "m.parse(a[0]).matches(a[1], undefined, 0)", query, host)
    assert found in (True, False)


def test_a_meter_of_what_is_no_number_is_unknown(page: Page) -> None:
    for value in ({"toString": 1, "valueOf": 1}, "12", [5], None, {}):
        assert call(page, "charts", "m.meter(a[0], 'CPU').textContent", value) == "–"


AGENTS = [
    ("0.1.0", 1, "0.1.0", False), ("0.1.0", 1, "0.1.1", True), ("0.9.0", 1, "0.10.0", True), ("0.10.0", 1, "0.9.0", False),
    ("1.0.0", 1, "0.9.9", False), ("0.1.0", 0, "0.2.0", False), ("", 1, "0.2.0", False), ("0.1", 1, "0.2.0", False),
    ("0.1.0.1", 1, "0.2.0", False), ("0.1.0+local", 1, "0.2.0", True), ("x0.1.0", 1, "0.2.0", False),
    ("9" * 5000, 1, "0.2.0", False), ("0.1.0", 1, "odd", False), ("0.1.0", 2, "0.2.0", True), ("0.1.0", 1, None, False),
]  # fmt: skip


def test_the_page_marks_the_agents_that_the_command_line_marks(page: Page) -> None:
    hosts = [{"agent_version": agent, "protocol": protocol} for agent, protocol, _, _ in AGENTS]
    shown = call(
        page, "words", "a[0].map((host, at) => m.agentText(host, a[1][at]))", hosts, [row[2] for row in AGENTS]
    )
    for (agent, protocol, than, is_old), text in zip(AGENTS, shown, strict=True):
        assert text == (f"{agent} (old)" if is_old else agent)
        assert is_old_agent(agent, protocol, than or "") is is_old
