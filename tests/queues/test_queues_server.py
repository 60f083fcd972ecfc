"""The server at its limits: strangers, silence, too many, no descriptors, no threads; and its main loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import shutil
import socket as sockets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Client, Connection
from pathlib import Path

import pytest
import structlog
from doubles.deadline import WAIT_S
from doubles.served import Served, serving

from processes.adapters.queue_link import QueueLink
from processes.adapters.queue_socket import FAILURES
from processes.adapters.queues import QueuesAway
from processes.adapters.state import pulse_file
from processes.adapters.state.pulse_file import PulseFile
from processes.core.errors import LocalError
from processes.core.travels import queue_calls
from processes.core.values import Position
from processes.queues import loop
from processes.queues.peer import CALLS_MAX

LOG = structlog.stdlib.get_logger("fleethub")


@pytest.fixture
def socket() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="fhq"))
    yield folder / "queues.sock"
    shutil.rmtree(folder)


def until(true: Callable[[], bool]) -> None:
    """Returns once it is true."""
    deadline_s = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline_s
        time.sleep(0.002)


def ping(socket: Path, timeout_s: float = 5.0) -> float:
    async def once() -> float:
        link = QueueLink(socket, "watchdog", timeout_s=timeout_s)
        try:
            return await link.ping()
        finally:
            await link.close()

    return asyncio.run(once())


def connect(socket: Path) -> sockets.socket:
    """A connection that proves nothing."""
    silent = sockets.socket(sockets.AF_UNIX)
    silent.settimeout(WAIT_S)
    silent.connect(str(socket))
    return silent


def is_ended(connection: sockets.socket) -> bool:
    """True when the other end has closed, within the socket's own timeout."""
    try:
        while connection.recv(4096):
            pass
    except ConnectionResetError:
        pass
    return True


# Strangers


def test_silent_connections_hold_nobody_up_and_are_ended(socket: Path) -> None:
    """The handshake of each is on a thread of its own, and has a deadline even for a peer that trickles."""
    with serving(socket, handshake_s_max=60.0) as served:  # so that nothing but the reaping can end them
        server = served.server
        silent = [connect(socket) for _ in range(20)]
        assert ping(socket) < WAIT_S
        for connection in silent[:10]:
            with contextlib.suppress(OSError):
                connection.sendall(b"\0\0\0\x10")  # a length, and never the rest
        until(lambda: len(handshakes()) == 20)
        assert served.ask(lambda: server.reap(time.monotonic())) == 0
        assert served.ask(lambda: server.reap(time.monotonic() + 61)) == 20
        assert all(is_ended(connection) for connection in silent)
        until(lambda: served.ask(lambda: len(server._peers)) == 0)
        until(lambda: not handshakes())
        for connection in silent:
            connection.close()


def test_a_peer_without_the_key_gets_nothing_done(socket: Path) -> None:
    with serving(socket) as served:
        with pytest.raises(FAILURES):
            Client(str(socket), "AF_UNIX", authkey=b"0" * 32)
        connection = connect(socket)
        connection.sendall((5).to_bytes(4, "big") + b"hello")
        assert is_ended(connection)
        connection.close()
        assert served.ask(served.server.counts).received == 0
        assert ping(socket) < WAIT_S


def test_a_pickle_is_refused_as_what_it_is_not(socket: Path) -> None:
    """A peer that has the key and speaks multiprocessing's own language gets an answer that is no pickle, and runs
    nothing.
    """
    ran = socket.parent / "ran"
    with serving(socket):
        key = socket.with_suffix(".key").read_bytes()
        with Client(str(socket), "AF_UNIX", authkey=key) as wire:
            wire.send_bytes(pickle.dumps(Touch(ran)))
            reply = queue_calls.decode_reply(wire.recv_bytes())
    assert isinstance(reply, queue_calls.RefusedReply)
    assert reply.code == "format"
    assert not ran.exists()


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self._path}",)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"", "format"),
        (b"\x02\x80", "format"),
        (b"\x01", "malformed"),
        (b"\x01\x80", "malformed"),
        (b"\x01" + b"\x91" * 5000, "malformed"),
    ],
)
def test_bytes_that_are_no_call_are_refused_and_the_connection_lives_on(
    socket: Path, message: bytes, code: str
) -> None:
    with serving(socket), client(socket) as wire:
        wire.send_bytes(message)
        reply = queue_calls.decode_reply(wire.recv_bytes())
        assert isinstance(reply, queue_calls.RefusedReply)
        assert reply.code == code
        wire.send_bytes(queue_calls.encode(queue_calls.PingCall("watchdog", 0)))
        assert queue_calls.decode_reply(wire.recv_bytes()) == queue_calls.DoneReply()


