"""The successor's look at its predecessor's end, with what a dead process, supervisord and the watchdog leave
behind.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import msgspec
import pytest

from processes.adapters import clock, settings
from processes.adapters.settings import Settings
from processes.adapters.state import asked_to_end, deaths
from processes.adapters.state.deaths import Poison
from processes.adapters.state.pulse_file import PulseFile
from processes.core.records import poison as core_poison
from processes.core.records.poison import Note
from processes.core.travels.pulse import Pulse

EVENT = "RequestReceived 0123456789abcdef"


@pytest.fixture
def found(tmp_path: Path) -> Settings:
    for folder in ("run/stacks", "log"):
        (tmp_path / folder).mkdir(parents=True)
    return settings.load({"FLEETHUB_STATE": str(tmp_path)})


class Dying:
    """Processes under one name that each end with an event in hand. Their pids are made up: nobody looks for them."""

    def __init__(self, found: Settings, name: str = "hub") -> None:
        self.settings, self.name, self.pid = found, name, 100
        self.pulse = Pulse()

    def dies(self, words: str = "", *, in_hand: str = EVENT, stacks: str = "", cause: str = "") -> Poison:
        """One more process starts, takes the event, ends; its successor looks."""
        self.pid += 1
        with (self.settings.log / "supervisord.log").open("a") as log:
            log.write(f"2026 INFO spawned: 'hub' with pid {self.pid}\n")
        file = PulseFile(self.settings.pulses, self.name)
        file.pulse.pid, file.pulse.start_ticks = self.pid, self.pid * 10
        file.refuse(0, 0)  # no turn: who it is becomes visible
        file.take(in_hand)
        self.pulse = msgspec.structs.replace(file.pulse)
        file.close()
        (self.settings.run / "stacks" / f"{self.name}.stacks").write_text(stacks)
        if cause:
            deaths.write_note(self.settings, self.name, self.note(cause))
        if words:
            with (self.settings.log / "supervisord.log").open("a") as log:
                log.write(f"2026 WARN exited: hub ({words}; not expected)\n")
        return self.looked()

    def note(self, cause: str, incident: str = "i1") -> Note:
        pulse = self.pulse
        return Note(clock.boot_id(), pulse.pid, pulse.start_ticks, cause, pulse.in_hand, pulse.in_hand_ns, incident)

    def looked(self) -> Poison:
        return deaths.examine(self.settings, self.name)


def test_two_exits_with_the_same_event_in_hand_and_the_third_start_leaves_it_out_with_both_stacks(
    found: Settings,
) -> None:
    dying = Dying(found)
    assert dying.dies("exit status 1", stacks="first stack").events == {}
    poison = dying.dies("exit status 70", stacks="second stack")
    (deaths,) = poison.events.values()
    assert [(death.cause, death.stacks) for death in deaths] == [("exited", "first stack"), ("exited", "second stack")]
    assert list(poison.events) == [EVENT]


def test_deaths_at_different_events_of_one_host_are_kept_together_for_later_starts(found: Settings) -> None:
    dying = Dying(found)
    dying.dies("exit status 1", in_hand=core_poison.in_hand("HeartbeatReceived 1", "web1"), stacks="first stack")
    dying.dies("exit status 1", in_hand=core_poison.in_hand("HeartbeatReceived 2", "web2"))
    poison = dying.dies("exit status 1", in_hand=core_poison.in_hand("HeartbeatReceived 3", "web1"), stacks="second")
    assert poison.events == {}
    of_web1 = dying.looked().hosts[core_poison.mark_of_host("web1")]
    assert [death.name for death in of_web1] == ["HeartbeatReceived 1", "HeartbeatReceived 3"]
    assert [death.stacks for death in of_web1] == ["first stack", "second"]


def test_sigkills_from_outside_count_nothing_however_many(found: Settings) -> None:
    dying = Dying(found)
    for _ in range(9):
        assert dying.dies("terminated by SIGKILL").events == {}
    assert dying.dies("").events == {}, "nor does an end of which nobody says anything: supervisord died too"


def test_the_watchdogs_notes_count_though_it_died_before_its_kill_and_once_a_process(found: Settings) -> None:
    """Noted, the watchdog dies, its successor notes and kills; and a successor of the hub that dies while it looks
    looks again.
    """
    dying = Dying(found)
    dying.dies("terminated by SIGKILL", cause="frozen")
    deaths.write_note(found, "hub", dying.note("frozen", "another incident"))
    for _ in range(3):
        assert dying.looked().events == {}
    assert list(dying.dies("terminated by SIGKILL", cause="memory").events) == [EVENT]


def test_a_note_about_what_went_on_counts_nothing(found: Settings) -> None:
    dying = Dying(found)
    dying.dies("terminated by SIGKILL", cause="frozen")
    old = dying.note("frozen")
    for _ in range(3):
        dying.dies("")
        deaths.write_note(found, "hub", old)
        assert dying.looked().events == {}


def test_a_crash_is_told_by_its_stacks_alone(found: Settings) -> None:
    """supervisord's log may be on a full disk."""
    dying = Dying(found)
    dying.dies(stacks="Fatal Python error: Segmentation fault\n\nCurrent thread")
    assert list(dying.dies(stacks="Fatal Python error: Aborted").events) == [EVENT]


