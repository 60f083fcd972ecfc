"""One agent's connection, from the upgrade to its end: what its frames mean and what it may do. Pure.

    AWAITING ──register──▶ REGISTERED ──the hub holds it──▶ TOLD
        │                      │                             │
        └──────────────────────┴───── close, loss ───────────┴──▶ ENDED

The host is the token's, whatever the frames say. A frame before `register`, a second `register` and a frame that cannot
be decoded are malformed; the tenth malformed frame within a minute ends the connection. Frames of unknown types are
ignored, since newer agents may send more.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Final, NamedTuple, assert_never

import msgspec

from processes.core.errors import BadFrame
from processes.core.travels import agent_frames, messages
from processes.core.travels.messages import (
    AckReceived,
    AgentDisconnected,
    AgentRegistered,
    Connection,
    HeartbeatReceived,
    Json,
    OutputReceived,
    ProgressReceived,
    RejectReceived,
    StatusReceived,
    Token,
    TokenOffered,
)
from processes.core.values import PROTOCOL, STOP, CloseCode

MALFORMED_MAX: Final = 10  # within MALFORMED_S; contract
MALFORMED_S: Final = 60.0
WRITTEN_MAX: Final = 32  # ids remembered on a foreign agent's connection; it runs one command at a time
MERGED_CHARS_MAX: Final = 64 * 1024  # of output in one event; guess: well below what one append may hold
PROGRESS_BYTES_MAX: Final = 16 * 1024  # guess: NixFleet's largest is 1 KiB
CENSUS_PROGRESS_MAX: Final = 1024  # bytes of progress that a census repeats: it names up to ten thousand connections

AgentSaid = (
    AgentRegistered | AgentDisconnected | HeartbeatReceived | AckReceived | RejectReceived | OutputReceived
    | StatusReceived | ProgressReceived | TokenOffered
)  # fmt: skip


class ConnectionStage(enum.Enum):
    """How far a connection has come."""

    AWAITING = enum.auto()  # let in by its token, `register` not seen
    REGISTERED = enum.auto()  # `register` is on its way to the hub
    TOLD = enum.auto()  # the hub holds the registration, and the agent was told
    ENDED = enum.auto()  # closed or lost; nothing more is read or sent


class Emitted(NamedTuple):
    """One event and its queue item; of a heartbeat its row in an item of many (messages.pack_beats)."""

    event: AgentSaid
    item: bytes


class FramesRead(NamedTuple):
    """The result of one read: events for the hub, complaints for the log, the close code if the connection must end,
    how many valid heartbeats there were, and the name that a `register` claimed though the token is another host's.
    """

    events: list[Emitted]
    malformed: list[str]
    close: tuple[CloseCode, str] | None
    heartbeats: int = 0
    claimed: str = ""


class AgentConnection:
    """One connection's state.

    Invariant: `info` is None exactly while AWAITING, or ENDED without ever having registered.
    """

    __slots__ = (
        "_claimed", "_idle", "_malformed_s", "_progress", "_unended", "_written",
        "address", "gateway", "id", "info", "since_boot_s", "stage", "token",
    )  # fmt: skip

    def __init__(self, id: str, gateway: str, token: Token, address: str, since_boot_s: float) -> None:
        """`since_boot_s`: CLOCK_BOOTTIME when it was accepted. Its `register` may come later than that of a connection
        that the agent has made since.
        """
        self.id = id
        self.gateway = gateway
        self.token = token
        self.address = address
        self.since_boot_s = since_boot_s
        self.stage = ConnectionStage.AWAITING
        self.info: Connection | None = None
        self._malformed_s: tuple[float, ...] = ()  # the last MALFORMED_MAX
        self._written: tuple[str, ...] = ()  # the last WRITTEN_MAX
        # id and op of those that have no status yet, oldest first, WRITTEN_MAX at most
        self._unended: tuple[tuple[str, str], ...] = ()
        self._progress = Json(b"{}")  # the last progress that the agent sent
        self._claimed = ""  # another host's name
        self._idle = False  # a foreign agent said on this connection that it runs nothing

    @property
    def host(self) -> str:
        """The name that the token stands for."""
        return self.token.host

    @property
    def life(self) -> str:
        """Which life of which machine it is: its boot and its journal, as far as the agent said so."""
        return f"{self.info.register.boot_id} {self.info.register.journal_id}" if self.info is not None else ""

    @property
    def is_live(self) -> bool:
        """True between `register` and the end: the hub may speak of this connection."""
        return self.stage is ConnectionStage.TOLD or self.stage is ConnectionStage.REGISTERED

    @property
    def is_foreign(self) -> bool:
        """True for an agent that did not say `protocol: 1`: no acks, no ids, no journal."""
        return self.info is not None and self.info.register.protocol < PROTOCOL

    def usual_heartbeat(self, data: bytes) -> bytes | None:
        """Return the row of a heartbeat for `messages.pack_beats`, if this text is nothing else; None: `read` says.

        It does for nearly every frame what `read` does, at a fifth of the cost.
        """
        if not self.is_live:
            return None
        said = agent_frames.usual_heartbeat(data)
        if said is None:
            return None
        try:
            row = messages.encode_beat(self.id, self.host, said)
        except (OverflowError, msgspec.EncodeError):
            return None
        self._idle |= said.pending_command is None and self.is_foreign
        return row

    def read(self, frames: Iterable[tuple[bytes, bool]], boot_s: float) -> FramesRead:
        """Return the meaning of the messages of one read, in order. Shape: each is (bytes, is text).

        Consecutive output of one command becomes one event. Frames behind one that ends the connection are not read.
        Units: `boot_s` seconds of CLOCK_BOOTTIME.
        """
        gathered = _Gathered()
        malformed: list[str] = []
        close = None
        heartbeats = 0
        for data, is_text in frames:
            if self.stage is ConnectionStage.ENDED or close is not None:
                break
            try:
                event, close = self._step(data, is_text)
                if event is not None:
                    gathered.add(event)
                    heartbeats += isinstance(event, HeartbeatReceived)
            except BadFrame as error:
                malformed.append(error.message)
                close = self._complain(boot_s)
        return FramesRead(gathered.finish(), malformed, close, heartbeats, self._claimed)

    def tell(self, interval_s: float = 0.0) -> agent_frames.Registered | None:
        """Return the frame that tells the agent that the hub holds the registration, and how often it is to send
        heartbeats (0: as often as it said); None if it was told the same, or left. A foreign agent is told once.
        """
        if not self.is_live or self.info is None:
            return None
        told = self.stage is ConnectionStage.TOLD
        if told and (self.is_foreign or interval_s in (0.0, self.info.told_s)):
            return None
        self.stage = ConnectionStage.TOLD
        if not self.is_foreign:
            self.info = msgspec.structs.replace(self.info, told_s=interval_s)
        wanted_s = interval_s or self.info.register.heartbeat_interval
        return agent_frames.Registered(self.token.enrolment, PROTOCOL, wanted_s)

    def may_write(self, command_id: str) -> bool:
        """Return False if a foreign agent got this command on this connection before: it would run it twice."""
        return not (self.is_foreign and command_id in self._written)

    def wrote(self, command_id: str, op: str) -> None:
        """Called when the command's frame was handed to the socket."""
        if self.is_foreign:
            self._written = (*self._written, command_id)[-WRITTEN_MAX:]
            self._unended = (*self._unended, (command_id, op))[-WRITTEN_MAX:]

    def census(self) -> Connection | None:
        """Return the connection as a census names it; None if it is not registered any more."""
        if not self.is_live or self.info is None:
            return None
        info = (
            self.info
            if len(self._progress) > CENSUS_PROGRESS_MAX
            else msgspec.structs.replace(self.info, progress=self._progress)
        )
        return msgspec.structs.replace(info, written=list(self._written), idle=self._idle) if self.is_foreign else info

    def end(self, code: int, reason: str) -> AgentDisconnected | None:
        """End the connection. The first time, return the event for the hub if the hub ever heard of the connection."""
        was_live = self.is_live
        self.stage = ConnectionStage.ENDED
        return AgentDisconnected(self.id, self.gateway, self.host, code, reason[:200]) if was_live else None

    def _step(self, data: bytes, is_text: bool) -> tuple[AgentSaid | None, tuple[CloseCode, str] | None]:
        if not is_text:
            raise BadFrame("a binary frame")
        frame, facts = agent_frames.decode(data)
        if frame is None:
            return None, None
        if isinstance(frame, agent_frames.Register):
            return self._register(frame, facts)
        if self.stage is ConnectionStage.AWAITING:
            raise BadFrame(f"{agent_frames.FRAME_NAMES[type(frame)]} before register")
        return self._event(frame, facts), None

    def _register(
        self, frame: agent_frames.Register, facts: bytes
    ) -> tuple[AgentSaid | None, tuple[CloseCode, str] | None]:
        if self.stage is not ConnectionStage.AWAITING:
            raise BadFrame("register twice on one connection")
        if frame.hostname.lower() != self.host.lower():  # RFC 4343: names are compared without case
            self._claimed = frame.hostname
            return None, (CloseCode.RENAMED, "the token is another host's")
        self.info = Connection(
            self.id, self.gateway, self.host, self.token.enrolment, frame, Json(facts), self.address,
            since_boot_s=self.since_boot_s,
        )  # fmt: skip
        self.stage = ConnectionStage.REGISTERED
        return AgentRegistered(self.id, self.gateway, self.host, self.info), None

    def _event(self, frame: agent_frames.AgentFrame, facts: bytes) -> AgentSaid | None:
        who = (self.id, self.gateway, self.host)
        match frame:
            case agent_frames.Heartbeat():
                self._idle |= self.is_foreign and frame.pending_command is None
                return HeartbeatReceived(*who, frame, Json(facts))
            case agent_frames.CommandAck():
                return AckReceived(*who, frame.command_id, frame.state)
            case agent_frames.CommandRejected():
                return RejectReceived(*who, frame.reason, frame.command_id or self._rejected(), frame.current_command)
            case agent_frames.Output():
                return OutputReceived(*who, frame.records(), frame.command_id or self._oldest())
            case agent_frames.StatusFrame():
                command_id = frame.command_id
                # plant: foreign-words
                if self.is_foreign and not command_id:
                    command_id, frame = self._ended(frame)
                return StatusReceived(
                    *who, frame.status, frame.exit_code, frame.message, command_id, frame.command, frame.reason
                )
            case agent_frames.OperationProgress():
                self._progress = _progress(frame)
                return ProgressReceived(*who, self._progress, self._oldest())
            case agent_frames.NewToken():
                return TokenOffered(*who, frame.token_hash)
            case agent_frames.CommandComplete() | agent_frames.TestProgress():
                return None
            case agent_frames.Register():
                raise AssertionError("register has its own step")
            case _:
                assert_never(frame)

    # The following find the command that a foreign agent, which sends no ids, speaks of. They do so here, where the
    # order of frames is known: an event that reaches the hub twice must not be taken for one of the next command.
    # None: the event is of a command of an earlier connection.

    def _oldest(self) -> str | None:
        # a stop prints nothing of its own
        return next((command_id for command_id, op in self._unended if op != STOP), None)

    def _ended(self, frame: agent_frames.StatusFrame) -> tuple[str | None, agent_frames.StatusFrame]:
        """Return which command a status ends, and the status to report.

        A `stop` makes the agent send two statuses of the command that it ended, stopped/130 and error/-1, in either
        order, and none of its own. So the first is reported as that command's, with `stopped`; the second as the end of
        the stop.
        """
        named = [each for each in self._unended if each[1] == frame.command or not frame.command]
        stops = [each for each in self._unended if each[1] == STOP]
        if named:
            self._end(named[0])
            if stops and named[0][1] != STOP and frame.status != "ok":
                frame = msgspec.structs.replace(frame, status="stopped")
            return named[0][0], frame
        if stops:
            self._end(stops[0])
            return stops[0][0], msgspec.structs.replace(
                frame, status="ok", exit_code=0, command=STOP, message=f"stopped {frame.command}"
            )
        return None, frame

    def _end(self, ended: tuple[str, str]) -> None:
        at = self._unended.index(ended)
        self._unended = self._unended[:at] + self._unended[at + 1 :]

    def _rejected(self) -> str | None:
        if not self._unended:
            return None
        *left, (command_id, _) = self._unended
        self._unended = tuple(left)
        return command_id

    def _complain(self, boot_s: float) -> tuple[CloseCode, str] | None:
        times = self._malformed_s = (*self._malformed_s, boot_s)[-MALFORMED_MAX:]
        if len(times) == MALFORMED_MAX and boot_s - times[0] <= MALFORMED_S:
            return CloseCode.POLICY, "too many malformed frames"
        return None


