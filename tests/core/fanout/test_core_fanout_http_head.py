"""The head of a request: whatever strangers put into it, looking at it costs little."""

from __future__ import annotations

import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processes.core.fanout.http_head import HEAD_BYTES_MAX, HEADERS_MAX, cookies_of, of_framing, of_lines

WORDS = st.text(string.ascii_letters + string.digits + "-_.", min_size=1)


@given(st.dictionaries(WORDS, WORDS, max_size=5), st.sampled_from(["; ", ";", " ;  "]))
def test_cookies_are_read_as_they_were_sent(cookies: dict[str, str], between: str) -> None:
    assert cookies_of([between.join(f"{name}={value}" for name, value in cookies.items())]) == (cookies or {"": ""})


def test_of_a_cookie_that_comes_twice_the_first_counts_and_rubbish_hides_none() -> None:
    """The bug it would catch: a page of another port, which shares our cookies, puts one of our name behind ours."""
    assert cookies_of(['x="; a=1; a=2', "a=3; b"]) == {"x": '"', "a": "1", "b": ""}


@pytest.mark.parametrize("text", ['a="' + "\\" * 32_000 + '"', 'a="' + '\\"' * 16_000, "a=b;" * 8_000, ";" * 32_000])
def test_no_cookie_keeps_a_fanout_busy(text: str) -> None:
    """The parser of the standard library took 14 s for a head full of backslashes, on every Python before 3.11.10."""
    begun_s = time.process_time()
    cookies_of([text])
    assert time.process_time() - begun_s < 2.0


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
@pytest.mark.parametrize(("lines", "is_refused"), [(HEADERS_MAX, False), (HEADERS_MAX + 1, True), (8000, True)])
def test_a_head_of_too_many_lines_is_refused_and_what_stands_behind_it_does_not_count(
    end: bytes, lines: int, is_refused: bool
) -> None:
    head = end.join([b"GET / HTTP/1.1", *[b"a:"] * lines, b"", b""])
    for behind in (b"", b"\n" * 1000, head):
        found = of_lines(head + behind)
        assert (found is not None and found.status == 431) is is_refused
    assert (of_lines(head[:-1]) is not None) is is_refused, "it may never come to an end"
    assert of_lines(b"a" * HEAD_BYTES_MAX * 4 + b"\n" * 200) is None


@pytest.mark.parametrize(
    ("names", "status"),
    [
        ([b"host"], None),
        ([b"host", b"content-length"], None),
        ([b"host", b"transfer-encoding"], 411),
        ([b"transfer-encoding", b"content-length"], 400),
    ],
)
def test_a_body_in_chunks_is_not_taken(names: list[bytes], status: int | None) -> None:
    found = of_framing(names)
    assert (found and found.status) == status
