"""A whole installation for a test: real supervisord, real processes, its own folder and ports, used through
bin/fleethub.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import msgspec
import websockets
from doubles.deadline import WAIT_S, until

from processes.adapters.settings import Settings, load
from processes.adapters.state import incidents_db, pulse_file, status_file
from processes.core.shown.status import IncidentView, Overall
from processes.core.travels.pulse import Pulse

CHECKOUT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    """A port of loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# $1: a folder that only root may enter, $2: Python's in it, $3: an empty one. For the rest, and for nobody else, the
# first has nothing but the second in it, and everybody may enter it
OPENED = """
mount --bind "$2" "$3" && mount -t tmpfs -o mode=755 none "$1" && mkdir -p "$2" && mount --bind "$3" "$2" && shift 3 &&
exec "$@"
"""


def opened_for_all(empty: Path) -> list[str]:
    """What to put before a command, so that it runs where users other than root can read this Python too; nothing, if
    they can anyway, or if this is another user.
    """
    base = Path(sys.base_prefix)
    closed = [place for place in (*reversed(base.parents), base) if not place.stat().st_mode & 0o005]
    if os.geteuid() != 0 or not closed:
        return []
    return [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        OPENED,
        "sh",
        str(closed[0]),
        str(base),
        str(empty),
    ]


