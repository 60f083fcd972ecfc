"""Conditions by table: what stands, when, and who is told."""

from __future__ import annotations

import pytest
from doubles.judged_fleet import JudgedFleet

from processes.core.conditions import beginnings, judge, signs
from processes.core.conditions.aside import ASIDE_S
from processes.core.conditions.freshness import House
from processes.core.conditions.rules import DEFAULTS, Rule
from processes.core.travels.judged import ConditionKind
from processes.core.values import Severity

RACK = [f"b4-{number:02}" for number in range(40)]
OTHERS = [f"web{number}" for number in range(20)]


def fleet(**options: object) -> JudgedFleet:
    made = JudgedFleet(**options)  # type: ignore[arg-type]
    made.add(*RACK, rack="b4", address="10.0.4.7:999")
    made.add(*OTHERS, rack="a1", address="10.0.1.7:999")
    return made


def test_a_host_that_is_away_for_longer_than_its_patience_is_told_once_and_its_return_says_how_long() -> None:
    play = fleet()
    play.lose("web1")
    play.go(55)
    assert play.told == []
    play.go(15)
    assert play.titles == ["web1 is offline"]
    play.go(100)
    play.back("web1")
    play.go(30)
    assert play.titles == ["web1 is offline"]
    (ended,) = play.shown.values()
    assert (ended.open, ended.over) == (False, "online again after 2 min 51 s")


def test_a_host_that_is_back_within_its_patience_is_not_told() -> None:
    play = fleet()
    play.lose("web1")
    play.go(50)
    play.back("web1")
    play.go(200)
    assert play.shown == {}


def test_a_host_that_was_told_and_blinks_online_for_a_moment_goes_on_to_be_the_same_condition() -> None:
    play = fleet()
    play.lose("web1")
    play.go(100)
    play.back("web1")
    play.go(5)
    play.lose("web1")
    play.go(200)
    assert (len(play.told), len(play.open)) == (1, 1)


def test_a_rack_that_vanishes_is_one_alarm_by_its_label_within_90_s_and_its_parts_are_listed() -> None:
    play = fleet()
    for number, host in enumerate(RACK):  # heartbeats end within 15 s
        play.lose(host)
        if number % 3 == 2:
            play.go(1)
    play.go(75)
    assert play.titles == ["40 hosts of rack=b4 went offline at once"]
    (group,) = play.told
    assert (group.severity, group.mass, group.left, group.host) == (Severity.CRITICAL, True, 40, None)
    assert sum(each.group == group.id for each in play.open) == 40
    assert group.labels == {"rack": "b4"}
    play.go(300)
    play.back(*RACK[:39])
    play.go(30)
    assert play.shown[group.id].left == 1
    assert play.shown[group.id].open
    play.back(RACK[39])
    play.go(30)
    assert play.open == []
    assert play.shown[group.id].over.startswith("over for all 40 after 6 min")
    assert len(play.told) == 1


def test_one_of_the_lost_that_comes_back_sick_is_told_for_itself() -> None:
    play = fleet()
    play.lose(*RACK)
    play.go(120)
    play.back(RACK[3])
    play.go(400, lambda: play.beat(RACK[3], disk=93.0))
    assert play.titles == ["40 hosts of rack=b4 went offline at once", f"{RACK[3]} has a disk that is almost full"]


def test_a_straggler_of_a_lost_rack_becomes_part_of_the_alarm_that_was_told() -> None:
    play = fleet()
    play.lose(*RACK[:38])
    play.go(30)
    assert play.titles == ["38 hosts of rack=b4 went offline at once"]
    play.lose(RACK[38])
    play.go(20)
    assert (len(play.told), play.shown[play.told[0].id].hosts) == (1, 39)
    play.go(60)
    play.lose(RACK[39])  # later than a minute: another trouble
    play.go(100)
    assert play.titles[1:] == [f"{RACK[39]} is offline"]


