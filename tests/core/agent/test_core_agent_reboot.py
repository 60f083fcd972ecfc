"""A command that reboots its own machine: when it has ended, and how, through every death of its agent."""

from __future__ import annotations

import itertools

import pytest

from processes.core.agent import reboot
from processes.core.agent.effects import (
    Connected,
    Effect,
    Input,
    Kill,
    Launch,
    Observed,
    Received,
    Recorded,
    RecordEnd,
    RecordLaunch,
    RecordRow,
    Send,
    Ticked,
    Updated,
)
from processes.core.agent.remembered import Ended, FolderVerdict, JournalRow, JournalState, ReportStatus, SpoolRecord
from processes.core.agent.step import Agent, Identity
from processes.core.travels import agent_frames
from processes.core.values import Now, Stream, Unknown

BACK_S = 600.0
BEFORE, AFTER = "boot-1", "boot-2"
OFFERS = {"reboot": agent_frames.CommandOptions(60.0, back_s=BACK_S), "pull": agent_frames.CommandOptions(60.0)}
DONE = Ended(ReportStatus.OK, 0)
REFUSED = Ended(ReportStatus.ERROR, 1)
SHUT_DOWN = Ended(ReportStatus.ERROR, 143, "ended by SIGTERM")
HUNG = Ended(ReportStatus.TIMED_OUT, 137)
STOPPED = Ended(ReportStatus.CANCELLED, 143)
DIED = Ended(ReportStatus.ERROR, None, "the shim died, outcome unknown", Unknown.SHIM_DIED)
REBOOTED = Ended(ReportStatus.ERROR, None, "the machine rebooted during the command", Unknown.REBOOTED)
VANISHED = Ended(ReportStatus.ERROR, None, "its run folder was removed", Unknown.UNREADABLE)
ENDS = (DONE, REFUSED, SHUT_DOWN, HUNG, STOPPED, DIED, REBOOTED, VANISHED)


class Machine:
    """A machine with a journal and one agent at a time. `row`: what its journal holds of the command c1."""

    def __init__(self) -> None:
        self.row: JournalRow | None = None
        self.begin(BEFORE, 1000.0)

    def begin(self, boot_id: str, at_boot_s: float) -> None:
        """An agent begins, connected, with what the journal holds."""
        self.now = Now(at_boot_s, 50_000.0)
        self.agent = Agent(Identity("h", boot_id, "journal", 5.0, OFFERS), [self.row] if self.row else [])
        self.done: list[Effect] = []
        self.step(Connected(1))
        self.step(Received(agent_frames.Registered("h", 1, 5.0)))

    def step(self, happened: Input) -> None:
        for effect in self.agent.step(happened, self.now):
            self.done.append(effect)
            if isinstance(effect, RecordRow):
                self.row = effect.row
                self.step(Recorded("c1", None))
            elif isinstance(effect, RecordLaunch | RecordEnd):
                self.row = effect.row
                self.step(Updated(effect.row))

    def order(self, op: str = "reboot", ttl_s: float | None = 60.0) -> None:
        self.step(Received(agent_frames.CommandFrame(op, "c1", 1, ttl_s)))

    def look(self, run: FolderVerdict, ended: Ended | None = None, *lines: str) -> None:
        records = [SpoolRecord(Stream.STDERR, line) for line in lines]
        self.step(Observed("c1", run, 7, 0, records, ended, len(lines) if ended else None))

    def wait(self, seconds: float) -> None:
        self.now = Now(self.now.boot_s + seconds, self.now.wall_s + seconds)
        self.step(Ticked(None))

    @property
    def launches(self) -> int:
        return sum(isinstance(effect, Launch) for effect in self.done)

    @property
    def reports(self) -> list[agent_frames.StatusFrame]:
        sent = [effect.frame for effect in self.done if isinstance(effect, Send)]
        return [frame for frame in sent if isinstance(frame, agent_frames.StatusFrame)]