def test_an_append_given_up_by_its_caller_is_not_carried_out_behind_its_retry(socket: Path) -> None:
    """What lay in a stopped server's sockets is taken up when it goes on, in any order."""

    async def work() -> None:
        link = QueueLink(socket, "gateway")
        for item in (b"first", b"retry"):
            assert (await link.append("events", [item])).accepted
        late = queue_calls.encode(
            queue_calls.AppendCall("gateway", 0, "events", [b"given up"], client=link._client, number=1)
        )
        with client(socket) as wire:
            wire.send_bytes(late)
            reply = queue_calls.decode_reply(wire.recv_bytes())
        assert isinstance(reply, queue_calls.RefusedReply)
        assert reply.code == "given_up"
        assert (await link.read("events", Position(0, 0))).items == [b"first", b"retry"]
        await link.close()

    with serving(socket):
        asyncio.run(work())


def test_a_message_over_the_limit_ends_its_connection_before_it_is_read(socket: Path) -> None:
    with serving(socket, message_s_max=60.0):
        with client(socket) as wire:
            os.write(wire.fileno(), (queue_calls.MESSAGE_BYTES_MAX + 1).to_bytes(4, "big"))
            with pytest.raises(FAILURES):
                wire.recv_bytes()
        assert ping(socket) < WAIT_S


def test_half_a_message_ends_its_connection_after_a_while(socket: Path) -> None:
    with serving(socket, message_s_max=0.05):
        with client(socket) as wire:
            os.write(wire.fileno(), (1000).to_bytes(4, "big") + b"half")
            with pytest.raises(FAILURES):
                wire.recv_bytes()
        assert ping(socket) < WAIT_S


def handshakes() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("handshake-")]


def client(socket: Path) -> Connection[bytes, bytes]:
    """A client of multiprocessing.connection itself."""
    return Client(str(socket), "AF_UNIX", authkey=socket.with_suffix(".key").read_bytes())


def test_replies_that_nobody_reads_end_their_connection_after_a_while(socket: Path) -> None:
    """And hold nobody else up meanwhile; what is not read is no more than a few replies."""
    read = queue_calls.ReadCall("hub", 0, "events", 0, 0, items_max=10, bytes_max=8 << 20, wait_s=0)
    with serving(socket, message_s_max=0.05) as served, client(socket) as wire:
        events = served.server._queues.named("events")
        served.ask(lambda: events.append([b"x" * (1 << 20)] * 4, 0.0))
        with contextlib.suppress(*FAILURES):  # it may be ended meanwhile
            for _ in range(50):
                wire.send_bytes(queue_calls.encode(read))
        until(lambda: not served.ask(lambda: served.server._peers))
        assert ping(socket) < WAIT_S


def test_calls_without_end_behind_a_read_that_waits_end_their_connection(socket: Path) -> None:
    read = queue_calls.ReadCall("hub", 0, "events", 0, 0, items_max=10, bytes_max=1, wait_s=10)
    with serving(socket) as served, client(socket) as wire:
        wire.send_bytes(queue_calls.encode(read))
        with contextlib.suppress(*FAILURES):
            for _ in range(CALLS_MAX + 1):
                wire.send_bytes(queue_calls.encode(queue_calls.PingCall("hub", 0)))
        until(lambda: not served.ask(lambda: served.server._peers))
        assert ping(socket) < WAIT_S


def test_what_was_sent_behind_a_read_that_waits_is_answered_behind_it(socket: Path) -> None:
    read = queue_calls.ReadCall("hub", 0, "events", 0, 0, items_max=10, bytes_max=100, wait_s=10)
    append = queue_calls.AppendCall("gateway", 0, "events", [b"x"])
    with serving(socket), client(socket) as reader, client(socket) as writer:
        reader.send_bytes(queue_calls.encode(read))
        for _ in range(3):
            reader.send_bytes(queue_calls.encode(queue_calls.PingCall("hub", 0)))
        writer.send_bytes(queue_calls.encode(append))
        replies = [queue_calls.decode_reply(reader.recv_bytes()) for _ in range(4)]
    assert isinstance(replies[0], queue_calls.BatchReply)
    assert replies[0].batch.items == [b"x"]
    assert replies[1:] == [queue_calls.DoneReply()] * 3