def test_a_network_is_named_where_no_label_says_it() -> None:
    play = JudgedFleet()
    play.add(*[f"x{n}" for n in range(10)], address="192.0.2.7:5000", env="prod")
    play.add(*[f"y{n}" for n in range(10)], address="[2001:db8:1::7]:5000", env="prod")
    play.lose(*[f"x{n}" for n in range(10)])
    play.go(90)
    assert play.titles == ["10 hosts of network 192.0.2.0/24 went offline at once"]
    play.lose(*[f"y{n}" for n in range(10)])
    play.go(90)
    assert play.titles[1:] == ["10 hosts of network 2001:db8:1::/64 went offline at once"]


def test_a_label_that_many_more_hosts_have_is_no_cause() -> None:
    play = JudgedFleet()
    play.add(*[f"x{n}" for n in range(60)], env="prod")
    play.lose("x1", "x5", "x9", "x20", "x33")  # five, but no fifth of the fleet
    play.go(100)
    assert sorted(play.titles) == [f"x{n} is offline" for n in (1, 20, 33, 5, 9)]


def test_a_label_of_which_a_third_of_the_hosts_are_well_is_no_cause() -> None:
    play = JudgedFleet()
    play.add(*[f"x{n}" for n in range(9)], rack="b4")
    play.add(*[f"y{n}" for n in range(60)], rack="c1")
    play.lose(*[f"x{n}" for n in range(6)])
    play.go(100)
    assert sorted(play.titles) == [f"x{n} is offline" for n in range(6)]


def test_hosts_that_were_removed_count_no_more_for_what_the_lost_share() -> None:
    play = JudgedFleet()
    play.add(*[f"x{n}" for n in range(10)], rack="b4")
    play.add(*[f"y{n}" for n in range(60)], rack="c1")
    for number in range(5):
        play.judge.host(f"x{number}", None, play.now)
    play.lose(*[f"x{n}" for n in range(5, 10)])
    play.go(100)
    assert play.titles == ["5 hosts of rack=b4 went offline at once"]


def test_a_fifth_of_the_fleet_at_once_is_one_alarm_whatever_they_share() -> None:
    play = JudgedFleet()
    play.add(*[f"x{n}" for n in range(30)])
    play.lose(*[f"x{n}" for n in range(6)])
    play.go(100)
    assert play.titles == ["6 hosts that share no label went offline at once"]
    assert play.told[0].mass
    play.back(*[f"x{n}" for n in range(6)])
    play.go(60)
    play.lose(*[f"x{n}" for n in range(30)])
    play.go(60)
    assert play.titles[1:] == ["30 hosts, the whole fleet, went offline at once"]


def test_two_racks_that_vanish_together_are_two_alarms() -> None:
    play = fleet()
    play.add(*[f"c{n}" for n in range(40)], rack="c9")
    play.lose(*RACK, *OTHERS)
    play.go(60)
    assert play.titles == ["40 hosts of rack=b4 went offline at once", "20 hosts of rack=a1 went offline at once"]


def test_laptops_that_go_home_together_are_no_mass_loss() -> None:
    patient = Rule(ConditionKind.OFFLINE, "rack=b4", for_s=14 * 86400.0)
    play = fleet(rules=(patient, Rule(ConditionKind.OFFLINE, for_s=60.0)))
    play.lose(*RACK)
    play.go(300)
    assert play.shown == {}


def test_nothing_is_said_while_the_house_is_not_well_and_what_is_really_away_is_said_afterwards() -> None:
    play = fleet()
    play.lose("web1")
    play.go(30)
    play.house = House(1, is_well=False)
    play.lose(*RACK, *OTHERS[2:])
    play.go(600)
    assert play.shown == {}
    play.house = House(2, is_well=True, is_anew=True)
    play.go(3)
    play.back(*RACK, *OTHERS[2:])
    play.house = House(2)
    play.go(45)
    assert play.shown == {}
    play.go(60)
    assert play.titles == ["web1 is offline"]


def test_time_in_which_nobody_could_see_hosts_counts_against_none() -> None:
    play = fleet(rules=(Rule(ConditionKind.OFFLINE, for_s=600.0),))
    play.lose("web1")
    play.go(30)
    play.house = House(1, is_well=False)
    play.go(560)
    play.house = House(1)
    play.go(500)
    assert play.shown == {}
    play.go(100)
    assert play.titles == ["web1 is offline"]


