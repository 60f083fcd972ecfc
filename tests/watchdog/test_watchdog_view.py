"""What is shown when the watchdog is silent or gone: never nothing, never an exception, within a second."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import cast

import msgspec
import pytest

from processes.adapters.logs import Log
from processes.adapters.queues import Queues
from processes.adapters.settings import File, Settings
from processes.adapters.state import desired_state, fleet_db, pulse_file, reserved_file, status_file
from processes.adapters.state.pulse_file import PulseFile
from processes.adapters.supervisor import Supervisor
from processes.core.records.ledger import Ledger
from processes.core.shown.status import (
    SILENT_AFTER_S,
    CanaryReport,
    CommandsReport,
    FleetReport,
    IncidentsReport,
    Overall,
    ProcessReport,
    Report,
    Verdict,
)
from processes.core.travels import pulse
from processes.core.travels.pulse import Pulse
from processes.watchdog import status_writer
from processes.watchdog.incident_log import IncidentLog
from processes.watchdog.incident_store import Store
from processes.watchdog.inquiries import Inquiries
from processes.watchdog.process_reader import Subject
from processes.watchdog.status_writer import make_report


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "run").mkdir()
    return Settings(tmp_path, tmp_path / "x", File())


def written(settings: Settings, age_s: float, **fields: object) -> Report:
    values = {
        "verdict": Overall.OK, "epoch": 4, "processes": [], "canary": CanaryReport(True, 0.5, 3.0, 4,
        time.monotonic() - 0.5),
        "fleet": FleetReport(9, 9), "commands": CommandsReport(), "incidents": IncidentsReport(),
        "at_mono_s": time.monotonic() - age_s,
        "writer_pid": os.getpid(), "writer_start_ticks": pulse_file.start_ticks(os.getpid()),
    }  # fmt: skip
    report = Report(**{**values, **fields})  # type: ignore[arg-type]
    settings.report.write_bytes(msgspec.json.encode(report))
    return report


def rows(report: Report) -> dict[str, Verdict]:
    return {process.name: process.verdict for process in report.processes}


def test_a_fresh_report_is_handed_on_as_it_is(settings: Settings) -> None:
    report = written(settings, SILENT_AFTER_S - 1)
    assert status_file.current_report(settings) == report


def test_a_fresh_report_of_a_watchdog_that_is_gone_is_not(settings: Settings) -> None:
    """supervisord and all its children died this very moment: nobody is ok for the three seconds until the report is
    old.
    """
    ended = subprocess.Popen(["sleep", "600"])
    ticks = pulse_file.start_ticks(ended.pid)
    written(settings, 0.1, writer_pid=ended.pid, writer_start_ticks=ticks)
    assert status_file.current_report(settings).verdict is Overall.OK
    ended.kill()
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    assert status_file.current_report(settings).verdict is Overall.DOWN
    ended.wait()
    assert status_file.current_report(settings).verdict is Overall.DOWN
    written(settings, 0.1, writer_start_ticks=1)  # its pid is another's now
    assert status_file.current_report(settings).verdict is Overall.DOWN


@pytest.mark.parametrize("age_s", [SILENT_AFTER_S + 0.1, 1e6, -1e6])
def test_an_old_report_or_one_of_another_boot_is_not(settings: Settings, age_s: float) -> None:
    written(settings, age_s)
    report = status_file.current_report(settings)
    assert report.verdict is Overall.DOWN
    assert report.watchdog_silent_s is not None
    assert not report.canary.ok
    assert "the watchdog does not run" in report.reasons


def test_without_anything_all_is_down_and_only_the_agent_may_be(settings: Settings) -> None:
    report = status_file.current_report(settings)
    assert report.verdict is Overall.DOWN
    assert set(rows(report).values()) == {Verdict.DEAD, Verdict.STOPPED}
    assert rows(report)["agent"] is Verdict.STOPPED


@pytest.mark.parametrize("turns", [True, False], ids=["cannot write", "silent"])
def test_a_turning_house_under_a_silent_watchdog_is_degraded(settings: Settings, turns: bool) -> None:
    """Every pulse here is this very process's. The bug it would catch: a full disk is called a silent watchdog."""
    written(settings, SILENT_AFTER_S + 1, processes=[ProcessReport("hub", "RUNNING", 1, 1.0, 3, 1, Verdict.ADVANCING)])
    for name in ("queues", "hub", "gateway", "fanout", "watchdog"):
        file = PulseFile(settings.pulses, name)
        file.pulse.epoch, file.pulse.hosts, file.pulse.online = 4, 3, 2
        file.beat()
        file.close()
    if not turns:
        late = pulse_file.last(settings.pulses, "watchdog")
        assert late is not None
        late.written_ns -= int((SILENT_AFTER_S + 1) * 1e9)
        (settings.pulses / "watchdog").write_bytes(pulse.pack(late, 2) + pulse.pack(late, 3))
    report = status_file.current_report(settings)
    assert report.verdict is Overall.DEGRADED
    (found,) = report.troubles
    assert found.code in (("report_unwritten", "watchdog_new") if turns else ("silent",))  # this process may be young
    assert (report.watchdog_silent_s is None) == turns
    assert report.epoch == 4
    assert (report.fleet.hosts, report.fleet.online) == (3, 2)
    assert rows(report)["hub"] is Verdict.ADVANCING
    assert rows(report)["watchdog"] is (Verdict.ADVANCING if turns else Verdict.SILENT)
    hub = next(p for p in report.processes if p.name == "hub")
    assert (hub.pid, hub.restarts) == (os.getpid(), 3)  # as the watchdog counted them last
    assert hub.pulse is not None
    assert hub.pulse.turn == 1


