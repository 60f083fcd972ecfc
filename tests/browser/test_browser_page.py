"""The page in a real browser over a played hub: what a person sees and may do, and that nothing from a host is more
than text.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from doubles.deadline import until
from doubles.operator_wire import TOKEN
from doubles.page_stage import Stage, seen_at
from playwright.sync_api import Browser, Page, expect

from processes.core.records.command import State
from processes.core.travels.messages import (
    Change,
    EnrollHost,
    GiveCommand,
    Json,
    OutputGrew,
    RequestReceived,
    StartRun,
)

HOSTILE = '<img src=x onerror="window.pwned=1"><script>window.pwned=2</script>{{7*7}}\u202e&lt;b&gt;'
SHOWN = HOSTILE.replace("\u202e", "\\u202e")  # seen, not obeyed
SEEN_MAX = 60  # rows of a window, with those that are kept ready around it
DRAWINGS = """async ([act, times]) => {
  // How many rows each drawing put in and took out; an observer is called once after each drawing.
  const grid = document.querySelector(".grid"), find = document.getElementById("find"), drawings = [];
  const observer = new MutationObserver((records) => {
    const count = (nodes) => records.reduce((sum, record) => sum + record[nodes].length, 0);
    drawings.push([count("addedNodes"), count("removedNodes"), grid.querySelectorAll(".rows .row").length]);
  });
  observer.observe(grid.querySelector(".rows"), { childList: true });
  const frame = () => new Promise(requestAnimationFrame);
  for (let time = 0; time < times; time++) {
    if (act === "filter") {
      find.value = "host" + "1234".slice(0, time % 5);
      find.dispatchEvent(new Event("input"));
    } else grid.scrollTop += act === "jump" ? 52 * 500 : 52 * 2;
    await frame();
    await frame();
  }
  observer.disconnect();
  return drawings;
}"""

AGES = """async () => {
  const ages = [], text = () => document.getElementById("banner-age").textContent;
  while (ages.length < 12) {
    await new Promise((done) => setTimeout(done, 250));
    ages.push(Number(/([\\d.]+) s ago/.exec(text())[1]));
  }
  return ages;
}"""

LATER = """async () => {
  const { clock } = await import("/clock.js");
  clock.heard = () => {};
  clock.offsetMs = 3 * 3600 * 1000;
}"""

pytestmark = pytest.mark.browser


def rows(page: Page) -> Any:
    return page.locator(".rows .row:not(.group)")


def test_hostile_names_facts_and_output_are_text_and_nothing_else(browser: Browser, stage: Stage) -> None:
    stage.host(
        "db-<b>1</b>",
        presence="offline",
        os_version=HOSTILE,
        metrics=None,
        facts={"<i>fact</i>": HOSTILE},
        heartbeat_facts={},
    )
    lines = [HOSTILE, "\x1b[31mred\x1b[0m \x1b]0;title\x07\x1b[2Jplain", "</pre></div><h1>out</h1>"]
    stage.stored("c1", 1, "db-<b>1</b>", lines)
    stage.command("c1", "db-<b>1</b>", State.RUNNING, message=HOSTILE)
    with stage.sign_in(browser) as watched:
        page = watched.page
        assert "code" not in page.url
        expect(rows(page)).to_have_count(1)
        expect(rows(page)).to_contain_text(SHOWN[:40])
        page.get_by_role("link", name="db-<b>1</b>").click()
        expect(page.locator("#said dt").filter(has_text="<i>fact</i>")).to_have_count(1)
        expect(page.locator("#said dd").filter(has_text=SHOWN)).to_have_count(2)
        watched.go("commands/c1")
        output = page.locator(".lines > div")
        expect(output).to_have_count(3)
        assert [text.rstrip("\n") for text in output.all_text_contents()] == [SHOWN, "red plain", lines[2]]
        expect(output.nth(1).locator(".fg-1")).to_have_text("red")
        expect(page.locator("#about")).to_contain_text(SHOWN)
        stage.stored("c1", 1, "db-<b>1</b>", [*lines, "the live line"], State.FAILED)
        stage.do(stage.hub.say(OutputGrew(1, "c1", 4, True)))
        stage.command("c1", "db-<b>1</b>", State.FAILED, reason="exit", exit_code=3, finished_at=seen_at())
        expect(output.nth(3)).to_contain_text("the live line")
        expect(page.locator(".lines .end")).to_contain_text("end of output")
        page.get_by_label("find in the output").fill("PLAIN")
        expect(page.locator(".lines .hit")).to_have_count(1)
        with page.expect_download() as download:
            page.get_by_role("button", name="Download").click()
        assert download.value.path().read_text() == "\n".join([*lines, "the live line", ""])
        stage.stored("c2", 2, "db-<b>1</b>", ["short"], State.SUCCEEDED)
        stage.command("c2", "db-<b>1</b>", State.SUCCEEDED)
        watched.go("commands/c2")  # nothing of the one before is left: no search, no note
        expect(output).to_have_count(2)
        expect(page.get_by_label("find in the output")).to_have_value("")
        expect(page.get_by_label("Follow")).to_be_checked()
        watched.go("host/nobody")
        expect(page.locator("#head")).to_contain_text("There is no such host")
        expect(page.locator("#rest")).to_be_hidden()
        assert page.evaluate("window.pwned") is None
        assert page.locator("img[src=x], .lines h1, b:text-is('1'), #said i").count() == 0
        assert "[object" not in page.locator("body").inner_text()


def test_presence_ages_before_anybody_says_so_and_a_heartbeat_makes_it_green_again(
    browser: Browser, stage: Stage
) -> None:
    stage.host("web1", heartbeat_interval_s=3600.0)
    with stage.sign_in(browser) as watched:
        pill = rows(watched.page).locator(".presence .pill")
        expect(pill).to_have_text("online")
        watched.page.evaluate(LATER)  # more than two heartbeats are missing, whatever the last word was
        expect(pill).to_have_text("quiet")
        stage.host("web1", last_seen=seen_at(-3 * 3600))
        expect(pill).to_have_text("online")
        stage.host("web1", presence="offline")
        expect(pill).to_have_text("offline")


def test_hosts_are_found_by_any_field_sorted_and_grouped(browser: Browser, stage: Stage) -> None:
    for number in range(1, 13):
        facts = {"generation": f"gen{number % 3}"}
        metrics = {"cpu": float(number * 8), "ram": 1.0, "load": 0.1}
        stage.host(
            f"web{number}",
            metrics=metrics,
            presence="offline" if number == 5 else "online",
            facts=facts,
            heartbeat_facts={},
        )
    with stage.sign_in(browser) as watched:
        page, find = watched.page, watched.page.get_by_role("searchbox", name="find hosts")
        expect(rows(page)).to_have_count(12)
        assert rows(page).locator(".name").all_text_contents() == [f"web{number}" for number in range(1, 13)], (
            "by number"
        )
        for text, count in [
            ("cpu>80", 2),
            ("presence:offline", 1),
            ("web1", 4),
            ("name=web1", 1),
            ("generation:gen1 -name:web1", 2),
            ("no such", 0),
        ]:
            find.fill(text)
            expect(rows(page), text).to_have_count(count)
        find.fill("")
        page.get_by_role("button", name="CPU").click()
        page.get_by_role("button", name="CPU").click()
        expect(rows(page).locator(".name").first).to_have_text("web12")
        page.get_by_label("group by").select_option("generation")
        expect(page.locator(".row.group")).to_have_count(3)
        page.get_by_role("button", name="offline").click()
        expect(rows(page)).to_have_count(1)


ODD = {"toString": 1, "valueOf": 1, "toFixed": 1}


def test_rows_go_on_changing_whatever_values_agents_send(browser: Browser, stage: Stage) -> None:
    """One agent's objects, where numbers and texts are expected, once froze all rows under a green header."""
    huge = "x" * 15_000
    odd_facts: list[dict[str, Any]] = [
        {"cpu": ODD, "ram": ODD, "disk": ODD, "load": ODD, "generation": ODD, "location": {"toString": None}},
        {"cpu": [[ODD]], "generation": [[["deep"]]], "location": [ODD]},
        {"cpu": huge, "generation": huge, "location": huge},
        {"cpu": True, "generation": 7, "location": -0.0},
    ]
    status = {"update_status": {"git": {"status": ODD, "message": ODD, "checked_at": ODD}, "lock": [ODD]}}
    for number, facts in enumerate(odd_facts):
        stage.host(f"odd{number}", metrics=None, facts=facts, heartbeat_facts=status, progress={"pull": None})
    stage.host("metrics", metrics={"cpu": ODD, "ram": "9", "disk": [1], "load": ODD, "temperatures": {"a": ODD}})
    stage.host("plain", metrics={"cpu": 5.0, "ram": 5.0, "disk": 5.0, "load": 5.0}, facts={}, heartbeat_facts={})
    with stage.sign_in(browser) as watched:
        page, find, last = watched.page, watched.page.get_by_role("searchbox", name="find hosts"), 5

        def goes_on() -> None:
            nonlocal last
            last += 1
            stage.host("plain", metrics={"cpu": last + 0.0, "ram": 5.0, "disk": 5.0, "load": 5.0})
            expect(rows(page).filter(has_text="plain").locator(".cell.cpu .amount")).to_have_text(f"{last}%")
            expect(page.locator("#banner")).not_to_contain_text("cannot draw")

        for column in ("CPU", "Memory", "Disk", "Load", "CPU"):
            page.get_by_role("button", name=column, exact=True).click()
            goes_on()
        for group in ("generation", "location", ""):
            page.get_by_label("group by").select_option(group)
            goes_on()
        for text in ("cpu>1", "plain generation<1 ", "-location:zz", "-odd"):
            find.fill(text if text != "plain generation<1 " else "-generation>1 -odd")
            goes_on()
        find.fill("")
        for name in ("odd0", "odd1", "odd2", "metrics"):
            page.goto(f"{page.url.split('#')[0]}#host/{name}")
            expect(page.locator("#said h2")).to_have_text("About")
            expect(page.locator("#banner")).not_to_contain_text("cannot draw")


