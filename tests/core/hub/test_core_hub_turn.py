"""Which events a turn steps, parks, refuses and acknowledges: by table, and by random lives of hubs on one disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from doubles.fleet_play import Play
from hypothesis import given
from hypothesis import strategies as st

from processes.core.errors import LocalError
from processes.core.hub import beats, step
from processes.core.hub.beats import Heard
from processes.core.hub.effects import Drop, Effects, Put
from processes.core.hub.memory import Draft, Memory, derived_id
from processes.core.hub.rules import Rules
from processes.core.hub.step import OwnEvent, StoredState
from processes.core.hub.turn import (
    COST_MAX,
    INBOX_MAX,
    PARKED_MAX,
    WRITE_BEHIND_MAX,
    WRITE_BEHIND_S,
    CommitBatch,
    Outcome,
    Storage,
    Turn,
)
from processes.core.records.dead_letter import DeadLetter, Why
from processes.core.records.ledger import Ledger
from processes.core.travels import messages
from processes.core.travels.agent_frames import Heartbeat, Metrics
from processes.core.travels.messages import (
    AgentDisconnected,
    Beat,
    Event,
    GiveCommand,
    HeartbeatReceived,
    HeartbeatsReceived,
    HostsHeard,
    Json,
    OutputReceived,
    RequestReceived,
    StatusReceived,
)
from processes.core.values import Now, OutputRecord, Position, Stream

NOWHERE = Position(0, 0)


class PlainBarrier:
    """Steps, and lets whatever raises out."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.names: list[str] = []
        self.unreadable: list[str] = []
        self.raises = False

    def step(self, event: Event | OwnEvent, name: str, now: Now, retried: DeadLetter | None = None) -> Draft:
        self.names.append(name)
        draft = step.step(self.memory, event, now)
        if retried is not None:
            draft.drop(self.memory.dead_letters, retried.id)
        return draft

    def beats(self, event: HeartbeatsReceived, name: str, now: Now) -> Heard:
        self.names.append(name)
        return Heard([], event.beats) if self.raises else beats.take(self.memory, event, now)

    def undecodable(self, item: bytes, error: Exception, now: Now, host: str) -> Draft:
        kept = DeadLetter(f"u{item.hex()}", now.wall_s, "undecodable", Why.UNDECODABLE, event=item)
        return step.keep(self.memory, kept, now)

    def unsaid(self, what: str, host: str, error: str, now: Now) -> Draft:
        return step.keep(self.memory, DeadLetter("unsaid", now.wall_s, what, Why.RAISED, host=host, error=error), now)

    def applied(self, effects: Effects) -> None:
        pass

    def not_retried(self, kept: DeadLetter, error: LocalError) -> None:
        self.unreadable.append(kept.id)


@dataclass
class Scene:
    """A hub's turns with a hand on the events, the disk and the clock."""

    play: Play = field(default_factory=Play)
    refused_before: Position = NOWHERE
    taken_at: Position = NOWHERE
    sequence: int = 0

    def __post_init__(self) -> None:
        self.barrier = PlainBarrier(self.play.memory)
        self.turns = Turn(self.play.memory, self.barrier, NOWHERE, self.refused_before, taken_at=self.taken_at)
        self.turn()  # what is written behind, and the first tick

    def say(self, *events: Event) -> None:
        """These are the next items of `events`."""
        self.sequence += len(events)
        items = [messages.encode(event) for event in events]
        self.turns.receive(items, Position(1, self.sequence), 7, self.play.now)

    def turn(self, storage: Storage = Storage.IDLE) -> Outcome:
        return self.turns.turn(self.play.now, storage, 7)

    def request(self, request_id: str, *hosts: str) -> RequestReceived:
        return RequestReceived(
            request_id, "fanout", "ann", self.play.at_s + 5, GiveCommand("pull", list(hosts or ("a",)))
        )


@pytest.fixture
def scene() -> Scene:
    """Hosts a (an agent with a journal) and nix (a foreign one), both connected; nix runs one command, so does a."""
    play = Play()
    play.enroll("a", "nix")
    play.connect("a", "c1")
    play.connect("nix", "n1", protocol=0)
    play.beat("nix", "n1")
    return Scene(play)


def beat(number: float = 1.0) -> HeartbeatReceived:
    return HeartbeatReceived("c1", "gateway", "a", Heartbeat(Metrics(cpu=number)))


def statuses(effects: Effects) -> list[int]:
    return [reply.status for _, reply in effects.replies]