def test_a_hub_that_does_not_turn_is_frozen_even_without_a_watchdog(settings: Settings) -> None:
    file = PulseFile(settings.pulses, "hub")
    file.beat()
    file.pulse.written_ns -= int(3e9)
    file.refuse(0, 0)  # no turn
    file.close()
    report = status_file.current_report(settings)
    assert rows(report)["hub"] is Verdict.FROZEN
    assert report.verdict is Overall.STALLED


def test_a_pulse_of_a_dead_process_is_dead(settings: Settings) -> None:
    code = (
        "import sys, pathlib; from processes.adapters.state import pulse_file\n"
        "pulse_file.PulseFile(pathlib.Path(sys.argv[1]), 'hub').beat()"
    )
    subprocess.run([sys.executable, "-c", code, str(settings.pulses)], check=True)
    assert pulse_file.read(settings.pulses, "hub") is not None
    assert rows(status_file.current_report(settings))["hub"] is Verdict.DEAD


@pytest.mark.parametrize("name", ["run/watchdog.json", "run/wanted.json", "run/pulse/hub", "fleet.db", "incidents.db"])
def test_garbage_anywhere_raises_nothing(settings: Settings, name: str) -> None:
    path = settings.state / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"\xff{garbage" * 100)
    assert status_file.current_report(settings).verdict is Overall.DOWN


def test_the_ledger_is_read_from_the_database(settings: Settings) -> None:
    connection = fleet_db.open_for_writing(settings.database)
    ledger = msgspec.json.encode(Ledger(3, succeeded=3)).decode()
    connection.execute("INSERT INTO meta VALUES ('epoch', '8'), ('ledger', ?)", (ledger,))
    connection.close()
    report = status_file.current_report(settings)
    assert report.commands == CommandsReport.of(Ledger(3, succeeded=3))
    assert report.epoch == 8


def test_a_locked_database_costs_the_ledger_alone(settings: Settings) -> None:
    connection = sqlite3.connect(settings.database, isolation_level=None)
    connection.execute("CREATE TABLE meta (key, value)")
    connection.execute("BEGIN EXCLUSIVE")
    report = status_file.current_report(settings)
    assert report.commands == CommandsReport.of(None)
    connection.close()


