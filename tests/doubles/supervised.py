"""A small installation under a real supervisord: frozen_process.py as queues and hub, the real watchdog, the canary's
house in the test.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from doubles.canary_house import CanaryHouse, running
from doubles.deadline import WAIT_S

from processes.adapters import settings
from processes.adapters.settings import Settings
from processes.adapters.state import desired_state, incidents_db, status_file
from processes.adapters.supervisor import Supervisor
from processes.core.shown.status import IncidentView, ProcessReport, Report

FROZEN = Path(__file__).parent / "frozen_process.py"
NOT_HERE = {"gateway": desired_state.STOPPED, "fanout": desired_state.STOPPED}
T = TypeVar("T")

CONF = """
[supervisord]
logfile={state}/log/supervisord.log
pidfile={state}/run/supervisord.pid
nodaemon=true
[unix_http_server]
file={state}/run/supervisor.sock
chmod=0600
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""
PROGRAM = """
[program:{name}]
command={command}
autorestart=true
startsecs=1
startretries=5
stopwaitsecs=6
redirect_stderr=true
stdout_logfile={state}/log/{name}.out
"""


class Supervised:
    """The installation, and what a test asks of it."""

    def __init__(self, found: Settings, supervisord: subprocess.Popen[bytes], house: CanaryHouse) -> None:
        self.settings, self.supervisord, self.house = found, supervisord, house
        self.supervisor = Supervisor(found.supervisor_socket)

    def report(self) -> Report:
        """The newest."""
        return status_file.current_report(self.settings)

    def process(self, name: str) -> ProcessReport:
        """A row of the newest report."""
        return next(p for p in self.report().processes if p.name == name)

    def incidents(self) -> list[IncidentView]:
        """Newest first."""
        return incidents_db.incidents(self.settings.incidents_database)

    def fault(self, name: str, word: str) -> None:
        """The process freezes at its next turn."""
        fresh = self.settings.state / f".fault-{name}"
        fresh.write_text(word)
        fresh.replace(self.settings.state / f"fault-{name}")

    def want(self, **wanted: str) -> None:
        """Says what the operator wants of the processes."""
        desired_state.replace(self.settings, {**NOT_HERE, **wanted})


def wait_for(what: Callable[[], T], timeout_s: float = WAIT_S) -> T:
    """The first true value of `what`. Raises: AssertionError, when there is none in time."""
    deadline = time.monotonic() + timeout_s
    while not (found := what()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.01)  # between two looks
    return found


@contextlib.contextmanager
def supervised(programs: tuple[str, ...] = ("queues", "hub", "watchdog"), **environment: str) -> Iterator[Supervised]:
    """The installation from its start to its end; nothing of it lives on."""
    state = Path(tempfile.mkdtemp(prefix="fh"))
    for folder in ("run", "log"):
        (state / folder).mkdir(mode=0o700)
    with running(CanaryHouse(settings.load({"FLEETHUB_STATE": str(state)}).canary)) as house:
        environ = {
            **{key: value for key, value in os.environ.items() if not key.startswith("FLEETHUB_")},
            "FLEETHUB_STATE": str(state),
            "FLEETHUB_DRILLS_ENABLED": "true",
            "FLEETHUB_MEMORY_HUB_MB": "200",
            "FLEETHUB_AGENTS_LISTEN": f"127.0.0.1:{house.agents_port}",
            "FLEETHUB_OPERATORS_LISTEN": f"127.0.0.1:{house.operators_port}",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            **environment,
        }
        conf = CONF.format(state=state)
        for name in programs:
            command = (
                f"{sys.executable} -m processes.watchdog" if name == "watchdog" else f"{sys.executable} {FROZEN} {name}"
            )
            conf += PROGRAM.format(name=name, command=command, state=state)
        (state / "supervisord.conf").write_text(conf)
        desired_state.replace(settings.load(environ), NOT_HERE)
        program = Path(sys.executable).parent / "supervisord"
        output = (state / "supervisord.out").open("wb")
        child = subprocess.Popen(
            [program, "-n", "-c", state / "supervisord.conf"], env=environ, stdout=output, stderr=output
        )
        output.close()
        try:
            yield Supervised(settings.load(environ), child, house)
        finally:
            child.send_signal(signal.SIGCONT)
            child.terminate()
            try:
                child.wait(WAIT_S)
            except subprocess.TimeoutExpired:
                child.kill()  # its children die with it
                child.wait(WAIT_S)
            shutil.rmtree(state, ignore_errors=True)
