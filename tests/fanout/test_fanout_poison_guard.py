"""What a fanout leaves out because it ended its predecessors: that row and no other, shown as left out, told to the
hub.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
from doubles.deadline import WAIT_S

from processes.adapters import clock
from processes.adapters.queues import Queues, QueuesAway
from processes.adapters.state.deaths import Poison
from processes.adapters.state.pulse_file import PulseFile, read
from processes.core.fanout.mirror import Mirror
from processes.core.records import poison
from processes.core.records.poison import DeathRecord
from processes.core.shown.views import HostView
from processes.core.travels import messages
from processes.core.travels.messages import (
    Change,
    Changed,
    Death,
    HostsHeard,
    HubStarted,
    Json,
    PutAside,
    SnapshotPiece,
)
from processes.core.travels.queue_calls import Appended
from processes.core.values import Position
from processes.fanout.poison_guard import PoisonGuard


class Link:
    """`queues`, away for the first `away` calls."""

    def __init__(self, away: int = 0) -> None:
        self.epoch, self.away = 0, away
        self.items: list[bytes] = []

    async def append(self, queue: str, items: Sequence[bytes], *, bulk: bool = False, lossy: bool = False) -> Appended:
        """Part of Queues."""
        self.away -= 1
        if self.away >= 0:
            raise QueuesAway("away")
        self.items += items
        return Appended(True, Position(1, len(self.items)))


def deaths(name: str) -> list[Death]:
    return [Death(name, "frozen", clock.boot_id(), clock.now().boot_s, 1e9, pid, pid) for pid in (1, 2)]


class Scene:
    """A guard to whom these names are poison, and a mirror behind it."""

    def __init__(self, folder: Path, *names: str, link: Link | None = None) -> None:
        self.link, self.mirror = link or Link(), Mirror()
        record = DeathRecord([death for name in names for death in deaths(name)])
        self.pulse = PulseFile(folder, "fanout")
        self.folder = folder
        self.poison = Poison(folder / "fanout.json", record)
        log: Any = SimpleNamespace(error=lambda *_, **__: None)
        self.poison_guard = PoisonGuard("fanout", self.pulse, self.poison, cast(Queues, self.link), log)

    def snapshot(self, *changes: Change) -> None:
        self.mirror.take(HubStarted(1), 0.0)
        self.mirror.ask("s", 0.0)
        self.mirror.take(SnapshotPiece(1, "s", 0, True, list(changes)), 0.0, self.poison_guard.admit)

    def row(self, kind: str, id: str) -> Any:
        found = self.mirror.shown.row(kind, id)
        return None if found is None else json.loads(found)


def change(id: str, kind: str = "host", /, **fields: object) -> Change:
    return Change(kind, id, Json(msgspec.json.encode(fields)))


BAD = poison.name_of_change(change("bad"))


def test_in_a_snapshot_the_row_is_whole_and_says_that_it_is_left_out_and_the_others_are_untouched(
    tmp_path: Path,
) -> None:
    async def work() -> None:
        scene = Scene(tmp_path, BAD)
        scene.snapshot(change("good", name="good", x=1), change("bad", name="bad", x="POISON"))
        assert scene.row("host", "good") == {"name": "good", "x": 1}
        assert "POISON" not in str(scene.row("host", "bad"))
        view = msgspec.json.decode(scene.mirror.shown.row("host", "bad") or b"", type=HostView)
        assert (view.name, view.presence) == ("bad", "stale")
        assert "dead letters" in view.put_aside
        assert list(scene.poison_guard.left_out.values()) == [("host", "bad")]

    asyncio.run(work())


def test_in_a_delta_the_row_keeps_what_it_had_and_the_subscribers_are_told_that_it_is_left_out(tmp_path: Path) -> None:
    async def work() -> None:
        scene = Scene(tmp_path)
        scene.snapshot(change("bad", name="bad", x=1))
        scene.poison.events[BAD] = deaths(BAD)
        seen = scene.mirror.take(Changed(1, [change("bad", x="POISON")]), 0.0, scene.poison_guard.admit)
        ((told, host),) = seen.changes
        assert (host, set(json.loads(told.fields))) == ("bad", {"put_aside"})
        assert scene.row("host", "bad")["x"] == 1

    asyncio.run(work())


def test_a_command_that_was_never_shown_is_left_out_whole_and_a_removal_still_removes(tmp_path: Path) -> None:
    async def work() -> None:
        command = change("c1", "command", id="c1", host="a", state="sent")
        scene = Scene(tmp_path, poison.name_of_change(command), BAD)
        scene.snapshot(command, change("bad", name="bad"))
        assert (scene.row("command", "c1"), scene.row("host", "c1")) == (None, None)
        assert set(scene.poison_guard.left_out.values()) == {("command", "c1"), ("host", "bad")}
        scene.mirror.take(Changed(1, [Change("host_removed", "bad")]), 0.0, scene.poison_guard.admit)
        assert scene.row("host", "bad") is None

    asyncio.run(work())


def test_of_a_row_that_is_left_out_nothing_is_said_that_nobody_knows(tmp_path: Path) -> None:
    """Neither that its token is revoked nor when it was enrolled."""

    async def work() -> None:
        scene = Scene(tmp_path, BAD)
        scene.snapshot(change("bad", name="bad"))
        row = scene.row("host", "bad")
        assert (row["revoked"], row["enrolled_at"], row["last_seen"]) == (False, None, None)
        assert "left out" in row["put_aside"]

    asyncio.run(work())


def test_a_row_is_left_out_no_longer_than_its_host_is_enrolled(tmp_path: Path) -> None:
    """Removed and enrolled again in one message: the new host is shown, by this fanout and by its successors."""

    async def work() -> None:
        scene = Scene(tmp_path, BAD)
        scene.snapshot(change("bad", name="bad", x="POISON"))
        assert BAD in scene.poison_guard.left_out
        new = change("bad", name="bad", x="new")
        scene.mirror.take(Changed(1, [Change("host_removed", "bad"), new]), 0.0, scene.poison_guard.admit)
        assert scene.row("host", "bad") == {"name": "bad", "x": "new"}
        assert scene.poison_guard.left_out == {}
        async with asyncio.timeout(WAIT_S):
            while not (scene.folder / "fanout.json").exists():
                await asyncio.sleep(0.01)
        assert json.loads((scene.folder / "fanout.json").read_bytes()).get("deaths", []) == []

    asyncio.run(work())


def test_the_hub_is_told_once_with_the_deaths_though_queues_is_away_at_first(tmp_path: Path) -> None:
    async def work() -> None:
        scene = Scene(tmp_path, BAD, link=Link(away=1))
        for _ in range(3):
            scene.poison_guard.admit(change("bad"), known=False)
        async with asyncio.timeout(WAIT_S):
            while not scene.link.items:
                await asyncio.sleep(0.01)
        (event,) = map(messages.decode_event, scene.link.items)
        assert isinstance(event, PutAside)
        assert (event.fanout, event.kind, event.id, [death.pid for death in event.deaths]) == (
            "fanout",
            "host",
            "bad",
            [1, 2],
        )

    asyncio.run(work())


def test_each_row_stands_in_the_pulse_while_it_is_entered(tmp_path: Path) -> None:
    """Else a poison row would be blamed on the message that holds two hundred good ones beside it, and never twice on
    the same.
    """

    async def work() -> None:
        scene = Scene(tmp_path)
        seen: list[str] = []

        def admit(found: Change, known: bool) -> Change | None:
            admitted = scene.poison_guard.admit(found, known)
            pulse = read(scene.folder, "fanout")
            assert pulse is not None
            seen.append(pulse.in_hand)
            return admitted

        scene.mirror.take(HubStarted(1), 0.0)
        scene.mirror.ask("s", 0.0)
        scene.mirror.take(SnapshotPiece(1, "s", 0, True, [change("a", name="a"), change("b", name="b")]), 0.0, admit)
        scene.mirror.take(Changed(1, [change("a", x=9)]), 0.0, admit)
        a, b = (poison.name_of_change(change(id)) for id in "ab")
        assert seen == [a, b, a]

    asyncio.run(work())


def test_forgiven_it_is_shown_again_and_no_longer_named_as_left_out(tmp_path: Path) -> None:
    async def work() -> None:
        scene = Scene(tmp_path, BAD)
        scene.snapshot(change("bad", name="bad", x=1))
        await scene.poison_guard.forgive(BAD)
        assert scene.poison_guard.left_out == {}
        scene.snapshot(change("bad", name="bad", x=1))
        assert scene.row("host", "bad") == {"name": "bad", "x": 1}

    asyncio.run(work())


def test_a_message_that_is_poison_as_a_whole_is_dropped_and_told(tmp_path: Path) -> None:
    async def work() -> None:
        scene = Scene(tmp_path, "broadcast 0123")
        assert scene.poison_guard.is_poison("broadcast 0123")
        assert not scene.poison_guard.is_poison("broadcast 4567")
        assert list(scene.poison_guard.left_out.values()) == [("broadcast", "")]

    asyncio.run(work())


def test_heartbeats_are_entered_one_by_one_if_a_fanout_died_with_them_or_with_a_row_of_theirs(tmp_path: Path) -> None:
    async def work() -> None:
        heard = HostsHeard(1, [("good", Json(b'{"last_seen":1}')), ("bad", Json(b'{"last_seen":2}'))])
        assert Scene(tmp_path).poison_guard.singly("broadcast 1", heard) is heard
        for name in ("broadcast 1", BAD):
            scene = Scene(tmp_path, name)
            alone = scene.poison_guard.singly("broadcast 1", heard)
            assert isinstance(alone, Changed)
            assert [(each.kind, each.id) for each in alone.changes] == [("host", "good"), ("host", "bad")]
        others = HostsHeard(1, [("good", Json(b'{"last_seen":1}'))])
        assert scene.poison_guard.singly("broadcast 2", others) is others
        scene.snapshot(change("bad", name="bad", last_seen=0), change("good", name="good", last_seen=0))
        scene.mirror.take(alone, 0.0, scene.poison_guard.admit)
        assert (scene.row("host", "bad")["last_seen"], scene.row("host", "good")["last_seen"]) != (2, 0)

    asyncio.run(work())
