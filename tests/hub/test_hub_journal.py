"""What the hub's database keeps, and what it lets go."""

from __future__ import annotations

from pathlib import Path

import pytest

from processes.adapters import database
from processes.core.draft import REPLIES_KEPT_MAX
from processes.core.effects import PutReply
from processes.core.ledger import Ledger
from processes.core.messages import Json
from processes.core.values import Now, Position
from processes.hub import journal
from processes.hub.journal import Commit

DAY_S = 86400.0
WALL_S = 1.7e9


@pytest.mark.parametrize("jump_s", [-DAY_S, DAY_S])
def test_answers_are_kept_by_their_number_whatever_the_clock_says(jump_s: float) -> None:
    """A request that is asked again of the next hub would else be carried out twice, once somebody has set the clock."""
    sqlite = database.open_for_writing(Path(":memory:"))
    names = [f"r{number}" for number in range(REPLIES_KEPT_MAX + 3)]
    for part, wall_s in ((names[:10], WALL_S + jump_s), (names[10:], WALL_S)):
        writes = [PutReply(name, wall_s, 202, Json(b"{}")) for name in part]
        journal._write(sqlite, Commit(list(writes), Ledger(), 1, Position(1, 0), Now(0.0, wall_s)), 0)
    assert journal._prune(sqlite, Now(0.0, WALL_S + jump_s), 0.0, 1 << 30) == 3
    assert journal._prune(sqlite, Now(0.0, WALL_S + jump_s), 0.0, 1 << 30) == 0
    assert [reply.request_id for reply in journal._restored(sqlite).replies] == names[3:], "oldest first"
    sqlite.close()
