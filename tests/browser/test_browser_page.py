"""The page in a real browser: what a person sees, and that nothing from a host is ever more than text."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import msgspec
import pytest
from doubles.operator_wire import FanoutHouse, HubPlay
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, expect, sync_playwright

from processes.core.command import Command, State
from processes.core.messages import Change, CreateToken, GiveCommand, Json, OutputGrew, RequestReceived

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
HOSTILE = '<img src=x onerror="window.pwned=1"><script>window.pwned=2</script>{{7*7}}\u202e&lt;b&gt;'
METRICS = {"cpu": 37.0, "ram": 82.5, "disk": 97.0, "load": 1.25}

pytestmark = pytest.mark.browser
T = TypeVar("T")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists() and "CI" not in os.environ:
        pytest.skip(f"{CHROMIUM} is not installed: apt-get install chromium")
    with sync_playwright() as play:
        found = play.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield found
        found.close()


class Stage:
    """A fanout and a played hub behind the page; the hub lives on a thread of its own."""

    def __init__(self) -> None:
        self.house = FanoutHouse()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Stage:
        self.house.__enter__()
        self._thread.start()
        self.hub = self.do(self._enter(1))
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.do(self.hub.__aexit__())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.house.__exit__()

    async def _enter(self, epoch: int) -> HubPlay:
        return await HubPlay(self.house, epoch).__aenter__()

    def do(self, what: Coroutine[Any, Any, T]) -> T:
        """Runs it beside the hub."""
        future: Future[T] = asyncio.run_coroutine_threadsafe(what, self._loop)
        return future.result(30)

    def host(self, name: str, **fields: Any) -> None:
        seen = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
        whole = {
            "last_seen": seen,
            "commands": ["pull", "switch"],
            "os_version": "Debian 12",
            "metrics": METRICS,
            "revoked": False,
            "host_type": "",
            **fields,
        }
        self.do(self.hub.host(name, **whole))

    def command(self, id: str, host: str, state: State, **fields: Any) -> None:
        row = {
            "id": id,
            "host": host,
            "op": "pull",
            "state": state,
            "reason": "",
            "message": "",
            "actor": "ann",
            "attempt": 1,
            "finished_at": None,
            **fields,
        }
        self.do(self.hub.change("command", id, **{"created_at": "2026-11-23T10:00:00.000Z", **row}))


class Watched:
    """A page whose console and dialogs are held against it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", self._asked)

    def _asked(self, dialog: Dialog) -> None:
        self.complaints.append(f"dialog {dialog.message}")
        dialog.dismiss()

    def _heard(self, message: ConsoleMessage) -> None:
        expected = "401" in message.text or "WebSocket" in message.text or "ERR_CONNECTION" in message.text or "ERR_EMPTY" in message.text
        if message.type in ("error", "warning") and not expected:
            self.complaints.append(message.text)


def sign_in(stage: Stage, browser: Browser, **context: Any) -> Watched:
    page = browser.new_context(**context).new_page()
    watched = Watched(page)
    page.goto(f"{stage.house.url}/#code={stage.house.code('secret-code')}")
    expect(page.locator("#link")).to_have_text("live")
    return watched