def test_a_reboot_is_reported_by_the_agent_of_the_next_boot() -> None:
    machine = Machine()
    machine.order()
    machine.look(FolderVerdict.ENDED, DONE)
    machine.wait(1.0)
    assert (machine.launches, machine.reports, machine.agent.running) == (1, [], 1)
    machine.begin(AFTER, 20.0)
    machine.look(FolderVerdict.ENDED, DONE)
    assert [(report.status, report.exit_code) for report in machine.reports] == [("ok", None)]
    assert machine.launches == 0


def test_the_journal_says_that_it_is_a_reboot_before_anything_is_started() -> None:
    """An agent whose file no longer offers it has the journal alone to know it by."""
    machine = Machine()
    machine.order()
    rows = [effect.row for effect in machine.done if isinstance(effect, RecordRow | RecordLaunch)]
    assert [(row.state, row.back_s, row.boot_id) for row in rows] == [
        (JournalState.ADMITTED, BACK_S, BEFORE),
        (JournalState.LAUNCHED, BACK_S, BEFORE),
    ]


def test_an_agent_that_begins_anew_in_the_same_boot_goes_on_waiting() -> None:
    machine = Machine()
    machine.order()
    machine.begin(BEFORE, 1010.0)
    for _ in range(5):
        machine.look(FolderVerdict.ENDED, DONE)
        machine.wait(100.0)
    assert (machine.launches, machine.reports, machine.agent.running) == (0, [], 1)


def test_a_machine_that_does_not_reboot_in_time_is_told_as_that() -> None:
    machine = Machine()
    machine.order()
    machine.look(FolderVerdict.ENDED, DONE)
    machine.wait(BACK_S)
    machine.look(FolderVerdict.ENDED, DONE)
    assert [report.status for report in machine.reports] == ["timed_out"]
    assert machine.reports[0].message == "it said that it reboots, and 600 s later the machine has not"


def test_a_reboot_that_is_refused_has_failed_with_its_output() -> None:
    machine = Machine()
    machine.order()
    machine.look(FolderVerdict.ENDED, REFUSED, "Call to Reboot failed: Access denied")
    machine.step(Received(agent_frames.Ack("c1", 1)))
    assert [(report.status, report.exit_code) for report in machine.reports] == [("error", 1)]
    outputs = [effect.frame for effect in machine.done if isinstance(effect, Send)]
    assert "Access denied" in next(frame.line for frame in outputs if isinstance(frame, agent_frames.Output))


@pytest.mark.parametrize("ended", ENDS, ids=lambda ended: f"{ended.status} {ended.exit_code} {ended.reason}")
@pytest.mark.parametrize("boot_id", [BEFORE, AFTER])
@pytest.mark.parametrize("later_s", [0.0, BACK_S - 1, BACK_S + 1])
def test_each_end_in_each_boot_at_each_time(ended: Ended, boot_id: str, later_s: float) -> None:
    """Its program's own word stands. Else another boot is a success, and this boot is no end until the time is over."""
    row = JournalRow("c1", "reboot", JournalState.LAUNCHED, BEFORE, 1000.0, 50_000.0, 60.0, back_s=BACK_S)
    seen = Observed("c1", FolderVerdict.ENDED, 7, 0, (), ended, 0)
    judged = reboot.judged(row, seen, Now(1000.0 + later_s, 0.0), boot_id, 0.0)
    if ended in (REFUSED, STOPPED):
        assert judged == seen
    elif boot_id == AFTER:
        assert judged.ended is not None
        assert (judged.run, judged.ended.status, judged.ended.exit_code) == (FolderVerdict.ENDED, ReportStatus.OK, None)
        assert judged.total == 0
    elif later_s < BACK_S:
        assert (judged.run, judged.ended, judged.total) == (FolderVerdict.RUNNING, None, None)
    elif ended == DONE:
        assert judged.ended is not None
        assert judged.ended.status is ReportStatus.TIMED_OUT
    else:
        assert judged == seen


