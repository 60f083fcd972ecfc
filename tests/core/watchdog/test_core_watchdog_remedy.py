"""Every branch of the remedy: whom to blame, what to do, how often."""

from __future__ import annotations

import pytest

from processes.core.shown.status import Verdict
from processes.core.travels.pulse import Pulse
from processes.core.watchdog.remedy import (
    BUDGET_KILLS,
    BUDGET_S,
    KILL_WAIT_S,
    REVIVE_S,
    STORAGE_S,
    YOUNG_S,
    Act,
    Decision,
    Past,
    blame,
    decide,
    differs_in_a_drill,
)
from processes.core.watchdog.verdict import STORAGE, Judgement, ProcessFacts

OLD = ProcessFacts(pid=7, start_ticks=70, age_s=600.0, pulse=Pulse())
WELL = Judgement(Verdict.ADVANCING)
FROZEN = Judgement(Verdict.FROZEN, "no turn")
STALLED = Judgement(Verdict.STALLED, "stuck")
HOUSE = ("queues", "hub", "gateway", "fanout", "agent")


def house(**judgements: Judgement) -> dict[str, Judgement]:
    return {name: judgements.get(name, WELL) for name in HOUSE}


def facts(**special: ProcessFacts) -> dict[str, ProcessFacts]:
    return {name: special.get(name, OLD) for name in HOUSE}


NO_PAST = Past()


def one(
    judgement: Judgement, seen: ProcessFacts = OLD, past: Past = NO_PAST, now_s: float = 1000.0, name: str = "hub"
) -> tuple[Past, Decision]:
    pasts, decisions = decide(house(**{name: judgement}), facts(**{name: seen}), {name: past}, now_s)
    assert all(decision.act is Act.NOTHING for other, decision in decisions.items() if other != name)
    return pasts[name], decisions[name]


@pytest.mark.parametrize(
    "verdict", sorted(set(Verdict) - {Verdict.FROZEN, Verdict.STALLED, Verdict.DEAF, Verdict.MEMORY})
)
def test_nothing_is_done_about_any_other_verdict(verdict: Verdict) -> None:
    assert one(Judgement(verdict))[1] == Decision()


@pytest.mark.parametrize("verdict", [Verdict.FROZEN, Verdict.DEAF, Verdict.MEMORY])
@pytest.mark.parametrize("name", HOUSE)
def test_frozen_deaf_or_swollen_is_killed_whoever_it_is(name: str, verdict: Verdict) -> None:
    past, decision = one(Judgement(verdict, "no turn"), name=name)
    assert decision.act is Act.KILL
    assert past.kills_s == (1000.0,)


def test_stalled_is_killed_when_all_before_it_are_well() -> None:
    assert one(STALLED)[1].act is Act.KILL
    assert one(STALLED, name="gateway")[1].act is Act.KILL


UNWELL = (
    Verdict.STARTING,
    Verdict.LAGGING,
    Verdict.STALLED,
    Verdict.FROZEN,
    Verdict.DEAD,
    Verdict.EXCUSED,
    Verdict.UNKILLABLE,
)


BEFORE = [("queues", "hub"), ("queues", "gateway"), ("queues", "fanout"), ("hub", "gateway"), ("hub", "fanout")]


@pytest.mark.parametrize("verdict", UNWELL)
@pytest.mark.parametrize(("first", "later"), BEFORE)
def test_stalled_behind_an_unwell_one_is_a_consequence(first: str, later: str, verdict: Verdict) -> None:
    _, decisions = decide(house(**{first: Judgement(verdict), later: STALLED}), facts(), {}, 1000.0)
    assert decisions[later].act is Act.NOTHING
    assert first in decisions[later].note


