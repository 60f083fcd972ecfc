"""Who comes in at the agents' port: every combination; and how those are told who do not."""

from __future__ import annotations

import itertools

import pytest

from processes.core.gateway.admission import COUNTS_S, RETRY_AFTER_S, Admission, Refusal, RefusalCounts, admit

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
    assert said("/other", **flags) == said("/wsx", **flags) == 404


@pytest.mark.parametrize(("status", "retry_after_s"), [(401, None), (404, None), (503, RETRY_AFTER_S)])
def test_only_who_may_be_let_in_later_is_told_when(status: int, retry_after_s: int | None) -> None:
    assert Refusal(status, "why").retry_after_s == retry_after_s


def test_what_was_refused_is_told_as_sums_and_each_once() -> None:
    counts = RefusalCounts(100.0)
    assert counts.take(100.0 + COUNTS_S) == {}, "nothing was refused"
    counts.refused(Refusal(503, "no room"))
    for _ in range(1000):
        counts.refused(Refusal(401, "wrong"))
    counts.dawdled()
    assert counts.take(99.9 + COUNTS_S) == {}, "not so soon"
    told = counts.take(100.0 + COUNTS_S)
    assert list(told.items()) == [("dawdled", 1), ("status_401", 1000), ("status_503", 1)]
    counts.refused(Refusal(404, "where?"))
    assert counts.take(100.0 + 2 * COUNTS_S - 0.1) == {}
    assert counts.take(100.0 + 2 * COUNTS_S) == {"status_404": 1}
    assert counts.take(100.0 + 9 * COUNTS_S) == {}