# a table: what becomes of each kind of event while the storage is idle, busy and blocked


def events_of(scene: Scene) -> dict[str, Event]:
    (own,) = scene.play.give("pull", "a")
    (foreign,) = scene.play.give("pull", "nix")
    scene.play.ask(GiveCommand("pull", ["a"]), request_id="asked before")
    return {
        "heartbeat": beat(),
        "disconnect": AgentDisconnected("c1", "gateway", "a", 1006),
        "report": StatusReceived("c1", "gateway", "a", "ok", 0, "", own),
        "output": OutputReceived("c1", "gateway", "a", [OutputRecord(0, Stream.STDOUT, "x")], own),
        "request": scene.request("new"),
        "refused request": RequestReceived(
            "bad", "fanout", "ann", scene.play.at_s + 5, GiveCommand("pull", ["nobody"])
        ),
        "request asked again": scene.request("asked before"),
        "foreign report": StatusReceived("n1", "gateway", "nix", "ok", 0, "", foreign),
        "foreign output": OutputReceived("n1", "gateway", "nix", [OutputRecord(None, Stream.STDOUT, "x")], foreign),
    }


TOLD, BATCHED, PARKED, LET_GO, REFUSED = "told now", "in the batch", "parked", "let go", "refused"
TABLE: Mapping[str, tuple[str, str, str]] = {  # idle, busy, blocked
    "heartbeat": (TOLD, TOLD, TOLD),
    "disconnect": (TOLD, TOLD, TOLD),
    "report": (BATCHED, PARKED, LET_GO),
    "output": (BATCHED, PARKED, LET_GO),
    "request": (BATCHED, PARKED, REFUSED),
    "refused request": (TOLD, PARKED, REFUSED),
    "request asked again": (TOLD, PARKED, PARKED),
    "foreign report": (BATCHED, PARKED, PARKED),
    "foreign output": (BATCHED, PARKED, PARKED),
}


@pytest.mark.parametrize("storage", list(Storage))
@pytest.mark.parametrize("kind", list(TABLE))
def test_what_becomes_of_an_event_follows_from_its_kind_and_the_storage(
    scene: Scene, kind: str, storage: Storage
) -> None:
    event = events_of(scene)[kind]
    scene.play.settle()
    scene.turn()
    scene.say(event)
    outcome = scene.turn(storage)
    found = (
        REFUSED if outcome.refused is not None
        else PARKED if scene.turns.backlog
        else TOLD if outcome.now.changes or outcome.now.replies
        else BATCHED if outcome.batch is not None
        else LET_GO
    )  # fmt: skip
    assert found == TABLE[kind][list(Storage).index(storage)]
    if found == REFUSED:
        assert statuses(outcome.now) == [503]
    if storage is not Storage.IDLE:
        assert (outcome.batch, outcome.acknowledge) == (None, None), "one transaction at a time"


def test_what_was_parked_is_stepped_in_its_order_once_the_disk_is_free(scene: Scene) -> None:
    scene.say(scene.request("r1"), scene.request("r2"), beat())
    assert not scene.turn(Storage.BUSY).now.replies
    outcome = scene.turn()
    assert [reply.request_id for _, reply in outcome.then.replies] == ["r1", "r2"]
    assert statuses(outcome.now) == []
    assert outcome.acknowledge == Position(1, 3)


def test_what_must_be_written_anyway_is_stepped_once_and_only_when_the_disk_is_free(scene: Scene) -> None:
    (own,) = scene.play.give("pull", "a")
    scene.play.settle()
    scene.turn()
    end = StatusReceived("c1", "gateway", "a", "ok", 0, "", own)
    scene.say(scene.request("r1"), end, beat())
    kinds = ("RequestReceived", "StatusReceived")
    for _ in range(3):
        scene.turn(Storage.BUSY)
        assert not [name for name in scene.barrier.names if name.startswith(kinds)]
    scene.turn()
    assert [name.split()[0] for name in scene.barrier.names if name.startswith(kinds)] == list(kinds)


@pytest.mark.parametrize("kind", list(TABLE))
def test_what_waited_unstepped_when_the_disk_blocks_goes_the_way_of_its_kind(scene: Scene, kind: str) -> None:
    event = events_of(scene)[kind]
    scene.play.settle()
    scene.turn()
    scene.say(event)
    busy = scene.turn(Storage.BUSY)
    blocked = scene.turn(Storage.BLOCKED)
    again = scene.turn(Storage.BLOCKED)
    found = (
        REFUSED if blocked.refused is not None
        else PARKED if scene.turns.backlog
        else TOLD if busy.now.changes or busy.now.replies
        else LET_GO
    )  # fmt: skip
    assert found == TABLE[kind][list(Storage).index(Storage.BLOCKED)]
    assert statuses(blocked.now) == ([503] if found == REFUSED else [])
    assert again.refused is None
    assert not again.now.replies


