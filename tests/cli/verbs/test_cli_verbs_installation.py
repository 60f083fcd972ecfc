"""up, down and what lies between, on a whole installation of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doubles.deadline import WAIT_S

from processes.adapters.settings import Settings, address, load
from processes.cli.machine import own_processes

pytestmark = pytest.mark.house
HOME = Path(__file__).resolve().parents[3]
LINK = re.compile(r"^http://127\.0\.0\.1:\d+/#code=[\w-]{43}$")


class Installation:
    """One state folder, two ports, and the verbs."""

    def __init__(self, state: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
            listens = [f"127.0.0.1:{server.getsockname()[1]}" for server in (one, other)]
        own = {
            "FLEETHUB_STATE": str(state),
            "FLEETHUB_OPERATORS_LISTEN": listens[0],
            "FLEETHUB_AGENTS_LISTEN": listens[1],
        }
        self.environ = {**{key: value for key, value in os.environ.items() if not key.startswith("FLEETHUB_")}, **own}
        self.settings: Settings = load(self.environ)

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "processes.cli", *arguments],
            env=self.environ, cwd="/", text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def verb(self, *arguments: str, code: int = 0) -> str:
        with self.begin(*arguments) as process:
            out, err = process.communicate(timeout=2 * WAIT_S)
        assert process.returncode == code, (arguments, process.returncode, out, err)
        return out

    def row(self, name: str) -> dict[str, Any]:
        report = json.loads(self.report()[1])
        return next(process for process in report["processes"] if process["name"] == name)

    def pid(self, name: str) -> int:
        return int(self.row(name)["pid"])

    def report(self) -> tuple[int, str]:
        with self.begin("status", "--json") as process:
            out, _ = process.communicate(timeout=WAIT_S)
        return process.returncode, out

    def wait_ok(self, wait_s: float = 30) -> None:
        deadline = time.monotonic() + wait_s
        while (found := self.report())[0] != 0:
            assert time.monotonic() < deadline, found

    def listen_everywhere(self) -> None:
        """Takes IPv6 and IPv4 on the same ports, where the machine has IPv6."""
        for name in ("FLEETHUB_OPERATORS_LISTEN", "FLEETHUB_AGENTS_LISTEN"):
            self.environ[name] = self.environ[name].replace("127.0.0.1", "[::]")
        self.environ["FLEETHUB_INSECURE"] = "true"
        self.settings = load(self.environ)

    @property
    def empty(self) -> bool:
        return own_processes.supervisord_of(self.settings) is None and own_processes.members_of(self.settings) == []


@pytest.fixture
def house() -> Iterator[Installation]:
    with tempfile.TemporaryDirectory(prefix="fh") as name:
        found = Installation(Path(name) / "st")
        try:
            yield found
        finally:
            found.verb("down")
            assert found.empty


def test_up_twice_at_once_makes_one_installation_and_two_links(house: Installation) -> None:
    processes = [house.begin("up") for _ in range(2)]
    outs = []
    for process in processes:
        with process:
            out, err = process.communicate(timeout=2 * WAIT_S)
        assert process.returncode == 0, err
        assert "sign in (once, within 10 minutes; another `" in err, "what the link is, on stderr: scripts read stdout"
        outs.append(next(line for line in out.splitlines() if "http" in line))
    assert all(LINK.match(line) for line in outs), outs
    assert outs[0] != outs[1]
    supervisord = own_processes.supervisord_of(house.settings)
    hosts = json.loads(house.verb("hosts", "--json"))["hosts"]
    assert [host["presence"] for host in hosts] == ["online"]
    assert house.verb("up").startswith("ok: already running\nhttp://")
    assert own_processes.supervisord_of(house.settings) == supervisord
    assert "load average:" in house.verb("run", "uptime", hosts[0]["name"])
    house.verb("down")
    assert house.empty
    assert house.report()[0] == 2


def test_a_killed_supervisord_leaves_nobody_behind_and_up_starts_anew(house: Installation) -> None:
    house.listen_everywhere()
    house.environ["PYTHONWARNINGS"] = "error"  # the caller's, for his own programs
    house.verb("up", "--no-agent")
    house.verb("stop", "fanout")  # whoever comes meanwhile waits, on IPv6 as on IPv4
    places = ["127.0.0.1", "::1"] if Path("/proc/net/if_inet6").exists() else ["127.0.0.1"]
    with contextlib.ExitStack() as stack:
        port = address(house.settings.file.operators.listen)[1]
        waiting = [stack.enter_context(socket.create_connection((place, port), WAIT_S)) for place in places]
        house.verb("start", "fanout")
        for each in waiting:
            each.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert each.recv(12) == b"HTTP/1.1 200"
    supervisord = own_processes.supervisord_of(house.settings)
    assert supervisord is not None
    members = own_processes.members_of(house.settings)
    assert len(members) == 7  # five processes and two socket holders
    own_processes.send(supervisord, signal.SIGKILL)
    assert own_processes.wait_gone(members, 5) == []
    house.verb("up", "--no-agent")
    house.wait_ok()


def test_down_ends_an_installation_whose_supervisord_and_hub_are_stopped(house: Installation) -> None:
    house.verb("up", "--no-agent")
    hub = house.pid("hub")
    supervisord = own_processes.supervisord_of(house.settings)
    assert supervisord is not None
    own_processes.send(supervisord, signal.SIGSTOP)
    os.kill(hub, signal.SIGSTOP)
    house.verb("down")
    assert house.empty


def test_what_an_operator_stopped_stays_stopped_until_start(house: Installation) -> None:
    house.verb("up")
    agent = house.pid("agent")
    assert house.row("agent")["state"] in ("STARTING", "RUNNING"), "what a verb did is in the status that follows it"
    house.verb("stop", "agent")
    assert house.row("agent")["verdict"] == "stopped"
    assert house.row("agent")["state"] != "RUNNING"
    house.wait_ok()  # what was not asked for is not counted
    house.verb("restart")  # the watchdog's successor obeys the desired state too
    house.wait_ok()
    assert house.row("agent")["verdict"] == "stopped"
    house.verb("start", "agent")
    assert house.row("agent")["verdict"] == "advancing"
    assert house.row("agent")["state"] in ("STARTING", "RUNNING")
    assert house.pid("agent") != agent


def test_by_hand_with_env_and_supervisord_it_runs_as_with_up(house: Installation) -> None:
    script = 'eval "$("$0" -P -m processes.cli env)" && cd / && exec supervisord -c "$1"'
    subprocess.run(
        ["/bin/sh", "-c", script, sys.executable, str(HOME / "supervisord.conf")],
        env=house.environ,
        check=True,
        timeout=WAIT_S,
    )
    house.wait_ok()
    assert house.verb("up").startswith("ok: already running\n")


def test_in_the_foreground_sigterm_ends_everything(house: Installation) -> None:
    with house.begin("up", "--foreground", "--no-agent") as process:
        assert process.stdout is not None
        assert LINK.match(process.stdout.readline().strip())
        process.terminate()
        said = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, said
    assert house.empty


def test_commands_outlive_down_and_are_reported_after_the_next_up(house: Installation) -> None:
    house.verb("up")
    house.verb("stop", "agent")
    finish = house.settings.state.parent / "finish"
    waiting = f"while [ -d {finish.parent} ] && [ ! -e {finish} ]; do sleep 0.1; done"
    with (house.settings.state / "agent.toml").open("a") as file:
        file.write(f'[commands.slow]\nargv = ["sh", "-c", "{waiting}; echo done"]\n')
    house.verb("start", "agent")
    host = json.loads(house.verb("hosts", "--json"))["hosts"][0]["name"]
    deadline = time.monotonic() + WAIT_S
    while "slow" not in (json.loads(house.verb("host", host, "--json"))["commands"] or []):
        assert time.monotonic() < deadline
    command = json.loads(house.verb("run", "slow", host, "--no-wait", "--json"))["commands"][0]["id"]
    while json.loads(house.verb("command", command, "--json"))["state"] != "running":
        assert time.monotonic() < deadline
    assert "1 command of this machine's agent still running" in house.verb("down")
    finish.touch()
    house.verb("up")
    assert house.verb("logs", command, "--follow") == "done\n"
    assert json.loads(house.verb("command", command, "--json"))["state"] == "succeeded"