def test_the_page_says_that_it_cannot_draw_until_it_can(browser: Browser, stage: Stage) -> None:
    stage.host("web1")
    with stage.sign_in(browser) as watched:
        page = watched.page
        expect(rows(page)).to_have_count(1)
        page.evaluate(
            "async () => { const { view } = await import('/fleet.js'); window.drawing = view.draw;"
            " view.draw = () => { throw new Error('a value that nobody thought of'); }; }"
        )
        expect(page.locator("#banner")).to_contain_text("cannot draw")
        expect(page.locator("#banner-age")).to_contain_text("nobody thought of")
        page.evaluate("async () => { (await import('/fleet.js')).view.draw = window.drawing; }")
        expect(page.locator("#banner")).not_to_contain_text("cannot draw")
        assert all("nobody thought of" in each for each in watched.complaints)
        watched.complaints.clear()


def test_how_far_a_command_is_by_its_agents_word_is_seen_in_the_fleet_and_with_the_command(
    browser: Browser, stage: Stage
) -> None:
    steps = {
        "pull": {"current": 4, "total": 4, "status": "complete"},
        "switch": {"current": 3, "total": 4, "status": "in_progress"},
    }
    stage.host("nix1", progress=steps, kernel="6.12.57", machine="x86_64")
    stage.stored("c7", 7, "nix1", [])
    stage.command("c7", "nix1", State.RUNNING, op="switch", started_at=seen_at(70))
    with stage.sign_in(browser) as watched:
        page = watched.page
        expect(rows(page).locator(".op .under")).to_have_text(re.compile(r"^step 3 of 4 · \d+ (s|min)$"))
        watched.go("commands/c7")
        bar = page.locator("#about progress")
        expect(bar).to_have_attribute("value", "3")
        expect(bar).to_have_attribute("max", "4")
        stage.host("nix1", progress={})
        expect(bar).to_have_count(0)
        watched.go("host/nix1")
        expect(page.locator("#said")).to_contain_text("6.12.57 · x86_64")


