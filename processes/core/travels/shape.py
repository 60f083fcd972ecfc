"""The shape that a JSON message from outside may have, whatever its type: how deep, how wide, how long. Pure.

It is decided before anything else looks at the message, for fields that are known and for all others: at the gateway
(agent_frames.decode), at the operators' WebSocket (operator_frames.decode_request) and for the bodies of HTTP requests
(fanout/web.py). What is past a bound is malformed.
"""

from __future__ import annotations

import functools
import re
from typing import Final

DEPTH_MAX: Final = 32  # contract: a message nested deeper is malformed. Python's own recursion limit is 1,000
# of names, and of values, in one message; a run names up to 10,000 hosts, a `register` as many names
NAMES_MAX: Final = 20_000
VALUES_MAX: Final = 20_000
STRINGS_MAX: Final = NAMES_MAX + VALUES_MAX
STRING_BYTES_MAX: Final = 8 * 1024  # of one string as it came, but of the longest: that may be a line of output
NUMBER_CHARS_MAX: Final = 32  # the longest that a double needs has 24; Python refuses a whole number of 4,301

BRACKETS_MAX: Final = NAMES_MAX + VALUES_MAX  # each stands for a value, or as the only one in another
_BRACKETS: Final = bytes.maketrans(b"[{]}", b"(())")
_OTHERS: Final = bytes(set(range(256)) - set(b"[{]}"))
_NUMERIC: Final = bytes(0x30 if byte in b"0123456789+-.eE" else 0x20 for byte in range(256))
_LONG_NUMBER: Final = b"0" * (NUMBER_CHARS_MAX + 1)


def complaint(text: bytes) -> str:
    """Return which bound of its shape this JSON text is past, for a log line; empty: none. Of a text that is not JSON
    either may be returned.

    Cost: linear. A short text, as nearly every message is, costs two counts and one search, 1 µs in all; the worst of
    one MiB some 30 ms, for it is looked at no further once its strings or brackets are too many.
    """
    is_long = len(text) > STRING_BYTES_MAX
    brackets = text.count(b"{") + text.count(b"[")
    if not is_long and brackets <= DEPTH_MAX and _LONG_NUMBER not in text.translate(_NUMERIC):
        return ""
    parts = _strings().split(text, STRINGS_MAX + 1)  # what is outside of strings, and the strings, by turns
    if len(parts) > 2 * STRINGS_MAX + 1:
        return f"more than {STRINGS_MAX} strings"
    skeleton = b"".join(parts[::2])
    if skeleton.count(b"{") + skeleton.count(b"[") > BRACKETS_MAX:
        return f"nested deeper than {DEPTH_MAX}, or more than {BRACKETS_MAX} objects and arrays"
    if _too_deep(skeleton):
        return f"nested deeper than {DEPTH_MAX}"
    if skeleton.count(b":") > NAMES_MAX:
        return f"more than {NAMES_MAX} names"
    if skeleton.count(b",") >= VALUES_MAX:
        return f"more than {VALUES_MAX} values"
    if _LONG_NUMBER in skeleton.translate(_NUMERIC):
        return f"a number of more than {NUMBER_CHARS_MAX} characters"
    if is_long and sum(len(string) > STRING_BYTES_MAX + 2 for string in parts[1::2]) > 1:
        return f"more than one string of more than {STRING_BYTES_MAX} bytes"
    return ""


@functools.cache
def _strings() -> re.Pattern[bytes]:
    """Match a string, or the rest of a text in which one does not end.

    Possessive, and it never fails at a quote: the cost is linear. (One that fails there is tried again from each
    escaped quote behind it: 40 KB then took 42 s.) Compiled when it is needed: Python 3.9, which agents may run on, has
    no possessive quantifiers, and agents judge no shapes.
    """
    return re.compile(rb'("[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z))', re.DOTALL)


def _too_deep(skeleton: bytes) -> bool:
    """Return whether this text without strings is nested deeper than DEPTH_MAX.

    Each pass removes the innermost pairs, so it takes as many passes as the text is deep.
    """
    if skeleton.count(b"{") + skeleton.count(b"[") <= DEPTH_MAX:
        return False
    brackets = skeleton.translate(_BRACKETS, _OTHERS)
    for _ in range(DEPTH_MAX):
        brackets = brackets.replace(b"()", b"")
        if not brackets:
            return False
    return True
