"""What the hub's publisher puts into the queues of fanouts that know batches of heartbeats, and of those that do not."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import structlog

from processes.core.hub.effects import Effects
from processes.core.hub.memory import Memory
from processes.core.hub.rules import Rules
from processes.core.travels import messages
from processes.core.travels.messages import Broadcast, Change, Changed, HostsHeard, Json, SnapshotPiece, SnapshotWanted
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


def told(publisher: Publisher, fanout: str) -> list[Broadcast]:
    """What waits for this fanout."""
    waiting = publisher._waiting[messages.broadcasts_of(fanout)]
    return [messages.decode_broadcast(item) for item, _ in waiting.items]
