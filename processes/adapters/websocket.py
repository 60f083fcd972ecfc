"""One WebSocket, server side: the sans-I/O protocol of `websockets` on an asyncio or uvloop transport.

Subclass WebSocket and override `on_request`, `on_open`, `on_messages`, `on_read`, `on_closed`. Call it only in the
loop's thread.

Whatever the peer does: `send` and `close` never raise and never wait. The head of a request, a message, the fragments
of a message, the unread and the unsent bytes are bounded. Connections are read by turns, a share of each (Pacer), so
that one which talks without end holds up no other and not the loop. A peer that sends no request, does not read, is
silent, does not end a message or does not answer a close is aborted at a deadline. Any inbound byte is a sign of life:
pong payloads are not matched, because some agents answer every ping with an empty pong.
"""

from __future__ import annotations

import asyncio
import http
import time
from collections.abc import Callable
from typing import Final, NamedTuple, cast

from websockets.exceptions import InvalidState, ProtocolError
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol

from processes.adapters.frame_reader import FrameReader
from processes.adapters.wheel import Wheel
from processes.core.budgets import PASS_S, SHARE_BYTES, UNREAD_BYTES_MAX
from processes.core.connections import plain
from processes.core.turns import Turns
from processes.core.values import CloseCode

HEAD_BYTES_MAX: Final = 32 * 1024  # of an upgrade request; a browser's with all its cookies is about 8 KiB
FRAGMENTS_MAX: Final = 4096  # of one message; source: websockets' own limit in its asyncio layer
REASON_BYTES_MAX: Final = 120  # RFC 6455 section 5.5: a control frame holds 125, two of them are the code
# keepalives in a row that need no ping, for the peer talks by itself: it may judge us by what it hears, and the most
# impatient of our agents does so after 45 s (SILENT_S_MAX in agent/link.py); the third comes after 30
UNPINGED_MAX: Final = 2
LATE_S: Final = 1.0  # if a keepalive timer comes later than this, *we* were away, so the peer is not judged
ABNORMAL: Final = 1006  # RFC 6455 section 7.1.5: the connection ended without a close frame


class Limits(NamedTuple):
    """The bounds of one connection.

    Units: bytes and seconds. With more than `buffer_bytes_high` unsent bytes the peer is slow (`on_slow`). It is
    aborted if it stays slow for `slow_s_max`, or at once above `buffer_bytes_max`. `ping_s`: time between keepalives;
    `dead_s`: a silence that ends the connection; `message_s_max`: for one message, from its first byte to its last;
    both are looked at each `ping_s`. `open_s_max`: for the whole upgrade request; `close_s_max`: from our close to the
    abort.
    """

    message_bytes_max: int
    buffer_bytes_high: int = 1 << 20
    buffer_bytes_max: int = 4 << 20
    slow_s_max: float = 10.0
    ping_s: float = 10.0
    dead_s: float = 20.0
    message_s_max: float = 20.0
    open_s_max: float = 10.0
    close_s_max: float = 2.0


class Message(NamedTuple):
    """One message as it came. The UTF-8 of a text is not checked yet: its decoder must do that."""

    data: bytes
    is_text: bool


def frame_text(text: bytes) -> bytes:
    """Return a text message as bytes on the wire, for `write` on many connections."""
    return Frame(Opcode.TEXT, text).serialize(mask=False)


_PING: Final = Frame(Opcode.PING, b"").serialize(mask=False)
_PONG: Final = Frame(Opcode.PONG, b"").serialize(mask=False)


class Pacer:
    """Runs calls soon and in order, for `pass_s` at most in one pass of the loop.

    So many clients that connect or talk at once do not stop everything else: measured, 5,000 upgrades in one pass take
    1.1 s. The number of waiting calls is bounded by the callers: there is one for each socket. `mono_s`: the clock; the
    loop's own stands still within a pass. `wheel`: when each connection is due for its keepalive.

    core/turns.py says whose call is next. What has come may also be read at once, without a call, while `has_time`:
    that is until `pass_s` after the calls last began. So calls and what is read at once have `pass_s` together.
    """

    def __init__(self, pass_s: float = PASS_S, mono_s: Callable[[], float] = time.monotonic) -> None:
        self._pass_s, self._mono_s = pass_s, mono_s
        self.turns: Turns[Callable[[], None]] = Turns()
        self._scheduled = False
        self._until_s = 0.0
        self._loop = asyncio.get_running_loop()
        self.wheel: Wheel[WebSocket] = Wheel(WebSocket.keep_alive)

    def has_time(self) -> bool:
        """Return whether something may be read at once: nobody waits for a turn, and the time is not over."""
        return not self.turns and self._mono_s() < self._until_s

    def __call__(self, call: Callable[[], None], place: int | None = None) -> None:
        """Run `call` in one of the next passes, at the place of its connection if it has one."""
        self.turns.put(call, place)
        self._run_soon()

    def _run_soon(self) -> None:
        if self.turns and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        """Call one after the other until the time is over. A call that raises is the loop's to report, and stops no
        other.
        """
        self._until_s = self._mono_s() + self._pass_s
        try:
            while self.turns:
                self.turns.take()()
                if self._mono_s() >= self._until_s:
                    break
        finally:
            self._scheduled = False
            self._run_soon()


