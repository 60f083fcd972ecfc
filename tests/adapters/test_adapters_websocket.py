"""One WebSocket under peers that do everything wrong, on both event loops."""

from __future__ import annotations

import asyncio
import collections
import functools
import itertools
import random
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop
from doubles.agent_wire import AgentWire, NotLetIn
from doubles.deadline import WAIT_S
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response

from processes.adapters.websocket import (
    ABNORMAL,
    HEAD_BYTES_MAX,
    Limits,
    Message,
    Pacer,
    WebSocket,
    frame_text,
)
from processes.core.budgets import SHARE_BYTES, UNREAD_BYTES_MAX
from processes.core.values import CloseCode

REQUEST = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
LIMITS = Limits(1000)


class Recorder(WebSocket):
    """Notes everything that it is told."""

    def __init__(self, limits: Limits, pacer: Pacer, refuse: int = 0) -> None:
        super().__init__(limits, pacer)
        self.refuse = refuse
        self.messages: list[Message] = []
        self.reads = 0
        self.frames = self.bytes = 0  # read
        self.rest_s = 0.0  # after each turn
        self.slow = self.drained = 0
        self.ends: list[tuple[int, str]] = []
        self.ended = asyncio.Event()

    def on_request(self, request: Request) -> Response | None:
        return self.refusal(self.refuse, "no\n", {"Retry-After": "2"}) if self.refuse else None

    def on_messages(self, messages: list[Message]) -> None:
        self.reads += 1
        self.messages += messages

    def on_read(self, frames: int, size: int) -> float:
        self.frames, self.bytes = self.frames + frames, self.bytes + size
        return self.rest_s

    def on_slow(self) -> None:
        self.slow += 1

    def on_drained(self) -> None:
        self.drained += 1

    def on_closed(self, code: int, reason: str) -> None:
        self.ends.append((code, reason))
        self.ended.set()


class Never(Pacer):
    """No turn ever comes."""

    def _run_soon(self) -> None:
        pass