@pytest.mark.parametrize(("first", "later"), BEFORE)
def test_stalled_behind_a_young_one_is_a_consequence(first: str, later: str) -> None:
    young = facts(**{first: OLD._replace(age_s=YOUNG_S - 0.1)})
    _, decisions = decide(house(**{later: STALLED}), young, {}, 1000.0)
    assert decisions[later].act is Act.NOTHING
    grown = facts(**{first: OLD._replace(age_s=YOUNG_S)})
    assert decide(house(**{later: STALLED}), grown, {}, 1000.0)[1][later].act is Act.KILL


@pytest.mark.parametrize("name", ["gateway", "fanout"])
@pytest.mark.parametrize("verdict", UNWELL)
def test_deaf_is_never_a_consequence_for_accepting_waits_for_nobody(verdict: Verdict, name: str) -> None:
    """The bug it would catch: while the hub is away, nobody can connect any more, and nothing is done about it."""
    judged = house(queues=Judgement(verdict), hub=Judgement(verdict), **{name: Judgement(Verdict.DEAF, "deaf")})
    blocked = facts(hub=OLD._replace(pulse=Pulse(blocked_on="storage")))
    assert decide(judged, blocked, {}, 1000.0)[1][name].act is Act.KILL


def test_the_deaf_have_the_restart_budget_of_all() -> None:
    past, deaf = Past(), Judgement(Verdict.DEAF, "deaf")
    for kill in range(BUDGET_KILLS):
        past, decision = one(deaf, past=past, now_s=1000.0 + 5 * kill, name="gateway")
        assert decision.act is Act.KILL
    decision = one(deaf, past=past, now_s=1000.0 + 5 * BUDGET_KILLS, name="gateway")[1]
    assert (decision.act, decision.alarm) == (Act.NOTHING, True)


@pytest.mark.parametrize(("later", "first"), BEFORE)
def test_nobody_is_excused_by_one_behind_him(first: str, later: str) -> None:
    assert blame(later, house(**{first: FROZEN}), facts()) == ""


def test_gateway_and_fanout_do_not_excuse_each_other() -> None:
    assert blame("fanout", house(gateway=FROZEN), facts()) == ""
    assert blame("gateway", house(fanout=FROZEN), facts()) == ""


def test_who_is_not_wanted_excuses_nobody() -> None:
    stopped = facts(queues=ProcessFacts(wanted=False))
    assert decide(house(queues=Judgement(Verdict.STOPPED), hub=STALLED), stopped, {}, 1000.0)[1]["hub"].act is Act.KILL


def test_blocked_storage_is_blamed_first() -> None:
    blocked = facts(hub=OLD._replace(pulse=Pulse(blocked_on="storage")))
    for name in ("queues", "hub", "gateway", "fanout"):
        assert blame(name, house(), blocked) == "storage"


def test_a_database_call_that_hangs_is_remedied_once_a_minute() -> None:
    """Though storage is blamed for everything else that is stalled."""
    hanging, seen = Judgement(Verdict.STALLED, "hangs", 0.0, STORAGE), OLD._replace(pulse=Pulse(blocked_on="storage"))
    past, decision = one(hanging, seen)
    assert decision.act is Act.KILL
    assert one(STALLED, seen)[1].act is Act.NOTHING
    past, decision = one(hanging, seen, past, 1000.0 + STORAGE_S - 0.1)
    assert decision.act is Act.NOTHING
    assert "once a minute" in decision.note
    assert one(hanging, seen, past, 1000.0 + STORAGE_S)[1].act is Act.KILL


def test_two_faults_at_once_are_two_kills_and_a_consequence_is_none() -> None:
    _, decisions = decide(house(queues=FROZEN, hub=FROZEN, gateway=STALLED), facts(), {}, 1000.0)
    assert {name for name, decision in decisions.items() if decision.act is Act.KILL} == {"queues", "hub"}


def test_a_numbered_process_has_its_kinds_place() -> None:
    judgements = {"hub": FROZEN, "gateway:1": STALLED}
    _, decisions = decide(judgements, {"hub": OLD, "gateway:1": OLD}, {}, 1000.0)
    assert decisions["gateway:1"].act is Act.NOTHING