class _Gathered:
    """The events of one read, encoded; consecutive output of one command as one event."""

    def __init__(self) -> None:
        self._emitted: list[Emitted] = []
        self._output: OutputReceived | None = None  # grows until something else comes
        self._chars = 0

    def add(self, event: AgentSaid) -> None:
        """Add an event. Raises: BadFrame, for numbers that do not fit a message; the events before it stay."""
        if not isinstance(event, OutputReceived):
            self._seal()
            self._emitted.append(_encoded(event))
            return
        for record in event.records:
            if (
                self._output is None
                or self._output.command_id != event.command_id
                or self._chars + len(record.data) > MERGED_CHARS_MAX
            ):
                self._seal()
                self._output, self._chars = msgspec.structs.replace(event, records=[]), 0
            self._output.records.append(record)
            self._chars += len(record.data)

    def finish(self) -> list[Emitted]:
        """Return all events, in order."""
        self._seal()
        return self._emitted

    def _seal(self) -> None:
        if self._output is not None:
            self._emitted.append(_encoded(self._output))
            self._output = None


def _encoded(event: AgentSaid) -> Emitted:
    try:
        if isinstance(event, HeartbeatReceived):
            return Emitted(event, messages.encode_beat(event.connection, event.host, event.heartbeat, event.facts))
        return Emitted(event, messages.encode(event))
    except (OverflowError, msgspec.EncodeError) as error:
        raise BadFrame(f"cannot be carried: {error}"[:300]) from None


def _progress(frame: agent_frames.OperationProgress) -> Json:
    try:
        progress = msgspec.json.encode(frame.progress)
    except (OverflowError, msgspec.EncodeError, RecursionError) as error:
        raise BadFrame(f"cannot be carried: {error}"[:300]) from None
    if len(progress) > PROGRESS_BYTES_MAX:
        raise BadFrame(f"progress of {len(progress)} bytes, at most {PROGRESS_BYTES_MAX}")
    return Json(progress)
