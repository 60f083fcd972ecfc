"""What the hub's loop may tell while a batch is being committed."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from doubles.fleet_play import Play

from processes.core.hub import step
from processes.core.travels import agent_frames, messages
from processes.core.travels.messages import (
    AgentDisconnected,
    Changed,
    GiveCommand,
    HubStarted,
    Replied,
    RequestReceived,
)
from processes.core.travels.pulse import Pulse
from processes.core.values import Position
from processes.hub.loop import Loop, Taken


class _Committing:
    """A commit that is under way."""

    def done(self) -> bool:
        return False


def _loop(play: Play) -> Any:
    pulse = SimpleNamespace(pulse=Pulse(pid=1, start_ticks=1), take=lambda _: None, put_down=lambda: None)
    settings = SimpleNamespace(file=SimpleNamespace(drills=SimpleNamespace(enabled=False), retention=None))
    process: Any = SimpleNamespace(
        name="hub", log=None, pulse=pulse, settings=settings, stop=None, poison=SimpleNamespace(events={})
    )
    unused: Any = None
    loop: Any = Loop(process, unused, play.memory, unused, Position(0, 0))
    loop._commit, loop._commit_since_s = _Committing(), time.monotonic()
    return loop


def _told(loop: Any) -> list[Any]:
    items = loop._publisher._waiting["broadcasts/fanout"].items
    return [message for item, _ in items if not isinstance(message := messages.decode_broadcast(item), HubStarted)]


def test_presence_goes_on_while_a_commit_is_under_way_and_what_it_means_for_commands_waits() -> None:
    """That commit may hold the command's row: whoever was told of a change first would be told of the older row
    last.
    """
    play = Play()
    play.enroll("h1")
    play.connect("h1", "c1")
    play.give("pull", "h1")
    loop = _loop(play)
    loop._apply(step.step(play.memory, AgentDisconnected("c1", "gateway", "h1", 1006), play.now))
    told = [change for message in _told(loop) if isinstance(message, Changed) for change in message.changes]
    assert [change.kind for change in told] == ["host"]
    assert list(play.memory.due) == ["h1"]


def test_a_request_asked_again_is_not_answered_before_its_commit() -> None:
    play = Play()
    play.enroll("h1")
    request = RequestReceived("r1", "fanout", "ann", 1e12, GiveCommand("pull", ["h1"]))
    step.step(play.memory, request, play.now).apply()
    loop = _loop(play)
    loop._step(Taken(request, "again", Position(1, 1), 0))
    assert not [message for message in _told(loop) if isinstance(message, Replied)]
    assert len(loop._parked) == 1


def test_a_foreign_agents_word_is_kept_when_the_database_is_locked_for_long() -> None:
    """It is never said again, so it must not be let go with what will be."""
    play = Play()
    play.enroll("nix")
    play.connect("nix", "c1", protocol=0)
    play.beat("nix", "c1")
    (command_id,) = play.give("pull", "nix")
    loop = _loop(play)
    who = ("c1", "gateway", "nix")
    said = (
        messages.OutputReceived(*who, agent_frames.Output("line").records(), command_id),
        messages.StatusReceived(*who, "ok", 0, "", command_id),
    )
    for word in said:
        loop._step(Taken(word, "said", Position(1, 1), 0))
    loop._commit_since_s -= 10
    loop._let_go_parked()
    assert len(loop._parked) == 2
