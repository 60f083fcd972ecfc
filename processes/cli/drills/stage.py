"""The stage of a drill: the installation, two agents of the drill's own, and an operator who watches all the time."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Final

import httpx
import msgspec
import websockets

from processes.adapters import proc
from processes.adapters.settings import Settings
from processes.adapters.state import incidents_db, pulse_file, status_file
from processes.cli.machine.own_hub import agents_url, open_own
from processes.cli.terminal.failure import Failure
from processes.client.api import segment
from processes.core.shown.dead_letters import DeadLettersPage
from processes.core.shown.pages import HostsPage
from processes.core.shown.status import IncidentView, Overall, Verdict
from processes.core.shown.views import CommandView, HostView
from processes.core.travels.pulse import Pulse, Unreadable
from processes.core.values import Presence

LOOK_S: Final = 0.02  # between two looks at files and pulses
ASK_S: Final = 0.1  # between two questions to the API
WELL_S_MAX: Final = 90.0  # after that it is not going to recover
FIRST_S_MAX: Final = 10.0  # an installation that is just recovering has so long before it is called unwell
TIMEOUT: Final = httpx.Timeout(12.0, connect=2.0)  # the API answers 504 after 10 s
FRAME_BYTES_MAX: Final = 64 << 20  # a full state of a large fleet
_PR_SET_PDEATHSIG: Final = 1  # prctl(2)
_prctl = ctypes.CDLL(None).prctl
MARK, FLOOD, FLOOD_LINES = "mark", "flood", 20_000


class Late(Exception):
    """Something did not happen in time; the text says what."""


class Stage:
    """An async context; at its end the drill's agents are ended and their hosts removed."""

    def __init__(self, settings: Settings, disk: Path | None = None) -> None:
        self.settings, self.disk = settings, disk  # disk: the small one of a second installation
        self.breaks: list[str] = []  # how the operator's WebSocket broke; one line each time
        self._stack = AsyncExitStack()
        name = f"drill-{uuid.uuid4().hex[:8]}"
        self.hosts = (f"{name}-a", f"{name}-b")  # the first gets the stream, the second what else is given
        self._agents: dict[str, subprocess.Popen[bytes]] = {}
        api = open_own(settings)
        api.close()
        self.url, self.trust, self.headers = api.url, api.trust, {"Authorization": f"Bearer {api.token}"}
        self.http: httpx.AsyncClient
        self._certificate = os.path.abspath(settings.file.tls.certificate) if settings.file.tls.certificate else ""
        self._folder: Path

    async def __aenter__(self) -> Stage:
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="fh-drill-"))
            self._stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
            self.http = await self._stack.enter_async_context(
                httpx.AsyncClient(
                    base_url=self.url, headers=self.headers, timeout=TIMEOUT, verify=self.trust or True,
                    trust_env=False,
                    limits=httpx.Limits(max_connections=50, max_keepalive_connections=10),
                )
            )  # fmt: skip
            await self.well(FIRST_S_MAX)
            for name in self.hosts:
                self._stack.push_async_callback(self._remove, name)
                await self._enrol(name)
                self.start_agent(name)
            watching = asyncio.create_task(self._watch())
            self._stack.push_async_callback(_ended, watching)
            await self.until(lambda: self._online(self.hosts), "the drill's own agents online", WELL_S_MAX)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self._stack.aclose()

    # its agents

    @property
    def marks(self) -> Path:
        """The file to which each run of `mark` adds its command's id: it tells which commands ran, and how often."""
        return self._folder / "marks"

    def agent(self, name: str) -> subprocess.Popen[bytes]:
        """The process of one of the drill's own agents."""
        return self._agents[name]

    async def _enrol(self, name: str) -> None:
        token = msgspec.json.decode(await self.ask("POST", "/hosts", {"name": name}), type=dict[str, object])["token"]
        folder = self._folder / name
        folder.mkdir(mode=0o700)
        (folder / "agent.token").write_text(str(token))
        (folder / "agent.token").chmod(0o600)
        mark = ["sh", "-c", f'echo "$FLEETHUB_COMMAND_ID" >> {self.marks}']
        flood = ["sh", "-c", f"i=0; while [ $i -lt {FLOOD_LINES} ]; do echo line $i of a flood; i=$((i+1)); done"]
        lines = [f'hub = "{agents_url(self.settings)}"', f'name = "{name}"', "heartbeat_s = 1", 'state = "state"']
        if self._certificate:
            lines.append(f"ca_file = {_toml(self._certificate)}")
        for op, argv in ((MARK, mark), (FLOOD, flood)):
            lines += [f"[commands.{op}]", f"argv = {_toml(argv)}"]
        (folder / "agent.toml").write_text("\n".join(lines))
        self.marks.touch()

    def start_agent(self, name: str) -> None:
        """Start one of the drill's agents. It dies with us."""
        folder = self._folder / name
        clean = {key: value for key, value in os.environ.items() if not key.startswith("FLEETHUB_")}
        with (folder / "agent.log").open("ab") as log:
            self._agents[name] = subprocess.Popen(  # noqa: S603  # our own words
                [sys.executable, "-P", "-m", "processes.agent", "--config", str(folder / "agent.toml")],
                env=clean, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                preexec_fn=_die_with_us,  # noqa: PLW1509  # a single system call; its library is loaded
            )  # fmt: skip

    async def _remove(self, name: str) -> None:
        """End the agent and remove its host from the fleet. Raises: Failure, if the host cannot be removed."""
        agent = self._agents.get(name)
        if agent is not None:
            agent.kill()
            agent.wait()
        try:
            await self.ask("DELETE", f"/hosts/{segment(name)}", gone=True)
        except Late as error:
            raise Failure(
                "not_removed", f"the drill's host {name} is still enrolled: {error}", f"fleethub remove {name}"
            ) from None

    # questions

    async def ask(
        self, method: str, path: str, body: Mapping[str, object] | None = None, *, gone: bool = False
    ) -> bytes:
        """Ask the API, again and again while the hub is away, and return the body of the answer.

        `gone`: 404 is a good answer too. Raises: Late, with the last answer.
        """
        deadline_s = time.monotonic() + WELL_S_MAX
        while True:
            try:
                answer = await self.http.request(method, f"/api/v1{path}", json=body)
                if answer.is_success or (gone and answer.status_code == 404):
                    return answer.content
                said = f"{answer.status_code} {answer.text[:200]}"
                if answer.status_code not in (503, 504):
                    raise Late(f"{method} {path} was answered {said}")
            except httpx.TransportError as error:
                said = str(error) or type(error).__name__
            if time.monotonic() > deadline_s:
                raise Late(f"{method} {path} had no good answer within {WELL_S_MAX:.0f} s: {said}")
            await asyncio.sleep(ASK_S)

    async def enabled(self) -> bool:
        """True if the running installation allows faults inside its processes."""
        return bool(msgspec.json.decode(await self.ask("GET", "/me"), type=dict[str, object]).get("drills_enabled"))

    async def fleet(self) -> dict[str, HostView]:
        """Every host by name."""
        page = msgspec.json.decode(await self.ask("GET", "/hosts"), type=HostsPage)
        return {host.name: host for host in page.hosts}

    async def dead_letters(self) -> set[str]:
        """The ids of the newest dead letters."""
        page = msgspec.json.decode(await self.ask("GET", "/deadletters"), type=DeadLettersPage)
        return {dead_letter.id for dead_letter in page.deadletters}

    async def command(self, command_id: str) -> CommandView:
        """A command, as the API shows it."""
        return msgspec.json.decode(await self.ask("GET", f"/commands/{segment(command_id)}"), type=CommandView)

    async def ended(self, command_id: str, wait_s: float) -> CommandView:
        """Wait until the command is final, at most `wait_s`, and return it. Raises: Late, if there is none."""
        deadline_s = time.monotonic() + wait_s
        while True:
            command = await self.command(command_id)
            if command.state.final or time.monotonic() > deadline_s:
                return command
            await asyncio.sleep(LOOK_S)

    async def _online(self, names: tuple[str, ...]) -> bool:
        found = await self.fleet()
        return all(name in found and found[name].presence == Presence.ONLINE for name in names)

    def pulse(self, name: str) -> Pulse:
        """A process's last pulse; an empty one before its first, or if it died in the middle of writing it."""
        with contextlib.suppress(Unreadable, OSError):
            return pulse_file.read(self.settings.pulses, name) or Pulse()
        return Pulse()

    def pids(self) -> dict[str, int]:
        """The pid of every process that the operator wants to run, as its pulse says."""
        wanted = {row.name for row in status_file.current_report(self.settings).processes if row.wanted}
        return {name: self.pulse(name).pid for name in self.settings.all_names() if name in wanted}

    def incidents(self) -> dict[str, IncidentView]:
        """The incidents by id, newest first."""
        return {view.id: view for view in incidents_db.incidents(self.settings.incidents_database)}

    # waiting

    async def until(
        self, condition: Callable[[], bool] | Callable[[], Awaitable[bool]], what: str, wait_s: float
    ) -> None:
        """Wait until the condition holds. Raises: Late, with `what` it was."""
        deadline_s = time.monotonic() + wait_s
        while True:
            found = condition()
            slow = not isinstance(found, bool)
            if found if isinstance(found, bool) else await found:
                return
            if time.monotonic() > deadline_s:
                raise Late(f"not within {wait_s:.0f} s: {what}")
            await asyncio.sleep(ASK_S if slow else LOOK_S)

    async def well(self, wait_s: float, *, rested: bool = False) -> None:
        """Wait until all is well: /healthz, the watchdog's verdict, every wanted process, and every incident over.

        `rested`: wait also until no process has just started. supervisord takes a death within startsecs for a failed
        start, and delays the next start by a second more each time; only the drill crash-loop is about that.
        Raises: Failure("unwell").
        """
        deadline_s = time.monotonic() + wait_s
        while (why := await self.unwell(rested=rested)) is not None:
            if time.monotonic() > deadline_s:
                raise Failure(
                    "unwell",
                    f"the installation is not well: {why}",
                    "Mend it first: fleethub status, fleethub incidents.",
                )
            await asyncio.sleep(LOOK_S)

    async def unwell(self, *, rested: bool = False) -> str | None:
        """Why the installation is not well, or not `rested`; None if it is."""
        report = status_file.current_report(self.settings)
        if report.verdict is not Overall.OK:
            return f"{report.verdict}: {'; '.join(report.reasons) or 'no reason given'}"
        for row in report.processes:
            if row.wanted and (
                row.verdict is not Verdict.ADVANCING or row.pid != self.pulse(row.name).pid or not _lives(row.pid)
            ):
                return f"{row.name} {row.verdict.phrase}"
            if rested and row.wanted and row.state != "RUNNING":
                return f"{row.name} has only just started"
        if still := [view.id for view in self.incidents().values() if view.over_at is None]:
            return f"incident {still[0]} is not over"
        try:
            answer = await self.http.get("/healthz", timeout=2.0)
        except httpx.TransportError as error:
            return f"/healthz: {str(error) or type(error).__name__}"
        return None if answer.status_code == 200 else f"/healthz says {answer.status_code} {answer.text[:200]}"

    # the operator who looks on

    async def _watch(self) -> None:
        address = f"ws{self.url.removeprefix('http')}/ws"
        while True:
            try:
                async with websockets.connect(
                    address,
                    additional_headers=self.headers,
                    ssl=self.trust,
                    max_size=FRAME_BYTES_MAX,
                    proxy=None,
                    ping_interval=None,
                ) as socket:
                    async for _ in socket:
                        pass
                self.breaks.append(f"closed {socket.close_code}")
            except (OSError, websockets.WebSocketException) as error:
                self.breaks.append(f"{type(error).__name__}: {error}")
            await asyncio.sleep(ASK_S)


def _die_with_us() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def send(pid: int, start_ticks: int, number: signal.Signals) -> None:
    """Send the signal to that very process. Raises: Late, if it is gone."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        raise Late(f"process {pid} is gone") from None
    try:
        if not proc.alive(pid, start_ticks):  # looked at while the descriptor holds the pid
            raise Late(f"process {pid} is gone")
        signal.pidfd_send_signal(fd, number)
    finally:
        os.close(fd)


def _lives(pid: int | None) -> bool:
    found = proc.stat(pid) if pid else None
    return found is not None and found.state not in "ZXTt"


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


def _toml(value: str | list[str]) -> str:
    return msgspec.json.encode(value).decode()  # JSON's strings and lists are valid TOML
