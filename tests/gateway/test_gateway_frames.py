"""Agents that say what is not of the protocol: counted, bounded, and never the hub's problem."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from websockets.frames import Frame, Opcode

from processes.core.travels.messages import AgentDisconnected, HeartbeatReceived

Houses = Callable[..., AbstractAsyncContextManager[Any]]

MALFORMED = {
    "not json": b"\x01\x02",
    "no object": b"[]",
    "no type": b'{"payload": {}}',
    "wrong type": b'{"type": "heartbeat", "payload": {"metrics": {"cpu": "hot"}}}',
    "invalid utf-8": b'{"type": "status", "payload": {"status": "\xff"}}',
    "lone surrogate": b'{"type": "status", "payload": {"status": "\\ud800"}}',
    "not a number": b'{"type": "heartbeat", "payload": {"metrics": {"cpu": NaN}}}',
    "huge number": b'{"type": "heartbeat", "payload": {"command_pid": 1180591620717411303424}}',
    "deep": b'{"type": "operation_progress", "payload": {"progress": {"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}}",
    "register twice": b'{"type": "register", "payload": {"hostname": "web1"}}',
    "progress too large": json.dumps(
        {"type": "operation_progress", "payload": {"progress": {"a": "x" * 20_000}}}
    ).encode(),
}


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_frame_costs_itself_only(house: Houses, text: bytes) -> None:
    async def scenario() -> None:
        async with house() as h:
            await h.hub.start("web1")
            wire = await h.agent("web1")
            wire.say_text(text)
            wire.say("heartbeat", metrics={"load": 1})
            await h.hub.event(HeartbeatReceived)
            assert h.gate.malformed == 1
            assert h.pulse.pulse.errors == 1
            assert not [event for event in h.hub.seen if isinstance(event, AgentDisconnected)]

    asyncio.run(scenario())


def test_ten_malformed_frames_in_a_minute_are_closed_1008(house: Houses) -> None:
    async def scenario() -> None:
        async with house() as h:
            await h.hub.start("web1")
            wire = await h.agent("web1")
            for _ in range(9):
                wire.write(Frame(Opcode.BINARY, b"{}").serialize(mask=True))
            wire.say("heartbeat")
            await h.hub.event(HeartbeatReceived)
            wire.write(Frame(Opcode.BINARY, b"{}").serialize(mask=True))
            wire.say("status", command_id="late", status="ok")
            assert await wire.ended() == 1008
            assert (await h.hub.event(AgentDisconnected)).code == 1008
            assert h.gate.malformed == 10
            told = [call.kwargs for call in h.log.calls if call.args == ("malformed frame",)]
            (line,) = told  # one in a minute: who comes back again and again does not fill the log
            assert (line["host"], line["peer"][:10]) == ("web1", "127.0.0.1:")
            assert 1 <= line["times"] < 10, "as many as had come when it was written"
            assert line["why"]

    asyncio.run(scenario())


def test_anything_but_register_first_is_malformed(house: Houses) -> None:
    async def scenario() -> None:
        async with house() as h:
            await h.hub.start("web1")
            await h.until(lambda: h.gate.tokens.is_current)
            wire = await h.dial("web1")
            wire.say("heartbeat")
            await h.until(lambda: h.gate.malformed == 1)
            assert h.gate.received == 0

    asyncio.run(scenario())


def test_a_frame_over_512_kib_is_closed_1009_and_one_below_is_read(house: Houses) -> None:
    async def scenario() -> None:
        async with house() as h:
            await h.hub.start("web1")
            wire = await h.agent("web1")
            wire.say_text(json.dumps({"type": "heartbeat", "payload": {"x": "x" * (512 * 1024 - 100)}}).encode())
            assert list(json.loads((await h.hub.event(HeartbeatReceived)).facts)) == ["left_out"]
            wire.say_text(b" " * (512 * 1024 + 1))
            assert await wire.ended() == 1009
            assert (await h.hub.event(AgentDisconnected)).code == 1009

    asyncio.run(scenario())
