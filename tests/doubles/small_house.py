"""`queues` and `hub` as real processes in a folder of their own, and the test in the place of gateway and fanout."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import shutil
import signal
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import msgspec
from doubles import forked
from doubles.deadline import WAIT_S
from doubles.forked import Started

from processes.adapters import clock
from processes.adapters.queue_link import QueueLink
from processes.adapters.queues import QueuesAway
from processes.adapters.settings import Settings, load
from processes.adapters.state import pulse_file
from processes.core.travels import messages
from processes.core.travels.agent_frames import Heartbeat, Register
from processes.core.travels.messages import Broadcast, Delivery, Event, Replied, Request
from processes.core.travels.pulse import Pulse
from processes.core.values import Position


class SmallHouse:
    """Two processes and a link. Use as a context; everything it started is gone at its end."""

    def __init__(self, **environment: str) -> None:
        self.state = Path(tempfile.mkdtemp(prefix="fh"))
        (self.state / "run").mkdir(mode=0o700)
        clean = {key: value for key, value in os.environ.items() if not key.startswith("FLEETHUB_")}
        self.environment = {**clean, "FLEETHUB_STATE": str(self.state), **environment}
        self.processes: dict[str, Started] = {}

    @property
    def settings(self) -> Settings:
        """The settings of its processes, and its places."""
        return load(self.environment)

    def __enter__(self) -> SmallHouse:
        self.start("queues")
        self.start("hub")
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
            assert process.stderr is not None
            process.stderr.close()
        shutil.rmtree(self.state)

    def start(self, kind: str) -> None:
        """Starts a process; the one before must be gone."""
        before = self.processes.pop(kind, None)
        if before is not None and before.stderr is not None:
            before.stderr.close()
        self.processes[kind] = forked.start(kind, environment=self.environment)

    def kill(self, kind: str, number: int = signal.SIGKILL) -> int:
        """Sends a signal and waits for the end; the exit code."""
        process = self.processes[kind]
        process.send_signal(number)
        return process.wait(WAIT_S)

    def pulse(self, kind: str = "hub") -> Pulse:
        """The last pulse; an empty one before the first."""
        found = pulse_file.read(self.settings.pulses, kind)
        return found or Pulse()

    def log(self, kind: str = "hub") -> str:
        """What the process has logged so far."""
        path = self.state / "log" / f"{kind}.log"
        return path.read_text() if path.exists() else ""


class Peer:
    """The gateway and the fanout of a small house, played by a test: it sends events and collects what the hub says."""

    def __init__(self, house: SmallHouse) -> None:
        self.house = house
        self.link = QueueLink(house.settings.queues_socket, "gateway", timeout_s=10.0)
        self.broadcasts: list[Broadcast] = []
        self.deliveries: list[Delivery] = []
        self.gaps = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Peer:
        self.hear_broadcasts()
        self._tasks.append(
            asyncio.create_task(
                self._read(
                    messages.deliveries_of("gateway"),
                    lambda item: self.deliveries.append(messages.decode_delivery(item)),
                )
            )
        )
        await self.until(lambda: self.epochs() != [])
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for task in self._tasks:
            task.cancel()
        await self.link.close()

    def hear_broadcasts(self) -> asyncio.Task[None]:
        """Reads the broadcasts from now on; cancel the task to be a fanout that does not."""
        task = asyncio.create_task(
            self._read(
                messages.broadcasts_of("fanout"), lambda item: self.broadcasts.append(messages.decode_broadcast(item))
            )
        )
        self._tasks.append(task)
        return task

    async def _read(self, queue: str, keep: Callable[[bytes], None]) -> None:
        position = Position(0, 0)
        while True:
            try:
                batch = await self.link.read(queue, position, wait_s=0.5)
            except QueuesAway:
                await asyncio.sleep(0.02)
                continue
            self.gaps += batch.gap
            position = batch.position
            for item in batch.items:
                keep(item)
            with contextlib.suppress(QueuesAway):  # what is not acknowledged is let go with the next one
                await self.link.acknowledge(queue, position)

    def epochs(self) -> list[int]:
        """The hubs that have begun, as the broadcasts tell."""
        return [message.epoch for message in self.broadcasts if isinstance(message, messages.HubStarted)]

    async def send(self, *events: Event) -> None:
        """The events are in the queue."""
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                assert (await self.link.append(messages.EVENTS, [messages.encode(event) for event in events])).accepted
                return
            except QueuesAway:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)

    async def until(self, condition: Callable[[], bool], seconds: float = WAIT_S) -> None:
        """Waits for something, with a deadline."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"did not happen within {seconds} s\n{self.house.log()[-3000:]}"
            await asyncio.sleep(0.01)

    async def ask(self, request: Request, *, request_id: str = "", deadline_s: float = WAIT_S) -> Replied:
        """A request and its answer; asked again with the same id, as a fanout does, after each gap and each new hub."""
        request_id = request_id or uuid.uuid4().hex
        event = messages.RequestReceived(request_id, "fanout", "ann", clock.now().boot_s + deadline_s, request)
        deadline = time.monotonic() + deadline_s
        while True:
            answered = functools.partial(self._answered, request_id, len(self.epochs()) + self.gaps)
            await self.send(event)
            await self.until(answered, deadline - time.monotonic())
            reply = self.reply(request_id)
            if reply is not None:
                return reply

    def _answered(self, request_id: str, news: int) -> bool:
        return self.reply(request_id) is not None or len(self.epochs()) + self.gaps > news

    def reply(self, request_id: str) -> Replied | None:
        """The answer, if it came."""
        found = [m for m in self.broadcasts if isinstance(m, Replied) and m.request_id == request_id]
        return found[0] if found else None

    def snapshot(self, name: str) -> list[messages.SnapshotPiece]:
        """The pieces of a snapshot that came so far."""
        return [m for m in self.broadcasts if isinstance(m, messages.SnapshotPiece) and m.snapshot == name]

    async def connect(self, host: str, connection: str) -> None:
        """Enrols a host and registers its agent."""
        reply = await self.ask(messages.EnrollHost(host, f"hash-{host}"))
        enrolment = msgspec.json.decode(reply.body)["host_id"]
        register = Register(host, protocol=1, journal_id="journal", commands=["pull"])
        info = messages.Connection(connection, "gateway", host, enrolment, register, since_boot_s=clock.now().boot_s)
        await self.send(messages.AgentRegistered(connection, "gateway", host, info))

    def beat(self, host: str, connection: str, number: int = 0) -> Event:
        """A heartbeat event."""
        return messages.HeartbeatReceived(connection, "gateway", host, Heartbeat(command_pid=number))

    def sent(self) -> list[str]:
        """Ids of the commands delivered so far, in order, with repeats."""
        return [m.command_id for m in self.deliveries if isinstance(m, messages.DeliverCommand)]