def test_reboots_by_command_count_for_no_flapping() -> None:
    play = fleet()
    for number in range(6):
        play.command("web1", "reboot", "running", f"c{number}")
        play.lose("web1")
        play.go(10)
        play.back("web1")
        play.command("web1", "reboot", "succeeded", f"c{number}")
        play.go(5)
    play.go(100)
    assert play.shown == {}


def test_a_host_that_is_labelled_later_is_silenced_at_once() -> None:
    play = fleet()
    play.lose("web1")
    play.go(100)
    play.silence(("tier=1", 0.0, 7200.0))
    play.go(5)
    before = [each.silence for each in play.open]
    play.change("web1", labels={"tier": "1"})
    play.go(2)
    assert (before, [each.silence for each in play.open]) == ([""], ["s0"])


def test_nothing_is_over_while_the_house_is_not_well() -> None:
    play = fleet()
    play.lose("web1")
    play.go(100)
    play.house = House(1, is_well=False)
    play.back("web1")
    play.go(100)
    assert len(play.open) == 1
    play.house = House(1)
    play.go(30)
    assert play.open == []


def test_hosts_of_a_gateway_that_died_are_given_time_and_only_who_stays_away_is_told() -> None:
    play = fleet()
    play.change(*RACK, gateway="gateway:1")
    play.go(1)
    play.house = House(1, gateways=frozenset({"gateway:1"}))
    play.lose(*RACK)
    play.lose("web1")  # of another gateway: it has no more patience for that
    play.go(40)
    play.house = House(1)
    play.back(*RACK[1:], gateway="gateway:1")
    play.go(50)
    assert play.titles == ["web1 is offline"]
    play.go(80)
    assert play.titles == ["web1 is offline", f"{RACK[0]} is offline"]


def test_the_end_of_a_gateway_counts_for_no_flapping() -> None:
    play = fleet()
    for _ in range(6):
        play.house = House(1, gateways=frozenset({"gateway"}))
        play.go(1)
        play.lose(*RACK)
        play.go(5)
        play.back(*RACK)
        play.house = House(1)
        play.go(5)
    play.go(80)
    play.beat(*RACK)  # each heartbeat has a host looked at
    play.go(20)
    assert play.shown == {}


@pytest.mark.parametrize(
    "trouble", [House(1, gateways=frozenset({"gateway"})), House(1, is_well=False), House(2), House(1, is_anew=True)]
)
def test_hosts_that_are_seen_to_go_before_the_report_says_why_count_for_no_flapping(trouble: House) -> None:
    play = fleet()
    epoch = 1
    for _ in range(6):
        play.lose(*RACK)
        play.go(2)
        epoch += trouble.epoch - 1
        play.house = trouble._replace(epoch=epoch)
        play.go(2)
        play.back(*RACK)
        play.house = House(epoch)
        play.go(75, lambda: play.beat(RACK[0], disk=10.0))
    assert [each for each in play.shown.values() if each.kind is ConditionKind.FLAPPING] == []


def test_hosts_that_go_while_the_house_is_unwell_count_for_no_flapping() -> None:
    play = fleet()
    for _ in range(6):
        play.house = House(1, is_well=False)
        play.go(20)
        play.lose(*RACK)
        play.go(1)
        play.back(*RACK)
        play.house = House(1)
        play.go(1)
    play.go(100)
    assert [each for each in play.shown.values() if each.kind is ConditionKind.FLAPPING] == []


def test_a_host_under_its_own_reboot_is_not_told_unless_it_stays_away() -> None:
    play = fleet()
    play.command("web1", "reboot", "running")
    play.lose("web1")
    play.go(240)
    play.back("web1")
    play.command("web1", "reboot", "succeeded")
    play.go(100)
    assert play.shown == {}
    play.command("web2", "reboot", "running", "c2")
    play.lose("web2")
    play.go(300)
    play.command("web2", "reboot", "lost", "c2", reason="no_new_boot")
    play.go(30)
    assert play.titles == ["web2 lost a command"]
    play.go(60)
    assert play.titles == ["web2 lost a command", "web2 is offline"]


