"""A bad network between a client and a server: a TCP proxy in user space, whose faults are set while it runs.

    async with BadNetwork("127.0.0.1", port) as network:
        … connect to network.port …
        network.slow(1000, Way.DOWN)      # from now on, for old and new connections
        network.heal()

Each fault concerns both directions, or those that are named: UP is from client to server.

    delay        every piece comes later, by a fixed time and a random one; the order stays
    slow         at most so many bytes a second: the sender meets a slow reader, the receiver a slow writer
    stall        nothing is taken and nothing is passed, not even the end; connections are accepted. What waits is
                 passed when it is over
    lose         what is written is taken and dropped, the end included. Named for one direction: a one-way network
    blackhole    both directions are lost, and a new connection leads nowhere
    cut_after    each connection is reset once so many more bytes were passed, in the middle of whatever it was
    cut          every connection is reset now
    half_open    one end of every connection is closed, and the other is not told
    refuse       nobody listens, and every connection is reset
    duplicate    some pieces are passed twice
    reorder      some pieces are passed after the one that follows

TCP itself never duplicates or reorders: it numbers its bytes. The last two corrupt the stream, as broken middleboxes
and memory do. No end can repair that: it must notice, drop the connection, and come back.

What was lost stays lost, for TCP has acknowledged it: `heal` resets the connections that miss something.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import random
import socket
import struct
from dataclasses import dataclass, field
from typing import Final

PIECE_BYTES: Final = 4096
WAITING_PIECES_MAX: Final = 16  # of one direction; then its sender waits
BUFFER_BYTES: Final = 16 << 10  # of each socket, in the kernel: a fault is felt before megabytes have gone into it
LOOK_S: Final = 0.01  # how soon a change of the faults is noticed
RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 s


class Way(enum.Enum):
    """A direction."""

    UP = "up"  # client → server
    DOWN = "down"  # server → client


class Side(enum.Enum):
    """An end of a connection."""

    CLIENT = "client"
    SERVER = "server"


BOTH: Final = (Way.UP, Way.DOWN)


@dataclass
class Lane:
    """How one direction is now."""

    delay_s: float = 0.0
    jitter_s: float = 0.0
    bytes_per_s: float | None = None
    stalled: bool = False
    lost: bool = False
    cut_after: tuple[int, int] | None = None  # bytes, and which order to cut this is: each counts anew
    duplicated: float = 0.0  # chance, of each piece
    reordered: float = 0.0


@dataclass(eq=False)
class _Link:
    """One connection through the network."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    missing: bool = False  # bytes of it were lost: it cannot go on
    gone: set[Side] = field(default_factory=set)  # ends that were closed without the other being told

    def close(self) -> None:
        """Ends the connection; what was written to it still arrives."""
        for writer in (self.client, self.server):
            if writer is not None:
                writer.close()

    def reset(self, *sides: Side) -> None:
        """Ends the connection of these ends, or of both, with a reset."""
        for side, writer in ((Side.CLIENT, self.client), (Side.SERVER, self.server)):
            if writer is not None and (not sides or side in sides):
                with contextlib.suppress(OSError):
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                writer.transport.abort()


