"""Who comes in at the agents' port: every combination; and how those are told who do not."""

from __future__ import annotations

import itertools

import pytest

from processes.core.gateway.admission import (
    COMPLAINTS_S,
    COUNTS_S,
    RETRY_AFTER_S,
    Admission,
    Complaints,
    Refusal,
    RefusalCounts,
    admit,
)

FLAGS = ("known", "table_is_current", "asked_before", "stopping", "full")


def said(target: str = "/ws", **flags: bool) -> Admission | int:
    found = admit(target, **{**dict.fromkeys(FLAGS, False), **flags})
    return found.status if isinstance(found, Refusal) else found


@pytest.mark.parametrize("values", list(itertools.product((False, True), repeat=len(FLAGS))))
def test_every_request_meets_the_first_rule_that_is_about_it(values: tuple[bool, ...]) -> None:
    flags = dict(zip(FLAGS, values, strict=True))
    wanted: Admission | int = (
        503 if flags["stopping"] or flags["full"]
        else Admission.LET_IN if flags["known"]
        else 503 if not flags["table_is_current"]  # never 401: the hub may know the token
        else 401 if flags["asked_before"]
        else Admission.ASK_AGAIN
    )  # fmt: skip
    assert said("/ws", **flags) == wanted
    assert said("/ws?x=1", **flags) == wanted
    assert said("/livez", **flags) == 200, "it accepts and turns, whatever else"
    assert said("/other", **flags) == said("/wsx", **flags) == 404


def test_only_who_may_be_let_in_later_is_told_when() -> None:
    open_port = {"table_is_current": True, "asked_before": True, "stopping": False, "full": False}

    def told(
        target: str = "/ws", *, known: bool = True, banned_s: float = 0.0, **other: bool
    ) -> tuple[int, int | None]:
        found = admit(target, known=known, banned_s=banned_s, **{**open_port, **other})
        assert isinstance(found, Refusal)
        return found.status, found.retry_after_s

    assert told("/other") == (404, None)
    assert told(known=False) == (401, None)
    assert told(full=True) == told(stopping=True) == (503, RETRY_AFTER_S)
    assert told(known=False, table_is_current=False) == (503, RETRY_AFTER_S)
    assert told(banned_s=29.2) == (429, 30)
    assert told(known=False, banned_s=29.2) == (401, None), "whoever has no token learns nothing of the host"


def test_what_was_refused_is_told_as_sums_and_each_once() -> None:
    counts = RefusalCounts(100.0)
    assert counts.take(100.0 + COUNTS_S) == {}, "nothing was refused"
    counts.refused(Refusal(503, "no room"))
    counts.refused(Refusal(200, "the canary's knock"))
    for _ in range(1000):
        counts.refused(Refusal(401, "wrong"))
    assert counts.take(99.9 + COUNTS_S) == {}, "not so soon"
    told = counts.take(100.0 + COUNTS_S)
    assert list(told.items()) == [("status_401", 1000), ("status_503", 1)]
    counts.refused(Refusal(404, "where?"))
    assert counts.take(100.0 + 2 * COUNTS_S - 0.1) == {}
    assert counts.take(100.0 + 2 * COUNTS_S) == {"status_404": 1}
    assert counts.take(100.0 + 9 * COUNTS_S) == {}


def test_malformed_frames_of_a_host_are_one_line_a_minute_with_how_many_there_were() -> None:
    """The bug it would catch: an agent that comes back after each close fills the log until nothing else is in it."""
    complaints = Complaints()
    assert complaints.times("a", 3, 100.0) == 3
    assert [complaints.times("a", 1, 100.0 + second) for second in range(1, 60)] == [0] * 59
    assert complaints.times("b", 1, 101.0) == 1, "another host's line does not wait"
    assert complaints.times("a", 1, 100.0 + COMPLAINTS_S) == 60, "none is missing, and none counted twice"
    assert complaints.times("a", 1, 100.0 + 2 * COMPLAINTS_S) == 1
