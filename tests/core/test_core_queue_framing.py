"""The framing of messages, with multiprocessing.connection itself as the oracle."""

from __future__ import annotations

import contextlib
import itertools
import os
import struct
from multiprocessing.connection import Connection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processes.core.errors import RemoteError
from processes.core.travels.queue_framing import IncomingStream, framed

messages_ = st.lists(st.binary(max_size=20) | st.integers(250, 2_000).map(lambda size: b"x" * size), max_size=6)
cuts_ = st.lists(st.integers(1, 9) | st.integers(1, 3_000), min_size=1, max_size=6)


def by_oracle(messages: list[bytes]) -> bytes:
    """What multiprocessing.connection writes for these messages: less than a pipe holds."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as file:
        with Connection(writing, readable=False) as connection:
            for message in messages:
                connection.send_bytes(message)
        return file.read()


def read_by_oracle(stream: bytes) -> list[bytes]:
    """What multiprocessing.connection reads of this stream."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as file:
        file.write(stream)
    found: list[bytes] = []
    with Connection(reading, writable=False) as connection, contextlib.suppress(EOFError):
        while True:
            found.append(connection.recv_bytes())
    return found


@given(messages_, cuts_)
def test_what_multiprocessing_writes_is_read_however_it_is_cut(messages: list[bytes], cuts: list[int]) -> None:
    """Catches a prefix that is cut, a message taken too early, and one lost behind another in the same piece."""
    stream, incoming, found = by_oracle(messages), IncomingStream(), []
    at, sizes = 0, itertools.cycle(cuts)
    while at < len(stream):
        size = next(sizes)
        found += incoming.feed(stream[at : at + size])
        at += size
    assert found == messages
    assert len(incoming) == 0


@given(messages_)
def test_what_is_framed_multiprocessing_reads(messages: list[bytes]) -> None:
    assert read_by_oracle(b"".join(map(framed, messages))) == messages


@pytest.mark.parametrize("cut", [4, 5, 9, 1000])
@pytest.mark.parametrize("size", [11, 0x7FFFFFFF, -1])
def test_a_message_that_is_too_long_is_refused_before_it_has_come(size: int, cut: int) -> None:
    """-1 announces a longer length, which no message of ours has."""
    stream = struct.pack("!i", size) + b"x" * 11
    incoming = IncomingStream(message_bytes_max=10)
    with pytest.raises(RemoteError):
        [incoming.feed(piece) for piece in (stream[:cut], stream[cut:])]


def test_half_a_message_is_kept_and_counted() -> None:
    incoming = IncomingStream()
    assert incoming.feed(framed(b"whole") + b"\0\0") == [b"whole"]
    assert len(incoming) == 2
    assert incoming.feed(b"\0\1") == []
    assert incoming.feed(b"x") == [b"x"]
    assert len(incoming) == 0


def test_the_rest_of_a_message_that_looks_like_a_whole_one_is_the_rest() -> None:
    message = b"ab" + framed(b"cd")
    incoming = IncomingStream()
    assert incoming.feed(framed(message)[:6]) == []
    assert incoming.feed(framed(b"cd")) == [message]
