"""The watchdog's word to systemd, heard on a real datagram socket in its place, under a real supervisord; and its
alarms from there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import structlog
from doubles.alarm_ends import Webhook, webhook
from doubles.supervised import Supervised, supervised, wait_for

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
from processes.watchdog.systemd import Systemd

LOG = structlog.stdlib.get_logger("fleethub.test")


class Listener:
    """systemd's end: a datagram socket, and what came."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(path))
        self.heard: list[str] = []

    def hear(self) -> list[str]:
        """All that came so far."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.heard += self._socket.recv(4096).decode().splitlines()
        return self.heard

    def pings(self) -> int:
        """How many."""
        return self.hear().count("WATCHDOG=1")

    def close(self) -> None:
        """Gone."""
        self._socket.close()


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    found = Listener(tmp_path / "notify")
    yield found
    found.close()


def report(verdict: Verdict = Verdict.ADVANCING, silent_s: float | None = None) -> Report:
    hub = ProcessReport("hub", "RUNNING", 1, 1.0, 0, None, verdict)
    return Report(
        Overall.OK,
        1,
        [hub],
        CanaryReport(ok=True),
        FleetReport(2, 1),
        CommandsReport(),
        IncidentsReport(),
        supervisord_silent_s=silent_s,
    )


def test_words_are_those_of_sd_notify(listener: Listener) -> None:
    systemd = Systemd(LOG, {"NOTIFY_SOCKET": str(listener.path)})
    systemd.look(report(), 0, 100.0)
    assert listener.hear() == ["READY=1", "STATUS=ok; 1 of 2 hosts online", "WATCHDOG=1"]
    systemd.look(report(silent_s=40.0), 0, 102.0)
    assert listener.hear()[3:] == ["STATUS=no longer answered for: supervisord is mute for 30 s"]
    systemd.close()


def test_without_systemd_nothing_is_said_and_nothing_fails() -> None:
    Systemd(LOG, {}).look(report(), 0, 100.0)


def test_systemd_that_hangs_or_is_gone_costs_no_turn(listener: Listener) -> None:
    systemd = Systemd(LOG, {"NOTIFY_SOCKET": str(listener.path)})
    for second in range(2000):  # far more than its queue holds
        systemd.look(report(), 0, float(second))
    assert 0 < listener.pings() < 2000
    listener.close()
    listener.path.unlink()
    systemd.look(report(), 0, 5000.0)
    systemd.close()


@pytest.fixture(scope="module")
def ends() -> Iterator[tuple[Supervised, Listener, Webhook]]:
    with webhook() as hook:
        folder = Path(f"/tmp/fhn{os.getpid()}")
        folder.mkdir(mode=0o700)
        listener = Listener(folder / "notify")
        try:
            with supervised(
                NOTIFY_SOCKET=str(listener.path), WATCHDOG_USEC="60000000", FLEETHUB_ALARMS_URLS=hook.url
            ) as house:
                yield house, listener, hook
        finally:
            listener.close()
            listener.path.unlink()
            folder.rmdir()


@pytest.mark.house
def test_watchdog_under_supervisord_says_ready_once_and_pings_while_it_turns(
    ends: tuple[Supervised, Listener, Webhook],
) -> None:
    house, listener, _ = ends
    wait_for(lambda: listener.pings() >= 3)
    wait_for(lambda: "READY=1" in listener.hear())
    watchdog = psutil.Process(int((house.settings.run / "lock" / "watchdog").read_text()))
    watchdog.send_signal(signal.SIGSTOP)
    wait_for(lambda: watchdog.status() == psutil.STATUS_STOPPED)
    before = listener.pings()
    wait_for(lambda: (house.report().watchdog_silent_s or 0) >= 3)
    assert house.process("watchdog").verdict is Verdict.SILENT
    assert house.report().verdict is not Overall.OK
    assert listener.pings() == before
    watchdog.send_signal(signal.SIGCONT)
    wait_for(lambda: listener.pings() > before)
    assert listener.hear().count("READY=1") == 1


@pytest.mark.house
def test_killed_hub_is_alarmed_once_and_a_killed_watchdog_does_not_repeat_it(
    ends: tuple[Supervised, Listener, Webhook],
) -> None:
    house, listener, hook = ends
    wait_for(lambda: house.report().verdict is Overall.OK)
    assert not [title for title in hook.titles if "hub dead" in title]
    os.kill(int(house.process("hub").pid or 0), signal.SIGKILL)
    wait_for(lambda: any("over: hub dead" in title for title in hook.titles))
    wait_for(lambda: b'"events":[]' in house.settings.alarms.read_bytes())
    before, watchdog = len(hook.got), house.process("watchdog").pid
    os.kill(int(watchdog or 0), signal.SIGKILL)
    pings = listener.pings()
    wait_for(lambda: house.report().verdict is Overall.OK and house.process("watchdog").pid not in (None, watchdog))
    wait_for(lambda: listener.pings() >= pings + 3)
    assert len(hook.got) == before
    for path in house.settings.log.iterdir():
        assert "s3cret" not in path.read_text(errors="replace")
