"""What the hub's publisher puts into the queues of fanouts that know batches of heartbeats, and of those that do not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
import structlog
from doubles.deadline import WAIT_S

from processes.core.hub.effects import Effects
from processes.core.hub.memory import Memory
from processes.core.hub.rules import Rules
from processes.core.travels import messages
from processes.core.travels.messages import Broadcast, Change, Changed, HostsHeard, Json, SnapshotPiece, SnapshotWanted
from processes.core.travels.queue_calls import Appended
from processes.core.values import Position
from processes.hub import publisher as hub_publisher
from processes.hub.publisher import Publisher


def test_a_fanout_that_does_not_know_batches_gets_the_same_as_changes_and_both_in_order() -> None:
    async def work() -> None:
        link: Any = None
        memory = Memory(Rules(fanouts=("older", "newer")), epoch=1)
        publisher = Publisher(link, memory, structlog.get_logger())
        first = Change("host", "a", Json(b'{"name":"a"}'))
        heard = HostsHeard(1, [("a", Json(b'{"last_seen":5}'))])
        last = Change("host", "a", Json(b'{"presence":"stale"}'))
        wanted = [SnapshotWanted("newer", "s", hears=True), SnapshotWanted("older", "s")]
        publisher.tell(Effects(snapshots=wanted))
        publisher.tell(Effects(changes=[first, heard, last]))
        publisher.tell(Effects(snapshots=wanted))
        newer, older = (told(publisher, name) for name in ("newer", "older"))
        assert newer[1:4] == [Changed(1, [first]), heard, Changed(1, [last])]
        assert older[1:4] == [Changed(1, [first]), Changed(1, [Change("host", *heard.hosts[0])]), Changed(1, [last])]
        for piece in (newer[4], older[4]):
            assert isinstance(piece, SnapshotPiece)
            (row,) = [msgspec.json.decode(each.fields) for each in piece.changes if each.id == "a"]
            assert row == {"name": "a", "last_seen": 5, "presence": "stale"}

    asyncio.run(work())


def test_of_several_ledgers_that_are_said_at_once_only_the_last_is_told() -> None:
    """Each step of a batch counts anew: a hundred ledgers would be shown one after the other."""

    async def work() -> None:
        link: Any = None
        publisher = Publisher(link, Memory(Rules(fanouts=("fanout",)), epoch=1), structlog.get_logger())
        host = Change("host", "a", Json(b'{"name":"a"}'))
        first, last = (Change("ledger", "ledger", Json(b'{"accepted":%d}' % count)) for count in (1, 2))
        publisher.tell(Effects(changes=[first, host, last]))
        publisher.tell(Effects(changes=[first]))
        assert told(publisher, "fanout") == [Changed(1, [host, last]), Changed(1, [first])]

    asyncio.run(work())


def told(publisher: Publisher, fanout: str) -> list[Broadcast]:
    """What waits for this fanout."""
    waiting = publisher._waiting[messages.broadcasts_of(fanout)]
    return [messages.decode_broadcast(item) for item, _ in waiting.items]


class SlowLink:
    """Queues that answer in the next pass of the loop. `under_way`: bytes of appends that wait for their answers."""

    def __init__(self, appending: Callable[[str], None] = lambda _: None) -> None:
        self.appended: list[tuple[str, bytes]] = []
        self.acknowledged: list[Position] = []
        self.under_way = self.under_way_max = 0
        self._appending = appending

    async def append(self, queue: str, items: Sequence[bytes], *, bulk: bool = False, lossy: bool = False) -> Appended:
        size = sum(map(len, items))
        self.under_way += size
        self.under_way_max = max(self.under_way_max, self.under_way)
        self._appending(queue)
        await asyncio.sleep(0)
        self.under_way -= size
        self.appended += [(queue, item) for item in items]
        return Appended(True, Position(1, len(self.appended)))

    async def acknowledge(self, queue: str, position: Position) -> None:
        self.acknowledged.append(position)


async def carry(publisher: Publisher, true: Callable[[], object]) -> None:
    """Let the publisher run until it is so."""
    running = asyncio.create_task(publisher.run())
    try:
        async with asyncio.timeout(WAIT_S):
            while not true():
                await asyncio.sleep(0)
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def test_what_goes_on_being_said_puts_off_no_acknowledgement_of_what_came_before_it() -> None:
    """The bug it would catch: an acknowledgement that waits for a moment in which nothing waits."""

    async def work() -> None:
        more = 1000

        def say_more(_: str) -> None:
            nonlocal more
            if more:
                more -= 1
                publisher.put(messages.broadcasts_of(f"f{more % 2}"), Changed(1, []))
                publisher.acknowledge(Position(1, 1000 - more))

        link: Any = SlowLink(say_more)
        publisher = Publisher(link, Memory(Rules(fanouts=("f0", "f1")), epoch=1), structlog.get_logger())
        publisher.put(messages.broadcasts_of("f0"), Changed(1, []))
        publisher.acknowledge(Position(1, 0))
        await carry(publisher, lambda: link.acknowledged)
        assert more > 900

    asyncio.run(work())


def test_an_acknowledgement_waits_for_all_that_was_said_before_it() -> None:
    async def work() -> None:
        link: Any = SlowLink()
        publisher = Publisher(link, Memory(Rules(fanouts=("f0", "f1")), epoch=1), structlog.get_logger())
        said = [f"c{number}" for number in range(3000)]
        for name in said:
            publisher.put(messages.broadcasts_of("f1"), Changed(1, [Change("command", name, Json(b"{}"))]))
        publisher.acknowledge(Position(1, 7))
        mark = publisher.mark()
        publisher.put(messages.broadcasts_of("f0"), Changed(1, []))
        assert not publisher.has_said(mark)
        await carry(publisher, lambda: link.acknowledged)
        told = [messages.decode_broadcast(item) for queue, item in link.appended if queue.endswith("f1")]
        assert [change.id for message in told if isinstance(message, Changed) for change in message.changes] == said
        assert publisher.has_said(mark)

    asyncio.run(work())


def test_a_round_of_appends_is_bounded_over_all_queues_and_each_queue_has_its_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def work() -> None:
        monkeypatch.setattr(hub_publisher, "ROUND_BYTES_MAX", 10_000)
        link: Any = SlowLink()
        names = [f"f{number}" for number in range(6)]
        publisher = Publisher(link, Memory(Rules(fanouts=tuple(names)), epoch=1), structlog.get_logger())
        await carry(publisher, lambda: publisher.has_said(publisher.mark()))  # they hear of the hub
        item = Changed(1, [Change("command", "c", Json(b'"' + b"x" * 990 + b'"'))])
        for name in names:
            for _ in range(50):
                publisher.put(messages.broadcasts_of(name), item)
        link.appended.clear()
        await carry(publisher, lambda: publisher.backlog == 0)
        assert link.under_way_max <= 10_000 + 1_100
        assert len(link.appended) == 300
        first = {queue for queue, _ in link.appended[:100]}
        assert len(first) == len(names), "no queue waits until another is empty"

    asyncio.run(work())