def test_another_command_under_way_excuses_nothing() -> None:
    play = fleet()
    play.command("web1", "pull", "running")
    play.lose("web1")
    play.go(100)
    assert play.titles == ["web1 is offline"]


def test_a_silenced_host_is_listed_and_not_told_and_is_told_when_the_silence_ends() -> None:
    play = fleet()
    play.silence(("rack=b4", 0, 600))
    play.lose(*RACK)
    play.go(200)
    assert play.told == []
    assert len(play.open) == 40
    assert {each.silence for each in play.open} == {"s0"}
    play.go(500)
    assert play.titles == ["40 hosts of rack=b4 went offline at once"]
    assert len(play.open) == 41


def test_a_silence_made_beforehand_counts_from_its_beginning_on() -> None:
    play = fleet()
    play.silence(("name=web1", 300, 900))
    play.lose("web1", "web2")
    play.go(200)
    assert sorted(play.titles) == ["web1 is offline", "web2 is offline"]
    play.go(200)
    silenced = next(each for each in play.open if each.host == "web1")
    assert silenced.silence == "s0"
    play.back("web1", "web2")
    play.go(100)
    play.lose("web1", "web2")
    play.go(100)
    assert play.titles[2:] == ["web2 is offline"]


def test_a_full_disk_is_told_by_its_grade_and_is_over_only_well_below_the_limit() -> None:
    play = fleet()
    play.go(400, lambda: play.beat("web1", disk=91.0))
    assert [(each.title, each.severity) for each in play.told] == [
        ("web1 has a disk that is almost full", Severity.WARNING)
    ]
    play.go(300, lambda: play.beat("web1", disk=89.5))  # below the limit, but by less than the margin
    assert len(play.open) == 1
    play.go(100, lambda: play.beat("web1", disk=98.0))
    assert [each.severity for each in play.told] == [Severity.WARNING, Severity.CRITICAL]
    play.go(100, lambda: play.beat("web1", disk=50.0))
    assert (play.open, len(play.told)) == ([], 2)


def test_a_disk_that_is_full_at_once_is_one_alarm_of_the_graver_grade() -> None:
    play = fleet()
    play.go(900, lambda: play.beat("web1", disk=99.0))
    assert [each.severity for each in play.told] == [Severity.CRITICAL]


def test_a_rule_further_up_takes_the_place_of_one_with_the_same_query_and_severity() -> None:
    own = Rule(ConditionKind.DISK, limit=80.0, for_s=10.0)
    play = fleet(rules=(own, *DEFAULTS))
    play.go(60, lambda: play.beat("web1", disk=95.0))
    assert play.titles == ["web1 has a disk that is almost full"]


def test_a_peak_is_not_told() -> None:
    play = fleet()
    for _ in range(10):
        play.go(100, lambda: play.beat("web1", disk=95.0, ram=99.0))
        play.go(20, lambda: play.beat("web1", disk=50.0, ram=10.0))
    assert play.shown == {}


@pytest.mark.parametrize(
    ("kind", "metrics", "title"),
    [
        ("memory", {"ram": 98.0}, "web1 has hardly any memory left"),
        ("temperature", {"temperatures": {"cpu": 60.0, "nvme": 99.0}}, "web1 is too hot"),
    ],
)
def test_numbers_over_their_limit_are_told(kind: str, metrics: dict[str, object], title: str) -> None:
    play = fleet()
    play.go(700, lambda: play.beat("web1", **metrics))
    assert play.titles == [title]
    assert play.told[0].kind == kind
    play.lose("web1")  # what cannot be seen is not over
    play.go(30)
    assert len(play.open) == 1


