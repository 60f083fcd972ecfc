"""One fanout judges, is fed by the mirror, and says what changes until the hub shows it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from doubles.deadline import WAIT_S
from doubles.queue_link import MemoryQueueLink, MemoryQueues

from processes.adapters import settings
from processes.adapters.settings import Settings
from processes.core.conditions import freshness
from processes.core.conditions import judge as judging_core
from processes.core.fanout.mirror import Mirror
from processes.core.records.condition import condition_view, record_of
from processes.core.shown.status import (
    CanaryReport,
    CommandsReport,
    FleetReport,
    IncidentsReport,
    Overall,
    ProcessReport,
    Report,
    Verdict,
)
from processes.core.shown.views import encode
from processes.core.travels import messages
from processes.core.travels.judged import ConditionKind, JudgedCondition
from processes.core.travels.messages import (
    Change,
    Changed,
    ConditionsJudged,
    HostsHeard,
    HubStarted,
    Json,
    PutAside,
    SnapshotPiece,
)
from processes.core.values import Position
from processes.fanout import judging
from processes.fanout.database_reader import DatabaseReader
from processes.fanout.judging import Judging, house

LOG = structlog.stdlib.get_logger("fleethub.test")


def report(**verdicts: Verdict) -> Report:
    names = {"queues": Verdict.ADVANCING, "hub": Verdict.ADVANCING, "gateway": Verdict.ADVANCING} | verdicts
    rows = [ProcessReport(name, "RUNNING", 1, 100.0, 0, None, verdict) for name, verdict in names.items()]
    canary = CanaryReport(ok=True, age_s=0.5, epoch=1)
    return Report(Overall.OK, 1, rows, canary, FleetReport(), CommandsReport(), IncidentsReport())


def row(name: str, presence: str = "online") -> Change:
    fields = {"name": name, "presence": presence, "last_seen": "2026-01-01T00:00:00.000Z", "labels": {"rack": "b4"}}
    return Change("host", name, Json(msgspec.json.encode(fields)))


class Stage:
    """A fanout's judging with its mirror, and what the hub hears."""

    def __init__(self, found: Settings, memory: MemoryQueues, name: str = "fanout") -> None:
        self.mirror = Mirror()
        self._memory, self._loop = memory, asyncio.get_running_loop()
        link = MemoryQueueLink(memory, name)
        self.judging = Judging(found, name, link, self.mirror, DatabaseReader(found.database), LOG, "0.1.0")
        self.said: dict[str, JudgedCondition] = {}
        self.messages = 0
        self.aside: list[PutAside] = []
        self._at = Position(0, 0)

    def show(self, *changes: Change, whole: bool = False) -> None:
        """Have the mirror take what a hub says."""
        if whole:
            self.judging.take(self.mirror.take(HubStarted(1), 0.0))
            self.mirror.ask("s", 0.0)
        said = SnapshotPiece(1, "s", 0, True, list(changes)) if whole else Changed(1, list(changes))
        self.judging.take(self.mirror.take(said, 0.0))

    async def turns(self, until: Any, now: Report | None = None) -> None:
        """Turn until it is so."""
        async with asyncio.timeout(WAIT_S):
            while not until():
                self.judging._next_s.pop("turn", None)
                self.judging.turn(self._loop.time(), now or report())
                await asyncio.sleep(0.01)
                batch = self._memory.queues.named(messages.EVENTS).read(self._at, 100, 1 << 20)
                self._at = batch.position
                for item in batch.items:
                    event = messages.decode_event(item)
                    if isinstance(event, PutAside):
                        self.aside.append(event)
                        continue
                    assert isinstance(event, ConditionsJudged)
                    self.messages += 1
                    self.said.update({each.id: each for each in event.conditions})


