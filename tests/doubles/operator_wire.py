"""A real fanout beside real queues, the hub played by the test, and an operator who holds what it is sent against the
contract.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import httpx
from doubles import forked
from doubles.deadline import WAIT_S
from doubles.hub_side import HubSide, hash_of
from doubles.small_house import SmallHouse
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from processes.adapters.queue_link import QueueLink
from processes.adapters.state import canary_file, fleet_db, signin_codes
from processes.core.shown.replica import Replica
from processes.core.shown.status import CanaryFile
from processes.core.travels import messages
from processes.core.travels.audit import AuditLine
from processes.core.travels.messages import (
    AuditNoted,
    Broadcast,
    Change,
    Changed,
    HubStarted,
    Json,
    Replied,
    Request,
    RequestReceived,
    SnapshotPiece,
    SnapshotWanted,
)
from processes.core.values import Role

TOKEN = "the-installation-token"


class FanoutHouse(SmallHouse):
    """`queues` and one `fanout` on a port of their own; no hub."""

    def __init__(self, descriptors_max: int | None = None, **environment: str) -> None:
        super().__init__(**environment)
        self._limit = ["prlimit", f"--nofile={descriptors_max}:{descriptors_max}"] if descriptors_max else []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment["FLEETHUB_OPERATORS_LISTEN"] = f"127.0.0.1:{self.port}"
        (self.state / "operator.token").write_text(TOKEN + "\n")
        (self.state / "operator.token").chmod(0o600)

    def __enter__(self) -> FanoutHouse:
        self.start("queues")
        self.start("fanout")
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.listener.close()
        super().__exit__()

    def start(self, kind: str) -> None:
        """As of SmallHouse; the fanout gets its listening socket as descriptor 0."""
        if kind != "fanout":
            super().start(kind)
            return
        before = self.processes.pop(kind, None)
        if before is not None and before.stderr is not None:
            before.stderr.close()
        entry = self.listener.fileno()
        if not self._limit:
            self.processes[kind] = forked.start(kind, ["1"], environment=self.environment, stdin=entry)
            return
        command = [*self._limit, sys.executable, "-m", "processes.fanout", "1"]
        self.processes[kind] = subprocess.Popen(
            command, env=self.environment, stdin=entry, stderr=subprocess.PIPE, start_new_session=True
        )

    def client(self, token: str | None = TOKEN, **more: Any) -> httpx.AsyncClient:
        """An HTTP client, signed in."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=WAIT_S, **more)

    def code(self, text: str, *, valid_s: float = 600.0, role: str = "admin") -> str:
        """A one-time code, as `up` makes them."""
        signin_codes.put(self.settings.run, text, Role(role), time.time() + valid_s)
        return text

    def canary(self, token: str) -> None:
        """The watchdog's canary has this token."""
        canary_file.write(self.settings.canary, CanaryFile(hash_of("x"), hash_of(token)))

    @contextlib.contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        """The hub's database, for writing as the hub does: in one transaction, so that nobody reads the half of it."""
        with contextlib.closing(fleet_db.open_for_writing(self.settings.database)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")


class HubPlay(HubSide):
    """The hub of one epoch, as a fanout sees it: rows, snapshots on demand, answers."""

    def __init__(self, house: FanoutHouse, epoch: int = 1) -> None:
        super().__init__(QueueLink(house.settings.queues_socket, "hub"), epoch=epoch)
        self.rows = Replica()
        self.snapshots = 0
        self.asked: list[RequestReceived] = []
        self.noted: list[AuditLine] = []
        self.answer: Callable[[RequestReceived], tuple[int, dict[str, Any]] | None] = lambda _: (202, {"commands": []})
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> HubPlay:
        await self.say(HubStarted(self.epoch))
        self._task = asyncio.create_task(self._serve())
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        await self.link.close()  # type: ignore[attr-defined]

    @property
    def requests(self) -> list[Request]:
        """What was asked, in order; a request that was asked again counts once."""
        return [event.request for event in {event.request_id: event for event in reversed(self.asked)}.values()][::-1]

    async def say(self, *said: Broadcast) -> None:
        """Appends to the fanout's broadcasts, as the hub does."""
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                await self.link.append(
                    messages.broadcasts_of("fanout"), [messages.encode(one) for one in said], lossy=True
                )  # type: ignore[call-arg]
                return
            except Exception:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)

    async def change(self, kind: str, row: str, /, **fields: Any) -> None:
        """One row changes, and the fanout is told."""
        change = Change(kind, row, Json(json.dumps(fields).encode()))
        self.rows.apply(change)
        await self.say(Changed(self.epoch, [change]))

    async def host(self, name: str, /, **fields: Any) -> None:
        """A host's row."""
        await self.change("host", name, **{"name": name, "presence": "online", **fields})

    async def _serve(self) -> None:
        while True:
            try:
                await self.read()
            except Exception:
                await asyncio.sleep(0.02)
                continue
            events, self.seen = self.seen, []
            for event in events:
                if isinstance(event, SnapshotWanted):
                    self.snapshots += 1
                    pieces = list(self.rows.pieces(50))
                    for number, piece in enumerate(pieces):
                        await self.say(
                            SnapshotPiece(self.epoch, event.snapshot, number, number == len(pieces) - 1, piece)
                        )
                elif isinstance(event, AuditNoted):
                    self.noted += event.lines
                elif isinstance(event, RequestReceived):
                    self.asked.append(event)
                    answer = self.answer(event)
                    if answer is not None:
                        await self.say(
                            Replied(self.epoch, event.request_id, answer[0], Json(json.dumps(answer[1]).encode()))
                        )