class Serving:
    """A port where every connection is a Recorder."""

    def __init__(self, limits: Limits, refuse: int) -> None:
        self.limits, self.refuse = limits, refuse
        self.port = 0
        self.made: list[Recorder] = []
        self.pacer = Pacer()

    def make(self) -> Recorder:
        self.made.append(Recorder(self.limits, self.pacer, self.refuse))
        return self.made[-1]

    async def pair(self, **options: Any) -> tuple[Recorder, AgentWire]:
        """Both ends of a new connection."""
        count = len(self.made)
        wire = await AgentWire.dial(self.port, None, **options)
        await until(lambda: len(self.made) > count and self.made[-1].opened)
        return self.made[-1], wire

    async def raw(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not holds():
            await asyncio.sleep(0.002)


@asynccontextmanager
async def serving(limits: Limits = LIMITS, refuse: int = 0) -> AsyncIterator[Serving]:
    found = Serving(limits, refuse)
    server = await asyncio.get_running_loop().create_server(found.make, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        for one in found.made:
            one.abort()
            await asyncio.wait_for(one.ended.wait(), WAIT_S)
            assert len(one.ends) == 1


Run = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def go(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(scenario())

    return go


def test_messages_go_both_ways_and_all_of_one_read_come_together(run: Run) -> None:
    async def scenario() -> None:
        async with serving() as s:
            ours, wire = await s.pair()
            wire.write(b"".join(Frame(Opcode.TEXT, b"%d" % n).serialize(mask=True) for n in range(50)))
            await until(lambda: len(ours.messages) == 50)
            assert [m.data for m in ours.messages] == [b"%d" % n for n in range(50)]
            assert ours.reads < 50
            assert ours.send(b'{"type": "a", "payload": {}}')
            assert ours.write(frame_text(b'{"type": "b", "payload": {}}'))
            await wire.hear("a")
            await wire.hear("b")
            await wire.close(1000)
            await ours.ended.wait()
            assert ours.ends == [(1000, "")]

    run(scenario)


def test_sending_to_a_closed_connection_returns_false_never_raises_and_closing_twice_is_harmless_a_thousand_times(
    run: Run,
) -> None:
    """Concurrent close and send, a thousand times, from both sides and in every order."""
    rng = random.Random(7)

    async def scenario() -> None:
        async with serving(Limits(1000, close_s_max=0.5)) as s:
            for first in range(0, 1000, 50):
                await asyncio.gather(*(once(s, number) for number in range(first, first + 50)))

    async def once(s: Serving, number: int) -> None:
        reader, writer = await s.raw()
        count = len(s.made)
        writer.write(REQUEST)
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        name = writer.get_extra_info("sockname")
        await until(lambda: any(one.peer == f"{name[0]}:{name[1]}" for one in s.made[max(count - 100, 0) :]))
        ours = next(one for one in s.made if one.peer == f"{name[0]}:{name[1]}")
        after: list[bool] = []

        async def send() -> None:
            for _ in range(5):
                sent = ours.send(b"x" * 100)
                sent_ready = ours.write(frame_text(b"y"))
                if ours.ends or ours._own is not None:
                    after.extend((sent, sent_ready))
                await asyncio.sleep(0)

        async def close() -> None:
            for _ in range(2):
                ours.close(CloseCode.RESTART, "ends")
                await asyncio.sleep(0)

        async def vanish() -> None:
            if number % 3 == 0:
                writer.transport.abort()
            elif number % 3 == 1:
                writer.write(Frame(Opcode.CLOSE, b"\x03\xe8").serialize(mask=True))

        async def abort() -> None:
            if number % 5 == 0:
                ours.abort()
                ours.abort()

        parts = [send(), close(), vanish(), send(), abort()]
        rng.shuffle(parts)
        await asyncio.gather(*parts)
        assert not any(after), "said to be sent after the end"
        assert ours.send(b"late") is False
        assert ours.write(frame_text(b"late")) is False
        ours.close(CloseCode.GOING_AWAY)
        writer.close()
        await asyncio.wait_for(ours.ended.wait(), WAIT_S)
        assert ours.send(b"late") is False
        ours.close(CloseCode.GOING_AWAY)
        ours.abort()
        ours.pause()
        ours.resume()
        assert len(ours.ends) == 1
        assert ours.buffer_bytes == 0

    run(scenario)


def test_our_close_code_arrives_and_counts(run: Run) -> None:
    async def scenario() -> None:
        async with serving() as s:
            ours, wire = await s.pair()
            ours.close(CloseCode.REPLACED, "ü" * 100)
            ours.close(CloseCode.RESTART)
            assert await wire.ended() == 4409
            await ours.ended.wait()
            assert ours.ends == [(4409, "ü" * 100)]

    run(scenario)


def test_a_peer_that_does_not_answer_a_close_is_aborted(run: Run) -> None:
    async def scenario() -> None:
        async with serving(Limits(1000, close_s_max=0.1)) as s:
            ours, _wire = await s.pair(mute=True)
            ours.close(CloseCode.RESTART)
            ours.close(CloseCode.GOING_AWAY)
            await asyncio.wait_for(ours.ended.wait(), WAIT_S)
            assert ours.ends[0][0] == 1012, "the first code counts"

    run(scenario)


def test_a_code_that_may_not_travel_is_an_abort(run: Run) -> None:
    async def scenario() -> None:
        async with serving() as s:
            ours, wire = await s.pair()
            ours.close(1006)
            assert await wire.ended() == 1006

    run(scenario)


def test_a_peer_that_does_not_read_is_slow_and_then_aborted_4008(run: Run) -> None:
    async def scenario() -> None:
        async with serving(Limits(1000, buffer_bytes_high=1 << 16, buffer_bytes_max=1 << 30, slow_s_max=0.3)) as s:
            ours, wire = await s.pair()
            wire.stop_reading()
            while not ours.is_slow:
                assert ours.send(b"x" * 60_000)
                await asyncio.sleep(0)
            assert ours.slow == 1
            await asyncio.wait_for(ours.ended.wait(), WAIT_S)
            assert ours.ends == [(4008, "does not read")]
            assert ours.drained == 0

    run(scenario)


def test_a_slow_peer_that_catches_up_lives(run: Run) -> None:
    async def scenario() -> None:
        async with serving(Limits(1000, buffer_bytes_high=1 << 16, buffer_bytes_max=1 << 30)) as s:
            ours, wire = await s.pair()
            payload = b'{"type": "x", "payload": {}}' + b" " * 60_000
            wire._reading.clear()
            wire._writer.transport.pause_reading()  # type: ignore[attr-defined]
            while not ours.is_slow:
                ours.send(payload)
                await asyncio.sleep(0)
            wire._reading.set()
            wire._writer.transport.resume_reading()  # type: ignore[attr-defined]
            await until(lambda: ours.drained == 1)
            assert not ours.is_slow
            assert ours.is_open

    run(scenario)


def test_more_unsent_bytes_than_the_bound_are_an_abort_at_once(run: Run) -> None:
    async def scenario() -> None:
        async with serving(Limits(1000, buffer_bytes_high=1 << 16, buffer_bytes_max=1 << 20)) as s:
            ours, wire = await s.pair()
            wire.stop_reading()
            while ours.send(b"x" * 60_000):
                assert ours.buffer_bytes <= (1 << 20) + 61_000
                await asyncio.sleep(0)
            await asyncio.wait_for(ours.ended.wait(), WAIT_S)
            assert ours.ends[0][0] == 4008

    run(scenario)


def test_a_flood_of_pings_from_a_peer_that_does_not_read_is_bounded(run: Run) -> None:
    async def scenario() -> None:
        async with serving(Limits(1000, buffer_bytes_high=1 << 14, buffer_bytes_max=1 << 16)) as s:
            ours, wire = await s.pair()
            wire.stop_reading()
            ping = Frame(Opcode.PING, b"p" * 125).serialize(mask=True) * 500
            async with asyncio.timeout(WAIT_S):
                while not ours.ends:
                    wire.write(ping)
                    await asyncio.sleep(0)
            assert ours.ends[0][0] == 4008

    run(scenario)


def test_a_silent_peer_is_closed_4000_and_one_that_answers_with_empty_pongs_lives(run: Run) -> None:
    async def scenario() -> None:
        async with serving(Limits(1000, ping_s=0.05, dead_s=0.2, close_s_max=0.1)) as s:
            silent, silent_wire = await s.pair(mute=True)
            foreign, wire = await s.pair()
            assert await silent_wire.ended() == 4000
            await asyncio.wait_for(silent.ended.wait(), WAIT_S)
            assert silent.ends == [(4000, "nothing heard")]
            pings = wire.pings
            await until(lambda: wire.pings > pings + 6)
            assert foreign.is_open

    run(scenario)


@pytest.mark.parametrize("kind", ["frame", "fragments"])
def test_a_message_that_does_not_end_is_closed_at_its_deadline_however_much_else_comes(run: Run, kind: str) -> None:
    """A byte or a fragment now and then keeps no connection; whole messages do, however slowly they come."""

    async def scenario() -> None:
        async with serving(Limits(1000, ping_s=0.05, dead_s=60.0, message_s_max=0.3, close_s_max=0.1)) as s:
            slow, wire = await s.pair()
            other, well = await s.pair()
            begun = Frame(Opcode.TEXT, b"x" * 900, fin=kind == "frame").serialize(mask=True)
            wire.write(begun[:10] if kind == "frame" else begun)
            more = b"x" if kind == "frame" else Frame(Opcode.CONT, b"x", fin=False).serialize(mask=True)
            ping = Frame(Opcode.PING, b"").serialize(mask=True)
            async with asyncio.timeout(WAIT_S):
                while not slow.ends:
                    wire.write(more if kind == "frame" else ping + more)
                    well.say_text(b"whole")
                    await asyncio.sleep(0.01)
            assert slow.ends == [(4000, "a message did not end in time")]
            assert slow.messages == []
            assert other.is_open
            assert len(other.messages) > 5

    run(scenario)


def test_a_message_is_not_late_because_of_a_pause_of_our_own(run: Run) -> None:
    async def scenario() -> None:
        async with serving(Limits(1000, ping_s=0.05, dead_s=60.0, message_s_max=0.5, close_s_max=0.1)) as s:
            ours, wire = await s.pair(mute=True)  # a pong would come in the middle of the frame
            whole = Frame(Opcode.TEXT, b"whole").serialize(mask=True)
            wire.write(whole[:5])
            await until(lambda: ours.bytes == 5)
            ours.pause()
            pongs = wire.pongs
            await until(lambda: wire.pongs > pongs + 12)  # some 0.6 s
            ours.resume()
            pings = wire.pings
            await until(lambda: wire.pings > pings + 1)  # it was judged
            wire.write(whole[5:])
            await until(lambda: [m.data for m in ours.messages] == [b"whole"])
            assert ours.is_open

    run(scenario)


def test_compression_is_never_agreed_on_and_a_compressed_frame_ends_its_connection(run: Run) -> None:
    """A frame of some bytes could unpack to gigabytes."""

    async def scenario() -> None:
        async with serving() as s:
            reader, writer = await s.raw()
            offer = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
            writer.write(REQUEST[:-2] + offer)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), WAIT_S)
            assert head.startswith(b"HTTP/1.1 101")
            assert b"extensions" not in head.lower()
            writer.write(b"\xc1\x83\0\0\0\0\xaa\x05\x00")  # text, fin, rsv1; masked with zeros
            said = await asyncio.wait_for(reader.readexactly(4), WAIT_S)
            assert (said[0], int.from_bytes(said[2:])) == (0x88, 1002)  # a close frame
            writer.close()
            await asyncio.wait_for(s.made[0].ended.wait(), WAIT_S)
            assert s.made[0].messages == []

    run(scenario)


def test_after_a_freeze_of_our_own_nobody_is_taken_for_dead(run: Run) -> None:
    """All keepalive timers of a loop that stood still are due at once, before anything that peers sent was read."""

    async def scenario() -> None:
        async with serving(Limits(1000, ping_s=0.2, dead_s=0.5)) as s:
            ours, wire = await s.pair()
            frozen_s = 2.0

            def freeze() -> None:
                import time  # noqa: PLC0415

                time.sleep(frozen_s)  # the loop itself stands still

            asyncio.get_running_loop().call_soon(freeze)
            await asyncio.sleep(0)
            pings = wire.pings
            await until(lambda: wire.pings > pings + 3)
            assert ours.is_open

    run(scenario)


def test_a_paused_peer_is_not_read_gets_pongs_and_is_not_taken_for_dead(run: Run) -> None:
    async def scenario() -> None:
        async with serving(Limits(1000, ping_s=0.05, dead_s=0.2)) as s:
            ours, wire = await s.pair()
            ours.pause()
            ours.pause()
            wire.say_text(b"waits")
            await until(lambda: wire.pongs >= 8)
            assert ours.messages == []
            ours.resume()
            ours.resume()
            await until(lambda: [m.data for m in ours.messages] == [b"waits"])
            assert ours.is_open

    run(scenario)


def test_an_upgrade_that_never_completes_ends_at_its_deadline(run: Run) -> None:
    """However diligently the bytes drip."""

    async def scenario() -> None:
        async with serving(Limits(1000, open_s_max=0.3)) as s:
            _, writer = await s.raw()
            async with asyncio.timeout(WAIT_S):
                for byte in REQUEST * 1000:
                    if s.made and s.made[0].ends:
                        break
                    writer.write(bytes([byte]))
                    await asyncio.sleep(0.01)
                    if s.made and s.made[0].opened:
                        pytest.fail("too fast a drip for this test")
            writer.close()

    run(scenario)


@pytest.mark.parametrize("request_head", [REQUEST[:-2] + b"X: " + b"x" * 40_000 + b"\r\n\r\n", b"x" * 40_000])
def test_a_head_too_large_is_431(run: Run, request_head: bytes) -> None:
    async def scenario() -> None:
        async with serving() as s:
            reader, writer = await s.raw()
            writer.write(request_head)
            assert (await reader.read(12)) == b"HTTP/1.1 431"
            writer.close()

    run(scenario)


def test_a_refused_peer_that_goes_on_sending_is_aborted(run: Run) -> None:
    async def scenario() -> None:
        async with serving(Limits(1000, close_s_max=0.3), refuse=503) as s:
            with pytest.raises(NotLetIn) as caught:
                await AgentWire.dial(s.port, None)
            assert caught.value.status == 503
            assert caught.value.headers["Retry-After"] == "2"
            _, writer = await s.raw()
            writer.write(REQUEST)
            await until(lambda: len(s.made) == 2)
            async with asyncio.timeout(WAIT_S):
                while not s.made[1].ends:
                    writer.write(b"more")
                    await asyncio.sleep(0.01)
            assert not s.made[1].opened
            writer.close()

    run(scenario)


BEHIND = {
    "nothing": b"",
    "ping": Frame(Opcode.PING, b"p").serialize(mask=True),
    "garbage": b"\xff\xff garbage",
    "half": b"\x81\xfe",
}


@pytest.mark.parametrize(
    "behind", BEHIND.values(), ids=BEHIND
)  # named: the mask is random, and so would be the test's name
def test_frames_right_behind_the_request_never_precede_its_answer(run: Run, behind: bytes) -> None:
    async def scenario() -> None:
        for refuse in (0, 401):
            async with serving(refuse=refuse) as s:
                for _ in range(2):
                    reader, writer = await s.raw()
                    writer.write(REQUEST + behind)
                    assert (await reader.readline()).startswith(b"HTTP/1.1 401" if refuse else b"HTTP/1.1 101")
                    writer.close()

    run(scenario)


def test_no_websocket_request_is_answered_and_closed(run: Run) -> None:
    async def scenario() -> None:
        async with serving() as s:
            for request, answer in (
                (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 426"),
                (b"\x16\x03\x01 nonsense\r\n\r\n", b""),
            ):
                reader, writer = await s.raw()
                writer.write(request)
                assert (await reader.read())[: len(answer) or None] == answer
                writer.close()

    run(scenario)


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (Frame(Opcode.TEXT, b"x" * 1001).serialize(mask=True), 1009),
        (
            Frame(Opcode.TEXT, b"x" * 600, fin=False).serialize(mask=True)
            + Frame(Opcode.CONT, b"x" * 600).serialize(mask=True),
            1009,
        ),
        (
            Frame(Opcode.TEXT, b"", fin=False).serialize(mask=True)
            + Frame(Opcode.CONT, b"", fin=False).serialize(mask=True) * 5000,
            1009,
        ),
        (Frame(Opcode.TEXT, b"unmasked").serialize(mask=False), 1002),
        (b"\x83\x80\x00\x00\x00\x00", 1002),
        (Frame(Opcode.CONT, b"of nothing").serialize(mask=True), 1002),
        (b"\xc1\x80\x00\x00\x00\x00", 1002),
    ],
    ids=[
        "too large",
        "too large in fragments",
        "too many fragments",
        "unmasked",
        "reserved opcode",
        "stray fragment",
        "reserved bit",
    ],
)
def test_what_breaks_the_protocol_ends_its_connection_with_its_code(run: Run, frames: bytes, code: int) -> None:
    async def scenario() -> None:
        async with serving() as s:
            ours, wire = await s.pair()
            _other, calm = await s.pair()
            wire.say_text(b"before")
            wire.write(frames)
            assert await wire.ended() == code
            await asyncio.wait_for(ours.ended.wait(), WAIT_S)
            assert ours.ends[0][0] == code
            assert [m.data for m in ours.messages] == [b"before"]
            calm.say_text(b"alive")
            await until(lambda: [m.data for m in s.made[1].messages] == [b"alive"])

    run(scenario)


