"""The agent's unit for systemd: what is killed when the agent is restarted under it, and that commands are not.

There is no systemd here: `restart` does what systemd.kill(5) says for the unit's own words, to the processes that would
be in its cgroup: the agent, and all that descends from it.
"""

from __future__ import annotations

import asyncio
import configparser
import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import psutil
import pytest
from doubles.agent_process import AgentProcess, agent_process, until
from doubles.hub_wire import TOKEN, HubWire

from processes.agent.runner import clean_environment
from processes.cli.terminal.failure import Failure
from processes.cli.verbs.systemd_unit import agent_unit

Claim = Callable[["Unit", HubWire, AgentProcess], Coroutine[Any, Any, None]]


class Unit:
    """A unit's words, and what systemd does by them."""

    def __init__(self, text: str) -> None:
        parser = configparser.ConfigParser(interpolation=None, strict=True)
        parser.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's keys have capitals
        parser.read_string(text)
        self.service = parser["Service"]

    @property
    def argv(self) -> list[str]:
        """What ExecStart runs."""
        words = shlex.split(self.service["ExecStart"])
        return [word.replace("%%", "%").replace("$$", "$") for word in words]

    def stop(self, agent: psutil.Process, cgroup: list[psutil.Process]) -> None:
        """The main process gets KillSignal and, overdue, SIGKILL; the rest of the cgroup only under control-group."""
        others = cgroup if self.service.get("KillMode", "control-group") == "control-group" else []
        for process in (agent, *others):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(getattr(signal, self.service.get("KillSignal", "SIGTERM")))
        for process in psutil.wait_procs([agent, *others], float(self.service["TimeoutStopSec"]))[1]:
            process.kill()

    async def restart(self, agent: AgentProcess) -> None:
        """`systemctl restart` of the unit."""
        assert agent.process is not None
        main = psutil.Process(agent.process.pid)
        await asyncio.to_thread(self.stop, main, main.children(recursive=True))
        agent.process.wait()
        self.start(agent)

    def start(self, agent: AgentProcess) -> None:
        """ExecStart, as systemd starts it: not our child's environment, and not our folder."""
        with agent.log.open("ab") as log:
            agent.process = subprocess.Popen(
                self.argv,
                cwd="/",
                env={"PATH": os.defpath},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


def play(home: Path, commands: dict[str, Any], claim: Claim, change: Callable[[str], str] = lambda text: text) -> None:
    """A hub, and an agent that runs by the unit."""

    async def scene() -> None:
        async with HubWire() as hub, agent_process(home, hub.url, TOKEN, commands) as agent:
            await hub.registered()
            await claim(Unit(change(agent_unit(Path(sys.executable), agent.config))), hub, agent)

    asyncio.run(scene())


def counting(home: Path, rest: str) -> list[str]:
    return ["/bin/sh", "-c", f"echo run >> {home}/runs.txt; {rest}"]


def runs(home: Path) -> int:
    return len((home / "runs.txt").read_text().splitlines())


WAITS = "echo before; while [ ! -e {0}/go ]; do sleep 0.02; done; echo after"


def test_command_lives_through_a_restart_of_its_agents_unit_and_is_reported(tmp_path: Path) -> None:
    async def claim(unit: Unit, hub: HubWire, agent: AgentProcess) -> None:
        await hub.command("long", "c1")
        await hub.until(lambda: hub.output.get("c1"), "its first line")
        await unit.restart(agent)
        await hub.registered(2)
        assert "c1" not in hub.reports
        (tmp_path / "go").touch()
        report = await hub.report("c1")
        assert (report["status"], report["exit_code"]) == ("ok", 0)
        assert hub.lines("c1") == ["before", "after"]
        assert runs(tmp_path) == 1

    play(tmp_path, {"long": counting(tmp_path, WAITS.format(tmp_path))}, claim)


def test_with_systemds_default_the_command_would_have_died(tmp_path: Path) -> None:
    """The rehearsal above can fail: by the same steps, but for one word of the unit, it does."""

    async def claim(unit: Unit, hub: HubWire, agent: AgentProcess) -> None:
        await hub.command("long", "c1")
        await hub.until(lambda: hub.output.get("c1"), "its first line")
        await unit.restart(agent)
        report = await hub.report("c1")
        assert (report["status"], runs(tmp_path)) == ("error", 1)

    def change(text: str) -> str:
        assert "\nTimeoutStopSec=10\n" in text
        return text.replace("\nKillMode=process\n", "\n").replace("\nTimeoutStopSec=10\n", "\nTimeoutStopSec=3\n")

    play(tmp_path, {"long": counting(tmp_path, WAITS.format(tmp_path))}, claim, change)


def test_switch_that_replaces_its_own_agent_succeeds_once(tmp_path: Path) -> None:
    """A `switch` restarts the unit of the agent that runs it, waits until the new one stands, and exits 0."""

    async def claim(unit: Unit, hub: HubWire, agent: AgentProcess) -> None:
        assert unit.service["KillMode"] == "process"
        assert agent.process is not None
        old = agent.process
        (tmp_path / "pid").write_text(str(old.pid))
        (tmp_path / "start").write_text(shlex.join(unit.argv))
        await hub.command("switch", "c1")
        await until(lambda: old.poll() is not None, "the old agent's end")
        await hub.registered(2)
        try:
            report = await hub.report("c1")
            assert (report["status"], report["exit_code"]) == ("ok", 0)
            assert hub.lines("c1") == ["switching", "switched"]
            await hub.command("switch", "c1", attempt=2)
            await hub.until(lambda: hub.of("command_ack", "c1")[-1]["state"] == "duplicate", "the journal's answer")
            assert runs(tmp_path) == 1
        finally:
            new = psutil.Process(int((tmp_path / "pid").read_text()))
            new.kill()
            new.wait()

    script = (
        f"cd {tmp_path}; echo switching; kill $(cat pid); while kill -0 $(cat pid) 2>/dev/null; do sleep 0.02; done; "
        "setsid $(cat start) >> new.log 2>&1 < /dev/null & echo $! > pid; "
        "while ! grep -q connected new.log 2>/dev/null; do sleep 0.02; done; echo switched"
    )
    play(tmp_path, {"switch": counting(tmp_path, script)}, claim)


def test_unit_comes_back_for_ever_and_leaves_its_commands_their_folders(tmp_path: Path) -> None:
    text = agent_unit(Path("/usr/bin/python3"), tmp_path / "agent.toml")
    service = Unit(text).service
    assert (service["Restart"], float(service["RestartSec"])) == ("always", 1.0)
    assert "\nStartLimitIntervalSec=0\n" in text
    taken_away = {
        "PrivateTmp",
        "RuntimeDirectory",
        "StateDirectory",
        "DynamicUser",
        "User",
        "NoNewPrivileges",
        "CapabilityBoundingSet",
    }
    assert not taken_away & set(service)
    confining = (
        "Protect",
        "Private",
        "Restrict",
        "SystemCall",
        "ReadOnly",
        "Inaccessible",
        "Memory",
        "Lock",
        "Limit",
        "RootDirectory",
    )
    assert not [key for key in service if key.startswith(confining)], "a `switch` inherits it"


def test_commands_of_the_unit_find_the_programs_of_a_nixos_too(tmp_path: Path) -> None:
    service = Unit(agent_unit(Path("/usr/bin/python3"), tmp_path / "agent.toml")).service
    path = service["Environment"].removeprefix("PATH=").split(":")
    assert {"/run/current-system/sw/bin", "/run/wrappers/bin", "/usr/bin"} <= set(path)
    assert clean_environment("c1", "switch", "web1", {"PATH": ":".join(path)})["PATH"].split(":") == path


def test_paths_come_back_from_the_unit_word_for_word(tmp_path: Path) -> None:
    config = tmp_path / 'a "b" 100% $HOME \\; c.toml'
    assert Unit(agent_unit(Path("/usr/bin/python3"), config)).argv[-1] == str(config)


def test_a_line_break_in_a_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Failure):
        agent_unit(Path("/usr/bin/python3"), tmp_path / "a\nExecStartPre=/bin/evil")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd's own checker is not installed")
def test_systemd_itself_finds_nothing_wrong(tmp_path: Path) -> None:
    path = tmp_path / "fleethub-agent.service"
    path.write_text(agent_unit(Path(sys.executable), tmp_path / "agent 100%.toml"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)], capture_output=True, text=True, timeout=60
    )
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "fleethub-agent" in line]
    assert (done.returncode, ours) == (0, []), done.stderr


def test_the_verb_prints_the_unit_of_this_python(tmp_path: Path) -> None:
    argv = [
        sys.executable,
        "-P",
        "-m",
        "processes.cli",
        "systemd-unit",
        "--agent",
        "--config",
        str(tmp_path / "agent.toml"),
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, agent_unit(Path(sys.executable), tmp_path / "agent.toml"))
