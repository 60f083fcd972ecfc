"""processes.core.fanout.feed and mirror: what one connection is sent, and how the rows on show follow the hub."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from processes.core.fanout import feed
from processes.core.fanout.feed import Feed, Gathering, Step
from processes.core.fanout.mirror import ASK_S_MAX, Mirror
from processes.core.shown.replica import Replica
from processes.core.travels.messages import Change, Changed, HubStarted, Json, SnapshotPiece


def change(kind: str, id: str, **fields: Any) -> Change:
    return Change(kind, id, Json(json.dumps(fields).encode()))


def names(mirror: Mirror) -> dict[str, Any]:
    return {c.id: json.loads(c.fields) for c in mirror.shown.changes("host")}


# one connection


def test_a_version_grows_by_exactly_one_with_each_delta_sent_and_with_nothing_else() -> None:
    """Random slowness: versions of sent deltas are consecutive, and a delta never comes before its full state."""
    dice = random.Random(1)
    connection, version, whole = Feed(7), 7, False
    epoch = 1
    for _ in range(10_000):
        slow = dice.random() < 0.3
        epoch += dice.random() < 0.01
        step = connection.whole(epoch, slow) if dice.random() < 0.1 else connection.delta(epoch, slow)
        if step is Step.SEND:
            assert whole
            assert connection.version == version + 1
            version = connection.version
        else:
            assert connection.version == version
            whole = step is Step.FULL
    assert version > 1000


def test_a_slow_connection_is_skipped_and_gets_a_full_state_when_it_has_room() -> None:
    connection = Feed(0)
    assert connection.whole(1, slow=False) is Step.FULL
    assert [connection.delta(1, slow=True), connection.delta(1, slow=True)] == [Step.SKIP, Step.SKIP]
    assert connection.delta(1, slow=False) is Step.FULL
    assert connection.delta(1, slow=False) is Step.SEND
    assert connection.version == 1


def test_a_new_epoch_is_never_told_by_a_delta() -> None:
    connection = Feed(0)
    connection.whole(1, slow=False)
    assert connection.delta(2, slow=False) is Step.FULL
    assert connection.epoch == 2


def test_a_full_state_alone_never_makes_a_connection_slow() -> None:
    for size in (0, 1000, 50 << 20):
        room = feed.room(size)
        assert room.buffer_bytes_high > size
        assert room.buffer_bytes_max > room.buffer_bytes_high
        assert room.slow_s_max >= size / feed.FULL_BYTES_PER_S_MIN


# gathering


def test_the_first_change_is_due_at_once_and_further_ones_after_50_ms() -> None:
    gathering = Gathering()
    assert gathering.due_s() is None
    gathering.add(change("host", "a", x=1))
    due_s = gathering.due_s()
    assert due_s is not None
    assert due_s <= 0.0
    gathering.take(10.0)
    gathering.add(change("host", "a", x=2))
    assert gathering.due_s() == 10.0 + feed.GATHER_S_MAX


def test_a_command_s_steps_are_not_gathered_for_50_ms() -> None:
    gathering = Gathering()
    gathering.take(10.0)
    gathering.add(change("host", "a", x=1))
    gathering.add(change("command", "c", state="succeeded"))
    gathering.add(change("ledger", "ledger", x=1))
    assert gathering.due_s() == 10.0 + feed.GATHER_COMMANDS_S_MAX
    assert len(gathering.take(10.005)) == 3
    gathering.add(change("host", "a", x=2))
    assert gathering.due_s() == 10.005 + feed.GATHER_S_MAX


@pytest.mark.parametrize("connections", [1, 10, 100, 1_000])
def test_the_early_frames_of_commands_are_bounded_over_all_connections(connections: int) -> None:
    """With many connections the steps of commands are gathered as all else; when it is quiet again, they go early."""
    gathering, now_s, frames, early = Gathering(), 10.0, 0, 0
    gathering.take(now_s)
    while now_s < 20.0:
        gathering.add(change("command", "c", state="running"))
        due_s = gathering.due_s()
        assert due_s is not None
        assert feed.GATHER_COMMANDS_S_MAX <= due_s - now_s + 1e-9 <= feed.GATHER_S_MAX + 2e-9
        early += due_s - now_s < feed.GATHER_S_MAX - 1e-9
        frames += connections
        now_s = due_s
        gathering.take(now_s, connections)
    gathered_only = connections * 10.0 / feed.GATHER_S_MAX
    assert frames <= gathered_only + 11 * feed.EARLY_FRAMES_PER_S_MAX + connections
    assert early > 10
    gathering.take(now_s + 2.0, connections)
    gathering.add(change("command", "c", state="running"))
    assert gathering.due_s() == now_s + 2.0 + feed.GATHER_COMMANDS_S_MAX


def test_too_many_rows_go_at_once() -> None:
    gathering = Gathering()
    gathering.take(10.0)
    for number in range(feed.GATHERED_ROWS_MAX):
        gathering.add(change("host", str(number), x=1))
    assert gathering.due_s() == 10.0


def test_gathered_changes_have_the_effect_of_the_single_ones() -> None:
    """Conflation loses nothing: merging, removing and coming back within one gathering end in the same rows."""
    for seed in range(200):
        dice = random.Random(seed)
        gathering, single, conflated = Gathering(), Replica(), Replica()
        for _ in range(30):
            id, kind = (
                str(dice.randrange(4)),
                dice.choice(["host", "host", "command", "host_removed", "command_removed"]),
            )
            one = (
                Change(kind, id)
                if kind.endswith("_removed")
                else change(kind, id, state="queued", host="h", **{dice.choice("xy"): dice.random()})
            )
            single.apply(one)
            gathering.add(one)
            if dice.random() < 0.2:
                for gathered in gathering.take(0.0):
                    conflated.apply(gathered)
        for gathered in gathering.take(0.0):
            conflated.apply(gathered)
        for kind in ("host", "command"):
            assert {c.id: json.loads(c.fields) for c in conflated.changes(kind)} == {
                c.id: json.loads(c.fields) for c in single.changes(kind)
            }, f"seed {seed}"


def test_differences_make_the_later_rows_of_the_earlier() -> None:
    before = {"a": Json(b'{"x":1}'), "b": Json(b"{}")}
    after = {"a": Json(b'{"x":2}'), "c": Json(b"{}")}
    assert feed.differences("process", before, after) == [
        Change("process_removed", "b"),
        Change("process", "a", Json(b'{"x":2}')),
        Change("process", "c", Json(b"{}")),
    ]
    assert feed.differences("process", after, after) == []


# the mirror


def piece(epoch: int, snapshot: str, number: int, last: bool, *hosts: str) -> SnapshotPiece:
    return SnapshotPiece(epoch, snapshot, number, last, [change("host", name, name=name) for name in hosts])


def whole_mirror(epoch: int = 1) -> Mirror:
    mirror = Mirror()
    mirror.take(HubStarted(epoch), 0.0)
    mirror.ask("s", 0.0)
    assert mirror.take(piece(epoch, "s", 0, True, "old"), 0.0).renewed
    return mirror


def test_a_mirror_wants_a_snapshot_at_its_start_and_after_each_loss_until_it_has_one() -> None:
    mirror = Mirror()
    assert mirror.wants(0.0)
    mirror.ask("s", 0.0)
    assert not mirror.wants(ASK_S_MAX / 2)
    assert mirror.wants(ASK_S_MAX * 1.1)
    mirror.take(piece(1, "s", 0, True), 0.1)
    mirror.ask("t", 0.1)
    mirror.take(piece(1, "t", 0, True), 0.2)
    assert not mirror.wants(100.0)
    mirror.gap()
    assert mirror.wants(100.0)


def test_during_a_gap_in_one_epoch_deltas_go_on_and_the_snapshot_then_heals() -> None:
    mirror = whole_mirror()
    mirror.gap()
    mirror.ask("t", 1.0)
    seen = mirror.take(Changed(1, [change("host", "old", x=1)]), 1.0)
    assert [c.id for c, _ in seen.changes] == ["old"]
    mirror.take(piece(1, "t", 0, False, "a"), 1.0)
    mirror.take(Changed(1, [change("host", "a", x=2), change("host", "new", name="new")]), 1.0)
    assert mirror.take(piece(1, "t", 1, True, "b"), 1.0).renewed
    assert names(mirror) == {"a": {"name": "a", "x": 2}, "new": {"name": "new"}, "b": {"name": "b"}}


def test_rows_of_a_new_hub_are_not_shown_before_its_snapshot_is_whole() -> None:
    mirror = whole_mirror(1)
    assert mirror.take(HubStarted(2), 1.0).new_hub
    mirror.ask("t", 1.0)
    assert mirror.take(Changed(2, [change("host", "old", x=1)]), 1.0).changes == []
    assert (mirror.epoch, mirror.shown_epoch) == (2, 1)
    mirror.take(piece(2, "t", 0, True, "fresh"), 1.0)
    assert mirror.shown_epoch == 2
    assert list(names(mirror)) == ["fresh"]


def test_an_older_hub_is_not_heard() -> None:
    mirror = whole_mirror(5)
    assert mirror.take(Changed(4, [Change("host_removed", "old")]), 1.0).changes == []
    assert mirror.take(HubStarted(4), 1.0).new_hub is False
    assert (names(mirror), mirror.epoch) == ({"old": {"name": "old"}}, 5)


def test_a_piece_that_is_missing_or_of_another_snapshot_never_makes_a_whole() -> None:
    mirror = whole_mirror()
    mirror.gap()
    mirror.ask("t", 1.0)
    assert not mirror.take(piece(1, "s", 0, True, "of an older one"), 1.0).renewed
    mirror.take(piece(1, "t", 0, False, "a"), 1.0)
    assert not mirror.take(piece(1, "t", 2, True, "c"), 1.0).renewed
    assert names(mirror) == {"old": {"name": "old"}}
    assert mirror.wants(1.0 + ASK_S_MAX * 1.1)


def test_the_database_is_shown_only_until_a_hub_speaks() -> None:
    mirror = Mirror()
    mirror.load(3, [change("host", "kept", name="kept")])
    assert (list(names(mirror)), mirror.live, mirror.shown_epoch) == (["kept"], False, 3)
    mirror.ask("s", 0.0)
    mirror.take(piece(4, "s", 0, True), 0.0)  # a newer hub: its snapshot was never asked for
    assert list(names(mirror)) == ["kept"]
    mirror.ask("t", 0.0)
    mirror.take(piece(4, "t", 0, True, "told"), 0.0)
    mirror.load(3, [change("host", "kept", name="kept")])
    assert (list(names(mirror)), mirror.live, mirror.shown_epoch) == (["told"], True, 4)
