"""supervisord's XML-RPC against a real supervisord."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from doubles.deadline import WAIT_S

from processes.adapters.supervisor import (
    Supervisor,
    SupervisorAway,
    SupervisorFault,
    contract_name,
    supervisor_name,
)

CONF = """
[supervisord]
logfile={state}/supervisord.log
pidfile={state}/supervisord.pid
nodaemon=true
[unix_http_server]
file={state}/s.sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[program:hub]
command=sleep 600
startsecs=0
autorestart=true
[fcgi-program:gateway]
socket=unix://{state}/gateway.sock
command=sleep 600
process_name=gateway_%(process_num)d
numprocs=2
startsecs=0
[fcgi-program:fanout]
socket=unix://{state}/fanout.sock
command=sleep 600
process_name=fanout_%(process_num)d
numprocs=3
startsecs=0
"""


def until(what: Callable[[], object], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)  # between two looks


@pytest.fixture(scope="module")
def installed() -> Iterator[tuple[Supervisor, subprocess.Popen[bytes]]]:
    state = Path(tempfile.mkdtemp(prefix="fh"))
    (state / "s.conf").write_text(CONF.format(state=state))
    program = Path(sys.executable).parent / "supervisord"
    child = subprocess.Popen(
        [program, "-n", "-c", state / "s.conf"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    supervisor = Supervisor(state / "s.sock", timeout_s=1.0)

    def running() -> bool:
        try:
            return all(p.state == "RUNNING" for p in supervisor.processes().values())
        except SupervisorAway:
            return False

    until(running)
    yield supervisor, child
    child.terminate()
    child.wait(WAIT_S)
    shutil.rmtree(state)


Installed = tuple[Supervisor, "subprocess.Popen[bytes]"]


def test_processes_have_the_contracts_names_and_holders_have_none(installed: Installed) -> None:
    found = installed[0].processes()
    assert set(found) == {"hub", "gateway", "fanout:0", "fanout:1"}
    assert all(info.pid > 0 and info.started_wall_s > 0 for info in found.values())


def test_a_killed_process_is_replaced_as_soon_as_supervisord_is_poked(installed: Installed) -> None:
    supervisor, _ = installed
    for name in ("hub", "gateway", "fanout:1"):
        pid = supervisor.processes()[name].pid
        supervisor.kill(name)

        def replaced(name: str = name, pid: int = pid) -> bool:
            supervisor.poke()
            return supervisor.processes()[name].pid not in (0, pid)

        until(replaced)


def test_a_stopped_process_stays_stopped_until_it_is_started(installed: Installed) -> None:
    supervisor, _ = installed
    supervisor.stop("hub", wait=True)
    info = supervisor.processes()["hub"]
    assert (info.state, info.pid) == ("STOPPED", 0)
    with pytest.raises(SupervisorFault) as refused:
        supervisor.kill("hub")
    assert refused.value.code == 70  # NOT_RUNNING
    supervisor.start("hub")
    until(lambda: supervisor.processes()["hub"].state == "RUNNING")
    with pytest.raises(SupervisorFault) as refused:
        supervisor.start("hub")
    assert refused.value.code == 60  # ALREADY_STARTED


def test_an_unknown_name_is_a_fault(installed: Installed) -> None:
    with pytest.raises(SupervisorFault) as refused:
        installed[0].start("nobody")
    assert refused.value.code == 10  # BAD_NAME


def test_a_supervisord_that_is_stopped_costs_the_deadline_and_no_more(installed: Installed) -> None:
    supervisor, child = installed
    os.kill(child.pid, signal.SIGSTOP)
    try:
        with pytest.raises(SupervisorAway):
            supervisor.processes()
    finally:
        os.kill(child.pid, signal.SIGCONT)
    until(lambda: supervisor.processes()["hub"].state == "RUNNING")


def test_no_supervisord_is_away_at_once(tmp_path: Path) -> None:
    with pytest.raises(SupervisorAway, match="does not answer"):
        Supervisor(tmp_path / "none").poke()


@pytest.mark.parametrize(
    ("name", "theirs", "members"),
    [
        ("hub", "hub:hub", 1),
        ("gateway", "gateway:gateway_1", 2),
        ("gateway:0", "gateway:gateway_1", 3),
        ("fanout:7", "fanout:fanout_8", 9),
    ],
)
def test_names_go_both_ways(name: str, theirs: str, members: int) -> None:
    assert supervisor_name(name) == theirs
    group, _, process = theirs.partition(":")
    assert contract_name(group, process, members) == name


def test_a_holder_has_no_name() -> None:
    assert contract_name("gateway", "gateway_0", 2) is None