class House:
    """One installation. Use as a context; at its end everything it started is gone."""

    own_users = False  # True: as root, gateways become another user, wherever the Python of these tests is

    def __init__(self, prefix: str = "fh", **environment: str) -> None:
        """`prefix`: how the name of the state folder begins."""
        self._empty = tempfile.mkdtemp(prefix="fhe") if self.own_users else ""
        self.state = Path(tempfile.mkdtemp(prefix=prefix))
        self.operators, self.agents = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        clean = {key: value for key, value in os.environ.items() if not key.startswith("FLEETHUB_")}
        self.environment = {
            **clean,
            "FLEETHUB_STATE": str(self.state),
            "FLEETHUB_OPERATORS_LISTEN": self.operators,
            "FLEETHUB_AGENTS_LISTEN": self.agents,
            "FLEETHUB_DRILLS_ENABLED": "true",
            **environment,
        }
        self._agents: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> House:
        done = self.cli("up")
        assert done.returncode == 0, done.stdout + done.stderr + self.logs()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for agent in self._agents:
            agent.kill()
            agent.wait()
        # not by `down`, which has tests of its own: nobody waits for an orderly end here
        until(self._killed, "a process of this house survives SIGKILL")
        shutil.rmtree(self.state, ignore_errors=True)
        if self._empty:
            os.rmdir(self._empty)

    def _killed(self) -> bool:
        """True if none of its processes is left; those that are get SIGKILL."""
        pids = self.pids()
        for pid in pids:
            self.signal(pid, signal.SIGKILL)
        return not pids

    @property
    def settings(self) -> Settings:
        """The installation's settings and places."""
        return load({key: value for key, value in self.environment.items() if key.startswith("FLEETHUB_")})

    @functools.cached_property
    def _places(self) -> Settings:
        """Where the installation's files are: read once, for whoever looks at them many times a second."""
        return self.settings

    def cli(self, *arguments: str, timeout_s: float = 2 * WAIT_S) -> subprocess.CompletedProcess[str]:
        """Runs bin/fleethub to its end, or what it runs, if a clock of the test's is on PYTHONPATH, which it ignores."""
        own = [sys.executable, "-P", "-m", "processes.cli"]
        program = own if "PYTHONPATH" in self.environment else [str(CHECKOUT / "bin" / "fleethub")]
        before = opened_for_all(Path(self._empty)) if self._empty and arguments[:1] == ("up",) else []
        return subprocess.run(
            [*before, *program, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    def json(self, *arguments: str) -> Any:
        """The JSON document that a listing prints, whatever its exit code."""
        return json.loads(self.cli(*arguments, "--json").stdout)

    def row(self, name: str) -> dict[str, Any]:
        """A host, as the API shows it; an empty row if it has no answer. For whoever looks until something is so."""
        token = self._places.operator_token.read_text().strip()
        try:
            answer = httpx.get(
                f"http://{self.operators}/api/v1/hosts/{name}",
                headers={"Authorization": f"Bearer {token}"},
                timeout=WAIT_S,
            )
        except httpx.TransportError:
            return {}
        return dict(answer.json()) if answer.status_code == 200 else {}

    def verdict(self) -> Overall:
        """The watchdog's word on the whole. For whoever looks until it is well."""
        return status_file.current_report(self._places).verdict

    def incidents(self) -> list[IncidentView]:
        """Newest first. For whoever looks until there is one."""
        return incidents_db.incidents(self._places.incidents_database)

    def ledger(self) -> dict[str, int]:
        """The commands by state, as the watchdog has last seen them."""
        found: dict[str, int] = msgspec.to_builtins(status_file.current_report(self._places).commands)
        return found

    def pids(self) -> list[int]:
        """Living processes whose environment names this state folder: the installation's own, and nobody else's."""
        mark = f"FLEETHUB_STATE={self.state}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                environment = (folder / "environ").read_bytes().split(b"\0")
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if mark in environment and state != "Z" and int(folder.name) != os.getpid():
                found.append(int(folder.name))
        return found

    def signal(self, pid: int, number: signal.Signals) -> bool:
        """True if a process of this house got it. Its number may have gone to another: asked through a descriptor."""
        if not pid:
            return False
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        try:
            told = Path(f"/proc/{pid}/environ").read_bytes() + Path(f"/proc/{pid}/cmdline").read_bytes()
            mine = str(self.state).encode() in told
            if mine:
                signal.pidfd_send_signal(fd, number)
            return mine
        except (ProcessLookupError, FileNotFoundError):
            return False
        finally:
            os.close(fd)

    def pulse(self, name: str) -> Pulse:
        """A process's last pulse; an empty one before the first."""
        return pulse_file.read(self._places.pulses, name) or Pulse()

    def logs(self) -> str:
        """The end of every log, for a failure's message."""
        found = ""
        for path in sorted((self.state / "log").glob("*")):
            found += f"\n== {path.name}\n" + path.read_text(errors="replace")[-1500:]
        return found

    def enroll(self, name: str) -> str:
        """A new host's token."""
        return str(self.json("enroll", name)["token"])

    def agent(self, name: str, commands: dict[str, list[str]]) -> Path:
        """Enrols a host and starts a real agent for it; its folder."""
        folder = self.host(name, commands)
        self.start_agent(folder)
        return folder

    def host(self, name: str, commands: dict[str, list[str]]) -> Path:
        """Enrols a host and makes all that its agent needs, in a folder of its own; that folder."""
        folder = self.state / f"host-{name}"
        folder.mkdir()
        (folder / "agent.token").write_text(self.enroll(name))
        (folder / "agent.token").chmod(0o600)
        lines = [
            f'hub = "ws://{self.agents}/ws"',
            f'name = "{name}"',
            'token_file = "agent.token"',
            "heartbeat_s = 1",
            'state = "state"',
        ]
        for op, argv in commands.items():
            lines += [f"[commands.{op}]", f"argv = {json.dumps(argv)}"]
        (folder / "agent.toml").write_text("\n".join(lines))
        return folder

    def start_agent(self, folder: Path, **environment: str) -> subprocess.Popen[bytes]:
        """Starts the agent of a host's folder; ended with the house."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith("FLEETHUB_")}
        log = (folder / "agent.log").open("ab")
        agent = subprocess.Popen(
            [sys.executable, "-m", "processes.agent", "--config", str(folder / "agent.toml")],
            env={**clean, **environment},
            stderr=log,
            stdout=log,
        )
        log.close()
        self._agents.append(agent)
        return agent


OPEN = ("queued", "sent", "running")
ASK_S = 1.0  # between two questions after what is shown anyway


class Operator:
    """A script that commands and looks: HTTP with the installation's token, and one WebSocket that must never break."""

    def __init__(self, house: House) -> None:
        self.house = house
        token = house.settings.operator_token.read_text().strip()
        self._headers = {"Authorization": f"Bearer {token}"}
        self.http = httpx.AsyncClient(base_url=f"http://{house.operators}", headers=self._headers, timeout=WAIT_S)
        self.breaks: list[str] = []  # how its WebSocket broke, each time
        self.frames = 0
        self.versions: list[tuple[int, int]] = []
        self.hosts: dict[str, dict[str, Any]] = {}
        self.commands: dict[str, dict[str, Any]] = {}
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Operator:
        self._task = asyncio.create_task(self._look())
        await self.until(lambda: bool(self.hosts))
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self.http.aclose()

    async def _look(self) -> None:
        while True:
            try:
                async with websockets.connect(
                    f"ws://{self.house.operators}/ws", additional_headers=self._headers, max_size=None, proxy=None
                ) as socket:
                    async for text in socket:
                        self._take(json.loads(text))
                self.breaks.append(f"closed {socket.close_code}")
            except (OSError, websockets.WebSocketException) as error:
                self.breaks.append(f"{type(error).__name__}: {error}")
            await asyncio.sleep(0.05)

    def _take(self, frame: dict[str, Any]) -> None:
        self.frames += 1
        if frame["type"] == "full_state":
            self.hosts = {row["name"]: row for row in frame["state"]["hosts"]}
            self.commands = {row["id"]: row for row in frame["state"]["commands"]}
        if frame["type"] in ("full_state", "delta"):
            self.versions.append((frame["epoch"], frame["version"]))
        for change in frame.get("changes", []):
            rows = {"host": self.hosts, "command": self.commands}.get(change["kind"])
            if rows is not None:
                rows.setdefault(change["id"], {}).update(change["fields"])

    async def until(self, condition: Callable[[], bool], seconds: float = WAIT_S) -> None:
        """Waits for something, with a deadline."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"did not happen within {seconds} s{self.house.logs()}"
            await asyncio.sleep(0.02)

    async def healthy(self, seconds: float = WAIT_S) -> None:
        """Waits until /healthz is 200."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                answer = await self.http.get("/healthz", timeout=WAIT_S)
                if answer.status_code == 200:
                    return
                said = answer.text
            except httpx.HTTPError as error:
                said = repr(error)
            assert time.monotonic() < deadline, f"not healthy within {seconds} s: {said}{self.house.logs()}"
            await asyncio.sleep(0.05)

    async def give(self, op: str, *hosts: str) -> list[str]:
        """Gives a command as a careful script does: with a key, asked again until it is accepted. The ids."""
        key = uuid.uuid4().hex
        deadline = time.monotonic() + WAIT_S
        while True:
            said = ""
            try:
                answer = await self.http.post("/api/v1/commands", json={"op": op, "hosts": list(hosts), "key": key})
                if answer.status_code in (200, 202):
                    return [command["id"] for command in answer.json()["commands"]]
                assert answer.status_code in (503, 504), answer.text
                said = answer.text
            except httpx.HTTPError as error:
                said = repr(error)
            assert time.monotonic() < deadline, f"not accepted: {said}{self.house.logs()}"
            await asyncio.sleep(0.1)

    async def command(self, command_id: str) -> dict[str, Any]:
        """One command as the API shows it."""
        answer = await self.http.get(f"/api/v1/commands/{command_id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def ended(self, command_id: str, seconds: float = WAIT_S) -> dict[str, Any]:
        """Waits until a command is final. It is asked for when it is shown as that, and now and then meanwhile."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                answer = await self.http.get(f"/api/v1/commands/{command_id}")
                assert answer.status_code in (200, 503, 504), answer.text
                said = answer.text
                if answer.status_code == 200 and answer.json()["state"] not in OPEN:
                    found: dict[str, Any] = answer.json()
                    return found
            except httpx.TransportError as error:
                said = repr(error)
            assert time.monotonic() < deadline, f"{said}{self.house.logs()}"
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ASK_S):
                    while self.commands.get(command_id, {}).get("state", "queued") in OPEN:
                        await asyncio.sleep(0.02)
            await asyncio.sleep(0.02)
