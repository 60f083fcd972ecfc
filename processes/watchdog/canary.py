"""The canary: an agent and a subscriber of its own, through which a command goes the whole way round every ROUND_S.

A no-op command goes in at the operators' HTTP port, to the canary agent at the agents' port, and its end must come back
on the operators' WebSocket. So does the number of a heartbeat, every second. Connections that stand tell nothing of new
ones, so at each port it also knocks: a fresh connection, with TLS where that is on, and one answer.

Its own failures are results, never exceptions: the judging loop reads `report()` and goes on. Every wait has a
deadline.

Its tokens are new at each start; gateway and fanout know their hashes from run/canary.json.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import secrets
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from processes.adapters import settings as settings_of
from processes.adapters.settings import Settings
from processes.adapters.state import canary_file
from processes.core.errors import BadFrame
from processes.core.shown.status import CanaryFile, CanaryReport, PortReport
from processes.core.travels import agent_frames, operator_frames
from processes.core.travels.operator_frames import Delta, FullState, RowChange, Sync
from processes.core.values import CANARY_HOST, CANARY_OP, PROTOCOL, digest
from processes.watchdog import http_client
from processes.watchdog.evidence import within

BEAT_S: Final = 1.0
ROUND_S: Final = 2.0
KNOCK_PATH: Final = "/livez"  # at both ports
RETRY_S: Final = 0.1
STEP_S_MAX: Final = 2.0  # of one wait: connect, answer of the API, the command's way round
HURRY_S: Final = 0.5  # a round that takes longer gives way to one that was asked for meanwhile
GREEN_S: Final = 6.0  # a round (or knock) younger than this, under the current hub epoch: two may fail in a row
TTL_S: Final = 30.0
BEATS_KEPT: Final = 64  # sent and not yet seen
IDS_KEPT: Final = 256  # answered commands that are remembered, to answer a repeated one with `duplicate`
STATE_BYTES_MAX: Final = 64 << 20  # one full_state; 10,000 hosts are about 10 MiB


class _Fields(msgspec.Struct):
    state: str | None = None
    beat: int | None = None


class _Accepted(msgspec.Struct):
    id: str
    state: str = ""


class _Answer(msgspec.Struct):
    commands: list[_Accepted] = []


_fields = msgspec.json.Decoder(_Fields)
_answer = msgspec.json.Decoder(_Answer)
_command = msgspec.json.Decoder(_Accepted)
_encode = msgspec.json.encode

FAILURES: Final = (
    OSError,
    TimeoutError,
    WebSocketException,
    EOFError,
    http_client.BadAnswer,
    msgspec.DecodeError,
    BadFrame,
)


@dataclass
class Port:
    """A port of the installation, and what came of the fresh connections to it."""

    name: str  # agents or operators
    listen: str
    began_s: float | None = None  # when the last one that was answered was begun
    answered_s: float | None = None  # … and when its answer was there
    problem: str = ""  # empty: the last one was answered, or none has ended yet
    kicked: asyncio.Event = field(default_factory=asyncio.Event)

    def report(self, now_s: float) -> PortReport:
        """Return how it is."""
        age_s = None if self.answered_s is None else now_s - self.answered_s
        ok = age_s is not None and age_s <= GREEN_S
        return PortReport(self.name, self.listen, ok, None if age_s is None else round(age_s, 3), self.problem)


class Canary:
    """The canary of one installation. `run_agent`, `run_subscriber`, `run_rounds` and `run_knocks` run for ever, side
    by side.
    """

    def __init__(self, settings: Settings, *, step_s_max: float = STEP_S_MAX, round_s: float = ROUND_S) -> None:
        self._settings, self._step_s_max, self._round_s = settings, step_s_max, round_s
        self._agent_token, self._operator_token = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        self._journal_id = secrets.token_hex(8)
        self.registered = False  # the agent's connection stands
        self.subscribed = False  # the operator's connection stands
        self.epoch = 0  # the newest that the subscriber was told
        self.problem = "not yet connected"
        self._round_began_s: float | None = None  # of the last complete round
        self._round_over_s: float | None = None
        self._round_epoch = 0
        self._latency_s: float | None = None
        self._kicked = asyncio.Event()
        self._awaited: dict[str, asyncio.Event] = {}
        self._ended: collections.deque[str] = collections.deque(maxlen=IDS_KEPT)
        self._beat = 0
        self._beats: collections.OrderedDict[int, float] = collections.OrderedDict()
        self._beat_seen_s: float | None = None
        file = settings.file
        self._ports = (Port("agents", file.agents.listen), Port("operators", file.operators.listen))

    @property
    def round_began_s(self) -> float | None:
        """When the older of these began: the last complete round, the last knocks that were answered; None: one of
        them never was.
        """
        began = [self._round_began_s, *(port.began_s for port in self._ports)]
        return None if None in began else min(at_s for at_s in began if at_s is not None)

    def write_tokens(self) -> None:
        """Write the hashes of the tokens for gateway and fanout. Raises: OSError."""
        hashes = CanaryFile(digest(self._agent_token), digest(self._operator_token))
        canary_file.write(self._settings.canary, hashes)

    def kick(self) -> None:
        """Begin a round at once, because the hub is a new one or a connection stands again."""
        self._kicked.set()
        for port in self._ports:
            port.kicked.set()

    def report(self, hub_epoch: int, now_s: float) -> CanaryReport:
        """Return the canary's state for the report. It is green after a round within GREEN_S
        under the current hub epoch, if a knock at each port was answered within GREEN_S too.
        """
        ports = [port.report(now_s) for port in self._ports]
        age_s = None if self._round_over_s is None else now_s - self._round_over_s
        return CanaryReport(
            ok=age_s is not None and age_s <= GREEN_S and self._round_epoch == hub_epoch and all(p.ok for p in ports),
            age_s=None if age_s is None else round(age_s, 3),
            latency_ms=None if self._latency_s is None else round(self._latency_s * 1000, 2),
            epoch=self._round_epoch,
            round_mono_s=self._round_over_s,
            heartbeat_age_s=None if self._beat_seen_s is None else round(now_s - self._beat_seen_s, 3),
            ports=ports,
        )

    async def run_agent(self) -> None:
        """Be the agent, for ever: register, send heartbeats, answer every command at once."""
        while True:
            try:
                async with self._connected(self._settings.file.agents.listen, self._agent_token) as socket:
                    await self._agent(socket)
            except FAILURES as error:
                self.problem = f"agent side: {error or type(error).__name__}"
            self.registered = False
            await asyncio.sleep(RETRY_S)

    async def run_subscriber(self) -> None:
        """Be the subscriber, for ever: watch for the heartbeats and for the ends of commands."""
        while True:
            try:
                async with self._connected(self._settings.file.operators.listen, self._operator_token) as socket:
                    self.subscribed = True
                    self.kick()
                    async for message in socket:
                        self._see(message)
            except FAILURES as error:
                self.problem = f"operator side: {error or type(error).__name__}"
            self.subscribed = False
            await asyncio.sleep(RETRY_S)

    async def run_rounds(self) -> None:
        """Make a round every ROUND_S, at once after a kick, and every RETRY_S until one is complete."""
        while True:
            self._kicked.clear()
            began_s = time.monotonic()
            complete = False
            if self.registered and self.subscribed:
                try:
                    complete = await self._round()
                except FAILURES as error:
                    self.problem = f"round: {error or type(error).__name__}"
            if complete:
                self.problem = ""
                await self._until_kicked(self._kicked, began_s)
            else:
                await asyncio.sleep(RETRY_S)

    async def run_knocks(self) -> None:
        """Knock at each port every ROUND_S, at once after a kick, and RETRY_S after a knock that was not answered."""
        await asyncio.gather(*(self._knock_for_ever(port) for port in self._ports))

    async def _knock_for_ever(self, port: Port) -> None:
        request = http_client.Request("GET", KNOCK_PATH, {})
        while True:
            port.kicked.clear()
            began_s = time.monotonic()
            try:
                status, _ = await self._answer(port.listen, request)
            except FAILURES as error:
                port.problem = str(error) or f"no answer within {self._step_s_max:g} s"
            else:
                port.problem = "" if status == 200 else f"it was answered {status}"
            if port.problem:
                await asyncio.sleep(RETRY_S)
            else:
                port.began_s, port.answered_s = began_s, time.monotonic()
                await self._until_kicked(port.kicked, began_s)

    async def _round(self) -> bool:
        """Send one no-op command all the way round. Return False if it was refused or did not come back in time."""
        began_s = time.monotonic()
        body = _encode({"op": CANARY_OP, "hosts": [CANARY_HOST], "ttl_s": TTL_S})
        status, answer = await self._ask("POST", "/api/v1/commands", body)
        if status not in (200, 202):
            self.problem = f"round: the API answered {status}"
            return False
        command_id = next((command.id for command in _answer.decode(answer).commands), "")
        if not await self._ended_in_time(command_id):
            status, answer = await self._ask("GET", f"/api/v1/commands/{command_id}", b"")
            if status != 200 or _command.decode(answer).state != "succeeded":
                self.problem = "round: the command did not come back"
                return False
        now_s = time.monotonic()
        self._round_began_s, self._round_over_s, self._latency_s = began_s, now_s, now_s - began_s
        self._round_epoch = self.epoch
        return True

    async def _ended_in_time(self, command_id: str) -> bool:
        if command_id in self._ended:
            return True
        event = self._awaited.setdefault(command_id, asyncio.Event())
        deadline_s = time.monotonic() + self._step_s_max
        try:
            while time.monotonic() < deadline_s and not event.is_set():
                with contextlib.suppress(TimeoutError):
                    await within(min(HURRY_S, self._step_s_max), event.wait())
                if self._kicked.is_set():
                    break  # something died meanwhile, perhaps with this command: a new round tells sooner
        finally:
            self._awaited.pop(command_id, None)
        return event.is_set()

    async def _ask(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {self._operator_token}", "Content-Type": "application/json"}
        request = http_client.Request(method, path, headers, body)
        return await self._answer(self._settings.file.operators.listen, request)

    async def _answer(self, listen: str, request: http_client.Request) -> tuple[int, bytes]:
        host, port = settings_of.reachable(listen)
        return await within(self._step_s_max, http_client.ask(host, port, request, tls_context(self._settings)))

    async def _until_kicked(self, kicked: asyncio.Event, began_s: float) -> None:
        """Wait until the next round or knock is due, or one is asked for."""
        with contextlib.suppress(TimeoutError):
            await within(max(RETRY_S, began_s + self._round_s - time.monotonic()), kicked.wait())

    @contextlib.asynccontextmanager
    async def _connected(self, listen: str, token: str) -> AsyncIterator[ClientConnection]:
        context = tls_context(self._settings)
        socket = await connect(
            f"{'wss' if context else 'ws'}://{settings_of.joined(*settings_of.reachable(listen))}/ws",
            ssl=context,
            additional_headers={"Authorization": f"Bearer {token}"},
            compression=None,
            proxy=None,
            open_timeout=self._step_s_max,
            ping_interval=self._step_s_max,
            ping_timeout=self._step_s_max,
            close_timeout=RETRY_S,
            max_size=STATE_BYTES_MAX,
        )
        try:
            yield socket
        finally:
            await socket.close()

    async def _agent(self, socket: ClientConnection) -> None:
        register = agent_frames.Register(
            CANARY_HOST, host_type="canary", heartbeat_interval=BEAT_S, protocol=PROTOCOL, boot_id=self._journal_id,
            journal_id=self._journal_id, commands=[CANARY_OP], known=[],
        )  # fmt: skip
        await self._send(socket, register)
        # reports that the hub has not acknowledged: said again with each heartbeat
        unheard: dict[str, agent_frames.StatusFrame] = {}
        beats = asyncio.create_task(self._send_beats(socket, unheard))
        answered: collections.deque[str] = collections.deque(maxlen=IDS_KEPT)
        try:
            async for message in socket:
                frame = agent_frames.decode_hub(message.encode() if isinstance(message, str) else message)
                if isinstance(frame, agent_frames.Registered):
                    self.registered = True
                    self.kick()
                elif isinstance(frame, agent_frames.CommandFrame):
                    state = "duplicate" if frame.command_id in answered else "accepted"
                    answered.append(frame.command_id)
                    await self._send(socket, agent_frames.CommandAck(frame.command_id, state))
                    if len(unheard) < IDS_KEPT:
                        unheard[frame.command_id] = agent_frames.StatusFrame("ok", frame.command_id, frame.command, 0)
                    await self._send(socket, agent_frames.StatusFrame("ok", frame.command_id, frame.command, 0))
                elif isinstance(frame, agent_frames.Ack) and frame.offset is None:
                    unheard.pop(frame.command_id, None)
        finally:
            beats.cancel()
            # not `await beats`: what cancels this task meanwhile would be taken for the end of the beats
            await asyncio.gather(beats, return_exceptions=True)

    async def _send_beats(self, socket: ClientConnection, unheard: dict[str, agent_frames.StatusFrame]) -> None:
        """Send a numbered heartbeat every BEAT_S, with the number in the field of a command's pid, and repeat the
        reports that were not acknowledged.
        """
        while True:
            if self.registered:
                self._beat += 1
                self._beats[self._beat] = time.monotonic()
                while len(self._beats) > BEATS_KEPT:
                    self._beats.popitem(last=False)
                await self._send(socket, agent_frames.Heartbeat(command_pid=self._beat))
                for status in list(unheard.values()):
                    await self._send(socket, status)
            await asyncio.sleep(BEAT_S)

    async def _send(self, socket: ClientConnection, frame: agent_frames.AgentFrame) -> None:
        await within(self._step_s_max, socket.send(agent_frames.encode(frame), text=True))

    def _see(self, message: str | bytes) -> None:
        frame = operator_frames.decode(message)
        if not isinstance(frame, FullState | Delta | Sync):
            return
        if frame.epoch > self.epoch:
            self.epoch = frame.epoch
            self.kick()
        for change in operator_frames.decode_changes(frame) if isinstance(frame, Delta) else ():
            if change.kind == "command":
                self._see_command(change)
            elif change.kind == "host" and change.id == CANARY_HOST:
                self._see_beat(_fields.decode(change.fields or b"{}").beat)

    def _see_command(self, change: RowChange) -> None:
        if _fields.decode(change.fields or b"{}").state != "succeeded":
            return
        self._ended.append(change.id)  # the API's answer may come after the command's end
        if change.id in self._awaited:
            self._awaited[change.id].set()

    def _see_beat(self, beat: int | None) -> None:
        sent_s = self._beats.pop(beat, None) if beat is not None else None
        if sent_s is not None:
            self._beat_seen_s = sent_s


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """Return a context that trusts exactly the configured certificate, under any name; None without TLS."""
    certificate = settings.file.tls.certificate
    if not certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # the certificate's public name is not the loopback address that the canary uses
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the file may hold a leaf without its root
    context.load_verify_locations(certificate)
    return context
