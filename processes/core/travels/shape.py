"""How deep a message from outside may be nested, whatever its type. Pure."""

from __future__ import annotations

import re
from typing import Final

DEPTH_MAX: Final = 32  # contract: a message nested deeper is malformed. Python's own recursion limit is 1,000

_STRINGS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKETS: Final = bytes.maketrans(b"[{]}", b"(())")
_OTHERS: Final = bytes(set(range(256)) - set(b"[{]}"))


def too_deep(text: bytes) -> bool:
    """Return whether this JSON text is nested deeper than DEPTH_MAX; of other texts either may be returned.

    Cost: a text with at most DEPTH_MAX opening brackets, as nearly every message is, costs two counts; half a megabyte
    of brackets costs some 10 ms. Each pass removes the innermost pairs, so it takes as many passes as the text is deep.
    """
    if text.count(b"{") + text.count(b"[") <= DEPTH_MAX:
        return False
    brackets = _STRINGS.sub(b"", text).translate(_BRACKETS, _OTHERS)
    for _ in range(DEPTH_MAX):
        brackets = brackets.replace(b"()", b"")
        if not brackets:
            return False
    return True
