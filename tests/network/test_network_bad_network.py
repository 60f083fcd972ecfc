"""The bad network itself: each of its faults, as the ends of a connection see it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import NamedTuple

import pytest
from doubles.bad_network import BadNetwork, Side, Way

SOON_S = 20.0  # what must happen, happens at once; a busy machine takes longer
NOTHING_S = 0.15  # for so long nothing comes
DONE = b"done"
LONG = bytes(range(256)) * 800  # some 200 KB: more than all buffers on the way


class Ends(NamedTuple):
    """A connection through the network: the client's end and the server's."""

    network: BadNetwork
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    far_reader: asyncio.StreamReader
    far_writer: asyncio.StreamWriter


class Server:
    """Accepts, and hands over the connections. Holds the ends of all streams, so that all are closed at the end."""

    def __init__(self) -> None:
        self.port = 0
        self.writers: list[asyncio.StreamWriter] = []
        self.connections: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        await self.connections.put((reader, writer))

    async def dial(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A client's connection to the network."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        self.writers.append(writer)
        return reader, writer


@contextlib.asynccontextmanager
async def network() -> AsyncIterator[tuple[BadNetwork, Server]]:
    server = Server()
    listening = await asyncio.start_server(server.accept, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        async with listening, asyncio.timeout(SOON_S), BadNetwork("127.0.0.1", server.port, seed=1) as found:
            yield found, server
    finally:
        for writer in server.writers:
            writer.transport.abort()
        await asyncio.sleep(0.01)  # transports are closed in the loop's next turns


@contextlib.asynccontextmanager
async def ends() -> AsyncIterator[Ends]:
    async with network() as (found, server):
        reader, writer = await server.dial(found.port)
        writer.write(b"first")
        far_reader, far_writer = await server.connections.get()
        assert await far_reader.readexactly(5) == b"first"
        yield Ends(found, reader, writer, far_reader, far_writer)


def story(tell: Callable[[Ends], Coroutine[None, None, None]]) -> None:
    async def told() -> None:
        async with ends() as found:
            await tell(found)

    asyncio.run(told())


async def silent(reader: asyncio.StreamReader) -> bool:
    """True when nothing comes for a while, not even the end."""
    try:
        return not await asyncio.wait_for(reader.read(1), NOTHING_S) and False
    except TimeoutError:
        return True


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What still came before the end, by a reset or not."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := await reader.read(4096):
            found += piece
    return found


def test_a_network_without_faults_passes_every_byte_and_the_end() -> None:
    async def tell(e: Ends) -> None:
        e.writer.write(LONG)
        e.writer.write_eof()
        received = b""
        while piece := await e.far_reader.read(65536):
            received += piece
        assert received == LONG
        e.far_writer.write(LONG)  # the other direction goes on after the end of the first
        e.far_writer.close()
        assert await e.reader.read(-1) == LONG
        assert e.network.passed[Way.DOWN] == len(LONG)

    story(tell)


def test_a_delay_holds_back_and_keeps_the_order() -> None:
    async def tell(e: Ends) -> None:
        e.network.delay(0.2, 0.05, Way.UP)
        begun_s = time.monotonic()
        for number in range(50):
            e.writer.write(b"%02d" % number)
            await asyncio.sleep(0)
        assert await e.far_reader.readexactly(100) == b"".join(b"%02d" % number for number in range(50))
        assert time.monotonic() - begun_s >= 0.2
        e.far_writer.write(DONE)
        assert await e.reader.readexactly(4) == DONE

    story(tell)


def test_a_slow_network_passes_so_many_bytes_a_second_and_its_sender_waits() -> None:
    async def tell(e: Ends) -> None:
        e.network.slow(1000.0, Way.DOWN)
        begun_s = time.monotonic()
        longer = LONG * 40  # 8 MB: more than the far end's kernel holds
        e.far_writer.write(longer)
        assert await e.reader.readexactly(300) == longer[:300]
        assert time.monotonic() - begun_s >= 0.25
        assert e.network.passed[Way.DOWN] < 2000
        assert e.far_writer.transport.get_write_buffer_size() > 0  # a slow reader, as the sender sees it
        e.network.slow(1e9)
        assert await e.reader.readexactly(len(longer) - 300) == longer[300:]

    story(tell)


def test_a_stalled_network_passes_nothing_until_it_is_over_and_then_everything() -> None:
    async def tell(e: Ends) -> None:
        e.network.stall()
        e.writer.write(DONE)
        e.writer.write_eof()
        assert await silent(e.far_reader)
        await e.network.heal()
        assert await e.far_reader.read(-1) == DONE

    story(tell)


def test_a_connection_that_comes_while_it_is_stalled_is_accepted_and_served_later() -> None:
    async def tell() -> None:
        async with network() as (found, server):
            found.stall()
            _, writer = await server.dial(found.port)
            writer.write(DONE)
            await asyncio.sleep(NOTHING_S)
            assert server.connections.empty()
            await found.heal()
            reader, _ = await server.connections.get()
            assert await reader.readexactly(4) == DONE

    asyncio.run(tell())


def test_a_black_hole_accepts_takes_everything_and_never_answers() -> None:
    async def tell() -> None:
        async with network() as (found, server):
            found.blackhole()
            reader, writer = await server.dial(found.port)
            writer.write(LONG)
            await writer.drain()
            assert await silent(reader)
            assert server.connections.empty()
            await found.heal()
            assert await ended(reader) == b""

    asyncio.run(tell())


def test_what_was_lost_is_not_passed_later_and_its_connection_is_reset_when_the_network_is_well() -> None:
    async def tell(e: Ends) -> None:
        e.network.blackhole()
        e.writer.write(b"lost")
        e.far_writer.write(b"lost")
        assert await silent(e.far_reader)
        assert await silent(e.reader)
        await e.network.heal()
        assert (await ended(e.reader), await ended(e.far_reader)) == (b"", b"")

    story(tell)


def test_an_end_that_is_lost_is_not_told_to_the_other_side() -> None:
    async def tell(e: Ends) -> None:
        e.network.lose(Way.UP)
        e.writer.close()
        assert await silent(e.far_reader)

    story(tell)


def test_a_connection_that_was_idle_in_a_black_hole_goes_on() -> None:
    async def tell(e: Ends) -> None:
        e.network.blackhole()
        await asyncio.sleep(NOTHING_S)
        await e.network.heal()
        e.writer.write(DONE)
        assert await e.far_reader.readexactly(4) == DONE

    story(tell)


@pytest.mark.parametrize("lost", Way)
def test_a_one_way_network_passes_the_other_way(lost: Way) -> None:
    async def tell(e: Ends) -> None:
        e.network.lose(lost)
        e.writer.write(DONE)
        e.far_writer.write(DONE)
        heard, deaf = (e.reader, e.far_reader) if lost is Way.UP else (e.far_reader, e.reader)
        assert await heard.readexactly(4) == DONE
        assert await silent(deaf)

    story(tell)


@pytest.mark.parametrize("way", Way)
def test_a_connection_is_cut_after_exactly_so_many_bytes(way: Way) -> None:
    async def tell(e: Ends) -> None:
        e.network.cut_after(7, way)
        writer, reader = (e.writer, e.far_reader) if way is Way.UP else (e.far_writer, e.reader)
        writer.write(b"0123456789")
        assert await ended(reader) in (b"0123456", b"")  # a reset may overtake what the kernel still holds
        assert e.network.passed[way] <= 7 + 5
        assert await ended(e.reader if way is Way.UP else e.far_reader) == b""

    story(tell)


@pytest.mark.parametrize("closed", Side)
def test_of_a_half_open_connection_one_end_is_told_and_the_other_is_not(closed: Side) -> None:
    async def tell(e: Ends) -> None:
        e.network.half_open(closed)
        told, other, writer = (
            (e.reader, e.far_reader, e.far_writer) if closed is Side.CLIENT else (e.far_reader, e.reader, e.writer)
        )
        assert await ended(told) == b""
        writer.write(LONG)
        await writer.drain()  # taken, and thrown away
        assert await silent(other)

    story(tell)


def test_a_network_that_refuses_has_no_listener_and_comes_back_on_the_same_port() -> None:
    async def tell() -> None:
        async with network() as (found, server):
            port = found.port
            found.refuse()
            await asyncio.sleep(0)
            with pytest.raises(ConnectionRefusedError):
                await server.dial(port)
            await found.heal()
            await server.dial(port)
            assert await server.connections.get()

    asyncio.run(tell())


def test_a_cut_resets_every_connection_and_new_ones_are_well() -> None:
    async def tell() -> None:
        async with network() as (found, server):
            streams = [await server.dial(found.port) for _ in range(5)]
            far = [await server.connections.get() for _ in range(5)]
            found.cut()
            for reader, _ in (*streams, *far):
                assert await ended(reader) == b""
            reader, _ = await server.dial(found.port)
            _, far_writer = await server.connections.get()
            far_writer.write(DONE)
            assert await reader.readexactly(4) == DONE
            assert found.accepted == 6

    asyncio.run(tell())


def test_a_piece_is_passed_twice_and_the_stream_is_longer_for_it() -> None:
    async def tell(e: Ends) -> None:
        e.network.duplicate(1.0, Way.UP)
        e.writer.write(DONE)
        assert await e.far_reader.readexactly(8) == DONE + DONE

    story(tell)


def test_a_piece_is_passed_after_the_one_that_follows() -> None:
    async def tell(e: Ends) -> None:
        e.network.reorder(1.0, Way.UP)
        e.writer.write(b"one")
        assert await silent(e.far_reader)
        e.writer.write(b"two")
        assert await e.far_reader.readexactly(6) == b"twoone"

    story(tell)


def test_the_end_of_a_reordered_stream_brings_the_piece_that_was_held_back() -> None:
    async def tell(e: Ends) -> None:
        e.network.reorder(1.0, Way.UP)
        e.writer.write(b"one")
        e.writer.write_eof()
        assert await e.far_reader.read(-1) == b"one"

    story(tell)


def test_faults_are_taken_up_by_connections_that_are_there() -> None:
    """Three at a time, one after the other, on the same connection."""

    async def tell(e: Ends) -> None:
        e.network.delay(0.05, 0.05)
        e.network.slow(2000.0, Way.UP)
        e.network.stall(Way.DOWN)
        e.writer.write(b"a" * 300)
        e.far_writer.write(DONE)
        assert await e.far_reader.readexactly(300) == b"a" * 300
        assert await silent(e.reader)
        await e.network.heal()
        assert await e.reader.readexactly(4) == DONE

    story(tell)


def test_nothing_is_left_when_the_network_ends() -> None:
    async def tell() -> None:
        async with network() as (found, server):
            for _ in range(3):
                await server.dial(found.port)
            await asyncio.sleep(0.05)
            found.half_open(Side.CLIENT)
            found.blackhole()
        assert found.live == 0
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(tell())
