"""What agents say on its way into the outbox: by random lives of sockets, against a list of what must come out."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processes.core import budgets
from processes.core.gateway.agent_connection import AgentConnection
from processes.core.gateway.intake import Act, Close, Contested, Flooded, Intake, Pause, Resume, Slowed, TooMuch
from processes.core.gateway.outbox import GATHER_S, Bounds, Outbox
from processes.core.gateway.roster import Member, Roster
from processes.core.travels import agent_frames, messages
from processes.core.travels.messages import AgentDisconnected, AgentRegistered, HostFlooded, StatusReceived, Token
from processes.core.values import CloseCode

BOUNDS = Bounds(host_items=4, batch_items=8)


class Scene:
    """One intake, sockets that are numbers, and the queue that the outbox is emptied into."""

    def __init__(self, bounds: Bounds = BOUNDS) -> None:
        self.intake: Intake[int] = Intake(
            Outbox(bounds, lambda rows: messages.pack_beats("gateway", rows, batches=False)), Roster()
        )
        self.members: dict[int, Member[int]] = {}
        self.now_s = 100.0
        self.numbers = 0
        self.queue: list[Any] = []
        self.paused: set[int] = set()
        self.closed: dict[int, int] = {}

    def connect(self, host: str) -> int:
        self.numbers += 1
        connection = AgentConnection(
            f"boot.{self.numbers}", "gateway", Token(f"hash-{host}", host, "1"), "peer", self.now_s
        )
        self.members[self.numbers] = Member(self.numbers, connection)
        self.intake.roster.sockets.add(self.numbers)
        return self.numbers

    def say(self, socket: int, *frames: agent_frames.AgentFrame) -> list[Act[int]]:
        member = self.members[socket]
        read = member.connection.read([(agent_frames.encode(frame), True) for frame in frames], self.now_s)
        return self.carry_out(self.intake.take(member, read.events, self.now_s))

    def register(self, socket: int, boot_id: str = "", journal_id: str = "") -> list[Act[int]]:
        host = self.members[socket].connection.host
        return self.say(socket, agent_frames.Register(host, protocol=1, boot_id=boot_id, journal_id=journal_id))

    def leave(self, socket: int) -> bool:
        self.paused.discard(socket)
        return self.intake.leave(self.members[socket], 1006, "gone", self.now_s)

    def resume(self) -> list[Act[int]]:
        return self.carry_out(self.intake.resume(self.now_s))

    def carry_out(self, acts: list[Act[int]]) -> list[Act[int]]:
        for act in acts:
            match act:
                case Pause(socket):
                    assert socket not in self.paused
                    self.paused.add(socket)
                case Resume(socket):
                    self.paused.remove(socket)
                case Close(socket, code, _):
                    assert socket not in self.closed, "closed once"
                    self.closed[socket] = code
                    self.paused.discard(socket)
        return acts

    def append(self) -> None:
        """The queue takes all that waits."""
        self.now_s += GATHER_S
        while (batch := self.intake.outbox.next(self.now_s)) is not None:
            self.queue += [messages.decode_event(item) for item in batch.items]
            self.intake.outbox.appended()


def report(number: int) -> agent_frames.StatusFrame:
    return agent_frames.StatusFrame("ok", f"c{number}", exit_code=0)


ACTS = st.lists(
    st.tuples(
        st.sampled_from(("connect", "say", "say", "say much", "beat", "append", "resume", "leave")), st.integers(0, 7)
    ),
    max_size=60,
)


@given(ACTS)
def test_what_was_read_comes_out_once_and_in_order_before_its_end_and_nobody_stays_paused(acts: Any) -> None:
    """The bugs it would catch: a rest that is lost or overtaken, a socket that is never read again, a disconnect before
    what was said, an end told twice.
    """
    scene = Scene()
    said: dict[str, list[str]] = defaultdict(list)  # connection id → ids of its reports, in order
    number = 0
    for act, which in acts:
        live = [s for s, m in scene.members.items() if s not in scene.closed and m.connection.is_live]
        socket = live[which % len(live)] if live else None
        if act == "connect":
            scene.register(scene.connect(f"h{which % 3}"))
        elif act == "append":
            scene.append()
        elif act == "resume":
            scene.resume()
        elif socket is None:
            continue
        elif act == "leave":
            assert scene.leave(socket)
            assert not scene.leave(socket), "told once"
            scene.closed[socket] = 1006
        elif act == "beat":
            scene.say(socket, agent_frames.Heartbeat())
        elif socket not in scene.paused:
            frames = [report(number + each) for each in range(6 if act == "say much" else 1)]
            number += len(frames)
            said[scene.members[socket].connection.id] += [frame.command_id or "" for frame in frames]
            scene.say(socket, *frames)
    for _ in range(number + 5):
        scene.append()
        scene.resume()
    assert not scene.paused
    for member in scene.members.values():
        mine = [event for event in scene.queue if getattr(event, "connection", "") == member.connection.id]
        reports = [event.command_id for event in mine if isinstance(event, StatusReceived)]
        ended = [place for place, event in enumerate(mine) if isinstance(event, AgentDisconnected)]
        assert isinstance(mine[0], AgentRegistered)
        assert len(ended) == (member.socket in scene.closed)
        assert not ended or ended[0] == len(mine) - 1, "nothing comes behind the end"
        wanted = said[member.connection.id]
        if scene.closed.get(member.socket) == CloseCode.GOING_AWAY:
            assert reports == wanted[: len(reports)]
        elif not scene.intake.dropped:
            assert reports == wanted


def test_of_one_read_the_rest_waits_and_is_entered_before_reading_goes_on() -> None:
    scene = Scene()
    socket = scene.connect("a")
    scene.register(socket)
    scene.append()
    acts: list[Act[int]] = []
    number = 0
    while not acts:
        acts = scene.say(socket, *(report(number + each) for each in range(50)))
        number += 50
    assert [type(act) for act in acts] == [Pause]
    assert scene.resume() == [], "nothing has left yet"
    resumed: list[Act[int]] = []
    while Resume(socket) not in resumed:
        scene.append()
        resumed = scene.resume()
    scene.append()
    assert [event.command_id for event in scene.queue[1:]] == [f"c{each}" for each in range(number)]
    assert len(scene.intake.outbox) == 0


def test_a_newer_connection_replaces_the_older_and_three_in_a_minute_are_contested() -> None:
    scene = Scene()
    first = scene.connect("a")
    scene.register(first)
    for count in range(1, 4):
        acts = scene.register(scene.connect("a"))
        assert acts[0] == Close(count, CloseCode.REPLACED, "replaced by a newer connection")
        assert [act for act in acts if isinstance(act, Contested)] == [Contested("a", "peer")] * (count == 3)
    scene.append()
    kinds = [(type(event).__name__, event.connection) for event in scene.queue]
    assert kinds[:3] == [("AgentRegistered", "boot.1"), ("AgentRegistered", "boot.2"), ("AgentDisconnected", "boot.1")]
    assert scene.intake.roster.of_host("a") == scene.members[4]
    assert scene.intake.roster.find("boot.1") is None


def test_the_connection_that_was_made_first_is_the_older_though_its_register_comes_last() -> None:
    """The bug it would catch: what a life of an agent said that has ended since, on its way for long, replaces the
    connection of the next life, and ends a command of that one.
    """
    scene = Scene()
    first = scene.connect("a")
    scene.now_s += 1.0
    second = scene.connect("a")
    assert scene.register(second, "boot-1", "journal-2") == []
    acts = scene.register(first, "boot-1", "journal-1")
    assert acts == [Close(first, CloseCode.REPLACED, "replaced by a newer connection")]
    assert scene.intake.roster.of_host("a") == scene.members[second]
    assert scene.intake.roster.find("boot.1") is None
    assert not scene.leave(first), "it has left"
    scene.now_s += 1.0
    again = scene.register(scene.connect("a"), "boot-1", "journal-2")
    assert not [act for act in again if isinstance(act, Contested)], "no other machine was here"


@pytest.mark.parametrize("field", ["boot_id", "journal_id"])
def test_a_copied_machine_is_contested_however_long_each_copy_waits(field: str) -> None:
    scene = Scene()
    seen = []
    for life in ("one", "one", "other", "one", "other"):
        acts = scene.register(scene.connect("a"), **{field: life})
        seen.append([act for act in acts if isinstance(act, Contested)])
        scene.now_s += 61.0
    assert seen == [[], [], [], [Contested("a", "peer")], [Contested("a", "peer")]]


def test_a_host_that_pours_out_past_all_room_is_told_to_come_again() -> None:
    scene = Scene()
    sockets = []
    for _ in range(400):  # each connection may leave one event more behind
        sockets.append(scene.connect("a"))
        acts = scene.register(sockets[-1])
        acts += scene.say(sockets[-1], *(report(each) for each in range(2000)))
        if any(isinstance(act, TooMuch) for act in acts):
            break
        scene.leave(sockets[-1])
    else:
        pytest.fail("nothing was ever refused")
    assert scene.closed[sockets[-1]] == CloseCode.GOING_AWAY
    assert scene.intake.dropped


def test_acts_of_two_kinds_are_told_apart_whatever_they_hold() -> None:
    """The bug it would catch: tests and callers that compare acts take a pause for a resume."""
    acts = [Pause(1), Resume(1), TooMuch("a"), Pause("a"), Resume("a"), Contested("a", "b"), Close("a", 1, "b")]
    assert [[one == other for other in acts] for one in acts] == [[one is other for other in acts] for one in acts]
    assert Pause(1) == Pause(1)


def test_a_host_that_floods_is_slowed_told_closed_kept_away_and_reported_when_it_persists() -> None:
    scene = Scene()
    reported: list[str] = []
    for close in range(budgets.CLOSED_MAX):
        socket = scene.connect("loud")
        scene.register(socket)
        told: list[Act[int]] = []
        while socket not in scene.closed:
            rest_s, acts = scene.intake.spend(scene.members[socket], 340, 2048, 0, scene.now_s)
            told += scene.carry_out(acts)
            scene.now_s += max(rest_s, 0.001)
        assert scene.closed[socket] == CloseCode.POLICY
        assert [type(act) for act in told if not isinstance(act, Slowed)] == [Flooded, Close]
        assert sum(isinstance(act, Slowed) for act in told) <= 1, "said once a minute"
        assert close or isinstance(told[0], Slowed)
        assert scene.intake.allowances.banned_s("loud", scene.now_s) > budgets.REST_S - 1.0
        assert scene.intake.allowances.banned_s("other", scene.now_s) == 0.0
        scene.append()
        reported = [event.host for event in scene.queue if isinstance(event, HostFlooded)]
        assert reported == (["loud"] if close == budgets.CLOSED_MAX - 1 else [])
        scene.now_s += budgets.REST_S


def test_an_honest_host_is_never_slowed() -> None:
    scene = Scene()
    socket = scene.connect("web1")
    scene.register(socket)
    for _ in range(3600):  # a heartbeat and ten lines of output, each second
        assert scene.intake.spend(scene.members[socket], 11, 1500, 1, scene.now_s) == (0.0, [])
        scene.now_s += 1.0


def test_a_heartbeat_alone_is_entered_as_any_and_never_overtakes_what_is_held_back() -> None:
    scene = Scene()
    socket = scene.connect("a")
    scene.register(socket)
    member = scene.members[socket]
    beat = (b'{"type":"heartbeat","payload":{}}', True)
    received = scene.intake.received
    assert scene.intake.take_heartbeats(member, [beat, (beat[0], False), beat], scene.now_s) == 1, "the first alone"
    assert scene.intake.received == received + 1
    scene.append()
    assert isinstance(scene.queue[-1], messages.HeartbeatReceived)
    scene.say(socket, *(report(number) for number in range(BOUNDS.host_items + 1)))
    assert scene.paused == {socket}
    assert not scene.intake.take_heartbeats(member, [beat], scene.now_s)