class WebSocket(asyncio.Protocol):
    """One connection, from its first byte to its last. `pacer`: gives all connections of a server their turns.

    Invariants: `on_closed` is called exactly once for every connection, opened or not, and is the last call. While it
    lives, unread bytes wait for exactly one of these: a turn, the end of a rest, `resume`.
    Cost: an idle connection has no timer of its own, no buffer and none of the library's state.
    """

    __slots__ = (
        "_begun_s", "_deadline", "_due", "_ending", "_frames", "_has_turn", "_head", "_head_end", "_heard_s", "_held",
        "_loop", "_own", "_pacer", "_parts", "_parts_text", "_paused", "_place", "_rest", "_slow", "_transport",
        "_unpinged", "_unread",
        "limits", "opened",
    )  # fmt: skip

    def __init__(self, limits: Limits, pacer: Pacer) -> None:
        self.limits = limits
        self._pacer = pacer
        self.opened = False  # stays True after the end
        self._loop = asyncio.get_running_loop()
        self._frames = FrameReader(limits.message_bytes_max, ServerProtocol(max_size=limits.message_bytes_max))
        self._transport: asyncio.Transport | None = None
        self._head: bytearray | None = bytearray()  # until the request is answered
        self._head_end = -1  # the index of the blank line that ends the head; -1: not there yet
        self._unread: bytearray | None = None  # behind the head, and not parsed yet; never empty
        self._has_turn = False  # one is coming
        self._place = pacer.turns.at  # among those that wait for theirs
        self._rest: asyncio.TimerHandle | None = None
        self._held = False  # the transport reads nothing, for too much is unread
        self._parts: list[bytes] | None = None  # of a fragmented message; never empty
        self._parts_text = False
        self._own: tuple[int, str] | None = None  # our code and reason, if we ended the connection
        self._paused = False
        self._ending = False  # a close frame or a refusal is under way
        self._heard_s = self._loop.time()
        self._begun_s: float | None = None  # when the message that is under way was first read
        self._deadline: asyncio.TimerHandle | None = None  # of opening, later of closing
        self._slow: asyncio.TimerHandle | None = None
        self._due = 0  # the slot of its keepalive in the pacer's wheel; 0: none
        self._unpinged = 0  # keepalives since the last ping

    # For a subclass to override

    def on_request(self, request: Request) -> Response | float | None:
        """Called with the upgrade request. Return None to accept it, or a Response (see `refusal`) to refuse it.

        If it returns a number, it is called again after so many seconds.
        """
        return None

    def on_open(self) -> None:
        """Called when the upgrade is done."""

    def on_messages(self, messages: list[Message]) -> None:
        """Called with all messages that one turn completed, in order; never with none."""

    def on_read(self, frames: int, size: int) -> float:
        """Called at the end of each turn with the frames of every kind, and the bytes, that were read in it. Return for
        how many seconds nothing more is to be read; 0: go on.
        """
        return 0.0

    def on_slow(self) -> None:
        """Called when the unsent bytes exceed `buffer_bytes_high`."""

    def on_drained(self) -> None:
        """Called when the peer has caught up after `on_slow`."""

    def on_closed(self, code: int, reason: str) -> None:
        """Called when the connection is gone, with our code if we ended it, else the peer's, else 1006."""

    # For a subclass, or its owner, to call at any time

    @property
    def is_open(self) -> bool:
        """Return True while messages can be sent."""
        transport = self._transport
        return transport is not None and self._frames.state is State.OPEN and not transport.is_closing()

    @property
    def is_slow(self) -> bool:
        """Return True between `on_slow` and `on_drained`."""
        return self._slow is not None

    @property
    def is_paused(self) -> bool:
        """Return True between `pause` and `resume`."""
        return self._paused

    @property
    def transport(self) -> asyncio.Transport | None:
        """Return the transport; None before the connection is made and after it is lost."""
        return self._transport

    @property
    def buffer_bytes(self) -> int:
        """Return how many bytes were sent here and not yet handed to the kernel."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    @property
    def unread_bytes(self) -> int:
        """What was received and waits for a turn, a rest's end or `resume`."""
        return 0 if self._unread is None else len(self._unread)

    @property
    def peer(self) -> str:
        """Return the peer's address and port, of IPv6 in brackets; empty if it has none."""
        name = self._transport.get_extra_info("peername") if self._transport is not None else None
        if not isinstance(name, tuple):
            return ""
        address = plain(name[0])
        return f"[{address}]:{name[1]}" if ":" in address else f"{address}:{name[1]}"

    def send(self, text: bytes) -> bool:
        """Send one text message. Return False if the connection is not open (any more), and nothing was sent.

        True means handed over, not arrived: the peer may be gone already. Never raises, never waits.
        """
        return self.write(frame_text(text))

    def write(self, frames: bytes) -> bool:
        """Send frames that are encoded already (`frame_text`), as `send` does."""
        if not self.is_open:
            return False
        cast(asyncio.Transport, self._transport).write(frames)
        self._bound()
        return True

    def close(self, code: int, reason: str = "") -> None:
        """Start the closing handshake; the connection is aborted after `close_s_max`.

        Never raises. A second call does nothing: the first code counts.
        """
        if self._transport is None or self._own is not None:
            return
        if self._frames.state is State.CONNECTING:
            self.abort(code, reason)
            return
        self._own = (code, reason)
        self.resume()  # otherwise the peer's answer would never be read
        if self._rest is not None:
            self._rest.cancel()
            self._end_rest()
        try:
            self._frames.library().send_close(code, reason.encode()[:REASON_BYTES_MAX].decode(errors="ignore"))
        except InvalidState:
            self._own = None  # the peer was first: its code counts
        except ProtocolError:
            self.abort(code, reason)  # a code that may not be sent
            return
        self._flush()
        self._arm_closing()

    def abort(self, code: int = ABNORMAL, reason: str = "") -> None:
        """End the connection now, whatever is unsent. Never raises; a second call does nothing."""
        if self._transport is not None:
            self._own = self._own or (code, reason)
            self._transport.abort()

    def pause(self) -> None:
        """Read nothing more until `resume`.

        Meanwhile the peer's silence does not count, and pongs show the peer that we live.
        """
        if not self._paused and self.is_open:
            self._paused = True
            self._hold()

    def resume(self) -> None:
        """Read again; the peer's silence counts from now on."""
        if self._paused:
            self._paused = False
            self._judge_anew()
            self._go_on()

    def acceptance(self, request: Request) -> Response:
        """Return the answer that lets the peer in; a refusal, if the request is not for a proper upgrade."""
        return self._frames.library().accept(request)

    @staticmethod
    def refusal(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
        """Return a plain HTTP answer instead of an upgrade, for `on_request`."""
        response = ServerProtocol().reject(http.HTTPStatus(status), text)
        for name, value in (headers or {}).items():
            response.headers[name] = value
        return response

    # Called by the transport (asyncio.Protocol)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called when a client has connected."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self.limits.buffer_bytes_high)
        self._deadline = self._loop.call_later(self.limits.open_s_max, self.abort)

    def data_received(self, data: bytes) -> None:
        """Called with the bytes that were read."""
        self._heard_s = self._loop.time()
        if self._head is not None:
            self._read_head(data)
            return
        if self._unread is None and self._is_listening() and self._pacer.has_time():
            if len(data) > SHARE_BYTES:
                self._keep_unread(data[SHARE_BYTES:])
            self._read(data[:SHARE_BYTES])
            return
        self._keep_unread(data)
        if self.unread_bytes > UNREAD_BYTES_MAX:
            self._hold()
        self._go_on()

    def eof_received(self) -> None:
        """Called when the peer will send no more; the transport closes itself."""

    def pause_writing(self) -> None:
        """Called when the unsent bytes exceed the high-water mark."""
        if self._slow is None:
            self._slow = self._loop.call_later(self.limits.slow_s_max, self.abort, CloseCode.SLOW, "does not read")
            self.on_slow()

    def resume_writing(self) -> None:
        """Called when the unsent bytes have fallen to the low-water mark."""
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None
            self.on_drained()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called when the connection has ended. What was read of it counts still, as far as it is not too much."""
        self._transport = None
        unread, self._unread = self._unread, None
        if unread is not None and self._own is None:
            some = bytes(unread[:UNREAD_BYTES_MAX])
            self.on_read(self._read_frames(some), len(some))
        for timer in (self._deadline, self._slow, self._rest):
            if timer is not None:
                timer.cancel()
        self._slow = None
        self._disarm_keepalive()
        protocol = self._frames.protocol
        # close_sent alone: the protocol closed by itself, because of a frame that broke it
        said = protocol and (protocol.close_rcvd or protocol.close_sent)
        self.on_closed(*(self._own or ((said.code, said.reason) if said else (ABNORMAL, ""))))

    def keep_alive(self, due_s: float) -> None:
        """Called by the pacer's wheel when the keepalive was due: pings the peer, or ends a mute one.

        Who was heard a moment ago is pinged every third time: an agent's heartbeats show that it lives, and pings to
        5,000 agents, with their pongs, cost a gateway a twentieth of a core.
        """
        self._due = 0
        now_s = self._loop.time()
        if self._held:
            self.write(_PONG)
        elif now_s - self._heard_s > self.limits.dead_s and now_s - due_s < LATE_S:
            self.close(CloseCode.KEEPALIVE, "nothing heard")
            return
        elif now_s - (self._begun_s or now_s) > self.limits.message_s_max and now_s - due_s < LATE_S:
            self.close(CloseCode.KEEPALIVE, "a message did not end in time")
            return
        # who was heard longer ago could not be told from a mute one at the next keepalive, without a ping
        elif self._unpinged < UNPINGED_MAX and now_s - self._heard_s <= self.limits.ping_s / 2:
            self._unpinged += 1
        else:
            self._unpinged = 0
            self.write(_PING)
        self._frames.rest()
        self._arm_keepalive()

    # Inside

    def _read_head(self, data: bytes) -> None:
        """Collect the head of the request, and the bytes behind it until the request is answered."""
        head = cast(bytearray, self._head)
        looked = max(len(head) - 3, 0)
        head += data
        waiting = self._head_end >= 0  # the head is complete and waits for the pacer
        if not waiting:
            self._head_end = head.find(b"\r\n\r\n", looked)
            if self._head_end < 0 and len(head) <= HEAD_BYTES_MAX:
                return
        if not waiting and self._head_end < 0:
            self._answer_head()
        elif len(head) > 2 * HEAD_BYTES_MAX:
            self.abort()  # no client has a reason to send so much before the answer
        elif not waiting:
            self._pacer(self._answer_head)

    def _answer_head(self) -> None:
        """Accept the peer or refuse it.

        The protocol gets only the head: it would parse and answer frames in the same segment before the upgrade is
        answered.
        """
        if self._transport is None or self._transport.is_closing():
            return
        head, end = cast(bytearray, self._head), self._head_end
        if end < 0 or end > HEAD_BYTES_MAX:
            self._answer(self.refusal(431, "The head of the request is too large.\n"))
            return
        protocol = self._frames.library()
        protocol.receive_data(bytes(head[: end + 4]))
        requests = [event for event in protocol.events_received() if isinstance(event, Request)]
        if requests:
            self._ask(requests[0])
        else:
            self._answer(None)  # the protocol has itself answered bytes that are not a request

    def _ask(self, request: Request) -> None:
        """Let the subclass decide, now or later.

        Meanwhile the peer's bytes are collected, and the time for the upgrade goes on.
        """
        if self._transport is None or self._transport.is_closing():
            return
        said = self.on_request(request)
        if isinstance(said, Response | None):
            self._answer(said or self.acceptance(request))
        else:
            self._loop.call_later(said, self._ask, request)

    def _answer(self, response: Response | None) -> None:
        head, end = cast(bytearray, self._head), self._head_end
        self._head = None
        if response is not None:
            self._frames.library().send_response(response)
        self._flush()
        if not self.is_open:
            self._arm_closing()
            return
        self.opened = True
        cast(asyncio.TimerHandle, self._deadline).cancel()
        self._deadline = None
        # random at first: otherwise clients that connected together would always be pinged in one pass
        self._arm_keepalive(0.5 + (self._frames.library().id.int & 0xFFFF) / 0x20000)
        self._frames.rest()
        self.on_open()
        if len(head) > end + 4:
            self._keep_unread(head[end + 4 :])
        self._go_on()

    def _is_listening(self) -> bool:
        """Return whether what comes may be read."""
        return not self._paused and self._rest is None and not self._has_turn

    def _keep_unread(self, data: bytes | bytearray) -> None:
        if self._unread is None:
            self._unread = bytearray()
        self._unread += data

    def _go_on(self) -> None:
        """Ask for a turn if there is something to read, else let the transport read; neither while it rests or is
        paused.
        """
        if not self._is_listening():
            return
        if self._unread is not None:
            self._has_turn = True
            self._pacer(self._take_turn, self._pacer.turns.place(self._place))
        elif self._held:
            self._held = False
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()

    def _hold(self) -> None:
        if not self._held and self._transport is not None and not self._transport.is_closing():
            self._held = True
            self._transport.pause_reading()

    def _take_turn(self) -> None:
        self._has_turn = False
        if self._transport is None or self._unread is None or not self._is_listening():
            return  # what ends that asks for a turn again
        share = bytes(self._unread[:SHARE_BYTES])
        del self._unread[:SHARE_BYTES]  # costs nothing: the rest is not moved
        if not self._unread:
            self._unread = None
        turns = self._pacer.turns  # what is read at once keeps nobody waiting, and counts for nothing
        self._place = turns.used(turns.place(self._place), len(share))
        self._read(share)

    def _read(self, share: bytes) -> None:
        """Read a share, and rest or wait for the next turn."""
        rest_s = self.on_read(self._read_frames(share), len(share))
        if rest_s > 0 and self._transport is not None:
            self._hold()
            self._rest = self._loop.call_later(rest_s, self._end_rest)
        self._go_on()

    def _end_rest(self) -> None:
        self._rest = None
        self._judge_anew()
        self._go_on()

    def _judge_anew(self) -> None:
        """Count from now: nothing was read for a while, and that was ours."""
        self._heard_s = self._loop.time()
        self._begun_s = None if self._begun_s is None else self._heard_s

    def _read_frames(self, data: bytes) -> int:
        """Parse, answer what the protocol answers, and hand on the messages. Return how many frames there were."""
        messages: list[Message] = []
        if self._begun_s is None:
            self._begun_s = self._loop.time()
        frames = self._frames.read(data)
        for frame in frames:
            if self._own is not None:
                break  # frames after our own close are ignored
            if isinstance(frame, bytes):
                messages.append(Message(frame, True))
            else:
                self._assemble(frame, messages)
        if frames and self._parts is None:
            self._begun_s = None  # what may have begun behind the last frame counts from its next byte
        if self._frames.protocol is not None:
            self._flush()
            if not self.is_open:
                self._arm_closing()
        if messages:
            self.on_messages(messages)
        return len(frames)

    def _assemble(self, frame: Frame, messages: list[Message]) -> None:
        if frame.opcode in {Opcode.TEXT, Opcode.BINARY}:
            self._parts, self._parts_text = None, frame.opcode is Opcode.TEXT
        elif frame.opcode is not Opcode.CONT:
            return  # control frames are answered by the protocol itself
        if frame.fin and self._parts is None:
            messages.append(Message(bytes(frame.data), self._parts_text))
            return
        parts = self._parts = self._parts or []
        parts.append(bytes(frame.data))
        if frame.fin:
            messages.append(Message(b"".join(parts), self._parts_text))
            self._parts = None
        elif len(parts) >= FRAGMENTS_MAX:
            self.close(CloseCode.TOO_BIG, "too many fragments")
            self._parts = None

    def _flush(self) -> None:
        """Hand the protocol's bytes to the transport.

        A TLS connection cannot be half closed, so it is closed as a whole.
        """
        transport, protocol = self._transport, self._frames.protocol
        if protocol is None or not protocol.writes:
            return
        writes = protocol.data_to_send()
        if transport is None or transport.is_closing():
            return
        if data := b"".join(writes):  # at once: a write costs more than a pong
            transport.write(data)
        if not writes[-1]:  # the end, behind which there is nothing
            if transport.can_write_eof():
                transport.write_eof()
            else:
                transport.close()
        self._bound()

    def _bound(self) -> None:
        if self.buffer_bytes > self.limits.buffer_bytes_max:
            self.abort(CloseCode.SLOW, "does not read")

    def _arm_closing(self) -> None:
        """Abort the ending connection after `close_s_max`, whatever the peer still sends."""
        if self._transport is None or self._ending:
            return
        self._ending = True
        self._disarm_keepalive()
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self._loop.call_later(self.limits.close_s_max, self.abort)

    def _arm_keepalive(self, share: float = 1.0) -> None:
        self._due = self._pacer.wheel.put(self, self._loop.time() + self.limits.ping_s * share)

    def _disarm_keepalive(self) -> None:
        if self._due:
            self._pacer.wheel.remove(self, self._due)
            self._due = 0
