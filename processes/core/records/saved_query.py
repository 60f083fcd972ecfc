"""A query that operators keep under a name. Pure."""

from __future__ import annotations

import msgspec


class SavedQuery(msgspec.Struct, frozen=True):
    """One saved query, and who saved it when."""

    name: str
    query: str
    actor: str
    at_wall_s: float
