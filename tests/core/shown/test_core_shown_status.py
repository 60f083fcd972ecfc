"""The verdict on the whole."""

from __future__ import annotations

import msgspec
import pytest

from processes.core.agent.reconnect import BACKOFF_S_MAX
from processes.core.records.ledger import Ledger
from processes.core.shown.status import (
    AGENTS_BACK_S,
    CanaryReport,
    CommandsReport,
    FleetReport,
    IncidentsReport,
    Overall,
    PortReport,
    ProcessReport,
    PulseReport,
    Report,
    Verdict,
    Witness,
    is_wanted,
    judged,
    of_hosts,
    state_of,
)
from processes.core.travels.pulse import Pulse

GREEN = CanaryReport(ok=True)
RED = CanaryReport(ok=False)
PAST = CanaryReport(ok=False, age_s=7.0)  # it went round before


def row(
    name: str, verdict: Verdict = Verdict.ADVANCING, *, wanted: bool = True, blocked_on: str | None = None
) -> ProcessReport:
    pulse = PulseReport(blocked_on=blocked_on)
    return ProcessReport(name, "RUNNING", 1, 1.0, 0, 1, verdict, pulse=pulse, wanted=wanted)


def overall(processes: list[ProcessReport], canary: CanaryReport, *, silent: bool) -> tuple[Overall, list[str]]:
    """Return the verdict, and the texts of what makes it so."""
    grade, found = judged(processes, canary, Witness.SILENT if silent else Witness.PRESENT)
    return grade, [each.text for each in found]


def house(hub: Verdict = Verdict.ADVANCING, other: Verdict = Verdict.ADVANCING) -> list[ProcessReport]:
    return [row("queues", other), row("hub", hub), row("watchdog"), row("agent", Verdict.STOPPED, wanted=False)]


@pytest.mark.parametrize(
    ("pid", "said", "said_pid", "shown"),
    [
        (7, "RUNNING", 7, "RUNNING"),
        (7, "STARTING", 7, "STARTING"),
        (7, "STOPPED", 0, "STARTING"),
        (8, "RUNNING", 7, "STARTING"),
        (8, "BACKOFF", 0, "STARTING"),
        (0, "RUNNING", 7, "EXITED"),
        (0, "FATAL", 0, "FATAL"),
        (0, "STOPPED", 0, "STOPPED"),
    ],
)
def test_supervisords_word_gives_way_to_what_the_kernel_has_known_since(
    pid: int, said: str, said_pid: int, shown: str
) -> None:
    assert state_of(pid, said, said_pid) == shown


def test_all_well_is_ok_without_a_reason() -> None:
    assert overall(house(), GREEN, silent=False) == (Overall.OK, [])


@pytest.mark.parametrize(
    ("hub", "expected"),
    [
        (Verdict.DEAD, Overall.DOWN),
        (Verdict.STARTING, Overall.DOWN),
        (Verdict.STOPPED, Overall.DOWN),
        (Verdict.FROZEN, Overall.STALLED),
        (Verdict.STALLED, Overall.STALLED),
        (Verdict.UNKILLABLE, Overall.STALLED),
        (Verdict.LAGGING, Overall.DEGRADED),
        (Verdict.EXCUSED, Overall.DEGRADED),
        (Verdict.ADVANCING, Overall.OK),
    ],
)
def test_the_hub_decides(hub: Verdict, expected: Overall) -> None:
    grade, reasons = overall(house(hub), GREEN, silent=False)
    assert grade is expected
    assert bool(reasons) == (expected is not Overall.OK)


def test_a_watchdog_that_says_nothing_is_named_once_and_one_that_was_stopped_is_not_called_silent() -> None:
    def reasons(watchdog: ProcessReport) -> list[str]:
        return overall([*house()[:2], watchdog], GREEN, silent=True)[1]

    assert reasons(row("watchdog", Verdict.STOPPED, wanted=False)) == ["the watchdog is stopped, as asked"]
    assert reasons(row("watchdog", Verdict.SILENT)) == ["the watchdog is silent"]
    assert reasons(row("watchdog", Verdict.STARTING)) == ["watchdog is starting", "the watchdog is silent"]


def test_no_hub_at_all_is_down() -> None:
    assert overall([row("queues")], GREEN, silent=False)[0] is Overall.DOWN


