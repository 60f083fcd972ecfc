"""A host's history: what is kept, and that it is never more than its limits."""

from __future__ import annotations

import json
from typing import Any

import pytest

from processes.core import history
from processes.core.history import SAMPLE_S, SAMPLES_MAX, Histories
from processes.core.messages import Change, Json

START_S = 1_700_000_000.0


def row(name: str, **fields: Any) -> Change:
    return Change("host", name, Json(json.dumps(fields).encode()))


def test_a_heartbeat_is_a_sample_and_what_was_not_said_is_null() -> None:
    histories = Histories(START_S)
    histories.take(row("web1", presence="online", metrics={"cpu": 12.5, "load": 0.5}), START_S + 10)
    found = histories.view("web1")
    assert (found.at, found.cpu, found.ram, found.load) == ([START_S + 10], [12.5], [None], [0.5])


def test_samples_are_kept_apart_and_the_oldest_go_first() -> None:
    histories = Histories(START_S)
    for second in range(int(SAMPLES_MAX * SAMPLE_S) * 2):
        histories.take(row("web1", metrics={"cpu": float(second % 100)}), START_S + second)
    found = histories.view("web1")
    assert len(found.at) == len(found.cpu) == SAMPLES_MAX
    assert min(after - before for before, after in zip(found.at, found.at[1:], strict=False)) >= SAMPLE_S
    assert found.at[-1] > START_S + int(SAMPLES_MAX * SAMPLE_S) * 2 - SAMPLE_S - 1


def test_all_hosts_together_stay_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "SAMPLES_ALL_MAX", 100)
    histories = Histories(START_S)
    for beat in range(50):
        for number in range(10):
            histories.take(row(f"web{number}", metrics={"cpu": 1.0}), START_S + beat * 10)
    assert [len(histories.view(f"web{number}").at) for number in range(10)] == [10] * 10


def test_only_changes_of_presence_are_remembered() -> None:
    histories = Histories(START_S)
    for second, presence in enumerate(["online", "online", "stale", "stale", "online"]):
        histories.take(row("web1", presence=presence, address="10.0.0.1:5"), START_S + second)
    histories.take(row("web1", metrics={"cpu": 1.0}), START_S + 9)  # says nothing of presence
    assert [one.presence for one in histories.view("web1").presences] == ["online", "stale", "online"]


def test_a_clock_that_was_set_back_does_not_stop_the_samples() -> None:
    histories = Histories(START_S)
    histories.take(row("web1", metrics={"cpu": 1.0}), START_S + 86400)
    for second in range(0, 30, 5):
        histories.take(row("web1", metrics={"cpu": 2.0}), START_S + second)
    assert histories.view("web1").cpu.count(2.0) == 5


def test_a_host_that_was_removed_is_forgotten_and_so_is_one_that_a_snapshot_lacks() -> None:
    histories = Histories(START_S)
    for name in ("web1", "web2", "web3"):
        histories.take(row(name, presence="online", metrics={"cpu": 1.0}), START_S)
    histories.take(Change("host_removed", "web1"), START_S + 1)
    histories.renew([row("web2", presence="stale")], START_S + 2)
    assert [len(histories.view(name).at) for name in ("web1", "web2", "web3")] == [0, 1, 0]
    assert [one.presence for one in histories.view("web2").presences] == ["online", "stale"]
