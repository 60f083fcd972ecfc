"""The page over a whole installation: hosts that come and go, a hub that is killed or stuck while one looks, and never
a reload.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator

import pytest
from doubles.house import House
from doubles.page_stage import Watched
from playwright.sync_api import Browser, Page, expect

TALK = [
    "sh",
    "-c",
    "for n in 1 2 3 4 5 6 7 8 9 10 11 12; do printf '\\033[32mline %s\\033[0m\\n' $n; sleep 0.4; done; echo 'and done'",
]
STUCK = """() => {
  fetch("/api/v1/drill", { method: "POST", headers: { "content-type": "application/json" },
  body: '{"fault": "deadlock"}' });
}"""

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with House() as house:
        yield house


@pytest.fixture
def page(browser: Browser, house: House) -> Iterator[Page]:
    """An admin's page, which must never be loaded anew."""
    with Watched(browser.new_context().new_page()) as watched:
        page = watched.page
        page.goto(f"http://{house.operators}/")
        page.get_by_label("operator token").fill((house.state / "operator.token").read_text().strip())
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator("#link")).to_have_text("live")
        page.evaluate("window.same = true")
        yield page
        assert page.evaluate("window.same"), "it was loaded anew"


def go(page: Page, place: str) -> None:
    page.evaluate("place => { location.hash = place }", f"#{place}")


def test_a_host_appears_goes_and_comes_back_and_its_output_is_seen_live_while_the_hub_is_killed(
    house: House, page: Page
) -> None:
    row = page.locator(".row", has_text="web1")
    expect(row).to_have_count(0)
    folder = house.host("web1", {"talk": TALK})
    expect(row.locator(".presence")).to_contain_text("never")
    agent = house.start_agent(folder)
    expect(row.locator(".presence .pill")).to_have_text("online")
    agent.kill()
    agent.wait()
    expect(row.locator(".presence .pill")).to_have_text("offline")
    house.start_agent(folder)
    expect(row.locator(".presence .pill")).to_have_text("online")

    page.get_by_label("select web1").click()
    page.get_by_role("button", name="Command …").click()
    page.get_by_role("button", name="+ talk").click()
    page.get_by_role("button", name="Give the command").click()
    lines = page.locator(".lines > div:not(.note)")
    expect(lines.first).to_contain_text("line 1")
    before = house.pulse("hub").pid
    os.kill(before, signal.SIGKILL)
    expect(page.locator("#banner")).to_contain_text("The hub")
    expect(page.locator("#about")).to_contain_text("succeeded")
    expect(page.locator(".lines .end")).to_be_visible()
    assert house.pulse("hub").pid != before
    assert [text.strip() for text in lines.all_text_contents()] == [
        *(f"line {number}" for number in range(1, 13)),
        "and done",
    ]
    expect(lines.first.locator(".fg-2")).to_have_text("line 1")
    go(page, "host/web1")
    expect(page.locator("#comings")).to_contain_text("offline")
    expect(page.locator("#own")).to_contain_text("talk")


def test_a_frozen_hub_is_seen_judged_replaced_and_explained(house: House, page: Page) -> None:
    go(page, "watchdog")
    hub = page.get_by_role("article", name="hub")
    expect(hub.locator(".pill")).to_have_text("advancing")
    expect(page.locator("#verdict")).to_have_text("ok")
    chain = page.get_by_role("list", name="from the servers to the people")
    expect(chain).to_contain_text("advancing")
    expect(chain).to_contain_text(re.compile(r"events [\d,]+.*deliveries [\d,]+.*turns a second.*broadcasts [\d,]+"))
    chain.get_by_role("button", name="hub").press("Enter")
    expect(hub).to_be_focused()
    incidents = page.locator("#lately .item", has_text="take_a_lock_twice")
    expect(incidents).to_have_count(0)
    page.evaluate(STUCK)
    expect(page.locator("#banner")).to_contain_text("The hub was replaced")
    expect(incidents).to_contain_text("commands lost: 0")
    expect(incidents).to_contain_text("well again after")
    expect(hub.locator(".pill")).to_have_text("advancing")
    expect(page.locator("#banner")).to_be_hidden()
    incidents.click()
    expect(page.locator(".note.stuck")).to_contain_text("take_a_lock_twice")
    expect(page.locator("pre.code .guilty").first).to_contain_text("take_a_lock_twice")
    expect(page.locator(".story.lines")).to_contain_text("killed")
    page.locator("details").evaluate_all("all => all.forEach((each) => { each.open = true; })")
    assert page.evaluate(
        "document.getElementById('main').scrollWidth <= document.getElementById('main').clientWidth"
    ), "evidence is wide"
    expect(page.locator(".story.lines li").last).to_contain_text("well again")
    expect(page.locator("#verdict")).to_have_text("ok")
