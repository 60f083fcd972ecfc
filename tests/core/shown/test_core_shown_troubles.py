"""What is wrong and what to do: one list for all who show it."""

from __future__ import annotations

import itertools
import os
import sqlite3
from pathlib import Path

import pytest

from processes.adapters.state import hindrance as storage
from processes.core.alarms import hosts, outbox
from processes.core.alarms.alarm import AlarmEvent, AlarmState, AlarmWatch, Condition, ConditionsSeen, Told, turn
from processes.core.shown import hindrance
from processes.core.shown.hindrance import DiskRoom, FileLock
from processes.core.shown.status import (
    HALTED,
    TURNING,
    CanaryReport,
    HeartbeatReport,
    HouseCondition,
    Overall,
    PortReport,
    ProcessReport,
    PulseReport,
    Verdict,
    Witness,
    judged,
    quiet,
    standing,
    unheard,
    witness_of,
)
from processes.core.shown.troubles import (
    FOUND_AT_ONCE,
    TROUBLES,
    StandingTrouble,
    TroubleCode,
    TroubleWatch,
    aged,
    code_of,
    joined,
    remedy_of,
    trouble,
)
from processes.core.values import Severity, rfc3339

GREEN, RED = CanaryReport(ok=True), CanaryReport(ok=False)
KINDS = ("queues", "hub", "gateway", "fanout", "watchdog")


def row(name: str, verdict: Verdict, reason: str = "", **fields: object) -> ProcessReport:
    values = {"state": "RUNNING", "pid": 1, "uptime_s": 60.0, "restarts": 0, "rss_bytes": 1, **fields}
    return ProcessReport(name=name, verdict=verdict, reason=reason, **values)  # type: ignore[arg-type]


def house(name: str = "", verdict: Verdict = Verdict.ADVANCING, reason: str = "") -> list[ProcessReport]:
    return [row(each, verdict if each == name else Verdict.ADVANCING, reason * (each == name)) for each in KINDS]


@pytest.mark.parametrize("code", TroubleCode)
def test_every_code_has_fixed_words_and_a_remedy_that_says_what_to_do(code: TroubleCode) -> None:
    entry = TROUBLES[code]
    assert entry.means.endswith((".", "?"))
    assert entry.means[0].isupper()
    assert len(entry.remedy) > 10
    assert entry.remedy.count("{") == entry.remedy.count("{of}")
    assert entry.view.split("/")[0] in ("watchdog", "conditions", "deadletters", "account", "host")


@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_has_a_sentence_and_all_but_the_good_one_a_code(verdict: Verdict) -> None:
    assert verdict.means.endswith(".")
    assert verdict in TURNING or verdict.means == TROUBLES[TroubleCode(verdict)].means


CASES = list(itertools.product(KINDS, Verdict, (GREEN, RED), Witness, ("", "storage", "queues")))


@pytest.mark.parametrize("place", range(0, len(CASES), 40))
def test_whatever_makes_the_verdict_bad_is_a_trouble_with_a_remedy_and_nothing_else_does(place: int) -> None:
    """Of every process with every verdict, under every canary and witness, blocked on everything."""
    for name, verdict, canary, witness, blocked_on in CASES[place : place + 40]:
        processes = house(name, verdict, "why")
        processes[1] = row("hub", processes[1].verdict, pulse=PulseReport(blocked_on=blocked_on or None))
        grade, found = judged(processes, canary, witness)
        case = (name, verdict, canary.ok, witness, blocked_on)
        assert bool(found) == (grade is not Overall.OK), case
        assert all(each.remedy and each.text and "{" not in each.remedy + each.view for each in found), case
        assert len({(each.code, each.of) for each in found}) == len(found), case


@pytest.mark.parametrize(
    ("process", "witness", "code", "remedy"),
    [
        (row("hub", Verdict.FROZEN, f"no turn for 3.0 s: {HALTED}"), Witness.PRESENT, "halted", "who did it"),
        (row("hub", Verdict.FROZEN, "no turn for 3.0 s"), Witness.PRESENT, "frozen", "the watchdog replaces it"),
        (row("hub", Verdict.FROZEN, "no turn for 3.0 s"), Witness.SILENT, "frozen", "fleethub restart watchdog"),
        (row("hub", Verdict.DEAD, state="FATAL"), Witness.PRESENT, "crashing", "fleethub restart hub"),
        (row("fanout:1", Verdict.STARTING, state="BACKOFF"), Witness.PRESENT, "crashing", "fleethub restart fanout:1"),
        (row("gateway", Verdict.DEAD), Witness.PRESENT, "dead", "fleethub start gateway"),
        (row("hub", Verdict.STOPPED, wanted=False), Witness.PRESENT, "stopped", "fleethub start hub"),
    ],
)
def test_a_process_is_told_as_exactly_as_it_is_known(
    process: ProcessReport, witness: Witness, code: str, remedy: str
) -> None:
    rest = [each for each in house() if each.name != process.name.partition(":")[0]]
    first = judged([*rest, process], GREEN, witness)[1][0]
    assert (first.code, first.of) == (code, process.name)
    assert remedy in first.remedy