def test_a_clock_is_apart_by_more_than_the_age_of_its_reading() -> None:
    play = fleet()
    play.go(700, lambda: play.beat("web1", clock_s=play.now.wall_s - 70.0))  # it may have been read 25 s ago
    assert play.shown == {}
    play.go(700, lambda: play.beat("web1", clock_s=play.now.wall_s - 100.0))
    play.go(700, lambda: play.beat("web2", clock_s=play.now.wall_s + 62.0))
    assert play.titles == ["web1 has a clock that is apart", "web2 has a clock that is apart"]


def test_a_host_that_comes_and_goes_is_told_once_and_is_over_when_it_is_steady() -> None:
    play = fleet()
    for _ in range(8):
        play.lose("web1")
        play.go(20)
        play.back("web1")
        play.go(40)
    assert play.titles == ["web1 comes and goes"]
    play.go(520)
    assert len(play.open) == 1
    play.go(90)
    assert play.open == []


def test_a_stale_host_is_told_as_such_and_a_lost_one_is_not_told_twice() -> None:
    play = fleet()
    play.change("web1", presence="stale")
    play.go(320)
    assert play.titles == ["web1 sends no heartbeats"]
    play.change("web2", presence="stale")
    play.go(15)
    play.lose("web2")
    play.go(400)
    assert play.titles == ["web1 sends no heartbeats", "web2 is offline"]


def test_an_old_agent_is_told_after_a_day() -> None:
    play = fleet(rules=(Rule(ConditionKind.AGENT_OLD, for_s=3600.0, severity=Severity.INFO),))
    play.change("web1", agent_version="0.1.9")
    play.go(3700)
    assert play.titles == ["web1 has an old agent"]
    play.change("web1", agent_version="0.2.0")
    play.go(20)
    assert play.open == []


def test_a_failed_command_is_over_when_the_same_operation_succeeds_and_others_change_nothing() -> None:
    play = fleet()
    play.command("web1", "pull", "failed", exit_code=3)
    play.go(10)
    assert (play.titles, play.told[0].text) == (["web1 failed a command"], "pull: exit code 3; command c1")
    play.command("web1", "switch", "succeeded", "c2")
    play.command("web1", "pull", "failed", "c3", exit_code=4)
    play.go(10)
    assert (len(play.open), len(play.told)) == (1, 1)
    play.command("web1", "pull", "succeeded", "c4")
    play.go(10)
    assert play.open == []


def test_what_happened_once_is_over_when_it_is_acknowledged_and_does_not_begin_again() -> None:
    play = fleet()
    play.command("web1", "pull", "lost", reason="rebooted")
    play.go(10)
    play.judge.happenings.acknowledged(play.open[0], play.now)
    play.go(1)
    assert play.open == []
    play.judge = play.new_judge()
    play.command("web1", "pull", "lost", reason="rebooted")  # its row is seen again
    play.go(100)
    assert (play.open, len(play.told)) == ([], 1)


def test_a_run_that_fails_everywhere_is_one_alarm() -> None:
    play = fleet()
    for number, host in enumerate(RACK[:12]):
        play.command(host, "pull", "failed", f"c{number}", run="0123456789abcdef")
        play.go(1)
    play.run("0123456789abcdef", good=False)
    play.go(10)
    titles = sorted(play.titles)
    assert titles[-1] == "run 01234567 stopped"
    assert any(title.endswith("hosts of run 01234567 failed a command at once") for title in titles)
    assert sum(1 for each in play.open if not each.group) == 2
    play.run("1", good=True)
    play.go(10)
    assert "run 01234567 stopped" not in [each.title for each in play.open]


def test_a_removed_host_has_no_conditions() -> None:
    play = fleet()
    play.lose("web1", "web2")
    play.go(40)
    play.judge.host("web2", None, play.now)
    play.go(60)
    play.judge.host("web1", None, play.now)
    play.go(60)
    assert (play.titles, play.open) == (["web1 is offline"], [])


@pytest.mark.parametrize("fields", [{"revoked": True}, {"suspended": "poison"}, {"last_seen": None}])
def test_a_host_that_is_meant_to_be_away_or_was_never_here_is_not_told(fields: dict[str, object]) -> None:
    play = fleet()
    play.lose("web1")
    play.change("web1", **fields)
    play.go(400)
    assert play.shown == {}