# Too many


def test_one_connection_too_many_is_told_so_and_takes_nobodys_place(socket: Path) -> None:
    """Counted are the connections of other processes; the server's own ping gets in at any time, or a full house would
    look frozen.
    """
    with serving(socket, connections_max=3) as served:
        others = [
            subprocess.Popen([sys.executable, "-c", HOLD, str(socket)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            for _ in range(3)
        ]
        for other in others:
            assert other.stdout is not None
            assert other.stdout.readline() == b"in\n"
        late = subprocess.run([sys.executable, "-c", HOLD, str(socket)], capture_output=True, text=True, timeout=WAIT_S)
        assert "too many connections" in late.stderr
        assert ping(socket) < WAIT_S
        assert served.ask(served.server.counts).connections == 3
        others[0].communicate()
        until(lambda: served.ask(served.server.counts).connections == 2)
        again = subprocess.run(
            [sys.executable, "-c", HOLD, str(socket)], capture_output=True, text=True, timeout=WAIT_S, input=""
        )
        assert again.stdout == "in\n"
        for other in others[1:]:
            other.communicate()


HOLD = """
import sys
from pathlib import Path
from processes.adapters.queue_socket import open_socket
wire = open_socket(Path(sys.argv[1]), 5.0)
print("in", flush=True)
sys.stdin.read()
wire.close()
"""


# No descriptors, no threads


@pytest.mark.parametrize("callers", [0, 1])
def test_a_process_without_descriptors_ends_whether_or_not_anybody_calls(socket: Path, callers: int) -> None:
    """The main loop raises, and the process exits with 70. A caller meanwhile is told that `queues` is away."""
    with subprocess.Popen(
        [sys.executable, "-c", EXHAUSTED, str(socket)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "exhausted\n"
        while callers and process.poll() is None:
            with pytest.raises(QueuesAway):
                ping(socket, timeout_s=0.1)
        _, said = process.communicate(timeout=WAIT_S)
    assert "LocalError: no connection can be" in said
    assert "Too many open files" in said


EXHAUSTED = """
import asyncio, os, resource, sys
from pathlib import Path
import structlog
from processes.adapters.state.pulse_file import PulseFile
from processes.adapters.queue_link import QueueLink
from processes.queues import loop
from processes.queues.server import Server
path = Path(sys.argv[1])
log = structlog.wrap_logger(structlog.PrintLogger(open("/dev/null", "w")))
async def main():
    server = Server(path, log, failing_s_max=0.3)
    server.start()
    link = QueueLink(path, "queues", timeout_s=0.2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    while True:
        try:
            os.open("/dev/null", os.O_RDONLY)
        except OSError:
            break
    print("exhausted", flush=True)
    await loop.run(server, link, PulseFile.__new__(PulseFile), asyncio.Event(), log, turn_s=0.05)
asyncio.run(main())
"""


def test_a_thread_that_cannot_be_started_costs_that_connection_only(
    socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(socket) as served:
        start, refused = threading.Thread.start, [3]

        def start_or_not(thread: threading.Thread) -> None:
            if thread.name.startswith("handshake-") and refused[0]:
                refused[0] -= 1
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", start_or_not)
        for _ in range(3):
            with pytest.raises(QueuesAway):
                ping(socket)
        assert ping(socket) < WAIT_S
        assert served.server.broken == ""


def test_an_accepter_that_cannot_go_on_says_so(socket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(socket, failing_s_max=0.1) as served:
        start = threading.Thread.start

        def start_or_not(thread: threading.Thread) -> None:
            if thread.name.startswith("handshake-"):
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", start_or_not)
        deadline_s = time.monotonic() + WAIT_S
        while not served.server.broken:
            assert time.monotonic() < deadline_s
            with contextlib.suppress(QueuesAway):
                ping(socket, timeout_s=0.2)
        assert "can't start new thread" in served.server.broken
        with pytest.raises(LocalError, match="can't start new thread"):
            MainLoop(served).until(lambda: False)


def test_descriptors_do_not_leak(socket: Path) -> None:
    with serving(socket):
        ping(socket)
        until(lambda: not handshakes())
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(30):
            ping(socket)
            connect(socket).close()
        until(lambda: len(os.listdir("/proc/self/fd")) <= before)


# The socket


def test_a_dead_ones_socket_is_replaced_and_a_closed_ones_is_gone(socket: Path) -> None:
    with sockets.socket(sockets.AF_UNIX) as dead:
        dead.bind(str(socket))
    socket.with_suffix(".new").touch()  # died between binding and renaming
    with serving(socket):
        assert ping(socket) < WAIT_S
    assert not socket.exists()


# The main loop


class MainLoop:
    """The main loop of a server, beside it in its event loop: run until a condition, then stopped."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.folder = served.socket.parent / "pulse"

    def until(self, true: Callable[[], bool]) -> None:
        asyncio.run_coroutine_threadsafe(self._until(true), self.served.loop).result()

    async def _until(self, true: Callable[[], bool]) -> None:
        link = QueueLink(self.served.socket, "queues", timeout_s=0.5)
        pulse, stop = PulseFile(self.folder, "queues"), asyncio.Event()
        running = asyncio.create_task(loop.run(self.served.server, link, pulse, stop, LOG, turn_s=0.01))
        deadline_s = time.monotonic() + WAIT_S
        try:
            while not true() and not running.done():
                assert time.monotonic() < deadline_s
                await asyncio.sleep(0.005)
        finally:
            stop.set()
            await running
            pulse.close()
            await link.close()

    def turn(self) -> int:
        found = pulse_file.read(self.folder, "queues")
        return found.turn if found else 0


def test_the_pulse_tells_turns_and_what_the_queues_hold(socket: Path) -> None:
    async def fill() -> None:
        link = QueueLink(socket, "hub")
        link.epoch = 5
        await link.append("events", [b"a", b"b", b"c"])
        await link.acknowledge("events", (await link.read("events", Position(0, 0), items_max=1)).position)
        await link.close()

    with serving(socket) as served:
        main_loop = MainLoop(served)
        asyncio.run(fill())
        main_loop.until(lambda: main_loop.turn() >= 3)
        pulse = pulse_file.read(main_loop.folder, "queues")
    assert pulse is not None
    assert (pulse.received, pulse.delivered, pulse.backlog, pulse.dropped, pulse.epoch) == (3, 1, 2, 0, 5)


def test_the_pulse_stands_still_while_nobody_is_let_in_or_answered(socket: Path) -> None:
    """A server that takes no connection, and one that answers none, freeze the proof, though the main loop turns; what
    is mended goes on.
    """
    with serving(socket) as served:
        main_loop, server = MainLoop(served), served.server

        def stands_still() -> Callable[[], bool]:
            """True when two pings have failed meanwhile."""
            began, since_s = main_loop.turn(), time.monotonic()

            def enough() -> bool:
                assert main_loop.turn() <= began + loop.TURNS_A_PING  # the next ping comes before
                return time.monotonic() - since_s > 1.1

            return enough

        main_loop.until(lambda: main_loop.turn() >= 2)
        served.ask(lambda: served.loop.remove_reader(server._listener))
        main_loop.until(stands_still())
        served.ask(server._accept_again)
        server._answer = lambda peer, message: None  # type: ignore[method-assign]
        main_loop.until(stands_still())
        del server._answer
        now = main_loop.turn()
        main_loop.until(lambda: main_loop.turn() > now + 1)


def test_one_of_three_turns_pings_and_after_a_failed_ping_each_does_until_one_is_answered(socket: Path) -> None:
    with serving(socket) as served:
        stop, seen = asyncio.Event(), list[str]()

        class Link(QueueLink):
            async def ping(self) -> float:
                seen.append("ping")
                if seen.count("ping") in (3, 4):
                    raise QueuesAway("not now")
                return 0.0

        class Told(PulseFile):
            def beat(self) -> None:
                seen.append("turn")
                if seen.count("turn") == 11:
                    stop.set()

        async def run() -> None:
            pulse = Told(socket.parent / "pulse", "queues")
            await asyncio.wait_for(loop.run(served.server, Link(socket, "queues"), pulse, stop, LOG, turn_s=0), WAIT_S)

        asyncio.run(run())
    three = ["ping", "turn", "turn", "turn"]
    assert seen == [*three, *three, "ping", "ping", *three, "ping", "turn", "turn"]