def test_storage_says_who_blocks_it() -> None:
    blocked = row("hub", Verdict.ADVANCING, pulse=PulseReport(blocked_on="storage"))
    (found,) = judged([blocked], GREEN, hindrance="process 7 (sqlite3) holds fleet.db")[1]
    assert (found.code, found.severity) == ("storage", Severity.CRITICAL)
    assert found.text == "hub is blocked on storage: process 7 (sqlite3) holds fleet.db"
    (found,) = judged(house(), RED, Witness.UNWRITTEN, "the disk of /x is full")[1]
    assert found.text == "the watchdog's report cannot be written: the disk of /x is full"


def test_a_watchdog_that_does_not_run_is_not_called_silent_and_one_that_is_silent_is_named_once() -> None:
    assert [t.text for t in judged(house("watchdog", Verdict.DEAD, "not running"), RED, Witness.SILENT)[1]] == [
        "the watchdog does not run"
    ]
    assert [t.text for t in judged(house("watchdog", Verdict.SILENT), RED, Witness.SILENT)[1]] == [
        "the watchdog is silent"
    ]


@pytest.mark.parametrize(
    ("watchdog", "witness"),
    [
        (row("watchdog", Verdict.ADVANCING, uptime_s=60.0), Witness.UNWRITTEN),
        (row("watchdog", Verdict.ADVANCING, uptime_s=1.0), Witness.NEW),
        (row("watchdog", Verdict.SILENT), Witness.SILENT),
        (row("watchdog", Verdict.STARTING), Witness.SILENT),
        (row("watchdog", Verdict.DEAD), Witness.SILENT),
        (row("hub", Verdict.ADVANCING), Witness.SILENT),
    ],
)
def test_a_watchdog_that_turns_and_writes_no_report_is_new_or_cannot_write(
    watchdog: ProcessReport, witness: Witness
) -> None:
    assert witness_of([watchdog]) is witness


def test_a_hub_that_has_not_turned_for_a_moment_is_told_of_before_it_is_judged() -> None:
    def at(age_s: float, verdict: Verdict = Verdict.ADVANCING) -> list[str]:
        return [each.text for each in quiet([row("hub", verdict, pulse=PulseReport(age_s=age_s))])]

    assert (at(0.9), at(1.6)) == ([], ["the hub has not turned for 1.6 s"])
    assert at(5.0, Verdict.FROZEN) == [], "then it is judged"


def test_a_port_that_answers_nobody_is_named_with_its_reason() -> None:
    canary = CanaryReport(ports=[PortReport("operators", "127.0.0.1:7700", problem="timed out", age_s=9.0)])
    (found,) = judged(house(), canary)[1]
    assert (found.code, found.of) == ("port", "operators")
    assert "127.0.0.1:7700 answers no new connection: timed out" in found.text


def stands(key: str, text: str = "so it is", severity: Severity = Severity.WARNING) -> StandingTrouble:
    return StandingTrouble(key, severity, text, rfc3339(1e9))


def test_what_stands_is_added_once_for_its_kind_and_what_is_told_by_other_means_is_not() -> None:
    keys = ["deadletter:1", "deadletter:2", "deadletter:3", "certificate:14", "incident:x", "lasting:x", "storage"]
    found = joined([], [stands(key) for key in keys])
    assert [(each.code, each.text) for each in found] == [
        ("deadletter", "so it is (and 2 more of this kind)"),
        ("certificate", "so it is"),
    ]
    assert all(each.since == rfc3339(1e9) for each in found)


def test_the_gravest_of_a_kind_stands_for_the_others() -> None:
    (found,) = joined([], [stands("certificate:14"), stands("certificate:3", "worse", Severity.CRITICAL)])
    assert (found.severity, found.text) == (Severity.CRITICAL, "worse (and 1 more of this kind)")


@pytest.mark.parametrize("code", sorted(FOUND_AT_ONCE))
def test_what_is_found_at_once_is_not_shown_after_it_is_over(code: str) -> None:
    """A condition stands for some seconds longer than what it tells of: a strip beside a green verdict is untrue."""
    assert joined([], [stands(code), stands(f"{code}:hub")]) == []


def test_a_trouble_keeps_its_beginning_while_it_lasts_and_begins_anew_when_it_comes_back() -> None:
    frozen = trouble(TroubleCode.FROZEN, "hub is frozen", "hub")
    watch, (shown,) = aged(TroubleWatch(), [frozen], {}, 100.0)
    assert (shown.since, shown.seconds) == (rfc3339(100.0), 0.0)
    watch, (shown,) = aged(watch, [frozen], {}, 107.5)
    assert (shown.since, shown.seconds) == (rfc3339(100.0), 7.5)
    watch, _ = aged(watch, [], {}, 108.0)
    watch, (shown,) = aged(watch, [frozen], {}, 109.0)
    assert shown.seconds == 0.0


