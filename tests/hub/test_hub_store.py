"""What the hub's database keeps, and what it lets go."""

from __future__ import annotations

from pathlib import Path

import pytest

from processes.adapters.state import fleet_db
from processes.core.hub.effects import Put
from processes.core.hub.memory import REPLIES_KEPT_MAX
from processes.core.hub.turn import CommitBatch
from processes.core.records.ledger import Ledger
from processes.core.records.request import KeptReply
from processes.core.travels.messages import Json
from processes.core.values import Now, Position
from processes.hub import store

DAY_S = 86400.0
WALL_S = 1.7e9


@pytest.mark.parametrize("jump_s", [-DAY_S, DAY_S])
def test_answers_are_kept_by_their_number_whatever_the_clock_says(jump_s: float) -> None:
    """A request that is asked again of the next hub would else be carried out twice, once somebody has set the
    clock.
    """
    sqlite = fleet_db.open_for_writing(Path(":memory:"))
    names = [f"r{number}" for number in range(REPLIES_KEPT_MAX + 3)]
    for part, wall_s in ((names[:10], WALL_S + jump_s), (names[10:], WALL_S)):
        writes = [Put("replies", name, KeptReply(name, 202, Json(b"{}"), wall_s)) for name in part]
        store._write(sqlite, CommitBatch(list(writes), Ledger(), 1, Position(1, 0), Now(0.0, wall_s)), 0)
    assert store._prune(sqlite, Now(0.0, WALL_S + jump_s), "boot", 90 * DAY_S, 1 << 30) == 3
    assert store._prune(sqlite, Now(0.0, WALL_S + jump_s), "boot", 90 * DAY_S, 1 << 30) == 0
    assert [name for name, _ in store._restored(sqlite).rows["replies"]] == names[3:], "oldest first"
    sqlite.close()
