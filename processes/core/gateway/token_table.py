"""Which tokens let an agent in: the hub's table, as a gateway last heard of it in full. Pure.

The table comes in pieces; number 0 starts it, and the last one makes it whole. While it is incomplete, or a change may
have been missed, the table is not current, and no agent is turned away for a token that may not have arrived yet.
"""

from __future__ import annotations

from processes.core.travels.messages import Token, TokenChanged, TokensPiece


class TokenTable:
    """Invariant: `is_current` only if every piece since number 0 arrived, and no change was missed since."""

    def __init__(self) -> None:
        self.is_current = False
        self._next_piece: int | None = None  # of the table that is arriving; None: no table is
        self._by_host: dict[str, Token] = {}
        self._by_hash: dict[str, Token] = {}
        self._arriving: dict[str, Token] = {}

    def __len__(self) -> int:
        return len(self._by_host)

    def find(self, token_hash: str) -> Token | None:
        """Return the token with this hash; None if there is none."""
        return self._by_hash.get(token_hash)

    def of_host(self, host: str) -> Token | None:
        """Return the host's token; None if it has none."""
        return self._by_host.get(host)

    def lose(self) -> None:
        """Called when changes may have been missed: the table is not current until the next whole one."""
        self.is_current = False
        self._next_piece = None

    def piece(self, piece: TokensPiece) -> bool:
        """Take one piece. Return whether it completed a table, which is in force from now on."""
        if piece.piece == 0:
            self._arriving, self._next_piece = {}, 0
        if piece.piece != self._next_piece:
            self._next_piece = None  # one is missing: wait for the next number 0
            return False
        self._next_piece += 1
        self._arriving.update((token.host, token) for token in piece.tokens)
        if not piece.last:
            return False
        self._by_host, self._arriving, self._next_piece = self._arriving, {}, None
        self._by_hash = {token.token_hash: token for token in self._by_host.values()}
        self.is_current = True
        return True

    def change(self, change: TokenChanged) -> None:
        """Replace or remove one host's token, in the table in force and in the one that is arriving."""
        old = self._by_host.pop(change.host, None)
        if old is not None:
            self._by_hash.pop(old.token_hash, None)
        self._arriving.pop(change.host, None)
        if change.token is not None:
            self._by_host[change.host] = change.token
            self._by_hash[change.token.token_hash] = change.token
            self._arriving[change.host] = change.token
