"""The life of incidents: by table, and by random lives of an installation."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processes.core.records.ledger import Ledger
from processes.core.shown.status import Verdict
from processes.core.watchdog.incident import Incident
from processes.core.watchdog.incident_lifecycle import OPEN_MAX, Ending, Incidents, Moment, ProcessCondition
from processes.core.watchdog.verdict import Judgement


@dataclass
class Scene:
    """Incidents with a hand on the clock; `told` has the lines."""

    now_s: float = 100.0
    boot: str = "boot"
    told: list[str] = field(default_factory=list)
    changes: int = 0
    numbers: Any = field(default_factory=lambda: itertools.count(1))
    incidents: Incidents = field(init=False)

    def __post_init__(self) -> None:
        self.incidents = Incidents(self.boot, self.changed)

    def changed(self, incident: Incident, line: str) -> None:
        self.changes += 1
        if line:
            self.told.append(f"{incident.process}: {line}")

    @property
    def at(self) -> Moment:
        return Moment(self.now_s, self.now_s + 1e9, f"i{next(self.numbers)}")

    def found(self, process: str = "hub", pid: int | None = 7, verdict: Verdict = Verdict.FROZEN) -> Incident:
        judgement = Judgement(verdict, "no turn", self.now_s - 2.0)
        return self.incidents.found(process, judgement, pid, self.at, epoch=3, ledger=Ledger(accepted=5, queued=5))

    def died(self, process: str = "hub", pid: int = 7, *, killed: bool = False, expected: bool = False) -> None:
        self.incidents.died(
            process, pid, self.now_s - 0.1, self.at, killed=killed, expected=expected, epoch=3, ledger=None
        )

    def endings(self, condition: ProcessCondition, round_s: float | None = None, process: str = "hub") -> Any:
        return self.incidents.endings({process: condition}, round_s, self.now_s)

    def settle(self, ending: Ending, ledger: Ledger | None = None, missing: int = 0) -> None:
        self.incidents.settle(ending, 8, self.at, epoch=4, ledger=ledger, missing=missing)


def well(pid: int = 8, advanced_s: float = 101.0, **more: bool) -> ProcessCondition:
    return ProcessCondition(pid, Judgement(Verdict.ADVANCING, "", advanced_s), advanced_s, **more)


def test_an_incident_is_one_however_often_it_is_found_and_another_pid_is_another() -> None:
    scene = Scene()
    first = scene.found()
    assert scene.found() is first
    assert scene.found(pid=None) is first, "a start belongs to whatever is open"
    assert scene.found(pid=9) is not first
    assert scene.found("queues").process == "queues"
    assert scene.found("agent", None).pid == 0
    assert len(scene.incidents.open) == 4


@pytest.mark.parametrize(
    ("before", "killed", "expected", "says", "opens"),
    [
        ("open", True, False, "hub: process 7 is gone", 0),
        ("open", True, True, "hub: process 7 is gone", 0),
        ("open", False, False, "hub: process 7 died too", 0),
        ("open of another", False, False, "hub: process 7 died too", 0),
        ("nothing", False, False, "", 1),
        ("nothing", True, False, "", 1),
        ("nothing", False, True, "", 0),
        ("open", False, True, "", 0),
    ],
)
def test_what_a_death_means(before: str, killed: bool, expected: bool, says: str, opens: int) -> None:
    scene = Scene()
    if before != "nothing":
        scene.found(pid=7 if before == "open" else 6)
    open_before = len(scene.incidents.open)
    scene.died(killed=killed, expected=expected)
    assert scene.told == ([says] if says else [])
    assert len(scene.incidents.open) == open_before + opens
    if opens:
        (incident,) = scene.incidents.open.values()
        assert (incident.verdict, incident.remedy) == ("dead", "replaced by supervisord")
        assert incident.found_mono_s == scene.now_s - 0.1, "found when it died, not when we looked"
        assert incident.found_wall_s == pytest.approx(scene.now_s - 0.1 + 1e9)


def test_the_incident_of_a_killed_process_names_the_signal() -> None:
    scene = Scene()
    scene.died()
    scene.incidents.ended_by("hub", 7, "terminated by SIGKILL", scene.now_s)
    (incident,) = scene.incidents.open.values()
    assert incident.reason == "died unexpectedly: terminated by SIGKILL"
    assert scene.told == ["hub: process 7: terminated by SIGKILL"]
    scene.died(pid=8)
    scene.incidents.ended_by("hub", 8, "exit status 70", scene.now_s)
    assert incident.reason == "died unexpectedly: terminated by SIGKILL", "of the one that it was found for"
    assert scene.told[-1] == "hub: process 8: exit status 70"
    changes = scene.changes
    scene.incidents.ended_by("hub", 8, "", scene.now_s)
    scene.incidents.ended_by("fanout", 9, "terminated by SIGKILL", scene.now_s)
    assert scene.changes == changes, "nobody knows how it ended, or it has no incident"


def test_a_verdict_is_not_replaced_by_how_the_process_ended() -> None:
    scene = Scene()
    frozen = scene.found()
    scene.incidents.ended_by("hub", 7, "terminated by SIGSEGV", scene.now_s)
    assert frozen.reason == "no turn"


def test_an_alarming_line_is_told_once_and_names_the_verdict_of_now() -> None:
    scene = Scene()
    incident = scene.found()
    for _ in range(3):
        scene.incidents.tell_once(incident, Verdict.UNKILLABLE, "survives SIGKILL", scene.now_s)
    assert scene.told == ["hub: survives SIGKILL"]
    assert incident.verdict == "unkillable"


@pytest.mark.parametrize(
    ("condition", "round_s", "over", "kick"),
    [
        (well(), 101.0, True, False),
        (well(), 99.0, False, True),  # that round began before the incident
        (well(), None, False, True),
        (well(advanced_s=99.0), 101.0, False, True),  # it has not turned since
        (well(busy=True), 101.0, False, False),  # a rescue has still to say what it did
        (well(pid=7), 101.0, False, True),  # the killed one itself
        (ProcessCondition(8, Judgement(Verdict.STARTING, "", 1.0), 101.0), 101.0, False, False),
        (well(wanted=False), None, True, False),
    ],
)
def test_when_an_incident_is_over(condition: ProcessCondition, round_s: float | None, over: bool, kick: bool) -> None:
    scene = Scene()
    incident = scene.found()
    scene.incidents.killing(incident)
    scene.now_s = 103.0
    endings, round_wanted = scene.endings(condition, round_s)
    assert [ending.incident for ending in endings] == [incident] * over
    assert round_wanted == kick
    if over:
        assert scene.endings(condition, round_s) == ([], False), "each once, however long the ledger takes"


def test_the_end_says_since_when_and_what_was_lost_and_an_operators_stop_is_no_recovery() -> None:
    scene = Scene()
    incident = scene.found()
    scene.now_s = 103.0
    (ending,), _ = scene.endings(well(), 101.0)
    scene.settle(ending, Ledger(accepted=3, queued=3))
    assert (incident.over_mono_s, incident.lost) == (103.0, 2)
    assert "well again: process 8 in its place turns under hub epoch 4" in scene.told[-1]
    stopped = scene.found("gateway")
    (ending,), _ = scene.endings(well(wanted=False), process="gateway")
    scene.settle(ending, missing=1)
    assert (stopped.over_mono_s, stopped.lost) == (None, 1)
    assert scene.told[-1] == "gateway: an operator stopped it"
    assert scene.incidents.take_ended() == [incident, stopped]
    assert scene.incidents.take_ended() == []


def test_evidence_a_spared_process_and_a_revived_one_are_told() -> None:
    scene = Scene()
    incident = scene.found()
    scene.incidents.collected(incident, ["stacks.txt"], "loop.py:7 take", "loop.py:9 wait", scene.now_s)
    scene.incidents.spared(incident, died=False, now_s=scene.now_s)
    assert incident.remedy == "none: it went on by itself"
    scene.incidents.spared(incident, died=True, now_s=scene.now_s)
    scene.incidents.reviving(incident)
    assert (incident.remedy, incident.stuck_at, incident.evidence) == (
        "replaced by supervisord", "loop.py:7 take", ["stacks.txt"],
    )  # fmt: skip
    assert scene.told[0] == "hub: evidence collected: stuck at loop.py:7 take; its main task waits at loop.py:9 wait"


def test_a_process_that_a_signal_stopped_is_not_called_stuck_where_it_stood() -> None:
    """The bug it would catch: "it was stuck at asyncio/runners.py" of a process that somebody sent SIGSTOP."""
    scene = Scene()
    incident = scene.found()
    scene.incidents.collected(incident, ["pyspy.txt"], "runners.py:118 run", "x", scene.now_s, stopped=True)
    assert (incident.stuck_at, incident.evidence) == (None, ["pyspy.txt"])
    assert "stopped by a signal (SIGSTOP)" in scene.told[0]
    assert scene.told[0].endswith("is not stuck in its own code (it stood at runners.py:118 run)")


def test_the_next_watchdog_goes_on_with_this_boots_incidents_and_ends_those_of_an_earlier_one() -> None:
    scene = Scene()
    mine, newer = scene.found(), scene.found("queues")
    old = Scene(boot="earlier", numbers=itertools.count(50)).found("fanout")
    after = Scene(numbers=itertools.count(10))
    fresh = after.found("gateway")
    again = after.found("agent", 9)
    lost = Scene(numbers=itertools.count(30)).found("agent", 9)  # found again before the store could be read
    after.incidents.resume([lost, newer, mine, old], after.at)  # as the store lists them: newest first
    assert list(after.incidents.open.values()) == [mine, newer, fresh, again], "oldest first, and none twice"
    assert lost.over_wall_s is not None
    assert (old.over_mono_s, old.over_wall_s is not None) == (None, True)


def test_at_the_limit_the_oldest_that_was_outlived_makes_room_and_each_is_found_once() -> None:
    """A process that never gets well has an incident for each of its successors. The bug it would catch: at the limit each
    look makes one more incident, which nothing ever ends.
    """
    scene = Scene()
    alone = scene.found("queues", 1)
    hubs = [scene.found("hub", pid) for pid in range(1, OPEN_MAX)]
    assert len(scene.incidents.open) == OPEN_MAX
    fresh = scene.found("hub", OPEN_MAX)
    changes = scene.changes
    assert scene.found("hub", OPEN_MAX) is fresh
    assert scene.changes == changes, "found again, it is the same"
    assert list(scene.incidents.open.values()) == [alone, *hubs[1:], fresh]
    assert scene.incidents.take_ended() == hubs[:1]
    assert (hubs[0].over_mono_s, hubs[0].over_wall_s) == (None, scene.now_s + 1e9)
    assert scene.told == ["hub: it is not followed any more: too many are open"]


def test_what_had_to_make_room_while_the_ledger_was_looked_at_does_not_end_twice() -> None:
    scene = Scene()
    incidents = [scene.found(f"gateway:{number}", 1) for number in range(OPEN_MAX)]
    scene.now_s = 103.0
    (ending,), _ = scene.endings(well(1), 101.0, "gateway:0")
    scene.found("hub")
    assert incidents[0].over_wall_s is None, "one that is about to end well is spared"
    assert scene.incidents.take_ended() == [incidents[1]]
    endings = [ending] + [scene.endings(well(1), 101.0, f"gateway:{number}")[0][0] for number in range(2, OPEN_MAX)]
    endings += scene.endings(well(8, 104.0), 104.0)[0]
    scene.found("queues")
    assert scene.incidents.take_ended() == [incidents[0]], "all are about to end: the oldest"
    changes = scene.changes
    scene.settle(ending)
    assert (scene.changes, scene.incidents.take_ended()) == (changes, [])
    for each in endings[1:]:
        scene.settle(each)
    assert [each.process for each in scene.incidents.open.values()] == ["queues"]


def test_the_next_watchdog_goes_on_with_the_newest_as_far_as_there_is_room() -> None:
    scene = Scene()
    left = [Scene(numbers=itertools.count(1000 + pid)).found("hub", pid) for pid in range(1, OPEN_MAX + 3)]
    fresh = scene.found("queues")
    scene.incidents.resume(reversed(left), scene.at)
    assert list(scene.incidents.open.values()) == [*left[3:], fresh]
    assert scene.incidents.take_ended() == left[:3]


PROCESSES = ("queues", "hub", "gateway", "watchdog")
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ("find", "find", "die", "die killed", "stop", "start", "well", "well", "round", "settle", "kill", "wait")
        ),
        st.integers(0, 3),
        st.integers(0, 5),
    ),
    max_size=80,
)


@given(STEPS)
def test_whatever_happens_each_incident_ends_once_after_it_was_found_and_none_is_two(steps: Any) -> None:
    """The bugs it would catch: two open incidents of one process and pid, an end that is told twice or never, a
    recovery before the finding, commands lost that are less than none.
    """
    scene = Scene()
    pids, unwanted, busy = dict.fromkeys(PROCESSES, 1), set[str](), set[str]()
    round_s: float | None = None
    endings: list[Ending] = []
    ended: Counter[str] = Counter()
    ledger = Ledger()

    def look(verdict: Verdict) -> None:
        now = Judgement(verdict, "", scene.now_s)
        conditions = {
            name: ProcessCondition(pids[name], now, scene.now_s, name not in unwanted, name in busy)
            for name in PROCESSES
        }
        endings.extend(scene.incidents.endings(conditions, round_s, scene.now_s)[0])

    def settle_all() -> None:
        while endings:
            ending = endings.pop(0)
            scene.settle(ending, ledger)
            ended[ending.incident.id] += 1

    for step, which, number in steps:
        name = PROCESSES[which]
        scene.now_s += 0.5
        if step == "find":
            scene.found(name, pids[name])
        elif step in ("die", "die killed"):
            scene.died(name, pids[name], killed=step == "die killed", expected=name in unwanted)
            pids[name] += 1
        elif step in ("stop", "start"):
            (unwanted.add if step == "stop" else unwanted.discard)(name)
        elif step == "well":
            look(Verdict.ADVANCING if number else Verdict.FROZEN)
        elif step == "round":
            round_s = scene.now_s
        elif step == "settle":
            settle_all()
        elif step == "kill" and (incident := scene.incidents.of(name)):
            scene.incidents.killing(incident)
        elif step == "wait":
            ledger = ledger.moved(None, "queued") if number else ledger  # type: ignore[arg-type]
        who = [(incident.process, incident.pid) for incident in scene.incidents.open.values()]
        assert len(who) == len(set(who)) <= OPEN_MAX
    found = list(scene.incidents.open.values())
    for name in PROCESSES:
        pids[name] += 1
    scene.now_s += 1.0
    round_s = scene.now_s
    settle_all()
    look(Verdict.ADVANCING)
    settle_all()
    assert not scene.incidents.open, "in the end all is well"
    assert not ended or max(ended.values()) == 1
    for incident in (*found, *scene.incidents.take_ended()):
        assert incident.lost >= 0
        assert incident.over_wall_s is not None
        assert incident.over_mono_s is None or incident.over_mono_s >= incident.found_mono_s