def test_nothing_is_acknowledged_while_a_commit_is_under_way_and_then_all_that_was_stepped(scene: Scene) -> None:
    scene.say(beat(), scene.request("r1"), beat(2.0))
    for _ in range(3):
        assert scene.turn(Storage.BUSY).acknowledge is None
    assert scene.play.memory.hosts["a"].heartbeat == Heartbeat(Metrics(cpu=2.0)), "presence goes on"
    assert (scene.turns.backlog, scene.turns.oldest_ns) == (1, 7)
    outcome = scene.turn()
    assert outcome.acknowledge == Position(1, 3)
    assert outcome.batch is not None
    assert outcome.batch.position == Position(1, 3)


def test_presence_is_told_while_a_commit_is_under_way_and_what_it_means_for_commands_waits(scene: Scene) -> None:
    """That commit may hold the command's row: who was told of a change first would be told of the older row last."""
    scene.play.give("pull", "a")
    scene.say(AgentDisconnected("c1", "gateway", "a", 1006))
    outcome = scene.turn(Storage.BUSY)
    assert [change.kind for change in outcome.now.rows] == ["host"]
    assert "a" in scene.play.memory.due
    assert outcome.batch is None


def test_a_request_asked_twice_in_one_batch_is_answered_after_the_commit_both_times(scene: Scene) -> None:
    scene.say(scene.request("r1"), scene.request("r1"))
    outcome = scene.turn()
    assert statuses(outcome.now) == []
    assert statuses(outcome.then) == [202, 202]
    assert len(scene.play.memory.commands) == 1


def test_a_refusal_is_noted_told_once_and_written_with_the_commit_that_passes_it(scene: Scene) -> None:
    scene.say(scene.request("r1"))
    outcome = scene.turn(Storage.BLOCKED)
    assert (outcome.refused, statuses(outcome.now)) == (Position(1, 1), [503])
    scene.say(scene.request("r1"))  # a copy, asked again after a gap
    again = scene.turn()
    assert statuses(again.now) == [503]
    assert again.batch is not None
    assert [write.key for write in again.batch.writes if isinstance(write, Put) and write.table == "replies"] == ["r1"]
    assert again.batch.position == Position(1, 2)
    assert not scene.play.memory.commands


def test_a_refusal_is_forgotten_after_its_deadline_and_its_copy_is_refused_for_that(scene: Scene) -> None:
    request = scene.request("r1")
    scene.say(request)
    scene.turn(Storage.BLOCKED)
    scene.play.at_s += 60
    scene.turn()
    assert not scene.turns._refused
    scene.say(request)
    assert statuses(scene.turn().now) == [503]
    assert not scene.play.memory.commands


def test_a_hub_refuses_what_the_one_before_it_refused_and_answers_what_that_carried_out() -> None:
    play = Play()
    play.enroll("a")
    play.ask(GiveCommand("pull", ["a"]), request_id="done")
    scene = Scene(play, refused_before=Position(1, 3))
    done, refused, heard, later = (scene.request(name) for name in ("done", "refused", "at the mark", "later"))
    scene.say(done, refused, heard, later)
    outcome = scene.turn()
    assert {reply.request_id: reply.status for _, reply in (*outcome.now.replies, *outcome.then.replies)} == {
        "done": 202, "refused": 503, "at the mark": 503, "later": 202,
    }  # fmt: skip
    assert outcome.refused is None, "the mark stands already, and must not go back"


def test_a_foreign_agents_words_are_kept_in_their_order_however_long_the_disk_is_blocked(scene: Scene) -> None:
    """They are never said again, so they must not be let go with what will be."""
    (command_id,) = scene.play.give("pull", "nix")
    record = OutputRecord(None, Stream.STDOUT, "line")
    scene.say(
        OutputReceived("n1", "gateway", "nix", [record], command_id),
        StatusReceived("n1", "gateway", "nix", "ok", 0, "", command_id),
    )
    for _ in range(3):
        scene.turn(Storage.BLOCKED)
    assert scene.turns.backlog == 2
    outcome = scene.turn()
    assert scene.play.command(command_id).output_next == 1
    assert scene.play.state(command_id) == "succeeded"
    assert outcome.batch is not None