def test_one_of_two_fanouts_judges_and_says_it_until_it_is_shown_and_the_other_takes_over(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(judging_core, "FRESH_S", 0.0)
    monkeypatch.setattr(freshness, "FRESH_S", 0.0)
    monkeypatch.setattr(judging, "AGAIN_S", 0.05)
    monkeypatch.setattr(judging, "MARK_S", 0.05)
    found = settings.load({"FLEETHUB_STATE": str(tmp_path)})
    found.run.mkdir(exist_ok=True)
    found.rules.write_text("defaults = false\n[[rules]]\ncondition = 'stale'\nfor = 0\n")

    async def play() -> None:
        memory = MemoryQueues()
        first, second = Stage(found, memory), Stage(found, memory, "fanout:1")
        for stage in (first, second):
            stage.show(row("web1", "stale"), row("web2"), whole=True)
        await first.turns(lambda: first.judging.is_judging)
        os.utime(found.judging, (1, 1))
        await first.turns(lambda: found.judging.stat().st_mtime > 1)  # it tells that it turns
        second.judging.turn(asyncio.get_running_loop().time(), report())
        await first.turns(lambda: first.messages >= 3)  # again and again, until it is shown
        assert not second.judging.is_judging
        ((id, said),) = first.said.items()
        assert (said.host, said.kind) == ("web1", ConditionKind.STALE)
        shown = Change("condition", id, encode(condition_view(record_of(said, None))))
        first.show(shown)
        second.show(shown)
        await first.turns(lambda: not first.judging._wanted)
        await first.judging.leave()
        os.close(first.judging._lock or 0)  # it dies
        await second.turns(lambda: second.judging.is_judging)
        second.show(row("web1"))
        monkeypatch.setattr(judging_core, "CLEAR_S", 0.0)
        await second.turns(lambda: id in second.said and not second.said[id].open)
        assert second.said[id].over.startswith("it sends heartbeats again")
        await second.judging.leave()

    asyncio.run(play())


def test_the_house_is_well_only_while_hub_and_queues_turn_and_rows_are_whole() -> None:
    mirror = Mirror()
    assert house(report(), mirror).is_anew
    mirror.take(HubStarted(1), 0.0)
    mirror.ask("s", 0.0)
    mirror.take(SnapshotPiece(1, "s", 0, True, []), 0.0)
    assert house(report(), mirror) == (1, True, False, frozenset())
    for sick in ("hub", "queues"):
        assert not house(report(**{sick: Verdict.FROZEN}), mirror).is_well
    assert house(report(gateway=Verdict.FROZEN), mirror).gateways == {"gateway"}
    assert house(report(gateway=Verdict.FROZEN), mirror).is_well
    elsewhere = report()  # PostgreSQL has the queues
    elsewhere = msgspec.structs.replace(elsewhere, processes=[p for p in elsewhere.processes if p.name != "queues"])
    assert house(elsewhere, mirror).is_well
    starved = house(report(queues=Verdict.EXCUSED), mirror)
    assert (starved.is_well, starved.is_anew) == (False, False)
    red = msgspec.structs.replace(report(), canary=CanaryReport())
    assert (house(red, mirror).is_well, house(red, mirror).is_anew) == (False, False)
    assert not house(msgspec.structs.replace(report(), watchdog_silent_s=9.0), mirror).is_well
    mirror.gap()
    assert house(report(), mirror).is_anew


def test_a_mistake_in_judging_ends_no_fanout_and_judging_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bug it would catch: a row that the judge does not suffer ends each fanout that shows it."""
    mistakes: list[str] = []

    def broken(*_: object) -> None:
        mistakes.append("a mistake of ours")
        raise KeyError("web1")

    async def scene() -> None:
        stage = Stage(settings.load({"FLEETHUB_STATE": str(tmp_path)}), MemoryQueues())
        stage.show(row("web1"), whole=True)
        await stage.turns(lambda: stage.judging.is_judging)
        with monkeypatch.context() as patch:
            patch.setattr(judging_core.Judge, "turn", broken)
            await stage.turns(lambda: mistakes)
        assert not stage.judging.is_judging, "it rests"
        monkeypatch.setattr(stage.judging, "_rest_s", 0.0)
        await stage.turns(lambda: stage.judging.is_judging)
        await stage.judging.leave()

    asyncio.run(scene())


@pytest.mark.parametrize("told", ["host", "heard", "command"])
def test_a_mistake_that_one_hosts_values_bring_out_blinds_nobody_and_becomes_a_dead_letter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    """The bug it would catch: whatever one host says ends the judging of all hosts for a minute, again and again."""
    monkeypatch.setattr(judging_core, "FRESH_S", 0.0)
    monkeypatch.setattr(freshness, "FRESH_S", 0.0)
    found = settings.load({"FLEETHUB_STATE": str(tmp_path)})
    found.run.mkdir(exist_ok=True)
    found.rules.write_text("defaults = false\n[[rules]]\ncondition = 'stale'\nfor = 0\n")

    def broken(*_: object) -> None:
        raise KeyError("a mistake of ours")

    async def scene() -> None:
        stage = Stage(found, MemoryQueues())
        stage.show(row("web1"), row("web2"), whole=True)
        await stage.turns(lambda: stage.judging.is_judging)
        with monkeypatch.context() as patch:
            patch.setattr(judging_core.Judge, {"heard": "hear"}.get(told, told), broken)
            if told == "host":
                stage.show(row("web1", "stale"))
            elif told == "command":
                fields = {"id": "c1", "host": "web1", "op": "pull", "state": "failed"}
                stage.show(Change("command", "c1", Json(msgspec.json.encode(fields))))
            else:
                heard = HostsHeard(1, [("web1", Json(b'{"last_seen":"2026-01-01T00:00:01.000Z"}'))])
                stage.judging.take(stage.mirror.take(heard, 0.0))
        stage.show(row("web2", "stale"))
        await stage.turns(lambda: stage.aside and stage.said)
        assert stage.judging.is_judging
        assert {each.host for each in stage.said.values()} == {"web2"}
        ((letter),) = stage.aside
        assert (letter.kind, letter.id, letter.deaths) == ("host", "web1", [])
        assert "KeyError: 'a mistake of ours'" in letter.error
        await stage.judging.leave()

    asyncio.run(scene())
