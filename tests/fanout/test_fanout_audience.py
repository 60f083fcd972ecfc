"""What many operators cost: the state is encoded once for all of them."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from processes.core.budgets import FULL_STATE_FRAMES, OPERATOR
from processes.core.fanout.feed import Step
from processes.core.fanout.mirror import Mirror
from processes.core.fanout.signin import Principal
from processes.core.travels import operator_frames
from processes.core.travels.messages import Change, Json
from processes.core.travels.operator_frames import GetState
from processes.core.values import Role
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


def test_asking_for_the_whole_state_over_and_over_is_charged_for_what_is_sent_alone() -> None:
    """The bug it would catch: five pages of one token that ask without end have its other connections kept away."""
    ann = Principal(Role.VIEWER, "ann", "ann")

    async def work() -> None:
        mirror = Mirror()
        mirror.load(1, [Change("host", "a", Json(b'{"name": "a"}'))])
        audience, browsers = Audience(mirror, cast(Any, SimpleNamespace())), [Browser() for _ in range(5)]
        audience.subscribers.update(browsers)  # type: ignore[arg-type]
        for browser in browsers:
            browser.principal, browser.is_open, browser.full_s = ann, True, -1.0  # type: ignore[attr-defined]
            for _ in range(50):
                audience.asked(cast(Any, browser), GetState())
        now_s = asyncio.get_running_loop().time()
        allowance = audience.allowances.of(ann.owner, now_s)
        assert sum(len(browser.got) for browser in browsers) <= 5 * 2, "the others wait for the next delta"
        assert allowance.spend(0, 0, 0, now_s).rest_s == 0.0
        spent = (allowance._frames_s - now_s) * OPERATOR.frames.per_s
        assert spent <= 5 * 2 * FULL_STATE_FRAMES

    asyncio.run(work())
