"""The view of what is wrong: the gravest and who was told, one of many, what is silenced; light, dark and on a phone."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from doubles.deadline import until
from doubles.page_stage import Stage, Watched
from playwright.sync_api import Browser, Page, expect

from processes.core.records.condition import ConditionState, ConditionView, SilenceView
from processes.core.travels.messages import AcknowledgeCondition, EndSilence, MakeSilence, RequestReceived
from processes.core.values import Severity, rfc3339

pytestmark = pytest.mark.browser
PHONE = {"viewport": {"width": 390, "height": 780}, "is_mobile": True, "has_touch": True}
PICTURES = os.environ.get("FLEETHUB_TEST_PICTURES")  # a folder where the pictures are kept; none: they are not taken


def condition(id: str, host: str | None, kind: str, title: str, **more: Any) -> dict[str, Any]:
    since = rfc3339(time.time() - 300)
    fields = {"severity": Severity.CRITICAL, "state": ConditionState.OPEN, "text": "nothing was heard of it", **more}
    row: dict[str, Any] = msgspec.to_builtins(ConditionView(id, host, kind, title=title, since=since, **fields))
    return row


def bad_night(stage: Stage) -> None:
    """A rack of three is away as one, one host has no room, and one that is away is silenced."""
    for name in ("b4-1", "b4-2", "b4-3", "web1", "web2"):
        rack = name.partition("-")[0] if "-" in name else "a1"
        stage.host(name, labels={"rack": rack}, facts={}, heartbeat_facts={})
    conditions = [
        condition("many", None, "many", "3 hosts of rack=b4 went offline at once", hosts=3, left=2, cause="rack=b4"),
        *(condition(f"c{n}", f"b4-{n}", "offline", f"b4-{n} is offline", group="many") for n in (1, 2)),
        condition("disk", "web1", "disk", "web1 has a <b>full</b> disk", severity=Severity.WARNING),
        condition(
            "quiet", "web2", "offline", "web2 is offline", state=ConditionState.SILENCED, silence="s1",
            severity=Severity.INFO,
        ),
    ]  # fmt: skip
    for row in conditions:
        stage.do(stage.hub.change("condition", row["id"], **row))
    times = [rfc3339(time.time() + seconds) for seconds in (-60, -60, 7200)]
    silence = msgspec.to_builtins(
        SilenceView("s1", "name:web2", "new <i>disks</i>", "ann", times[0], times[1], times[2])
    )
    stage.do(stage.hub.change("silence", "s1", **silence))


def test_what_is_wrong_is_shown_gravest_first_and_acknowledged_and_silences_are_ended(
    browser: Browser, stage: Stage
) -> None:
    bad_night(stage)

    def answer(event: RequestReceived) -> tuple[int, dict[str, Any]]:
        return 200, {"id": "disk" if isinstance(event.request, AcknowledgeCondition) else "s1"}

    stage.hub.answer = answer
    with stage.sign_in(browser, color_scheme="light", viewport={"width": 1280, "height": 800}) as watched:
        page = watched.go("conditions")
        shown, quiet = page.locator("#conditions .item"), page.locator("#silences .item")
        ours = shown.filter(has_text="rack=b4").or_(shown.filter(has_text="web"))
        expect(ours).to_have_count(3)  # the hosts of the rack are told by one
        expect(ours.nth(0)).to_contain_text("3 hosts of rack=b4 went offline at once (2 of them still)")
        expect(ours.nth(1)).to_contain_text("web1 has a <b>full</b> disk")
        expect(ours.nth(1)).to_contain_text("told to nobody yet")
        expect(ours.nth(2)).to_contain_text("silenced")
        expect(quiet).to_contain_text("name:web2 · new <i>disks</i>")
        pictured(page, watched, "light-wide")

        page.get_by_label("each host of what is told as one").check()
        expect(shown.filter(has_text="b4-1 is offline")).to_contain_text("told as one of many")
        page.get_by_label("each host of what is told as one").uncheck()

        ours.nth(1).get_by_role("button", name="Acknowledge").click()
        page.locator("dialog").get_by_role("button", name="Acknowledge").click()
        until(lambda: stage.hub.requests[-1:] == [AcknowledgeCondition("disk", "")])
        expect(page.locator("dialog")).to_be_hidden()
        acknowledged = {"state": "acknowledged", "acknowledged_by": "ann"}
        stage.do(stage.hub.change("condition", "disk", **acknowledged))
        expect(ours.nth(1)).to_contain_text("acknowledged by ann")
        expect(ours.nth(1).get_by_role("button")).to_have_count(0)

        quiet.get_by_role("button", name="End the silence").click()
        page.locator("dialog").get_by_role("button", name="End it").click()
        until(lambda: stage.hub.requests[-1] == EndSilence("s1"))

        watched.go("fleet")
        page.get_by_role("searchbox", name="find hosts").fill("condition:offline")
        expect(page.locator(".rows .row")).to_have_count(3)
        page.get_by_label("select all shown").check()
        page.get_by_role("button", name="Labels …").click()
        pictured(page, watched, "labels-light-wide")


def test_hosts_are_silenced_by_a_query_that_says_first_whom_it_finds(browser: Browser, stage: Stage) -> None:
    bad_night(stage)
    stage.hub.answer = lambda event: (
        (409, {"error": "too_many", "message": "<b>too</b> many silences"})
        if isinstance(event.request, MakeSilence) and event.request.why == "refused"
        else (503, {"error": "storage_unavailable", "message": "it may have been made"})
        if isinstance(event.request, MakeSilence) and event.request.why == "unsure"
        else (201, {"id": "s2"})
    )
    with stage.sign_in(browser, color_scheme="dark") as watched:
        page, dialog = watched.go("conditions"), watched.page.locator("dialog")
        page.get_by_role("button", name="Silence …").click()
        query, status = dialog.get_by_label("which hosts"), dialog.get_by_role("status")
        query.fill("rack=")
        expect(status).to_contain_text("rack= has nothing after it")
        query.fill("condition:offline rack=b4")
        expect(status).to_have_text("It finds 2 hosts now.")
        query.fill("rack=b4")
        expect(status).to_have_text("It finds 3 hosts now.")
        dialog.get_by_label("why", exact=True).fill("refused")
        dialog.get_by_label("for how long").fill("2 hours")
        dialog.get_by_role("button", name="Silence them").click()
        expect(dialog).to_contain_text("Type a time with its unit")
        assert not any(isinstance(request, MakeSilence) for request in stage.hub.requests)
        dialog.get_by_label("for how long").fill("1.5h")
        dialog.get_by_label("begins in").fill("30m")
        dialog.get_by_role("button", name="Silence them").click()
        expect(dialog).to_contain_text("<b>too</b> many silences")
        pictured(page, watched, "silence-dark")
        dialog.get_by_label("why", exact=True).fill("unsure")
        dialog.get_by_role("button", name="Silence them").click()
        expect(dialog).to_contain_text("it may have been made")
        made = [each.why for each in stage.hub.requests if isinstance(each, MakeSilence)]
        assert made == ["refused", "unsure"], "it is not made twice by itself"
        dialog.get_by_label("why", exact=True).fill(" new switch ")
        dialog.get_by_role("button", name="Silence them").click()
        expect(dialog).to_be_hidden()
        assert stage.hub.requests[-1] == MakeSilence("rack=b4", "new switch", 5400.0, 1800.0)


def test_who_only_looks_is_offered_nothing_and_a_phone_shows_all_of_it(browser: Browser, stage: Stage) -> None:
    bad_night(stage)
    with stage.sign_in(browser, role="viewer", **PHONE) as watched:
        page = watched.go("conditions")
        expect(page.locator("#conditions .item").filter(has_text="rack=b4")).to_be_visible()
        expect(page.locator("#silences .item")).to_be_visible()
        expect(page.locator("#conditions button, #silences button")).to_have_count(0)
        expect(page.get_by_role("button", name="Silence …")).to_have_count(0)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            pictured(page, watched, f"{scheme}-phone")
        watched.go("fleet")
        page.get_by_role("searchbox", name="find hosts").fill("rack=b4 site=")
        expect(page.locator("#query-error mark")).to_have_text("site=")
        pictured(page, watched, "query-dark-phone")


def pictured(page: Page, watched: Watched, name: str) -> None:
    """Nothing reaches beyond the screen's edge; a picture is kept for whoever wants to look."""
    width, room = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert width <= room, f"{name}: {width} of {room} pixels"
    assert watched.complaints == []
    if PICTURES:
        page.screenshot(path=Path(PICTURES) / f"conditions-{name}.png")
