"""Finding hosts by queries: however many ask, and whatever a host says of itself, the loop has its passes."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import pytest

from processes.fanout import host_finder
from processes.fanout.host_finder import HostFinder

HOSTS, ASKED = 5, 40


class _Row(NamedTuple):
    id: str
    looks: list[str]

    @property
    def fields(self) -> bytes:
        self.looks.append(self.id)
        return b'{"presence":"online"}'


def test_a_pass_of_the_loop_has_a_part_of_one_query_however_many_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_finder, "AT_ONCE_S", 0.0)  # each part takes as long as is looked without a pause
    monkeypatch.setattr(host_finder, "PART_BYTES", 1)  # and is one host, of which its size is asked for too
    looks: list[str] = []
    rows = [_Row(f"web{number}", looks) for number in range(HOSTS)]
    mirror = SimpleNamespace(shown=SimpleNamespace(changes=lambda _: rows))
    passes: list[int] = []

    async def ask() -> None:
        finder = HostFinder(cast(Any, mirror), cast(Any, None))
        asked = asyncio.gather(*(finder.find("online") for _ in range(ASKED)))
        while not asked.done():
            before = len(looks)
            await asyncio.sleep(0)
            passes.append(len(looks) - before)
        assert [[row.id for row in found] for found in await asked] == [[row.id for row in rows]] * ASKED

    asyncio.run(ask())
    assert len(looks) == 2 * HOSTS * ASKED
    assert max(passes) <= 4, "one that ends, and the next one that begins"
