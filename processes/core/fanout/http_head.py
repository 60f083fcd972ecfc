"""The head of a request on the operators' port: what is looked at before it is parsed, and the cookies in it. Pure.

Cost: linear in the bytes of the head, a millisecond at most. Whoever asks may be a stranger, and all others wait
meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

HEAD_BYTES_MAX: Final = 32 * 1024  # of a request; a browser's with all its cookies is about 8 KiB
HEADERS_MAX: Final = 100
TOO_LARGE: Final = f"the head of a request has at most {HEAD_BYTES_MAX} bytes and {HEADERS_MAX} headers"

_BLANK_LINE: Final = re.compile(rb"\n\r?\n")


class RefusedHead(NamedTuple):
    """An answer that ends the connection. `code` and `message` as in any error of the API."""

    status: int
    code: str
    message: str


def of_lines(read: bytes) -> RefusedHead | None:
    """Return a refusal, if the head at the beginning of what was read has too many lines: 8,000 headers of four bytes
    would be parsed for 33 ms (measured with h11 0.16).
    """
    end = _BLANK_LINE.search(read, 0, HEAD_BYTES_MAX + 4)
    lines = read.count(b"\n", 0, end.start() + 1 if end else HEAD_BYTES_MAX)
    return RefusedHead(431, "too_large", TOO_LARGE) if lines > HEADERS_MAX + 1 else None


def of_framing(names: Iterable[bytes]) -> RefusedHead | None:
    """Return a refusal, if the length of the body is not said beforehand. `names`: of all headers, in lower case.

    A body in chunks costs a hundred times as much for each byte as one of a known length: chunks of one byte, sent by
    one stranger, held up a fanout for seconds. No client of this API has a reason to send one. Source: RFC 9112
    section 6.3 for 411, and section 6.1 for both headers at once, which may be an attempt at smuggling.
    """
    found = set(names)
    if b"transfer-encoding" not in found:
        return None
    if b"content-length" in found:
        return RefusedHead(400, "malformed", "Content-Length and Transfer-Encoding exclude each other")
    return RefusedHead(411, "length_required", "say the body's length in Content-Length: chunks are not taken here")
