"""A host's history: what is kept, and that it is never more than its limits."""

from __future__ import annotations

import json
from typing import Any

import pytest

from processes.core.fanout.history import KEPT_S_MAX, PRESENCES_MAX, TIERS, Histories, Span
from processes.core.travels.messages import Change, Json
from processes.core.values import rfc3339

START_S = 1_700_000_000.0
AT = rfc3339(START_S)
SAMPLE_S, SAMPLES_MAX, _ = TIERS[Span.HOUR]


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


def test_all_hosts_together_stay_within_the_limit() -> None:
    histories = Histories(START_S, {**TIERS, Span.HOUR: TIERS[Span.HOUR]._replace(samples_all_max=100)})
    for beat in range(50):
        for number in range(10):
            histories.take(row(f"web{number}", metrics={"cpu": 1.0}), START_S + beat * 10)
    assert [len(histories.view(f"web{number}").at) for number in range(10)] == [10] * 10


def test_only_changes_of_presence_are_remembered() -> None:
    histories = Histories(START_S)
    for place, presence in enumerate(["online", "online", "stale", "stale", "online"]):
        histories.take(row("web1", presence=presence, address="10.0.0.1:5"), START_S + 30 * place)
    histories.take(row("web1", metrics={"cpu": 1.0}), START_S + 200)  # says nothing of presence
    assert seen(histories) == ["online", "stale", "online"]


def not_a_presence() -> bytes:
    histories = Histories(START_S)
    histories.take(row("web1", presence="online"), START_S)
    return histories.dump().replace(b"online", b"unlike")


def seen(histories: Histories, name: str = "web1") -> list[str]:
    return [one.presence for one in histories.view(name).presences]


def test_a_hub_that_was_replaced_is_no_coming_or_going_of_the_host() -> None:
    histories = Histories(START_S)
    for second, presence in [(0, "online"), (60, "stale"), (63, "online"), (120, "stale"), (140, "online")]:
        histories.take(
            row("web1", presence=presence, connected_since=AT if presence == "online" else None), START_S + second
        )
    assert seen(histories) == ["online", "stale", "online"]


def test_a_connection_that_another_hub_tells_by_a_clock_moved_a_little_is_the_same() -> None:
    histories = Histories(START_S)
    for second, since in [(0, START_S), (60, START_S + 0.002), (120, START_S - 1.5), (180, START_S - 1.0)]:
        histories.take(row("web1", presence="online", connected_since=rfc3339(since)), START_S + second)
    assert seen(histories) == ["online"]


def test_another_connection_is_a_coming_even_if_nobody_saw_the_host_gone() -> None:
    histories = Histories(START_S)
    histories.take(row("web1", presence="online", connected_since=AT, address="10.0.0.1:5"), START_S)
    histories.take(row("web1", connected_since=rfc3339(START_S + 60), address="10.0.0.1:6"), START_S + 60)
    histories.take(row("web1", presence="stale"), START_S + 90)
    histories.take(row("web1", presence="online", connected_since=rfc3339(START_S + 93)), START_S + 93)
    assert [(one.presence, one.address) for one in histories.view("web1").presences] == [
        ("online", "10.0.0.1:5"),
        ("online", "10.0.0.1:6"),
        ("stale", "10.0.0.1:6"),
        ("online", "10.0.0.1:6"),
    ]


def test_comings_and_goings_are_bounded() -> None:
    histories = Histories(START_S)
    for place in range(3 * PRESENCES_MAX):
        histories.take(row("web1", presence=["online", "offline"][place % 2]), START_S + 60 * place)
    assert len(seen(histories)) == PRESENCES_MAX


def test_a_heartbeat_with_the_same_numbers_is_a_sample_too() -> None:
    histories = Histories(START_S)
    histories.take(row("web1", presence="online", last_seen="0", metrics={"cpu": 7.0}), START_S)
    for beat in range(1, 4):
        histories.take(row("web1", last_seen=str(beat)), START_S + 5 * beat)
    histories.take(row("web1", last_seen="4", metrics=None), START_S + 20)
    histories.take(row("web1", last_seen="5"), START_S + 25)
    assert histories.view("web1").cpu == [7.0] * 4


