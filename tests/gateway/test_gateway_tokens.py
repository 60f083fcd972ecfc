"""How secrets are compared: the time that it takes tells nothing of them."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import pytest

from processes.core.fanout.signin import cookie, read_cookie, session_of
from processes.core.gateway.token_table import TokenTable
from processes.core.values import Role
from processes.gateway.tokens import Tokens


class Watched(TokenTable):
    """Notes what it is asked for."""

    asked: list[str]

    @property
    def is_current(self) -> bool:
        return True

    @is_current.setter
    def is_current(self, _: bool) -> None: ...

    def find(self, token_hash: str) -> None:
        self.asked.append(token_hash)


def test_secrets_are_looked_up_by_their_hash_or_compared_in_constant_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host's token never meets another one itself, but as its digest; a cookie's signature meets ours in whole."""
    tokens, watched = Tokens(tmp_path / "canary.json"), Watched()
    watched.asked = []
    tokens.table = watched
    assert tokens.find(["Bearer some-token"]) is None
    assert watched.asked == [hashlib.sha256(b"some-token").hexdigest()]

    compared: list[tuple[str, str]] = []
    whole = hmac.compare_digest

    def watching(ours: str, theirs: str) -> bool:
        compared.append((ours, theirs))
        return whole(ours, theirs)

    monkeypatch.setattr(hmac, "compare_digest", watching)
    key = b"k" * 32
    good = cookie(key, session_of("sid", "hash", Role.VIEWER, "ann", 1000.0))
    forged = good[:-1] + ("A" if good[-1] != "A" else "B")
    assert read_cookie(key, good, 1000.0) is not None
    assert read_cookie(key, forged, 1000.0) is None
    assert compared == [(good.partition(".")[2], text.partition(".")[2]) for text in (good, forged)]
