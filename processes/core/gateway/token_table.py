"""Which tokens let an agent in: the hub's table, as a gateway last heard of it in full. Pure.

The table comes in pieces; number 0 starts it, it is whole with the last. While it is incomplete, or something may have
been missed, it is not current, and nobody is turned away for a token that may just not have arrived.
"""

from __future__ import annotations

from processes.core.travels.messages import Token, TokenChanged, TokensPiece


class TokenTable:
    """Invariant: `is_current` only if every piece since number 0 arrived, and nothing was missed since."""

    def __init__(self) -> None:
        self.is_current = False
        self._next_piece: int | None = None  # of the table that is arriving; None: none is
        self._by_host: dict[str, Token] = {}
        self._by_hash: dict[str, Token] = {}
        self._arriving: dict[str, Token] = {}

    def __len__(self) -> int:
        return len(self._by_host)

    def find(self, token_hash: str) -> Token | None:
        """Whose token this is; None if nobody's."""
        return self._by_hash.get(token_hash)

    def of_host(self, host: str) -> Token | None:
        """The host's token; None if it has none."""
        return self._by_host.get(host)

    def lose(self) -> None:
        """Something was missed: not current until the next whole table."""
        self.is_current = False
        self._next_piece = None

    def piece(self, piece: TokensPiece) -> bool:
        """Takes one piece. True when it made the table whole, and another than before may be in force."""
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
        """One host's token is another, or none. Holds for the table in force and for the one that is arriving."""
        old = self._by_host.pop(change.host, None)
        if old is not None:
            self._by_hash.pop(old.token_hash, None)
        self._arriving.pop(change.host, None)
        if change.token is not None:
            self._by_host[change.host] = change.token
            self._by_hash[change.token.token_hash] = change.token
            self._arriving[change.host] = change.token
