"""What the verbs that start and stop processes wait for before they end."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import msgspec
import pytest
from doubles.deadline import WAIT_S

from processes.adapters.settings import File, Settings
from processes.adapters.state import desired_state, pulse_file
from processes.adapters.state.pulse_file import PulseFile
from processes.cli.machine import supervision
from processes.core.records.ledger import Ledger
from processes.core.shown.status import (
    CanaryReport,
    FleetReport,
    IncidentsReport,
    Overall,
    ProcessReport,
    Report,
    Verdict,
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = Settings(tmp_path, tmp_path / "x", File())
    for folder in (found.run / "lock", found.pulses):
        folder.mkdir(parents=True)
    return found


def says(settings: Settings, verdict: Verdict, *, wanted: bool, pid: int | None = None) -> None:
    """The watchdog's report of the agent, as if it were written now."""
    row = ProcessReport("agent", "RUNNING", pid, None, 0, None, verdict, wanted=wanted)
    report = Report(
        Overall.OK, 1, [row], CanaryReport(), FleetReport(), Ledger(), IncidentsReport(),
        at_mono_s=time.monotonic(), writer_pid=os.getpid(), writer_start_ticks=pulse_file.start_ticks(os.getpid()) or 0,
    )  # fmt: skip
    fresh = settings.report.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode(report))
    fresh.replace(settings.report)


def waits(settings: Settings) -> threading.Thread:
    thread = threading.Thread(target=supervision.wait_told, args=(settings, ["agent"]), daemon=True)
    thread.start()
    return thread


def test_a_start_waits_until_the_report_has_the_process_that_now_runs(settings: Settings) -> None:
    desired_state.change(settings, {"agent": desired_state.RUNNING})
    PulseFile(settings.pulses, "agent").beat()
    says(settings, Verdict.STOPPED, wanted=False)  # the report of a moment ago
    waiting = waits(settings)
    waiting.join(0.2)
    assert waiting.is_alive()
    says(settings, Verdict.ADVANCING, wanted=True, pid=os.getpid() + 1)  # its predecessor
    waiting.join(0.2)
    assert waiting.is_alive()
    says(settings, Verdict.ADVANCING, wanted=True, pid=os.getpid())
    waiting.join(WAIT_S)
    assert not waiting.is_alive()


def test_a_stop_waits_until_the_report_says_stopped(settings: Settings) -> None:
    desired_state.change(settings, {"agent": desired_state.STOPPED})
    says(settings, Verdict.ADVANCING, wanted=True, pid=os.getpid())
    waiting = waits(settings)
    waiting.join(0.2)
    assert waiting.is_alive()
    says(settings, Verdict.STOPPED, wanted=False)
    waiting.join(WAIT_S)
    assert not waiting.is_alive()


def test_a_report_that_never_comes_is_not_waited_for(settings: Settings) -> None:
    desired_state.change(settings, {"agent": desired_state.RUNNING})
    says(settings, Verdict.DEAD, wanted=True)
    supervision.wait_told(settings, ["agent"], wait_s=0.3)
    assert pulse_file.read(settings.pulses, "agent") is None