def test_what_nobody_wants_is_left_alone() -> None:
    assert one(FROZEN, OLD._replace(wanted=False))[1] == Decision()
    assert one(Judgement(Verdict.STOPPED), ProcessFacts(wanted=False, supervised="FATAL"))[1] == Decision()


def test_a_kill_within_startsecs_is_held_off_unless_stuck_for_long() -> None:
    assert one(FROZEN, OLD._replace(supervised="STARTING", age_s=0.9))[1].act is Act.NOTHING
    assert one(FROZEN, OLD._replace(supervised="STARTING", age_s=1.6))[1].act is Act.KILL, (
        "supervisord's word may be old by then"
    )


def test_a_kill_under_way_is_not_repeated_at_once() -> None:
    past, decision = one(FROZEN, OLD._replace(killed_s=1000.0 - KILL_WAIT_S + 0.1))
    assert decision.act is Act.NOTHING
    assert past.kills_s == ()
    assert one(FROZEN, OLD._replace(killed_s=1000.0 - KILL_WAIT_S))[1].act is Act.KILL


def killed_every(gap_s: float, until_s: float) -> tuple[list[float], list[float]]:
    """When a process that freezes again `gap_s` after each kill is killed, and when there was an alarm."""
    past, kills, alarms, now_s = Past(), list[float](), list[float](), 0.0
    while now_s < until_s:
        well = bool(kills) and now_s - kills[-1] < gap_s
        past, decision = one(WELL if well else FROZEN, past=past, now_s=now_s)
        if decision.act is Act.KILL:
            kills.append(now_s)
        if decision.alarm:
            alarms.append(now_s)
        now_s += 0.5
    return kills, alarms


def test_after_five_kills_in_a_minute_it_is_tried_once_a_minute() -> None:
    kills, alarms = killed_every(3.0, 300.0)
    assert kills[:5] == [0.0, 3.0, 6.0, 9.0, 12.0]
    assert alarms[0] == 15.0
    assert kills[5:] == [12.0 + BUDGET_S * n for n in (1, 2, 3, 4)]


def test_a_drills_kills_use_up_no_budget() -> None:
    past = Past()
    for number in range(4 * BUDGET_KILLS):
        at_s = 1000.0 + number * (KILL_WAIT_S + 0.1)
        pasts, decisions = decide(house(hub=FROZEN), facts(), {"hub": past}, at_s, drill=True)
        past = pasts["hub"]
        assert decisions["hub"] == Decision(Act.KILL)
    assert past.kills_s == ()
    spent = Past(kills_s=(990.0, 991.0, 992.0, 993.0, 994.0), alarmed=True)
    assert decide(house(hub=FROZEN), facts(), {"hub": spent}, 1000.0, drill=True)[1]["hub"].act is Act.KILL
    assert decide(house(hub=FROZEN), facts(), {"hub": spent}, 1000.0)[1]["hub"].act is Act.NOTHING


def test_rare_kills_are_within_the_budget() -> None:
    kills, alarms = killed_every(BUDGET_S / BUDGET_KILLS, 600.0)
    assert len(kills) > 20
    assert not alarms


def test_the_alarm_ends_after_a_minute_of_health() -> None:
    past = Past(kills_s=(900.0,), alarmed=True, well_s=1000.0)
    assert one(WELL, past=past, now_s=1000.0 + BUDGET_S - 1)[0].alarmed
    assert not one(WELL, past=past, now_s=1000.0 + BUDGET_S)[0].alarmed