def test_the_time_of_a_reboot_that_was_launched_late_counts_from_its_launch() -> None:
    row = JournalRow("c1", "reboot", JournalState.LAUNCHED, BEFORE, 1000.0, 50_000.0, None, back_s=BACK_S)
    seen = Observed("c1", FolderVerdict.ENDED, 7, 0, (), DONE, 0)
    assert reboot.judged(row, seen, Now(1700.0, 0.0), BEFORE, 1690.0).run is FolderVerdict.RUNNING


@pytest.mark.parametrize(
    ("run", "ended"), [*((FolderVerdict.ENDED, ended) for ended in ENDS), (FolderVerdict.RUNNING, None)]
)
def test_any_other_command_is_judged_as_it_was(run: FolderVerdict, ended: Ended | None) -> None:
    row = JournalRow("c1", "pull", JournalState.LAUNCHED, BEFORE, 1000.0, 50_000.0, 60.0)
    seen = Observed("c1", run, 7, 0, (), ended, 0 if ended else None)
    for boot_id, at_s in itertools.product((BEFORE, AFTER), (1000.0, 9999.0)):
        assert reboot.judged(row, seen, Now(at_s, 0.0), boot_id, 0.0) == seen
        assert not reboot.is_done(row, boot_id)


@pytest.mark.parametrize("state", [JournalState.ADMITTED, JournalState.LAUNCHED])
@pytest.mark.parametrize("ttl_s", [60.0, 1.0, None])
def test_a_machine_that_went_down_before_the_start_does_not_go_down_once_more(
    state: JournalState, ttl_s: float | None
) -> None:
    """It lost power between the journal's line and the start: what was wanted has happened."""
    machine = Machine()
    machine.row = JournalRow("c1", "reboot", state, BEFORE, 990.0, 49_990.0, ttl_s, back_s=BACK_S)
    machine.begin(AFTER, 20.0)
    machine.look(FolderVerdict.UNSTARTED)
    machine.wait(1.0)
    assert machine.launches == 0
    assert [(report.status, report.message) for report in machine.reports] == [
        ("ok", "the machine booted anew before it could be started: not run")
    ]
    assert machine.row.ended == reboot.DONE_BEFORE, "the journal knows it before the hub is told"


def test_a_journal_of_the_version_before_knows_no_reboots() -> None:
    """Whatever it names is judged as before: a machine that rebooted during it leaves an unknown outcome."""
    machine = Machine()
    machine.row = JournalRow("c1", "reboot", JournalState.LAUNCHED, BEFORE, 990.0, 49_990.0, 60.0)
    machine.begin(AFTER, 20.0)
    machine.look(FolderVerdict.ENDED, REBOOTED)
    assert [(report.status, report.reason) for report in machine.reports] == [("error", "rebooted")]


def test_a_cancel_comes_too_late_for_a_machine_that_goes_down() -> None:
    machine = Machine()
    machine.order()
    machine.look(FolderVerdict.ENDED, DONE)
    machine.step(Received(agent_frames.KillCommand("SIGTERM", "c1")))
    assert [effect for effect in machine.done if isinstance(effect, Kill)] == [Kill("c1", "SIGTERM")]
    machine.look(FolderVerdict.ENDED, DONE)
    assert machine.reports == []
    machine.begin(AFTER, 20.0)
    machine.look(FolderVerdict.ENDED, DONE)
    assert [report.status for report in machine.reports] == ["ok"]


def test_register_says_which_op_reboots_and_for_how_long() -> None:
    machine = Machine()
    registers = [effect.frame for effect in machine.done if isinstance(effect, Send)]
    register = next(frame for frame in registers if isinstance(frame, agent_frames.Register))
    told, _ = agent_frames.decode(agent_frames.encode(register))
    assert isinstance(told, agent_frames.Register)
    assert told.command_options == OFFERS