def test_no_more_than_a_bound_is_parked(scene: Scene) -> None:
    (command_id,) = scene.play.give("pull", "a")
    report = StatusReceived("c1", "gateway", "a", "ok", 0, "", command_id)
    scene.say(*[report] * (PARKED_MAX + 5))
    while scene.turns._inbox:
        scene.turn(Storage.BUSY)
    assert scene.turns.backlog == PARKED_MAX


def test_a_turn_is_short_and_the_inbox_is_bounded(scene: Scene) -> None:
    scene.say(*[beat(float(number)) for number in range(INBOX_MAX)])
    assert not scene.turns.has_room
    scene.turn()
    assert scene.turns.backlog == INBOX_MAX - COST_MAX
    assert scene.turns.has_room


def test_what_is_written_behind_is_written_once_a_second_and_at_the_end(scene: Scene) -> None:
    def hosts(outcome: Outcome) -> list[str]:
        writes = outcome.batch.writes if outcome.batch is not None else []
        return [write.key for write in writes if isinstance(write, Put) and write.table == "hosts"]

    scene.say(beat())
    assert hosts(scene.turn()) == []
    scene.play.at_s += WRITE_BEHIND_S
    assert hosts(scene.turn()) == ["a"]
    scene.say(beat(2.0))
    scene.turns.flush()
    assert hosts(scene.turn()) == ["a"]
    assert scene.turn().batch is None


@pytest.mark.parametrize(("size", "times"), [(0, 64), (16 << 10, 32), (512 << 10, 2)])
def test_a_large_record_is_written_behind_so_much_less_often_and_at_the_end_all_the_same(
    scene: Scene, size: int, times: int
) -> None:
    """The bug it would catch: half a megabyte of facts is written anew for each heartbeat."""
    hosts = scene.play.memory.hosts
    hosts.put_row("a", msgspec.structs.replace(hosts["a"], facts=Json(b'{"x":"%s"}' % (b"x" * size))))
    scene.say(beat())
    scene.turns.flush()
    scene.turn()
    written = 0
    for number in range(64):
        scene.play.at_s += WRITE_BEHIND_S
        scene.say(beat(number))
        batch = scene.turn().batch
        written += sum(isinstance(w, Put) and w.table == "hosts" for w in (batch.writes if batch else ()))
    assert abs(written - times) <= 1
    scene.say(beat(99.0))
    scene.turns.flush()
    batch = scene.turn().batch
    assert batch is not None
    assert [w.key for w in batch.writes if isinstance(w, Put) and w.table == "hosts"] == ["a"]


def test_what_cannot_be_read_is_kept_and_the_others_go_on(scene: Scene) -> None:
    scene.sequence += 1
    items = [b"\x07broken", messages.encode(scene.request("r1"))]
    scene.turns.receive(items, Position(1, 2), 7, scene.play.now)
    outcome = scene.turn()
    assert [kept.why for kept in scene.play.memory.dead_letters.values()] == [Why.UNDECODABLE]
    assert statuses(outcome.then) == [202]
    assert outcome.acknowledge == Position(1, 2)


def test_an_empty_read_moves_the_position_over_burned_numbers_and_into_a_new_epoch(scene: Scene) -> None:
    scene.turns.receive([], Position(1, 40), 7, scene.play.now)
    assert scene.turn().acknowledge == Position(1, 40)
    scene.turns.receive([], Position(1, 30), 7, scene.play.now)
    assert scene.turn().acknowledge == Position(1, 40), "never back"
    scene.turns.receive([], Position(2, 0), 7, scene.play.now)
    assert scene.turn().acknowledge == Position(2, 0)


def test_a_dead_letter_is_tried_again_waits_for_the_disk_without_holding_anything_back_and_is_gone(
    scene: Scene,
) -> None:
    event = msgspec.json.encode(scene.request("late"))
    kept = DeadLetter("l1", 1.0, "RequestReceived", Why.RAISED, event=event, retrying=True, retries=1)
    scene.play.memory.dead_letters.put_row("l1", kept)
    scene.turns.try_again([kept, DeadLetter("l2", 1.0, "undecodable", Why.UNDECODABLE, event=b"?", retrying=True)])
    scene.say(beat(), beat())
    scene.turn(Storage.BLOCKED)
    scene.turn(Storage.BUSY)
    assert scene.barrier.unreadable == ["l2"]
    assert "l1" in scene.play.memory.dead_letters
    outcome = scene.turn()
    assert statuses(outcome.then) == [202]
    assert outcome.acknowledge == Position(1, 2)
    assert outcome.batch is not None
    assert [write for write in outcome.batch.writes if isinstance(write, Drop)] == [Drop("deadletters", "l1")]


