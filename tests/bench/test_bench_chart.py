"""What a chart of bin/bench shows, drawn from what runs have written; and how their figures become one."""

from __future__ import annotations

import itertools
from typing import Any
from xml.etree import ElementTree

import pytest

from bench.chart import Point, Undrawable, drawn, panels
from bench.highest import holds, rates
from bench.program import merged
from bench.summary import median, summary


def figure(value: float) -> dict[str, float]:
    return {"median": value, "least": value / 2, "most": value * 2}


def rate(size: float, cost: float) -> dict[str, Any]:
    return {"size": size, "heartbeats": {"cpu_ms_each": figure(cost)}}


def hub(value: float) -> dict[str, Any]:
    return {name: figure(value) for name in ("shown_per_s", "lag_p50_ms", "lag_p99_ms")} | {
        "cores": {"all": figure(value)}
    }


def test_a_slope_has_the_median_of_each_size_and_its_spread() -> None:
    (panel,) = panels({"rate": [rate(100, 0.3), rate(1000, 0.2)]})
    assert panel.title == "CPU of a heartbeat, ms"
    assert panel.points == [Point(100.0, 0.3, 0.15, 0.6), Point(1000.0, 0.2, 0.1, 0.4)]


def test_hubs_side_by_side_have_a_bar_each_of_what_all_were_measured_by() -> None:
    drawn = panels({"fleethub": {**hub(4.0), "updates_per_s": figure(1.0)}, "plain": hub(2.0)})
    assert [panel.title for panel in drawn] == [
        "CPU of all processes, cores", "heartbeats shown in a second", "sent to seen, median, ms", "sent to seen, 99 %, ms",
    ]  # fmt: skip
    assert all(panel.points == [Point("fleethub", 4.0, 2.0, 8.0), Point("plain", 2.0, 1.0, 4.0)] for panel in drawn)


@pytest.mark.parametrize(
    "found",
    [
        {},
        {"verdict": "ok"},
        {"agents": 10, "rate": 2.0},
        {"rate": [{"size": 1.0}]},
        {"fleethub": {"agents": figure(1)}},
    ],
)
def test_what_no_chart_is_made_of_is_refused(found: dict[str, Any]) -> None:
    with pytest.raises(Undrawable):
        panels(found)


def numbers(svg: str, tag: str, attribute: str) -> list[float]:
    root = ElementTree.fromstring(svg)
    return [float(each.attrib[attribute]) for each in root.iter(f"{{http://www.w3.org/2000/svg}}{tag}")]


def test_a_larger_figure_stands_higher_and_a_larger_size_further_right() -> None:
    svg = drawn({"rate": [rate(100, 0.1), rate(1000, 0.2), rate(100_000, 0.4)]})
    across, down = numbers(svg, "circle", "cx"), numbers(svg, "circle", "cy")
    assert across == sorted(across)
    assert down == sorted(down, reverse=True)
    assert across[2] - across[1] == pytest.approx(2 * (across[1] - across[0]), abs=0.2)  # powers of ten
    assert all(0 <= x <= 270 for x in across)
    assert all(0 <= y <= 190 for y in down)


def test_a_bar_is_as_high_as_its_figure_says_and_others_names_are_only_text() -> None:
    svg = drawn({"fleethub": hub(1.0), "<b>&": hub(0.5)})
    heights = numbers(svg, "rect", "height")
    assert heights[0] == pytest.approx(2 * heights[1], rel=0.01)
    assert "&lt;b&gt;&amp;" in svg


def test_a_chart_is_readable_in_light_and_in_dark_and_the_same_figures_make_the_same_file() -> None:
    found = {"rate": [rate(100, 0.0), rate(100, 0.0)]}  # no figure at all, and one size twice
    assert drawn(found) == drawn(found)
    assert "prefers-color-scheme: dark" in drawn(found)


def test_points_of_many_files_become_one_line_and_figures_of_one_hub_come_together() -> None:
    assert merged([{"rate": [rate(1000, 1.0)]}, {"rate": [rate(10, 2.0)]}])["rate"] == [rate(10, 2.0), rate(1000, 1.0)]
    assert merged([{"plain": {"a": 1}}, {"plain": {"b": 2}}]) == {"plain": {"a": 1, "b": 2}}


def test_a_summary_has_the_median_and_the_spread_of_every_figure() -> None:
    turns = [{"cores": {"hub": cores}, "verdict": "ok"} for cores in (0.3, 0.1, 0.2)]
    assert summary(turns) == {"cores": {"hub": {"median": 0.2, "least": 0.1, "most": 0.3}}, "verdict": "ok"}
    assert summary([{"verdict": "ok"}, {"verdict": "stalled"}]) == {"verdict": ["ok", "stalled"]}
    assert summary([{}, {"later": 2}]) == {"later": {"median": 2, "least": 2, "most": 2}}
    assert (median(0.5), median(figure(3.0))) == (0.5, 3.0)


@pytest.mark.parametrize("most", [30, 150, 990, 1000, 1500, 17_000, 1_000_000])
def test_the_search_for_the_highest_rate_ends_within_a_tenth_of_it(most: float) -> None:
    search, held, broke = rates(), [0.0], [float("inf")]
    tried = next(search)
    for step in itertools.count(1):
        assert step <= 20
        (held if tried <= most else broke).append(tried)
        try:
            tried = search.send(tried <= most)
        except StopIteration:
            break
    assert max(held) <= most < min(broke)
    assert min(broke) <= max(max(held) * 1.1, max(held) + 100)


@pytest.mark.parametrize(
    "change",
    [
        {"shown": 99},
        {"shown": 0, "due": 0},
        {"lag_p99_ms": 501.0},
        {"disconnected": 1},
        {"replaced": ["hub"]},
        {"verdict": "stalled"},
    ],
)
def test_a_rate_does_not_hold_that_loses_delays_or_disturbs(change: dict[str, Any]) -> None:
    held: dict[str, Any] = {
        "shown": 100, "due": 100, "lag_p99_ms": 500.0, "disconnected": 0, "replaced": [], "verdict": "ok",
    }  # fmt: skip
    assert holds(held, 500.0)
    assert holds({**held, "verdict": ""}, 500.0)  # a peer says nothing of itself
    assert not holds({**held, **change}, 500.0)