def test_a_red_canary_is_stalled() -> None:
    assert overall(house(), RED, silent=False)[0] is Overall.STALLED


def test_a_silent_watchdog_is_degraded_and_its_canary_says_nothing() -> None:
    grade, reasons = overall(house(), RED, silent=True)
    assert grade is Overall.DEGRADED
    assert reasons == ["the watchdog is silent"]
    assert overall(house(Verdict.FROZEN), RED, silent=True)[0] is Overall.STALLED


@pytest.mark.parametrize("other", sorted(set(Verdict) - {Verdict.ADVANCING, Verdict.STANDBY}))
def test_any_other_process_that_is_not_well_degrades(other: Verdict) -> None:
    assert overall(house(other=other), GREEN, silent=False)[0] is Overall.DEGRADED


def test_what_an_operator_stopped_is_not_counted() -> None:
    assert overall([*house(), row("fanout", Verdict.STOPPED, wanted=False)], GREEN, silent=False)[0] is Overall.OK


def test_blocked_storage_degrades() -> None:
    grade, reasons = overall([row("hub", blocked_on="storage")], GREEN, silent=False)
    assert grade is Overall.DEGRADED
    assert reasons == ["hub is blocked on storage"]


@pytest.mark.parametrize(
    ("grade", "code"), [(Overall.OK, 0), (Overall.DEGRADED, 1), (Overall.STALLED, 2), (Overall.DOWN, 2)]
)
def test_exit_codes_are_those_of_monitoring_plugins(grade: Overall, code: int) -> None:
    assert grade.exit_code == code


def test_only_the_agent_must_be_asked_for() -> None:
    assert is_wanted("hub", {})
    assert not is_wanted("hub", {"hub": "stopped"})
    assert not is_wanted("agent", {})
    assert is_wanted("agent", {"agent": "running"})


def test_a_report_survives_its_json() -> None:
    report = msgspec.json.decode(
        b'{"verdict":"ok","epoch":3,"processes":[],"canary":{"ok":true},"fleet":{},"commands":{},"incidents":{}}',
        type=Report,
    )
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


@pytest.mark.parametrize("name", ["queues", "gateway", "gateway:1", "fanout", "fanout:0"])
def test_a_red_canary_names_what_an_operator_stopped_on_its_way(name: str) -> None:
    grade, reasons = overall([*house(), row(name, Verdict.STOPPED, wanted=False)], PAST, silent=False)
    assert (grade, reasons) == (
        Overall.STALLED,
        ["no canary command went round lately", f"{name} is stopped, as asked"],
    )


def knocked(agents: bool, operators: bool) -> CanaryReport:
    ports = [
        PortReport("agents", "127.0.0.1:7701", agents, 7.0, "no answer within 2 s"),
        PortReport("operators", "127.0.0.1:7700", operators, 7.0, "Connection refused"),
    ]
    return CanaryReport(age_s=7.0, ports=ports)


AGENTS_CLOSED = "the agents' port 127.0.0.1:7701 answers no new connection: no answer within 2 s"
OPERATORS_CLOSED = "the operators' port 127.0.0.1:7700 answers no new connection: Connection refused"


@pytest.mark.parametrize(
    ("canary", "said"),
    [
        (knocked(agents=False, operators=True), [AGENTS_CLOSED]),
        (knocked(agents=True, operators=False), [OPERATORS_CLOSED]),
        (knocked(agents=False, operators=False), [AGENTS_CLOSED, OPERATORS_CLOSED]),
        (knocked(agents=True, operators=True), ["no canary command went round lately"]),
    ],
)
def test_a_port_that_answers_no_fresh_connection_is_named(canary: CanaryReport, said: list[str]) -> None:
    rows = [*house(), row("gateway:0"), row("gateway:1"), row("fanout")]
    assert overall(rows, canary, silent=False) == (Overall.STALLED, said)


def test_a_port_at_which_nobody_has_knocked_yet_is_not_called_closed() -> None:
    ports = [PortReport("agents", "127.0.0.1:7701"), PortReport("operators", "127.0.0.1:7700")]
    assert overall([*house(), row("gateway"), row("fanout")], CanaryReport(ports=ports), silent=False) == (
        Overall.STALLED,
        ["no canary command went round yet"],
    )