def picture(page: Page, name: str) -> None:
    folder = os.environ.get("FLEETHUB_PICTURES")
    if folder:
        page.screenshot(path=f"{folder}/{name}.png")


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_person_signs_in_by_the_link_sees_the_fleet_and_a_hosts_hostile_output_as_text(browser: Browser) -> None:
    with Stage() as stage:
        stage.host("web1")
        stage.host("web2", presence="stale")
        stage.host("db-<b>1</b>", presence="offline", os_version=HOSTILE, metrics=None)
        watched = sign_in(stage, browser)
        page = watched.page
        assert "code" not in page.url
        rows = page.locator("#hosts tr")
        expect(rows).to_have_count(3)
        expect(rows.filter(has_text="web1").locator(".pill")).to_have_text("online")
        expect(rows.filter(has_text="db-<b>1</b>")).to_contain_text(HOSTILE[:40])
        picture(page, "fleet")

        shown = HOSTILE.replace("\u202e", "\\u202e")  # seen, not obeyed
        lines = [HOSTILE, "ordinary", "</pre></div><h1>out</h1>"]
        connection = stage.house.database()
        stored = Command("c1", 1, "web1", "id", "pull", "ann", 1.0, 1.0, 2.0, 2.0, "boot", state=State.RUNNING, output_next=3)
        values = ("c1", "web1", "running", 1, msgspec.json.encode(stored).decode())
        connection.execute("INSERT INTO commands VALUES (1,?,?,?,?,1.0,NULL,?)", values)
        connection.executemany("INSERT INTO output VALUES ('c1',?,'stdout',?)", list(enumerate(lines)))
        stage.command("c1", "web1", State.RUNNING, message=HOSTILE)
        page.goto(f"{stage.house.url}/#commands/c1")
        expect(page.locator("#output span")).to_have_count(3)
        assert page.locator("#output").inner_text().split("\n")[:3] == [shown, *lines[1:]]
        expect(page.locator("#about dd").filter(has_text=shown)).to_have_count(1)
        ended = msgspec.structs.replace(stored, state=State.FAILED, output_next=4)
        connection.execute("INSERT INTO output VALUES ('c1',3,'stderr','the live line')")
        connection.execute("UPDATE commands SET record = ?, open = 0", (msgspec.json.encode(ended).decode(),))
        connection.close()
        stage.do(stage.hub.say(OutputGrew(1, "c1", 4, True)))
        stage.command("c1", "web1", State.FAILED, reason="exit", exit_code=3, finished_at="2026-11-23T10:00:01.000Z")
        expect(page.locator("#output .stderr")).to_have_text("the live line")
        expect(page.locator("#output .note")).to_contain_text("end of output")
        expect(page.locator("#about")).to_contain_text("failed")
        picture(page, "command")
        assert "[object" not in page.locator("body").inner_text()
        assert page.evaluate("window.pwned") is None
        assert page.locator("img[src=x], #output h1, #hosts b:text('1')").count() == 0
        assert watched.complaints == []

        page.goto(f"{stage.house.url}/#watchdog")
        expect(page.locator("#processes tr").filter(has_text="fanout")).to_contain_text("advancing")
        picture(page, "watchdog")
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        page.goto(f"{stage.house.url}/#code=secret-code")  # used up
        page.reload()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        picture(page, "signin")
        page.get_by_label("operator token").fill("the-installation-token")
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator("#link")).to_have_text("live")
        assert watched.complaints == []


def test_a_command_is_given_to_the_selected_hosts_after_asking_and_a_host_is_enrolled(browser: Browser) -> None:
    with Stage() as stage:
        for number in range(1, 4):
            stage.host(f"web{number}", commands=["pull", "switch"] if number < 3 else ["pull"])
        stage.host("pad", presence="offline")

        def answer(event: RequestReceived) -> tuple[int, dict[str, Any]]:
            if isinstance(event.request, GiveCommand):
                return 202, {"commands": [{"id": f"c-{host}"} for host in event.request.hosts]}
            assert not isinstance(event.request, CreateToken)
            return 201, {"name": "new1", "host_id": "id"}

        stage.hub.answer = answer
        watched = sign_in(stage, browser)
        page = watched.page
        page.get_by_label("find a host").fill("web")
        expect(page.locator("#hosts tr")).to_have_count(3)
        page.get_by_label("select web1").check()
        page.get_by_label("select web2").check()
        assert page.locator("#op option").all_text_contents() == ["pull", "switch"]
        page.get_by_label("select web3").check()
        expect(page.locator("#op option")).to_have_count(1)
        page.get_by_role("button", name="Run on 3").click()
        dialog = page.locator("dialog")
        expect(dialog).to_contain_text("web1, web2, web3")
        assert stage.hub.asked == []  # nothing before it is confirmed
        picture(page, "confirm")
        dialog.get_by_role("button", name="Run pull").click()
        expect(page.locator(".toast").first).to_contain_text("accepted for 3")
        given = stage.hub.asked[-1].request
        assert isinstance(given, GiveCommand)
        assert (given.op, given.hosts, len(given.key or "")) == ("pull", ["web1", "web2", "web3"], 32)

        page.get_by_role("button", name="Enrol a host").click()
        dialog.get_by_label("host name").fill("new1")
        dialog.get_by_role("button", name="Enrol").click()
        expect(dialog).to_contain_text("Token of new1")
        assert len(dialog.locator("p.mono").inner_text()) >= 43
        assert watched.complaints == []


def test_the_page_says_when_it_is_cut_off_and_heals_by_itself(browser: Browser) -> None:
    with Stage() as stage:
        stage.host("web1")
        watched = sign_in(stage, browser, viewport={"width": 390, "height": 800}, color_scheme="dark", device_scale_factor=2)
        page = watched.page
        expect(page.locator("#hosts tr")).to_have_count(1)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "wider than a phone"
        picture(page, "phone")
        stage.house.kill("fanout")
        expect(page.locator("#link")).to_have_text("not connected")
        expect(page.locator("#banner")).to_contain_text("Connection lost")
        stage.hub.rows.apply(Change("host", "web2", Json(b'{"name":"web2","presence":"online","last_seen":null,"commands":[]}')))
        stage.house.start("fanout")
        expect(page.locator("#link")).to_have_text("live", timeout=20_000)
        expect(page.locator("#hosts tr")).to_have_count(2)
        until(lambda: stage.hub.snapshots >= 2)
        assert watched.complaints == []
