"""What is kept of operators' requests: replies, idempotency keys, and the operators' own tokens. Pure."""

from __future__ import annotations

import msgspec

from processes.core.travels.messages import Json


class KeptReply(msgspec.Struct, frozen=True):
    """The answer to one request, kept so that the same request asked again gets the same answer."""

    request_id: str
    status: int
    body: Json
    at_wall_s: float = 0.0


class KeyEntry(msgspec.Struct, frozen=True):
    """What an idempotency key stands for: one request, by its digest, and the ids that it was answered with."""

    key: str
    digest: str
    command_ids: tuple[str, ...]
    at_wall_s: float = 0.0


class OperatorToken(msgspec.Struct, frozen=True):
    """A further operator token, by the SHA-256 (hex) of its text.

    `expires_wall_s` None: it is good until it is revoked. `replaced_by`: the id of the token that took its place; it is
    good for an overlap. `used_wall_s`: its last use, to within some minutes; None: it was never used.
    """

    token_hash: str
    role: str
    label: str
    created_wall_s: float
    expires_wall_s: float | None = None
    used_wall_s: float | None = None
    replaced_by: str = ""

    def is_over(self, now_wall_s: float) -> bool:
        """Return whether its time is over."""
        return self.expires_wall_s is not None and now_wall_s >= self.expires_wall_s
