"""Who comes in at the agents' port: every combination."""

from __future__ import annotations

import itertools

import pytest

from processes.core.gateway.admission import Admission, Refusal, admit

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
