"""Commands that reboot their hosts, as the hub sees them: alone, lost when the host is not back, and never guessed."""

from __future__ import annotations

import msgspec
import pytest
from doubles.fleet_play import Play, sent

from processes.core.hub.rules import Rules
from processes.core.records.command import State
from processes.core.travels.agent_frames import CommandOptions, Register

BACK_S = 600.0
OPTIONS = {"reboot": CommandOptions(60.0, back_s=BACK_S), "look": CommandOptions(60.0, concurrent=True)}
OFFERED = ["reboot", "pull", "look"]


def connect(play: Play, connection: str, boot_id: str = "boot-1", **fields: object) -> list[str]:
    """The host registers; returns what it is sent."""
    play.at_s += 0.1
    more = {"commands": OFFERED, "command_options": OPTIONS, **fields}
    return sent(play.connect("h", connection, boot_id=boot_id, **more))


@pytest.fixture
def play() -> Play:
    """A hub with one host, which can be rebooted."""
    play = Play()
    play.enroll("h")
    connect(play, "c1")
    return play


def begun(play: Play) -> str:
    (command_id,) = play.give("reboot", "h")
    play.ack("h", "c1", command_id)
    return command_id


def test_a_reboot_is_succeeded_when_its_agent_says_so_from_the_next_boot(play: Play) -> None:
    command_id = begun(play)
    play.disconnect("h", "c1")
    play.wait(200.0)
    assert play.state(command_id) is State.RUNNING
    connect(play, "c2", "boot-2", known=[command_id])
    assert play.state(command_id) is State.RUNNING, "the journal decides, and its word is under way"
    play.report("h", "c2", command_id)
    assert play.state(command_id) is State.SUCCEEDED


@pytest.mark.parametrize("acknowledged", [True, False])
@pytest.mark.parametrize("hub_restarts", [True, False])
def test_a_host_that_is_not_back_in_time_leaves_its_reboot_lost(
    play: Play, acknowledged: bool, hub_restarts: bool
) -> None:
    (command_id,) = play.give("reboot", "h")
    if acknowledged:
        play.ack("h", "c1", command_id)
    play.wait(50.0)
    play.beat("h", "c1")
    play.disconnect("h", "c1")
    play.wait(BACK_S - 10)
    if hub_restarts:
        play.restart()
        play.wait(6.0)
        play.wait(3.0)
    assert play.command(command_id).open
    play.wait(11.0)
    command = play.command(command_id)
    assert (command.state, command.reason) == (State.LOST, "not_back")
    assert command.message.startswith("the host was told to reboot, and has not come back for 6")


def test_a_reboot_that_was_lost_is_ended_by_the_late_word_of_its_agent(play: Play) -> None:
    command_id = begun(play)
    play.disconnect("h", "c1")
    play.wait(BACK_S + 1)
    play.wait(1.0)
    assert play.state(command_id) is State.LOST
    connect(play, "c2", "boot-2", known=[command_id])
    play.report("h", "c2", command_id)
    assert play.state(command_id) is State.SUCCEEDED


def test_any_other_command_is_waited_for_as_long_as_before(play: Play) -> None:
    (command_id,) = play.give("pull", "h")
    play.ack("h", "c1", command_id)
    play.disconnect("h", "c1")
    play.wait(BACK_S * 10)
    assert play.state(command_id) is State.RUNNING


def test_a_hub_that_gives_up_sooner_does_so_for_a_reboot_too() -> None:
    play = Play(rules=Rules(lost_after_s=60.0))
    play.enroll("h")
    connect(play, "c1")
    command_id = begun(play)
    play.disconnect("h", "c1")
    play.wait(61.0)
    play.wait(1.0)
    assert play.command(command_id).reason == "not_back"


@pytest.mark.parametrize(
    ("boot_id", "journal_id", "state", "reason"),
    [
        ("boot-2", "another", State.LOST, "booted_anew"),  # a copy of the machine looks the same
        ("boot-1", "another", State.LOST, "forgotten"),  # nobody booted: somebody removed the journal
        ("", "another", State.LOST, "forgotten"),
        ("boot-2", "journal", State.LOST, "forgotten"),  # that journal knew it: this hub has an older database
    ],
)
def test_a_reboot_without_the_word_of_its_journal_is_never_taken_for_done(
    play: Play, boot_id: str, journal_id: str, state: State, reason: str
) -> None:
    command_id = begun(play)
    play.disconnect("h", "c1")
    connect(play, "c2", boot_id, journal_id=journal_id)
    assert (play.state(command_id), play.command(command_id).reason) == (state, reason)


def test_a_reboot_that_nobody_acknowledged_is_not_guessed_to_have_happened(play: Play) -> None:
    (command_id,) = play.give("reboot", "h")
    play.disconnect("h", "c1")
    connect(play, "c2", "boot-2", journal_id="another")
    assert (play.state(command_id), play.command(command_id).reason) == (State.LOST, "journal_replaced")


def test_other_commands_of_a_machine_that_booted_anew_without_its_journal_stay_unknown(play: Play) -> None:
    (command_id,) = play.give("pull", "h")
    play.ack("h", "c1", command_id)
    play.disconnect("h", "c1")
    connect(play, "c2", "boot-2", journal_id="another")
    assert play.command(command_id).reason == "forgotten"


def test_a_reboot_waits_for_all_that_runs_and_nothing_begins_before_it_is_over(play: Play) -> None:
    """Else the machine would go down below a command, of which then nobody knows whether it ended."""
    (look,) = play.give("look", "h")
    (first,) = play.give("reboot", "h")
    (beside,) = play.give("look", "h")
    states = [play.state(command_id) for command_id in (look, first, beside)]
    assert states == [State.SENT, State.QUEUED, State.QUEUED]
    play.report("h", "c1", look)
    states = [play.state(command_id) for command_id in (first, beside)]
    assert states == [State.SENT, State.QUEUED]
    play.ack("h", "c1", first)
    play.disconnect("h", "c1")
    connect(play, "c2", "boot-2", known=[first])
    assert play.state(beside) is State.QUEUED
    play.report("h", "c2", first)
    assert play.state(beside) is State.SENT


def test_a_hub_of_the_version_before_reads_what_an_agent_says_of_its_reboot() -> None:
    """It takes the new word for none of its own, and the host is not refused for it."""

    class OptionsBefore(msgspec.Struct, frozen=True, omit_defaults=True):
        timeout_s: float | None = None
        concurrent: bool = False

    told = msgspec.json.encode(Register("h", commands=OFFERED, command_options=OPTIONS))
    options = msgspec.json.decode(told, type=dict[str, msgspec.Raw])["command_options"]
    read = msgspec.json.decode(options, type=dict[str, OptionsBefore])
    assert read["reboot"] == OptionsBefore(60.0)


def test_an_agent_of_the_version_before_has_a_reboot_of_its_own_judged_as_before(play: Play) -> None:
    """Its file lists it as any op, so it is not known to be a reboot."""
    connect(play, "c2", command_options={"reboot": CommandOptions(60.0)})
    (command_id,) = play.give("reboot", "h")
    play.ack("h", "c2", command_id)
    play.disconnect("h", "c2")
    play.wait(BACK_S + 1)
    play.wait(1.0)
    assert play.state(command_id) is State.RUNNING


def test_a_foreign_host_cannot_say_that_it_reboots(play: Play) -> None:
    play.enroll("nix")
    play.connect("nix", "n1", protocol=0, command_options=OPTIONS)
    assert play.memory.hosts["nix"].back_s("reboot") is None