def test_a_snapshot_tells_no_heartbeat_twice() -> None:
    histories = Histories(START_S)
    beat = row("web1", presence="online", last_seen="then", metrics={"cpu": 1.0})
    histories.take(beat, START_S)
    histories.renew([beat], START_S + 60)
    then = Histories(START_S + 70)
    then.restore(histories.dump(), START_S + 70)
    then.renew([beat], START_S + 71)
    then.take(row("web2", presence="offline", last_seen="long ago", metrics={"cpu": 1.0}), START_S + 71)
    assert (then.view("web1").at, then.view("web2").at) == ([START_S], [])


def test_a_host_that_comes_back_has_no_sample_of_before_it_went() -> None:
    histories = Histories(START_S)
    histories.take(row("web1", presence="online", last_seen="0", connected_since=AT, metrics={"cpu": 97.0}), START_S)
    histories.take(row("web1", presence="offline"), START_S + 60)
    histories.take(
        row("web1", presence="online", last_seen="1", connected_since=rfc3339(START_S + 3600)), START_S + 3600
    )
    histories.take(row("web1", last_seen="2", metrics={"cpu": 1.0}), START_S + 3605)
    assert histories.view("web1").cpu == [97.0, 1.0]


def test_the_next_fanout_makes_no_sample_of_a_single_heartbeat() -> None:
    first = Histories(START_S)
    for second in range(0, 1700, 5):
        first.take(row("web1", metrics={"cpu": 1.0}), START_S + second)
    then = Histories(START_S + 1701)
    then.restore(first.dump(), START_S + 1701)
    then.take(row("web1", metrics={"cpu": 99.0}), START_S + 1702)
    assert then.view("web1", Span.DAY).cpu == first.view("web1", Span.DAY).cpu


def test_a_day_is_made_of_means() -> None:
    histories = Histories(START_S)
    for second in range(0, 7200, 5):
        histories.take(row("web1", metrics={"cpu": float(second % 10), "ram": 50.0}), START_S + second)
    found = histories.view("web1", Span.DAY)
    assert len(found.at) == 7200 // 300
    assert found.cpu[1:] == [2.5] * (len(found.at) - 1)
    assert set(found.ram) == {50.0}
    assert set(found.disk) == {None}
    assert found.sample_s == 300.0


def test_the_next_fanout_goes_on_where_the_last_one_was() -> None:
    first = Histories(START_S)
    for second in range(0, 3600, 5):
        first.take(row("web1", presence="online", address="10.0.0.1:5", metrics={"cpu": 1.0}), START_S + second)
    first.take(row("gone", presence="online"), START_S)
    then = Histories(START_S + 3700)
    then.restore(first.dump(), START_S + 3700)
    then.renew([row("web1", presence="online", address="10.0.0.1:5", metrics={"cpu": 9.0})], START_S + 3701)
    then.take(row("web1", presence="offline"), START_S + 3702)
    found = then.view("web1")
    before = first.view("web1")
    assert found.since == before.since
    assert (found.at[:-1], found.cpu) == (before.at[-len(found.at) + 1 :], [*before.cpu[-len(found.at) + 1 :], 9.0])
    assert [one.presence for one in found.presences] == ["online", "offline"]
    assert len(then.view("web1", Span.DAY).at) > 11
    assert then.view("gone").presences == []


def test_what_is_too_old_or_yet_to_come_is_not_taken_over() -> None:
    first = Histories(START_S)
    for second in (0, 3600, 2 * KEPT_S_MAX):
        first.take(row("web1", presence="online", metrics={"cpu": 1.0}), START_S + second)
    first.take(row("web1", presence="offline"), START_S + 2 * KEPT_S_MAX)
    then = Histories(START_S + KEPT_S_MAX + 60)
    then.restore(first.dump(), START_S + KEPT_S_MAX + 60)
    assert then.view("web1").at == [START_S + 3600]
    assert then.view("web1").since == rfc3339(START_S + 60)
    assert seen(then) == ["online"]


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff" * 100, Histories(START_S).dump()[:-1], not_a_presence()])
def test_a_file_that_is_not_ours_is_refused_and_changes_nothing(content: bytes) -> None:
    histories = Histories(START_S)
    with pytest.raises(ValueError, match=r".*"):
        histories.restore(content, START_S)
    histories.take(row("web1", presence="online"), START_S)
    assert seen(histories) == ["online"]


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