def test_who_stands_at_a_button_stays_there_while_numbers_change_around_it(browser: Browser, stage: Stage) -> None:
    stage.host("web1")
    with stage.sign_in(browser) as watched:
        page = watched.go("host/web1")
        page.get_by_role("button", name="Revoke").focus()
        stage.host("web1", metrics={"cpu": 88.0, "ram": 1.0, "disk": 2.0, "load": 0.5})
        expect(page.locator("#head .tile").first).to_contain_text("88%")
        expect(page.get_by_role("button", name="Revoke")).to_be_focused()
        page.get_by_role("button", name="24 hours").click()
        expect(page.get_by_role("button", name="24 hours")).to_have_attribute("aria-pressed", "true")
        expect(page.get_by_role("button", name="24 hours")).to_be_focused()
        expect(page.locator("#charts figure")).to_have_count(4)


def test_a_press_is_not_lost_when_numbers_change_while_the_button_is_down(browser: Browser, stage: Stage) -> None:
    stage.host("web1")
    with stage.sign_in(browser) as watched:
        page = watched.page
        box = page.get_by_label("select web1").bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + 5, box["y"] + 5)
        page.mouse.down()
        stage.host("web1", metrics={"cpu": 99.0, "ram": 1.0, "disk": 2.0, "load": 0.5}, last_seen=seen_at(-60))
        stage.host("web2")
        expect(rows(page)).to_have_count(2)  # it was drawn anew meanwhile
        page.mouse.up()
        expect(page.locator("#chosen-count")).to_have_text("1 host selected")
        expect(rows(page).first.locator(".cpu .amount")).to_have_text("99%")