def test_what_cannot_be_read_is_not_known_and_never_none(settings: Settings) -> None:
    """Nothing is there yet: that is not the same as no command, no incident and no host."""
    report = status_file.current_report(settings)
    assert (report.commands.accepted, report.incidents.total, report.fleet.hosts) == (None, None, None)
    Store(settings.incidents_database, settings.evidence, 1, 1).totals()  # makes it
    assert status_file.current_report(settings).incidents == IncidentsReport(0)


def test_a_new_watchdogs_first_report_tells_nothing_that_it_has_not_read(settings: Settings) -> None:
    """The bug it would catch: after a kill of the watchdog, "commands: none" and "incidents: 0" for a second."""
    subjects = {"hub": Subject("hub", 1 << 30)}
    away = (cast("Supervisor", None), cast("Queues", None), cast("Log", None))  # nobody is asked anything here
    inquiries, log = Inquiries(settings, *away), IncidentLog(cast("Store", None), "boot", away[2])
    first = make_report([], CanaryReport(), inquiries, log.totals, subjects, began_s=0.0)
    assert (first.commands.accepted, first.incidents.total, first.fleet.hosts) == (None, None, None)
    inquiries.ledger = Ledger(3, succeeded=3)
    subjects["hub"].pulse = Pulse(written_ns=1, hosts=2)
    later = make_report([], CanaryReport(), inquiries, IncidentsReport(5, "a"), subjects, began_s=0.0)
    assert (later.commands.accepted, later.incidents.total, later.fleet.hosts) == (3, 5, 2)


def test_a_watchdog_that_began_a_moment_ago_accuses_nobody_of_what_it_has_not_seen(settings: Settings) -> None:
    """The bug it would catch: for 1.5 s after a kill of the watchdog `status` says "stalled: supervisord does not
    answer".
    """
    subjects = {"hub": Subject("hub", 1 << 30)}
    inquiries = Inquiries(settings, cast("Supervisor", None), cast("Queues", None), cast("Log", None))
    hub = ProcessReport("hub", "UNKNOWN", 7, 60.0, 0, 1, Verdict.ADVANCING)

    def said(age_s: float) -> tuple[Overall, list[str]]:
        began_s = time.monotonic() - age_s
        report = make_report([hub], CanaryReport(), inquiries, IncidentsReport(), subjects, began_s=began_s)
        return report.verdict, [each.code for each in report.troubles]

    assert said(0.5) == (Overall.DEGRADED, ["watchdog_new"])
    assert said(status_writer.ASKED_S + 0.5) == (Overall.DEGRADED, ["watchdog_new", "supervisord"])
    assert said(status_writer.NEW_S + 0.5) == (Overall.STALLED, ["canary", "supervisord"])


def test_a_report_on_a_full_disk_is_written_where_it_has_its_room_and_read_there(settings: Settings) -> None:
    before = written(settings, SILENT_AFTER_S + 1)
    fresh = msgspec.structs.replace(before, at_mono_s=time.monotonic(), reasons=["the disk is full"])
    fd = reserved_file.reserve(settings.report_reserve)
    reserved_file.write(fd, msgspec.json.encode(before))
    reserved_file.write(fd, msgspec.json.encode(fresh))
    assert status_file.current_report(settings) == fresh
    newest = written(settings, 0.0)
    assert status_file.current_report(settings) == newest, "the one that is written while there is room comes first"
    os.pwrite(fd, b"torn", 20)
    assert reserved_file.read(settings.report_reserve) is None
    with pytest.raises(OSError, match="do not fit"):
        reserved_file.write(fd, b"x" * reserved_file.BYTES)
    os.close(fd)


def test_the_desired_state_is_read_and_is_empty_without_a_file(settings: Settings) -> None:
    assert desired_state.read(settings) == {}
    settings.wanted.write_text('{"fanout": "stopped"}')
    assert desired_state.read(settings) == {"fanout": "stopped"}
    assert rows(status_file.current_report(settings))["fanout"] is Verdict.STOPPED
