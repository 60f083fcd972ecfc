"""Real processes under a real supervisord, and the real watchdog beside them: what does not turn is found, explained
and replaced.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from doubles.supervised import Supervised, supervised, wait_for

from processes.adapters import failpoint, proc
from processes.adapters.state import pulse_file
from processes.core.shown.status import IncidentView, Overall, Verdict
from processes.core.travels import pulse as record
from processes.core.travels.pulse import Pulse, Unreadable

pytestmark = pytest.mark.house


@pytest.fixture(scope="module")
def house() -> Iterator[Supervised]:
    with supervised() as found:
        yield found


@pytest.fixture
def well(house: Supervised) -> Supervised:
    """The installation with all well, and every incident over."""
    wait_for(lambda: house.report().verdict is Overall.OK and all(i.over_at for i in house.incidents()))
    wait_for(lambda: all(p.state == "RUNNING" for p in house.report().processes if p.wanted))
    return house


def next_incident(house: Supervised, before: set[str]) -> IncidentView:
    """The one new incident, once it is over."""
    wait_for(lambda: any(i.id not in before and i.over_at for i in house.incidents()))
    fresh = [i for i in house.incidents() if i.id not in before]
    assert len(fresh) == 1, fresh
    return fresh[0]


def known(house: Supervised) -> set[str]:
    return {incident.id for incident in house.incidents()}


@pytest.mark.parametrize(
    ("name", "word", "verdict", "function"),
    [  # shared out, so that nobody is killed more than 5 times a minute
        ("queues", "deadlock", "frozen", "take_twice"),
        ("queues", "await", "frozen", "run"),
        ("hub", "stalled", "stalled", None),
    ],
)
def test_a_process_that_does_not_work_is_replaced_and_the_line_is_named(
    well: Supervised, name: str, word: str, verdict: str, function: str | None
) -> None:
    before, pid = known(well), well.process(name).pid
    well.fault(name, word)
    incident = next_incident(well, before)
    assert incident.verdict == verdict
    assert incident.process == name
    assert incident.pid == pid
    assert incident.found_after_s is not None
    assert incident.found_after_s >= 1.9
    assert incident.recovered_after_s is not None
    assert incident.found_after_s < incident.recovered_after_s
    assert incident.lost == 0
    assert incident.remedy == "killed and replaced"
    assert f"well again: process {well.process(name).pid} in its place turns" in incident.events[-1]
    if function:
        assert incident.stuck_at is not None
        assert incident.stuck_at.endswith(f" {function}")
    assert well.process(name).pid != pid
    folder = well.settings.evidence / incident.id
    assert folder.stat().st_mode & 0o777 == 0o700
    assert set(incident.evidence) == {
        "pulse.json",
        "proc.json",
        "stacks.txt",
        "tasks.txt",
        "pyspy.txt",
        "queues.json",
        "log.txt",
    }
    assert json.loads((folder / "pulse.json").read_text())["pid"] == pid
    assert json.loads((folder / "proc.json").read_text())["pid"] == pid
    assert "started" in (folder / "log.txt").read_text()
    if word == "await":
        assert "wait_for_ever" in (folder / "tasks.txt").read_text()
        assert any("its main task waits at" in line and "locks.py" in line for line in incident.events)
    elif function:
        assert function in (folder / "stacks.txt").read_text()
        seen = (folder / "pyspy.txt").read_text()
        assert function in seen or "nothing in time" in seen  # a second is all that it gets


def test_a_stopped_process_is_frozen_and_replaced(well: Supervised) -> None:
    """supervisord takes it for RUNNING."""
    before, pid = known(well), well.process("queues").pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    incident = next_incident(well, before)
    assert (incident.process, incident.verdict, incident.pid) == ("queues", "frozen", pid)
    assert "stopped by a signal" in incident.reason
    assert incident.stuck_at is None, "that is not why it does not go on"
    assert any("and is not stuck in its own code" in line for line in incident.events)
    assert "takes no signals" in (well.settings.evidence / incident.id / "stacks.txt").read_text()


def test_what_an_operator_stopped_is_no_incident_and_stays_stopped(well: Supervised) -> None:
    before = known(well)
    well.want(hub="stopped")
    well.supervisor.stop("hub", wait=True)
    wait_for(lambda: well.process("hub").verdict is Verdict.STOPPED)
    assert well.report().verdict is Overall.DOWN
    well.want()
    wait_for(lambda: well.process("hub").verdict is Verdict.ADVANCING)  # now it is STOPPED unasked, and revived
    fresh = [i for i in well.incidents() if i.id not in before]
    assert all(i.remedy == "started again" for i in fresh)


def test_a_restart_that_was_asked_for_is_no_incident(well: Supervised) -> None:
    before, pid = known(well), well.process("queues").pid
    well.supervisor.stop("queues", wait=True)
    well.supervisor.start("queues")
    wait_for(lambda: well.process("queues").verdict is Verdict.ADVANCING and well.process("queues").pid != pid)
    assert known(well) == before


def replaced_by_garbage(path: Path) -> None:
    garbage = path.with_name(".garbage")
    garbage.write_bytes(os.urandom(500))
    garbage.replace(path)


def overwritten(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(os.urandom(500))


def cut_off(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b"x")


def stale(path: Path) -> None:
    """A whole pulse, of a process that is long gone."""
    old = path.with_name(".stale")
    old.write_bytes(record.pack(Pulse(pid=2**22 - 1, start_ticks=1, turn=9, written_ns=1), 1) * 2)
    old.replace(path)


def folder_gone(path: Path) -> None:
    shutil.rmtree(path.parent)


@pytest.mark.parametrize("damage", [Path.unlink, replaced_by_garbage, overwritten, cut_off, stale, folder_gone])
def test_a_damaged_pulse_file_kills_nobody_and_is_mended_by_its_own_process(
    well: Supervised, damage: Callable[[Path], None]
) -> None:
    before = known(well)
    names = ("queues", "hub", "watchdog")
    turns = {name: pulse_file.read(well.settings.pulses, name) for name in names}
    for name in names[:1] if damage is folder_gone else names:
        damage(well.settings.pulses / name)

    def turns_on(name: str) -> bool:
        with contextlib.suppress(Unreadable):
            pulse, then = pulse_file.read(well.settings.pulses, name), turns[name]
            return pulse is not None and then is not None and pulse.pid == then.pid and pulse.turn > then.turn
        return False

    wait_for(lambda: all(turns_on(name) for name in names))
    wait_for(lambda: all(well.process(name).verdict is Verdict.ADVANCING for name in names))
    assert known(well) == before


@pytest.mark.parametrize("point", ["watchdog.found", "watchdog.collected", "watchdog.killed"])
def test_a_watchdog_that_dies_amid_a_rescue_does_no_harm(well: Supervised, point: str) -> None:
    """Before the evidence, before the kill, after it: the next watchdog finishes what is left, and it is one incident.

    At the first point the incident itself may not be on disk yet: a rescue waits for no disk. Then the next watchdog
    finds it anew.
    """
    before, pid, watchdog = known(well), well.process("queues").pid, well.process("watchdog").pid
    failpoint.arm(well.settings.run / "failpoint-watchdog", point)
    well.fault("queues", "sleep")
    wait_for(lambda: well.process("watchdog").pid not in (None, watchdog))
    incident = next_incident(well, before)
    assert (incident.process, incident.verdict, incident.pid, incident.lost) == ("queues", "frozen", pid, 0)
    assert point == "watchdog.found" or any("started anew" in line for line in incident.events)
    wait_for(lambda: well.process("queues").pid not in (None, pid))
    assert well.process("queues").verdict is Verdict.ADVANCING


def test_a_watchdog_that_was_stopped_begins_anew_and_kills_nobody(well: Supervised) -> None:
    before, pids = known(well), {name: well.process(name).pid for name in ("queues", "hub", "watchdog")}
    watchdog = pids["watchdog"]
    assert watchdog is not None
    os.kill(watchdog, signal.SIGSTOP)
    try:
        wait_for(lambda: "the watchdog is silent" in well.report().reasons)
    finally:
        os.kill(watchdog, signal.SIGCONT)
    wait_for(lambda: well.report().verdict is Overall.OK)
    assert {name: well.process(name).pid for name in pids} == pids
    assert known(well) == before


def test_all_suspended_together_and_resumed_is_no_fault(well: Supervised) -> None:
    """Stopped one after the other, the watchdog first and resumed last: whoever did not turn meanwhile is not killed
    for it.
    """
    before, pids = known(well), [well.process(name).pid for name in ("watchdog", "queues", "hub")]
    for pid in pids:
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
    try:
        wait_for(lambda: "the watchdog is silent" in well.report().reasons)
    finally:
        for pid in reversed(pids):
            assert pid is not None
            os.kill(pid, signal.SIGCONT)
    wait_for(lambda: well.report().verdict is Overall.OK)
    assert [well.process(name).pid for name in ("watchdog", "queues", "hub")] == pids
    assert known(well) == before


def test_two_faults_at_once_are_two_incidents_each_with_its_line(well: Supervised) -> None:
    before = known(well)
    well.fault("queues", "deadlock")
    well.fault("hub", "sleep")
    wait_for(lambda: len(known(well) - before) >= 2)
    wait_for(lambda: all(i.over_at for i in well.incidents()))
    fresh = {i.process: i for i in well.incidents() if i.id not in before}
    assert len(known(well) - before) == 2
    assert fresh["queues"].stuck_at is not None
    assert fresh["queues"].stuck_at.endswith(" take_twice")
    assert fresh["hub"].stuck_at is not None
    assert fresh["hub"].stuck_at.endswith(" sleep_for_ever")


def test_who_holds_more_memory_than_it_may_is_replaced(well: Supervised) -> None:
    before, pid = known(well), well.process("hub").pid
    well.fault("hub", "grow")
    incident = next_incident(well, before)
    assert (incident.process, incident.verdict, incident.pid) == ("hub", "memory", pid)
    assert incident.remedy in (
        "killed and replaced",
        "replaced by supervisord",
    )  # the latter: it met its own hard limit before the kill
    assert "may hold 200" in incident.reason
    facts = json.loads((well.settings.evidence / incident.id / "proc.json").read_text())
    assert facts["rss_bytes"] > 200 << 20
    assert "Pss:" in facts["smaps_rollup"]


def groups(controller: str) -> Path:
    """A control group of version 1 made for one test."""
    folder = Path(f"/sys/fs/cgroup/{controller}/fleethub-test-{os.getpid()}")
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    return folder


def leave_group(folder: Path, controller: str) -> None:
    for pid in (folder / "cgroup.procs").read_text().split():
        with contextlib.suppress(OSError):
            Path(f"/sys/fs/cgroup/{controller}/cgroup.procs").write_text(pid)
    wait_for(lambda: not (folder / "cgroup.procs").read_text())
    folder.rmdir()


def test_a_process_that_survives_sigkill_is_unkillable_and_named_until_it_dies(well: Supervised) -> None:
    """A frozen control group keeps it in state D; thawed, the signal that waits ends it."""
    before, pid = known(well), well.process("queues").pid
    folder = groups("freezer")
    try:
        (folder / "cgroup.procs").write_text(str(pid))
        (folder / "freezer.state").write_text("FROZEN")
        wait_for(lambda: well.process("queues").verdict is Verdict.UNKILLABLE)
        assert well.report().verdict is Overall.DEGRADED
        wait_for(
            lambda: any(
                "survived SIGKILL in state D" in line
                for i in well.incidents()
                if i.id not in before
                for line in i.events
            )
        )
        assert len(known(well) - before) == 1
    finally:
        (folder / "freezer.state").write_text("THAWED")
        leave_group(folder, "freezer")
    incident = next_incident(well, before)
    assert (incident.process, incident.pid) == ("queues", pid)


@contextlib.contextmanager
def throttled(pid: int | None, share: float) -> Iterator[None]:
    """The process has so much of a CPU and no more."""
    folder = groups("cpu")
    try:
        (folder / "cpu.cfs_period_us").write_text("1000000")
        (folder / "cpu.cfs_quota_us").write_text(str(int(share * 1e6)))
        (folder / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        (folder / "cpu.cfs_quota_us").write_text("-1")
        leave_group(folder, "cpu")


def test_a_throttled_process_is_excused(well: Supervised) -> None:
    """At a thousandth of a CPU its turns stay away for many seconds, which is not its fault."""
    before, pid = known(well), well.process("hub").pid
    well.fault("hub", "toil")
    wait_for(lambda: not (well.settings.state / "fault-hub").exists())
    with throttled(pid, 0.001):
        wait_for(lambda: (hub := well.process("hub")).verdict is Verdict.EXCUSED and "starved" in hub.reason)
    wait_for(lambda: well.process("hub").verdict is Verdict.ADVANCING)
    well.fault("hub", "rest")
    assert well.process("hub").pid == pid
    assert known(well) == before


def test_a_busy_loop_that_gets_a_fifth_of_a_cpu_is_found_by_what_it_got(well: Supervised) -> None:
    before, pid = known(well), well.process("hub").pid
    with throttled(pid, 0.2):
        well.fault("hub", "busy")
        incident = next_incident(well, before)
    assert (incident.process, incident.verdict, incident.pid) == ("hub", "frozen", pid)
    assert incident.stuck_at is not None
    assert incident.stuck_at.endswith(" turn_for_ever")


def test_with_supervisord_stopped_the_watchdog_goes_on_judging(well: Supervised) -> None:
    before = known(well)
    well.supervisord.send_signal(signal.SIGSTOP)
    try:
        wait_for(lambda: well.report().reasons == ["supervisord does not answer"])
        report = well.report()
        assert report.verdict is Overall.DEGRADED
        assert report.watchdog_silent_s is None
        assert report.supervisord_silent_s is not None
        wait_for(lambda: (well.report().supervisord_silent_s or 0) > report.supervisord_silent_s)  # type: ignore[operator]
        pid = well.process("hub").pid
        assert pid is not None
        well.fault("hub", "deadlock")
        wait_for(lambda: well.process("hub").verdict is Verdict.DEAD)  # killed directly: nobody else would
        stat = proc.stat(pid)
        assert stat is None or stat.state == "Z"
        turn = well.process("watchdog").pulse
        assert turn is not None
        wait_for(lambda: (later := well.process("watchdog").pulse) is not None and later.turn > turn.turn + 5)
    finally:
        well.supervisord.send_signal(signal.SIGCONT)
    incident = next_incident(well, before)
    assert incident.stuck_at is not None
    assert incident.stuck_at.endswith(" take_twice")
    assert any("directly" in line for line in incident.events)


def test_a_new_watchdog_goes_on_with_the_open_incident(well: Supervised) -> None:
    """The canary is red, so the incident stays open over the watchdog's death; the new one closes it."""
    before = known(well)
    well.house.mute.add("command")
    restarts = well.process("hub").restarts
    hub, watchdog = well.process("hub").pid, well.process("watchdog").pid
    assert hub is not None
    assert watchdog is not None
    os.kill(hub, signal.SIGKILL)
    wait_for(lambda: known(well) != before)
    wait_for(lambda: well.process("hub").verdict is Verdict.ADVANCING and well.process("hub").pid != hub)
    os.kill(watchdog, signal.SIGKILL)
    told = []
    wait_for(lambda: told.append(well.report()) or told[-1].writer_pid not in (0, watchdog))  # type: ignore[func-returns-value]
    wait_for(lambda: told.append(well.report()) or told[-1].incidents.total is not None)  # type: ignore[func-returns-value]
    assert not any(report.incidents.total == 0 for report in told)  # nobody has counted yet: that is not none
    well.house.mute.clear()
    incident = next_incident(well, before)
    assert any("started anew" in line for line in incident.events)
    assert incident.recovered_after_s is not None
    assert well.process("hub").restarts == restarts + 1
    assert well.process("watchdog").restarts > 0


def test_the_watchdog_is_small(well: Supervised) -> None:
    pid = well.process("watchdog").pid
    assert pid is not None
    assert psutil.Process(pid).memory_info().rss < 60 * 2**20


def test_sigterm_ends_the_watchdog(well: Supervised) -> None:
    pid = well.process("watchdog").pid
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: proc.stat(pid) is None or proc.stat(pid).state == "Z")  # type: ignore[union-attr]
    assert (
        "stopped" in (well.settings.log / "watchdog.log").read_text().splitlines()[-1]
        or well.process("watchdog").pid != pid
    )
