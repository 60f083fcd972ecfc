"""Agents that claim to be another host: each is counted, and a bounded number of times somebody is told."""

from __future__ import annotations

from processes.core.gateway.impersonation import TOLD_MAX, TOLD_S, Impersonations


def test_a_host_is_told_of_at_once_and_then_once_a_minute_with_how_often() -> None:
    seen = Impersonations()
    assert seen.due(0.0) == []
    seen.saw("web1", "b.1", "web2", "10.0.0.1:5")
    assert [(each.host, each.claimed, each.times) for each in seen.due(0.0)] == [("web1", "web2", 1)]
    for number in range(500):
        seen.saw("web1", f"b.{number}", "web3", "10.0.0.2:5")
        assert seen.due(TOLD_S - 1) == []
    (told,) = seen.due(TOLD_S)
    assert (told.claimed, told.address, told.times) == ("web3", "10.0.0.2:5", 500)
    assert seen.due(9 * TOLD_S) == []
    assert seen.count == 501


def test_of_all_hosts_so_many_are_told_of_in_a_minute_and_the_others_after_it() -> None:
    """The bug it would catch: a fleet whose tokens were stolen fills the audit trail."""
    seen = Impersonations()
    for number in range(100):
        seen.saw(f"web{number}", "b.1", "hub", "10.0.0.1:5")
    told = [len(seen.due(float(now_s))) for now_s in range(int(6 * TOLD_S))]
    assert sum(told) == 100
    for minute in range(6):
        assert sum(told[minute * int(TOLD_S) : (minute + 1) * int(TOLD_S)]) <= TOLD_MAX
