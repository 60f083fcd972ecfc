"""What travels about dead letters and what follows from them: parts of the unions in core/messages.py. Pure."""

from __future__ import annotations

import msgspec

from processes.core.death import Death


class LiftHost(msgspec.Struct, frozen=True, tag_field="r", tag=True):
    """POST /api/v1/hosts/NAME/lift: its token is no longer suspended."""

    name: str


class RetryLetter(msgspec.Struct, frozen=True, tag_field="r", tag=True):
    """POST /api/v1/deadletters/ID/retry."""

    letter_id: str


class DiscardLetter(msgspec.Struct, frozen=True, tag_field="r", tag=True):
    """POST /api/v1/deadletters/ID/discard."""

    letter_id: str


class PutAside(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="t", tag=True):
    """A fanout left a broadcast out, because it ended that fanout each time: of what kind, of which row, and how it ended."""

    fanout: str
    name: str
    kind: str
    id: str
    deaths: list[Death]
