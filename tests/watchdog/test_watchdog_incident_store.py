"""The log of incidents: on disk, over a restart, pruned, and through a disk that refuses."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from processes.adapters.state import incidents_db
from processes.adapters.state.status_file import last_report
from processes.core.records.ledger import Ledger
from processes.core.shown.status import IncidentsReport, Verdict
from processes.core.watchdog.incident import EVENTS_MAX, Incident, end_of, is_over, lost_between
from processes.core.watchdog.incident_lifecycle import Ending
from processes.core.watchdog.verdict import Judgement
from processes.watchdog.incident_log import IncidentLog
from processes.watchdog.incident_store import Store, new_id

LOG = structlog.stdlib.get_logger("fleethub.test")


def incident(**fields: object) -> Incident:
    values = {
        "id": "a", "process": "hub", "verdict": "frozen", "reason": "", "pid": 7, "epoch": 1, "boot_id": "b",
        "good_mono_s": 98.0, "found_mono_s": 100.0, "found_wall_s": 5000.0,
    }  # fmt: skip
    return Incident(**{**values, **fields})  # type: ignore[arg-type]


def store(tmp_path: Path, kept: int = 200, bytes_max: int = 1 << 20) -> Store:
    return Store(tmp_path / "incidents.db", tmp_path / "incidents", kept, bytes_max)


def test_what_is_saved_is_read_newest_first_with_its_times(tmp_path: Path) -> None:
    kept = store(tmp_path)
    kept.save(incident(id="a"))
    totals = kept.save(incident(id="b", over_mono_s=103.5, over_wall_s=5003.5, stuck_at="x.py:1 f"))
    assert totals == IncidentsReport(2, "b")
    found = incidents_db.incidents(tmp_path / "incidents.db")
    assert [i.id for i in found] == ["b", "a"]
    assert (found[0].found_after_s, found[0].recovered_after_s) == (2.0, 5.5)
    assert found[0].begun_at == "1970-01-01T01:23:18.000Z"
    assert found[1].recovered_after_s is None
    assert incidents_db.incident(tmp_path / "incidents.db", "b") == found[0]
    assert incidents_db.incident(tmp_path / "incidents.db", "c") is None
    kept.close()


@pytest.mark.parametrize(
    ("process", "pid", "line"),
    [
        (
            "hub",
            8,
            "well again: process 8 in its place turns under hub epoch 3, and a command of the canary went all the way round",
        ),
        ("fanout:1", 8, "well again: process 8 in its place turns, and a command of the canary went all the way round"),
        ("gateway", 7, "well again: process 7 turns, and a command of the canary went all the way round"),
        ("agent", 8, "well again: process 8 in its place turns"),
    ],
)
def test_the_story_ends_with_who_runs_now_and_how_that_is_known(process: str, pid: int, line: str) -> None:
    assert end_of(incident(process=process), pid, 3) == line


def test_saving_again_changes_the_row_and_not_the_count(tmp_path: Path) -> None:
    kept = store(tmp_path)
    kept.save(incident())
    assert kept.save(incident(remedy="killed")) == IncidentsReport(1, "a")
    assert incidents_db.incidents(tmp_path / "incidents.db")[0].remedy == "killed"
    kept.close()


def test_old_ones_are_pruned_with_their_evidence_and_stay_counted(tmp_path: Path) -> None:
    kept = store(tmp_path, 2)
    for name in "abcd":
        (tmp_path / "incidents" / name).mkdir(parents=True)
        totals = kept.save(incident(id=name))
    assert totals == IncidentsReport(4, "d")
    assert [i.id for i in incidents_db.incidents(tmp_path / "incidents.db")] == ["d", "c"]
    assert sorted(p.name for p in (tmp_path / "incidents").iterdir()) == ["c", "d"]
    kept.close()


def test_evidence_is_pruned_by_its_size_too_and_the_newest_stays(tmp_path: Path) -> None:
    kept = store(tmp_path, bytes_max=2500)
    for name in "abcd":
        folder = tmp_path / "incidents" / name
        folder.mkdir(parents=True)
        (folder / "stacks.txt").write_bytes(b"x" * 1000)
        kept.save(incident(id=name))
    assert sorted(p.name for p in (tmp_path / "incidents").iterdir()) == ["c", "d"]
    assert len(incidents_db.incidents(tmp_path / "incidents.db")) == 4  # their stories are small, and stay
    (tmp_path / "incidents" / "d" / "log.txt").write_bytes(b"x" * 5000)
    kept.save(incident(id="d"))
    assert [p.name for p in (tmp_path / "incidents").iterdir()] == ["d"]
    kept.close()


def test_only_open_ones_are_gone_on_with(tmp_path: Path) -> None:
    kept = store(tmp_path)
    kept.save(incident(id="a", killed=True, ledger=Ledger(1, 1)))
    kept.save(incident(id="b", over_mono_s=101.0, over_wall_s=5001.0))
    kept.close()
    again = store(tmp_path)
    assert again.open_incidents() == [incident(id="a", killed=True, ledger=Ledger(1, 1))]
    again.close()


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 100])
def test_an_unreadable_file_shows_no_incidents(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "incidents.db"
    assert incidents_db.incidents(path) == []
    path.write_bytes(content)
    assert incidents_db.incidents(path) == []
    assert incidents_db.totals(path) == IncidentsReport()
    assert last_report(path) is None


def test_ids_sort_by_time_and_are_fit_for_a_folder() -> None:
    ids = [new_id(1_800_000_000 + n / 100) for n in range(200)]
    assert ids == sorted(ids, key=lambda i: i.partition("-")[0])
    assert all("/" not in i and ":" not in i for i in ids)
    assert ids[0].startswith("20270115T080000.000-")


def run_log(log: IncidentLog, until: Callable[[], object]) -> None:
    async def run() -> None:
        task = asyncio.create_task(log.run())
        async with asyncio.timeout(10):
            while not until():
                await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())


def opened(log: IncidentLog, process: str = "hub") -> Incident:
    judgement = Judgement(Verdict.FROZEN, "no turn", 1.0)
    return log.incidents.found(process, judgement, 7, log.now(), epoch=3, ledger=Ledger())


def test_a_disk_that_refuses_is_tried_until_it_takes_the_incident(tmp_path: Path) -> None:
    refusals = iter([sqlite3.OperationalError("disk is full"), OSError("disk is gone")])

    class Refusing(Store):
        def save(self, incident: Incident) -> IncidentsReport:
            for refusal in refusals:
                raise refusal
            return super().save(incident)

    refusing = Refusing(tmp_path / "incidents.db", tmp_path / "incidents", 200, 1 << 20)
    kept, log = store(tmp_path), IncidentLog(refusing, "boot", LOG, retry_s=0.01)
    found = opened(log)
    run_log(log, lambda: log.totals.total == 1)
    assert incidents_db.incidents(tmp_path / "incidents.db")[0].id == found.id
    kept.close()


def test_a_new_watchdog_keeps_this_boots_open_ones_and_closes_earlier_boots(tmp_path: Path) -> None:
    kept = store(tmp_path)
    kept.save(incident(id="a", boot_id="earlier"))
    kept.save(incident(id="b", boot_id="boot"))
    kept.close()
    log = IncidentLog(store(tmp_path), "boot", LOG)
    path = tmp_path / "incidents.db"
    run_log(log, lambda: (a := incidents_db.incident(path, "a")) and a.over_at)
    assert list(log.incidents.open) == ["b"]
    closed = incidents_db.incident(path, "a")
    assert closed is not None
    assert closed.recovered_after_s is None


def test_an_incident_of_one_process_is_found_by_its_pid() -> None:
    async def run() -> None:
        log = IncidentLog(Store(Path("/nowhere/x"), Path("/nowhere"), 1, 1), "boot", LOG)
        first, second = opened(log), opened(log, "queues")
        assert log.incidents.of("hub") is first
        assert log.incidents.of("hub", 7) is first
        assert log.incidents.of("hub", 8) is None
        assert log.incidents.of("queues") is second
        log.incidents.settle(Ending(first, 9.0), 8, log.now(), epoch=3, ledger=None, missing=0)
        assert log.incidents.of("hub") is None

    asyncio.run(run())


def test_a_story_has_an_end() -> None:
    found = incident()
    for _ in range(EVENTS_MAX + 5):
        found.tell(101.25, "again")
    assert len(found.events) == EVENTS_MAX
    assert found.events[0] == "+1.250 s again"


@pytest.mark.parametrize(
    ("killed", "pid_advancing_good_s", "round_s", "over"),
    [
        (True, (8, True, 101.0), 100.5, True),
        (True, (7, True, 101.0), 100.5, False),  # the very process that is being killed
        (False, (7, True, 101.0), 100.5, True),  # it went on by itself
        (True, (8, False, 101.0), 100.5, False),
        (True, (8, True, 99.0), 100.5, False),  # no turn since
        (True, (8, True, 101.0), 99.9, False),  # the round began before it was found
        (True, (8, True, 101.0), None, False),
    ],
)
def test_it_is_over_when_the_successor_and_a_round_say_so(
    killed: bool, pid_advancing_good_s: tuple[int, bool, float], round_s: float | None, over: bool
) -> None:
    assert is_over(incident(killed=killed), *pid_advancing_good_s, round_s) is over


def test_an_agents_incident_needs_no_canary() -> None:
    assert is_over(incident(process="agent", killed=True), 8, True, 101.0, None)
    assert not is_over(incident(process="gateway:1", killed=True), 8, True, 101.0, None)


@pytest.mark.parametrize(
    ("before", "after", "lost"),
    [
        (None, None, 0),
        (Ledger(5, succeeded=5), None, 0),
        (None, Ledger(5, succeeded=5), 0),
        (Ledger(5, succeeded=5), Ledger(7, succeeded=6, queued=1), 0),
        (Ledger(5, succeeded=5), Ledger(3, succeeded=3), 2),
        (Ledger(5, succeeded=5), Ledger(6, succeeded=5), 1),  # accepted, and in no state
    ],
)
def test_lost_is_what_the_ledger_misses(before: Ledger | None, after: Ledger | None, lost: int) -> None:
    assert lost_between(before, after) == lost
