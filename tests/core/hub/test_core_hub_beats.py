"""A batch of heartbeats has the result of its heartbeats one by one, whatever else happens between batches."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from doubles.fleet_play import Play

from processes.core.hub import beats, pace, step
from processes.core.hub.memory import Draft
from processes.core.records import dead_letter
from processes.core.records.command import State
from processes.core.records.dead_letter import Why
from processes.core.shown.replica import Replica
from processes.core.travels import messages
from processes.core.travels.agent_frames import Heartbeat, Metrics
from processes.core.travels.messages import Beat, HeartbeatReceived, HeartbeatsReceived, Json, RotateHost
from processes.core.values import CANARY_HOST, Presence

HOSTS = ("own", "other", "nix", CANARY_HOST)


class Fleet:
    """A hub, and the copy of its state that operators see; `at_once`: batches are stepped as batches."""

    def __init__(self, *, at_once: bool) -> None:
        self.play = Play()
        self.shown = Replica()
        self.at_once = at_once
        self.alone = 0
        for change in step.all_changes(self.play.memory, lambda *_: None):
            self.shown.apply(change)
        self.then(lambda play: play.enroll("own", "other", "nix"))

    def then(self, act: Any) -> None:
        self.play.effects = type(self.play.effects)()
        act(self.play)
        self.show()

    def show(self) -> None:
        for change in (*self.play.effects.at_once, *self.play.effects.rows):
            self.shown.apply(change)
        self.play.effects = type(self.play.effects)()

    def hear(self, rows: list[Beat]) -> None:
        event = HeartbeatsReceived("gateway", rows)
        if self.at_once:
            heard = beats.take(self.play.memory, event, self.play.now)
            for host, fields in heard.shown:
                assert self.shown.hear(host, fields)
            self.alone += len(heard.alone)
            rows = heard.alone
        for row in rows:
            self.play.do(beats.single("gateway", row))
        self.play.settle()
        self.show()

    def state(self) -> dict[str, object]:
        memory = self.play.memory
        rows = {change.id: msgspec.json.decode(change.fields) for change in self.shown.changes("host")}
        tables = {table.name: dict(table) for table in (memory.hosts, memory.links, memory.commands, memory.queues)}
        marks = {table.name: set(table) for table in (memory.dirty, memory.due, memory.armed)}
        return {**tables, **marks, "shown": rows, "counts": memory.counts(), "ledger": memory.ledger}


def connect(play: Play, host: str, connection: str) -> None:
    if host == CANARY_HOST:
        info = play.connection(host, connection)
        play.do(messages.AgentRegistered(connection, "gateway", host, info))
    else:
        play.connect(host, connection, protocol=0 if host == "nix" else 1)


def lift(play: Play, host: str, reason: str) -> None:
    if host in play.memory.hosts and host != CANARY_HOST:
        draft = Draft(play.memory, play.now)
        draft.put(play.memory.hosts, host, msgspec.structs.replace(play.memory.hosts[host], suspended=reason))
        play.effects.extend(draft.apply())


def program(seed: int) -> list[Any]:
    """Eighty acts, most of them batches."""
    dice = random.Random(seed)

    def row(host: str) -> Beat:
        metrics = dice.choice((b"null", b'{"cpu":1.0}', b'{"cpu":2.5,"load":0.0}'))
        facts = dice.choice((b"{}", b"{}", b"{}", b'{"generation":"g1"}'))
        pending = dice.choice((None, None, None, "pull"))
        return Beat(dice.choice("1112"), host, Json(metrics), Json(facts), pending, dice.choice((None, 7, 8)))

    def act() -> Any:
        host, number = dice.choice(HOSTS), dice.choice("1112")
        match dice.randrange(20):
            case 0:
                return "connect", host, number
            case 1:
                return "disconnect", host, number
            case 2 | 3 | 4:
                return "wait", dice.choice((0.1, 4.0, 11.0, 40.0))
            case 5:
                return "give", dice.choice(("own", "nix"))
            case 6:
                return "rotate", dice.choice(("own", "other"))
            case 7:
                return "suspend", dice.choice((*HOSTS, "other")), dice.choice(("", "", "it floods"))
            case 8 if dice.random() < 0.1:
                return "remove", "other"
        return "hear", [row(each) for each in dice.sample(HOSTS, dice.randint(1, len(HOSTS)))]

    return [*(("connect", host, "1") for host in HOSTS), *(act() for _ in range(80))]


def carry_out(fleet: Fleet, act: Any) -> None:
    match act:
        case ("hear", found):
            fleet.hear([msgspec.structs.replace(row, connection=f"{row.host}{row.connection}") for row in found])
        case ("connect", host, number):
            if host in fleet.play.memory.hosts:
                fleet.then(lambda play: connect(play, host, f"{host}{number}"))
        case ("disconnect", host, number):
            fleet.then(lambda play: play.disconnect(host, f"{host}{number}"))
        case ("wait", seconds):
            fleet.then(lambda play: play.wait(seconds))
        case ("give", host):
            if len(fleet.play.memory.queues.get(host, ())) < 3:
                fleet.then(lambda play: play.ask(messages.GiveCommand("pull", [host])))
        case ("rotate", host):
            fleet.then(lambda play: play.ask(RotateHost(host)))
        case ("suspend", host, reason):
            fleet.then(lambda play: lift(play, host, reason))
        case ("remove", host):
            fleet.then(lambda play: play.ask(messages.RemoveHost(host)))


@pytest.mark.parametrize("seed", range(20))
def test_a_batch_has_the_result_of_its_heartbeats_one_by_one(seed: int) -> None:
    fleets = [Fleet(at_once=True), Fleet(at_once=False)]
    for act in program(seed):
        for fleet in fleets:
            carry_out(fleet, act)
        at_once, one_by_one = (fleet.state() for fleet in fleets)
        at_once_shown, alone_shown = at_once.pop("shown"), one_by_one.pop("shown")
        assert at_once == one_by_one
        assert at_once_shown == alone_shown


@pytest.mark.parametrize("seed", range(10))
def test_whoever_is_silent_is_stale_at_the_next_tick_and_nobody_else(seed: int) -> None:
    fleet = Fleet(at_once=True)
    for act in program(seed):
        carry_out(fleet, act)
        memory, now = fleet.play.memory, fleet.play.now
        fleet.then(lambda play: play.wait(0.0))
        draft = Draft(memory, now)
        for name, link in memory.links.items():
            host = memory.hosts[name]
            silent_s = now.boot_s - link.heard_boot_s
            if link.presence is Presence.ONLINE:
                assert silent_s < pace.patience_s(draft, host, link)
            elif link.presence is Presence.STALE and link.connection:
                assert silent_s >= pace.patience_s(draft, host, link)
        assert len(memory.presence_timers) <= 4 * len(HOSTS), "a timer of each host, and those that were overtaken"


def test_the_usual_heartbeats_of_every_kind_of_agent_are_taken_at_once() -> None:
    fleet = Fleet(at_once=True)
    for host in HOSTS:
        fleet.then(lambda play, host=host: connect(play, host, f"{host}1"))
    for number in range(3):
        fleet.hear([Beat(f"{host}1", host, Json(b'{"cpu":%d.0}' % number), command_pid=number) for host in HOSTS])
        assert fleet.alone == len(HOSTS), "the first of a connection may change more"
    shown = {change.id: msgspec.json.decode(change.fields) for change in fleet.shown.changes("host")}
    assert shown["nix"]["metrics"] == {"cpu": 2.0}
    assert shown[CANARY_HOST]["beat"] == 2
    assert CANARY_HOST not in fleet.play.memory.dirty


def test_a_batch_in_which_one_raises_changes_nothing() -> None:
    fleet = Fleet(at_once=True)
    fleet.then(lambda play: connect(play, "own", "own1"))
    fleet.hear([Beat("own1", "own")])
    before = fleet.state()
    fleet.play.at_s += 1
    bad = Beat("own1", "own", Json(b'{"cpu":-1}'))
    with pytest.raises(msgspec.DecodeError):
        beats.take(fleet.play.memory, HeartbeatsReceived("gateway", [Beat("own1", "own"), bad]), fleet.play.now)
    assert fleet.state() == before


def test_a_foreign_agent_that_runs_nothing_any_more_ends_its_command_in_a_batch_too() -> None:
    fleet = Fleet(at_once=True)
    fleet.then(lambda play: connect(play, "nix", "nix1"))
    fleet.hear([Beat("nix1", "nix")])
    (command,) = fleet.play.give("pull", "nix")
    for _ in range(3):
        fleet.play.at_s += 12
        fleet.hear([Beat("nix1", "nix")])
    assert fleet.play.state(command) is State.LOST


def test_a_host_that_is_to_make_a_new_token_is_asked_with_each_heartbeat() -> None:
    fleet = Fleet(at_once=True)
    fleet.then(lambda play: connect(play, "own", "own1"))
    fleet.hear([Beat("own1", "own")])
    fleet.then(lambda play: play.ask(RotateHost("own")))
    heard = beats.take(fleet.play.memory, HeartbeatsReceived("gateway", [Beat("own1", "own")]), fleet.play.now)
    assert len(heard.alone) == 1


def test_a_suspects_heartbeat_is_stepped_alone() -> None:
    fleet = Fleet(at_once=True)
    for host in ("own", "other"):
        fleet.then(lambda play, host=host: connect(play, host, f"{host}1"))
        fleet.hear([Beat(f"{host}1", host)])
    event = HeartbeatsReceived("gateway", [Beat("own1", "own"), Beat("other1", "other")])
    heard = beats.take(fleet.play.memory, event, fleet.play.now, {"own"})
    assert [beat.host for beat in heard.alone] == ["own"]
    assert [host for host, _ in heard.shown] == ["other"]


def test_a_heartbeat_of_the_version_before_is_one_of_a_batch() -> None:
    heartbeat = Heartbeat(Metrics(cpu=3.0, temperatures={"core": 40.0}), "pull", 12)
    alone = HeartbeatReceived("c1", "gateway", "own", heartbeat, Json(b'{"a":1}'))
    row = Beat("c1", "own", Json(msgspec.json.encode(heartbeat.metrics)), Json(b'{"a":1}'), "pull", 12)
    assert beats.single("gateway", row) == alone


def test_a_tick_that_is_put_aside_leaves_no_host_without_a_timer() -> None:
    fleet = Fleet(at_once=True)
    fleet.then(lambda play: connect(play, "own", "own1"))
    fleet.hear([Beat("own1", "own")])
    fleet.play.at_s += 60
    kept = dead_letter.of_event("d1", 0.0, step.Tick(), Why.RAISED, error="", name="Tick")
    step.put_aside(fleet.play.memory, step.Tick(), kept, fleet.play.now).apply()
    assert not fleet.play.memory.armed
    fleet.hear([Beat("own1", "own")])
    fleet.then(lambda play: play.wait(60))
    assert fleet.play.memory.links["own"].presence is Presence.STALE