class Operator:
    """One operator's WebSocket. Every frame is held against the contract as it comes; `state` is what a page would
    show.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.hosts: dict[str, dict[str, Any]] = {}
        self.commands: dict[str, dict[str, Any]] = {}
        self.state: dict[str, Any] = {}
        self.epoch = self.version = -1
        self.full_states = self.deltas = 0
        self.frames: list[dict[str, Any]] = []
        self.closed: tuple[int, str] | None = None
        self._news = asyncio.Event()
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            async for text in self.socket:
                frame = json.loads(text)
                self.frames.append(frame)
                self._take(frame)
                self._news.set()
        except ConnectionClosed:
            pass
        self.closed = (self.socket.close_code or 1006, self.socket.close_reason or "")
        self._news.set()

    def _take(self, frame: dict[str, Any]) -> None:
        match frame["type"]:
            case "full_state":
                assert frame["epoch"] >= self.epoch, "the epoch went back"
                assert self.version in (-1, frame["version"]), "a full state used a version"
                self.full_states += 1
                self.epoch, self.version, self.state = frame["epoch"], frame["version"], frame["state"]
                self.hosts = {row["name"]: row for row in frame["state"]["hosts"]}
                self.commands = {row["id"]: row for row in frame["state"]["commands"]}
            case "delta":
                assert frame["epoch"] == self.epoch, "a delta of another epoch"
                assert frame["version"] == self.version + 1, "a version was skipped"
                self.deltas += 1
                self.version = frame["version"]
                for change in frame["changes"]:
                    self._apply(change)
            case "sync":
                assert (frame["epoch"], frame["version"]) == (self.epoch, self.version)

    def _apply(self, change: dict[str, Any]) -> None:
        rows = {"host": self.hosts, "command": self.commands}.get(change["kind"].removesuffix("_removed"))
        if rows is None:
            return
        if change["kind"].endswith("_removed"):
            rows.pop(change["id"], None)
        else:
            rows.setdefault(change["id"], {}).update(change["fields"])

    async def until(self, condition: Callable[[Operator], object], wait_s: float = WAIT_S) -> None:
        """Waits for what the operator should see."""
        async with asyncio.timeout(wait_s):
            while not condition(self):
                assert self.closed is None or self._task.done()
                if self._task.done():
                    self._task.result()
                    assert condition(self), f"closed {self.closed}"
                    return
                self._news.clear()
                await self._news.wait()

    async def ended(self) -> tuple[int, str]:
        """How the connection ended."""
        async with asyncio.timeout(WAIT_S):
            await self._task
        assert self.closed is not None
        return self.closed

    async def send(self, **frame: Any) -> None:
        """A frame to the fanout."""
        await self.socket.send(json.dumps(frame))

    def output(self) -> str:
        """The output received so far."""
        return "\n".join(frame["data"] for frame in self.frames if frame["type"] == "output")


@contextlib.asynccontextmanager
async def operator(house: FanoutHouse, token: str | None = TOKEN, **headers: str) -> Any:
    """A connected operator."""
    more = {"Authorization": f"Bearer {token}"} if token else {}
    async with connect(
        f"ws://127.0.0.1:{house.port}/ws", additional_headers={**more, **headers}, proxy=None, max_size=None
    ) as ws:
        found = Operator(ws)
        try:
            yield found
        finally:
            found._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await found._task


def descriptors(pid: int) -> int:
    """How many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))
