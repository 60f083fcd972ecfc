"""The page at the worst moment: nothing runs without a look, what waits says why, failures come first, and a link shows
what its sender looks at.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from doubles.deadline import until
from doubles.page_stage import Stage, seen_at
from playwright.sync_api import Browser, Page, expect

from processes.core.records.command import State
from processes.core.records.run import HostPart, Part, Run, RunState
from processes.core.travels.messages import EnrollHost, GiveCommand, RequestReceived, StartRun

pytestmark = pytest.mark.browser

BROAD = """async () => {
  for (const _ of [1, 2]) await new Promise(requestAnimationFrame);
  // What is wider than its place, and what is cut: an element of the page whose words do not fit.
  const main = document.getElementById("main"), found = [];
  if (document.documentElement.scrollWidth > innerWidth) found.push("the page");
  if (main.scrollWidth > main.clientWidth) found.push("main");
  for (const element of document.querySelectorAll(".pill > span, button, .number, .box, h2:not(.heard), .tile"))
    if (element.offsetParent && element.scrollWidth > element.clientWidth + 1)
      found.push(`${element.className || element.tagName}: ${element.textContent}`);
  return found;
}"""
WINDOWS = {
    "low": {"width": 1366, "height": 595}, "zoomed to 200 %": {"width": 640, "height": 400},
    "between": {"width": 780, "height": 800}, "phone": {"width": 390, "height": 844}, "wide": {"width": 1440, "height": 900},
}  # fmt: skip
PLACES = ("fleet", "host/web1", "conditions", "commands", "commands/c1", "runs", "runs/run-1", "watchdog", "account")


def accepted(event: RequestReceived) -> tuple[int, dict[str, Any]]:
    if isinstance(event.request, GiveCommand):
        return 202, {"commands": [{"id": "c-new"}]}
    if isinstance(event.request, EnrollHost):
        return 201, {"name": "new1"}
    return 202, {"id": "run-new"}


def rows(page: Page) -> Any:
    return page.locator(".rows .row:not(.group)")


def ended_run(stage: Stage) -> None:
    """A run that its limit stopped: of six hosts one succeeded, two failed, one was cancelled, two were never begun."""
    parts = [
        HostPart("web1", Part.SUCCEEDED, 0, "r1"),
        HostPart("web2", Part.FAILED, 0, "r2", "exit"),
        HostPart("web3", Part.FAILED, 0, "r3", "host_offline"),
        HostPart("web4", Part.FAILED, 0, "r4", "cancelled"),
        HostPart("web5", Part.NOT_ATTEMPTED),
        HostPart("web6", Part.NOT_ATTEMPTED),
    ]
    run = Run("run-1", 1, ["pull"], 6, 4, 1, 60.0, "ann", 1.0, state=RunState.FAILED, begun=4, succeeded=1, failed=3)
    stage.run(run, parts)
    stage.stored("r2", 102, "web2", ["one", "two", "three", "error: \x1b[31mno space\x1b[0m left"], State.FAILED)
    for number in range(1, 7):
        stage.host(f"web{number}", commands=["pull"] if number != 6 else ["switch"])
    states = {"r1": State.SUCCEEDED, "r2": State.FAILED, "r3": State.EXPIRED, "r4": State.CANCELLED}
    for number, (id, state) in enumerate(states.items(), 1):
        stage.command(id, f"web{number}", state, run="run-1", finished_at=seen_at(), created_at=seen_at(90 - number))
    stage.command("r2", "web2", State.FAILED, run="run-1", reason="exit", exit_code=3, created_at=seen_at(88))


def test_nothing_runs_again_without_a_look_and_more_than_one_look_for_what_stops_a_machine_or_is_lost(
    browser: Browser, stage: Stage
) -> None:
    stage.hub.answer = accepted
    stage.host("web1", commands=["pull", "reboot"])
    for id, number, op, state in (("c1", 1, "pull", State.FAILED), ("c2", 2, "reboot", State.LOST)):
        stage.stored(id, number, "web1", [], state)
        stage.command(id, "web1", state, op=op, ttl_s=600.0, finished_at=seen_at())
    with stage.sign_in(browser) as watched:
        page, dialog = watched.go("commands/c1"), watched.page.locator("dialog")
        before = len(stage.hub.requests)
        page.get_by_role("button", name="Run again …").click()
        expect(dialog).to_contain_text("Run pull again on web1?")
        expect(dialog.get_by_role("list", name="steps")).to_have_text("pull")
        expect(dialog.get_by_label("minutes to wait")).to_have_value("10")
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        assert len(stage.hub.requests) == before, "nothing before it is confirmed"
        watched.go("commands/c2")
        page.get_by_role("button", name="Run again …").click()
        expect(dialog).to_contain_text("It may have run already")
        expect(dialog).to_contain_text("reboot: 1 host will stop what it does")
        go = dialog.get_by_role("button", name="Give the command")
        expect(go).to_have_class("stop")
        go.click()
        expect(dialog).to_be_visible()
        assert len(stage.hub.requests) == before, "a box says that somebody has looked at the host"
        dialog.get_by_label("I have looked at web1").check()
        go.click()
        until(lambda: len(stage.hub.requests) > before)
        asked = stage.hub.requests[-1]
        assert isinstance(asked, GiveCommand)
        assert (asked.op, asked.hosts, asked.ttl_s) == ("reboot", ["web1"], 600.0)


def test_hosts_that_do_not_offer_an_operation_are_named_and_left_out_by_choice_and_many_are_typed(
    browser: Browser, stage: Stage
) -> None:
    stage.hub.answer = accepted
    for number in range(1, 25):
        stage.host(f"web{number}", commands=["pull", "reboot"] if number > 2 else ["pull"])
    stage.host("vm", commands=[])
    with stage.sign_in(browser) as watched:
        page, dialog = watched.page, watched.page.locator("dialog")
        expect(page.locator("#counts .chip").first).to_contain_text("25")
        page.get_by_label("select all shown").check()
        page.get_by_role("button", name="Command …").click()
        expect(dialog.get_by_role("button", name="+ pull")).to_contain_text("24 of 25")
        dialog.get_by_role("button", name="+ reboot").click()
        expect(dialog).to_contain_text("3 of 25 hosts offer no reboot: vm, web1, web2.")
        before = len(stage.hub.requests)
        dialog.get_by_label("Type 25 to confirm").fill("25")
        dialog.get_by_role("button", name="Run on 25 hosts").click()
        expect(dialog.get_by_role("alert")).to_contain_text("not offered there, and nothing was sent")
        dialog.get_by_label("Leave these 3 out").check()
        dialog.get_by_role("button", name="Run on 22 hosts").click()
        assert len(stage.hub.requests) == before, "the number that was typed is not theirs"
        dialog.get_by_label("Type 22 to confirm").fill("22")
        dialog.get_by_role("button", name="Run on 22 hosts").click()
        until(lambda: len(stage.hub.requests) > before)
        asked = stage.hub.requests[-1]
        assert isinstance(asked, StartRun)
        assert (len(asked.hosts or []), asked.steps, asked.parallel) == (22, ["reboot"], 10)
        assert not {"vm", "web1", "web2"} & set(asked.hosts or [])


def test_failures_of_a_run_come_first_with_their_last_lines_and_are_run_again(browser: Browser, stage: Stage) -> None:
    stage.hub.answer = accepted
    ended_run(stage)
    with stage.sign_in(browser) as watched:
        page, dialog = watched.go("runs"), watched.page.locator("dialog")
        listed = page.locator("#runs .item")
        expect(listed).to_contain_text("3 failed, 1 of 6 succeeded, 2 not attempted · stopped by its limit")
        listed.click()
        expect(page).to_have_title(re.compile("pull on 6 hosts: failed · fleethub$"))
        lines = page.locator("tbody tr")
        assert [line.get_attribute("data-host") for line in lines.all()] == [
            "web2", "web3", "web4", "web5", "web6", "web1",
        ]  # fmt: skip
        expect(lines.nth(0)).to_contain_text("exit code 3")
        expect(lines.nth(0).locator("pre")).to_have_text("two\nthree\nerror: no space left")
        expect(lines.nth(1)).to_contain_text("its host was not connected in time")
        expect(lines.nth(2).locator(".pill")).to_have_text("cancelled")
        expect(page.locator("#outcome")).to_contain_text("2 failed, 1 cancelled, 1 of 6 succeeded, 2 not attempted")
        expect(page.locator("#news")).to_contain_text("Failed: web2, web3")
        expect(
            page.get_by_text("Stopped by its limit: 3 hosts failed or cancelled, 1 allowed. 2 hosts not begun")
        ).to_be_visible()
        page.get_by_role("group", name="which hosts are listed").get_by_role("button", name="failed").click()
        expect(lines).to_have_count(2)
        assert page.url.endswith("#runs/run-1?show=failed")
        page.get_by_role("button", name="Again on the 2 failed …").click()
        expect(dialog).to_contain_text("again on the 2 hosts that failed")
        expect(dialog.get_by_label("failures allowed")).to_have_value("1")
        dialog.get_by_role("button", name="Back").click()
        page.get_by_role("button", name="Again on the 3 not attempted or cancelled …").click()
        expect(dialog).to_contain_text("web6")
        dialog.get_by_label("Leave it out").check()
        before = len(stage.hub.requests)
        dialog.get_by_role("button", name="Run on 2 hosts").click()
        until(lambda: len(stage.hub.requests) > before)
        asked = stage.hub.requests[-1]
        assert isinstance(asked, StartRun)
        assert (asked.hosts, asked.steps, asked.max_failures) == (["web4", "web5"], ["pull"], 1)
        expect(dialog).to_be_hidden()  # as the answer comes the page goes to the run

        watched.go("commands")
        items = page.locator("#list .item")
        expect(items).to_have_count(1)
        expect(items).to_contain_text("1 succeeded, 1 failed, 1 expired, 1 cancelled")
        page.get_by_role("button", name="1 failed").click()
        expect(items).to_have_count(5)
        items.filter(has_text="web2").click()
        expect(page.locator("#about .id").last).to_contain_text("r2")
        expect(items).to_have_count(5)


def test_a_command_says_what_it_waits_for_and_who_asked_for_its_end(browser: Browser, stage: Stage) -> None:
    stage.host("web1")
    stage.host("web2", presence="offline", last_seen="2026-11-23T10:00:00.000Z")
    for id, number, host, state in (
        ("f1", 11, "web1", State.RUNNING), ("q1", 12, "web1", State.QUEUED), ("q2", 13, "web2", State.QUEUED)
    ):  # fmt: skip
        stage.stored(id, number, host, [], state)
    asked_at = {"cancel_requested_at": "2026-11-23T10:05:00.000Z", "cancel_requested_by": "bob"}
    stage.command("f1", "web1", State.RUNNING, op="forever", actor="admin", started_at=seen_at(300), **asked_at)
    stage.command("q1", "web1", State.QUEUED, created_at=seen_at(60), expires_at="2026-11-23T11:00:00.000Z")
    stage.command("q2", "web2", State.QUEUED, created_at=seen_at(60), expires_at="2026-11-23T11:00:00.000Z")
    with stage.sign_in(browser, timezone_id="Europe/Vienna", locale="en-GB") as watched:
        page = watched.go("commands/q1")
        waiting = page.locator("#waiting")
        expect(waiting).to_contain_text(re.compile(r"web1 runs forever, given by admin, for \d+ (s|min)"))
        expect(page).to_have_title(re.compile("pull on web1: queued · fleethub$"))
        waiting.get_by_role("link", name="forever").click()
        expect(page.locator("#about")).to_contain_text(
            re.compile(r"Cancel asked for\s*23 Nov 2026, 11:05:00 (CET|GMT\+1) by bob")
        )
        watched.go("commands/q2")
        expect(waiting).to_contain_text(re.compile(r"web2 is offline, last heard 23 Nov 2026, 11:00:00 (CET|GMT\+1)"))
        expect(waiting).to_contain_text(re.compile(r"waits until 23 Nov 2026, 12:00:00 (CET|GMT\+1)"))


def test_a_link_shows_what_its_sender_looks_at(browser: Browser, stage: Stage) -> None:
    for number in range(1, 6):
        load = {"cpu": number * 10.0, "ram": 1.0, "disk": 2.0, "load": 0.5}
        stage.host(f"web{number}", presence="offline" if number > 2 else "online", metrics=load, location="b & c")
    stage.stored("c1", 1, "web1", ["one", "a needle", "three"], State.FAILED)
    stage.command("c1", "web1", State.FAILED, finished_at=seen_at())
    with stage.sign_in(browser, permissions=["clipboard-read", "clipboard-write"]) as watched:
        page = watched.page
        steps = page.evaluate("history.length")
        page.get_by_role("searchbox", name="find hosts").fill("web !name=web5")
        page.get_by_role("button", name="offline").click()
        page.get_by_role("button", name="CPU").click()
        page.get_by_role("button", name="CPU").click()
        page.get_by_label("group by").select_option("presence")
        expect(page).to_have_title(re.compile("offline · web !name=web5 · Fleet · fleethub$"))
        expect(rows(page).locator(".name")).to_have_text(["web4", "web3"])
        until(lambda: "group=presence" in page.url)
        assert page.evaluate("history.length") == steps, "to go back is to go to the view before"
        other = page.context.new_page()
        other.goto(page.url)
        expect(rows(other).locator(".name")).to_have_text(["web4", "web3"])
        expect(other.get_by_role("searchbox", name="find hosts")).to_have_value("web !name=web5")
        expect(other.get_by_label("group by")).to_have_value("presence")
        other.goto(f"{page.url.partition('#')[0]}#commands/c1?q=web1&state=failed&find=needle")
        expect(other.locator(".lines .hit")).to_have_text("a needle")
        expect(other.get_by_label("find commands")).to_have_value("web1")
        expect(other.get_by_label("state", exact=True)).to_have_value("failed")
        other.close()
        watched.go("host/web1")
        page.get_by_role("button", name="24 hours").click()
        until(lambda: page.url.endswith("#host/web1?span=day"))
        expect(page).to_have_title(re.compile("web1: online · fleethub$"))
        watched.go("fleet")
        expect(rows(page).locator(".name")).to_have_text(["web4", "web3"])
        watched.go("commands/c1")
        page.get_by_role("button", name="copy the command's id").click()
        assert page.evaluate("navigator.clipboard.readText()") == "c1"


def test_an_empty_fleet_says_so_at_the_top_and_a_loopback_address_is_warned_of(browser: Browser, stage: Stage) -> None:
    stage.hub.answer = accepted
    with stage.sign_in(browser) as watched:
        page, dialog = watched.page, watched.page.locator("dialog")
        expect(page.locator("#none")).to_contain_text("No hosts yet")
        assert page.locator("#none").evaluate("(text) => text.getBoundingClientRect().bottom < 400")
        expect(page.get_by_role("grid")).to_be_hidden()
        page.get_by_role("button", name="Enrol a host").click()
        dialog.get_by_label("host name").fill("new1")
        dialog.get_by_role("button", name="Enrol").click()
        expect(dialog).to_contain_text("leads to the machine on which it is typed")
        dialog.get_by_role("button", name="Close").click()
        stage.host("web1")
        expect(rows(page)).to_have_count(1)


def test_nothing_is_cut_or_too_wide_in_any_window(browser: Browser, stage: Stage) -> None:
    ended_run(stage)
    stage.host("a-host-with-a-rather-long-name.example.org", labels={"role": "web", "rack": "b4"}, presence="offline")
    stage.stored("c1", 1, "web1", ["x" * 500], State.RUNNING)
    stage.command("c1", "web1", State.RUNNING, op="switch", started_at=seen_at(70))
    found = []
    with stage.sign_in(browser) as watched:
        page = watched.page
        for place in PLACES:
            watched.go(place)
            page.wait_for_load_state("networkidle")
            for window, size in WINDOWS.items():
                page.set_viewport_size(size)  # type: ignore[arg-type]
                found += [f"{window}, {place}: {one}" for one in page.evaluate(BROAD)]
        page.set_viewport_size({"width": 390, "height": 844})
        watched.go("fleet")
        label = "(meter) => getComputedStyle(meter, '::before').content"
        meters = rows(page).first.locator(".cell.cpu .meter, .cell.ram .meter")
        assert [meter.evaluate(label) for meter in meters.all()] == ['"CPU"', '"Mem"']
    assert not found, "\n".join(found)
