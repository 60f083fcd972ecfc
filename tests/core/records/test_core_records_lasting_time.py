"""What is forgotten by age: no clock that is wrong for a while makes anything look older than it is."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from processes.core.records.lasting_time import LASTING_S, SMALL_S, LastingTime, after
from processes.core.values import Now

YEAR_S = 365 * 86400.0
TRUE_S = 1.7e9


def told(offsets: list[tuple[float, float]], *, boots: list[int] | None = None) -> LastingTime:
    """What is believed after these looks: how much time passed before each, and how far the wall clock is wrong then.

    `boots`: the looks before which the machine was booted.
    """
    lasting, passed_s = None, 0.0
    for number, (seconds, wrong_s) in enumerate(offsets):
        passed_s += seconds
        boot = sum(each <= number for each in boots or [])
        lasting = after(lasting, f"boot{boot}", Now(passed_s, TRUE_S + passed_s + wrong_s))
    assert lasting is not None
    return lasting


def minutes(count: float, wrong_s: float = 0.0) -> list[tuple[float, float]]:
    return [(60.0, wrong_s)] * int(count)


DAY = minutes(1441)


def test_in_its_first_day_an_installation_forgets_nothing_and_then_goes_by_its_clock() -> None:
    assert told(DAY[:-2]).believed_wall_s < YEAR_S
    lasting = told([*DAY, *minutes(10)])
    assert lasting.believed_wall_s == lasting.seen_wall_s


def test_a_clock_that_is_a_year_ahead_for_hours_is_not_believed_and_one_that_stays_so_is() -> None:
    hours = told([*DAY, *minutes(600, YEAR_S)])
    assert hours.believed_wall_s <= hours.seen_wall_s - YEAR_S + SMALL_S
    after_it = told([*DAY, *minutes(600, YEAR_S), *minutes(5)])
    assert after_it.believed_wall_s == after_it.seen_wall_s
    stays = told([*DAY, *minutes(1450, YEAR_S)])
    assert stays.believed_wall_s == stays.seen_wall_s


def test_a_clock_that_goes_back_is_believed_at_once_and_its_return_only_when_it_has_lasted() -> None:
    back = told([*DAY, *minutes(2, -YEAR_S)])
    assert back.believed_wall_s == back.seen_wall_s
    again = told([*DAY, *minutes(2, -YEAR_S), *minutes(60)])
    assert again.believed_wall_s < again.seen_wall_s - YEAR_S / 2


def test_a_machine_that_was_off_forgets_later_and_one_that_is_booted_every_hour_forgets_too() -> None:
    """The bug it would catch: who never runs for a day on end never forgets."""
    off = told([*DAY, (YEAR_S, 0.0), *minutes(60)], boots=[len(DAY)])
    assert off.believed_wall_s < off.seen_wall_s - YEAR_S / 2
    hourly = told([*DAY, *DAY], boots=list(range(0, 2 * len(DAY), 60)))
    assert hourly.believed_wall_s == hourly.seen_wall_s


@given(
    st.lists(st.tuples(st.floats(1.0, 7200.0), st.floats(-2 * YEAR_S, 2 * YEAR_S)), min_size=1, max_size=40),
    st.sets(st.integers(0, 40)),
)
def test_what_is_believed_is_never_ahead_of_the_clock_and_never_passes_faster_than_time(
    looks: list[tuple[float, float]], boots: set[int]
) -> None:
    """But for what lasted, and for steps that nobody need doubt."""
    lasting = None
    passed_s = 0.0
    for number, (seconds, wrong_s) in enumerate(looks):
        before, passed_s = lasting, passed_s + seconds
        boot = sum(each <= number for each in boots)
        lasting = after(before, f"boot{boot}", Now(passed_s, max(0.0, TRUE_S + passed_s + wrong_s)))
        assert lasting.believed_wall_s <= lasting.seen_wall_s
        assert 0 <= lasting.doubted_s < LASTING_S
        if before is not None and before.doubted_s + seconds < LASTING_S:
            assert lasting.believed_wall_s <= before.believed_wall_s + seconds + SMALL_S


def test_a_wrong_minute_again_and_again_does_not_add_up() -> None:
    lasting = told([*DAY, *itertools.chain.from_iterable((*minutes(1, YEAR_S), *minutes(1)) for _ in range(2000))])
    assert lasting.believed_wall_s == lasting.seen_wall_s
    ahead = told([*DAY, *[each for _ in range(2000) for each in (*minutes(1), *minutes(1, YEAR_S))]])
    assert ahead.believed_wall_s <= ahead.seen_wall_s - YEAR_S + SMALL_S
