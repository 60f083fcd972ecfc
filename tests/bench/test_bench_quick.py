"""bin/bench runs, every part of it once, on a whole installation. How fast anything is, is no business of a test."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from doubles.house import CHECKOUT

from bench.chart import panels

pytestmark = [
    pytest.mark.house,
    pytest.mark.skipif(shutil.which("cc") is None, reason="the generator needs a C compiler"),
]


def test_every_part_of_the_bench_runs_and_accounts_for_what_it_sent() -> None:
    done = subprocess.run([str(CHECKOUT / "bin/bench"), "--json", "all", "--quick"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {"slopes", "fan-out", "highest", "commands", "connections", "idle", "cli", "start"}
    (shown,) = found["fan-out"].values()
    beats = shown["heartbeats"]
    assert shown["frames_per_s"] > 0
    assert shown["loop_frames_per_cpu_s"] > 0
    assert beats["due"] == 20
    assert 0 < beats["shown"] <= beats["shown"] + beats["conflated"] <= beats["due"]
    assert (beats["backwards"], beats["disconnected"], beats["replaced"]) == (0, 0, [])
    assert set(beats["cores"]) == {"all", "hub", "gateway", "fanout", "queues", "watchdog", "supervisord"}
    assert set(beats["pulse_gap_ms"]) == {"hub", "gateway", "fanout", "queues", "watchdog"}
    assert min(beats["pulse_gap_ms"].values()) > 0
    for asked in found["commands"].values():
        assert 0 < asked["accepted"] == asked["asked"] == asked["ended"]
        assert set(asked["cpu_ms"]) == set(beats["cores"])
    assert found["highest"]["tried"]
    assert found["highest"]["highest_per_s"] == 0  # none is as soon as --quick demands
    assert {name: [point["size"] for point in points] for name, points in found["slopes"].items()} == {
        "agents": [3], "rate": [5.0], "subscribers": [2], "commands": [5.0],
    }  # fmt: skip
    values = [panel.points[0].value for panel in panels(found["slopes"])]
    assert (len(values), min(values) >= 0) == (6, True)
    assert max(values[:4]) > 0, "so short a round may cost a process no tick of its CPU, but not all of them none"
    assert found["connections"]["memory_mb"]["all"] > 0
    assert set(found["cli"]) == {"version", "status", "hosts"}
    assert found["start"]["first_turn_s"] > 0