class BadNetwork:
    """The proxy. Use as an async context. `port`: where clients connect to; `passed`: bytes, by direction."""

    def __init__(self, host: str, port: int, *, seed: int = 0) -> None:
        self._target = (host, port)
        self._random = random.Random(seed)
        self._lanes = {way: Lane() for way in Way}
        self._links: set[_Link] = set()
        self._orders = 0  # to cut
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.accepted = self.corrupted = 0  # connections; pieces that were passed twice or late
        self.passed = dict.fromkeys(Way, 0)

    async def __aenter__(self) -> BadNetwork:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.refuse()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def live(self) -> int:
        """How many connections go through it now."""
        return len(self._links)

    # faults

    def delay(self, delay_s: float, jitter_s: float = 0.0, *ways: Way) -> None:
        for lane in self._of(ways):
            lane.delay_s, lane.jitter_s = delay_s, jitter_s

    def slow(self, bytes_per_s: float, *ways: Way) -> None:
        for lane in self._of(ways):
            lane.bytes_per_s = bytes_per_s

    def stall(self, *ways: Way) -> None:
        for lane in self._of(ways):
            lane.stalled = True

    def lose(self, *ways: Way) -> None:
        for lane in self._of(ways):
            lane.lost = True

    def blackhole(self) -> None:
        self.lose()

    def cut_after(self, count: int, *ways: Way) -> None:
        self._orders += 1
        for lane in self._of(ways):
            lane.cut_after = (count, self._orders)

    def cut(self) -> None:
        for link in list(self._links):
            link.reset()

    def half_open(self, closed: Side) -> None:
        for link in self._links:
            link.gone.add(closed)
            link.missing = True
            link.reset(closed)

    def duplicate(self, chance: float, *ways: Way) -> None:
        for lane in self._of(ways):
            lane.duplicated = chance

    def reorder(self, chance: float, *ways: Way) -> None:
        for lane in self._of(ways):
            lane.reordered = chance

    def refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    async def listen(self) -> None:
        """Connections are accepted, on the same port as before."""
        if self._server is None:
            listening = socket.create_server(("127.0.0.1", self.port), backlog=1024)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
            self._server = await asyncio.start_server(self._accept, sock=listening, limit=PIECE_BYTES)
            self.port = listening.getsockname()[1]

    async def heal(self) -> None:
        """The network is well. Connections that miss something are reset; the others go on."""
        for lane in self._lanes.values():
            lane.__dict__.update(Lane().__dict__)
        for link in list(self._links):
            if link.missing:
                link.reset()
        await self.listen()

    def _of(self, ways: tuple[Way, ...]) -> list[Lane]:
        return [self._lanes[way] for way in ways or BOTH]

    # connections

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "called by the server, in a task"
        self._tasks.add(task)
        self.accepted += 1
        link = _Link(writer)
        self._links.add(link)
        try:
            await self._join(link, reader)
        except (OSError, asyncio.CancelledError):  # cancelled: the network ends, and asyncio would log it
            link.reset()  # an end was reset, or the server is not there: the other end learns of it
        finally:
            link.close()
            self._links.discard(link)
            self._tasks.discard(task)

    async def _join(self, link: _Link, reader: asyncio.StreamReader) -> None:
        """Passes everything in both directions, until both have ended."""
        while all(lane.stalled for lane in self._lanes.values()):
            await asyncio.sleep(LOOK_S)
        if all(lane.lost for lane in self._lanes.values()):
            link.missing = True
            await self._drain(reader)
            return
        connecting = socket.socket()
        connecting.setblocking(False)
        connecting.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        connecting.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        try:
            await asyncio.get_running_loop().sock_connect(connecting, self._target)
        except OSError:
            connecting.close()
            raise
        there, link.server = await asyncio.open_connection(sock=connecting, limit=PIECE_BYTES)
        ways = [
            asyncio.create_task(self._pass(Way.UP, link, reader, link.server)),
            asyncio.create_task(self._pass(Way.DOWN, link, there, link.client)),
        ]
        try:
            await asyncio.gather(*ways)
        finally:
            for task in ways:
                task.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pass(self, way: Way, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One direction of one connection, from its first byte to its end, which is passed too."""
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(WAITING_PIECES_MAX)
        taking = asyncio.create_task(self._take(way, link, reader, waiting))
        try:
            await self._give(way, link, waiting, writer)
        finally:
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)

    async def _take(
        self, way: Way, link: _Link, reader: asyncio.StreamReader, waiting: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        lane, due_s = self._lanes[way], 0.0
        now_s = asyncio.get_running_loop().time
        ending = False
        while not ending:
            while lane.stalled:
                await asyncio.sleep(LOOK_S)
            try:
                piece = await reader.read(PIECE_BYTES)
            except OSError:
                piece = b""
                if not link.gone:
                    link.reset()
            ending = not piece
            due_s = max(due_s, now_s() + lane.delay_s + self._random.uniform(0, lane.jitter_s))
            await waiting.put((due_s, piece))

    async def _give(
        self, way: Way, link: _Link, waiting: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
    ) -> None:
        lane, counter = self._lanes[way], _Counter()
        late = b""
        while True:
            due_s, piece = await waiting.get()
            await asyncio.sleep(due_s - asyncio.get_running_loop().time())
            while lane.stalled:
                await asyncio.sleep(LOOK_S)
            if lane.lost or link.gone:
                link.missing = True
                if not piece:
                    return  # the end is lost too: nobody is told
                continue
            if not piece:
                await self._write(way, link, writer, late, counter)
                with contextlib.suppress(OSError):
                    writer.write_eof()
                return
            if lane.reordered and not late and self._random.random() < lane.reordered:
                late = piece
                self.corrupted += 1
                continue
            copies = 2 if self._random.random() < lane.duplicated else 1
            self.corrupted += copies - 1
            await self._write(way, link, writer, piece * copies + late, counter)
            late = b""

    async def _write(
        self, way: Way, link: _Link, writer: asyncio.StreamWriter, piece: bytes, counter: _Counter
    ) -> None:
        """Passes the bytes on, no faster than the lane allows, and no more than it allows."""
        lane = self._lanes[way]
        while piece:
            size = len(piece)
            if lane.bytes_per_s is not None:
                size = max(1, min(size, int(lane.bytes_per_s * 0.05)))
            left = counter.left(lane)
            if left is not None and left <= size:
                writer.write(piece[:left])
                await self._written(writer)
                link.reset()
                return
            writer.write(piece[:size])
            await writer.drain()
            counter.passed += size
            self.passed[way] += size
            piece = piece[size:]
            await self._pace(lane, size)

    async def _pace(self, lane: Lane, size: int) -> None:
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        while lane.bytes_per_s is not None and loop.time() - begun_s < size / lane.bytes_per_s:
            await asyncio.sleep(min(LOOK_S, size / lane.bytes_per_s))

    async def _written(self, writer: asyncio.StreamWriter) -> None:
        """What was written has left this process: a reset would throw the rest away."""
        for _ in range(100):
            if writer.transport.get_write_buffer_size() == 0:
                return
            await asyncio.sleep(LOOK_S)

    async def _drain(self, reader: asyncio.StreamReader) -> None:
        while await reader.read(PIECE_BYTES):
            pass
        await asyncio.Event().wait()  # it has closed, and nobody answers that either: until the link is reset


class _Counter:
    """Bytes of one direction of one connection since the last order to cut."""

    def __init__(self) -> None:
        self.passed = 0
        self._order = 0

    def left(self, lane: Lane) -> int | None:
        """How many may pass until the connection is cut; None: it is not to be cut."""
        if lane.cut_after is None:
            return None
        count, order = lane.cut_after
        if order != self._order:
            self._order, self.passed = order, 0
        return count - self.passed