def test_fragments_become_one_message_with_pings_between_them(run: Run) -> None:
    async def scenario() -> None:
        async with serving() as s:
            ours, wire = await s.pair()
            parts = [
                Frame(Opcode.BINARY, b"a", fin=False),
                Frame(Opcode.PING, b"p"),
                Frame(Opcode.CONT, b"", fin=False),
                Frame(Opcode.CONT, b"b"),
                Frame(Opcode.TEXT, b"", fin=False),
                Frame(Opcode.CONT, b"c"),
                Frame(Opcode.TEXT, b""),
            ]
            for part in parts:
                wire.write(part.serialize(mask=True))
            await until(lambda: len(ours.messages) == 3)
            assert ours.messages == [(b"ab", False), (b"c", True), (b"", True)]
            await until(lambda: wire.pongs == 1)

    run(scenario)


def test_what_was_said_before_a_close_in_the_same_segment_is_heard(run: Run) -> None:
    """An agent's last report and its close often travel together."""

    async def scenario() -> None:
        async with serving() as s:
            ours, wire = await s.pair()
            wire.write(
                Frame(Opcode.TEXT, b"last").serialize(mask=True) + Frame(Opcode.CLOSE, b"\x03\xe9").serialize(mask=True)
            )
            await asyncio.wait_for(ours.ended.wait(), WAIT_S)
            assert [m.data for m in ours.messages] == [b"last"]
            assert ours.ends == [(1001, "")]

    run(scenario)