def test_who_comes_back_from_a_host_stands_where_he_was(browser: Browser, stage: Stage) -> None:
    stage.crowd(300)
    with stage.sign_in(browser) as watched:
        page = watched.page
        expect(page.locator("#counts .chip").first).to_contain_text("300")
        grid = page.get_by_role("grid")
        grid.focus()
        page.keyboard.press("End")
        page.keyboard.press("ArrowUp")
        top = grid.evaluate("grid => grid.scrollTop")
        assert top > 1000
        page.keyboard.press("Enter")
        expect(page.locator("#said")).to_contain_text("Debian 12")
        page.go_back()
        expect(rows(page).filter(has_text="host299")).to_be_visible()
        assert abs(page.get_by_role("grid").evaluate("grid => grid.scrollTop") - top) < 76, "a row"
        expect(page.locator(".row.at")).to_contain_text("host298")


def test_many_hosts_are_commanded_by_keyboard_in_batches_after_asking(browser: Browser, stage: Stage) -> None:
    for number in range(1, 4):
        stage.host(f"web{number}", commands=["pull", "switch"] if number < 3 else ["pull"])
    stage.host("pad", presence="offline", commands=["pull"])

    def answer(event: RequestReceived) -> tuple[int, dict[str, Any]]:
        if isinstance(event.request, GiveCommand):
            return 202, {"commands": [{"id": "c-1"}]}
        return (201, {"name": "new1"}) if isinstance(event.request, EnrollHost) else (202, {"id": "run-1"})

    stage.hub.answer = answer
    with stage.sign_in(browser) as watched:
        page, dialog = watched.page, watched.page.locator("dialog")
        expect(rows(page)).to_have_count(4)
        before = len(stage.hub.requests)
        page.get_by_role("grid").focus()
        for key in ("ArrowDown", "Space", "ArrowDown", "Space"):
            page.keyboard.press(key)
        expect(page.locator("#chosen-count")).to_have_text("2 hosts selected")
        page.get_by_role("button", name="Command …").click()
        expect(dialog.get_by_role("button", name="+ switch")).to_be_visible()
        dialog.get_by_role("button", name="Back").click()
        page.get_by_label("select web3").click()
        page.get_by_label("select pad").click()
        page.get_by_role("button", name="Command …").click()
        expect(dialog).to_contain_text("pad, web1, web2, web3")
        expect(dialog).to_contain_text("1 of them not online")
        expect(dialog.get_by_role("button", name="+ switch")).to_contain_text("2 of 4")
        dialog.get_by_role("button", name="+ pull").click()
        dialog.get_by_label("hosts at a time").fill("2")
        dialog.get_by_label("failures allowed").fill("1")
        assert len(stage.hub.requests) == before, "nothing before it is confirmed"
        dialog.get_by_role("button", name="Run on 4 hosts").click()
        until(lambda: len(stage.hub.requests) > before)
        asked = stage.hub.requests[-1]
        assert isinstance(asked, StartRun)
        assert (asked.steps, asked.hosts, asked.parallel, asked.max_failures) == (
            ["pull"],
            ["pad", "web1", "web2", "web3"],
            2,
            1,
        )
        assert (asked.ttl_s, len(asked.key or "")) == (3600.0, 32)
        expect(page.locator("body[data-view=runs]")).to_be_visible()
        watched.go("fleet")
        page.get_by_role("button", name="Enrol a host").click()
        dialog.get_by_label("host name").fill("new1")
        dialog.get_by_role("button", name="Enrol").click()
        expect(dialog).to_contain_text("Token of new1")
        expect(dialog).to_contain_text(
            "fleethub agent --hub ws://127.0.0.1:7701/ws --name new1 --token-file - --install"
        )
        assert len(dialog.locator(".secret").first.inner_text()) >= 43
        dialog.get_by_role("button", name="Close").click()
        stage.hub.answer = lambda _: (201, {"name": "new1", "expires_at": seen_at(), "suspended": "it flooded"})
        page.get_by_role("button", name="Enrol a host").click()
        dialog.get_by_label("host name").fill("new1")
        dialog.get_by_label("By a one-time code").check()
        dialog.get_by_role("button", name="Enrol").click()
        expect(dialog).to_contain_text("Code of new1")
        expect(dialog).to_contain_text("suspended until the code is used, which lifts that: it flooded")
        expect(dialog).to_contain_text("fleethub agent --hub ws://127.0.0.1:7701/ws --code - --install")
        assert dialog.locator(".secret").first.inner_text().startswith("new1:")