# lives of hubs on one disk


@dataclass
class Disk:
    """What transactions have written: rows by table, ledger, number and position."""

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)
    number: int = 1
    position: Position = NOWHERE

    def take(self, batch: CommitBatch) -> None:
        for write in batch.writes:
            if isinstance(write, Put):
                self.rows.setdefault(write.table, {})[write.key] = write.row
            elif isinstance(write, Drop):
                self.rows.get(write.table, {}).pop(write.key, None)
        self.ledger, self.number, self.position = batch.ledger, batch.next_number, batch.position


class Life:
    """One hub: restored from the disk, its events read again from the disk's position on."""

    def __init__(self, disk: Disk, refused: Position, now: Now, epoch: int) -> None:
        stored = StoredState({name: list(rows.items()) for name, rows in disk.rows.items()}, disk.ledger, disk.number)
        self.disk, self.refused = disk, refused
        self.memory = step.restore(Rules(), epoch, "boot", now, stored)
        self.turns = Turn(self.memory, PlainBarrier(self.memory), disk.position, refused)
        self.read = disk.position.sequence
        self.commit: Outcome | None = None
        self.acknowledged = 0

    def turn(self, queue: list[bytes], now: Now, *, blocked: bool) -> list[messages.Replied]:
        """One turn of the loop, but for the commit, which ends when `committed` is called. Returns what was told."""
        fresh = queue[self.read :]
        self.read = len(queue)
        self.turns.receive(fresh, Position(1, self.read), 7, now)
        storage = Storage.IDLE if self.commit is None else Storage.BLOCKED if blocked else Storage.BUSY
        outcome = self.turns.turn(now, storage, 7)
        if outcome.refused is not None:
            self.refused = outcome.refused
        if outcome.batch is not None:
            assert self.commit is None
            self.commit = outcome
        elif outcome.acknowledge is not None:
            self.acknowledged = outcome.acknowledge.sequence
        return [reply for _, reply in outcome.now.replies]

    def committed(self) -> list[messages.Replied]:
        assert self.commit is not None
        assert self.commit.batch is not None
        self.disk.take(self.commit.batch)
        outcome, self.commit = self.commit, None
        assert outcome.acknowledge is not None
        self.acknowledged = outcome.acknowledge.sequence
        return [reply for _, reply in outcome.then.replies]


ACTS = st.sampled_from(("ask", "ask", "ask again", "turn", "turn", "blocked turn", "commit", "die", "die in commit"))


@given(st.lists(ACTS, max_size=60), st.randoms(use_true_random=False))
def test_whoever_was_told_accepted_finds_it_and_whoever_was_refused_never_does_whatever_dies(
    acts: list[str], dice: Any
) -> None:
    """The bugs it would catch: told before the commit; a position past a parked event; a refusal that the next hub, or
    a copy of the request, does not know.
    """
    at_s, disk, epoch = 1000.0, Disk(), 1
    queue: list[bytes] = []
    told: dict[str, set[int]] = {}  # request id → the statuses that were told

    def now() -> Now:
        return Now(at_s, at_s + 1e9)

    def hear(replies: list[messages.Replied]) -> None:
        for reply in replies:
            told.setdefault(reply.request_id, set()).add(reply.status)

    enroll = RequestReceived("enroll", "fanout", "ann", 1e9, messages.EnrollHost("a", "hash"))
    queue.append(messages.encode(enroll))
    life = Life(disk, NOWHERE, now(), epoch)
    life.turn(queue, now(), blocked=False)
    hear(life.committed())
    asked: list[bytes] = []
    for act in (*acts, "commit", "ask all again", "turn", "commit", "turn", "commit"):
        at_s += 0.01
        if act == "ask":
            request = RequestReceived(f"r{len(asked)}", "fanout", "ann", 1e9, GiveCommand("pull", ["a"]))
            asked.append(messages.encode(request))
            queue.append(asked[-1])
        elif act == "ask again" and asked:
            queue.append(dice.choice(asked))
        elif act == "ask all again":  # as a fanout does that met a gap: whose answer died with a hub gets it now
            queue += asked
        elif act in ("turn", "blocked turn"):
            hear(life.turn(queue, now(), blocked=act == "blocked turn"))
        elif act == "commit" and life.commit is not None:
            hear(life.committed())
        elif act in ("die", "die in commit"):
            if act == "die in commit" and life.commit is not None:
                life.committed()  # on disk, and never told
            epoch += 1
            life = Life(disk, life.refused, now(), epoch)
        assert life.acknowledged <= len(queue)
    given_by = {command.id: command for command in disk.rows.get("commands", {}).values()}
    for request_id, found in told.items():
        if request_id == "enroll":
            continue
        assert len(found) == 1, f"{request_id} was told {found}"
        command_id = derived_id(request_id, "a")
        assert (command_id in given_by) == (found == {202}), f"{request_id}: {found}"
    assert {request_id for request_id in told if request_id != "enroll"} == {f"r{n}" for n in range(len(asked))}
    assert disk.ledger.accepted == len(given_by)