@pytest.mark.parametrize("state", ["FATAL", "STOPPED", "EXITED"])
def test_what_supervisord_gave_up_is_started_with_backoff(state: str) -> None:
    """At 1, 2, 5, 10, 30 and again 30 s after the last try: always within a minute."""
    gone, past, starts, now_s = ProcessFacts(supervised=state), Past(), list[float](), 0.0
    while now_s < 120.0:
        past, decision = one(Judgement(Verdict.DEAD), gone, past, now_s)
        if decision.act is Act.START:
            starts.append(now_s)
        now_s += 0.5
    gaps = [later - earlier for earlier, later in zip([0.0, *starts], starts, strict=False)]
    assert gaps == [*REVIVE_S, REVIVE_S[-1], REVIVE_S[-1]]


@pytest.mark.parametrize("state", ["RUNNING", "STARTING", "BACKOFF", "STOPPING", ""])
def test_what_supervisord_still_has_in_hand_is_left_to_it(state: str) -> None:
    past = Past(given_up_s=0.0)
    assert one(Judgement(Verdict.DEAD), ProcessFacts(supervised=state), past)[1] == Decision()


def test_a_revival_after_health_is_a_first_one_again() -> None:
    past, _ = one(WELL, past=Past(revivals=4, well_s=960.0))
    assert past.revivals == 0
    past, _ = one(WELL, past=Past(revivals=4, well_s=990.0))
    assert past.revivals == 4


ALARM = Decision(note="stands", alarm=True)


@pytest.mark.parametrize(
    ("before", "now", "asked"),
    [
        (Decision(), Decision(), False),
        (Decision(), Decision(note="held off"), False),
        (Decision(), Decision(Act.START), False),
        (Decision(), Decision(Act.KILL), True),
        (ALARM, Decision(Act.KILL, alarm=True), True),
        (Decision(), ALARM, True),
        (ALARM, ALARM, False),  # the bug it would catch: the mark is looked at ten times a second while an alarm stands
        (ALARM, Decision(), False),
    ],
)
def test_whether_a_drill_is_under_way_is_asked_for_a_kill_and_as_an_alarm_begins(
    before: Decision, now: Decision, asked: bool
) -> None:
    assert differs_in_a_drill({"hub": before, "queues": Decision()}, {"queues": Decision(), "hub": now}) is asked
    assert differs_in_a_drill({}, {"hub": now}) is (asked or now.alarm), "the first turn of a watchdog"


@pytest.mark.parametrize("verdict", sorted(Verdict))
@pytest.mark.parametrize("blamed", [WELL, STALLED, Judgement(Verdict.DEAD)])
@pytest.mark.parametrize("kills", [0, 1, BUDGET_KILLS])
@pytest.mark.parametrize(
    "seen",
    [OLD, OLD._replace(killed_s=999.0), OLD._replace(supervised="STARTING", age_s=1.0), OLD._replace(wanted=False),
     OLD._replace(pid=0, supervised="FATAL")],
)  # fmt: skip
def test_where_no_drill_is_asked_for_one_would_change_nothing(
    verdict: Verdict, blamed: Judgement, kills: int, seen: ProcessFacts
) -> None:
    judgements = house(hub=Judgement(verdict, "why"), queues=blamed)
    given = judgements, facts(hub=seen), {"hub": Past(kills_s=(990.0,) * kills, alarmed=kills > 1)}, 1000.0
    found = decide(*given)
    if not differs_in_a_drill({}, found[1]):
        assert decide(*given, drill=True) == found


def test_queues_that_are_no_process_are_blamed_by_whoever_is_blocked_on_them() -> None:
    """Where PostgreSQL has the queues; where a process has them, only its own verdict counts."""
    alone = {name: judgement for name, judgement in house(gateway=STALLED).items() if name != "queues"}
    blocked = facts(gateway=OLD._replace(pulse=Pulse(blocked_on="queues")))
    assert blame("gateway", alone, blocked) == "queues"
    assert decide(alone, blocked, {}, 1000.0)[1]["gateway"].act is Act.NOTHING
    assert blame("gateway", alone, facts()) == ""
    assert blame("gateway", house(), blocked) == ""
