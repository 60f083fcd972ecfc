"""The client's requests end in time, however the answer comes: byte by byte, without an end, or not at all."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Iterable, Iterator

import pytest

from processes.client import http_link
from processes.client.errors import HubAway, Silence
from processes.client.http_link import Deadline, HttpLink

SHORT = Deadline(answer_s=0.5, connect_s=0.5)
SOON_S = 8.0  # far less than the answers below would take, and enough for a busy machine
DRIP_S = 0.05
HEAD = b"HTTP/1.1 200 OK\r\n"


@contextlib.contextmanager
def answering(pieces: Iterable[bytes], pause_s: float = DRIP_S) -> Iterator[HttpLink]:
    """A link to a server that answers with these pieces, one after the other."""
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    connection.recv(4096)
                    for piece in pieces:
                        connection.sendall(piece)
                        if ended.wait(pause_s):
                            return

        thread = threading.Thread(target=serve)
        thread.start()
        link = HttpLink(f"http://127.0.0.1:{server.getsockname()[1]}", "t0k", None, own=False)
        try:
            yield link
        finally:
            ended.set()
            link.close()
            thread.join()


def drip(text: bytes) -> Iterator[bytes]:
    return (bytes([byte]) for byte in text)


@pytest.mark.parametrize(
    "pieces",
    [
        itertools.chain([HEAD], itertools.cycle([b"X-More: yes\r\n"])),
        itertools.chain(drip(HEAD), itertools.cycle([b"a"])),
        itertools.chain([HEAD, b"Content-Length: 100000\r\n\r\n"], itertools.cycle([b"a"])),
        itertools.chain([HEAD, b"Transfer-Encoding: chunked\r\n\r\n"], itertools.cycle([b"1\r\na\r\n"])),
        itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n"),
        itertools.repeat(b""),
    ],
    ids=["head without end", "head byte by byte", "slow body", "slow chunks", "100 for ever", "nothing"],
)
def test_an_answer_that_comes_too_slowly_is_given_up_in_time(pieces: Iterable[bytes]) -> None:
    """The bug it would catch: each byte that comes begins the deadline anew, and a verb hangs for hours."""
    with answering(pieces) as link:
        begun_mono_s = time.monotonic()
        with pytest.raises(HubAway, match="does not answer") as caught:
            link.ask("GET", "/", SHORT)
        assert time.monotonic() - begun_mono_s < SOON_S
        assert caught.value.why is Silence.CUT


def test_a_body_that_is_slow_and_goes_on_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long listing over a slow line takes as long as it takes."""
    monkeypatch.setattr(http_link, "BODY_BYTES_PER_S_MIN", 1000.0)
    pieces = [HEAD, b"Content-Length: 20000\r\n\r\n", *[b"a" * 1000] * 20]
    with answering(pieces, 0.1) as link:
        assert len(link.ask("GET", "/", SHORT).body) == 20_000


def test_a_body_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_link, "BODY_BYTES_MAX", 100_000)
    pieces = itertools.chain([HEAD, b"\r\n"], itertools.repeat(b"a" * 10_000))
    with answering(pieces, 0.0) as link, pytest.raises(HubAway, match="longer than"):
        link.ask("GET", "/", SHORT)


def test_a_link_is_good_for_the_next_request_after_one_was_cut() -> None:
    answer = HEAD + b"Content-Length: 2\r\n\r\nok"
    with answering([answer]) as link:
        assert link.ask("GET", "/", SHORT).body == b"ok"
        with pytest.raises(HubAway):
            link.ask("GET", "/", SHORT)  # that connection is over, and nobody listens for another


def test_a_body_that_cannot_be_unpacked_is_an_absent_hub() -> None:
    answer = HEAD + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd"
    with answering([answer]) as link, pytest.raises(HubAway, match="does not answer"):
        link.ask("GET", "/", SHORT)
