"""What many operators cost: the state is encoded once for all of them."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from processes.core.fanout.feed import Step
from processes.core.fanout.mirror import Mirror
from processes.core.travels import operator_frames
from processes.core.travels.messages import Change, Json
from processes.fanout.subscribers import Audience


class Browser:
    """One that asks for everything."""

    is_canary = is_slow = False

    def __init__(self) -> None:
        self.feed = SimpleNamespace(version=1, whole=lambda *_: Step.FULL)
        self.full_s = 0.0
        self.got: list[bytes] = []

    def widen(self, size: int) -> None:
        assert size > 0

    def send(self, text: bytes) -> None:
        self.got.append(text)


def test_a_whole_state_is_encoded_once_for_all_who_ask_at_one_version(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = []
    encode = operator_frames.encode_state

    def counted(state: Any) -> msgspec.Raw:
        encoded.append(state)
        return encode(state)

    monkeypatch.setattr(operator_frames, "encode_state", counted)

    async def work() -> None:
        mirror = Mirror()
        mirror.load(1, [Change("host", f"h{n}", Json(b'{"name": "h%d"}' % n)) for n in range(100)])
        audience, browsers = Audience(mirror, cast(Any, SimpleNamespace())), [Browser() for _ in range(200)]
        audience.subscribers.update(browsers)  # type: ignore[arg-type]
        audience.renew()
        assert len(encoded) == 1
        mirror.shown.apply(Change("host", "h0", Json(b'{"x": "changed"}')))
        audience.renew()
        assert len(encoded) == 2
        for browser in browsers:
            first, second = browser.got
            assert b"changed" not in first
            assert b"changed" in second
            assert second.count(b'"name"') >= 100

    asyncio.run(work())