def test_another_judge_goes_on_with_what_stands_and_tells_nobody_twice() -> None:
    play = fleet()
    play.lose(*RACK, "web1")
    play.go(100)
    told = list(play.told)
    play.judge = play.new_judge()
    play.go(200)
    assert play.told == told
    play.back(*RACK, "web1")
    play.go(30)
    assert play.open == []


def test_a_rule_that_is_taken_back_ends_what_it_said() -> None:
    play = fleet()
    play.lose("web1")
    play.go(100)
    play.rules = (Rule(ConditionKind.OFFLINE, "name=web1", severity=None), Rule(ConditionKind.OFFLINE, for_s=60.0))
    play.judge = play.new_judge()
    play.go(200)
    assert [each.over for each in play.shown.values()] == ["no rule is about it any more"]


def test_a_label_that_comes_later_takes_the_host_to_another_rule() -> None:
    patient = Rule(ConditionKind.OFFLINE, "role=laptop", for_s=86400.0)
    play = fleet(rules=(patient, Rule(ConditionKind.OFFLINE, for_s=60.0)))
    play.lose("web1")
    play.go(30)
    play.change("web1", labels={"role": "laptop"})
    play.go(300)
    assert play.shown == {}


def test_a_judge_that_was_away_itself_learns_anew() -> None:
    play = fleet()
    play.go(1)
    play.at_s += 300  # the machine was suspended: every host is lost by that
    play.lose(*RACK)
    play.go(50)
    play.back(*RACK)
    play.go(100)
    assert play.shown == {}


def test_a_host_that_cannot_be_judged_is_put_aside_alone_and_is_judged_again_once_it_can_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The bug it would catch: values of one host end the judging of all, for as long as they come again."""
    right = signs.sign
    play = fleet()
    with monkeypatch.context() as patch:
        patch.setattr(signs, "sign", lambda rule, host, *more: 1 / (host.name != RACK[0]) and right(rule, host, *more))
        play.beat(RACK[0], disk=99)
        play.beat(OTHERS[0], disk=99)
        play.go(400)
        assert {each.host for each in play.open} == {OTHERS[0]}
        ((name, mistake),) = play.judge.aside.take().items()
        assert (name, type(mistake)) == (RACK[0], ZeroDivisionError)
    play.go(ASIDE_S + 400)
    assert {each.host for each in play.open} == {RACK[0], OTHERS[0]}
    assert not play.judge.aside.take()


def test_a_host_whose_first_row_cannot_be_taken_in_spoils_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    play = fleet()
    play.rows["new1"] = {**play.rows["web1"], "name": "new1"}
    with monkeypatch.context() as patch:
        patch.setattr(judge, "wall_s", lambda _: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            play.change("new1", presence="offline")
    play.house = House(2)  # a trouble of the house: all hosts' tracks are looked at
    play.lose("web1")
    play.go(200)
    assert play.titles == ["web1 is offline"]


def test_a_silence_that_cannot_be_asked_of_one_host_silences_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    play = fleet()
    play.silence(("rack=b4", 0.0, 7200.0))
    right = play.judge.row
    monkeypatch.setattr(play.judge, "row", lambda name: {"labels": 1 // (name != RACK[0])} and right(name))
    for name in RACK[:2]:
        play.beat(name, disk=99)
    play.go(400)
    assert [(each.host, bool(each.silence)) for each in play.open] == [(RACK[1], True)]
    assert list(play.judge.aside.take()) == [RACK[0]]


def test_what_ended_runs_have_in_common_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bug it would catch: a judge that keeps an entry of each command that ever failed in a run."""
    monkeypatch.setattr(beginnings, "TRAITS_SPARE", 5)
    play = fleet()
    for number in range(40):
        play.command(RACK[0], "pull", "failed", f"c{number}", run=f"{number:08}")
        play.go(10)
        play.command(RACK[0], "pull", "succeeded", f"d{number}")
        play.go(1)
        assert len(play.judge._beginnings.own_traits) <= 5 + 2 * 2
