"""A short round of faults of all kinds, two or three at a time, and one of mutated messages; `bin/hostile` is the long
form of both.
"""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest
from doubles.fuzz import Fuzz
from doubles.hostile import FAULTS, Campaign
from doubles.house import House

CHECKOUT = Path(__file__).resolve().parents[2]
SECONDS = 6.0
MESSAGES = 1000
LASTS_S = (0.5, 2.0)
# a flood may still get the gateway replaced until its budget is used up; a disk that fails makes ends uncertain
LEFT_OUT = {"flood", "disk-hub", "disk-remote-agent"}


@pytest.mark.house
@pytest.mark.timeout(400)
def test_neither_mutated_messages_nor_faults_of_all_kinds_at_once_break_an_invariant() -> None:
    with House() as house:
        lines: list[str] = []
        fuzzed = asyncio.run(Fuzz(house, 11, say=lines.append).run(MESSAGES))
        assert fuzzed.problems == [], fuzzed.lines() + house.logs()
        assert fuzzed.sent.total() == MESSAGES
        campaign = Campaign(house, seed=11, faults=set(FAULTS) - LEFT_OUT, say=lines.append)
        summary = asyncio.run(campaign.run(SECONDS, LASTS_S))
        assert summary.problems == [], summary.lines() + "\n".join(lines) + house.logs()
        assert summary.rounds >= 1
        assert summary.states["succeeded"] > 3, "the load ran"


def test_the_campaign_names_its_options_and_refuses_a_fault_that_it_does_not_know() -> None:
    program = str(CHECKOUT / "bin" / "hostile")
    told = subprocess.run([program, "--help"], capture_output=True, text=True, check=True).stdout
    told = "".join(told.split())  # names are broken at their hyphens
    assert all(word in told for word in ("--minutes", "--messages", "--seed", "--without", *FAULTS))
    wrong = subprocess.run([program, "--without", "locusts"], capture_output=True, text=True)
    assert (wrong.returncode, "no fault locusts" in wrong.stderr) == (2, True)
