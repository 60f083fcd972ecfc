"""What one client may make us do: by table, and by random lives of clients against what no client may get past."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processes.core import budgets
from processes.core.budgets import AGENT, AGENT_OWN, OPERATOR, Allowance, Allowances, Budget, Rate

SMALL = Budget(heartbeats=Rate(1.0, 5.0), frames=Rate(10.0, 50.0), bytes=Rate(1000.0, 5000.0))


@pytest.mark.parametrize(
    ("frames", "size", "heartbeats", "rest_s"),
    [
        (1, 60, 0, 0.0), (50, 100, 0, 0.0), (51, 100, 0, 0.1), (60, 100, 0, 1.0),
        (5, 300, 5, 0.0), (6, 300, 6, 1.0), (10, 300, 10, 5.0), (55, 100, 5, 0.0),
        (1, 5000, 0, 0.0), (1, 6000, 0, 1.0), (1, 6000, 1, 1.0), (60, 7000, 0, 2.0),
    ],
)  # fmt: skip
def test_a_burst_is_free_and_what_is_beyond_it_rests_until_it_is_paid(
    frames: int, size: int, heartbeats: int, rest_s: float
) -> None:
    charged = Allowance(SMALL, 100.0).spend(frames, size, heartbeats, 100.0)
    assert charged.rest_s == pytest.approx(rest_s)
    assert not charged.is_over


def test_who_rests_as_told_may_go_on_afterwards() -> None:
    allowance, now_s = Allowance(SMALL, 0.0), 0.0
    now_s += allowance.spend(60, 0, 0, now_s).rest_s
    assert allowance.spend(0, 0, 0, now_s).rest_s == 0.0


def flood(allowance: Allowance, frames: int, size: int, heartbeats: int, lasts_s: float) -> float | None:
    """Send without end, resting as told. Return when it is closed for, None: never."""
    now_s = 0.0
    while now_s < lasts_s:
        charged = allowance.spend(frames, size, heartbeats, now_s)
        if charged.is_over:
            return now_s
        now_s += max(charged.rest_s, 0.001)
    return None


@pytest.mark.parametrize("budget", [AGENT, OPERATOR, SMALL])
def test_a_flood_of_anything_is_closed_for_when_patience_is_over(budget: Budget) -> None:
    closed_s = flood(Allowance(budget, 0.0), 340, 2048, 0, 3600.0)
    assert closed_s is not None
    free_s = budget.frames.burst / 340 * 0.001
    one_rest_s = 340 / budget.frames.per_s
    assert budget.patience_s * 0.8 < closed_s - free_s < budget.patience_s * 1.2 + 2 * one_rest_s


def test_a_flood_of_bytes_is_closed_for_too() -> None:
    assert flood(Allowance(AGENT, 0.0), 1, 512 * 1024, 0, 3600.0) is not None


def test_our_own_agents_keep_within_what_a_host_may_send() -> None:
    """The bug it would catch: a command that prints without end has its host closed for a flood."""
    own, hub, now_s = Allowance(AGENT_OWN, 0.0), Allowance(AGENT, 0.0), 0.0
    for _ in range(20_000):
        assert hub.spend(1, 200, 0, now_s).rest_s == 0.0
        now_s += own.spend(1, 200, 0, now_s).rest_s
    assert now_s > 10.0


def test_the_parts_of_a_large_message_count_as_what_it_turns_out_to_be() -> None:
    def parts(heartbeats: int) -> float | None:
        allowance, now_s = Allowance(AGENT, 0.0), 0.0
        while now_s < 600.0:
            for part in range(100):
                frames = int(part == 99)
                charged = allowance.spend(frames, 100_000, heartbeats * frames, now_s)
                if charged.is_over:
                    return now_s
                now_s += max(charged.rest_s, 0.001)
        return None

    assert parts(heartbeats=0) is not None
    assert parts(heartbeats=1) is None


def test_valid_heartbeats_are_read_slowly_and_never_closed_for() -> None:
    allowance = Allowance(AGENT, 0.0)
    assert flood(allowance, 30, 2000, 30, 3600.0) is None
    assert allowance.spend(30, 2000, 30, 3600.0).rest_s > 0


@given(
    st.lists(
        st.tuples(
            st.integers(1, 400), st.integers(0, 4000), st.floats(0, 1), st.floats(0.0, 20.0)
        ),
        min_size=1, max_size=200,
    )
)  # fmt: skip
def test_nobody_gets_past_the_rates_whatever_the_times(life: list[tuple[int, int, float, float]]) -> None:
    allowance, now_s, frames_all, bytes_all, beats_all = Allowance(SMALL, 0.0), 0.0, 0, 0, 0
    for frames, size, share, idle_s in life:
        heartbeats = int(frames * share)
        charged = allowance.spend(frames, size, heartbeats, now_s)
        frames_all, bytes_all, beats_all = frames_all + frames - heartbeats, bytes_all + size, beats_all + heartbeats
        now_s += charged.rest_s
        assert frames_all <= SMALL.frames.burst + SMALL.frames.per_s * now_s + 1e-6
        assert bytes_all <= SMALL.bytes.burst + SMALL.bytes.per_s * now_s + 1e-6
        assert beats_all <= SMALL.heartbeats.burst + SMALL.heartbeats.per_s * now_s + 1e-6
        now_s += idle_s


def test_the_third_close_within_ten_minutes_is_one_too_many_and_each_keeps_away_for_a_while() -> None:
    allowance = Allowance(SMALL, 0.0)
    assert allowance.banned_s(0.0) == 0.0
    assert not allowance.close(0.0)
    assert allowance.banned_s(0.0) == budgets.REST_S
    assert allowance.banned_s(29.0) == 1.0
    assert allowance.banned_s(31.0) == 0.0
    assert not allowance.close(100.0)
    assert allowance.close(599.0)
    assert not allowance.close(1300.0), "the others are long ago"


def test_allowances_are_kept_as_long_as_they_say_something_and_bounded() -> None:
    allowances: Allowances[str] = Allowances(SMALL, clients_max=10)
    for number in range(100):
        allowances.of(f"idle{number}", 0.0)
        assert len(allowances) <= 10
    busy: Allowances[str] = Allowances(SMALL, clients_max=10)
    busy.of("flood", 0.0).close(0.0)
    for number in range(9):
        busy.of(f"host{number}", 0.0).spend(100, 0, 0, 0.0)
    assert busy.banned_s("flood", 1.0) == 29.0
    assert busy.banned_s("host10", 1.0) == 0.0
    assert len(busy) == 10
    busy.of("one more", 1.0)
    assert len(busy) == 10
    assert busy.banned_s("flood", 1.0) == 0.0, "the least recently used one went"
