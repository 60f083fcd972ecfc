"""The API's answers about dead letters. Pure.

They stand apart from the other pages: with them comes what decides about poison, and a client that lists hosts need
not load that.
"""

from __future__ import annotations

import msgspec

from processes.core.records.dead_letter import DeadLetterView


class DeadLettersPage(msgspec.Struct, frozen=True):
    """GET /api/v1/deadletters, newest first."""

    deadletters: list[DeadLetterView]


class DeadLetterGone(msgspec.Struct, frozen=True):
    """POST /api/v1/deadletters/ID/discard."""

    id: str
    discarded: bool
