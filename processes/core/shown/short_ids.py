"""Which id is meant by the beginning of one. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from processes.core.errors import RemoteError

CHARS_MIN: Final = 4  # of a beginning; guess: less is typed by mistake, and of few ids it means one by chance
CANDIDATES_MAX: Final = 10  # that are named


class AmbiguousId(RemoteError):
    """Several ids begin so. `candidates`: some of them."""

    def __init__(self, message: str, candidates: list[str]) -> None:
        super().__init__("ambiguous_id", message)
        self.candidates = candidates


def meant(given: str, there: Sequence[str], what: str) -> str:
    """Return the id that is meant: `given` itself, if it is one or none begins so; else the one that begins so.

    `there`: the ids that begin so, sorted, at least the first CANDIDATES_MAX + 1. `what`: a word for the things, in
    the plural. Raises: AmbiguousId.
    """
    if not there or given in there or len(given) < CHARS_MIN:
        return given
    if len(there) == 1:
        return there[0]
    named = list(there[:CANDIDATES_MAX])
    more = ", …" if len(there) > CANDIDATES_MAX else ""
    raise AmbiguousId(f"several {what} begin with {given!r}: {', '.join(named)}{more}", named)