def test_what_is_wrong_stands_in_the_dialog_and_a_token_is_not_closed_by_a_slip(browser: Browser, stage: Stage) -> None:
    refusal = (409, {"error": "exists", "message": "--again gives it a new token"})
    stage.hub.answer = lambda event: (
        refusal if isinstance(event.request, EnrollHost) and not event.request.again else (201, {"name": "web1"})
    )
    with stage.sign_in(browser) as watched:
        page, dialog = watched.page, watched.page.locator("dialog")
        page.get_by_role("button", name="Enrol a host").click()
        expect(dialog).to_be_visible()
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        page.get_by_role("button", name="Enrol a host").click()
        dialog.get_by_label("host name").fill("web1")
        dialog.get_by_role("button", name="Enrol").click()
        expect(dialog.get_by_role("alert")).to_contain_text("tick the box")
        dialog.get_by_label("It is enrolled already").check()
        dialog.get_by_role("button", name="Enrol").click()
        expect(dialog).to_contain_text("Token of web1")
        page.keyboard.press("Escape")
        expect(dialog).to_contain_text("Token of web1")
        dialog.get_by_role("button", name="Close").click()
        expect(dialog).to_be_hidden()
        assert page.evaluate("document.activeElement !== document.body")


def test_limits_are_the_servers_and_its_answer_stands_in_the_dialog(browser: Browser, stage: Stage) -> None:
    """The page has no limits of its own, which could differ from those of the API."""
    stage.host("web1", commands=["pull"])
    stage.hub.answer = lambda _: (202, {"commands": [{"id": "c-1"}]})
    with stage.sign_in(browser) as watched:
        page, dialog = watched.page, watched.page.locator("dialog")
        page.get_by_label("select web1").click()
        page.get_by_role("button", name="Command …").click()
        dialog.get_by_role("button", name="+ pull").click()
        dialog.get_by_label("minutes to wait").fill("10081")
        dialog.get_by_role("button", name="Give the command").click()
        expect(dialog.get_by_role("alert")).to_contain_text("604800")
        (complaint,) = watched.complaints
        assert "400" in complaint, "the browser notes the refusal"
        watched.complaints.clear()
        dialog.get_by_label("minutes to wait").fill("10080")
        dialog.get_by_role("button", name="Give the command").click()
        expect(page.locator("body[data-view=commands]")).to_be_visible()


