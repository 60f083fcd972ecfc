"""The agent under supervisord, as in supervisord.conf: its place in the installation, and what outlives a stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from doubles.agent_process import AgentProcess, until
from doubles.hub_wire import TOKEN, HubWire

from processes.adapters.state import pulse_file
from processes.adapters.supervisor import Supervisor, SupervisorAway

PROGRAM = Path(__file__).resolve().parents[2].joinpath("supervisord.conf").read_text().partition("[program:agent]")[2]


@contextlib.contextmanager
def supervised(state: Path) -> Iterator[Supervisor]:
    """A real supervisord with the agent's own section of supervisord.conf, and only that."""
    for name in ("run", "log"):
        (state / name).mkdir(mode=0o700)
    conf = state / "test.conf"
    conf.write_text(
        f"[supervisord]\nnodaemon=true\nlogfile={state}/log/supervisord.log\npidfile={state}/run/supervisord.pid\nuser=root\n"
        f"[unix_http_server]\nfile={state}/run/supervisor.sock\n"
        "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
        f"[program:agent]\n{PROGRAM}"
    )
    environ = {key: value for key, value in os.environ.items() if not key.startswith("FLEETHUB_")}
    environ |= {"FLEETHUB_STATE": str(state), "FLEETHUB_PYTHON": sys.executable}
    daemon = subprocess.Popen(
        [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(conf)],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield Supervisor(state / "run" / "supervisor.sock")
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(20)


def answers(supervisor: Supervisor) -> bool:
    try:
        supervisor.poke()
    except SupervisorAway:
        return False
    return True


def test_command_outlives_a_stop_of_the_supervised_agent_and_is_reported_after_the_start() -> None:
    state = Path(tempfile.mkdtemp(prefix="fh"))
    go, runs = state / "go", state / "runs.txt"
    script = f"echo run >> {runs}; echo begun; while [ ! -e {go} ]; do sleep 0.02; done; echo done"

    async def scene() -> None:
        async with HubWire() as hub:
            agent = AgentProcess(state, hub.url, TOKEN, {"slow": ["/bin/sh", "-c", script]})
            with contextlib.ExitStack() as stack:
                stack.callback(agent.end_all)
                supervisor = stack.enter_context(supervised(state))
                await until(lambda: answers(supervisor), "supervisord")
                supervisor.start("agent")
                await hub.registered()
                await hub.command("slow", "c1")
                await hub.until(lambda: hub.output.get("c1"), "its output")
                await until(
                    lambda: (pulse := pulse_file.read(state / "run" / "pulse", "agent")) and pulse.connections == 1,
                    "its pulse",
                )
                assert "journal open" in (state / "log" / "agent.log").read_text()
                assert not (agent.state / "pulse").exists()
                assert (state / "run" / "lock" / "agent").exists()

                await asyncio.to_thread(supervisor.stop, "agent", True)
                assert supervisor.processes()["agent"].pid == 0
                await hub.until(lambda: hub.close_codes == [1001], "the agent's goodbye")
                assert not (agent.run_folder("c1") / "exit").exists()
                go.touch()
                await until((agent.run_folder("c1") / "exit").exists, "the command's own end")

                supervisor.start("agent")
                assert (await hub.report("c1"))["status"] == "ok"
                assert hub.lines("c1") == ["begun", "done"]
                assert runs.read_text().count("run") == 1

    asyncio.run(scene())
    shutil.rmtree(state)


def test_command_outlives_a_kill_of_supervisord_itself() -> None:
    state = Path(tempfile.mkdtemp(prefix="fh"))
    go = state / "go"
    script = f"echo begun; while [ ! -e {go} ]; do sleep 0.02; done"

    async def scene() -> None:
        async with HubWire() as hub:
            agent = AgentProcess(state, hub.url, TOKEN, {"slow": ["/bin/sh", "-c", script]})
            with contextlib.ExitStack() as stack:
                stack.callback(agent.end_all)
                supervisor = stack.enter_context(supervised(state))
                await until(lambda: answers(supervisor), "supervisord")
                supervisor.start("agent")
                await hub.registered()
                await hub.command("slow", "c1")
                await hub.until(lambda: hub.output.get("c1"), "its output")
                pid = supervisor.processes()["agent"].pid
                os.kill(int((state / "run" / "supervisord.pid").read_text()), signal.SIGKILL)
                await until(lambda: pulse_file.start_ticks(pid) is None, "the agent's end with its supervisord")
                go.touch()
                await until((agent.run_folder("c1") / "exit").exists, "the command's own end")

    asyncio.run(scene())
    shutil.rmtree(state)
