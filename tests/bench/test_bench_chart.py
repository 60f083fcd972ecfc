"""What a chart of bin/bench shows, computed from what a run has written."""

from __future__ import annotations

from typing import Any

from bench.chart import bars, points


def point(cores: float, sent: int, **more: Any) -> dict[str, Any]:
    return {"cores": {"all": cores, "hub": cores / 2}, "seconds": 5.0, "sent": sent, **more}


def test_a_slope_tells_what_one_heartbeat_costs_and_what_one_connection_holds() -> None:
    found = {
        "agents": [point(0.1, 500, agents=10, connections={"kb_each": 9.0}), point(0.2, 500, agents=100, connections={"kb_each": 8.0})],
        "subscribers": [point(0.3, 1500, subscribers=1)],
        "rate": [point(0.5, 100, rate=20)],
    }  # fmt: skip
    assert [line for _, line in points(found)] == [
        [(10.0, 1.0), (100.0, 2.0)],
        [(10.0, 9.0), (100.0, 8.0)],
        [(1.0, 1.0)],
        [(20.0, 25.0)],
    ]


def test_bars_have_the_median_of_each_hub_and_its_spread() -> None:
    def figure(median: float) -> dict[str, float]:
        return {"median": median, "least": median / 2, "most": median * 2}

    def hub(median: float) -> dict[str, Any]:
        beside = {name: figure(median) for name in ("shown_per_s", "lag_p50_ms", "lag_p99_ms")}
        return {"cores": {"all": figure(median), "hub": figure(0.0)}, **beside}

    drawn = bars({"fleethub": hub(4.0), "plain": hub(2.0)})
    assert {title for title, _ in drawn} == {"cores", "shown in a second", "lag p50 in ms", "lag p99 in ms"}
    assert all(rows == [("fleethub", 4.0, 2.0, 8.0), ("plain", 2.0, 1.0, 4.0)] for _, rows in drawn)