def test_a_sign_in_that_is_asked_for_again_stands_over_the_dialog_and_what_was_asked_goes_on(
    browser: Browser, stage: Stage
) -> None:
    """The server's answer is played once; the sign-in is real."""
    stage.host("web1", commands=["reboot"])
    stage.hub.answer = lambda _: (202, {"commands": [{"id": "c-1"}]})
    told = {"error": "sign_in_again", "message": "reboot needs a sign-in of the last minutes"}
    with stage.sign_in(browser) as watched:
        page = watched.page
        again = page.get_by_role("dialog", name="Sign in again")
        page.route("**/api/v1/commands", lambda route: route.fulfill(status=403, json=told), times=2)
        page.get_by_label("select web1").click()
        page.get_by_role("button", name="Command …").click()
        page.locator("#dialog").get_by_role("button", name="+ reboot").click()
        page.locator("#dialog").get_by_role("button", name="Give the command").click()
        expect(again).to_contain_text("reboot needs a sign-in")
        again.get_by_role("button", name="Back").click()
        expect(page.locator("#dialog").get_by_role("alert")).to_contain_text("reboot needs a sign-in")
        page.locator("#dialog").get_by_role("button", name="Give the command").click()
        again.get_by_label("operator token").fill("wrong")
        again.get_by_role("button", name="Sign in").click()
        expect(again.get_by_role("alert")).to_contain_text("not good")
        again.get_by_label("operator token").fill(TOKEN)
        again.get_by_role("button", name="Sign in").click()
        expect(page.locator("body[data-view=commands]")).to_be_visible()
        expect(page.locator("#link")).to_have_text("live")
        assert [event.request.op for event in stage.hub.asked if isinstance(event.request, GiveCommand)][-1:] == [
            "reboot"
        ]


def test_many_hosts_are_removed_only_by_who_types_how_many(browser: Browser, stage: Stage) -> None:
    stage.crowd(25)
    stage.hub.answer = lambda _: (200, {"name": "gone"})
    with stage.sign_in(browser) as watched:
        page, dialog = watched.page, watched.page.locator("dialog")
        expect(page.locator("#counts .chip").first).to_contain_text("25")
        page.get_by_label("select all shown").check()
        page.get_by_role("button", name="Remove").click()
        before = len(stage.hub.requests)
        dialog.get_by_role("button", name="Remove").click()
        expect(dialog).to_be_visible()
        dialog.get_by_label("Type 25 to confirm").fill("25")
        dialog.get_by_role("button", name="Remove").click()
        expect(dialog).to_be_hidden()
        assert len(stage.hub.requests) - before == 25


def test_a_viewer_is_offered_nothing_that_changes_anything_and_is_refused_it(browser: Browser, stage: Stage) -> None:
    stage.host("web1")
    stage.stored("c9", 9, "web1", [])
    stage.command("c9", "web1", State.RUNNING)
    with stage.sign_in(browser, role="viewer") as watched:
        page = watched.page
        page.get_by_label("select web1").click()
        expect(page.locator("#chosen")).to_be_visible()
        offered = page.get_by_role("button", name="Command …").or_(page.get_by_role("button", name="Remove"))
        expect(offered.or_(page.get_by_role("button", name="Enrol a host"))).to_have_count(0)
        watched.go("host/web1")
        expect(page.locator("#said")).to_contain_text("Debian 12")
        expect(offered.or_(page.get_by_role("button", name="Revoke"))).to_have_count(0)
        watched.go("commands/c9")
        expect(page.locator("#about")).to_contain_text("running")
        expect(page.get_by_role("button", name="Cancel", exact=True)).to_have_count(0)
        before = len(stage.hub.requests)
        ask = "async ([method, path, body]) => (await fetch(path, { method, headers: { 'content-type': 'application/json' }, body })).status"
        given = json.dumps({"op": "pull", "hosts": ["web1"]})
        for method, path, body in [
            ("POST", "/api/v1/commands", given), ("POST", "/api/v1/commands/c9/cancel", None), ("DELETE",
            "/api/v1/hosts/web1", None),
            ("POST", "/api/v1/hosts/web1/revoke", None), ("POST", "/api/v1/tokens", json.dumps({"role": "admin"})),
        ]:  # fmt: skip
            assert page.evaluate(ask, [method, path, body]) == 403, path
        assert len(stage.hub.requests) == before


