"""The watchdog's word to systemd: every reason to give it, and to keep it back."""

from __future__ import annotations

import itertools

import pytest

from processes.core.shown.status import (
    CanaryReport,
    CommandsReport,
    FleetReport,
    IncidentsReport,
    Overall,
    ProcessReport,
    PulseReport,
    Report,
    Verdict,
)
from processes.core.watchdog import sd_notify
from processes.core.watchdog.sd_notify import (
    AWAY_S,
    MUTE_S,
    PING_S,
    UNWELL_S,
    WELL_S,
    InstallationState,
    Notification,
    NotifyState,
)

WELL = InstallationState(well=True, hub_well=True, blocked=False, remedies=0, supervisord_silent_s=0.0, status="ok")
UNWELL = WELL._replace(well=False, hub_well=False, status="down")


class Play:
    """Looks, one a second."""

    def __init__(self) -> None:
        self.state, self.now_s = NotifyState(), 0.0

    def look(self, seen: InstallationState, after_s: float = 1.0) -> Notification:
        self.now_s += after_s
        self.state, said = sd_notify.notify(self.state, seen, self.now_s)
        return said

    def looks(self, seen: InstallationState, seconds: float) -> list[Notification]:
        return [self.look(seen) for _ in range(int(seconds))]


def test_ready_is_said_once_when_all_is_well_for_the_first_time() -> None:
    play = Play()
    starting = WELL._replace(well=False)
    said = [play.look(seen).ready for seen in (starting, UNWELL, WELL, WELL, UNWELL, WELL)]
    assert said == [False, False, True, False, False, False]


def test_ping_comes_once_a_second_however_often_it_looks_and_before_it_is_ready_too() -> None:
    play = Play()
    assert sum(play.look(UNWELL, PING_S / 4).ping for _ in range(40)) == 10


def test_status_is_said_when_it_changes() -> None:
    play = Play()
    assert [play.look(seen).status for seen in (WELL, WELL, UNWELL, WELL)] == ["ok", None, "down", "ok"]


@pytest.mark.parametrize(("silent_s", "ping"), [(0.0, True), (MUTE_S - 0.1, True), (MUTE_S, False), (1e6, False)])
def test_mute_supervisord_is_not_answered_for(silent_s: float, ping: bool) -> None:
    said = Play().look(WELL._replace(supervisord_silent_s=silent_s))
    assert said.ping is ping
    assert bool(said.why_not) is not ping


def test_supervisord_that_answers_again_is_answered_for_at_once() -> None:
    play = Play()
    assert not play.look(WELL._replace(supervisord_silent_s=MUTE_S)).ping
    assert play.look(WELL).ping


@pytest.mark.parametrize(("long", "remedied", "blocked", "hub_well"), list(itertools.product([False, True], repeat=4)))
def test_hub_is_given_up_only_if_unwell_for_long_though_remedies_ran_and_storage_is_free(
    long: bool, remedied: bool, blocked: bool, hub_well: bool
) -> None:
    play = Play()
    seen = WELL if hub_well else UNWELL._replace(blocked=blocked)
    play.look(seen)
    seen = seen._replace(remedies=int(remedied))
    said = play.looks(seen, UNWELL_S if long else UNWELL_S - 1)[-1]
    assert said.ping is not (long and remedied and not blocked and not hub_well)


def test_remedies_that_ran_before_the_hub_was_unwell_do_not_count() -> None:
    play = Play()
    play.look(WELL._replace(remedies=7))
    assert all(said.ping for said in play.looks(UNWELL._replace(remedies=7), UNWELL_S + 60))


def test_hub_that_advances_now_and_then_is_unwell_all_the_time() -> None:
    play, remedies, last = Play(), 0, True
    while play.now_s < UNWELL_S + 60:
        remedies += 1
        last = play.looks(UNWELL._replace(remedies=remedies), 2)[-1].ping
        play.looks(WELL._replace(remedies=remedies), WELL_S - 1)
    assert not last


def test_hub_that_is_well_long_enough_begins_anew() -> None:
    play = Play()
    play.looks(UNWELL, 1)
    play.looks(UNWELL._replace(remedies=1), UNWELL_S - 60)
    play.looks(WELL._replace(remedies=1), WELL_S + 1)
    assert all(said.ping for said in play.looks(UNWELL._replace(remedies=2), UNWELL_S - 1))


def test_hub_given_up_that_comes_back_is_answered_for_again() -> None:
    play = Play()
    play.looks(UNWELL, 1)
    assert not play.looks(UNWELL._replace(remedies=1), UNWELL_S)[-1].ping
    assert play.looks(WELL._replace(remedies=1), WELL_S + 1)[-1].ping


def test_time_in_which_the_whole_was_suspended_is_not_counted() -> None:
    play = Play()
    play.looks(UNWELL, 1)
    play.looks(UNWELL._replace(remedies=1), 100)
    assert play.look(UNWELL._replace(remedies=1), max(AWAY_S, 2 * UNWELL_S)).ping
    assert all(said.ping for said in play.looks(UNWELL._replace(remedies=1), UNWELL_S - 110))
    assert not play.looks(UNWELL._replace(remedies=1), 20)[-1].ping


def report(
    verdict: Verdict,
    *,
    wanted: bool = True,
    canary: bool = True,
    blocked: str | None = None,
    silent_s: float | None = None,
) -> Report:
    hub = ProcessReport(
        "hub", "RUNNING", 1, 1.0, 0, None, verdict, pulse=PulseReport(blocked_on=blocked), wanted=wanted
    )
    return Report(
        Overall.OK,
        1,
        [hub],
        CanaryReport(ok=canary),
        FleetReport(9, 8),
        CommandsReport(),
        IncidentsReport(),
        supervisord_silent_s=silent_s,
    )


@pytest.mark.parametrize("verdict", list(Verdict))
def test_every_verdict_on_the_hub_is_well_or_not(verdict: Verdict) -> None:
    seen = sd_notify.seen(report(verdict), 3)
    assert seen.hub_well is (verdict in (Verdict.ADVANCING, Verdict.STANDBY, Verdict.LAGGING, Verdict.EXCUSED))
    assert seen.well is (verdict in (Verdict.ADVANCING, Verdict.STANDBY, Verdict.LAGGING))
    assert seen.remedies == 3


def test_red_canary_is_not_well_but_no_fault_of_the_hub() -> None:
    seen = sd_notify.seen(report(Verdict.ADVANCING, canary=False), 0)
    assert (seen.well, seen.hub_well) == (False, True)


def test_hub_that_an_operator_stopped_is_not_held_against_the_whole() -> None:
    assert sd_notify.seen(report(Verdict.STOPPED, wanted=False), 0).hub_well


def test_blocked_storage_and_a_mute_supervisord_are_seen() -> None:
    assert sd_notify.seen(report(Verdict.FROZEN, blocked="storage"), 0).blocked
    assert sd_notify.seen(report(Verdict.FROZEN, silent_s=31.0), 0).supervisord_silent_s == 31.0
    assert sd_notify.seen(report(Verdict.ADVANCING), 0).status == "ok; 8 of 9 hosts online"


def test_no_hub_in_the_report_is_unwell() -> None:
    nothing = Report(
        Overall.DOWN, 0, [], CanaryReport(), FleetReport(), CommandsReport(), IncidentsReport(), reasons=["no hub"]
    )
    assert sd_notify.seen(nothing, 0)[:2] == (False, False)
    assert sd_notify.seen(nothing, 0).status == "down: no hub; hosts not known yet"
