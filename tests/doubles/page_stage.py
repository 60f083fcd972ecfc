"""The page on a stage: a real fanout, a hub that the test plays, and a browser whose every complaint is held against
the page.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import Future
from types import TracebackType
from typing import Any, TypeVar

import msgspec
from doubles.deadline import WAIT_S, until
from doubles.operator_wire import FanoutHouse, HubPlay
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, expect

from processes.adapters.state import durable
from processes.adapters.state.pulse_file import PulseFile, start_ticks
from processes.core.records.command import Command, State
from processes.core.records.run import HostPart, Part, Run
from processes.core.shown.replica import Replica
from processes.core.shown.status import (
    CanaryReport,
    CommandsReport,
    FleetReport,
    IncidentsReport,
    Overall,
    ProcessReport,
    PulseReport,
    Report,
    Verdict,
)
from processes.core.shown.troubles import Trouble
from processes.core.travels.messages import Change, HubStarted, Json

METRICS = {"cpu": 37.0, "ram": 82.5, "disk": 97.0, "load": 1.25}
T = TypeVar("T")


def seen_at(ago_s: float = 0.0) -> str:
    """A time as the API says it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(time.time() - ago_s))


class Stage:
    """A fanout and a played hub behind the page; the hub lives on a thread of its own, and its pulse beats."""

    def __init__(self) -> None:
        self.house = FanoutHouse()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._codes = 0
        self._report: Report | None = None

    def __enter__(self) -> Stage:
        self.house.__enter__()
        self._pulse = PulseFile(self.house.settings.pulses, "hub")
        self._thread.start()
        self.hub = self.do(self._enter())
        self._beating = asyncio.run_coroutine_threadsafe(self._beat(), self._loop)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._beating.cancel()
        self.do(self.hub.__aexit__())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._pulse.close()
        self.house.__exit__()

    async def _enter(self) -> HubPlay:
        return await HubPlay(self.house, 1).__aenter__()

    async def _beat(self) -> None:
        while True:
            self._pulse.beat()
            if self._report is not None:
                self._write_report(self._report)
            await asyncio.sleep(0.2)

    def do(self, what: Coroutine[Any, Any, T]) -> T:
        """Runs it beside the hub."""
        future: Future[T] = asyncio.run_coroutine_threadsafe(what, self._loop)
        return future.result(WAIT_S)

    def _write_report(self, report: Report) -> None:
        fresh = msgspec.structs.replace(report, at_mono_s=time.monotonic())
        durable.replace(self.house.settings.report, msgspec.json.encode(fresh), durable=False)

    def watchdog(self, troubles: list[Trouble], verdict: Overall = Overall.OK, *, hub: Verdict | None = None) -> None:
        """A watchdog reports this, until the scene changes. hub: the verdict on it."""
        pid = os.getpid()
        rows = [
            ProcessReport(name, "RUNNING", pid, 60.0, 0, 1 << 25, hub or Verdict.ADVANCING, pulse=PulseReport(turn=7))
            for name in ("queues", "hub", "gateway", "fanout", "watchdog")
        ]
        report = Report(
            verdict, 1, rows, CanaryReport(ok=True, age_s=0.5, epoch=1), FleetReport(), CommandsReport(),
            IncidentsReport(0), [each.text for each in troubles], troubles, writer_pid=pid,
            writer_start_ticks=start_ticks(pid) or 0,
        )  # fmt: skip
        self._report = report
        self._write_report(report)

    def clear(self) -> None:
        """Another scene: no hosts, no commands, no watchdog."""
        self._report = None
        self.house.settings.report.unlink(missing_ok=True)
        self.hub.rows = Replica()
        self.hub.answer = lambda _: (202, {"commands": []})
        self.renew()

    def renew(self) -> None:
        """The fanout takes all rows anew."""
        before = self.hub.snapshots
        self.do(self.hub.say(HubStarted(self.hub.epoch)))
        until(lambda: self.hub.snapshots > before)

    def host_row(self, name: str, **fields: Any) -> dict[str, Any]:
        """A host's row. Its heartbeats come hourly, so that it stays online however slow the test is."""
        own = {
            "name": name,
            "presence": "online",
            "last_seen": seen_at(),
            "commands": ["pull", "switch"],
            "os_version": "Debian 12",
        }
        return {**own, "metrics": METRICS, "revoked": False, "host_type": "", "heartbeat_interval_s": 3600.0, **fields}

    def host(self, name: str, **fields: Any) -> None:
        """A host is as told, and the page hears of it."""
        self.do(self.hub.change("host", name, **self.host_row(name, **fields)))

    def crowd(self, count: int) -> None:
        """So many hosts at once, in a snapshot."""
        for number in range(count):
            presence = ("online", "online", "online", "offline")[number % 4]
            metrics = {"cpu": number % 100, "ram": number * 7 % 100, "disk": number * 3 % 100, "load": number % 40 / 10}
            row = self.host_row(f"host{number}", presence=presence, metrics=metrics, host_type=f"type{number % 7}")
            self.hub.rows.apply(Change("host", f"host{number}", Json(msgspec.json.encode(row))))
        self.renew()

    def command(self, id: str, host: str, state: State, **fields: Any) -> None:
        """A command is as told."""
        row = {
            "id": id,
            "host": host,
            "op": "pull",
            "state": state,
            "reason": "",
            "message": "",
            "actor": "ann",
            "attempt": 1,
        }
        created = {"created_at": "2026-11-23T10:00:00.000Z", "finished_at": None}
        self.do(self.hub.change("command", id, **{**created, **row, **fields}))

    def stored(self, id: str, number: int, host: str, lines: list[str], state: State = State.RUNNING) -> None:
        """The command with its output is in the database."""
        with self.house.database() as connection:
            record = Command(
                id, number, host, "id", "pull", "ann", 1.0, 1.0, 2.0, 2.0, "boot", state=state, output_next=len(lines)
            )
            values = (number, id, host, str(state), int(record.open), 1.0, None, msgspec.json.encode(record).decode())
            connection.execute("INSERT OR REPLACE INTO commands VALUES (?,?,?,?,?,?,?,?)", values)
            rows = [(id, offset, "stdout", line) for offset, line in enumerate(lines)]
            connection.executemany("INSERT OR REPLACE INTO output VALUES (?,?,?,?)", rows)

    def run(self, run: Run, parts: list[HostPart]) -> None:
        """The run, with these parts of its hosts, is in the database."""
        with self.house.database() as connection:
            values = (run.number, run.id, int(run.open), run.finished_wall_s, msgspec.json.encode(run).decode())
            connection.execute("INSERT OR REPLACE INTO runs VALUES (?,?,?,?,?)", values)
            names = msgspec.json.encode([part.host for part in parts]).decode()
            connection.execute("INSERT OR REPLACE INTO run_hosts VALUES (?,?)", (run.id, names))
            begun = [part for part in parts if part.part not in (Part.PENDING, Part.NOT_ATTEMPTED)]
            rows = [
                (run.id, part.host, int(part.part is Part.ACTIVE), msgspec.json.encode(part).decode()) for part in begun
            ]
            connection.executemany("INSERT OR REPLACE INTO run_parts VALUES (?,?,?,?)", rows)

    def sign_in(self, browser: Browser, role: str = "admin", **context: Any) -> Watched:
        """A page of somebody of this role, live."""
        self._codes += 1
        watched = Watched(browser.new_context(**context).new_page())
        watched.page.goto(f"{self.house.url}/#code={self.house.code(f'code-{self._codes}', role=role)}")
        expect(watched.page.locator("#link")).to_have_text("live")
        return watched


class Watched:
    """A page whose console and dialogs are held against it."""

    # what a browser says of refusals, and of a server that is killed before or amid an answer
    EXPECTED = (
        "401", "403", "404", "409", "503", "504", "WebSocket", "ERR_CONNECTION", "ERR_EMPTY", "ERR_SOCKET",
        "ERR_INCOMPLETE", "ERR_CONTENT_LENGTH",
    )  # fmt: skip

    def __init__(self, page: Page) -> None:
        self.page = page
        page.set_default_timeout(WAIT_S * 1000)
        self.complaints: list[str] = []
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", self._asked)

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        self.page.context.close()
        if kind is None:
            assert self.complaints == [], self.complaints

    def go(self, place: str) -> Page:
        """The page shows the view of this name."""
        self.page.evaluate("place => { location.hash = place }", f"#{place}")
        return self.page

    def _asked(self, dialog: Dialog) -> None:
        self.complaints.append(f"dialog {dialog.message}")
        dialog.dismiss()

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not any(word in message.text for word in self.EXPECTED):
            self.complaints.append(message.text)
