"""NixFleet's agent (3.1.5) as observed on the wire, its traps included: no ids, no journal, lost output, empty pongs.

    async with NixFleet(url, token) as agent: ...

Each behaviour that is odd has its sentence from the recording beside it. Commands do what `script` says; by default
each prints one line and succeeds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from doubles.deadline import WAIT_S
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.frames import Frame as WireFrame
from websockets.frames import Opcode
from websockets.protocol import Event, State

VERSION: Final = "3.1.5"
OPS: Final = (
    "pull", "switch", "pull-switch", "test", "rollback", "update", "force-update", "refresh-git", "refresh-lock",
    "refresh-system", "refresh-all", "check-version", "stop", "restart", "reboot",
)  # fmt: skip
INBOUND_MAX: Final = 100  # drops messages beyond 100 waiting inbound ones
EXIT_SWITCHED: Final = 101

Frame = dict[str, Any]


class Script:
    """What a command does: its lines, then waits for `go` if told to, then its exit code. `status`: another word than
    that means.
    """

    def __init__(
        self, lines: tuple[str, ...] = ("one line",), exit_code: int = 0, *, waits: bool = False, status: str = ""
    ) -> None:
        self.lines = lines
        self.exit_code = exit_code
        self.status = status or ("ok" if exit_code == 0 else "error")
        self.go = asyncio.Event()
        if not waits:
            self.go.set()


class _Connection(ClientConnection):
    """Answers a ping with an empty pong: a keepalive that matches payloads kills a healthy agent."""

    heard_s = 0.0  # data or pong; pings of the server do not count
    pings = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        send_frame = self.protocol.send_frame

        def with_empty_pong(frame: WireFrame) -> None:
            send_frame(WireFrame(Opcode.PONG, b"") if frame.opcode is Opcode.PONG else frame)

        self.protocol.send_frame = with_empty_pong  # type: ignore[method-assign]
        super().connection_made(transport)

    def process_event(self, event: Event) -> None:
        if isinstance(event, WireFrame) and event.opcode is Opcode.PING:
            self.pings += 1
        else:
            self.heard_s = asyncio.get_running_loop().time()
        super().process_event(event)


class NixFleet:
    """One agent. `exit_code` is None while it lives."""

    def __init__(
        self,
        url: str,
        token: str,
        *,
        hostname: str = "h1",
        interval_s: float = 5.0,
        ping_s: float = 10.0,
        mute_s: float = 45.0,
        first_retry_s: float = 1.0,
    ) -> None:
        self.url = url
        self.token = token
        self.hostname = hostname
        self.interval_s = interval_s  # default 5 s
        self.ping_s = ping_s
        self.mute_s = mute_s
        self.first_retry_s = first_retry_s
        self.scripts: dict[str, Script] = {}
        self.executed: list[str] = []  # every op that was really run, in order
        self.received: list[Frame] = []
        self.sent: list[Frame] = []
        self.refusals: list[int] = []
        self.connections = 0
        self.dropped = 0
        self.exit_code: int | None = None
        self.waits_s: list[float] = []  # before each try but the first
        self.generation, self.store_path, self.binary_hash = "917d168", "/nix/store/x", "a421"
        self.metrics: Frame | None = {"cpu": 1, "ram": 2, "swap": 0, "load": 0.5}  # may be null
        self.stopped_last = False  # the two statuses of a stop come in either order
        self.dies_with_child = False  # the agent is in the process group that a kill_command signals
        self.acts = asyncio.Event()  # cleared: it is busy, and inbound messages wait
        self.acts.set()
        self._began_s = asyncio.get_running_loop().time()
        self._connection: _Connection | None = None
        self._registered = False
        self._pending: str | None = None
        self._killed = asyncio.Event()
        self._inbound: asyncio.Queue[Frame] = asyncio.Queue(INBOUND_MAX)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._changed = asyncio.Condition()
        self._life: asyncio.Task[None] | None = None

    async def __aenter__(self) -> NixFleet:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.terminate()

    def start(self) -> None:
        """A new process of this agent: it knows nothing of the one before."""
        self.exit_code, self._pending, self._inbound = None, None, asyncio.Queue(INBOUND_MAX)
        self._life = asyncio.create_task(self._live())

    async def terminate(self) -> None:
        """SIGTERM: close 1000, exit 0."""
        await self._exit(0)

    async def die(self) -> None:
        """kill -9: the connection breaks; a running child goes on in the real one, and is not heard of again."""
        if self._connection is not None:
            self._connection.transport.abort()
        await self._exit(-9, close=False)

    def break_connection(self) -> None:
        """The network fails; the process lives and comes back."""
        assert self._connection is not None, "not connected"
        self._connection.transport.abort()

    async def until(self, holds: Callable[[], Any], what: str = "", wait_s: float = WAIT_S) -> Any:
        """Waits until `holds()` is true, and returns it."""
        try:
            async with asyncio.timeout(wait_s), self._changed:
                while not (found := holds()):
                    await self._changed.wait()
                return found
        except TimeoutError:
            raise AssertionError(f"never came: {what}; got {self.received[-10:]}, sent {self.sent[-10:]}") from None

    @property
    def pings(self) -> int:
        """How many pings of the server the present connection has answered, each with an empty pong."""
        return self._connection.pings if self._connection is not None else 0

    async def registered(self) -> None:
        """Waits until the hub has answered `register` on the present connection."""
        await self.until(lambda: self._registered, "registered")

    # its life

    async def _live(self) -> None:
        wait_s = self.first_retry_s
        while self.exit_code is None:
            try:
                # dials its URL verbatim; no Origin, no subprotocol, no compression
                connection = await connect(
                    self.url,
                    additional_headers={"Authorization": f"Bearer {self.token}"},
                    user_agent_header=None,
                    create_connection=_Connection,
                    compression=None,
                    proxy=None,
                    ping_interval=self.ping_s,  # sends WebSocket pings every 10 s
                    ping_timeout=None,
                    close_timeout=1,
                    max_size=None,
                )
            except InvalidStatus as refusal:
                self.refusals.append(refusal.response.status_code)  # retries 401 for ever
                await self._tell()
            except (OSError, InvalidHandshake, TimeoutError, EOFError):
                pass
            else:
                assert isinstance(connection, _Connection), "connect made something else"
                wait_s = self.first_retry_s  # reset on success
                await self._serve(connection)
            if self.exit_code is None:
                self.waits_s.append(wait_s)
                await asyncio.sleep(wait_s)
                wait_s = min(60.0, wait_s * 2)  # 1, 2, 4 … 60 s, without jitter

    async def _serve(self, connection: _Connection) -> None:
        self._connection, self._registered = connection, False
        self.connections += 1
        await self._say("register", self._register())
        around = [
            asyncio.create_task(task) for task in (self._beat(connection), self._act(), self._drop_mute(connection))
        ]
        with contextlib.suppress(ConnectionClosed):
            async for text in connection:
                await self._take(text)
        for task in around:
            task.cancel()
        self._connection, self._registered = None, False
        await self._tell()

    async def _take(self, text: str | bytes) -> None:
        try:
            frame = json.loads(text)
        except ValueError:
            return  # non-JSON is logged and the connection kept
        if not isinstance(frame, dict):
            return
        self.received.append(frame)
        if frame.get("type") == "registered":
            self._registered = True
        elif self._inbound.full():
            self.dropped += 1
        else:
            self._inbound.put_nowait(frame)
        await self._tell()

    async def _drop_mute(self, connection: _Connection) -> None:
        """Drops a server that is mute for 45 s: data or pong count, server pings do not."""
        now_s = asyncio.get_running_loop().time
        connection.heard_s = now_s()
        while now_s() - connection.heard_s < self.mute_s:
            await asyncio.sleep(min(1.0, self.mute_s / 5))
        connection.transport.abort()

    async def _beat(self, connection: _Connection) -> None:
        """No heartbeat until `registered`, then one at once, then one per interval, not aligned to the connection, also
        during commands.
        """
        async with self._changed:
            while not self._registered:
                await self._changed.wait()
        while connection.state is State.OPEN:
            await self._heartbeat()
            age_s = asyncio.get_running_loop().time() - self._began_s
            await asyncio.sleep(self.interval_s - age_s % self.interval_s)

    # commands

    async def _act(self) -> None:
        while True:
            await self.acts.wait()
            frame = await self._inbound.get()
            payload = frame.get("payload") or {}
            if frame.get("type") == "command":  # a command_id in it is ignored and not echoed
                await self._command(payload.get("command", ""))
            elif frame.get("type") == "kill_command":
                self._killed.set()  # pid 0: the running child
                if self.dies_with_child:
                    self._spawn(self._exit(-15, close=False))
            # unknown types, `ack` among them, are ignored

    async def _command(self, op: str) -> None:
        if op == "stop":
            await self._stop()
        elif self._pending is not None:
            # one at a time: a second gets command_rejected, without an id
            rejected = {"reason": "command already running", "current_command": self._pending, "current_pid": 14907}
            await self._say("command_rejected", rejected)
        elif op not in OPS:
            await self._status(op, "error", 1, "unknown command")
        elif op == "restart":
            self.executed.append(op)
            self._spawn(self._exit(0))  # close 1000, exit 0, no status
        elif op == "reboot":
            self.executed.append(op)
            await self._output("rebooting")
            self._spawn(self._exit(0, close=False))  # a line of output, then gone, no status
        else:
            self._pending = op
            self._killed.clear()
            self._spawn(self._run(op))

    async def _run(self, op: str) -> None:
        script = self.scripts.get(op) or Script()
        self.executed.append(op)
        await self._tell()
        await self._progress(op, "in_progress")
        for line in script.lines:
            await self._output(line)
        await _either(script.go.wait(), self._killed.wait())
        done = script.go.is_set()
        code, status = (script.exit_code, script.status) if done else (-1, "error")  # exit -1 for a death by signal
        await self._progress(op, "complete" if code == 0 else "error")
        message = "" if code == 0 else "command failed"
        await self._status(op, status, code, message)
        await self._heartbeat()  # one more that still names the command as pending
        self._pending = None
        await self._tell()
        if code == 0 and op in ("switch", "pull-switch"):
            self.generation, self.store_path, self.binary_hash = "a0b1c2d", "/nix/store/y", "b532"
            self._spawn(self._exit(EXIT_SWITCHED))  # close 1000 and exits 101, to be restarted by its init

    async def _stop(self) -> None:
        """Works while one runs, and sends two statuses for it: stopped/130 and error/-1, in either order."""
        running = self._pending
        if running is None:
            await self._status("stop", "error", 1, "nothing to stop")
            return
        if self.stopped_last:
            self._killed.set()
            async with self._changed:
                await self._changed.wait_for(lambda: self._pending is None)
            await self._status(running, "stopped", 130, "stopped")
        else:
            await self._status(running, "stopped", 130, "stopped")
            self._killed.set()

    # frames

    def _register(self) -> Frame:
        return {
            "hostname": self.hostname, "host_type": "nixos", "agent_version": VERSION, "os_version": "12",
            "nixpkgs_version": "",
            "generation": self.generation, "theme_color": "", "heartbeat_interval": self.interval_s, "location": "home",
            "device_type": "server", "repo_url": "", "repo_dir": "/etc/nixos", "source_commit": "2c4ef43",
            "store_path": self.store_path, "binary_hash": self.binary_hash,
        }  # fmt: skip

    async def _heartbeat(self) -> None:
        checked = {"status": "ok", "message": "Updated today", "checked_at": "2026-11-23T16:27:14Z"}
        await self._say("heartbeat", {
            "generation": self.generation, "nixpkgs_version": "", "pending_command": self._pending,
            "command_pid": 14907 if self._pending else None, "metrics": self.metrics,
            "update_status": {"git": {"status": "", "message": "", "checked_at": ""}, "lock": checked,
            "system": checked, "tests": checked},
            "source_commit": "2c4ef43", "store_path": self.store_path, "binary_hash": self.binary_hash,
            "lock_hash": "4754",
        })  # fmt: skip

    async def _output(self, line: str) -> None:
        # output.command is always empty and is_error always false
        await self._say("output", {"line": line, "stream": "stdout", "command": "", "is_error": False})

    async def _progress(self, op: str, status: str) -> None:
        await self._say("operation_progress", {"progress": {op: {"current": 0, "total": 4, "status": status}}})

    async def _status(self, op: str, status: str, code: int, message: str) -> None:
        payload: Frame = {"status": status, "command": op, "exit_code": code, "generation": self.generation}
        if message:
            payload["message"] = message
        await self._say("status", payload)

    async def _say(self, kind: str, payload: Frame) -> None:
        """Writes a frame. Without a connection it is lost for ever: output and status alike."""
        frame = {"type": kind, "payload": payload}
        connection = self._connection
        if connection is None:
            return
        with contextlib.suppress(ConnectionClosed):
            await connection.send(json.dumps(frame))
            self.sent.append(frame)
        await self._tell()

    # ends

    async def _exit(self, code: int, *, close: bool = True) -> None:
        if self.exit_code is not None:
            return
        self.exit_code = code
        connection = self._connection
        if connection is not None:
            if close:
                await connection.close(1000)
            connection.transport.abort()
        if self._life is not None:
            self._life.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._life
        for task in self._tasks - {asyncio.current_task()}:
            task.cancel()
        self._connection, self._registered = None, False
        await self._tell()

    def _spawn(self, call: Any) -> None:
        task = asyncio.create_task(call)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


async def _either(*calls: Any) -> None:
    tasks = [asyncio.create_task(call) for call in calls]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


@contextlib.asynccontextmanager
async def nixfleet(url: str, token: str, **more: Any) -> AsyncIterator[NixFleet]:
    """A NixFleet agent that lives for the length of the block."""
    async with NixFleet(url, token, **more) as agent:
        yield agent