def test_of_ten_thousand_hosts_a_drawing_touches_only_the_rows_that_come_into_sight(
    browser: Browser, stage: Stage
) -> None:
    stage.crowd(10_000)
    with stage.sign_in(browser) as watched:
        page = watched.page
        expect(page.locator("#counts .chip").first).to_contain_text("10,000")
        assert page.locator(".rows .row").count() < SEEN_MAX
        for act, times, touched_max in [("scroll", 40, 2), ("jump", 15, SEEN_MAX), ("filter", 15, SEEN_MAX)]:
            drawings = page.evaluate(DRAWINGS, [act, times])
            assert len(drawings) >= times // 2, f"{act}: it drew"
            for added, removed, there in drawings:
                assert max(added, removed) <= touched_max, f"{act}: {drawings}"
                assert there < SEEN_MAX, "what cannot be seen is not there"
        page.get_by_role("searchbox", name="find hosts").fill("name=host9999")
        expect(rows(page)).to_have_count(1)


def test_a_heartbeat_draws_its_own_row_and_no_other(browser: Browser, stage: Stage) -> None:
    stage.crowd(300)
    with stage.sign_in(browser) as watched:
        page = watched.page
        expect(page.locator("#counts .chip").first).to_contain_text("300")
        page.evaluate("for (const row of document.querySelectorAll('.rows .row')) row.drawnBefore = true")
        stage.host("host2", metrics={"cpu": 99.0, "ram": 1.0, "disk": 2.0, "load": 0.5})
        one = rows(page).filter(has=page.get_by_role("link", name="host2", exact=True))
        expect(one.locator(".cpu .amount")).to_have_text("99%")
        drawn = "[...document.querySelectorAll('.rows .row')].filter((row) => !row.drawnBefore).length"
        assert page.evaluate(drawn) == 1


def test_the_page_says_when_it_is_cut_off_and_heals_by_itself(browser: Browser, stage: Stage) -> None:
    stage.host("web1")
    with stage.sign_in(
        browser, viewport={"width": 390, "height": 800}, color_scheme="dark", device_scale_factor=2
    ) as watched:
        page = watched.page
        expect(rows(page)).to_have_count(1)
        for place in ("fleet", "host/web1", "commands", "runs", "incidents", "watchdog", "deadletters", "account"):
            watched.go(place)
            expect(page.locator(f"body[data-view={place.partition('/')[0]}]")).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{place} is wider than a phone"
        watched.go("fleet")
        stage.house.kill("fanout")
        expect(page.locator("#link")).to_have_text("not connected")
        expect(page.locator("#banner")).to_contain_text("Connection lost")
        expect(rows(page).locator(".presence .pill")).to_have_text("was online")
        expect(page.locator("#counts.past")).to_be_visible()
        ages = page.evaluate(AGES)
        assert ages == sorted(ages), "it only grows, however often one tries again"
        assert ages[-1] - ages[0] > 2.0
        stage.hub.rows.apply(Change("host", "web2", Json(json.dumps(stage.host_row("web2")).encode())))
        stage.house.start("fanout")
        expect(page.locator("#link")).to_have_text("live")
        expect(rows(page)).to_have_count(2)
        expect(rows(page).locator(".presence .pill").first).to_have_text("online")


