"""The agent's session: every decision, without a process or a clock."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processes.core.agent.effects import (
    Connected,
    Disconnected,
    Effect,
    Input,
    Kill,
    Launch,
    MakeNextToken,
    NextTokenMade,
    Observed,
    Received,
    Recorded,
    RecordEnd,
    RecordFailed,
    RecordLaunch,
    RecordRow,
    Send,
    SettleRow,
    Ticked,
    Updated,
    UpdateFailed,
)
from processes.core.agent.flow import RECORD_BYTES, WINDOW_BYTES_MAX
from processes.core.agent.open_command import LAUNCHES_MAX
from processes.core.agent.remembered import (
    Ended,
    FolderVerdict,
    JournalRow,
    JournalState,
    ReportStatus,
    SpoolRecord,
)
from processes.core.agent.step import CONCURRENT_MAX, OPEN_MAX, Agent, Identity
from processes.core.travels import agent_frames
from processes.core.values import Now, Stream

OFFERS = {"pull": agent_frames.CommandOptions(60.0), "look": agent_frames.CommandOptions(60.0, concurrent=True)}
IDENTITY = Identity("web1", "boot", "journal", 5.0, OFFERS)
OK = Ended(ReportStatus.OK, 0)
CANCELLED = "cancelled"


class Play:
    """A session with a journal that works, unless told otherwise, and a clock that is set by hand."""

    def __init__(self, *rows: JournalRow, connected: bool = True) -> None:
        self.now = Now(1000.0, 50_000.0)
        self.session = Agent(IDENTITY, rows)
        self.journal: dict[str, JournalRow] = {row.command_id: row for row in rows}
        self.journal_works = True
        self.effects: list[Effect] = []
        self.connections = 0
        if connected:
            self.connect()

    def step(self, happened: Input) -> list[Effect]:
        effects = self.session.step(happened, self.now)
        self.effects += effects
        for effect in effects:
            if isinstance(effect, RecordRow):
                row = effect.row
                if not self.journal_works:
                    self.step(RecordFailed(row.command_id, "disk_full"))
                else:
                    known = self.journal.get(row.command_id)
                    self.journal.setdefault(row.command_id, row)
                    self.step(Recorded(row.command_id, known))
            elif isinstance(effect, RecordLaunch | RecordEnd):
                if not self.journal_works:
                    self.step(UpdateFailed(effect.row.command_id))
                else:
                    self.journal[effect.row.command_id] = effect.row
                    self.step(Updated(effect.row))
            elif isinstance(effect, SettleRow):
                self.journal[effect.row.command_id] = effect.row
        return effects

    def connect(self) -> None:
        self.connections += 1
        self.step(Connected(self.connections))
        self.step(Received(agent_frames.Registered("h", 1, 5.0)))

    def command(self, command_id: str = "c1", op: str = "pull", ttl_s: float | None = 60.0) -> None:
        self.step(Received(agent_frames.CommandFrame(op, command_id, 1, ttl_s)))

    def kill(self, command_id: str = "c1", signal: str = "SIGTERM", pid: int = 0) -> None:
        self.step(Received(agent_frames.KillCommand(signal, command_id, pid)))

    def ack(self, command_id: str = "c1", offset: int | None = None) -> None:
        self.step(Received(agent_frames.Ack(command_id, offset)))

    def running(self, command_id: str = "c1", pid: int = 7) -> None:
        self.step(Observed(command_id, FolderVerdict.RUNNING, pid))

    def ended(
        self,
        command_id: str = "c1",
        total: int = 0,
        ended: Ended = OK,
        first: int = 0,
        records: tuple[SpoolRecord, ...] = (),
    ) -> None:
        self.step(Observed(command_id, FolderVerdict.ENDED, 7, first, records, ended, total))

    def tick(self, later_s: float = 0.0) -> None:
        self.now = Now(self.now.boot_s + later_s, self.now.wall_s + later_s)
        self.step(Ticked(agent_frames.Metrics(cpu=1.0)))

    def frames(self, kind: type[Any]) -> list[Any]:
        return [effect.frame for effect in self.effects if isinstance(effect, Send) and isinstance(effect.frame, kind)]

    def did(self, kind: type[Any]) -> list[Any]:
        return [effect for effect in self.effects if isinstance(effect, kind)]

    def forget(self) -> None:
        self.effects.clear()


def text(*lines: str) -> tuple[SpoolRecord, ...]:
    return tuple(SpoolRecord(Stream.STDOUT, line) for line in lines)


def row(
    state: JournalState = JournalState.LAUNCHED, command_id: str = "c1", op: str = "pull", **more: Any
) -> JournalRow:
    return JournalRow(command_id, op, state, more.pop("boot_id", "boot"), 990.0, 49_990.0, **more)


def test_command_is_journalled_before_anything_is_said_and_its_launch_before_anything_is_started() -> None:
    play = Play()
    effects = play.session.step(Received(agent_frames.CommandFrame("pull", "c1", 1, 60.0)), play.now)
    admitted = row(JournalState.ADMITTED, ttl_s=60.0)
    admitted = msgspec.structs.replace(admitted, written_boot_s=1000.0, written_wall_s=50_000.0)
    assert effects == [RecordRow(admitted)]
    effects = play.session.step(Recorded("c1", None), play.now)
    launched = msgspec.structs.replace(admitted, state=JournalState.LAUNCHED)
    assert effects == [Send(1, agent_frames.CommandAck("c1", "accepted")), RecordLaunch(launched)]
    assert play.session.looks() == [], "there is no run folder to look into"
    assert play.session.step(Updated(launched), play.now) == [Launch("c1", "pull")]


def test_launch_that_cannot_be_journalled_starts_nothing_says_nothing_and_is_tried_again_with_growing_pauses() -> None:
    play = Play()
    play.session.step(Received(agent_frames.CommandFrame("pull", "c1", 1, None)), play.now)
    play.journal_works = False
    play.step(Recorded("c1", None))
    tries = []
    for second in range(70):
        before = len(play.did(RecordLaunch))
        play.tick(1.0)
        if len(play.did(RecordLaunch)) > before:
            tries.append(second)
    assert tries == [0, 2, 6, 14, 30, 62]
    assert (play.did(Launch), play.frames(agent_frames.StatusFrame), play.session.may_forget) == ([], [], True)
    play.journal_works = True
    play.tick(60.0)
    assert play.did(Launch) == [Launch("c1", "pull")]
    assert not play.session.may_forget


@pytest.mark.parametrize("why", ["its time is over", "it is cancelled"])
def test_end_without_a_run_is_durable_before_it_is_told(why: str) -> None:
    """Or the next agent, which reads in the journal that it may be run, would run what the hub holds for ended."""
    play = Play()
    play.session.step(Received(agent_frames.CommandFrame("pull", "c1", 1, 5.0)), play.now)
    play.journal_works = False
    play.step(Recorded("c1", None))
    if why == "it is cancelled":
        play.kill()
    for _ in range(10):
        play.tick(1.0)
    assert play.did(RecordEnd)
    assert (play.did(Launch), play.frames(agent_frames.StatusFrame)) == ([], [])
    play.journal_works = True
    play.tick(60.0)
    (report,) = play.frames(agent_frames.StatusFrame)
    assert (report.status, report.reason) == (("cancelled", "") if why == "it is cancelled" else ("error", "expired"))
    assert play.journal["c1"].ended is not None
    after = Play(play.journal["c1"])
    assert [frame.status for frame in after.frames(agent_frames.StatusFrame)] == [report.status]
    after.tick(5.0)
    assert after.did(Launch) == after.did(RecordLaunch) == []


def test_row_of_the_journal_of_the_version_before_is_never_launched_without_proof() -> None:
    """It calls `accepted` what may have been started; what its folder says is told by the look."""
    old = msgspec.json.decode(
        b'{"command_id": "c1", "op": "pull", "state": "accepted", "boot_id": "boot", "written_boot_s": 990.0,'
        b' "written_wall_s": 49990.0, "ttl_s": 60.0, "reason": "", "ended": null}', type=JournalRow
    )  # fmt: skip
    play = Play(old)
    play.tick(1.0)
    assert play.did(Launch) == play.did(RecordLaunch) == []
    assert [look.command_id for look in play.session.looks()] == ["c1"]
    play.ended(ended=Ended(ReportStatus.ERROR, None, "", "record_unreadable"))
    assert play.frames(agent_frames.StatusFrame)[0].reason == "record_unreadable"


def test_spool_that_was_cut_after_the_end_holds_no_report() -> None:
    """The hub would wait for ever for output that nobody has any more, and the host with it."""
    play = Play()
    play.command()
    play.ended(total=9, records=text("a", "b"))
    play.ack(offset=2)
    assert play.frames(agent_frames.StatusFrame) == []
    (look,) = play.session.looks()
    play.ended(total=1, first=look.first)
    (report,) = play.frames(agent_frames.StatusFrame)
    assert (report.status, report.message) == ("ok", "some of its output was lost: its spool was cut or removed")


def test_spool_that_was_removed_while_output_was_under_way_is_waited_for_no_longer_than_the_acknowledgement() -> None:
    play = Play()
    play.command()
    play.ended(total=3, records=text("a", "b", "c"))
    play.tick(5.1)
    (look,) = play.session.looks()
    assert look.first == 0
    play.ended(total=0, first=0)
    assert len(play.frames(agent_frames.StatusFrame)) == 1


def test_journal_that_fails_refuses_and_the_id_is_never_run_later() -> None:
    play = Play()
    play.journal_works = False
    play.command()
    play.journal_works = True
    play.command()
    assert [frame.reason for frame in play.frames(agent_frames.CommandRejected)] == ["disk_full", "disk_full"]
    assert play.did(Launch) == []


@pytest.mark.parametrize(
    ("op", "ttl_s", "reason"),
    [("rm", 60.0, "not_offered"), ("pull", 0.0, "expired"), ("pull", -1.0, "expired"), ("rm", None, "not_offered")],
)
def test_refusal_is_journalled_and_repeated(op: str, ttl_s: float | None, reason: str) -> None:
    play = Play()
    play.command(op=op, ttl_s=ttl_s)
    play.command(op="pull", ttl_s=60.0)
    assert [frame.reason for frame in play.frames(agent_frames.CommandRejected)] == [reason, reason]
    assert play.journal["c1"].state is JournalState.REJECTED
    assert play.did(Launch) == []
    assert play.session.unacknowledged == 0


def test_id_that_could_not_be_an_environment_variable_is_refused() -> None:
    play = Play()
    for command_id in ("", "a b", "a\0b", "../x", "-x", "x" * 129):
        play.command(command_id)
    assert {frame.reason for frame in play.frames(agent_frames.CommandRejected)} == {"malformed_id"}
    assert play.did(RecordRow) == []


def test_second_command_is_busy_unless_one_of_them_is_concurrent() -> None:
    play = Play()
    play.command("c1", "pull")
    play.command("c2", "pull")
    play.command("c3", "look")
    assert [
        (frame.command_id, frame.reason, frame.current_command) for frame in play.frames(agent_frames.CommandRejected)
    ] == [("c2", "busy", "pull")]
    assert [launch.command_id for launch in play.did(Launch)] == ["c1", "c3"]
    other = Play()
    other.command("c1", "look")
    other.command("c2", "pull")
    assert [launch.command_id for launch in other.did(Launch)] == ["c1", "c2"]


def test_command_still_being_journalled_makes_the_next_one_busy() -> None:
    play = Play()
    play.session.step(Received(agent_frames.CommandFrame("pull", "c1", 1, 60.0)), play.now)
    play.command("c2")
    assert play.frames(agent_frames.CommandRejected)[0].reason == "busy"


def test_command_that_has_ended_and_waits_for_its_ack_keeps_nobody_waiting() -> None:
    play = Play()
    play.command("c1")
    play.ended("c1")
    play.command("c2")
    assert [launch.command_id for launch in play.did(Launch)] == ["c1", "c2"]


def test_too_many_at_once_are_busy() -> None:
    play = Play()
    for number in range(CONCURRENT_MAX + 1):
        play.command(f"c{number}", "look")
    assert len(play.did(Launch)) == CONCURRENT_MAX
    assert play.frames(agent_frames.CommandRejected)[0].reason == "busy"


def test_too_many_unacknowledged_are_refused() -> None:
    play = Play(*(row(JournalState.CANCELLED, f"k{number}") for number in range(OPEN_MAX)))
    play.command("c1")
    assert play.frames(agent_frames.CommandRejected)[0].reason == "too_many_unacknowledged"


def test_time_that_ran_out_while_the_journal_was_written_rejects() -> None:
    play = Play()
    play.session.step(Received(agent_frames.CommandFrame("pull", "c1", 1, 1.0)), play.now)
    play.now = Now(1001.5, 50_001.5)
    play.step(Recorded("c1", None))
    assert play.frames(agent_frames.CommandRejected)[0].reason == "expired"
    assert play.journal["c1"].state is JournalState.REJECTED
    assert play.did(Launch) == []


@pytest.mark.parametrize("stage", ["admitting", "accepted", "running", "finished", "settled"])
def test_duplicate_is_answered_and_never_launched_again(stage: str) -> None:
    play = Play()
    if stage == "admitting":
        play.session.step(Received(agent_frames.CommandFrame("pull", "c1", 1, 60.0)), play.now)
        play.forget()
        play.command()
        assert play.effects == []  # the answer is under way
        return
    play.command()
    if stage in ("running", "finished", "settled"):
        play.running()
    if stage in ("finished", "settled"):
        play.ended()
    if stage == "settled":
        play.ack()
    play.forget()
    play.command()
    assert [frame.state for frame in play.frames(agent_frames.CommandAck)] == ["duplicate"]
    assert play.did(Launch) == []
    assert len(play.frames(agent_frames.StatusFrame)) == (1 if stage in ("finished", "settled") else 0)


def test_duplicate_of_a_rejected_id_is_never_accepted_even_when_idle() -> None:
    play = Play()
    play.command("c1")
    play.command("c2")
    play.ended("c1")
    play.forget()
    play.command("c2")
    assert [frame.reason for frame in play.frames(agent_frames.CommandRejected)] == ["busy"]
    assert play.did(Launch) == []


def test_output_is_numbered_and_the_report_follows_when_the_hub_has_all_of_it() -> None:
    play = Play()
    play.command()
    play.step(Observed("c1", FolderVerdict.RUNNING, 7, 0, text("a", "b")))
    play.step(Observed("c1", FolderVerdict.ENDED, 7, 2, text("c"), OK, 4))
    assert play.frames(agent_frames.StatusFrame) == []
    assert [look.first for look in play.session.looks()] == [3]
    play.step(Observed("c1", FolderVerdict.ENDED, 7, 3, text("d"), OK, 4))
    assert [(frame.offset, frame.line) for frame in play.frames(agent_frames.Output)] == [
        (0, "a"),
        (1, "b"),
        (2, "c"),
        (3, "d"),
    ]
    play.ack(offset=3)
    assert play.frames(agent_frames.StatusFrame) == [], (
        "the last record may be lost with the hub's queues, and the report come through"
    )
    play.ack(offset=4)
    assert play.frames(agent_frames.StatusFrame) == [agent_frames.StatusFrame("ok", "c1", "pull", 0)]
    kinds = [type(effect.frame) for effect in play.did(Send)]
    assert kinds.index(agent_frames.StatusFrame) > max(
        index for index, kind in enumerate(kinds) if kind is agent_frames.Output
    )
    assert play.session.looks() == []


def test_look_that_was_overtaken_sends_nothing() -> None:
    play = Play()
    play.command()
    play.step(Observed("c1", FolderVerdict.RUNNING, 7, 0, text("a", "b")))
    play.step(Observed("c1", FolderVerdict.RUNNING, 7, 0, text("a", "b")))
    assert [frame.offset for frame in play.frames(agent_frames.Output)] == [0, 1]


def test_reconnect_resumes_output_from_what_was_acknowledged_and_reports_again() -> None:
    play = Play()
    play.command()
    play.ended(total=3, records=text("a", "b", "c"))
    play.ack(offset=1)
    assert play.frames(agent_frames.StatusFrame) == []
    play.step(Disconnected())
    play.forget()
    play.connect()
    register = play.frames(agent_frames.Register)[0]
    assert register.known == [agent_frames.Known("c1", "finished")]
    assert [look.first for look in play.session.looks()] == [1]
    play.step(Observed("c1", FolderVerdict.ENDED, 7, 1, text("b", "c"), OK, 3))
    assert [frame.offset for frame in play.frames(agent_frames.Output)] == [1, 2]
    play.ack(offset=3)
    assert len(play.frames(agent_frames.StatusFrame)) == 1


def test_nothing_but_register_is_sent_before_registered() -> None:
    play = Play(row(), connected=False)
    play.step(Connected(1))
    play.ended(total=1)
    play.tick(100.0)
    assert [type(effect.frame) for effect in play.did(Send)] == [agent_frames.Register]
    assert [look.room_bytes for look in play.session.looks()] == []
    play.step(Received(agent_frames.Registered("h", 1, 5.0)))
    play.step(Observed("c1", FolderVerdict.ENDED, 7, 0, text("a"), OK, 1))
    play.ack(offset=1)
    assert [type(frame.frame) for frame in play.did(Send)] == [
        agent_frames.Register,
        agent_frames.Output,
        agent_frames.StatusFrame,
    ]


def test_nothing_is_sent_without_a_connection() -> None:
    play = Play(connected=False)
    play.command()
    play.ended(total=1, records=text("a"))
    play.tick(100.0)
    assert play.did(Send) == []
    assert play.did(Launch) == [Launch("c1", "pull")]


def test_report_is_sent_again_every_5_s_until_acknowledged_then_settled_and_cleared() -> None:
    play = Play()
    play.command()
    play.ended()
    for later_s, reports in ((4.9, 1), (0.2, 2), (4.9, 2), (0.2, 3)):
        play.tick(later_s)
        assert len(play.frames(agent_frames.StatusFrame)) == reports
    play.ack()
    play.tick(100.0)
    assert len(play.frames(agent_frames.StatusFrame)) == 3
    assert play.did(SettleRow) == [
        SettleRow(msgspec.structs.replace(play.journal["c1"], state=JournalState.SETTLED, ended=OK), forget=True)
    ]
    assert play.session.unacknowledged == 0


def test_output_not_acknowledged_is_sent_again_with_growing_pauses() -> None:
    play = Play()
    play.command()
    play.step(Observed("c1", FolderVerdict.RUNNING, 7, 0, text("a")))
    rewinds = []
    for second in range(70):
        play.tick(1.0)
        if play.session.looks()[0].first == 0:
            rewinds.append(second)
            play.step(Observed("c1", FolderVerdict.RUNNING, 7, 0, text("a")))
    assert rewinds == [4, 14, 34]


def test_window_is_bounded_and_opens_with_acks() -> None:
    play = Play()
    play.command()
    line = "x" * (WINDOW_BYTES_MAX // 4)
    for first in range(4):
        play.step(Observed("c1", FolderVerdict.RUNNING, 7, first, text(line)))
    assert play.session.looks()[0].room_bytes == 0
    play.ack(offset=2)
    assert play.session.looks()[0].room_bytes == WINDOW_BYTES_MAX - 2 * (len(line) + RECORD_BYTES)
    play.ack(offset=1)  # an older one, come late
    assert play.session.looks()[0].first == 4


def test_ack_beyond_what_was_sent_skips_what_the_hub_has() -> None:
    play = Play(row())
    play.running()
    play.ack(offset=10)
    assert play.session.looks()[0].first == 10
    play.step(Observed("c1", FolderVerdict.RUNNING, 7, 10, text("k")))
    assert play.frames(agent_frames.Output)[0].offset == 10


def test_ack_of_a_running_command_does_not_forget_it() -> None:
    play = Play()
    play.command()
    play.running()
    play.ack()
    assert play.session.unacknowledged == 1


def test_kill_of_a_running_command_is_passed_on_and_of_an_ended_one_is_not() -> None:
    play = Play()
    play.command()
    play.running()
    play.kill(signal="SIGKILL")
    play.kill(signal="rm -rf")
    assert play.did(Kill) == [Kill("c1", "SIGKILL"), Kill("c1", "SIGTERM")]
    play.forget()
    play.ended()
    play.kill()
    assert play.did(Kill) == []


def test_kill_without_an_id_means_the_running_one_or_that_pid() -> None:
    play = Play()
    play.command("c1")
    play.running("c1", 7)
    play.command("c2", "look")
    play.running("c2", 8)
    play.kill("", pid=8)
    play.kill("", pid=0)
    play.kill("", pid=9)
    assert [kill.command_id for kill in play.did(Kill)] == ["c2", "c1"]


@pytest.mark.parametrize("row_written", ["its admission", "its launch"])
def test_kill_while_a_row_is_being_written_ends_it_without_a_launch(row_written: str) -> None:
    play = Play()
    play.session.step(Received(agent_frames.CommandFrame("pull", "c1", 1, 60.0)), play.now)
    if row_written == "its launch":
        _, launch = play.session.step(Recorded("c1", None), play.now)
        play.kill()
        assert isinstance(launch, RecordLaunch)
        play.step(Updated(launch.row))
    else:
        play.kill()
        play.step(Recorded("c1", None))
    assert (play.did(Kill), play.did(Launch)) == ([], [])
    assert [frame.status for frame in play.frames(agent_frames.StatusFrame)] == [CANCELLED]
    assert play.journal["c1"].ended is not None


def test_kill_of_an_unknown_id_is_journalled_reported_and_outlasts_the_agent() -> None:
    play = Play()
    play.kill("c9")
    assert play.journal["c9"].state is JournalState.CANCELLED
    assert [frame.status for frame in play.frames(agent_frames.StatusFrame)] == [CANCELLED]
    after = Play(*play.journal.values())
    assert [frame.status for frame in after.frames(agent_frames.StatusFrame)] == [CANCELLED]
    after.forget()
    after.command("c9")
    assert [type(effect.frame) for effect in after.did(Send)] == [agent_frames.CommandAck, agent_frames.StatusFrame]
    assert after.did(Launch) == []
    after.ack("c9")
    after.forget()
    after.command("c9")
    assert [frame.status for frame in after.frames(agent_frames.StatusFrame)] == [CANCELLED]
    assert after.did(Launch) == []


def test_kill_of_a_settled_id_repeats_its_report_and_changes_nothing() -> None:
    play = Play()
    play.command()
    play.ended()
    play.ack()
    play.forget()
    play.kill()
    assert [frame.status for frame in play.frames(agent_frames.StatusFrame)] == ["ok"]
    assert play.journal["c1"].state is JournalState.SETTLED


def test_kill_that_cannot_be_journalled_promises_nothing() -> None:
    play = Play()
    play.journal_works = False
    play.kill("c9")
    assert play.frames(agent_frames.StatusFrame) == []
    assert play.session.unacknowledged == 0


def test_restart_launches_what_was_not_started_and_nothing_else() -> None:
    play = Play(row(command_id="c1"), row(command_id="c2"), row(command_id="c3"))
    assert play.frames(agent_frames.Register)[0].known == [
        agent_frames.Known("c1", "accepted"),
        agent_frames.Known("c2", "accepted"),
        agent_frames.Known("c3", "accepted"),
    ]
    play.step(Observed("c1", FolderVerdict.UNSTARTED))
    play.running("c2")
    play.ended("c3")
    assert play.did(Launch) == [Launch("c1", "pull")]


@pytest.mark.parametrize(
    ("ttl_s", "boot_id", "launched"),
    [(11.0, "boot", True), (9.0, "boot", False), (None, "boot", True), (11.0, "before", True), (9.0, "before", False)],
)
def test_restart_starts_only_what_still_has_time(ttl_s: float | None, boot_id: str, launched: bool) -> None:
    play = Play(row(ttl_s=ttl_s, boot_id=boot_id))
    play.step(Observed("c1", FolderVerdict.UNSTARTED))
    assert bool(play.did(Launch)) is launched
    assert [frame.status for frame in play.frames(agent_frames.StatusFrame)] == ([] if launched else ["error"])


def test_restart_does_not_start_what_is_no_longer_offered() -> None:
    play = Play(row(op="gone"), row(JournalState.ADMITTED, "c2", op="gone"))
    play.step(Observed("c1", FolderVerdict.UNSTARTED))
    play.tick()
    assert play.did(Launch) == []
    assert "no longer offered" in play.frames(agent_frames.StatusFrame)[0].message


def test_shim_that_cannot_be_started_is_tried_a_few_times_then_reported() -> None:
    play = Play()
    play.command()
    for _ in range(40):
        play.step(Observed("c1", FolderVerdict.UNSTARTED, said="no such file: /proc/self/stat"))
        play.tick(0.5)
    assert len(play.did(Launch)) == LAUNCHES_MAX
    assert (
        "could not be started (no such file: /proc/self/stat): not run"
        in play.frames(agent_frames.StatusFrame)[0].message
    )


def test_an_end_without_a_run_that_a_removed_journal_never_takes_keeps_no_agent_from_beginning_anew() -> None:
    play = Play()
    play.command()
    assert not play.session.may_forget
    play.journal_works = False
    for _ in range(40):
        play.step(Observed("c1", FolderVerdict.UNSTARTED))
        play.tick(0.5)
    assert (play.frames(agent_frames.StatusFrame), play.session.may_forget) == ([], True)
    play.journal_works = True
    play.tick(120.0)
    assert [frame.status for frame in play.frames(agent_frames.StatusFrame)] == ["error"]
    assert not play.session.may_forget, "its end is durable, and to be told"


def test_heartbeats_come_at_once_and_then_each_interval_and_name_what_runs() -> None:
    play = Play()
    play.tick()
    assert len(play.frames(agent_frames.Heartbeat)) == 1
    for _ in range(100):
        play.tick(0.1)
    assert len(play.frames(agent_frames.Heartbeat)) == 3
    play.command()
    play.running(pid=42)
    play.tick(5.0)
    beat = play.frames(agent_frames.Heartbeat)[-1]
    assert (beat.pending_command, beat.command_pid, beat.metrics) == ("pull", 42, agent_frames.Metrics(cpu=1.0))
    play.step(Disconnected())
    play.forget()
    play.tick(100.0)
    assert play.did(Send) == []


def test_long_pause_of_the_agent_gives_one_heartbeat_and_not_a_burst() -> None:
    play = Play()
    play.tick()
    play.tick(1000.0)
    for _ in range(10):
        play.tick(0.01)
    assert len(play.frames(agent_frames.Heartbeat)) == 3  # the first, the overdue one, and the one due right after it


@pytest.mark.parametrize(("told_s", "count"), [(20.0, 4), (1.0, 61), (0.0, 601), (-5.0, 601), (1e300, 1)], ids=str)
def test_an_agent_sends_heartbeats_as_often_as_the_hub_says(told_s: float, count: int) -> None:
    """And not at once when it is told another interval: ten thousand that are told so would all answer."""
    play = Play()
    play.tick()
    play.step(Received(agent_frames.Registered("h", 1, told_s)))
    assert len(play.frames(agent_frames.Heartbeat)) == 1
    for _ in range(6000):
        play.tick(0.01)
    assert abs(len(play.frames(agent_frames.Heartbeat)) - count) <= 1
    play.step(Disconnected())
    play.forget()
    play.step(Connected(2))
    play.step(Received(agent_frames.Registered("h", 1, 5.0)))
    play.tick(0.01)
    assert len(play.frames(agent_frames.Heartbeat)) == 1, "the first of a connection is answered at once"


ids = st.sampled_from(["c1", "c2", "c3"])
moves = st.one_of(
    st.tuples(st.just("command"), ids, st.sampled_from(["pull", "look", "rm"]), st.sampled_from([None, 0.0, 5.0])),
    st.tuples(st.just("kill"), ids),
    st.tuples(st.just("ack"), ids, st.sampled_from([None, 0, 1, 2, 9])),
    st.tuples(st.just("look"), ids, st.booleans()),
    st.tuples(st.just("tick"), st.sampled_from([0.1, 3.0, 11.0])),
    st.tuples(st.just("disconnect")),
    st.tuples(st.just("connect")),
    st.tuples(st.just("restart")),
    st.tuples(st.just("journal"), st.booleans()),
)


@settings(max_examples=300)
@given(st.lists(moves, max_size=60))
def test_no_sequence_of_events_runs_an_id_twice_or_loses_a_report(program: list[tuple[Any, ...]]) -> None:
    """Would catch: a redelivery launched again, a rejected or cancelled id run later, a report before its output."""
    play = Play()
    started: dict[str, bool] = {}  # by id: has ended. What the shims did; outlives the agent
    asked: set[str] = set()
    barred: set[str] = set()  # ids of which `rejected` or `cancelled` was said without a run

    def carry_out() -> None:
        for effect in play.effects:
            if isinstance(effect, Launch):
                assert effect.command_id not in barred, f"{effect.command_id} was run after it was refused"
                asked.add(effect.command_id)
            elif isinstance(effect, Send) and isinstance(effect.frame, agent_frames.CommandRejected):
                barred.add(str(effect.frame.command_id))
                assert effect.frame.command_id not in started
            elif isinstance(effect, Send) and isinstance(effect.frame, agent_frames.StatusFrame):
                command_id = str(effect.frame.command_id)
                if command_id not in started:
                    barred.add(command_id)
                else:
                    assert started[command_id], "reported before its end"
        play.forget()

    for move in program:
        match move:
            case ("command", command_id, op, ttl_s):
                play.command(command_id, op, ttl_s)
            case ("kill", command_id):
                play.kill(command_id)
            case ("ack", command_id, offset):
                play.ack(command_id, offset)
            case ("look", command_id, ends):
                wanted = [look for look in play.session.looks() if look.command_id == command_id]
                if wanted:
                    first = wanted[0].first
                    records = text(*["line"] * max(0, 2 - first)) if wanted[0].room_bytes else ()
                    if command_id in asked and command_id not in started:
                        started[command_id] = False
                    if command_id not in started:
                        play.step(Observed(command_id, FolderVerdict.UNSTARTED))
                    elif ends or started[command_id]:
                        started[command_id] = True
                        play.ended(command_id, 2, OK, first, records)
                    else:
                        play.step(Observed(command_id, FolderVerdict.RUNNING, 7, first, records))
            case ("tick", later_s):
                play.tick(later_s)
            case ("disconnect",):
                play.step(Disconnected())
            case ("connect",):
                play.step(Disconnected())
                play.connect()
            case ("restart",):
                carry_out()
                refused = {key for key, _ in play.session._unjournalled.items()}
                unsettled = [
                    entry
                    for entry in play.journal.values()
                    if entry.state in (JournalState.ADMITTED, JournalState.LAUNCHED, JournalState.CANCELLED)
                ]
                barred -= refused  # known only to the process that is gone: the journal could not be written
                now, journal, works = play.now, play.journal, play.journal_works
                asked &= set(started)
                play = Play(*unsettled)
                play.now, play.journal, play.journal_works = now, journal, works
            case ("journal", works):
                play.journal_works = works
        carry_out()
        if not play.session.registered:
            continue
        ended_and_known = [
            entry
            for entry in play.journal.values()
            if entry.state is JournalState.LAUNCHED and started.get(entry.command_id)
        ]
        assert all(entry.command_id in play.session._open for entry in ended_and_known), "a run that nobody will report"


def test_what_goes_in_and_comes_out_is_told_apart_by_its_kind() -> None:
    """The bug it would catch: a test that compares effects takes a kill for a launch."""
    given = [
        Connected(1),
        Ticked(None),
        Disconnected(),
        Launch("c1", "pull"),
        Kill("c1", "pull"),
        RecordFailed("c1", "pull"),
    ]
    assert [[one == other for other in given] for one in given] == [[one is other for other in given] for one in given]
    assert Launch("c1", "pull") == Launch("c1", "pull")


def test_an_agent_that_is_asked_for_a_new_token_makes_it_first_and_says_its_hash_on_the_connection_of_now() -> None:
    agent, now = Agent(IDENTITY), Now(1.0, 1e9)
    agent.step(Connected(1), now)
    assert agent.step(Received(agent_frames.RotateOwnToken()), now) == [MakeNextToken()]
    agent.step(Disconnected(), now)
    assert agent.step(NextTokenMade("ab" * 32), now) == [], "the hub asks again on the next connection"
    agent.step(Connected(2), now)
    assert agent.step(NextTokenMade("ab" * 32), now) == [Send(2, agent_frames.NewToken("ab" * 32))]