def test_a_trouble_began_when_its_alarm_did_if_that_was_earlier() -> None:
    blocked = trouble(TroubleCode.STORAGE, "hub is blocked on storage", "hub")
    assert aged(TroubleWatch(), [blocked], {"storage": 40.0}, 100.0)[1][0].seconds == 60.0
    suspended = trouble(TroubleCode.SUSPENDED, "it is", "web1")
    assert aged(TroubleWatch(), [suspended], {"suspended:web2": 40.0}, 100.0)[1][0].seconds == 0.0


@pytest.mark.parametrize(
    ("key", "code"), [("certificate:14", "certificate"), ("storage", "storage"), ("host:x", None), ("incident:x", None)]
)
def test_a_conditions_key_says_its_code(key: str, code: str | None) -> None:
    assert code_of(key) == code
    assert bool(remedy_of(key)) == (code is not None)


def test_an_alarm_says_what_to_do_and_its_end_does_not() -> None:
    condition = Condition("suspended:web1", Severity.CRITICAL, "the token of web1 is suspended", "flood")
    state, watch = turn(AlarmState(), AlarmWatch(), ConditionsSeen([condition]), 0.0, 1e9)
    (begun,) = state.events
    assert begun.remedy == "Mend the agent on web1, then: fleethub lift web1"
    assert outbox.message("here", [begun]).body.endswith(f"suspended: flood What to do: {begun.remedy}")
    for now_s in (1.0, 20.0):
        state, watch = turn(state, watch, ConditionsSeen([]), now_s, 1e9)
    over: AlarmEvent = state.events[-1]
    assert (over.phase, over.remedy) == ("over", "")


def test_alarms_that_reach_nobody_are_a_trouble_once_a_second_try_failed() -> None:
    targets = {
        "good": Told(sent=3), "new": Told(attempts=1, error="refused"), "bad": Told(attempts=2, error="refused"),
        "given up": Told(attempts=0, error="gone"),
    }  # fmt: skip
    assert [each.of for each in hosts.untold(targets)] == ["bad", "given up"]
    beats = [HeartbeatReport("a", ok=True), HeartbeatReport("b", error="refused"), HeartbeatReport("c")]
    assert [each.of for each in unheard(beats)] == ["b"]


def test_a_condition_of_the_house_is_a_trouble_with_its_text() -> None:
    (found,) = standing([HouseCondition("disk", Severity.WARNING, "almost full", "3 MiB are free")])
    assert found.text == "almost full: 3 MiB are free"


@pytest.mark.parametrize(
    ("room", "said"),
    [
        (DiskRoom(1 << 30, 100, False), ""),
        (DiskRoom(1 << 30, None, False), ""),
        (DiskRoom(4096, 100, False), "the disk of /x is full (4 KiB are free)"),
        (DiskRoom(1 << 30, 0, False), "the disk of /x can hold no more files (no inode is free)"),
        (DiskRoom(1 << 30, 100, True), "the disk of /x is read-only"),
    ],
)
def test_a_disk_is_called_what_it_is(room: DiskRoom, said: str) -> None:
    assert hindrance.of_room(room, "/x") == said


def test_only_locks_for_writing_that_somebody_has_are_read() -> None:
    text = """1: POSIX  ADVISORY  WRITE 41 fd:01:77 120 120
1: -> POSIX  ADVISORY  WRITE 42 fd:01:77 120 120
2: POSIX  ADVISORY  READ 43 fd:01:77 123 123
3: FLOCK  ADVISORY  WRITE -1 00:2f:9 0 EOF
nonsense
4: POSIX ADVISORY WRITE x fd:01:z 0 EOF
"""
    assert hindrance.write_locks(text) == [FileLock(41, "fd:01", 77, 120), FileLock(-1, "00:2f", 9, 0)]


def test_who_holds_the_database_is_found_and_named(tmp_path: Path) -> None:
    """By the kernel's own list of locks. A reader is nobody's hindrance."""
    path = tmp_path / "fleet.db"
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("CREATE TABLE a (b)")
    writer.execute("BEGIN")
    writer.execute("SELECT * FROM a").fetchall()
    assert storage.now(path, 0) == ""
    writer.execute("ROLLBACK")
    writer.execute("BEGIN IMMEDIATE")
    assert storage.now(path, 0).startswith(f"process {os.getpid()} (")
    assert storage.now(path, 0).endswith(" holds fleet.db")
    assert storage.now(path, os.getpid()) == "", "the hub may"
    writer.close()
    assert storage.now(tmp_path / "gone" / "fleet.db", 0).startswith("the folder ")
