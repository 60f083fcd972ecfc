"""What is wrong and what to do, as the page says it on top of every view."""

from __future__ import annotations

import re

from doubles.page_stage import Stage
from playwright.sync_api import Browser, expect

from processes.core.shown.status import HALTED, Overall
from processes.core.shown.troubles import TroubleCode, trouble
from processes.core.values import rfc3339


def test_what_is_wrong_stands_on_every_view_in_the_title_and_in_the_tabs_sign(browser: Browser, stage: Stage) -> None:
    stage.watchdog([])
    with stage.sign_in(browser) as watched:
        page, strip = watched.page, watched.page.locator("#wrong")
        expect(page.locator("#verdict")).to_have_text("ok")
        expect(strip).to_be_hidden()
        expect(page).to_have_title("Fleet · fleethub")
        expect(page.get_by_role("link", name="Incidents")).to_be_visible()
        expect(page.locator("#tab-deadletters")).to_be_hidden()

        storage = trouble(TroubleCode.STORAGE, "hub is blocked on storage: process 7 (sqlite3) holds fleet.db", "hub")
        more = [trouble(TroubleCode.CERTIFICATE, f"number {number}", str(number)) for number in range(3)]
        stage.watchdog([*more, storage], Overall.DEGRADED)
        first = strip.locator(".trouble").first
        expect(first).to_contain_text("process 7 (sqlite3) holds fleet.db")
        expect(first).to_contain_text("What to do: Make room on the disk (df), or end the program")
        expect(first).to_have_class(re.compile("bad"))
        expect(page).to_have_title("4 wrong · Fleet · fleethub")
        expect(page.locator("#favicon")).to_have_attribute("href", re.compile(r"/favicon-bad\.svg$"))
        assert page.evaluate("fetch(document.getElementById('favicon').href).then((answer) => answer.ok)")
        for view in ("commands", "runs", "conditions", "incidents", "account"):
            watched.go(view)
            expect(first).to_contain_text("holds fleet.db")
        expect(page.locator("#wrong-more")).to_have_text("and 2 more")
        page.set_viewport_size({"width": 390, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.set_viewport_size({"width": 1366, "height": 595})
        expect(page.locator("#wrong-more")).to_have_text("and 3 more")
        first.get_by_role("link", name="See the processes").click()
        expect(strip).to_be_hidden()
        expect(page.locator("#troubles .trouble")).to_have_count(4)
        expect(page.get_by_role("heading", level=2).first).to_have_text("What is wrong now")
        expect(page).to_have_title("4 wrong · Watchdog · fleethub")

        stage.watchdog([trouble(TroubleCode.QUIET, "the hub has not turned for 1.6 s", "hub")])
        expect(page.locator("#verdict")).to_have_text("hub quiet")
        expect(page).to_have_title("Watchdog · fleethub")
        expect(page.locator("#favicon")).to_have_attribute("href", re.compile(r"/favicon\.svg$"))
        stage.watchdog([])
        expect(page.locator("#troubles")).to_have_text("Nothing.")
        expect(page.locator("#verdict")).to_have_text("ok")


def test_an_incident_of_a_stopped_process_is_not_called_stuck_and_opens_the_evidence_that_says_something(
    browser: Browser, stage: Stage
) -> None:
    stage.watchdog([])
    shown = {
        "id": "i1", "process": "hub", "verdict": "frozen", "reason": f"no turn for 2.1 s: {HALTED}",
        "begun_at": rfc3339(1e9), "found_at": rfc3339(1e9), "over_at": rfc3339(1e9 + 3), "found_after_s": 2.0,
        "recovered_after_s": 3.0, "stuck_at": "asyncio/runners.py:118 run", "lost": 0, "remedy": "killed and replaced",
        "pid": 7, "epoch": 3, "drill": False, "events": [], "evidence": ["stacks.txt", "pyspy.txt"],
        "evidence_text": {
            "stacks.txt": "# not asked for: the process is stopped and takes no signals\n",
            "pyspy.txt": "Process 7:\nThread 7: MainThread\n    select (selectors.py:468)\n",
        },
    }  # fmt: skip
    with stage.sign_in(browser) as watched:
        watched.page.route("**/api/v1/incidents/i1", lambda route: route.fulfill(json=shown))
        page = watched.go("incident/i1")
        expect(page.locator(".note.stuck")).to_contain_text("stopped by a signal (SIGSTOP)")
        expect(page.locator("#incident")).not_to_contain_text("runners.py")
        expect(page.locator("details[open]")).to_have_count(1)
        expect(page.locator("details[open]")).to_contain_text("py-spy")
