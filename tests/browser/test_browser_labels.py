"""Labels and queries on the page: shown, edited in bulk, and what is wrong with a query where it is."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from doubles.deadline import until
from doubles.page_stage import Stage
from playwright.sync_api import Browser, expect

from processes.core.records.saved_query import SavedQuery
from processes.core.travels.messages import LabelHosts, RemoveQuery, RequestReceived, SaveQuery, StartRun

pytestmark = pytest.mark.browser


def test_labels_are_shown_and_edited_in_bulk_and_a_run_says_by_which_query(browser: Browser, stage: Stage) -> None:
    for number, rack in enumerate(("b4", "b4", "c1")):
        labels = {"rack": rack, "role": "web"}
        stage.host(f"web{number}", labels=labels, agent_labels={"site": "<i>graz</i>"}, facts={}, heartbeat_facts={})

    def answer(event: RequestReceived) -> tuple[int, dict[str, Any]]:
        if isinstance(event.request, LabelHosts) and "Bad" in event.request.set:
            return 409, {"error": "malformed", "message": "'Bad' is no key of a label"}
        return (202, {"id": "run-1"}) if isinstance(event.request, StartRun) else (200, {"hosts": [], "changed": 2})

    stage.hub.answer = answer
    with stage.sign_in(browser) as watched:
        page, dialog = watched.page, watched.page.locator("dialog")
        find, error = page.get_by_role("searchbox", name="find hosts"), page.locator("#query-error")
        shown = page.locator(".rows .row")
        expect(shown).to_have_count(3)
        expect(shown.first).to_contain_text("Debian 12 · rack=b4 role=web")

        find.fill("rack=b4 site=")
        expect(error).to_contain_text("site= has nothing after it: write site=* for every host that has one")
        expect(error.locator("mark")).to_have_text("site=")
        expect(find).to_have_attribute("aria-invalid", "true")
        expect(shown).to_have_count(2)
        find.fill("rack=b4 !offline since<1h")
        expect(shown).to_have_count(0)
        find.fill("rack=b4 !offline")
        expect(error).to_be_empty()
        expect(find).to_have_attribute("aria-invalid", "false")
        expect(shown).to_have_count(2)

        page.get_by_label("select all shown").check()
        page.get_by_role("button", name="Labels …").click()
        dialog.get_by_role("button", name="remove rack=b4").click()
        expect(dialog.get_by_label("labels", exact=True)).to_have_value("rack-")
        dialog.get_by_label("labels", exact=True).fill("rack- Bad=1")
        dialog.get_by_role("button", name="Change them on 2 hosts").click()
        expect(dialog).to_contain_text("'Bad' is no key of a label")
        dialog.get_by_label("labels", exact=True).fill("oops")
        dialog.get_by_role("button", name="Change them on 2 hosts").click()
        expect(dialog).to_contain_text("Type labels as role=web")
        dialog.get_by_label("labels", exact=True).fill("rack- env=prod")
        dialog.get_by_role("button", name="Change them on 2 hosts").click()
        expect(dialog).to_be_hidden()
        assert stage.hub.requests[-1] == LabelHosts(["web0", "web1"], {"env": "prod"}, ["rack"], "rack=b4 !offline")

        page.get_by_role("button", name="Command …").click()
        dialog.get_by_role("button", name="+ pull").click()
        dialog.get_by_role("button", name="Run on 2 hosts").click()
        until(lambda: isinstance(stage.hub.requests[-1], StartRun))
        asked = stage.hub.requests[-1]
        assert isinstance(asked, StartRun)
        assert (asked.hosts, asked.query) == (["web0", "web1"], "rack=b4 !offline")
        expect(dialog).to_be_hidden()  # as the answer comes the page goes to the run

        watched.go("host/web2")
        expect(page.locator("#said")).to_contain_text("rack=c1 role=web")
        expect(page.locator("#said dd").filter(has_text="site=<i>graz</i>")).to_have_count(1)


def test_queries_are_saved_used_and_forgotten(browser: Browser, stage: Stage) -> None:
    stage.host("web1", labels={"role": "web"})
    stage.host("db1", labels={"role": "db"})
    saved = msgspec.json.encode(SavedQuery("dbs", "role=db", "ann", 1.0)).decode()
    with stage.house.database() as connection:
        connection.execute("INSERT OR REPLACE INTO queries VALUES ('dbs', ?)", (saved,))
    stage.hub.answer = lambda event: (
        (200, {"name": "dbs", "removed": True}) if isinstance(event.request, RemoveQuery) else (200, {"name": "webs"})
    )
    with stage.sign_in(browser) as watched:
        page, dialog = watched.page, watched.page.locator("dialog")
        find = page.get_by_role("searchbox", name="find hosts")
        find.fill("role=web")
        page.get_by_role("button", name="Queries …").click()
        dialog.get_by_label("name", exact=True).fill("webs")
        dialog.get_by_role("button", name="Save").click()
        expect(dialog).to_be_hidden()
        assert stage.hub.requests[-1] == SaveQuery("webs", "role=web")
        page.get_by_role("button", name="Queries …").click()
        dialog.get_by_role("button", name="@dbs", exact=True).click()
        expect(dialog).to_be_hidden()
        expect(find).to_have_value("role=db")
        expect(page.locator(".rows .row")).to_contain_text(["db1"])
        page.get_by_role("button", name="Queries …").click()
        dialog.get_by_role("button", name="forget @dbs").click()
        until(lambda: isinstance(stage.hub.requests[-1], RemoveQuery))