def test_a_process_that_was_asked_to_end_or_had_nothing_in_hand_is_not_counted(found: Settings) -> None:
    dying = Dying(found)
    for _ in range(3):
        assert dying.dies("exit status 70", in_hand="").events == {}
    for pid in range(dying.pid + 1, dying.pid + 4):
        (found.run / "farewell").mkdir(exist_ok=True)
        (found.run / "farewell" / "hub").write_text(str(pid))
        assert asked_to_end.said(found.run, "hub", pid)
        assert dying.dies("exit status 70").events == {}


def test_stacks_that_the_process_did_not_leave_come_from_the_incidents_evidence(found: Settings) -> None:
    dying = Dying(found)
    (found.evidence / "i1").mkdir(parents=True)
    (found.evidence / "i1" / "pyspy.txt").write_text("py-spy saw it")
    dying.dies("terminated by SIGKILL", cause="frozen")
    (deaths,) = dying.dies("exit status 1").events.values()
    assert [death.incident for death in deaths] == ["i1", ""]
    assert deaths[0].stacks == "py-spy saw it"
    assert "exit status 1" in deaths[1].stacks


def test_forgiven_is_forgiven_for_the_successors_too(found: Settings) -> None:
    dying = Dying(found)
    dying.dies("exit status 1")
    poison = dying.dies("exit status 1")
    poison.forgive(EVENT)
    assert poison.events == {}
    PulseFile(found.pulses, "hub").close()
    assert dying.looked().events == {}


def test_each_process_has_its_own_record(found: Settings) -> None:
    hub, fanout = Dying(found), Dying(found, "fanout:1")
    for dying in (hub, fanout):
        dying.dies("exit status 1")
    assert fanout.dies("exit status 1").events
    PulseFile(found.pulses, "hub").close()
    assert hub.looked().events == {}


@pytest.mark.parametrize("garbage", [b"", b"{", b"\xff" * 100, b'{"deaths": 3}'])
def test_garbage_in_record_note_pulse_or_log_keeps_nobody_from_starting(found: Settings, garbage: bytes) -> None:
    dying = Dying(found)
    dying.dies("exit status 1")
    for path in (found.run / "poison" / "hub.json", found.run / "poison" / "hub.note", found.log / "supervisord.log"):
        path.write_bytes(garbage)
    assert dying.looked().events == {}
    (found.pulses / "hub").write_bytes(garbage)
    assert dying.looked().events == {}


def test_a_record_that_cannot_be_written_still_counts_for_this_start(
    found: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    dying = Dying(found)
    dying.dies("exit status 1")
    monkeypatch.setattr(os, "fsync", full)
    assert list(dying.dies("exit status 1").events) == [EVENT]
    assert not list((found.run / "poison").glob(".*")), "nothing half written is left behind"
