"""What refused requests and sign-ins cost the audit trail: a bounded number of lines, and nothing goes uncounted."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from processes.core.fanout import tally
from processes.core.fanout.tally import (
    BURST_LINES,
    DAY_LINES_MAX,
    GROW_S,
    GUESSES_ALARM,
    KEPT_LINES,
    LINE_BYTES_MAX,
    LINES_MAX,
    MINUTE_S,
    OTHERS,
    SOURCES_MAX,
    TEXT_BYTES_MAX,
    Noted,
    Tally,
)
from processes.core.travels.audit import Kind
from processes.hub.loop import PRUNE_AGAIN_S
from processes.hub.store import AUDIT_PRUNED_MAX

FANOUTS_MAX = 32  # more than any machine runs


def refusal(who: int | str = 1, path: str = "POST /login", why: str = "not_signed_in") -> Noted:
    return Noted(Kind.REQUEST, path, "refused", f"nobody at 10.0.{who}", why)


def counted(lines: list[Noted]) -> int:
    """Returns how many requests the lines tell of."""
    found = 0
    for line in lines:
        times = re.search(r"(\d+) requests", line.subject) or re.search(r"(\d+) (?:more )?times", line.reason)
        found += int(times.group(1)) if times else 1
    return found


def test_a_thousand_refusals_of_one_are_one_line_with_their_number_and_the_first_request() -> None:
    counts = Tally(0.0)
    for number in range(1000):
        counts.refused(refusal(path=f"DELETE /api/v1/hosts/h{number}"), is_known=False)
    (line,) = counts.take(MINUTE_S)
    assert (line.subject, line.reason) == ("DELETE /api/v1/hosts/h0", "not_signed_in, 1000 times")
    assert counts.take(2 * MINUTE_S) == []
    counts.refused(refusal(), is_known=False)
    assert counts.take(3 * MINUTE_S) == [refusal()]


def test_of_many_the_good_credentials_and_the_loudest_are_named_and_the_rest_is_counted() -> None:
    counts = Tally(0.0)
    for who in range(3 * SOURCES_MAX):
        counts.refused(refusal(who), is_known=False)
    for _ in range(50):
        counts.refused(refusal(7), is_known=False)
    assert len(counts.take(MINUTE_S)) == LINES_MAX
    counts.refused(Noted(Kind.REQUEST, "DELETE /api/v1/hosts/a", "refused", "eve", "forbidden"), is_known=True)
    for who in range(3 * SOURCES_MAX):
        counts.refused(refusal(who), is_known=False)
    for _ in range(50):
        counts.refused(refusal(7), is_known=False)
    lines = counts.take(2 * MINUTE_S)
    assert lines[0].actor == "eve"
    assert (lines[1].actor, lines[1].reason) == ("nobody at 10.0.7", "not_signed_in, 51 times")
    assert (lines[-1].actor, len(lines)) == (OTHERS, LINES_MAX)
    assert counted(lines) == 3 * SOURCES_MAX + 51


def test_a_day_of_attacks_from_everywhere_costs_no_more_lines_than_is_stated_and_tells_of_each_request() -> None:
    """The bug it would catch: a gigabyte a day into the database, and a trail that tells of nothing else."""
    counts, asked, lines = Tally(0.0), 0, []
    for minute in range(1, 1441):
        for who in range(200):
            counts.refused(refusal(f"{minute % 7}.{who}"), is_known=False)
            asked += 1
        lines += counts.take(minute * MINUTE_S)
    assert BURST_LINES < len(lines) <= DAY_LINES_MAX
    assert counted(lines) == asked


def test_pruning_keeps_up_with_the_most_that_can_be_written_and_ninety_days_of_it_are_bounded() -> None:
    written_a_day = FANOUTS_MAX * DAY_LINES_MAX
    pruned_a_day = 86400 / PRUNE_AGAIN_S * AUDIT_PRUNED_MAX
    assert pruned_a_day > 1000 * written_a_day
    assert 90 * DAY_LINES_MAX * LINE_BYTES_MAX < 160 << 20
    assert LINES_MAX * (MINUTE_S / tally.GROW_S) < BURST_LINES


def test_a_sign_in_is_a_line_at_once_and_its_repetitions_are_one_more() -> None:
    counts = Tally(0.0)
    signed_in = Noted(Kind.SESSION, "10.0.0.1", "signed_in", "ann", "operator")
    assert counts.happened(signed_in, 1.0) == signed_in
    assert [counts.happened(signed_in, 2.0) for _ in range(9)] == [None] * 9
    other = signed_in._replace(actor="bob")
    assert counts.happened(other, 3.0) == other
    assert counts.take(MINUTE_S) == [signed_in._replace(reason="9 more times within a minute")]
    assert counts.happened(signed_in, MINUTE_S + 1) == signed_in


def test_who_signs_in_without_end_gets_no_more_lines_than_others() -> None:
    counts, lines, asked = Tally(0.0), 0, 0
    for minute in range(1, 1441):
        for number in range(100):
            asked += 1
            lines += (
                counts.happened(Noted(Kind.SESSION, f"10.0.{number}", "signed_in", "ann"), minute * 60.0) is not None
            )
        lines += len(counts.take(minute * MINUTE_S))
    assert lines <= DAY_LINES_MAX < asked


def test_what_finds_no_room_at_all_goes_on_being_counted_until_there_is_some() -> None:
    counts = Tally(0.0)
    for number in range(BURST_LINES):
        assert counts.happened(Noted(Kind.SESSION, f"10.0.{number}", "signed_in", "ann"), 0.0) is not None
    counts.refused(refusal(), is_known=False)
    assert counts.take(10.0) == []
    assert counts.is_counting
    counts.refused(refusal(), is_known=False)
    late_s = (KEPT_LINES + 1) * GROW_S
    assert counts.take(late_s - 1) == []
    assert counts.take(late_s) == [refusal()._replace(reason="not_signed_in, 2 times")]


def test_strangers_who_are_refused_without_end_leave_room_for_what_operators_do() -> None:
    """The bug it would catch: a few refusals a minute use up the lines, and no sign-in is ever named again."""
    counts = Tally(0.0)
    for minute in range(1, 24 * 60):
        for number in range(5):
            counts.refused(refusal(number), is_known=False)
        counts.take(minute * MINUTE_S)
    for number in range(2 * SOURCES_MAX):
        counts.refused(refusal(number), is_known=False)
    end_s = 24 * 60 * MINUTE_S
    signed_in = [Noted(Kind.SESSION, f"10.0.{number}", "signed_in", "ann") for number in range(KEPT_LINES)]
    assert [counts.happened(each, end_s) for each in signed_in] == signed_in
    own = refusal("ann", why="forbidden")
    counts.refused(own, is_known=True)
    assert counts.take(end_s + MINUTE_S)[0] == own


@example("😀" * 300, "😀" * 300, "😀" * 300)
@given(st.text(min_size=1, max_size=3000), st.text(max_size=3000), st.text(max_size=3000))
def test_a_line_has_no_more_bytes_than_is_stated(subject: str, actor: str, reason: str) -> None:
    counts = Tally(0.0)
    for _ in range(2):
        counts.refused(Noted(Kind.REQUEST, subject, "refused", actor, reason), is_known=False)
    (line,) = counts.take(MINUTE_S)
    assert max(len(line.subject.encode()), len(line.actor.encode())) <= TEXT_BYTES_MAX
    written = sum(len(text.encode()) for text in (line.subject, line.actor, line.reason))
    assert written + len(line.subject) + 200 <= LINE_BYTES_MAX


@pytest.mark.parametrize("times", [GUESSES_ALARM - 1, GUESSES_ALARM, 50_000])
def test_guesses_are_an_alarm_from_a_stated_number_on_that_names_where_most_came_from(times: int) -> None:
    counts = Tally(0.0)
    for number in range(times):
        counts.guessed("10.0.0.1" if number % 2 else f"10.1.{number}")
    guessing = counts.take_guessing()
    assert (guessing is not None) == (times >= GUESSES_ALARM)
    if guessing is not None:
        assert guessing.times == times
        assert ("10.0.0.1", times // 2) in guessing.most
        assert f"{times} within a minute" in str(guessing)
        assert f"10.0.0.1 ({times // 2})" in str(guessing)
    assert counts.take_guessing() is None
