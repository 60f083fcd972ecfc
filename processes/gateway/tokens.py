"""Finds whose token a request bears, in the hub's table and in the canary's file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from processes.adapters import ownership
from processes.adapters.ownership import NotPrivate
from processes.core.gateway.token_table import TokenTable
from processes.core.travels.messages import Token
from processes.core.values import CANARY_HOST, digest

CANARY_BYTES_MAX: Final = 4096
TOKEN_CHARS_MAX: Final = 512  # tokens made here have 43; a longer one is not worth hashing


class _CanaryFile(msgspec.Struct):
    agent_token_hash: str


class Tokens:
    """Invariant: no token is called unknown while the table may lack one."""

    def __init__(self, canary: Path) -> None:
        self.table = TokenTable()
        self._canary_file = canary
        self._canary_seen: tuple[int, int, int] | None = None  # inode, time of change, size
        self._canary: Token | None = None

    @property
    def is_current(self) -> bool:
        """Return False while a token that is not in the table may be good all the same."""
        return self.table.is_current

    def find(self, authorization: Sequence[str]) -> Token | None:
        """Return the token in the values of the Authorization header; None if it is nobody's, or if there
        is not exactly one value.
        """
        scheme, _, secret = authorization[0].partition(" ") if len(authorization) == 1 else ("", "", "")
        secret = secret.strip()
        if scheme.lower() != "bearer" or not secret or len(secret) > TOKEN_CHARS_MAX:
            return None
        # looked up by its hash, so the time of the comparison tells nothing of the token
        token_hash = digest(secret)
        if self._canary is not None and token_hash == self._canary.token_hash:
            return self._canary
        return self.table.find(token_hash) if self.table.is_current else None

    def holds(self, token: Token) -> bool:
        """Return whether this token still lets its host in. While the table is not current, all connections stay."""
        if token.host == CANARY_HOST:
            return token == self._canary
        return not self.table.is_current or self.table.of_host(token.host) == token

    def look_for_canary(self) -> bool:
        """Read the canary's file if it has been replaced. Return whether its token changed.

        Cost: one stat. A file that cannot be read lets no canary in; then the watchdog reports that its canary is red.
        """
        try:
            stat = self._canary_file.stat()
            seen = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        except OSError:
            seen = None
        if seen == self._canary_seen:
            return False
        self._canary_seen = seen
        before, self._canary = self._canary, self._read_canary() if seen is not None else None
        return before != self._canary

    def _read_canary(self) -> Token | None:
        try:
            content = ownership.read_private(self._canary_file, CANARY_BYTES_MAX, forbidden=ownership.CHANGEABLE)
            found = msgspec.json.decode(content, type=_CanaryFile)
        except (OSError, NotPrivate, msgspec.DecodeError, UnicodeDecodeError):
            return None
        return Token(found.agent_token_hash.lower(), CANARY_HOST, CANARY_HOST)
