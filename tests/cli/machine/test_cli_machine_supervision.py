"""What the verbs that start and stop processes wait for before they end."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from doubles.deadline import WAIT_S

from processes.adapters.settings import File, Settings
from processes.adapters.state import desired_state, pulse_file
from processes.adapters.state.pulse_file import PulseFile
from processes.cli.checks import machine, state_folder
from processes.cli.machine import replacement, supervision
from processes.cli.terminal.failure import Failure
from processes.core.shown.status import (
    CanaryReport,
    CommandsReport,
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
        Overall.OK, 1, [row], CanaryReport(), FleetReport(), CommandsReport(), IncidentsReport(),
        at_mono_s=time.monotonic(), writer_pid=os.getpid(), writer_start_ticks=pulse_file.start_ticks(os.getpid()) or 0,
    )  # fmt: skip
    fresh = settings.report.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode(report))
    fresh.replace(settings.report)


@pytest.fixture
def living(settings: Settings) -> Iterator[Path]:
    """Somebody listens on supervisord's socket, and no process that this user can see runs for the folder."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(settings.supervisor_socket))
        server.listen(8)
        yield settings.supervisor_socket


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


def test_what_a_living_supervisord_listens_on_is_not_removed_though_nobody_sees_it(
    settings: Settings, living: Path
) -> None:
    """The bug it would catch: another user's `down` leaves the installation without its socket and its pid file."""
    with pytest.raises(Failure, match=f"process {os.getpid()} of .* answers at") as caught:
        supervision.end_all(settings)
    assert caught.value.code == "running_elsewhere"
    with pytest.raises(Failure, match="is in use"):
        supervision.launch(settings, [])
    with pytest.raises(Failure, match="is in use"):
        supervision.launch_in_foreground(settings, [])
    assert living.exists()
    with contextlib.ExitStack() as stack:
        for _ in range(20):  # its backlog is full now
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(str(living))
        assert supervision.somebody_answers(settings)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("sys.exit('Error: the port is taken\\nFor help, use -h')", "Error: the port is taken"),
        ("raise FileNotFoundError(2, 'No usable temporary directory')", r"FileNotFoundError: .* No usable temporary"),
        ("sys.exit(3)", "exit code 3"),
    ],
)
def test_why_supervisord_did_not_start_is_told_by_its_own_words(settings: Settings, code: str, told: str) -> None:
    """The bug it would catch: on a read-only root without /tmp all that was said was "Traceback"."""
    with pytest.raises(Failure, match=f"supervisord did not start: {told}"):
        supervision.launch(settings, [sys.executable, "-c", f"import sys; {code}"])


def test_what_a_killed_supervisord_left_is_removed(settings: Settings) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(settings.supervisor_socket))
    assert settings.supervisor_socket.exists()
    assert supervision.end_all(settings) is False
    assert not settings.supervisor_socket.exists()
    assert not supervision.somebody_answers(settings)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look into a folder that is another user's alone")
def test_another_users_installation_is_told_and_left_alone(settings: Settings, living: Path) -> None:
    os.chown(settings.state, 12345, 12345)
    doors: list[Callable[[], object]] = [
        lambda: supervision.end_all(settings),
        lambda: supervision.supervisor_of(settings),
        lambda: supervision.stop(settings, "hub"),
        lambda: supervision.start(settings, "hub"),
        lambda: replacement.standing_still(settings).__enter__(),
    ]
    for enter in doors:
        with pytest.raises(Failure, match="belongs to user 12345 and runs, and this is root") as caught:
            enter()
        assert "sudo -u '#12345' " in caught.value.advice
    assert living.exists()
    assert list((settings.run / "lock").iterdir()) == []
    told = [finding.found for check in (machine.ports, state_folder.processes) for finding in check(settings, False)]
    assert not [text for text in told if "nothing runs" in text or "taken by" in text], told
    living.unlink()
    with pytest.raises(Failure, match="belongs to user 12345, and this is root"):
        supervision.end_all(settings)
