"""What heartbeats change is shown as any other change would be, though it is merged only when somebody reads it."""

from __future__ import annotations

import json
import random

import pytest

from processes.core.fanout.feed import GATHER_S_MAX, Gathering
from processes.core.fanout.mirror import Mirror
from processes.core.shown.replica import Replica
from processes.core.travels.messages import Change, Changed, HostsHeard, HubStarted, Json, SnapshotPiece

HOSTS = ("a", "b", "c")


def program(seed: int) -> list[Change | tuple[str, Json]]:
    """Changes of hosts, and what heartbeats change of those that are there."""
    dice = random.Random(seed)
    found: list[Change | tuple[str, Json]] = []
    there: set[str] = set()
    for number in range(60):
        host = dice.choice(HOSTS)
        match dice.randrange(8):
            case 0:
                found.append(Change("host_removed", host))
                there.discard(host)
            case 1 | 2:
                fields = {dice.choice(("last_seen", "metrics", "presence")): number, "name": host}
                found.append(Change("host", host, Json(json.dumps(fields).encode())))
                there.add(host)
            case _ if host in there:
                found.append((host, Json(b'{"last_seen":%d,"metrics":{"cpu":%d}}' % (number, number))))
    return found


def rows(replica: Replica) -> dict[str, object]:
    return {change.id: json.loads(change.fields) for change in replica.changes("host")}


@pytest.mark.parametrize("seed", range(100))
def test_a_replica_shows_what_was_heard_as_if_it_were_merged_at_once(seed: int) -> None:
    dice = random.Random(seed)
    lazy, plain = Replica(), Replica()
    for each in program(seed):
        if isinstance(each, Change):
            lazy.apply(each)
            plain.apply(each)
        else:
            assert lazy.hear(*each)
            plain.apply(Change("host", *each))
        assert lazy.mutations == plain.mutations
        if dice.random() < 0.2:
            host = dice.choice(HOSTS)
            one, other = lazy.row("host", host), plain.row("host", host)
            assert (one and json.loads(one)) == (other and json.loads(other))
        if dice.random() < 0.1:
            assert [[c.id for c in piece] for piece in lazy.pieces(2)] == [
                [c.id for c in piece] for piece in plain.pieces(2)
            ]
    assert rows(lazy) == rows(plain)


@pytest.mark.parametrize("seed", range(100))
def test_what_is_gathered_has_the_result_of_what_was_added(seed: int) -> None:
    gathering, shown, plain = Gathering(), Replica(), Replica()
    for number, each in enumerate(program(seed)):
        if isinstance(each, Change):
            gathering.add(each)
            plain.apply(each)
        else:
            gathering.hear(*each)
            plain.apply(Change("host", *each))
        if number % 7 == 0:
            for change in gathering.take(number * GATHER_S_MAX):
                shown.apply(change)
            assert rows(shown) == rows(plain)


def test_a_host_that_is_not_there_is_not_heard() -> None:
    replica = Replica()
    assert not replica.hear("a", Json(b'{"last_seen":1}'))
    assert rows(replica) == {}


def test_a_change_that_is_no_object_changes_nothing_of_what_was_heard() -> None:
    replica = Replica()
    replica.apply(Change("host", "a", Json(b'{"name":"a"}')))
    replica.hear("a", Json(b'{"last_seen":1}'))
    with pytest.raises(ValueError, match="object"):
        replica.apply(Change("host", "a", Json(b"[]")))
    assert rows(replica) == {"a": {"name": "a", "last_seen": 1}}


def test_what_is_heard_while_a_snapshot_comes_in_is_in_the_rows_that_are_there_and_in_those_that_come() -> None:
    mirror = Mirror()
    mirror.take(HubStarted(1), 0.0)
    mirror.ask("s1", 0.0)
    mirror.take(SnapshotPiece(1, "s1", 0, True, [Change("host", "a", Json(b'{"name":"a"}'))]), 0.0)
    mirror.take(HubStarted(2), 1.0)
    mirror.ask("s2", 1.0)
    mirror.take(SnapshotPiece(2, "s2", 0, False, [Change("host", "a", Json(b'{"name":"a"}'))]), 1.0)
    heard = [("a", Json(b'{"last_seen":5}')), ("b", Json(b'{"last_seen":6}'))]
    assert mirror.take(HostsHeard(2, heard), 1.0).heard == [], "rows of the hub before are on show still"
    whole = [Change("host", "b", Json(b'{"name":"b","last_seen":6}'))]
    assert mirror.take(SnapshotPiece(2, "s2", 1, True, whole), 1.0).renewed
    assert rows(mirror.shown) == {"a": {"name": "a", "last_seen": 5}, "b": {"name": "b", "last_seen": 6}}
    assert mirror.take(HostsHeard(2, [("a", Json(b'{"last_seen":7}'))]), 1.0).heard
    assert mirror.take(HostsHeard(1, [("a", Json(b'{"last_seen":8}'))]), 1.0).heard == [], "of an older hub"
    mirror.take(Changed(2, [Change("host", "a", Json(b'{"presence":"stale"}'))]), 1.0)
    assert rows(mirror.shown)["a"] == {"name": "a", "last_seen": 7, "presence": "stale"}