# batches of heartbeats


def batch(*rows: Beat) -> HeartbeatsReceived:
    return HeartbeatsReceived("gateway", list(rows))


def row(host: str, connection: str, cpu: float = 5.0, **fields: Any) -> Beat:
    return Beat(connection, host, Json(b'{"cpu":%.1f}' % cpu), **fields)


def test_a_batch_is_shown_as_one_message_behind_what_came_before_it(scene: Scene) -> None:
    scene.say(beat(3.0))
    scene.turn()
    scene.say(beat(4.0), batch(row("a", "c1"), row("nix", "n1")), beat(6.0))
    first, heard, last = scene.turn().now.changes
    assert isinstance(heard, HostsHeard)
    assert not isinstance(first, HostsHeard)
    assert not isinstance(last, HostsHeard)
    assert [name for name, _ in heard.hosts] == ["a", "nix"]
    cpus = [msgspec.json.decode(fields)["metrics"]["cpu"] for fields in (first.fields, heard.hosts[0][1], last.fields)]
    assert cpus == [4.0, 5.0, 6.0]


def test_a_batch_is_taken_and_shown_while_the_disk_is_blocked(scene: Scene) -> None:
    scene.say(beat())
    scene.turn()
    scene.say(batch(row("a", "c1", 9.0)))
    outcome = scene.turn(Storage.BLOCKED)
    assert [type(change) for change in outcome.now.changes] == [HostsHeard]
    assert scene.turns.backlog == 0


def test_metrics_that_are_none_put_their_row_aside_and_no_other(scene: Scene) -> None:
    scene.say(beat())
    scene.turn()
    before = scene.turns.stepped
    scene.say(batch(row("nix", "n1"), Beat("c1", "a", Json(b'{"cpu":"hot"}'))))
    scene.barrier.raises = True
    scene.turn()
    assert scene.play.memory.hosts["nix"].heartbeat == Heartbeat(Metrics(cpu=5.0))
    (kept,) = scene.play.memory.dead_letters.values()
    assert kept.why is Why.UNDECODABLE
    assert scene.turns.stepped == before + 1


def test_batches_fill_a_turn_by_their_rows(scene: Scene) -> None:
    scene.say(*(batch(*(row("a", "c1") for _ in range(100))) for _ in range(40)))
    scene.turn()
    assert scene.turns.backlog == 40 - -(-COST_MAX // 11)


def test_of_many_hosts_those_that_wait_longest_are_written_behind_first(scene: Scene) -> None:
    names = [f"h{number}" for number in range(WRITE_BEHIND_MAX + 5)]
    for name in names:
        scene.play.memory.hosts.put_row(name, scene.play.memory.hosts["a"])
        scene.play.memory.dirty.put_row(name, True)
    written: list[str] = []
    for _ in range(2):
        scene.play.at_s += WRITE_BEHIND_S
        scene.play.memory.dirty.put_row(names[0], True)
        outcome = scene.turn()
        assert outcome.batch is not None
        written += [write.key for write in outcome.batch.writes if isinstance(write, Put) and write.table == "hosts"]
    assert written == [*names, names[0]]


def test_a_request_to_the_hub_of_another_machine_is_left_and_a_copy_behind_the_takeover_is_carried_out() -> None:
    """The bug it would catch: what the other hub answered with 503 is done all the same, or its copy is not."""
    play = Play()
    play.enroll("a")
    scene = Scene(play, taken_at=Position(1, 1))
    scene.say(scene.request("r1"))
    left = scene.turn()
    assert (left.batch, left.now.replies, left.acknowledge) == (None, [], Position(1, 1))
    scene.say(scene.request("r1"))
    done = scene.turn()
    assert [reply.status for _, reply in done.then.replies] == [202]