def test_a_port_that_an_operator_closed_is_told_as_that() -> None:
    rows = [*house(), row("gateway", Verdict.STOPPED, wanted=False), row("fanout")]
    assert overall(rows, knocked(agents=False, operators=True), silent=False) == (
        Overall.STALLED,
        ["no canary command went round lately", "gateway is stopped, as asked"],
    )


def test_a_hub_that_an_operator_stopped_is_told_from_one_that_died() -> None:
    assert overall([row("hub", Verdict.STOPPED, wanted=False)], RED, silent=False) == (
        Overall.DOWN,
        ["the hub is stopped, as asked"],
    )
    assert overall([row("hub", Verdict.DEAD)], RED, silent=False) == (Overall.DOWN, ["the hub is dead"])
    why = msgspec.structs.replace(row("hub", Verdict.DEAD), reason="no process (FATAL): fleet.db is missing")
    said = "the hub is dead: no process (FATAL): fleet.db is missing"
    assert overall([why], RED, silent=False) == (Overall.DOWN, [said])


def test_a_canary_that_never_went_round_is_told_from_one_that_no_longer_does() -> None:
    rows = [*house(), row("gateway"), row("fanout")]
    assert overall(rows, PAST, silent=False) == (Overall.STALLED, ["no canary command went round lately"])
    assert overall(rows, RED, silent=False) == (Overall.STALLED, ["no canary command went round yet"])


def test_counts_that_nobody_has_read_are_null_under_the_same_keys() -> None:
    """The bug it would catch: a status that says "no command was ever accepted" because its writer began just now."""
    unknown = msgspec.to_builtins(CommandsReport.of(None))
    assert unknown == dict.fromkeys(msgspec.to_builtins(Ledger()))
    assert msgspec.to_builtins(CommandsReport.of(Ledger())) == dict.fromkeys(unknown, 0)
    ledger = Ledger(3, succeeded=2, lost=1)
    assert msgspec.to_builtins(CommandsReport.of(ledger)) == msgspec.to_builtins(ledger)


def test_a_hub_that_has_not_turned_yet_does_not_say_that_there_is_no_host() -> None:
    assert FleetReport.of(None) == FleetReport.of(Pulse(pid=7)) == FleetReport(None, None, None, None)
    assert FleetReport.of(Pulse(pid=7, written_ns=1)) == FleetReport(0, 0, 0, 0)
    assert FleetReport.of(Pulse(written_ns=1, hosts=9, online=6, stale=2, offline=1)) == FleetReport(9, 6, 2, 1)


@pytest.mark.parametrize(
    ("ages_s", "fleet", "said"),
    [
        ([4.4], (3, 0), "0 of 3 hosts online, as gateway began 4 s ago: agents connect again within 60 s"),
        ([900.0, 4.4], (3, 2), "2 of 3 hosts online, as gateway:1 began 4 s ago: agents connect again within 60 s"),
        ([60.0], (3, 0), "none of 3 hosts is online"),
        ([60.0], (3, 1), ""),
        ([4.4], (3, 3), ""),
        ([4.4], (0, 0), ""),
        ([4.4], (None, None), ""),
        ([], (3, 0), "none of 3 hosts is online"),
        ([None], (3, 0), "none of 3 hosts is online"),
    ],
)
def test_a_well_installation_says_which_hosts_it_lacks(
    ages_s: list[float | None], fleet: tuple[int | None, int | None], said: str
) -> None:
    """The bug it would catch: `ok`, and nothing else, while all hosts are away after a gateway's death."""
    gateways = [
        msgspec.structs.replace(row("gateway" if number == 0 else f"gateway:{number}"), uptime_s=age_s)
        for number, age_s in enumerate(ages_s)
    ]
    report = Report(
        verdict=Overall.OK, epoch=1, processes=[row("hub"), *gateways], canary=GREEN,
        fleet=FleetReport(hosts=fleet[0], online=fleet[1]), commands=CommandsReport(), incidents=IncidentsReport(),
    )  # fmt: skip
    assert of_hosts(report) == said
    for verdict in set(Overall) - {Overall.OK}:
        assert of_hosts(msgspec.structs.replace(report, verdict=verdict)) == "", "it says why it is unwell"


def test_the_time_that_agents_have_to_come_back_is_their_longest_pause() -> None:
    assert AGENTS_BACK_S == BACKOFF_S_MAX
