"""processes.core.shown.replica: rows of JSON that follow changes, and snapshots of them."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import pytest

from processes.core.shown.replica import CANARY_COMMANDS_MAX, Replica
from processes.core.travels.messages import Change, Json
from processes.core.values import CANARY_HOST


def change(kind: str, id: str, **fields: Any) -> Change:
    return Change(kind, id, Json(json.dumps(fields).encode()))


def rows(replica: Replica, kind: str) -> dict[str, Any]:
    return {c.id: json.loads(c.fields) for c in replica.changes(kind)}


def test_fields_are_merged_by_their_top_level_key() -> None:
    replica = Replica()
    replica.apply(change("host", "web1", name="web1", metrics={"cpu": 1, "ram": 2}, presence="online"))
    replica.apply(change("host", "web1", metrics={"cpu": 3}))
    assert rows(replica, "host") == {"web1": {"name": "web1", "metrics": {"cpu": 3}, "presence": "online"}}


def test_a_removed_row_is_gone_and_removing_nothing_is_nothing() -> None:
    replica = Replica()
    replica.apply(change("host", "web1", name="web1"))
    replica.apply(change("command", "c1", state="queued", host="web1"))
    replica.apply(Change("host_removed", "web1"))
    replica.apply(Change("command_removed", "c1"))
    replica.apply(Change("command_removed", "c2"))
    assert len(replica) == 0


def test_a_change_that_is_not_an_object_changes_nothing() -> None:
    replica = Replica()
    replica.apply(change("host", "web1", name="web1"))
    before = replica.mutations
    with pytest.raises(msgspec.DecodeError):
        replica.apply(Change("host", "web1", Json(b"[1]")))
    assert rows(replica, "host") == {"web1": {"name": "web1"}}
    assert replica.mutations == before


def test_of_final_commands_the_newest_are_kept_and_of_open_ones_all() -> None:
    replica = Replica(final_commands_max=3)
    for number in range(6):
        replica.apply(change("command", f"open{number}", state="running", host="web1"))
        replica.apply(change("command", f"done{number}", state="queued", host="web1"))
        replica.apply(change("command", f"done{number}", state="succeeded"))
    assert list(rows(replica, "command")) == ["done3", "done4", "done5", *(f"open{number}" for number in range(6))]


def test_the_canarys_commands_push_out_nobodys() -> None:
    replica = Replica(final_commands_max=3)
    replica.apply(change("command", "mine", state="succeeded", host="web1"))
    for number in range(100):
        replica.apply(change("command", f"canary{number}", state="succeeded", host=CANARY_HOST))
    assert "mine" in rows(replica, "command")
    assert replica.commands == 1 + CANARY_COMMANDS_MAX


def test_a_lost_command_that_is_reported_late_stays_one_row() -> None:
    replica = Replica()
    replica.apply(change("command", "c1", state="lost", host="web1"))
    replica.apply(change("command", "c1", state="succeeded"))
    assert rows(replica, "command") == {"c1": {"state": "succeeded", "host": "web1"}}
    assert replica.commands == 1


def test_a_change_of_a_command_is_about_its_host_even_if_it_does_not_say_so() -> None:
    replica = Replica()
    replica.apply(change("command", "c1", state="queued", host=CANARY_HOST))
    assert replica.host_of(change("command", "c1", state="sent")) == CANARY_HOST
    assert replica.host_of(Change("command_removed", "c1")) == CANARY_HOST
    assert replica.host_of(change("command", "new", state="queued", host="web1")) == "web1"


def test_pieces_taken_while_the_replica_changes_make_the_same_replica_with_the_changes_between() -> None:
    """A snapshot among deltas is exact: whatever changes between two pieces, the reader ends with the writer's rows."""
    for seed in range(50):
        dice = random.Random(seed)
        writer, reader = Replica(final_commands_max=10), Replica(final_commands_max=10)

        def one(dice: random.Random) -> Change:
            id = str(dice.randrange(20))
            kind = dice.choice(["host", "host", "command", "command", "ledger", "host_removed", "command_removed"])
            if kind.endswith("_removed"):
                return Change(kind, id)
            state = dice.choice(["queued", "running"])
            return change(kind, id, **{"name": id, "state": state, "host": "h", dice.choice("xyz"): dice.random()})

        for _ in range(60):
            writer.apply(one(dice))
        for piece in writer.pieces(4):
            for row in piece:
                reader.apply(row)
            for _ in range(3):
                delta = one(dice)
                if writer.row(delta.kind, delta.id) is None and not delta.kind.endswith("_removed"):
                    delta = change(
                        delta.kind, delta.id, name=delta.id, state="queued", host="h", x=0
                    )  # new rows come whole
                    writer.apply(Change(f"{delta.kind}_removed", delta.id))
                writer.apply(delta)
                reader.apply(delta)
        for kind in ("host", "command", "ledger"):
            assert rows(reader, kind) == rows(writer, kind), f"seed {seed}"


def test_an_empty_replica_has_one_empty_piece() -> None:
    assert list(Replica().pieces(10)) == [[]]