def test_a_session_that_is_ended_elsewhere_is_cut_off_at_once(browser: Browser, stage: Stage) -> None:
    with stage.sign_in(browser) as boss, stage.sign_in(browser, role="viewer") as guest:
        page = boss.go("account")
        page.locator("#sessions tr").filter(has_text="viewer").get_by_role("button", name="End").first.click()
        page.locator("dialog").get_by_role("button", name="End it").click()
        expect(guest.page.get_by_role("heading", name="Sign in")).to_be_visible()
        guest.page.get_by_label("operator token").fill("the-installation-token")
        guest.page.get_by_role("button", name="Sign in").click()
        expect(guest.page.locator("#link")).to_have_text("live")
        guest.go("account")
        guest.page.get_by_role("button", name="Sign out").click()
        expect(guest.page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_a_bar_of_progress_is_drawn_over_and_lines_are_not(browser: Browser, stage: Stage) -> None:
    stage.host("web0")
    stage.stored("c1", 1, "web0", ["begun", "\r10 %\r", "50 %\r", "100 %", "ended"])
    stage.command("c1", "web0", State.RUNNING)
    with stage.sign_in(browser) as watched:
        watched.go("commands/c1")
        expect(watched.page.locator(".screen .stdout")).to_have_text(["begun", "100 %", "ended"])


@pytest.mark.parametrize("count", [1000, 7000])  # 7,000: more than the page keeps, so lines leave its head meanwhile
def test_a_long_output_opens_at_its_end_and_follows_until_a_person_scrolls_up(
    browser: Browser, stage: Stage, count: int
) -> None:
    stage.host("web0")
    wrapped = "a line that is wrapped " * 40  # higher than the page takes it for before it is seen
    lines = [wrapped if number % 7 == 0 else f"line {number}" for number in range(count)]
    stage.stored("c1", 1, "web0", [*lines, "error: the last line"])
    stage.command("c1", "web0", State.RUNNING)
    with stage.sign_in(browser) as watched:
        page = watched.go("commands/c1")
        follow = page.get_by_label("Follow")
        screen, last = page.locator(".screen"), page.locator(".lines > div").last
        expect(last).to_contain_text("error: the last line")
        expect(last).to_be_in_viewport()
        expect(follow).to_be_checked()
        screen.evaluate("(screen) => { screen.scrollTop -= 500; }")
        expect(follow).not_to_be_checked()
        stage.stored("c1", 1, "web0", [*lines, "error: the last line", "and one more"])
        stage.do(stage.hub.say(OutputGrew(1, "c1", count + 2, False)))
        expect(last).to_contain_text("and one more")
        expect(last).not_to_be_in_viewport()
        expect(follow).not_to_be_checked()
        screen.evaluate("(screen) => { screen.scrollTop = screen.scrollHeight; }")
        expect(follow).to_be_checked()


def test_bars_are_seen_on_a_low_window_and_the_grid_has_its_width(browser: Browser, stage: Stage) -> None:
    stage.host("web0", metrics={"cpu": 81.0, "ram": 50.0, "disk": 25.0, "load": 0.5})
    with stage.sign_in(browser, viewport={"width": 1366, "height": 595}) as watched:
        page = watched.page
        expect(rows(page)).to_have_count(1)
        sizes = page.locator(".rows .meter .level").evaluate_all(
            "(bars) => bars.map((bar) => [bar.getBoundingClientRect().width, bar.getBoundingClientRect().height])"
        )
        assert len(sizes) == 3
        assert all(width > 5 and height > 2 for width, height in sizes), sizes
        assert page.locator(".grid").evaluate("(grid) => grid.clientWidth / innerWidth") > 0.8


def test_axe_finds_no_serious_violation_in_any_view_light_or_dark(browser: Browser, stage: Stage) -> None:
    for number, presence in enumerate(("online", "stale", "offline")):
        stage.host(
            f"web{number}", presence=presence, host_type="nixos", facts={"generation": "917d"}, heartbeat_facts={}
        )
    for number, state in enumerate(State):
        stage.command(f"c{number}", "web0", state, reason="why", created_at=seen_at(number))
    stage.stored("c1", 2, "web0", ["\x1b[31mred\x1b[0m \x1b[44;30mon blue\x1b[0m", "plain"])
    places = [
        "fleet",
        "host/web0",
        "commands/c1",
        "commands/c8",
        "runs",
        "watchdog",
        "deadletters",
        "account",
        "dialog",
    ]
    with stage.sign_in(browser, bypass_csp=True, reduced_motion="reduce") as watched:  # its script is not ours
        page, found = watched.page, []
        for place in places:
            page.emulate_media(color_scheme="light")
            watched.go(place if place != "dialog" else "fleet")
            if place == "dialog":
                page.get_by_label("select web0").click()
                page.get_by_role("button", name="Command …").click()
            page.wait_for_load_state("networkidle")
            found += [f"{place}: {one}" for one in violations(page, None)]
            page.emulate_media(color_scheme="dark")
            found += [f"{place} dark: {one}" for one in violations(page, ["color-contrast"])]
        assert found == []


def violations(page: Page, rules: list[str] | None) -> list[str]:
    """What axe holds to be serious or critical."""
    options = {"resultTypes": ["violations"], **({"runOnly": rules} if rules else {})}
    found = Axe().run(page, options=options).response["violations"]
    return [f"{one['id']} {one['nodes'][0]['html'][:200]}" for one in found if one["impact"] in ("serious", "critical")]