def test_a_peer_that_vanishes_ends_with_1006(run: Run) -> None:
    async def scenario() -> None:
        async with serving() as s:
            ours, wire = await s.pair()
            await wire.hang_up()
            await asyncio.wait_for(ours.ended.wait(), WAIT_S)
            assert ours.ends == [(ABNORMAL, "")]
            silent = socket.create_connection(("127.0.0.1", s.port))
            await until(lambda: len(s.made) == 2)
            silent.close()
            await asyncio.wait_for(s.made[1].ended.wait(), WAIT_S)
            assert not s.made[1].opened

    run(scenario)


def test_a_herd_that_connects_at_once_leaves_the_loop_passes_between(run: Run) -> None:
    """And a call that raises takes no other with it."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        raised: list[str] = []
        loop.set_exception_handler(lambda _, context: raised.append(str(context["exception"])))
        clock = itertools.count()  # each look at it is a second later
        pacer = Pacer(10.0, lambda: float(next(clock)))
        done: list[tuple[int, int]] = []  # (number, pass)
        passes = 0

        def call(number: int) -> None:
            if number == 5:
                raise ValueError("five")
            done.append((number, passes))

        for number in range(100):
            pacer(functools.partial(call, number))
        while len(done) < 99:
            await asyncio.sleep(0)
            passes += 1
            assert passes < 200
        assert [number for number, _ in done] == [number for number in range(100) if number != 5]
        assert max(collections.Counter(when for _, when in done).values()) <= 10
        assert raised == ["five"]
        pacer(functools.partial(call, 100))
        await until(lambda: done[-1][0] == 100)

    run(scenario)


@pytest.mark.parametrize("at_once", [False, True])
def test_who_says_little_waits_for_no_round_of_those_who_talk_and_keeps_none_of_them_out(
    run: Run, at_once: bool
) -> None:
    """Message behind message, as a command's reports come. `at_once`: it was read so, while there was time, until those
    who talk came. The bugs it would catch: its second message waits behind a share of each; it has a place far behind
    them, for all that it ever said; it goes before them without end.
    """

    async def scenario() -> None:
        async with serving() as s:
            clock = itertools.count()
            s.pacer = Pacer(0.0, lambda: float(next(clock)))  # one turn in a pass
            talkers = [await s.pair() for _ in range(20)]
            quiet, quiet_wire = await s.pair()
            text = Frame(Opcode.TEXT, b"x" * 94).serialize(mask=True)
            if at_once:
                s.pacer.has_time = lambda: True  # type: ignore[method-assign]
                for _ in range(1000):
                    quiet.data_received(text)
                del s.pacer.has_time
                quiet.messages.clear()
            for ours, _ in talkers:
                ours.data_received(text * 2000)

            def shares() -> int:
                return sum(ours.bytes for ours, _ in talkers) // SHARE_BYTES

            await until(lambda: shares() > 40)
            for count in range(1, 11):
                begun = shares()
                quiet.data_received(text)
                while len(quiet.messages) < count:
                    await asyncio.sleep(0)
                assert shares() - begun <= 2, "the one that is under way, and that which a look of ours misses"
            quiet.data_received(text * 2000)
            begun, quiet_begun = shares(), quiet.bytes
            while quiet.bytes - quiet_begun < 40 * SHARE_BYTES:
                await asyncio.sleep(0)
            assert shares() - begun >= 20 * 30, "a share of each for a share of its own, its credit aside"
            assert max(ours.bytes for ours, _ in talkers) - min(ours.bytes for ours, _ in talkers) <= SHARE_BYTES
            assert quiet_wire.pings == 0

    run(scenario)


def test_what_is_read_at_once_and_what_waits_for_a_turn_have_the_time_of_a_pass_together(run: Run) -> None:
    """The bug it would catch: one that talks is read at once while others wait for their turns, or without end."""

    async def scenario() -> None:
        now_s = 100.0
        pacer = Pacer(0.01, lambda: now_s)
        assert not pacer.has_time(), "nobody says that this pass has just begun"
        ran: list[bool] = []
        pacer(lambda: ran.append(pacer.has_time()))
        await until(lambda: bool(ran))
        assert ran == [True], "it was the last that waited"
        now_s += 0.009
        assert pacer.has_time()
        pacer(lambda: None)
        assert not pacer.has_time(), "one waits, who comes before it"
        await until(lambda: not pacer.turns)
        assert pacer.has_time()
        now_s += 0.01
        assert not pacer.has_time(), "its time is over"

    run(scenario)


def test_what_comes_while_there_is_time_is_read_at_once_by_a_share(run: Run) -> None:
    async def scenario() -> None:
        async with serving() as s:
            ours, _ = await s.pair()
            s.pacer.has_time = lambda: True  # type: ignore[method-assign]
            text = Frame(Opcode.TEXT, b"x" * 94).serialize(mask=True)
            ours.data_received(text)
            assert len(ours.messages) == 1
            assert not ours._has_turn
            ours.data_received(text * 50)  # 5,000 bytes
            assert ours.bytes == len(text) + SHARE_BYTES
            ours.data_received(text)
            assert ours.bytes == len(text) + SHARE_BYTES, "what came before is read before it"
            await until(lambda: len(ours.messages) == 52)
            ours.pause()
            ours.data_received(text)
            assert ours.unread_bytes == len(text)

    run(scenario)


def test_who_talks_is_pinged_every_third_time_and_who_is_quiet_each_time(run: Run) -> None:
    async def scenario() -> None:
        async with serving(LIMITS._replace(ping_s=1000.0, dead_s=2000.0)) as s:
            ours, _ = await s.pair()
            written: list[bytes] = []

            def write(frames: bytes) -> bool:
                written.append(frames)
                return True

            ours.write = write  # type: ignore[method-assign]
            now_s = asyncio.get_running_loop().time()

            def pinged(heard_ago_s: float) -> bool:
                ours._disarm_keepalive()
                written.clear()
                ours._heard_s = asyncio.get_running_loop().time() - heard_ago_s
                ours.keep_alive(now_s)
                return written == [Frame(Opcode.PING, b"").serialize(mask=False)]

            assert [pinged(100.0) for _ in range(6)] == [False, False, True] * 2
            assert [pinged(600.0) for _ in range(3)] == [True] * 3, "at the next keepalive it would look mute"
            del ours.write

    run(scenario)


def test_an_idle_connection_has_no_state_of_the_library_and_no_buffer_and_goes_on_as_if_it_had(run: Run) -> None:
    async def scenario() -> None:
        async with serving(LIMITS._replace(ping_s=0.05)) as s:
            ours, wire = await s.pair()
            assert ours._frames.protocol is None
            wire.write(Frame(Opcode.TEXT, b"a", fin=False).serialize(mask=True))
            await until(lambda: ours.frames == 1)
            pings = wire.pings
            await until(lambda: wire.pings > pings + 2)
            assert ours._frames.protocol is not None, "a message is under way"
            wire.write(Frame(Opcode.CONT, b"b").serialize(mask=True))
            await until(lambda: ours._frames.protocol is None)
            assert [message.data for message in ours.messages] == [b"ab"]
            assert ours._unread is None
            ours.close(1000)
            await asyncio.wait_for(ours.ended.wait(), WAIT_S)
            assert ours.ends == [(1000, "")]

    run(scenario)


def test_a_peer_that_talks_without_end_before_its_answer_is_aborted(run: Run) -> None:
    async def scenario() -> None:
        async with serving() as s:
            held = Recorder(LIMITS, Never())
            s.made.append(held)
            s.make = lambda: held  # type: ignore[method-assign]
            server = await asyncio.get_running_loop().create_server(s.make, "127.0.0.1", 0)
            _, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
            writer.write(REQUEST + b"x" * (2 * HEAD_BYTES_MAX))
            await asyncio.wait_for(held.ended.wait(), WAIT_S)
            writer.close()
            server.close()

    run(scenario)


TINY = {
    "texts": Frame(Opcode.TEXT, b"x").serialize(mask=True),
    "pings": Frame(Opcode.PING, b"").serialize(mask=True),
    "pongs": Frame(Opcode.PONG, b"").serialize(mask=True),
    "fragments": Frame(Opcode.TEXT, b"", fin=False).serialize(mask=True)
    + Frame(Opcode.CONT, b"", fin=False).serialize(mask=True) * 1000 + Frame(Opcode.CONT, b"").serialize(mask=True),
}  # fmt: skip


@pytest.mark.parametrize("kind", TINY)
def test_one_that_talks_without_end_is_read_by_shares_and_others_have_their_turns_between(run: Run, kind: str) -> None:
    """The bug it would catch: all that was received is parsed in one pass of the loop."""

    async def scenario() -> None:
        async with serving() as s:
            clock = itertools.count()
            s.pacer = Pacer(0.0, lambda: float(next(clock)))  # one turn in a pass
            loud, loud_wire = await s.pair()
            quiet, quiet_wire = await s.pair()
            burst = TINY[kind] * (200_000 // len(TINY[kind]))
            loud_wire.write(burst)
            await until(lambda: loud.bytes > 0)
            quiet_wire.write(Frame(Opcode.TEXT, b"mine").serialize(mask=True))
            seen_bytes, passes_max = loud.bytes, 0
            while not quiet.messages:
                await asyncio.sleep(0)
                passes_max = max(passes_max, loud.bytes - seen_bytes)
                seen_bytes = loud.bytes
            assert passes_max <= 4 * SHARE_BYTES, "a pass may go by between two looks, not a hundred"
            assert loud.bytes < len(burst), "there was more to read"
            await until(lambda: loud.bytes == len(burst))
            assert loud.frames == burst.count(TINY[kind]) * (1002 if kind == "fragments" else 1)

    run(scenario)


def test_who_rests_is_not_read_and_hears_pongs_and_nothing_of_what_was_said_is_lost(run: Run) -> None:
    async def scenario() -> None:
        async with serving(LIMITS._replace(ping_s=0.05, dead_s=0.2)) as s:
            ours, wire = await s.pair()
            ours.rest_s = 0.6
            said = [b"%04d" % number for number in range(SHARE_BYTES // 5)]  # two shares
            wire.write(b"".join(Frame(Opcode.TEXT, text).serialize(mask=True) for text in said))
            await until(lambda: ours.bytes == SHARE_BYTES)
            heard = wire.pongs
            await until(lambda: wire.pongs >= heard + 3)
            assert ours.bytes == SHARE_BYTES
            assert not ours.ends, "silence does not count while we do not listen"
            ours.rest_s = 0.0
            await until(lambda: len(ours.messages) == len(said))
            assert [message.data for message in ours.messages] == said

    run(scenario)


def test_who_is_paused_and_resumed_within_a_turn_rests_all_the_same(run: Run) -> None:
    """The bug it would catch: `resume` within a turn asks for the next one, which comes in spite of the rest."""

    async def scenario() -> None:
        async with serving() as s:
            ours, wire = await s.pair()
            _, other = await s.pair()
            ours.rest_s = 3600.0

            def again(_: list[Message]) -> None:
                ours.pause()
                ours.resume()

            ours.on_messages = again  # type: ignore[method-assign,assignment]
            wire.write(Frame(Opcode.TEXT, b"x").serialize(mask=True) * 2000)
            await until(lambda: ours.bytes > 0)
            for _ in range(20):  # as many turns as somebody else needs for as many messages
                heard = len(s.made[1].messages)
                other.write(Frame(Opcode.TEXT, b"y").serialize(mask=True))
                await until(lambda heard=heard: len(s.made[1].messages) > heard)  # type: ignore[misc]
            assert ours.bytes == SHARE_BYTES
            ours.abort()

    run(scenario)


def test_unread_bytes_are_bounded_while_one_rests(run: Run) -> None:
    async def scenario() -> None:
        async with serving() as s:
            ours, wire = await s.pair()
            ours.rest_s = 3600.0
            stop = asyncio.Event()

            async def pour() -> None:
                while not stop.is_set():
                    wire.write(b"\x81\x80\x00\x00\x00\x00" * 10_000)
                    await wire.drained()

            pouring = asyncio.create_task(pour())
            await until(lambda: ours.bytes > 0)
            reading = ours.transport
            assert reading is not None
            await until(lambda: not reading.is_reading())
            assert ours.unread_bytes <= UNREAD_BYTES_MAX + 512 * 1024, "one read of the transport more"
            assert ours.bytes <= SHARE_BYTES
            stop.set()
            pouring.cancel()
            ours.close(1008, "enough")
            await asyncio.wait_for(ours.ended.wait(), WAIT_S)
            assert ours.ends == [(1008, "enough")]

    run(scenario)


def test_what_waits_for_its_turn_when_the_peer_is_gone_is_heard_first(run: Run) -> None:
    async def scenario() -> None:
        async with serving() as s:
            ours, wire = await s.pair()
            ours._disarm_keepalive()
            never = ours._pacer = Never()
            wire.write(Frame(Opcode.TEXT, b"last words").serialize(mask=True))
            await wire.hang_up()
            await asyncio.wait_for(ours.ended.wait(), WAIT_S)
            assert [message.data for message in ours.messages] == [b"last words"]
            assert ours.frames == 1, "it counts"
            never.turns.take()()  # comes too late, and does nothing

    run(scenario)
