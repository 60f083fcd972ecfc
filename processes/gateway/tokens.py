"""Who may come in: the bearer token of a request against the hub's table and the canary's file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from processes.adapters import ownership
from processes.adapters.ownership import NotPrivate
from processes.core.gateway.token_table import TokenTable
from processes.core.travels.messages import Token
from processes.core.values import CANARY_HOST

CANARY_BYTES_MAX: Final = 4096
TOKEN_CHARS_MAX: Final = 512  # ours have 43; nothing longer is worth hashing


class _CanaryFile(msgspec.Struct):
    agent_token_hash: str


class Tokens:
    """Invariant: nobody is turned away as unknown while the table may lack a token."""

    def __init__(self, canary: Path) -> None:
        self.table = TokenTable()
        self._canary_file = canary
        self._canary_seen: tuple[int, int, int] | None = None  # inode, time of change, size
        self._canary: Token | None = None

    @property
    def is_current(self) -> bool:
        """False: an unknown token may be good all the same."""
        return self.table.is_current

    def find(self, authorization: Sequence[str]) -> Token | None:
        """Whose token the values of the Authorization header hold; None: nobody's, or there is not exactly one."""
        scheme, _, secret = authorization[0].partition(" ") if len(authorization) == 1 else ("", "", "")
        secret = secret.strip()
        if scheme.lower() != "bearer" or not secret or len(secret) > TOKEN_CHARS_MAX:
            return None
        token_hash = hashlib.sha256(
            secret.encode()
        ).hexdigest()  # looked up by its hash: the comparison's time tells nothing
        if self._canary is not None and token_hash == self._canary.token_hash:
            return self._canary
        return self.table.find(token_hash) if self.table.is_current else None

    def holds(self, token: Token) -> bool:
        """True while this token lets its host in. (A table that is not current lets everybody stay.)"""
        if token.host == CANARY_HOST:
            return token == self._canary
        return not self.table.is_current or self.table.of_host(token.host) == token

    def look_for_canary(self) -> bool:
        """Reads the canary's file if it is another one than last time. True if its token changed.

        Cost: one stat. A file that cannot be read lets no canary in; the watchdog sees its canary red and says so.
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
