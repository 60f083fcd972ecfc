"""The head of a request: whatever strangers put into it, looking at it costs little."""

from __future__ import annotations

import pytest

from processes.core.fanout.http_head import HEAD_BYTES_MAX, HEADERS_MAX, of_framing, of_lines


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
